package nameserver

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"
	"github.com/stretchr/testify/require"

	"github.com/scalr-go/scalr/dnsreg"
	"github.com/scalr-go/scalr/dnsreg/tsig"
)

// FuzzRespond: whatever comes in, the answer is a message that can be read, is no longer than it may be, and answers the
// question that was asked; and an answer gets none.
func FuzzRespond(f *testing.F) {
	s := newServer(f, testZone+"\nbig TXT 20 "+strings.Repeat("x", 2000), Zone{Name: "sub.sub.example.com."})
	for _, name := range []string{"www", "alias2", "q.wild", "x.sub", "big", "nope", "loop1", "x.sub.sub"} {
		for _, typ := range []uint16{dns.TypeA, dns.TypeTXT, dns.TypeANY, dns.TypeDS} {
			q := new(dns.Msg).SetQuestion(name+".example.com.", typ)
			packed, err := q.Pack()
			require.NoError(f, err)
			f.Add(packed)
		}
	}
	q := new(dns.Msg).SetQuestion("www.example.com.", dns.TypeA).SetEdns0(1232, true)
	q.IsEdns0().Option = append(q.IsEdns0().Option, &dns.EDNS0_NSID{Code: dns.EDNS0NSID})
	packed, err := q.Pack()
	require.NoError(f, err)
	f.Add(packed)
	f.Add(packed[:20])
	f.Add(bytes.Repeat([]byte{0xc0, 12}, 20))
	update, err := new(dns.Msg).SetUpdate("example.com.").Pack()
	require.NoError(f, err)
	f.Add(update)

	r := newResponder(s.zones)
	f.Fuzz(func(t *testing.T, msg []byte) {
		for _, stream := range []bool{false, true} {
			out := r.respond(msg, stream)
			if len(msg) < 12 || msg[2]&0x80 != 0 {
				require.Nil(t, out)
				continue
			}
			require.NotNil(t, out)
			require.Equal(t, msg[:2], out[:2], "the ID")
			if !stream {
				require.LessOrEqual(t, len(out), maxUDP)
			}
			m := new(dns.Msg)
			require.NoError(t, m.Unpack(out), "%x", out)
			require.True(t, m.Response)
			require.False(t, m.RecursionAvailable)
			if m.Rcode == dns.RcodeFormatError || m.Rcode == dns.RcodeNotImplemented {
				require.Empty(t, m.Answer)
				continue
			}
			require.Len(t, m.Question, 1)
			end := 12
			for msg[end] != 0 {
				end += 1 + int(msg[end])
			}
			require.Equal(t, msg[12:end+5], out[12:end+5], "the question, in the client's spelling")
			if o := m.IsEdns0(); o == nil && !stream {
				require.LessOrEqual(t, len(out), 512)
			}
		}
	})
}

// Whatever the holder of a key sends, it gets an answer or none, and the zone stays one that can be listed and transferred.
func FuzzUpdate(f *testing.F) {
	m := new(dns.Msg).SetUpdate(zoneName)
	for _, text := range []string{"a.example.com. 1 A 192.0.2.1", "*.example.com. 1 TXT x", "b.example.com. 1 CNAME a.example.com."} {
		rr, err := dns.NewRR(text)
		require.NoError(f, err)
		m.Insert([]dns.RR{rr})
		m.RemoveRRset([]dns.RR{rr})
		m.RRsetNotUsed([]dns.RR{rr})
	}
	packed, err := m.Pack()
	require.NoError(f, err)
	f.Add(packed)
	packed, err = ixfr(1).Pack()
	require.NoError(f, err)
	f.Add(packed)
	f.Fuzz(func(t *testing.T, msg []byte) {
		if len(msg) < headerLen || len(msg) > 60000 {
			return
		}
		s := keyed(t, 2)
		load(t, s, parse(t, "a A 20 192.0.2.1\nb CNAME 20 a.example.com."))
		r := newResponder(s.zones)
		signed := (&tsig.Exchange{Key: writeKey}).Sign(msg, time.Now())
		for _, stream := range []bool{true, false} {
			r.respond(signed, stream)
			if r.transfer != nil {
				require.NoError(t, r.sendTransfer(func([]byte) error { return nil }))
			}
		}
		list, err := s.Records(t.Context(), zoneName)
		require.NoError(t, err)
		for _, set := range list {
			c, err := dnsreg.Canonical(set)
			require.NoError(t, err)
			require.Equal(t, c, set)
		}
		require.NotEmpty(t, records(asked(t, s, new(dns.Msg).SetAxfr(zoneName), readKey, true)))
	})
}
