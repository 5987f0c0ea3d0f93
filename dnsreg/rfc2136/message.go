package rfc2136

import (
	"encoding/binary"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/miekg/dns"

	"github.com/scalr-go/scalr/dnsreg"
	"github.com/scalr-go/scalr/dnsreg/internal/wire"
)

// besideCNAME are the types that must not stand beside a CNAME and that a server may have: those of this package, and
// others that people use.
var besideCNAME = []uint16{dns.TypeA, dns.TypeAAAA, dns.TypeTXT, dns.TypeSRV, dns.TypeMX, dns.TypeNS, dns.TypePTR,
	dns.TypeCAA, dns.TypeHTTPS, dns.TypeSVCB, dns.TypeSSHFP, dns.TypeTLSA, dns.TypeNAPTR, dns.TypeDNAME, dns.TypeDS,
	dns.TypeHINFO, dns.TypeLOC, dns.TypeURI, dns.TypeSPF, dns.TypeRP, dns.TypeSMIMEA, dns.TypeOPENPGPKEY, dns.TypeCERT}

// Offsets of the counts in a message's header.
const (
	prerequisites = 6
	updates       = 8
)

// crowd is from how many addresses on a change says only which of them go and which come.
const crowd = 100

// builder writes an update (RFC 2136, section 2).
type builder struct {
	msg   []byte
	names map[string]int // where names stand in it
}

// name appends the name of a record, which points to where it or its end stands already (RFC 1035, section 4.1.4).
func (b *builder) name(name string) {
	for name != "." {
		if at, ok := b.names[name]; ok {
			b.msg = binary.BigEndian.AppendUint16(b.msg, 0xc000|uint16(at))
			return
		}
		if len(b.msg) < 0x4000 {
			b.names[name] = len(b.msg)
		}
		label, rest, _ := strings.Cut(name, ".")
		b.msg = append(append(b.msg, byte(len(label))), label...)
		if name = rest; name == "" {
			name = "."
		}
	}
	b.msg = append(b.msg, 0)
}

func (b *builder) record(section int, name string, typ, class uint16, ttl time.Duration, value string) {
	var data []byte
	if class != dns.ClassANY && !(class == dns.ClassNONE && section == prerequisites) {
		data = wire.AppendData(nil, typ, value)
	}
	b.data(section, name, typ, class, ttl, data)
}

func (b *builder) data(section int, name string, typ, class uint16, ttl time.Duration, data []byte) {
	b.name(name)
	m := binary.BigEndian.AppendUint16(b.msg, typ)
	m = binary.BigEndian.AppendUint16(m, class)
	m = binary.BigEndian.AppendUint32(m, uint32(ttl/time.Second))
	m = binary.BigEndian.AppendUint16(m, uint16(len(data)))
	b.msg = append(m, data...)
	binary.BigEndian.PutUint16(b.msg[section:], binary.BigEndian.Uint16(b.msg[section:])+1)
}

// update gives the message of a change set, which is canonical. The prerequisite about an RRset that is in texts is on these
// data: a server compares TXT string by string, and the same text may be cut into others.
//
// A server ignores a CNAME that comes beside other data, and other data that come beside a CNAME (section 3.4.2.2), so that
// nothing stands in the way is a prerequisite too.
func update(zone string, changes []dnsreg.Change, texts map[setKey][][]byte) ([]byte, error) {
	b := &builder{msg: question(dns.OpcodeUpdate, zone, dns.TypeSOA), names: map[string]int{zone: 12}}
	said := make(map[setKey]bool) // there is a prerequisite about this RRset
	for _, c := range changes {
		typ := dns.StringToType[c.Type]
		said[setKey{c.Name, typ}] = true
		if c.Old == nil {
			b.record(prerequisites, c.Name, typ, dns.ClassNONE, 0, "")
			continue
		}
		if data := texts[setKey{c.Name, typ}]; data != nil {
			for _, d := range data {
				b.data(prerequisites, c.Name, typ, dns.ClassINET, 0, d)
			}
			continue
		}
		for _, v := range c.Old.Values {
			b.record(prerequisites, c.Name, typ, dns.ClassINET, 0, v)
		}
	}
	absent := func(name string, typ uint16) {
		if k := (setKey{name, typ}); !said[k] {
			said[k] = true
			b.record(prerequisites, name, typ, dns.ClassNONE, 0, "")
		}
	}
	for _, c := range changes {
		switch {
		case c.New == nil || c.Old != nil:
		case c.Type != "CNAME":
			absent(c.Name, dns.TypeCNAME)
		default:
			for _, typ := range besideCNAME {
				absent(c.Name, typ)
			}
		}
	}
	// What goes, goes first, so that a CNAME may take the place of other data, or they its place.
	for _, c := range changes {
		if _, _, some := parts(c); c.Old != nil && !(c.Type == "NS" && c.Name == zone) && !some {
			b.record(updates, c.Name, dns.StringToType[c.Type], dns.ClassANY, 0, "")
		}
	}
	for _, c := range changes {
		if c.New == nil {
			continue
		}
		gone, come, some := parts(c)
		if !some {
			come = c.New.Values
		}
		for _, v := range gone {
			b.record(updates, c.Name, dns.StringToType[c.Type], dns.ClassNONE, 0, v)
		}
		for _, v := range come {
			b.record(updates, c.Name, dns.StringToType[c.Type], dns.ClassINET, c.New.TTL, v)
		}
		if c.Type == "NS" && c.Name == zone && c.Old != nil { // a server does not remove all of these (section 3.4.2.3)
			for _, v := range c.Old.Values {
				if !slices.Contains(c.New.Values, v) {
					b.record(updates, c.Name, dns.TypeNS, dns.ClassNONE, 0, v)
				}
			}
		}
	}
	// what the signature adds: the key's name of up to 255 bytes and 61 bytes more
	if n := len(b.msg) + 320; n > dns.MaxMsgSize {
		return nil, fmt.Errorf("%d changes of %s: %w: the message would have %d bytes, want at most %d",
			len(changes), zone, dnsreg.ErrInvalid, n, dns.MaxMsgSize)
	}
	return b.msg, nil
}

// parts gives which of many addresses go and which come, if it is shorter to say only these: what is there is a prerequisite.
func parts(c dnsreg.Change) (gone, come []string, shorter bool) {
	if c.Old == nil || c.New == nil || len(c.Old.Values) <= crowd || c.Old.TTL != c.New.TTL || c.Type != "A" && c.Type != "AAAA" {
		return nil, nil, false
	}
	gone, come = without(c.Old.Values, c.New.Values), without(c.New.Values, c.Old.Values)
	if len(gone)+len(come) > len(c.New.Values) {
		return nil, nil, false
	}
	return gone, come, true
}

// without gives the values that others has not; both are sorted.
func without(values, others []string) (rest []string) {
	for _, v := range values {
		if _, there := slices.BinarySearch(others, v); !there {
			rest = append(rest, v)
		}
	}
	return rest
}
