package nameserver

import (
	"bytes"
	"encoding/binary"
	"slices"
	"strings"

	"github.com/miekg/dns"

	"github.com/scalr-go/scalr/dnsreg/tsig"
)

// delta is what one change set did, for incremental transfers (RFC 1995).
type delta struct {
	from, to       rrset // the SOA before and after
	removed, added []entry
}

// entry is records of one name and type.
type entry struct {
	name string // in wire format
	set  rrset
}

// serial gives the serial in a SOA.
func serial(soa rrset) uint32 { return binary.BigEndian.Uint32(soa.wire[len(soa.wire)-20:]) }

// maxHistory bounds the bytes of the changes that a zone keeps.
const maxHistory = 32 << 20

func (d *delta) bytes() (n int) {
	for _, e := range d.removed {
		n += len(e.name) + len(e.set.wire)
	}
	for _, e := range d.added {
		n += len(e.name) + len(e.set.wire)
	}
	return n
}

// replace notes which records of an RRset go and which come. Those with another TTL are others.
func (d *delta) replace(name string, old *rrset, new rrset) {
	if old == nil {
		old = &rrset{}
	}
	if gone := old.without(new); gone.n > 0 {
		d.removed = append(d.removed, entry{name, gone})
	}
	if come := new.without(*old); come.n > 0 {
		d.added = append(d.added, entry{name, come})
	}
}

// records gives the records in turn, each as it is in wire.
func (s rrset) records(yield func(record []byte) bool) {
	for w := s.wire; len(w) > 0; {
		end := fixed + int(binary.BigEndian.Uint16(w[8:]))
		if !yield(w[:end]) {
			return
		}
		w = w[end:]
	}
}

// without gives the records that the other one does not have.
func (s rrset) without(o rrset) rrset {
	have := make(map[string]bool, o.n)
	for r := range o.records {
		have[string(r)] = true
	}
	left := rrset{typ: s.typ}
	for r := range s.records {
		if !have[string(r)] {
			left.n++
			left.wire = append(left.wire, r...)
		}
	}
	return left
}

// remember adds a change to the history, and forgets the oldest above the bounds. Earlier snapshots share the slice: each
// sees its own length of it, and only the latest is added to.
func (t *tx) remember(d delta, keep int) {
	t.history = append(t.history, d)
	t.kept += d.bytes()
	for len(t.history) > keep || t.kept > maxHistory && len(t.history) > 0 {
		t.kept -= t.history[0].bytes()
		t.history = t.history[1:]
	}
}

// transfer is a zone on its way to a secondary.
type transfer struct {
	s       *snapshot
	changes []delta // what to send of it: these, or all if whole
	whole   bool
}

// prepareTransfer decides what a question for AXFR or IXFR gets: a transfer, for which the answer's code does not matter;
// or an answer. They are for those who have a key.
func (r *responder) prepareTransfer(stream bool) (rcode int, fits bool) {
	q := &r.q
	z := r.zones[string(q.name)]
	if z == nil && r.x != nil {
		return dns.RcodeNotAuth, true
	}
	if z == nil || r.x == nil || !slices.ContainsFunc(z.readers, r.isKey) {
		return dns.RcodeRefused, true
	}
	s := z.snap.Load()
	switch {
	case q.typ == dns.TypeAXFR && !stream:
		return dns.RcodeFormatError, true // RFC 5936, section 4.2
	case q.typ == dns.TypeAXFR:
		r.transfer = &transfer{s: s, whole: true}
		return dns.RcodeSuccess, true
	case !q.soa:
		return dns.RcodeFormatError, true
	}
	changes, known := s.since(q.serial)
	if !stream || known && len(changes) == 0 {
		r.buf[2] |= 0x04 // there is nothing new, or the client shall ask over TCP (RFC 1995, section 2)
		return dns.RcodeSuccess, r.add(answers, headerLen, q.name, s.apex.get(dns.TypeSOA))
	}
	r.transfer = &transfer{s: s, changes: changes, whole: !known}
	return dns.RcodeSuccess, true
}

// since gives the changes since a serial. It reports false if they are not known or more than the zone itself.
func (s *snapshot) since(from uint32) ([]delta, bool) {
	if int32(from-s.serial) >= 0 { // RFC 1982
		return nil, true
	}
	sets := 0
	for i, d := range slices.Backward(s.history) {
		if sets += len(d.removed) + len(d.added); sets > s.size {
			return nil, false
		}
		if serial(d.from) == from {
			return s.history[i:], true
		}
	}
	return nil, false
}

// sendTransfer sends the prepared transfer in as many messages as it needs, each signed. The question is in each, so that
// all names in them end with a pointer to it.
func (r *responder) sendTransfer(send func([]byte) error) error {
	t, q := r.transfer, &r.q
	w := transferWriter{r: r, send: send, limit: dns.MaxMsgSize - maxSignature, origin: t.s.origin}
	r.buf = r.buf[:q.end]
	r.buf[2] |= 0x04
	soa := entry{string(t.s.origin), *t.s.apex.get(dns.TypeSOA)}
	w.add(soa)
	if t.whole {
		t.s.names.each(func(n *node) bool {
			for _, set := range n.sets {
				if set.typ != dns.TypeSOA {
					w.add(entry{n.name, set})
				}
			}
			return w.err == nil
		})
	}
	for _, d := range t.changes {
		w.add(entry{soa.name, d.from})
		for _, e := range d.removed {
			w.add(e)
		}
		w.add(entry{soa.name, d.to})
		for _, e := range d.added {
			w.add(e)
		}
	}
	w.add(soa)
	w.flush()
	return w.err
}

// transferWriter packs records into messages.
type transferWriter struct {
	r      *responder
	send   func([]byte) error
	limit  int
	origin []byte
	err    error
}

func (w *transferWriter) add(e entry) {
	var buf [256]byte
	owner := append(buf[:0], e.name[:len(e.name)-len(w.origin)]...)
	owner = append(owner, 0xc0, headerLen)
	for record := range e.set.records {
		if w.err != nil {
			return
		}
		if len(w.r.buf)+len(owner)+len(record) > w.limit {
			w.flush()
		}
		w.r.buf = append(append(w.r.buf, owner...), record...)
		w.r.count(answers, 1)
	}
}

func (w *transferWriter) flush() {
	r := w.r
	if w.err == nil {
		w.err = w.send(r.sign(r.rcode(dns.RcodeSuccess)))
	}
	r.buf = r.buf[:r.q.end]
	clear(r.buf[answers:headerLen])
}

// isKey reports whether the message is signed with the key.
func (r *responder) isKey(k tsig.Key) bool {
	return strings.EqualFold(strings.TrimSuffix(k.Name, "."), strings.TrimSuffix(r.x.Key.Name, ".")) && bytes.Equal(k.Secret, r.x.Key.Secret)
}
