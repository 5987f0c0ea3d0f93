package nameserver

import (
	"bytes"
	"encoding/binary"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"runtime"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/miekg/dns"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/scalr-go/scalr/dnsreg/tsig"
)

// garbage makes messages that no client should send.
type garbage struct {
	*rand.Rand
	seeds [][]byte
	id    uint16 // of the last message
}

func newGarbage(t *testing.T, seed uint64) *garbage {
	g := &garbage{Rand: rand.New(rand.NewPCG(seed, 1))}
	for _, typ := range []uint16{dns.TypeA, dns.TypeTXT, dns.TypeANY, dns.TypeSOA} {
		packed, err := new(dns.Msg).SetQuestion("www."+zoneName, typ).SetEdns0(4096, true).Pack()
		require.NoError(t, err)
		g.seeds = append(g.seeds, packed)
	}
	rr, err := dns.NewRR("hacked." + zoneName + " 1 A 192.0.2.66")
	require.NoError(t, err)
	update := new(dns.Msg).SetUpdate(zoneName)
	update.Insert([]dns.RR{rr})
	for _, m := range []*dns.Msg{update, new(dns.Msg).SetAxfr(zoneName), new(dns.Msg).SetIxfr(zoneName, 1, "ns.", "h.")} {
		packed, err := m.Pack()
		require.NoError(t, err)
		g.seeds = append(g.seeds, packed)
	}
	return g
}

func (g *garbage) bytes(n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(g.Uint32())
	}
	return b
}

// message gives one of many kinds; all that ask for something that needs a key bear none, or a forged signature. Each has an
// ID of its own, to tell a late answer to another one.
func (g *garbage) message() (msg []byte, forged bool) {
	g.id++
	seed := func(i int) []byte {
		m := slices.Clone(g.seeds[i%len(g.seeds)])
		binary.BigEndian.PutUint16(m, g.id)
		return m
	}
	of := g.IntN(len(g.seeds))
	m := seed(of)
	switch g.IntN(9) {
	case 0: // nothing but noise
		return append(m[:2], g.bytes(g.IntN(600))...), false
	case 1: // cut off
		return m[:g.IntN(len(m))], false
	case 2: // more than it says
		return append(m, g.bytes(g.IntN(40000))...), false
	case 3: // some bits are wrong
		for range 1 + g.IntN(8) {
			m[2+g.IntN(len(m)-2)] ^= 1 << g.IntN(8)
		}
	case 4: // counts that are not true
		binary.BigEndian.PutUint16(m[4+2*g.IntN(4):], uint16(g.Uint32()))
	case 5: // a name that points to itself
		m = append(m[:12], 0xc0, byte(g.IntN(40)), 0, 1, 0, 1)
	case 6: // signed with a secret that is not the key's
		x := tsig.Exchange{Key: tsig.Key{Name: writeKey.Name, Secret: g.bytes(32)}}
		return x.Sign(m, time.Now()), true
	case 7: // signed rightly, with the signature of another message
		other := seed(of + 1 + g.IntN(len(g.seeds)-1))
		signature := (&tsig.Exchange{Key: writeKey}).Sign(other, time.Now())[len(other):]
		m = append(m, signature...)
		m[11]++
		return m, true
	case 8: // signed rightly, and altered afterwards, long ago, or cut off
		x := tsig.Exchange{Key: writeKey}
		when := time.Now()
		alter := g.IntN(3)
		if alter == 0 {
			when = when.Add(-time.Hour)
		}
		m = x.Sign(m, when)
		switch alter {
		case 1:
			m[12+g.IntN(4)] ^= 1 << g.IntN(5)
		case 2:
			m = m[:len(m)-1-g.IntN(40)]
		}
		return m, true
	}
	return m, false
}

// Whatever is thrown at it, the server answers those who ask, tells and changes nothing for those without a key, and neither
// memory nor goroutines grow. The long form sets DNS_GARBAGE=10m.
func TestGarbage(t *testing.T) {
	defer goleak.VerifyNone(t, goleak.IgnoreCurrent())
	length := time.Second
	if long := os.Getenv("DNS_GARBAGE"); long != "" {
		var err error
		length, err = time.ParseDuration(long)
		require.NoError(t, err)
	}
	s, err := New(Options{Zones: []Zone{{Name: zoneName, Serial: 1, Updaters: []tsig.Key{writeKey}}}})
	require.NoError(t, err)
	load(t, s, parse(t, "www A 20 192.0.2.1\nhidden TXT 20 secret"))
	t.Run("", func(t *testing.T) {
		run(t, s)
		before, err := s.Records(t.Context(), zoneName)
		require.NoError(t, err)
		end := time.Now().Add(length)
		var wg sync.WaitGroup
		var mu sync.Mutex
		var wrong []string
		sent := 0
		forgeries := 0
		judge := func(query, out []byte, forged bool) {
			if len(query) < 2 || !bytes.Equal(query[:2], out[:2]) {
				return // a late answer to another one
			}
			m := new(dns.Msg)
			fault := ""
			switch {
			case m.Unpack(out) != nil:
				fault = "an answer that is none"
			case !m.Response:
				fault = "an answer that asks"
			case m.Opcode == dns.OpcodeUpdate && m.Rcode == dns.RcodeSuccess:
				fault = "an update without a key"
			case len(m.Answer) > 0 && len(m.Question) == 1 && (m.Question[0].Qtype == dns.TypeAXFR || m.Question[0].Qtype == dns.TypeIXFR):
				fault = "a transfer without a key"
			case forged && (m.Rcode != dns.RcodeNotAuth && m.Rcode != dns.RcodeFormatError || len(m.Answer)+len(m.Ns) > 0):
				fault = "an answer to a forged signature"
			case bytes.Contains(out, []byte("secret")):
				fault = "what nobody has asked for"
			}
			mu.Lock()
			defer mu.Unlock()
			if forged {
				forgeries++
			}
			if sent++; fault != "" {
				wrong = append(wrong, fault)
				t.Logf("%s: %x: %x", fault, query, out)
			}
		}
		for i := range 2 {
			wg.Go(func() { throwUDP(t, s, newGarbage(t, uint64(i)), end, judge) })
			wg.Go(func() { throwTCP(t, s, newGarbage(t, uint64(10+i)), end, judge) })
		}
		var stats runtime.MemStats
		var first, last uint64
		for time.Now().Before(end) {
			require.Equal(t, "NOERROR aa\nwww 20 A 192.0.2.1", show(askUDP(t, s)))
			runtime.GC()
			runtime.ReadMemStats(&stats)
			if last = stats.HeapAlloc; first == 0 {
				first = last
			}
			time.Sleep(min(length/10, time.Second))
		}
		wg.Wait()
		require.Empty(t, wrong)
		require.NotZero(t, sent, "nothing was answered")
		require.NotZero(t, forgeries, "nothing forged was answered")
		require.Less(t, last, first+64<<20, "the heap has grown")
		after, err := s.Records(t.Context(), zoneName)
		require.NoError(t, err)
		require.Equal(t, before, after)
		t.Logf("%d answers, %d of them to forgeries, heap %d kB at first, %d kB at last", sent, forgeries, first>>10, last>>10)
	})
}

// askUDP asks as a client does, which asks again when nothing comes.
func askUDP(t *testing.T, s *Server) *dns.Msg {
	t.Helper()
	q := new(dns.Msg).SetQuestion("www."+zoneName, dns.TypeA)
	var m *dns.Msg
	require.Eventually(t, func() bool {
		var err error
		m, _, err = (&dns.Client{Timeout: 2 * time.Second}).ExchangeContext(t.Context(), q, s.Addr().String())
		return err == nil
	}, time.Minute, time.Millisecond)
	return m
}

func throwUDP(t *testing.T, s *Server, g *garbage, end time.Time, judge func(query, out []byte, forged bool)) {
	conn, err := net.Dial("udp", s.Addr().String())
	if err != nil {
		t.Error(err)
		return
	}
	defer conn.Close()
	in := make([]byte, dns.MaxMsgSize)
	for time.Now().Before(end) {
		m, forged := g.message()
		if _, err := conn.Write(m); err != nil {
			continue
		}
		_ = conn.SetReadDeadline(time.Now().Add(5 * time.Millisecond))
		if n, err := conn.Read(in); err == nil {
			judge(m, in[:n], forged)
		}
	}
}

func throwTCP(t *testing.T, s *Server, g *garbage, end time.Time, judge func(query, out []byte, forged bool)) {
	for time.Now().Before(end) {
		conn, err := net.Dial("tcp", s.Addr().String())
		if err != nil {
			t.Error(err)
			return
		}
		for range g.IntN(20) {
			m, forged := g.message()
			size := len(m)
			if g.IntN(10) == 0 {
				size = g.IntN(dns.MaxMsgSize) // it says that there is more, or less
			}
			if _, err := conn.Write(append(binary.BigEndian.AppendUint16(nil, uint16(size)), m...)); err != nil || size != len(m) {
				break
			}
			_ = conn.SetReadDeadline(time.Now().Add(20 * time.Millisecond))
			var length [2]byte
			if _, err := io.ReadFull(conn, length[:]); err != nil {
				break
			}
			out := make([]byte, binary.BigEndian.Uint16(length[:]))
			if _, err := io.ReadFull(conn, out); err != nil {
				break
			}
			judge(m, out, forged)
		}
		conn.Close()
	}
}
