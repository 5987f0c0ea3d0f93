package nameserver

import (
	"maps"
	"slices"
	"time"

	"github.com/miekg/dns"

	"github.com/scalr-go/scalr/dnsreg"
	"github.com/scalr-go/scalr/dnsreg/internal/wire"
	"github.com/scalr-go/scalr/dnsreg/tsig"
)

// update does what an update says (RFC 2136) and gives the code of the answer. All of it happens or nothing.
func (r *responder) update(msg []byte) int {
	x, body, err := tsig.Receive(r.keys, msg, time.Now())
	r.x = x
	switch {
	case x != nil && err != nil:
		return dns.RcodeNotAuth
	case err == tsig.ErrUnsigned:
		return dns.RcodeRefused
	case err != nil:
		return dns.RcodeFormatError
	}
	m := new(dns.Msg)
	if m.Unpack(body) != nil || len(m.Question) != 1 || m.Question[0].Qtype != dns.TypeSOA {
		return dns.RcodeFormatError
	}
	name, err := dnsreg.CanonicalName(m.Question[0].Name)
	if err != nil || m.Question[0].Qclass != dns.ClassINET {
		return dns.RcodeNotAuth
	}
	z := r.zones[string(wire.AppendName(nil, name))]
	if z == nil {
		return dns.RcodeNotAuth
	}
	if !slices.ContainsFunc(z.writers, r.isKey) {
		return dns.RcodeRefused
	}
	z.mu.Lock()
	defer z.mu.Unlock()
	u := updater{zone: z.name, s: z.snap.Load(), were: make(map[string]map[string]dnsreg.RRset), names: make(map[string]map[string]dnsreg.RRset)}
	if code := u.prerequisites(m.Answer); code != dns.RcodeSuccess {
		return code
	}
	if code := u.scan(m.Ns); code != dns.RcodeSuccess {
		return code
	}
	for _, rr := range m.Ns {
		u.one(rr)
	}
	changes, err := dnsreg.CanonicalChanges(z.name, u.changes())
	if err != nil || z.locked(changes) != nil {
		return dns.RcodeRefused // what may never be in a zone here
	}
	return dns.RcodeSuccess
}

// updater holds the names that an update is about, as they become.
type updater struct {
	zone  string
	s     *snapshot
	were  map[string]map[string]dnsreg.RRset // by name and type: what now has found
	names map[string]map[string]dnsreg.RRset // likewise, as at gives it
}

// now gives what a name has in the zone as it is; nothing of it may be changed.
func (u *updater) now(name string) map[string]dnsreg.RRset {
	if sets, ok := u.were[name]; ok {
		return sets
	}
	sets := make(map[string]dnsreg.RRset)
	u.were[name] = sets
	if n := u.s.find(wire.AppendName(nil, name)); n != nil {
		for _, set := range n.sets {
			d := decode(name, set)
			sets[d.Type] = d
		}
	}
	return sets
}

// at gives what a name has by now; the map may be changed.
func (u *updater) at(name string) map[string]dnsreg.RRset {
	sets, ok := u.names[name]
	if !ok {
		sets = maps.Clone(u.now(name))
		u.names[name] = sets
	}
	return sets
}

// name checks the name of a record.
func (u *updater) name(rr dns.RR) (string, int) {
	name, err := dnsreg.CanonicalName(rr.Header().Name)
	if err != nil {
		return "", dns.RcodeFormatError
	}
	w := wire.AppendName(nil, name)
	if _, in := suffix(w, u.s.origin); !in {
		return "", dns.RcodeNotZone
	}
	return name, dns.RcodeSuccess
}

// prerequisites checks what must hold before (section 3.2).
func (u *updater) prerequisites(records []dns.RR) int {
	type key struct{ name, typ string }
	exact := make(map[key][]string)
	for _, rr := range records {
		h := rr.Header()
		name, code := u.name(rr)
		if code != dns.RcodeSuccess {
			return code
		}
		typ := dns.Type(h.Rrtype).String()
		sets := u.now(name)
		_, exists := sets[typ]
		if h.Ttl != 0 || h.Class != dns.ClassINET && h.Rdlength != 0 {
			return dns.RcodeFormatError
		}
		switch h.Class {
		case dns.ClassANY:
			switch {
			case h.Rrtype == dns.TypeANY && len(sets) == 0:
				return dns.RcodeNameError
			case h.Rrtype != dns.TypeANY && !exists:
				return dns.RcodeNXRrset
			}
		case dns.ClassNONE:
			switch {
			case h.Rrtype == dns.TypeANY && len(sets) > 0:
				return dns.RcodeYXDomain
			case exists:
				return dns.RcodeYXRrset
			}
		case dns.ClassINET:
			v, ok := value(rr)
			if !ok {
				return dns.RcodeNXRrset
			}
			exact[key{name, typ}] = append(exact[key{name, typ}], v)
		default:
			return dns.RcodeFormatError
		}
	}
	for k, values := range exact {
		is, ok := u.now(k.name)[k.typ]
		want, err := dnsreg.Canonical(dnsreg.RRset{Name: k.name, Type: k.typ, TTL: is.TTL, Values: values})
		if !ok || err != nil || len(want.Values) != len(is.Values) {
			return dns.RcodeNXRrset
		}
		if !slices.Equal(want.Values, slices.Sorted(slices.Values(is.Values))) {
			return dns.RcodeNXRrset
		}
	}
	return dns.RcodeSuccess
}

// scan checks all records before any of them counts (section 3.4.1).
func (u *updater) scan(records []dns.RR) int {
	for _, rr := range records {
		h := rr.Header()
		if _, code := u.name(rr); code != dns.RcodeSuccess {
			return code
		}
		meta := h.Rrtype >= 128 && h.Rrtype < dns.TypeANY
		switch h.Class {
		case dns.ClassINET:
			if meta || h.Rrtype == dns.TypeANY || h.Rdlength == 0 {
				return dns.RcodeFormatError
			}
			if _, ok := value(rr); !ok {
				return dns.RcodeRefused // what may never be in a zone here
			}
		case dns.ClassANY:
			if h.Ttl != 0 || h.Rdlength != 0 || meta {
				return dns.RcodeFormatError
			}
		case dns.ClassNONE:
			if h.Ttl != 0 || meta || h.Rrtype == dns.TypeANY {
				return dns.RcodeFormatError
			}
		default:
			return dns.RcodeFormatError
		}
	}
	return dns.RcodeSuccess
}

// value gives a record's value in its canonical form. It reports false for a type or a value that no zone here holds.
func value(rr dns.RR) (string, bool) {
	v, err := wire.Value(rr)
	if err != nil {
		return "", false
	}
	r, err := dnsreg.Canonical(dnsreg.RRset{Name: "any.", Type: dns.Type(rr.Header().Rrtype).String(), Values: []string{v}})
	if err != nil {
		return "", false
	}
	return r.Values[0], true
}

// one does what one record says (section 3.4.2). The SOA is the server's own, and the zone keeps an NS.
func (u *updater) one(rr dns.RR) {
	h := rr.Header()
	name, _ := u.name(rr)
	sets := u.at(name)
	typ := dns.Type(h.Rrtype).String()
	if typ == "SOA" {
		return
	}
	kept := func(typ string) bool { return name == u.zone && (typ == "NS" || typ == "SOA") }
	v := ""
	if h.Class != dns.ClassANY {
		var ok bool
		if v, ok = value(rr); !ok {
			return
		}
	}
	switch h.Class {
	case dns.ClassANY:
		for t := range sets {
			if (h.Rrtype == dns.TypeANY || t == typ) && !kept(t) {
				delete(sets, t)
			}
		}
	case dns.ClassNONE:
		set, ok := sets[typ]
		i := slices.Index(set.Values, v)
		switch {
		case !ok || i < 0:
		case len(set.Values) > 1:
			set.Values = slices.Delete(slices.Clone(set.Values), i, i+1)
			sets[typ] = set
		case !kept(typ):
			delete(sets, typ)
		}
	case dns.ClassINET:
		_, cname := sets["CNAME"]
		if typ == "CNAME" {
			if len(sets) > 1 || len(sets) == 1 && !cname {
				return
			}
			delete(sets, typ)
		} else if cname {
			return
		}
		set := sets[typ]
		set.Name, set.Type, set.TTL = name, typ, time.Duration(h.Ttl)*time.Second
		if !slices.Contains(set.Values, v) {
			set.Values = append(slices.Clone(set.Values), v)
		}
		sets[typ] = set
	}
}

// changes gives what is different from the zone.
func (u *updater) changes() (changes []dnsreg.Change) {
	for _, name := range slices.Sorted(maps.Keys(u.names)) {
		was, is := u.now(name), u.names[name]
		both := maps.Clone(was)
		maps.Copy(both, is)
		for _, typ := range slices.Sorted(maps.Keys(both)) {
			c := dnsreg.Change{Name: name, Type: typ}
			if r, ok := was[typ]; ok {
				c.Old = &r
			}
			if r, ok := is[typ]; ok {
				c.New = &r
			}
			if c.Old != nil && c.New != nil && c.Old.Equal(*c.New) {
				continue
			}
			changes = append(changes, c)
		}
	}
	return changes
}
