// Package wire turns names and the data of records into wire format (RFC 1035) and back, for the name server and the
// registrars that speak DNS. What it gets is canonical, as package dnsreg defines it, so nothing in it can be wrong.
package wire

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"strconv"
	"strings"

	"github.com/miekg/dns"
)

// AppendName appends a canonical absolute name in wire format (RFC 1035, section 3.1).
func AppendName(b []byte, name string) []byte {
	for name != "." && name != "" {
		label, rest, _ := strings.Cut(name, ".")
		b = append(append(b, byte(len(label))), label...)
		name = rest
	}
	return append(b, 0)
}

// NameText is the inverse of AppendName. What no canonical name has in a label is escaped (RFC 1035, section 5.1), so that it
// is not taken for another name: a dot above all.
func NameText(w []byte) string {
	if w[0] == 0 {
		return "."
	}
	var b strings.Builder
	b.Grow(len(w) - 1)
	for w[0] != 0 {
		for _, c := range w[1 : 1+w[0]] {
			switch {
			case c == '.' || c == '\\':
				b.WriteByte('\\')
				b.WriteByte(c)
			case c <= ' ' || c > '~':
				fmt.Fprintf(&b, `\%03d`, c)
			default:
				b.WriteByte(c)
			}
		}
		b.WriteByte('.')
		w = w[1+w[0]:]
	}
	return b.String()
}

// AppendData appends the data of one record.
func AppendData(b []byte, typ uint16, v string) []byte {
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
			b = AppendName(b, f)
		} else if n, _ := strconv.ParseUint(f, 10, 32); typ == dns.TypeSOA {
			b = binary.BigEndian.AppendUint32(b, uint32(n))
		} else {
			b = binary.BigEndian.AppendUint16(b, uint16(n))
		}
	}
	return b
}

// DataText is the inverse of AppendData.
func DataText(typ uint16, d []byte) string {
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
		return fmt.Sprintf("%d %s", u16(0), NameText(d[2:]))
	case dns.TypeSRV:
		return fmt.Sprintf("%d %d %d %s", u16(0), u16(2), u16(4), NameText(d[6:]))
	case dns.TypeSOA:
		mname := NameText(d)
		d = d[NameLen(d):]
		rname := NameText(d)
		d = d[NameLen(d):]
		u32 := func(i int) uint32 { return binary.BigEndian.Uint32(d[4*i:]) }
		return fmt.Sprintf("%s %s %d %d %d %d %d", mname, rname, u32(0), u32(1), u32(2), u32(3), u32(4))
	}
	return NameText(d) // CNAME, NS
}

// NameLen gives the length of the name that w begins with.
func NameLen(w []byte) int {
	n := 0
	for w[n] != 0 {
		n += 1 + int(w[n])
	}
	return n + 1
}

// whole reports whether the data of a record are neither cut nor too long: whoever sends records may send such ones.
func whole(typ uint16, d []byte) bool {
	before, names, after := 0, 1, 0
	switch typ {
	case dns.TypeA:
		return len(d) == 4
	case dns.TypeAAAA:
		return len(d) == 16
	case dns.TypeTXT:
		return len(d) > 0 // its strings are cut out by those who unpack it
	case dns.TypeMX:
		before = 2
	case dns.TypeSRV:
		before = 6
	case dns.TypeSOA:
		names, after = 2, 20
	}
	i := before
	for range names {
		for i < len(d) && d[i] != 0 {
			i += 1 + int(d[i])
		}
		i++
	}
	return i+after == len(d)
}

// Value gives a record's data as package dnsreg writes it; those of other types are in presentation format. It is an error
// if the data are cut.
func Value(rr dns.RR) (string, error) {
	h := rr.Header()
	switch h.Rrtype {
	case dns.TypeA, dns.TypeAAAA, dns.TypeCNAME, dns.TypeNS, dns.TypeMX, dns.TypeSRV, dns.TypeTXT, dns.TypeSOA:
		data, err := Data(rr)
		if err != nil {
			return "", err
		}
		return DataText(h.Rrtype, data), nil
	}
	return strings.TrimPrefix(rr.String(), h.String()), nil
}

// Data gives the data of a record of a type that package dnsreg has, as they came. It is an error if they are cut.
func Data(rr dns.RR) ([]byte, error) {
	buf := make([]byte, dns.Len(rr)+1)
	end, err := dns.PackRR(rr, buf, 0, nil, false)
	if err != nil {
		return nil, err
	}
	typ, data := rr.Header().Rrtype, buf[NameLen(buf)+10:end]
	if !whole(typ, data) {
		return nil, fmt.Errorf("the data of a %s are cut", dns.TypeToString[typ])
	}
	return data, nil
}
