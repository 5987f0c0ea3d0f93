package nameserver

import (
	"bytes"
	"encoding/binary"
	"math/rand/v2"
	"net/netip"
	"slices"
	"time"

	"github.com/miekg/dns"

	"github.com/scalr-go/scalr/dnsreg/tsig"
)

const (
	// maxUDP is the largest answer over UDP, and what the server says it takes itself: what crosses every network without
	// being cut into fragments (DNS flag day 2020).
	maxUDP = 1232
	// maxChain bounds how many CNAMEs an answer follows; who wants more asks again.
	maxChain = 16
	optLen   = 11
	// maxSignature bounds what a signature adds to an answer.
	maxSignature = 350
	// pointers in a name reach so far (RFC 1035, section 4.1.4)
	maxPointer = 0x3fff
)

// anyAnswer is what stands for all records of a name (RFC 8482, section 4.2).
var anyAnswer = rrset{typ: dns.TypeHINFO, n: 1, wire: []byte("\x00\x0d\x00\x01\x00\x00\x0e\x10\x00\x09\x07RFC8482\x00")}

// responder turns one message after the other into answers. Each reader of a socket has its own.
//
// It reads and writes messages by itself: records are held as they go into a message, and every owner name in an answer is
// a pointer to where that name, or one below it, stands in the message already. That takes half the time of building a
// message out of values, and no memory.
type responder struct {
	zones map[string]*zone // by name in wire format
	q     query
	buf   []byte // the answer so far
	limit int    // how long it may get
	chain [maxChain][]byte

	from   netip.Addr // the client
	limits *limiter   // nil if there are none
	about  string     // whose answers the limit counts

	keys     []tsig.Key // all that the zones know
	x        *tsig.Exchange
	transfer *transfer // what follows in place of an answer
}

func newResponder(zones map[string]*zone) *responder {
	r := &responder{zones: zones, buf: make([]byte, 0, dns.MaxMsgSize)}
	for _, z := range zones {
		r.keys = append(append(r.keys, z.readers...), z.writers...)
	}
	return r
}

// Offsets of the counts in a message's header.
const (
	answers    = 6
	authority  = 8
	additional = 10
)

// respond gives the answer to a message, valid until the next call, or nil if it gets none: what is too short to be a
// message, and what is an answer itself. In place of the answer there may be a transfer to send.
func (r *responder) respond(msg []byte, stream bool) []byte {
	r.x, r.transfer, r.about = nil, nil, ""
	if len(msg) < headerLen || msg[2]&0x80 != 0 {
		return nil
	}
	r.buf = append(r.buf[:0], msg[0], msg[1], 0x80|msg[2]&0x79, 0, 0, 0, 0, 0, 0, 0, 0, 0) // ID, opcode, RD
	switch opcode := int(msg[2] >> 3 & 15); {
	case opcode == dns.OpcodeUpdate && len(r.keys) > 0:
		return r.sign(r.rcode(r.update(msg)))
	case opcode != dns.OpcodeQuery:
		return r.fault(dns.RcodeNotImplemented, stream)
	}
	q := &r.q
	if !q.parse(msg) {
		return r.fault(dns.RcodeFormatError, stream)
	}
	r.buf = append(r.buf, msg[headerLen:q.end]...)
	r.buf[5] = 1
	if q.signed {
		x, body, err := tsig.Receive(r.keys, msg, time.Now())
		r.x = x
		switch {
		case x != nil && err != nil:
			return r.sign(r.rcode(dns.RcodeNotAuth))
		case err != nil || !q.parse(body):
			return r.fault(dns.RcodeFormatError, stream)
		}
	}
	r.limit = dns.MaxMsgSize
	if !stream {
		r.limit = min(max(dns.MinMsgSize, int(q.size)), maxUDP)
	}
	if q.edns {
		r.limit -= optLen
	}
	if q.signed {
		r.limit -= maxSignature
	}

	rcode := dns.RcodeBadVers
	if q.version == 0 {
		var fits bool
		if rcode, fits = r.answer(stream); r.transfer != nil {
			return nil
		}
		if v := r.verdict(stream); v == drop {
			return nil
		} else if v == sendTruncated {
			fits = false
		}
		if !fits {
			r.buf = r.buf[:q.end]
			clear(r.buf[answers:headerLen])
			if stream {
				rcode = dns.RcodeServerFailure
			} else {
				r.buf[2] |= 0x02 // TC: ask again over TCP
			}
		}
	}
	if q.edns {
		r.buf = append(r.buf, 0, 0, byte(dns.TypeOPT), maxUDP>>8, maxUDP&0xff, byte(rcode>>4), 0, 0, 0, 0, 0)
		if q.do {
			r.buf[len(r.buf)-4] = 0x80
		}
		r.count(additional, 1)
	}
	return r.sign(r.rcode(rcode & 15))
}

// verdict is what the limit says to the answer. Who has a key is not bounded.
func (r *responder) verdict(stream bool) verdict {
	if stream || r.limits == nil || r.x != nil {
		return send
	}
	return r.limits.take(r.from, r.about, time.Now().Unix())
}

// fault gives the answer to what is no question, or nil if there were too many.
func (r *responder) fault(code int, stream bool) []byte {
	if r.verdict(stream) != send {
		return nil
	}
	return r.rcode(code)
}

// sign signs an answer to a signed message.
func (r *responder) sign(answer []byte) []byte {
	if r.x == nil {
		return answer
	}
	return r.x.Sign(answer, time.Now())
}

func (r *responder) rcode(code int) []byte {
	r.buf[3] = byte(code)
	return r.buf
}

func (r *responder) count(section, n int) {
	binary.BigEndian.PutUint16(r.buf[section:], binary.BigEndian.Uint16(r.buf[section:])+uint16(n))
}

// answer writes the sections of the answer and gives its code, and false if they do not fit.
func (r *responder) answer(stream bool) (rcode int, fits bool) {
	q := &r.q
	switch {
	case q.class != dns.ClassINET:
		return dns.RcodeRefused, true
	case q.typ == dns.TypeAXFR || q.typ == dns.TypeIXFR:
		return r.prepareTransfer(stream)
	case q.typ == dns.TypeOPT:
		return dns.RcodeFormatError, true
	case q.typ >= 128 && q.typ < dns.TypeANY: // other questions that are no types of records (RFC 6895, section 3.1)
		return dns.RcodeNotImplemented, true
	}
	z := r.zone()
	if z == nil || z.hidden && (r.x == nil || !slices.ContainsFunc(z.readers, r.isKey)) {
		return dns.RcodeRefused, true
	}
	s := z.snap.Load()
	r.about = s.apex.name
	name, at := q.name, headerLen // at is where the name stands in the message
	for hop := 0; ; hop++ {
		m := s.match(name)
		if m.cut != nil && (q.typ != dns.TypeDS || len(m.cut.name) != len(name)) {
			return dns.RcodeSuccess, r.refer(s, m.cut, name, at)
		}
		r.buf[2] |= 0x04 // AA, which is about the first name (RFC 1035, section 4.1.1)
		n := m.node
		if m.cut != nil {
			n = m.cut // whether a delegation is signed is the parent's to say (RFC 4035, section 3.1.4.1)
		} else if v := z.view(s, name, r.from); v != nil && (n == nil || v.get(q.typ) != nil || v.get(dns.TypeCNAME) != nil) {
			n = v
		}
		switch {
		case n == nil:
			return dns.RcodeNameError, r.deny(s, name, at)
		case len(n.sets) == 0:
			return dns.RcodeSuccess, r.deny(s, name, at)
		}
		if set := n.get(q.typ); set != nil {
			if hop == 0 {
				r.about = n.name
			}
			start := len(r.buf)
			if !r.add(answers, at, name, set) {
				return dns.RcodeSuccess, false
			}
			if q.typ == dns.TypeNS {
				r.addresses(s, start, set, nil)
			}
			return dns.RcodeSuccess, true
		}
		cname := n.get(dns.TypeCNAME)
		switch {
		case cname == nil && q.typ == dns.TypeANY:
			return dns.RcodeSuccess, r.add(answers, at, name, &anyAnswer)
		case cname == nil:
			return dns.RcodeSuccess, r.deny(s, name, at)
		case !r.add(answers, at, name, cname):
			return dns.RcodeSuccess, false
		case q.typ == dns.TypeANY || hop+1 == maxChain:
			return dns.RcodeSuccess, true
		}
		r.chain[hop] = name
		name = cname.wire[fixed:]
		at = len(r.buf) - len(name)
		if _, in := suffix(name, s.origin); !in {
			return dns.RcodeSuccess, true
		}
		for _, seen := range r.chain[:hop+1] {
			if bytes.Equal(seen, name) {
				return dns.RcodeSuccess, true
			}
		}
	}
}

// zone gives the zone that the question's name is in: the one with the longest name, and the parent's for DS.
func (r *responder) zone() *zone {
	name := r.q.name
	var own *zone
	for i := 0; ; i += 1 + int(name[i]) {
		if z := r.zones[string(name[i:])]; z != nil {
			if i > 0 || r.q.typ != dns.TypeDS {
				return z
			}
			own = z
		}
		if name[i] == 0 {
			return own
		}
	}
}

// suffix reports whether a name is another one or below it, and where that one begins in it.
func suffix(name, of []byte) (at int, ok bool) {
	for len(name)-at > len(of) {
		at += 1 + int(name[at])
	}
	return at, bytes.Equal(name[at:], of)
}

// add writes an RRset into a section, beginning with any of its records, so that clients spread. It reports false if there
// is no room for all of it. at is where its name stands in the message.
func (r *responder) add(section, at int, name []byte, s *rrset) bool {
	owner := name
	var pointer [2]byte
	if at <= maxPointer {
		binary.BigEndian.PutUint16(pointer[:], 0xc000|uint16(at))
		owner = pointer[:]
	}
	if len(r.buf)+s.n*len(owner)+len(s.wire) > r.limit {
		return false
	}
	first := 0
	if s.n > 1 {
		for range rand.IntN(s.n) {
			first += fixed + int(binary.BigEndian.Uint16(s.wire[first+8:]))
		}
	}
	r.records(owner, s.wire[first:])
	r.records(owner, s.wire[:first])
	r.count(section, s.n)
	return true
}

func (r *responder) records(owner, wire []byte) {
	for len(wire) > 0 {
		end := fixed + int(binary.BigEndian.Uint16(wire[8:]))
		r.buf = append(append(r.buf, owner...), wire[:end]...)
		wire = wire[end:]
	}
}

// deny says that there is nothing, and for how long that may be remembered (RFC 2308, section 3).
func (r *responder) deny(s *snapshot, name []byte, at int) bool {
	up, _ := suffix(name, s.origin)
	if !r.add(authority, at+up, s.origin, s.apex.get(dns.TypeSOA)) {
		return false
	}
	soa := len(r.buf) - len(s.apex.get(dns.TypeSOA).wire)
	binary.BigEndian.PutUint32(r.buf[soa+4:], s.negTTL)
	return true
}

// refer says who has the names below a cut. The addresses of name servers that are themselves below it must be there (RFC
// 9471); others of this zone are added where they fit.
func (r *responder) refer(s *snapshot, cut *node, name []byte, at int) bool {
	up, _ := suffix(name, []byte(cut.name))
	start := len(r.buf)
	ns := cut.get(dns.TypeNS)
	return r.add(authority, at+up, name[up:], ns) && r.addresses(s, start, ns, []byte(cut.name))
}

// addresses adds the addresses that the zone has for name servers; their NS stand in the message from start on. It reports
// false if there is no room for those of a name at or below needed; others may be left out.
func (r *responder) addresses(s *snapshot, start int, ns *rrset, needed []byte) bool {
	end := len(r.buf)
	owner := (end - start - len(ns.wire)) / ns.n
	for i := start; i < end; {
		data := i + owner + fixed
		i = data + int(binary.BigEndian.Uint16(r.buf[data-2:]))
		target := r.buf[data:i]
		if _, in := suffix(target, s.origin); !in {
			continue
		}
		n := s.find(target)
		if n == nil {
			continue
		}
		must := false
		if needed != nil {
			_, must = suffix(target, needed)
		}
		for _, typ := range [...]uint16{dns.TypeA, dns.TypeAAAA} {
			if a := n.get(typ); a != nil && !r.add(additional, data, target, a) && must {
				return false
			}
		}
	}
	return true
}
