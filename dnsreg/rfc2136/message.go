package rfc2136

import (
	"encoding/binary"
	"fmt"
	"slices"
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

// builder writes an update (RFC 2136, section 2).
type builder struct{ msg []byte }

func (b *builder) record(section int, name string, typ, class uint16, ttl time.Duration, value string) {
	var data []byte
	if class != dns.ClassANY && !(class == dns.ClassNONE && section == prerequisites) {
		data = wire.AppendData(nil, typ, value)
	}
	b.data(section, name, typ, class, ttl, data)
}

func (b *builder) data(section int, name string, typ, class uint16, ttl time.Duration, data []byte) {
	m := wire.AppendName(b.msg, name)
	m = binary.BigEndian.AppendUint16(m, typ)
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
	b := &builder{msg: question(dns.OpcodeUpdate, zone, dns.TypeSOA)}
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
		if c.Old != nil && !(c.Type == "NS" && c.Name == zone) {
			b.record(updates, c.Name, dns.StringToType[c.Type], dns.ClassANY, 0, "")
		}
	}
	for _, c := range changes {
		if c.New == nil {
			continue
		}
		for _, v := range c.New.Values {
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
