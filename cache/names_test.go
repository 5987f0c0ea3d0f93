package cache_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/scalr-go/scalr/cache"
	"github.com/scalr-go/scalr/dnsreg"
	"github.com/scalr-go/scalr/dnsreg/nameserver"
)

// zone is a Resolver. A name without addresses does not exist; one that is lame cannot be looked up; one that is slow answers
// only when the context ends.
type zone struct {
	mu         sync.Mutex
	addrs      map[string][]string
	lame, slow map[string]bool
}

func (z *zone) LookupHost(ctx context.Context, host string) ([]string, error) {
	z.mu.Lock()
	addrs, lame, slow := slices.Clone(z.addrs[host]), z.lame[host], z.slow[host]
	z.mu.Unlock()
	switch {
	case slow:
		<-ctx.Done()
		return nil, &net.DNSError{Err: "timeout", Name: host, IsTimeout: true}
	case lame:
		return nil, &net.DNSError{Err: "server misbehaving", Name: host, IsTemporary: true}
	case len(addrs) == 0:
		return nil, &net.DNSError{Err: "no such host", Name: host, IsNotFound: true}
	}
	return addrs, nil
}

// heard is a Follower that remembers each set that it was told.
type heard struct {
	mu     sync.Mutex
	sets   [][]cache.Server
	refuse error
}

func (h *heard) SetServers(servers []cache.Server) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.refuse != nil {
		return h.refuse
	}
	h.sets = append(h.sets, servers)
	return nil
}

func (h *heard) last() string {
	h.mu.Lock()
	defer h.mu.Unlock()
	if len(h.sets) == 0 {
		return ""
	}
	return fmt.Sprint(h.sets[len(h.sets)-1])
}

func (h *heard) count() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return len(h.sets)
}

func TestNamesAreFollowed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		z := &zone{addrs: map[string][]string{"one": {"10.0.0.1"}, "two": {"10.0.0.3", "10.0.0.2"}}, lame: map[string]bool{}, slow: map[string]bool{}}
		follower := new(heard)
		var failures []string
		names := cache.Names{
			Slots:    map[string]string{"cache-1": "one:11211", "cache-2": "two:11211", "cache-3": "three:11211"},
			Resolver: z, Every: time.Second, Timeout: 100 * time.Millisecond,
			OnError: func(err error) { failures = append(failures, err.Error()) },
		}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		defer cancel()
		go func() { done <- names.Run(ctx, follower) }()
		next := func(change func()) {
			z.mu.Lock()
			failures = nil
			change()
			z.mu.Unlock()
			time.Sleep(3 * time.Second)
			synctest.Wait()
		}
		next(func() { z.lame["two"] = true })
		require.Zero(t, follower.count(), "told before all names are known")
		next(func() { delete(z.lame, "two") })
		require.Equal(t, "[cache-1 (10.0.0.1:11211) cache-2 (10.0.0.2:11211)]", follower.last())
		require.Equal(t, 1, follower.count(), "told once what has not changed")
		require.Empty(t, failures)

		next(func() {
			z.addrs["two"] = []string{"10.0.0.1", "10.0.0.2"}
			z.addrs["three"] = []string{"::1", "10.0.0.9"}
		})
		require.Equal(t, "[cache-1 (10.0.0.1:11211) cache-2 (10.0.0.2:11211) cache-3 (10.0.0.9:11211)]", follower.last(),
			"an address that is still there is used on, and one of IPv4 before one of IPv6")

		next(func() { z.addrs["one"] = []string{"10.0.0.7"} }) // replaced
		require.Equal(t, "[cache-1 (10.0.0.7:11211) cache-2 (10.0.0.2:11211) cache-3 (10.0.0.9:11211)]", follower.last())

		told := follower.count()
		next(func() { z.lame["one"], z.slow["two"] = true, true; delete(z.addrs, "one") })
		require.Equal(t, told, follower.count(), "a lookup that fails says nothing")
		require.NotEmpty(t, failures)
		require.Contains(t, failures[0], "slot cache-1: ")
		require.Contains(t, failures[0], "slot cache-2: ")

		next(func() { clear(z.lame); clear(z.slow) })
		require.Equal(t, "[cache-2 (10.0.0.2:11211) cache-3 (10.0.0.9:11211)]", follower.last(), "a name that is gone takes its server along")

		told = follower.count()
		next(func() { clear(z.addrs) })
		require.Equal(t, told, follower.count(), "that all are gone at once is not believed")
		require.Contains(t, strings.Join(failures, "\n"), "none of 3 names has an address")

		follower.mu.Lock()
		follower.refuse = errors.New("refused")
		follower.mu.Unlock()
		next(func() { z.addrs["one"] = []string{"10.0.0.1"} })
		require.Contains(t, failures, "refused")
		follower.mu.Lock()
		follower.refuse = nil
		follower.mu.Unlock()
		next(func() {})
		require.Equal(t, "[cache-1 (10.0.0.1:11211)]", follower.last(), "what was refused is told again")

		cancel()
		require.ErrorIs(t, <-done, context.Canceled)
	})
}

func TestGroupIsFollowed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		z := &zone{addrs: map[string][]string{"all": {"10.0.0.2", "10.0.0.1", "10.0.0.2", "fd00::1"}}}
		follower := new(heard)
		names := cache.Names{Group: "all:11211", Resolver: z}
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		require.ErrorIs(t, names.Run(ctx, follower), context.DeadlineExceeded)
		require.Equal(t, "[10.0.0.1:11211 (10.0.0.1:11211) 10.0.0.2:11211 (10.0.0.2:11211)]", follower.last())
		require.Equal(t, 1, follower.count())
		_, err := cache.Names{Group: "other:11211", Resolver: z}.Lookup(t.Context())
		require.ErrorContains(t, err, "no such host")
	})
}

// Whatever names say: the follower hears no set that is empty, or the same as before, or that has a server whose name was never
// at its address; and when names have become stable, it has heard of them.
func TestNamesUnderChance(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		rapid.SyncTest(t, func(t *rapid.T) {
			z := &zone{addrs: map[string][]string{}, lame: map[string]bool{}, slow: map[string]bool{}}
			follower := new(heard)
			names := cache.Names{Slots: map[string]string{"s1": "h1:1", "s2": "h2:1", "s3": "h3:1"}, Resolver: z}
			was := map[string]bool{}
			ctx, cancel := context.WithCancel(context.Background())
			done := make(chan error, 1)
			go func() { done <- names.Run(ctx, follower) }()
			end := sync.OnceFunc(func() { cancel(); <-done })
			defer end() // also when rapid leaves in the middle
			for range rapid.IntRange(1, 20).Draw(t, "steps") {
				z.mu.Lock()
				i := rapid.IntRange(1, 3).Draw(t, "host")
				host := fmt.Sprint("h", i)
				z.lame[host], z.slow[host] = rapid.Bool().Draw(t, "lame"), rapid.Bool().Draw(t, "slow")
				z.addrs[host] = nil
				for _, last := range rapid.SliceOfN(rapid.IntRange(1, 3), 0, 2).Draw(t, "addresses") {
					addr := fmt.Sprintf("10.0.%d.%d", i, last)
					z.addrs[host] = append(z.addrs[host], addr)
					was[fmt.Sprintf("s%d (%s:1)", i, addr)] = true
				}
				z.mu.Unlock()
				time.Sleep(time.Duration(rapid.IntRange(0, 6000).Draw(t, "ms")) * time.Millisecond)
			}
			z.mu.Lock()
			clear(z.lame)
			clear(z.slow)
			want := map[string][]string{}
			for host, addrs := range z.addrs {
				for _, addr := range addrs {
					slot := strings.Replace(host, "h", "s", 1)
					want[slot] = append(want[slot], addr+":1")
				}
			}
			z.mu.Unlock()
			time.Sleep(10 * time.Second)
			end()
			for i, set := range follower.sets {
				if len(set) == 0 || i > 0 && slices.Equal(set, follower.sets[i-1]) {
					t.Fatalf("set %d is %v, after %v", i, set, follower.sets[:i])
				}
				for _, s := range set {
					if !was[s.String()] {
						t.Fatalf("set %d has %v, which nobody said", i, s)
					}
				}
			}
			if len(want) == 0 {
				return
			}
			last := follower.sets[len(follower.sets)-1]
			if len(last) != len(want) {
				t.Fatalf("at last the servers are %v, want %v", last, want)
			}
			for _, s := range last {
				if !slices.Contains(want[s.Slot], s.Addr) {
					t.Fatalf("at last the servers are %v, want %v", last, want)
				}
			}
		})
	})
}

func TestNamesRefuse(t *testing.T) {
	for want, names := range map[string]cache.Names{
		"Slots and Group are empty":            {},
		`Slots and Group "a:1" are both given`: {Group: "a:1", Slots: map[string]string{"s": "b:1"}},
		"Every is -1s":                         {Group: "a:1", Every: -time.Second},
		"Timeout is -1s":                       {Group: "a:1", Timeout: -time.Second},
		`Group is "a", want host:port`:         {Group: "a"},
		`Slots["s"] is ":1", want host:port`:   {Slots: map[string]string{"s": ":1"}},
		"Slots has an empty slot":              {Slots: map[string]string{"": "a:1"}},
		"follower is nil":                      {Group: "a:1"},
	} {
		err := names.Run(t.Context(), nil)
		require.ErrorIs(t, err, cache.ErrInvalid)
		require.ErrorContains(t, err, want)
		if want != "follower is nil" {
			_, err = names.Lookup(t.Context())
			require.ErrorContains(t, err, want)
		}
	}
}

// With a real name server and the resolver of package net.
func TestNamesOfARealServer(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	server, err := nameserver.New(nameserver.Options{Zones: []nameserver.Zone{{Name: "farm.test."}}})
	require.NoError(t, err)
	done := make(chan error)
	go func() { done <- server.Run(ctx) }()
	publish := func(addrs ...string) {
		var sets []dnsreg.RRset
		for i, addr := range addrs {
			if addr != "" {
				name := fmt.Sprintf("cache-%d.farm.test.", i+1)
				sets = append(sets, dnsreg.RRset{Name: name, Type: "A", TTL: 5 * time.Second, Values: []string{addr}})
			}
		}
		_, err := dnsreg.Sync(ctx, server, "farm.test.", "shop", sets)
		require.NoError(t, err)
	}
	names := cache.Names{
		Slots:   map[string]string{"cache-1": "cache-1.farm.test.:11211", "cache-2": "cache-2.farm.test.:11211"},
		Timeout: 30 * time.Second,
		Resolver: &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, network, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, network, server.Addr().String())
		}},
	}
	publish("192.0.2.1", "192.0.2.2")
	servers, err := names.Lookup(ctx)
	require.NoError(t, err)
	require.Equal(t, "[cache-1 (192.0.2.1:11211) cache-2 (192.0.2.2:11211)]", fmt.Sprint(servers))
	publish("", "192.0.2.3")
	servers, err = names.Lookup(ctx)
	require.NoError(t, err)
	require.Equal(t, "[cache-2 (192.0.2.3:11211)]", fmt.Sprint(servers))
	cancel()
	require.NoError(t, <-done)
}
