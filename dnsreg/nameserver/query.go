package nameserver

import (
	"encoding/binary"

	"github.com/miekg/dns"
)

// query is what matters of a message that asks something.
type query struct {
	name    []byte // in wire format and lower case
	typ     uint16
	class   uint16
	end     int // where the question ends in the message
	edns    bool
	version uint8
	do      bool
	size    uint16 // the largest UDP answer that the client takes
	signed  bool   // there is a signature (TSIG)
	soa     bool   // there is a SOA, of an IXFR, with what the client has
	serial  uint32

	buf [255]byte
}

const headerLen = 12

// parse reads the question and the EDNS record of a message that has a header. It reports false for one that is malformed.
func (q *query) parse(msg []byte) bool {
	q.edns, q.do, q.version, q.size = false, false, 0, dns.MinMsgSize
	q.signed, q.soa = false, false
	count := func(i int) int { return int(binary.BigEndian.Uint16(msg[i:])) }
	if count(4) != 1 {
		return false
	}
	i := headerLen
	for {
		if i >= len(msg) || msg[i] > 63 { // a question has nothing before it that its name could point to
			return false
		}
		next := i + 1 + int(msg[i])
		if next > len(msg) || next-headerLen > len(q.buf) {
			return false
		}
		q.buf[i-headerLen] = msg[i]
		for j := i + 1; j < next; j++ {
			c := msg[j]
			if c >= 'A' && c <= 'Z' {
				c += 'a' - 'A'
			}
			q.buf[j-headerLen] = c
		}
		if next == i+1 {
			i = next
			break
		}
		i = next
	}
	if i+4 > len(msg) {
		return false
	}
	q.name = q.buf[:i-headerLen]
	q.typ = binary.BigEndian.Uint16(msg[i:])
	q.class = binary.BigEndian.Uint16(msg[i+2:])
	q.end = i + 4

	i = q.end
	before := count(6) + count(8)
	for n := range before + count(10) {
		if i = q.record(msg, i, n >= before); i < 0 {
			return false
		}
	}
	return i == len(msg)
}

// record reads the record at i, which counts only if it is an EDNS one (RFC 6891, section 6.1), and gives where it ends,
// or -1.
func (q *query) record(msg []byte, i int, additional bool) int {
	start := i
	for {
		if i >= len(msg) {
			return -1
		}
		if c := int(msg[i]); c == 0 {
			i++
			break
		} else if c >= 0xc0 {
			i += 2
			break
		} else if c > 63 {
			return -1
		} else {
			i += 1 + c
		}
	}
	if i+fixed > len(msg) {
		return -1
	}
	end := i + fixed + int(binary.BigEndian.Uint16(msg[i+8:]))
	if end > len(msg) {
		return -1
	}
	switch binary.BigEndian.Uint16(msg[i:]) {
	case dns.TypeOPT:
	case dns.TypeTSIG:
		q.signed = q.signed || additional
		return end
	case dns.TypeSOA:
		if end >= i+fixed+22 && !additional {
			q.soa, q.serial = true, binary.BigEndian.Uint32(msg[end-20:])
		}
		return end
	default:
		return end
	}
	if !additional || q.edns || i != start+1 {
		return -1
	}
	q.edns = true
	q.size = binary.BigEndian.Uint16(msg[i+2:])
	q.version = msg[i+5]
	q.do = msg[i+6]&0x80 != 0
	for i += fixed; i < end; i += 4 + int(binary.BigEndian.Uint16(msg[i+2:])) {
		if i+4 > end {
			return -1
		}
	}
	if i != end {
		return -1
	}
	return end
}
