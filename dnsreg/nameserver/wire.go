package nameserver

import (
	"encoding/binary"
	"slices"
	"time"

	"github.com/miekg/dns"

	"github.com/scalr-go/scalr/dnsreg"
	"github.com/scalr-go/scalr/dnsreg/internal/wire"
)

// rrset is all records of one name and type, ready to be copied into an answer: one after the other, each without its
// owner name, that is type, class, TTL, length and data. Names in the data are not compressed and in lower case.
type rrset struct {
	typ  uint16
	n    int
	wire []byte
}

// fixed is the size of what precedes the data of a record in an rrset.
const fixed = 10

func (s rrset) ttl() uint32 { return binary.BigEndian.Uint32(s.wire[4:]) }

// each gives the data of the records in turn.
func (s rrset) each(yield func(data []byte) bool) {
	for w := s.wire; len(w) > 0; {
		end := fixed + int(binary.BigEndian.Uint16(w[8:]))
		if !yield(w[fixed:end]) {
			return
		}
		w = w[end:]
	}
}

// encode gives a canonical RRset its wire format; equal RRsets have equal ones.
func encode(r dnsreg.RRset) rrset {
	typ := dns.StringToType[r.Type]
	s := rrset{typ: typ, n: len(r.Values)}
	for _, v := range r.Values {
		start := len(s.wire)
		s.wire = binary.BigEndian.AppendUint16(s.wire, typ)
		s.wire = binary.BigEndian.AppendUint16(s.wire, dns.ClassINET)
		s.wire = binary.BigEndian.AppendUint32(s.wire, uint32(r.TTL/time.Second))
		s.wire = append(s.wire, 0, 0)
		s.wire = wire.AppendData(s.wire, typ, v)
		binary.BigEndian.PutUint16(s.wire[start+8:], uint16(len(s.wire)-start-fixed))
	}
	s.wire = slices.Clip(s.wire)
	return s
}

// decode is the inverse of encode.
func decode(name string, s rrset) dnsreg.RRset {
	r := dnsreg.RRset{
		Name:   name,
		Type:   dns.TypeToString[s.typ],
		TTL:    time.Duration(s.ttl()) * time.Second,
		Values: make([]string, 0, s.n),
	}
	for data := range s.each {
		r.Values = append(r.Values, wire.DataText(s.typ, data))
	}
	return r
}
