package farm

import (
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/scalr-go/scalr/dnsreg"
	"github.com/scalr-go/scalr/provider"
)

// publish decides the names. Every role has these, in the spec's zone:
//
//	<role>           its service: all machines that serve; for a database the primary
//	int-<role>       the same by private addresses
//	<role>-<index>   one machine
//	<role>-primary   the primary of a database
//	<role>-replicas  the replicas of a database that serve reads; the primary while there are none
//	<alias>, apex    the same as <role>; the apex has the machines where the balancer is known by name
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
	if d.end == nil {
		d.plan.want = d.names()
	}
	changes, err := dnsreg.Diff(d.spec.Zone, owner(d.spec.Name), d.o.zone, d.plan.want)
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

// labels are the names that are kept for the role in the zone whatever it serves, beside those of its machines.
func (r *Role) labels() []string {
	return []string{r.Name, "int-" + r.Name, r.Name + "-primary", r.Name + "-replicas"}
}

// owner is the farm's name as an owner of records.
func owner(farm string) string { return "farm/" + farm }

// named reports whether the zone or a name server still has an address of the machine, or cannot be read.
func (d *decision) named(m *machine) bool {
	return d.spec.Zone != "" && (d.o.zoneErr != nil || d.inZone(m) || d.given(m.slot.role, d.addresses(m)...))
}

// inZone reports whether the zone has an address of the machine.
func (d *decision) inZone(m *machine) bool { return slices.ContainsFunc(d.addresses(m), d.zoneHas) }

func (d *decision) addresses(m *machine) (all []string) {
	for _, a := range []netip.Addr{m.private, m.public, d.slotAddress(m)} {
		if a.IsValid() {
			all = append(all, a.Unmap().String())
		}
	}
	return all
}

// zoneHas reports whether a name of the farm has the value: an address, or a host name without its last dot.
func (d *decision) zoneHas(value string) bool {
	if d.addrs == nil {
		d.addrs = map[string]bool{}
		for _, r := range dnsreg.Owned(d.spec.Zone, owner(d.spec.Name), d.o.zone) {
			for _, v := range r.Values {
				d.addrs[strings.TrimSuffix(v, ".")] = true
			}
		}
	}
	return d.addrs[value]
}

// unresolved is until when a resolver may still give out what the zone has not had since then, and at least for so long.
func (d *decision) unresolved(since time.Time, least time.Duration) time.Time {
	until := since.Add(least)
	if d.spec.Zone == "" {
		return until
	}
	return later(later(until, since.Add(d.spec.TTL)), d.h.oldTTL)
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// names gives the records that the farm wants.
func (d *decision) names() []dnsreg.RRset {
	owned := dnsreg.Owned(d.spec.Zone, owner(d.spec.Name), d.o.zone)
	for _, s := range owned {
		if s.TTL > d.spec.TTL {
			d.h.oldTTL = later(d.h.oldTTL, d.now.Add(s.TTL))
		}
	}
	n := &nameset{zone: d.spec.Zone, sets: map[[2]string]*dnsreg.RRset{}}
	for i := range d.spec.Roles {
		r := &d.spec.Roles[i]
		var service, private, primary, replicas []netip.Addr
		public := r.Serves == Web || r.Serves == ""
		if d.unlisted(r, public) {
			continue // a list that failed moves no name
		}
		for _, m := range d.byRole[r.Name] {
			if m.at.holder != m || !inService(m) || !m.private.IsValid() && !m.public.IsValid() || d.unsure(r, m) && !d.inZone(m) {
				continue
			}
			inside, outside := publicOf(m.public, m.private), publicOf(m.private, m.public)
			if r.Address && public {
				if outside = d.slotAddress(m); !outside.IsValid() {
					continue // until its slot's address has come to it, it has one that it will not keep
				}
			}
			if !public {
				outside = inside
			}
			n.add(m.at.name, outside)
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
			if len(replicas) == 0 {
				replicas = primary // somebody must answer those who read
			}
			n.add(r.Name+"-primary", primary...)
			n.add(r.Name+"-replicas", replicas...)
		}
		n.add("int-"+r.Name, private...)
		names := append([]string{r.Name}, r.Aliases...)
		host, addrs := d.balancerHosts(r)
		if len(addrs) > 0 {
			service = addrs
		}
		if host != "" {
			for _, name := range names {
				n.value(name, "CNAME", host)
			}
		} else {
			n.addEach(names, service)
		}
		if r.Main {
			// The apex has other records, so that it cannot be a CNAME (RFC 1034, section 3.6.2).
			n.add("", service...)
		}
	}
	d.keepNames(n, owned)
	d.fewer(n, owned)
	var want []dnsreg.RRset
	for _, s := range n.sets {
		slices.Sort(s.Values)
		s.TTL, s.Values = d.spec.TTL, slices.Compact(s.Values)
		want = append(want, *s)
	}
	slices.SortFunc(want, func(a, b dnsreg.RRset) int { return strings.Compare(a.Name+" "+a.Type, b.Name+" "+b.Type) })
	return want
}

// How many addresses a name has at most: with the marks of who owns them, so many can be changed in a zone, and be read from it (see
// packages dnsreg and rfc2136).
const (
	mostA    = 2000
	mostAAAA = 1000
)

// fewer takes from the names what they cannot hold: of the addresses those that they had stay, and then those that were added first.
func (d *decision) fewer(n *nameset, owned []dnsreg.RRset) {
	var had map[[2]string]map[string]bool
	for i := range d.spec.Roles {
		r := &d.spec.Roles[i]
		for _, kind := range []string{"A", "AAAA"} {
			most := mostA
			if kind == "AAAA" {
				most = mostAAAA
			}
			for _, name := range slices.Concat(r.labels(), r.Aliases, []string{""}) {
				s := n.sets[[2]string{n.full(name), kind}]
				if s == nil || len(s.Values) <= most || name == "" && !r.Main {
					continue
				}
				if had == nil {
					had = map[[2]string]map[string]bool{}
					for _, o := range owned {
						set := map[string]bool{}
						for _, v := range o.Values {
							set[v] = true
						}
						had[[2]string{o.Name, o.Type}] = set
					}
				}
				was := had[[2]string{s.Name, kind}]
				values := slices.Clone(s.Values)
				slices.SortStableFunc(values, func(a, b string) int {
					switch {
					case was[a] == was[b]:
						return 0
					case was[a]:
						return -1
					}
					return 1
				})
				s.Values = values[:most]
				if name == r.Name {
					d.wait(name, 0, "%d of its addresses of type %s are not under %s: a name has at most %d", len(values)-most, kind, s.Name, most)
				}
			}
		}
	}
}

// keepNames leaves what a service's name has while nobody serves it. Names of single machines go with the slot.
func (d *decision) keepNames(n *nameset, owned []dnsreg.RRset) {
	had := make(map[string][]dnsreg.RRset, len(owned))
	for _, s := range owned {
		had[s.Name] = append(had[s.Name], s)
	}
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
		for mem := range d.h.slots.of(r.Name) {
			if mem.wants && (mem.holder == nil || mem.holder.warm.IsZero() && mem.holder.leaving == "") {
				stay = append(stay, mem.name)
			}
		}
	}
	for _, name := range stay {
		full := n.full(name)
		if slices.ContainsFunc([]string{"A", "AAAA", "CNAME"}, func(t string) bool { return n.sets[[2]string{full, t}] != nil }) {
			continue
		}
		for _, s := range had[full] {
			n.sets[[2]string{full, s.Type}] = &s
		}
	}
}

// unlisted reports whether a list is missing that the role's names come of.
func (d *decision) unlisted(r *Role, public bool) bool {
	return slices.ContainsFunc(d.pools(r), func(p *Pool) bool {
		return r.Balancer != nil && d.poolErr(p.Name, func(c cloud) error { return c.balancers.err }) ||
			r.Address && public && d.poolErr(p.Name, func(c cloud) error { return c.addresses.err })
	})
}

// balancerHosts gives where the role's balancers are: the addresses of all, or the name of the first that has one.
func (d *decision) balancerHosts(r *Role) (host string, addrs []netip.Addr) {
	if r.Balancer == nil {
		return "", nil
	}
	for _, p := range d.fronts(r) {
		b := d.balancerOf(r.Name, p.Name)
		if b == nil || !b.Ready || b.Host == "" {
			continue
		}
		if !d.zoneHas(strings.TrimSuffix(b.Host, ".")) && !slices.ContainsFunc(b.Targets, func(t provider.Target) bool { return t.State == provider.TargetHealthy }) {
			continue // it would send clients to nobody; once it is named it stays
		}
		if addr, err := netip.ParseAddr(b.Host); err == nil {
			addrs = append(addrs, addr)
		} else {
			return strings.TrimSuffix(b.Host, ".") + ".", nil
		}
	}
	return "", addrs
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

func (n *nameset) value(name, kind, value string) {
	key := [2]string{n.full(name), kind}
	if n.sets[key] == nil {
		n.sets[key] = &dnsreg.RRset{Name: key[0], Type: kind}
	}
	n.sets[key].Values = append(n.sets[key].Values, value)
}
