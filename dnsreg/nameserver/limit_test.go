package nameserver

import (
	"net/netip"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/miekg/dns"
	"github.com/stretchr/testify/require"
)

// A network gets so many equal answers in a second; then it is told to ask over TCP every second time.
func TestAnswersAreLimited(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newServer(t, testZone)
		r := newResponder(s.zones)
		r.limits = newLimiter(3)
		ask := func(from, name string, typ uint16, stream bool) string {
			q, err := new(dns.Msg).SetQuestion(name, typ).Pack()
			require.NoError(t, err)
			r.from = netip.MustParseAddr(from)
			out := r.respond(q, stream)
			if out == nil {
				return "nothing"
			}
			m := unpack(t, out)
			if m.Truncated {
				require.Empty(t, m.Answer)
				require.Len(t, m.Question, 1)
				return "tc"
			}
			return dns.RcodeToString[m.Rcode]
		}
		www := func(from string) string { return ask(from, "www."+zoneName, dns.TypeA, false) }
		for range 3 {
			require.Equal(t, "NOERROR", www("203.0.113.1"))
		}
		require.Equal(t, "tc", www("203.0.113.2"), "the same network")
		require.Equal(t, "nothing", www("203.0.113.3"))
		require.Equal(t, "tc", www("::ffff:203.0.113.3"))
		require.Equal(t, "nothing", www("203.0.113.3"))
		require.Equal(t, "NOERROR", www("203.0.114.1"), "another network")
		require.Equal(t, "NOERROR", ask("203.0.113.1", "www."+zoneName, dns.TypeA, true), "over TCP")
		require.Equal(t, "NOERROR", ask("203.0.113.1", zoneName, dns.TypeSOA, false), "another name")
		for i := range 6 {
			want := []string{"NXDOMAIN", "NXDOMAIN", "NXDOMAIN", "tc", "nothing", "tc"}[i]
			require.Equal(t, want, ask("2001:db8::1", string(rune('a'+i))+".nope."+zoneName, dns.TypeA, false), "names that are not there count as one")
		}
		require.Equal(t, "NXDOMAIN", ask("2001:db8:0:100::1", "nope."+zoneName, dns.TypeA, false), "another /56")
		for i := range 6 {
			want := []string{"REFUSED", "REFUSED", "REFUSED", "tc", "nothing", "tc"}[i]
			require.Equal(t, want, ask("198.51.100.1", string(rune('a'+i))+".example.net.", dns.TypeA, false))
		}
		for range 100 {
			require.Equal(t, "NOERROR", www("127.0.0.1"))
		}
		for i := range 5 {
			r.from = netip.MustParseAddr("192.0.2.1")
			require.Equal(t, i < 3, r.respond(make([]byte, 12), false) != nil, "what is malformed is answered so often, too")
		}
		time.Sleep(time.Second)
		require.Equal(t, "NOERROR", www("203.0.113.1"))
	})
}

// However many ask at once, no more than the bound get an answer.
func TestTheLimitHoldsForAllReadersTogether(t *testing.T) {
	l := newLimiter(100)
	var sent, truncated, dropped atomic.Int64
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 100 {
				switch l.take(netip.MustParseAddr("203.0.113.1"), "x", 7) {
				case send:
					sent.Add(1)
				case sendTruncated:
					truncated.Add(1)
				case drop:
					dropped.Add(1)
				}
			}
		})
	}
	wg.Wait()
	require.Equal(t, []int64{100, 350, 350}, []int64{sent.Load(), truncated.Load(), dropped.Load()})
}
