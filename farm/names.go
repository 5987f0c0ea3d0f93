package farm

import (
	"net/netip"
	"slices"
	"strings"

	"github.com/scalr-go/scalr/dnsreg"
)

// publish decides the names. Every role has these, in the spec's zone:
//
//	<role>           its service: all machines that serve; for a database the primary
//	int-<role>       the same by private addresses
//	<role>-<index>   one machine
//	<role>-primary   the primary of a database
//	<role>-replicas  the replicas of a database that serve reads
//	<alias>, apex    the same as <role>
//
// A role that serves web, or nothing that the farm knows of, is published by its public addresses, or private ones where
// it has no others; databases and caches by private addresses alone. With a balancer the service is the balancer.
//
// A name never becomes empty because machines are ill: while nobody serves, it keeps what it has.
func (d *decision) publish() {
	if d.spec.Zone == "" {
		return
	}
	if d.o.zoneErr != nil {
		d.plan.left = true
		d.wait("", 0, "names cannot follow: %v", d.o.zoneErr)
		return
	}
	if d.end != nil && d.end.KeepNames {
		return
	}
	var want []dnsreg.RRset
	if d.end == nil {
		want = d.names()
	}
	changes, err := dnsreg.Diff(d.spec.Zone, d.owner(), d.o.zone, want)
	if err != nil {
		for line := range strings.SplitSeq(err.Error(), "\n") {
			d.wait("", 0, "names: %s", line)
		}
	}
	if len(changes) > 0 {
		d.plan.left = true
		d.step(Step{Action: ChangeNames, Subject: d.spec.Zone, Changes: changes, Reason: "names follow the machines that serve"})
	}
}

// owner is the farm's name as an owner of records.
func (d *decision) owner() string { return "farm/" + d.spec.Name }

// names gives the records that the farm wants.
func (d *decision) names() []dnsreg.RRset {
	owned := dnsreg.Owned(d.spec.Zone, d.owner(), d.o.zone)
	n := &nameset{zone: d.spec.Zone, sets: map[[2]string]*dnsreg.RRset{}}
	for i := range d.spec.Roles {
		r := &d.spec.Roles[i]
		var service, private, primary, replicas []netip.Addr
		public := r.Serves == Web || r.Serves == ""
		for _, m := range d.byRole[r.Name] {
			if d.holders[m.slot] != m || !m.ready || !m.draining.IsZero() || !m.private.IsValid() && !m.public.IsValid() {
				continue
			}
			inside, outside := publicOf(m.public, m.private), publicOf(m.private, m.public)
			if r.Address {
				if outside = d.slotAddress(m); !outside.IsValid() {
					continue // until its slot's address has come to it, it has one that it will not keep
				}
			}
			if !public {
				outside = inside
			}
			n.add(m.slot.name(), outside)
			private = append(private, inside)
			switch {
			case r.Serves != Database:
				service = append(service, outside)
			case d.primary(m):
				primary = append(primary, inside)
			default:
				replicas = append(replicas, inside)
			}
		}
		if r.Serves == Database {
			service = primary
			n.add(r.Name+"-primary", primary...)
			n.add(r.Name+"-replicas", replicas...)
		}
		n.add("int-"+r.Name, private...)
		names := append([]string{r.Name}, r.Aliases...)
		if host := d.balancerHost(r); host != "" {
			for _, name := range names {
				n.point(name, host)
			}
		} else {
			n.addEach(names, service)
		}
		if r.Main {
			// The apex has other records, so that it cannot be a CNAME (RFC 1034, section 3.6.2).
			if addr, err := netip.ParseAddr(strings.TrimSuffix(d.balancerHost(r), ".")); err == nil {
				service = []netip.Addr{addr}
			}
			n.add("", service...)
		}
	}
	d.keepNames(n, owned)
	var want []dnsreg.RRset
	for _, s := range n.sets {
		s.TTL = d.spec.TTL
		want = append(want, *s)
	}
	slices.SortFunc(want, func(a, b dnsreg.RRset) int { return strings.Compare(a.Name+" "+a.Type, b.Name+" "+b.Type) })
	return want
}

// keepNames leaves what a service's name has while nobody serves it. Names of single machines go with the slot.
func (d *decision) keepNames(n *nameset, owned []dnsreg.RRset) {
	var stay []string
	for i := range d.spec.Roles {
		r := &d.spec.Roles[i]
		if d.plan.Desired[r.Name].Count == 0 && len(d.plan.Desired) == len(d.spec.Roles) {
			continue // it is meant to have no machines
		}
		stay = append(stay, r.Name, "int-"+r.Name)
		stay = append(stay, r.Aliases...)
		if r.Serves == Database {
			stay = append(stay, r.Name+"-primary", r.Name+"-replicas")
		}
		if r.Main {
			stay = append(stay, "")
		}
		for s := range d.wanted {
			if s.role == r.Name {
				stay = append(stay, s.name())
			}
		}
	}
	for _, name := range stay {
		full := n.full(name)
		if slices.ContainsFunc([]string{"A", "AAAA", "CNAME"}, func(t string) bool { return n.sets[[2]string{full, t}] != nil }) {
			continue
		}
		for _, had := range owned {
			if had.Name == full {
				n.sets[[2]string{full, had.Type}] = &had
			}
		}
	}
}

// balancerHost gives the host of the role's balancer: of the first pool that has one that is ready.
func (d *decision) balancerHost(r *Role) string {
	if r.Balancer == nil {
		return ""
	}
	for _, p := range d.config.poolsOf(r) {
		if b := d.balancerOf(r.Name, p.Name); b != nil && b.Ready && b.Host != "" {
			return b.Host
		}
	}
	return ""
}

// nameset gathers addresses under names.
type nameset struct {
	zone string
	sets map[[2]string]*dnsreg.RRset // by full name and type
}

func (n *nameset) full(name string) string {
	if name == "" {
		return n.zone
	}
	return name + "." + n.zone
}

func (n *nameset) add(name string, addrs ...netip.Addr) {
	for _, a := range addrs {
		kind := "A"
		if a.Is6() && !a.Is4In6() {
			kind = "AAAA"
		}
		n.value(name, kind, a.Unmap().String())
	}
}

func (n *nameset) addEach(names []string, addrs []netip.Addr) {
	for _, name := range names {
		n.add(name, addrs...)
	}
}

// point names a host that is a name or an address.
func (n *nameset) point(name, host string) {
	if addr, err := netip.ParseAddr(host); err == nil {
		n.add(name, addr)
		return
	}
	n.value(name, "CNAME", strings.TrimSuffix(host, ".")+".")
}

func (n *nameset) value(name, kind, value string) {
	key := [2]string{n.full(name), kind}
	if n.sets[key] == nil {
		n.sets[key] = &dnsreg.RRset{Name: key[0], Type: kind}
	}
	if s := n.sets[key]; !slices.Contains(s.Values, value) {
		s.Values = append(s.Values, value)
	}
}
