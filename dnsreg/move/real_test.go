package move_test

import (
	"context"
	"fmt"
	"net"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/miekg/dns"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/scalr-go/scalr/dnsreg"
	"github.com/scalr-go/scalr/dnsreg/move"
	"github.com/scalr-go/scalr/dnsreg/nameserver"
	"github.com/scalr-go/scalr/dnsreg/tsig"
	"github.com/scalr-go/scalr/internal/testenv"
)

// site is the machines behind a name, and what clients met.
type site struct {
	mu      sync.Mutex
	dead    map[string]bool // addresses that no longer serve
	harm    []string
	lookups int
	used    map[string]int // how often each address was used
}

// use checks that what a client holds serves, unless the client does not hold it any more.
func (s *site) use(held []string, expires time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now()
	if !now.Before(expires) {
		return
	}
	for _, v := range held {
		s.used[v]++
		if s.dead[v] {
			s.harm = append(s.harm, fmt.Sprintf("%s is held for %v more", v, expires.Sub(now)))
		}
	}
}

// client looks the name up at a resolver whenever its TTL is over, as a stub that caches does, and uses what it holds all the
// time.
func (s *site) client(ctx context.Context, resolver string) {
	var held []string
	var expires time.Time
	c := dns.Client{Timeout: time.Second}
	for ; ctx.Err() == nil; time.Sleep(2 * time.Millisecond) {
		s.use(held, expires)
		asked := time.Now()
		if asked.Before(expires) {
			continue
		}
		m, _, err := c.ExchangeContext(ctx, new(dns.Msg).SetQuestion(name, dns.TypeA), resolver)
		if err != nil || m.Rcode != dns.RcodeSuccess {
			continue // it has nothing and asks again
		}
		held = nil
		for _, rr := range m.Answer {
			if a, ok := rr.(*dns.A); ok {
				held, expires = append(held, a.A.String()), asked.Add(time.Duration(a.Hdr.Ttl)*time.Second)
			}
		}
		s.mu.Lock()
		s.lookups++
		if len(held) == 0 {
			s.harm = append(s.harm, "a client is told that there is no address")
		}
		s.mu.Unlock()
	}
}

// While a name moves, clients look it up without a pause through real resolvers that cache (BIND), over two name servers, the
// embedded one and its secondary (Knot). The old machines end the instant that the move says so.
func TestAMoveBehindRealResolvers(t *testing.T) {
	leak := goleak.IgnoreCurrent()
	t.Cleanup(func() { goleak.VerifyNone(t, leak) })
	testenv.Need(t, "named", "knotd")
	key := tsig.Key{Name: "farm.", Secret: []byte("0123456789abcdef0123456789abcdef")}
	port := testenv.FreePort(t)
	second := net.JoinHostPort("127.0.0.1", strconv.Itoa(port))
	names, err := nameserver.New(nameserver.Options{Zones: []nameserver.Zone{{Name: zone, Secondaries: []nameserver.Secondary{{Addr: second, Key: key}}}}})
	require.NoError(t, err)
	_, err = dnsreg.Sync(t.Context(), names, zone, "shop", []dnsreg.RRset{{Name: name, Type: "A", TTL: 4 * time.Second, Values: oldIPs}})
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	var running sync.WaitGroup
	running.Go(func() { _ = names.Run(ctx) })
	t.Cleanup(func() { cancel(); running.Wait() })
	testenv.NameServer(t, "knotd", testenv.DNS{Zone: zone, Key: key, Primary: names.Addr().String(), Port: port})
	servers := []string{names.Addr().String(), second}
	require.Eventually(t, func() bool {
		r, err := move.Ask(second)(t.Context(), name, "A")
		return err == nil && len(r.Values) == 2
	}, time.Minute, 10*time.Millisecond)
	s := &site{dead: make(map[string]bool), used: make(map[string]int)}
	for range 2 {
		resolver := testenv.NameServer(t, "named", testenv.DNS{Forward: servers}).Addr
		for range 3 {
			running.Go(func() { s.client(ctx, resolver) })
		}
	}

	m := move.Move{Registrar: names, Zone: zone, Owner: "shop", Name: name, Type: "A", Old: oldIPs, New: newIPs, TTL: 2 * time.Second,
		Interval: 50 * time.Millisecond}
	for _, addr := range servers {
		m.Servers = append(m.Servers, move.Ask(addr))
	}
	last, err := m.Run(t.Context(), move.State{}, func(st move.State) error {
		s.mu.Lock()
		defer s.mu.Unlock()
		if st.OldUnused() {
			for _, v := range oldIPs {
				s.dead[v] = true
			}
		}
		return nil
	})
	require.NoError(t, err)
	require.Equal(t, move.Done, last.Phase)
	require.Eventually(t, func() bool { // and on, with the new values alone and the long TTL
		s.mu.Lock()
		defer s.mu.Unlock()
		before := s.lookups
		s.mu.Unlock()
		time.Sleep(time.Second)
		s.mu.Lock()
		return s.lookups > before
	}, time.Minute, time.Millisecond)
	s.mu.Lock()
	defer s.mu.Unlock()
	require.Empty(t, s.harm[:min(3, len(s.harm))])
	for _, v := range slices.Concat(oldIPs, newIPs) {
		require.NotZero(t, s.used[v], "nobody has used %s", v)
	}
	t.Logf("%d lookups", s.lookups)
}
