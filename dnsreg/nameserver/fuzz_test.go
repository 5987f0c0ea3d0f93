package nameserver

import (
	"bytes"
	"strings"
	"testing"

	"github.com/miekg/dns"
	"github.com/stretchr/testify/require"
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
