package nameserver

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/miekg/dns"

	"github.com/scalr-go/scalr/dnsreg"
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

// appendName appends a canonical absolute name in wire format (RFC 1035, section 3.1).
func appendName(b []byte, name string) []byte {
	for name != "." && name != "" {
		label, rest, _ := strings.Cut(name, ".")
		b = append(append(b, byte(len(label))), label...)
		name = rest
	}
	return append(b, 0)
}

// nameText is the inverse of appendName.
func nameText(w []byte) string {
	if w[0] == 0 {
		return "."
	}
	var b strings.Builder
	b.Grow(len(w) - 1)
	for w[0] != 0 {
		b.Write(w[1 : 1+w[0]])
		b.WriteByte('.')
		w = w[1+w[0]:]
	}
	return b.String()
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
		s.wire = appendData(s.wire, typ, v)
		binary.BigEndian.PutUint16(s.wire[start+8:], uint16(len(s.wire)-start-fixed))
	}
	s.wire = slices.Clip(s.wire)
	return s
}

// appendData appends the data of one record. The value is canonical, so nothing in it can be wrong.
func appendData(b []byte, typ uint16, v string) []byte {
	switch typ {
	case dns.TypeA, dns.TypeAAAA:
		return append(b, netip.MustParseAddr(v).AsSlice()...)
	case dns.TypeTXT:
		for {
			part := v[:min(255, len(v))]
			b = append(append(b, byte(len(part))), part...)
			if v = v[len(part):]; v == "" {
				return b
			}
		}
	}
	for f := range strings.FieldsSeq(v) {
		if strings.HasSuffix(f, ".") {
			b = appendName(b, f)
		} else if n, _ := strconv.ParseUint(f, 10, 32); typ == dns.TypeSOA {
			b = binary.BigEndian.AppendUint32(b, uint32(n))
		} else {
			b = binary.BigEndian.AppendUint16(b, uint16(n))
		}
	}
	return b
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
		r.Values = append(r.Values, dataText(s.typ, data))
	}
	return r
}

func dataText(typ uint16, d []byte) string {
	u16 := func(i int) uint16 { return binary.BigEndian.Uint16(d[i:]) }
	switch typ {
	case dns.TypeA, dns.TypeAAAA:
		a, _ := netip.AddrFromSlice(d)
		return a.String()
	case dns.TypeTXT:
		var b strings.Builder
		for len(d) > 0 {
			end := 1 + int(d[0])
			b.Write(d[1:end])
			d = d[end:]
		}
		return b.String()
	case dns.TypeMX:
		return fmt.Sprintf("%d %s", u16(0), nameText(d[2:]))
	case dns.TypeSRV:
		return fmt.Sprintf("%d %d %d %s", u16(0), u16(2), u16(4), nameText(d[6:]))
	case dns.TypeSOA:
		mname := nameText(d)
		d = d[nameLen(d):]
		rname := nameText(d)
		d = d[nameLen(d):]
		u32 := func(i int) uint32 { return binary.BigEndian.Uint32(d[4*i:]) }
		return fmt.Sprintf("%s %s %d %d %d %d %d", mname, rname, u32(0), u32(1), u32(2), u32(3), u32(4))
	}
	return nameText(d) // CNAME, NS
}

// nameLen gives the length of the name that w begins with.
func nameLen(w []byte) int {
	n := 0
	for w[n] != 0 {
		n += 1 + int(w[n])
	}
	return n + 1
}
