package libdns_test

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	upstream "github.com/libdns/libdns"
	"github.com/libdns/rfc2136"
	"github.com/miekg/dns"
	"github.com/stretchr/testify/require"

	"github.com/scalr-go/scalr/dnsreg"
	"github.com/scalr-go/scalr/dnsreg/dnsregtest"
	"github.com/scalr-go/scalr/dnsreg/libdns"
	"github.com/scalr-go/scalr/dnsreg/tsig"
	"github.com/scalr-go/scalr/internal/testenv"
)

const zone = "farm.example."

var key = tsig.Key{Name: "farm.", Secret: []byte("0123456789abcdef0123456789abcdef")}

const file = `$ORIGIN farm.example.
@ 3600 IN SOA ns hostmaster 1 3600 600 1209600 20
@ 3600 IN NS ns
ns 3600 IN A 127.0.0.1
`

// bind runs a BIND and gives libdns's provider for it.
func bind(t *testing.T) *rfc2136.Provider {
	t.Helper()
	addr := testenv.NameServer(t, "named", testenv.DNS{Zone: zone, Key: key, File: file, Dynamic: true}).Addr
	p := &rfc2136.Provider{KeyName: key.Name, KeyAlg: tsig.Algorithm, Key: base64.StdEncoding.EncodeToString(key.Secret), Server: addr}
	require.Eventually(t, func() bool { _, err := p.GetRecords(t.Context(), zone); return err == nil }, time.Minute, 20*time.Millisecond)
	return p
}

// text corrects what that provider makes of TXT values: it reads them with their escapes, and writes those of Go, not of DNS.
// Its calls take no context either: a transfer goes on when it has ended.
type text struct{ *rfc2136.Provider }

func (p text) GetRecords(ctx context.Context, zone string) ([]upstream.Record, error) {
	list, err := p.Provider.GetRecords(ctx, zone)
	for i, r := range list {
		if rr := r.RR(); rr.Type == "TXT" {
			rr.Data = unescape(rr.Data)
			list[i] = rr
		}
	}
	return list, err
}

func (p text) SetRecords(ctx context.Context, zone string, records []upstream.Record) ([]upstream.Record, error) {
	if records[0].RR().Type != "TXT" {
		return p.Provider.SetRecords(ctx, zone, records)
	}
	m := new(dns.Msg).SetUpdate(zone)
	rrs := txt(zone, records)
	m.RemoveRRset(rrs)
	m.Insert(rrs)
	return records, p.send(ctx, m)
}

func (p text) DeleteRecords(ctx context.Context, zone string, records []upstream.Record) ([]upstream.Record, error) {
	if records[0].RR().Type != "TXT" {
		return p.Provider.DeleteRecords(ctx, zone, records)
	}
	m := new(dns.Msg).SetUpdate(zone)
	m.Remove(txt(zone, records))
	return records, p.send(ctx, m)
}

func txt(zone string, records []upstream.Record) (list []dns.RR) {
	for _, r := range records {
		rr := r.RR()
		t := &dns.TXT{Hdr: dns.RR_Header{Name: upstream.AbsoluteName(rr.Name, zone), Rrtype: dns.TypeTXT, Class: dns.ClassINET, Ttl: uint32(rr.TTL / time.Second)}}
		for data := rr.Data; data != "" || t.Txt == nil; {
			part := data[:min(255, len(data))]
			data = data[len(part):]
			var b strings.Builder
			for i := range len(part) {
				fmt.Fprintf(&b, `\%03d`, part[i])
			}
			t.Txt = append(t.Txt, b.String())
		}
		list = append(list, t)
	}
	return list
}

func unescape(s string) string {
	var b []byte
	for i := 0; i < len(s); i++ {
		var n int
		switch {
		case s[i] != '\\':
			b = append(b, s[i])
		case len(s) >= i+4 && s[i+1] >= '0' && s[i+1] <= '9':
			fmt.Sscanf(s[i+1:i+4], "%d", &n)
			b = append(b, byte(n))
			i += 3
		default:
			i++
			b = append(b, s[i])
		}
	}
	return string(b)
}

func (p text) send(ctx context.Context, m *dns.Msg) error {
	m.SetTsig(p.KeyName, dns.HmacSHA256, 300, time.Now().Unix())
	c := &dns.Client{Net: "tcp", TsigSecret: map[string]string{p.KeyName: p.Key}}
	reply, _, err := c.ExchangeContext(ctx, m, p.Server)
	if err == nil && reply.Rcode != dns.RcodeSuccess {
		err = errors.New(dns.RcodeToString[reply.Rcode])
	}
	return err
}

func TestRegistrar(t *testing.T) {
	p := text{bind(t)}
	dnsregtest.Run(t, func(t *testing.T) (dnsreg.Registrar, string) {
		r, err := libdns.New(libdns.Options{Provider: p, Zones: []string{zone}})
		require.NoError(t, err)
		return r, zone
	})
}

// Owners share names through a provider as it is, without the corrections of its texts.
func TestOwnersShareThroughAProviderAsItIs(t *testing.T) {
	r, err := libdns.New(libdns.Options{Provider: bind(t), Zones: []string{zone}})
	require.NoError(t, err)
	set := func(name, typ string, values ...string) dnsreg.RRset {
		return dnsreg.RRset{Name: name + zone, Type: typ, TTL: time.Minute, Values: values}
	}
	sync := func(owner string, want ...dnsreg.RRset) {
		t.Helper()
		_, err := dnsreg.Sync(t.Context(), r, zone, owner, want)
		require.NoError(t, err)
		have, err := r.Records(t.Context(), zone)
		require.NoError(t, err)
		left, err := dnsreg.Diff(zone, owner, have, want)
		require.NoError(t, err)
		require.Empty(t, left)
	}
	sync("one", set("www.", "A", "192.0.2.1", "192.0.2.2"), set("", "TXT", "v=spf1 -all"), set("*.", "AAAA", "2001:db8::1"), set("alias.", "CNAME", "www."+zone))
	sync("two", set("www.", "A", "192.0.2.2", "192.0.2.3"), set("_http._tcp.", "SRV", "1 2 80 www."+zone))
	sync("one")
	sync("two", set("www.", "CNAME", "elsewhere.example.org."))
	sync("two")
	have, err := r.Records(t.Context(), zone)
	require.NoError(t, err)
	require.Len(t, have, 3, "the SOA, the NS and the address of the name server: %v", have)
}

// failing is a provider whose calls fail from the nth on; they have taken effect or not.
type failing struct {
	libdns.Provider
	n    int
	late bool
}

var errDown = errors.New("down")

func (f *failing) SetRecords(ctx context.Context, zone string, records []upstream.Record) ([]upstream.Record, error) {
	if f.n--; f.n >= 0 {
		return f.Provider.SetRecords(ctx, zone, records)
	}
	if f.late {
		_, _ = f.Provider.SetRecords(ctx, zone, records)
	}
	return nil, upstream.AtomicErr(errDown)
}

// What was made, what may have been and what was not is told, whatever the provider says of its error.
func TestAFailureHalfWay(t *testing.T) {
	p := bind(t)
	for _, late := range []bool{false, true} {
		r, err := libdns.New(libdns.Options{Provider: &failing{p, 1, late}, Zones: []string{zone}})
		require.NoError(t, err)
		var changes []dnsreg.Change
		for i := range 3 {
			s := &dnsreg.RRset{Name: fmt.Sprintf("%v%d.%s", late, i, zone), Type: "A", TTL: time.Minute, Values: []string{"192.0.2.1"}}
			changes = append(changes, dnsreg.Change{Name: s.Name, Type: s.Type, New: s})
		}
		err = r.Apply(t.Context(), zone, changes)
		require.ErrorIs(t, err, errDown)
		partial, ok := errors.AsType[*dnsreg.PartialError](err)
		require.True(t, ok)
		require.Equal(t, changes[:1], partial.Done)
		require.Equal(t, changes[1:2], partial.Unknown)
		require.Equal(t, changes[2:], partial.Failed)
	}
}

func TestOptionsAreChecked(t *testing.T) {
	_, err := libdns.New(libdns.Options{})
	require.EqualError(t, err, "libdns: Provider is missing")
	p := &rfc2136.Provider{}
	_, err = libdns.New(libdns.Options{Provider: p})
	require.EqualError(t, err, "libdns: Zones is empty, want at least one")
	_, err = libdns.New(libdns.Options{Provider: p, Zones: []string{zone}, MinTTL: time.Millisecond})
	require.EqualError(t, err, "libdns: MinTTL is 1ms, want whole seconds, or 0 for the default")
	_, err = libdns.New(libdns.Options{Provider: p, Zones: []string{"a..b"}})
	require.ErrorIs(t, err, dnsreg.ErrInvalid)
}
