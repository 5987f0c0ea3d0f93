package rfc2136

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/miekg/dns"

	"github.com/scalr-go/scalr/dnsreg"
	"github.com/scalr-go/scalr/dnsreg/internal/wire"
)

// bySigners are the types that a server makes itself when it signs a zone. They are nobody's, and stand beside any other.
var bySigners = []uint16{dns.TypeRRSIG, dns.TypeNSEC, dns.TypeNSEC3, dns.TypeNSEC3PARAM, dns.TypeDNSKEY, dns.TypeCDS,
	dns.TypeCDNSKEY, dns.TypeZONEMD, 65534}

// Records lists the zone by a transfer, as it is at one instant. Types that dnsreg does not know are listed in presentation
// format; what a server makes itself to sign the zone is left out.
func (r *Registrar) Records(ctx context.Context, zone string) ([]dnsreg.RRset, error) {
	zone, err := dnsreg.CanonicalName(zone)
	if err != nil {
		return nil, err
	}
	l, err := r.transfer(ctx, zone)
	if err != nil {
		return nil, err
	}
	return l.list(), nil
}

// transfer gets the zone.
func (r *Registrar) transfer(ctx context.Context, zone string) (*lister, error) {
	l := &lister{sets: make(map[setKey]*dnsreg.RRset), texts: make(map[setKey][][]byte)}
	code := dns.RcodeSuccess
	err := r.dial(ctx, func(c *conn) error {
		if err := c.send(question(dns.OpcodeQuery, zone, dns.TypeAXFR)); err != nil {
			return err
		}
		for !l.done {
			msg, err := c.receive()
			if err != nil {
				return err
			}
			if code = int(msg[3] & 15); code != dns.RcodeSuccess {
				return nil
			}
			var m dns.Msg
			if err := m.Unpack(msg); err != nil {
				return fmt.Errorf("the reply: %w", err)
			}
			if len(m.Answer) == 0 {
				return errors.New("the reply holds no records")
			}
			for _, rr := range m.Answer {
				if err := l.add(zone, rr); err != nil {
					return err
				}
			}
		}
		return c.x.Complete()
	})
	switch {
	case err != nil:
		return nil, fmt.Errorf("rfc2136: transfer of %s from %s: %w", zone, r.opts.Server, err)
	case code != dns.RcodeSuccess:
		return nil, refused(zone, "transfer", code)
	}
	return l, nil
}

type setKey struct {
	name string
	typ  uint16
}

// lister gathers the records of a transfer: the SOA, all others, and the same SOA again (RFC 5936, section 2.2).
type lister struct {
	sets  map[setKey]*dnsreg.RRset
	texts map[setKey][][]byte // the data of TXT RRsets of which one is not cut into strings as this package does it
	soa   string
	done  bool
}

func (l *lister) add(zone string, rr dns.RR) error {
	h := rr.Header()
	name := strings.ToLower(h.Name)
	isSOA := h.Rrtype == dns.TypeSOA
	switch {
	case l.done:
		return errors.New("the transfer goes on after its end")
	case len(l.sets) == 0 && (!isSOA || name != zone):
		return errors.New("the transfer does not begin with the zone's SOA")
	case slices.Contains(bySigners, h.Rrtype):
		return nil
	}
	value, err := wire.Value(rr)
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	if isSOA && len(l.sets) > 0 {
		if value != l.soa {
			return errors.New("the transfer ends with another SOA than it began with")
		}
		l.done = true
		return nil
	}
	if isSOA {
		l.soa = value
	}
	k := setKey{name, h.Rrtype}
	s := l.sets[k]
	if s == nil {
		s = &dnsreg.RRset{Name: name, Type: dns.Type(h.Rrtype).String(), TTL: time.Duration(h.Ttl) * time.Second}
		l.sets[k] = s
	}
	s.TTL = min(s.TTL, time.Duration(h.Ttl)*time.Second) // they are the same (RFC 2181, section 5.2)
	s.Values = append(s.Values, value)
	if h.Rrtype == dns.TypeTXT {
		return l.text(k, rr, value)
	}
	return nil
}

// text keeps the data of a TXT if they are another way to write its value, and then those of the whole RRset.
func (l *lister) text(k setKey, rr dns.RR, value string) error {
	data, err := wire.Data(rr)
	if err != nil {
		return err
	}
	odd := l.texts[k]
	if odd == nil {
		if bytes.Equal(data, wire.AppendData(nil, dns.TypeTXT, value)) {
			return nil
		}
		values := l.sets[k].Values
		for _, v := range values[:len(values)-1] {
			odd = append(odd, wire.AppendData(nil, dns.TypeTXT, v))
		}
	}
	l.texts[k] = append(odd, data)
	return nil
}

func (l *lister) list() []dnsreg.RRset {
	list := make([]dnsreg.RRset, 0, len(l.sets))
	for _, s := range l.sets {
		if c, err := dnsreg.Canonical(*s); err == nil {
			s = &c
		} else {
			slices.Sort(s.Values)
		}
		list = append(list, *s)
	}
	slices.SortFunc(list, func(a, b dnsreg.RRset) int {
		return cmp.Or(cmp.Compare(a.Name, b.Name), cmp.Compare(a.Type, b.Type))
	})
	return list
}
