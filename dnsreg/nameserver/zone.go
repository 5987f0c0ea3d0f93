package nameserver

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"fmt"
	"hash/maphash"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/miekg/dns"

	"github.com/scalr-go/scalr/dnsreg"
	"github.com/scalr-go/scalr/dnsreg/internal/wire"
	"github.com/scalr-go/scalr/dnsreg/tsig"
)

// zone is a zone that changes. Readers take its snapshot and are never in a writer's way.
type zone struct {
	name string // as text
	snap atomic.Pointer[snapshot]
	mu   sync.Mutex // held by the one who makes the next snapshot

	readers, writers []tsig.Key     // who may transfer it, and who may change it
	inside           []netip.Prefix // whose clients get the inside view
	hidden           bool           // only those who may transfer it get answers
	secondaries      []Secondary
	keep             int             // how many changes are kept for transfers
	wake             []chan struct{} // each gets one when there is a new snapshot
}

// snapshot is a zone at one instant. It is never changed.
type snapshot struct {
	seed   maphash.Seed
	origin []byte // the zone's name in wire format
	names  *table
	apex   *node
	cuts   int    // how many names are delegated away
	size   int    // how many RRsets there are
	serial uint32 // of the SOA
	negTTL uint32 // how long a resolver may remember that something is not there

	history []delta // the changes that led here, the latest last
	kept    int     // how many bytes they are
}

// newZone makes a zone that holds its SOA and NS. The error is one of Canonical's.
func newZone(o Zone) (*zone, error) {
	z := &zone{name: o.Name, writers: o.Updaters, inside: o.Inside, secondaries: o.Secondaries, keep: o.History}
	z.readers = slices.Clone(o.Updaters)
	for _, s := range o.Secondaries {
		z.readers = append(z.readers, s.Key)
		z.wake = append(z.wake, make(chan struct{}, 1))
	}
	s := &snapshot{
		seed:   maphash.MakeSeed(),
		origin: wire.AppendName(nil, o.Name),
		serial: o.Serial,
		negTTL: uint32(o.NegativeTTL / time.Second),
	}
	apex := &node{name: string(s.origin), hash: maphash.Bytes(s.seed, s.origin)}
	for _, r := range []dnsreg.RRset{
		{Name: o.Name, Type: "NS", TTL: apexTTL, Values: o.NameServers},
		{Name: o.Name, Type: "SOA", TTL: apexTTL, Values: []string{fmt.Sprintf("%s %s %d 3600 600 1209600 %d",
			o.NameServers[0], o.Contact, o.Serial, s.negTTL)}},
	} {
		r, err := dnsreg.Canonical(r)
		if err != nil {
			return nil, err
		}
		apex.sets = append(apex.sets, encode(r))
	}
	s.negTTL = min(s.negTTL, uint32(apexTTL/time.Second))
	s.apex, s.size = apex, 2
	s.names = s.names.put(nil, 0, apex)
	z.snap.Store(s)
	return z, nil
}

func (s *snapshot) find(name []byte) *node {
	return s.names.find(maphash.Bytes(s.seed, name), name)
}

// match is what a zone has for a name.
type match struct {
	node *node // the name itself, or the wildcard that stands for it; nil if the name does not exist
	cut  *node // the name of the zone that it is delegated to, if it is; then node is not set
}

// match finds a name of the zone as RFC 1034, section 4.3.2, and RFC 4592 say.
func (s *snapshot) match(name []byte) match {
	if s.cuts == 0 {
		if n := s.find(name); n != nil {
			return match{node: n}
		}
	}
	var starts [128]uint8 // where the labels below the apex begin
	below := 0
	for i := 0; i < len(name)-len(s.origin); i += 1 + int(name[i]) {
		starts[below] = uint8(i)
		below++
	}
	closest := s.apex
	for _, start := range slices.Backward(starts[:below]) {
		n := s.find(name[start:])
		if n == nil {
			var buf [256]byte
			return match{node: s.find(append(append(buf[:0], 1, '*'), closest.name...))}
		}
		if s.cuts > 0 && n.get(dns.TypeNS) != nil {
			return match{cut: n}
		}
		closest = n
	}
	return match{node: closest}
}

// tx is a snapshot in the making.
type tx struct {
	snapshot
	edit *edit
}

func (s *snapshot) begin() *tx { return &tx{snapshot: *s, edit: new(edit)} }

// parent gives the name one label up.
func parent(name string) string { return name[1+name[0]:] }

// node gives the node of a name to change, which is in the table from now on, with the empty ones above it.
func (t *tx) node(name string) *node {
	hash := maphash.String(t.seed, name)
	n := t.names.find(hash, []byte(name))
	if n == nil {
		n = &node{name: name, hash: hash}
		up := t.node(parent(name))
		up.kids++
	} else {
		old := n
		n = &node{name: old.name, hash: old.hash, kids: old.kids}
		n.hold(old.sets)
	}
	t.put(n)
	return n
}

func (t *tx) put(n *node) {
	t.names = t.names.put(t.edit, 0, n)
	if len(n.name) == len(t.origin) {
		t.apex = n
	}
}

// prune removes a name that holds nothing any more, and the empty ones above it.
func (t *tx) prune(n *node) {
	for len(n.sets) == 0 && n.kids == 0 && n != t.apex {
		t.names = t.names.remove(t.edit, 0, n)
		n = t.node(parent(n.name))
		n.kids--
	}
}

// set puts an RRset in place, or takes it away if it holds no records.
func (t *tx) set(name string, s rrset) {
	n := t.node(name)
	i, found := slices.BinarySearchFunc(n.sets, s.typ, func(s rrset, typ uint16) int { return cmp.Compare(s.typ, typ) })
	sets := slices.Clone(n.sets)
	cut := 0
	if s.typ == dns.TypeNS && n != t.apex {
		cut = 1
	}
	switch {
	case s.n == 0 && found:
		sets = slices.Delete(sets, i, i+1)
		t.cuts -= cut
		t.size--
	case s.n > 0 && found:
		sets[i] = s
	case s.n > 0:
		sets = slices.Insert(sets, i, s)
		t.cuts += cut
		t.size++
	}
	n.hold(sets)
	t.prune(n)
}

// bump gives the SOA the next serial (RFC 1982; 0 is left out, since some tools take it for none).
func (t *tx) bump() {
	t.serial = max(t.serial+1, 1)
	soa := *t.apex.get(dns.TypeSOA)
	soa.wire = bytes.Clone(soa.wire)
	binary.BigEndian.PutUint32(soa.wire[len(soa.wire)-20:], t.serial)
	t.set(t.apex.name, soa)
}

// apply makes all changes or none. They are canonical.
func (z *zone) apply(changes []dnsreg.Change) error {
	z.mu.Lock()
	defer z.mu.Unlock()
	return z.locked(changes)
}

// locked is apply, under the lock.
func (z *zone) locked(changes []dnsreg.Change) error {
	old := z.snap.Load()
	t := old.begin()
	changed := false
	var d delta
	for _, c := range changes {
		name := string(wire.AppendName(nil, c.Name))
		typ := dns.StringToType[c.Type]
		var have *rrset
		if n := old.find([]byte(name)); n != nil {
			have = n.get(typ)
		}
		switch {
		case c.Old == nil && have != nil:
			return fmt.Errorf("%s %s: %w: it exists, with %d values", c.Name, c.Type, dnsreg.ErrConflict, have.n)
		case c.Old != nil && have == nil:
			return fmt.Errorf("%s %s: %w: it does not exist", c.Name, c.Type, dnsreg.ErrConflict)
		case c.Old != nil && !bytes.Equal(encode(*c.Old).wire, have.wire):
			return fmt.Errorf("%s %s: %w: its TTL or values are others", c.Name, c.Type, dnsreg.ErrConflict)
		}
		new := rrset{typ: typ}
		if c.New != nil {
			new = encode(*c.New)
		}
		if have == nil || !bytes.Equal(new.wire, have.wire) {
			t.set(name, new)
			d.replace(name, have, new)
			changed = true
		}
	}
	for _, c := range changes {
		if n := t.find(wire.AppendName(nil, c.Name)); n != nil && n.get(dns.TypeCNAME) != nil && len(n.sets) > 1 {
			return fmt.Errorf("%s CNAME: %w: a CNAME stands alone, and there would be %d other types",
				c.Name, dnsreg.ErrInvalid, len(n.sets)-1)
		}
	}
	if changed {
		t.bump()
		d.from, d.to = *old.apex.get(dns.TypeSOA), *t.apex.get(dns.TypeSOA)
		t.remember(d, z.keep)
		z.snap.Store(&t.snapshot)
		for _, wake := range z.wake {
			select {
			case wake <- struct{}{}:
			default:
			}
		}
	}
	return nil
}

// records lists the zone.
func (s *snapshot) records() []dnsreg.RRset {
	list := make([]dnsreg.RRset, 0, s.size)
	s.names.each(func(n *node) bool {
		name := wire.NameText([]byte(n.name))
		for _, set := range n.sets {
			list = append(list, decode(name, set))
		}
		return true
	})
	slices.SortFunc(list, func(a, b dnsreg.RRset) int {
		return cmp.Or(cmp.Compare(a.Name, b.Name), cmp.Compare(a.Type, b.Type))
	})
	return list
}
