package memcached_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"runtime/debug"
	"strings"
	"testing"
	"time"

	"github.com/bradfitz/gomemcache/memcache"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/scalr-go/scalr/cache"
	"github.com/scalr-go/scalr/cache/cachetest"
	"github.com/scalr-go/scalr/cache/memcached"
	"github.com/scalr-go/scalr/internal/testenv"
	"github.com/scalr-go/scalr/provider"
	"github.com/scalr-go/scalr/provider/local"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestConformance(t *testing.T) {
	eachTransport(t, func(t *testing.T, text bool) {
		cachetest.Run(t, func(t testing.TB) cache.Store {
			return clientOver(t, text, set(testenv.Memcached(t, 2)), 0)
		})
	})
}

func TestHandOverConformance(t *testing.T) {
	eachTransport(t, func(t *testing.T, text bool) {
		cachetest.RunHandOver(t, func(t testing.TB) (cache.Store, func()) {
			all := set(testenv.Memcached(t, 3))
			c := clientOver(t, text, all[:2], 0)
			return c, func() { require.NoError(t, c.SetServers(all)) }
		})
	})
}

// set gives the servers slots, cache-1 and so on.
func set(servers []*testenv.Server) []cache.Server {
	var all []cache.Server
	for i, s := range servers {
		all = append(all, cache.Server{Slot: fmt.Sprintf("cache-%d", i+1), Addr: s.Addr})
	}
	return all
}

// eachTransport runs a test once over each transport.
func eachTransport(t *testing.T, f func(t *testing.T, text bool)) {
	for _, text := range []bool{false, true} {
		t.Run(map[bool]string{false: "meta", true: "text"}[text], func(t *testing.T) { f(t, text) })
	}
}

// client makes a client, which is closed with the test. A timeout of 0 is one that a busy machine does not reach.
func client(t testing.TB, servers []cache.Server, timeout time.Duration) *memcached.Client {
	return clientOver(t, false, servers, timeout)
}

func clientOver(t testing.TB, text bool, servers []cache.Server, timeout time.Duration) *memcached.Client {
	if timeout == 0 {
		timeout = 20 * time.Second
	}
	c, err := memcached.New(memcached.Options{Servers: servers, Timeout: timeout, TextProtocol: text})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, c.Close()) })
	return c
}

// until waits for a condition.
func until(t *testing.T, what string, cond func() bool) {
	t.Helper()
	for end := time.Now().Add(30 * time.Second); !cond(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("waited in vain until %s", what)
		}
	}
}

// keysOf finds n keys that each of the client's servers has: by slot.
func keysOf(t *testing.T, c *memcached.Client, n int) map[string][]string {
	t.Helper()
	keys := map[string][]string{}
	for i, full := 0, 0; full < len(c.Stats()); i++ {
		key := fmt.Sprintf("key-%d", i)
		slot := memcached.Pick(c, key)
		if keys[slot] = append(keys[slot], key); len(keys[slot]) == n {
			full++
		}
	}
	for slot := range keys {
		keys[slot] = keys[slot][:n]
	}
	return keys
}

func TestServersComeAndGo(t *testing.T) {
	ctx := t.Context()
	servers := testenv.Memcached(t, 4)
	all := set(servers)
	c := client(t, nil, 0)
	write := func() map[string]cache.Item {
		t.Helper()
		var keys []string
		for i := range 300 {
			keys = append(keys, fmt.Sprint(i))
			require.NoError(t, c.Set(ctx, cache.Item{Key: keys[i], Value: []byte(keys[i])}))
		}
		items, err := c.GetMulti(ctx, keys)
		require.NoError(t, err)
		require.Len(t, items, 300)
		return items
	}
	read := func() (n int) {
		t.Helper()
		for i := range 300 {
			item, err := c.Get(ctx, fmt.Sprint(i))
			if err == nil {
				require.Equal(t, fmt.Sprint(i), string(item.Value))
				n++
			} else {
				require.Equal(t, cache.ErrMiss, err)
			}
		}
		return n
	}

	_, err := c.Get(ctx, "k")
	require.ErrorIs(t, err, cache.ErrNoServers)
	_, err = c.GetMulti(ctx, []string{"a", "b"})
	require.ErrorIs(t, err, cache.ErrNoServers)
	require.ErrorIs(t, c.Set(ctx, cache.Item{Key: "k"}), cache.ErrNoServers)
	require.ErrorIs(t, c.Delete(ctx, "k"), cache.ErrNoServers)

	require.NoError(t, c.SetServers(all[:2]))
	write()
	require.NoError(t, c.SetServers([]cache.Server{all[1], all[0]}), "the order does not matter")
	require.Equal(t, 300, read())

	// Another machine in the slot cache-1: what cache-2 has is there, what cache-1 had is not, and no key has moved.
	had := len(c.Stats())
	require.Equal(t, 2, had)
	items := write()
	replaced := []cache.Server{{Slot: "cache-1", Addr: servers[2].Addr}, all[1]}
	require.NoError(t, c.SetServers(replaced))
	kept := read()
	require.InDelta(t, 150, kept, 50)
	moved := 0
	for _, item := range items {
		// What was read from the machine that has gone can not be swapped on the new one, whatever its CAS ID.
		switch err := c.CompareAndSwap(ctx, item); err {
		case nil:
		case cache.ErrMiss:
			moved++
		default:
			t.Errorf("CompareAndSwap: %v", err)
		}
	}
	require.Equal(t, 300-kept, moved)

	write()
	require.NoError(t, c.SetServers(append(replaced, all[3])), "one more: cache-4")
	require.InDelta(t, 200, read(), 50, "it takes its share, and no other key moves")
	require.NoError(t, c.SetServers(replaced))
	require.Equal(t, 300, read(), "when it has gone, each key is where it was")
}

func TestSetServersClosesConnections(t *testing.T) {
	ctx := t.Context()
	servers := testenv.Memcached(t, 2)
	all := set(servers)
	c := client(t, all, 0)
	connections := func(s *testenv.Server) int { // without the one that asks
		conn, err := net.Dial("tcp", s.Addr)
		require.NoError(t, err)
		defer conn.Close()
		return stat(t, conn, "curr_connections") - 1
	}
	defer debug.SetGCPercent(debug.SetGCPercent(-1)) // the collector closes forgotten connections, too
	none := connections(servers[0])                  // memcached counts its listeners
	come := func(s *testenv.Server, want int) {
		t.Helper()
		until(t, fmt.Sprintf("%s had %d connections", s.Addr, want), func() bool { return connections(s) == none+want })
	}
	for range 20 {
		for _, keys := range keysOf(t, c, 3) {
			_, err := c.GetMulti(ctx, keys)
			require.NoError(t, err)
		}
	}
	come(servers[0], 1) // calls one after another share a connection
	come(servers[1], 1)
	require.NoError(t, c.SetServers(all[1:]))
	come(servers[0], 0)
	come(servers[1], 1)
	require.NoError(t, c.Close())
	come(servers[1], 0)
}

// stat asks a server for one of its statistics.
func stat(t *testing.T, conn net.Conn, name string) (n int) {
	_, err := io.WriteString(conn, "stats\r\n")
	require.NoError(t, err)
	buf := make([]byte, 1<<16)
	text := ""
	for !strings.HasSuffix(text, "END\r\n") {
		n, err := conn.Read(buf)
		require.NoError(t, err)
		text += string(buf[:n])
	}
	_, rest, ok := strings.Cut(text, "STAT "+name+" ")
	require.True(t, ok, "no %s in %s", name, text)
	_, err = fmt.Sscan(rest, &n)
	require.NoError(t, err)
	return n
}

func TestSetServersRefuses(t *testing.T) {
	good := cache.Server{Slot: "cache-1", Addr: "127.0.0.1:11211"}
	c := client(t, []cache.Server{good}, 0)
	for want, bad := range map[string]cache.Server{
		"Servers[1].Slot is empty":                                    {Addr: "127.0.0.2:11211"},
		`Servers[1].Slot is "cache-1", which is there already`:        {Slot: "cache-1", Addr: "127.0.0.2:11211"},
		`Servers[1].Addr is "127.0.0.2", want host:port`:              {Slot: "cache-2", Addr: "127.0.0.2"},
		`Servers[1].Addr is ":11211", want host:port`:                 {Slot: "cache-2", Addr: ":11211"},
		`Servers[1].Addr is "127.0.0.1:11211", which is that of slot`: {Slot: "cache-2", Addr: "127.0.0.1:11211"},
	} {
		err := c.SetServers([]cache.Server{good, bad})
		require.ErrorIs(t, err, cache.ErrInvalid)
		require.ErrorContains(t, err, want)
		_, err = memcached.New(memcached.Options{Servers: []cache.Server{good, bad}})
		require.ErrorContains(t, err, want)
	}
	require.Equal(t, []memcached.ServerStats{{Server: good}}, c.Stats(), "nothing has changed")
	_, err := memcached.New(memcached.Options{Timeout: -1})
	require.ErrorContains(t, err, "Options.Timeout is -1ns")
	_, err = memcached.New(memcached.Options{Connections: -1})
	require.ErrorContains(t, err, "Options.Connections is -1")
}

func TestStats(t *testing.T) {
	ctx := t.Context()
	c := client(t, set(testenv.Memcached(t, 2)), 0)
	keys := keysOf(t, c, 3)
	one, two := keys["cache-1"], keys["cache-2"]
	require.NoError(t, c.Set(ctx, cache.Item{Key: one[0], Value: []byte("v")}))
	_, err := c.Get(ctx, one[0])
	require.NoError(t, err)
	_, err = c.Get(ctx, two[0])
	require.Equal(t, cache.ErrMiss, err)
	_, err = c.GetMulti(ctx, append(one, two...))
	require.NoError(t, err)
	stats := c.Stats()
	require.Len(t, stats, 2)
	for i, want := range []memcached.ServerStats{{Hits: 2, Misses: 2, Idle: 1}, {Misses: 4, Idle: 1}} {
		want.Server = stats[i].Server
		require.Equal(t, fmt.Sprintf("cache-%d", i+1), want.Server.Slot)
		require.EqualValues(t, []int{3, 2}[i], stats[i].Took.Total())
		require.Positive(t, stats[i].Took.Sum)
		stats[i].Took = cache.Latencies{}
		require.Equal(t, want, stats[i])
	}
}

// A value that is within MaxValue and still too large for the server with its overhead is not sent: the server would remove
// what is there. What is just small enough is stored.
func TestTooLargeForServer(t *testing.T) {
	eachTransport(t, func(t *testing.T, text bool) {
		ctx := t.Context()
		c := clientOver(t, text, set(testenv.Memcached(t, 1)), 0)
		most := cache.MaxValue - 63 - 1
		require.NoError(t, c.Set(ctx, cache.Item{Key: "k", Value: make([]byte, most), Flags: 1}))
		item, err := c.Get(ctx, "k")
		require.NoError(t, err)
		require.Len(t, item.Value, most)
		item.Value = make([]byte, most+1)
		for name, write := range map[string]func(context.Context, cache.Item) error{"Set": c.Set, "Add": c.Add, "CompareAndSwap": c.CompareAndSwap} {
			err := write(ctx, item)
			require.ErrorIs(t, err, cache.ErrTooLarge, name)
			require.ErrorContains(t, err, name+` "k": value too large`)
		}
		item, err = c.Get(ctx, "k")
		require.NoError(t, err)
		require.Len(t, item.Value, most)
	})
}

// A server that takes less than usual says so, and the connection goes on.
func TestTooLargeForSmallServer(t *testing.T) {
	image, err := local.Memcached{Args: []string{"-I", "512k"}}.Image()
	require.NoError(t, err)
	c := client(t, []cache.Server{launch(t, image)}, 0)
	for range 3 {
		err := c.Set(t.Context(), cache.Item{Key: "k", Value: make([]byte, 600_000)})
		require.ErrorIs(t, err, cache.ErrTooLarge)
		require.NoError(t, c.Set(t.Context(), cache.Item{Key: "k", Value: []byte("v")}))
	}
	require.Equal(t, 1, c.Stats()[0].Idle)
}

// launch runs a server of an image and gives it the slot cache-1.
func launch(t *testing.T, image local.Image) cache.Server {
	testenv.Need(t, "memcached")
	cloud := testenv.Cloud(t, map[string]local.Image{"memcached": image})
	inst, err := cloud.Launch(t.Context(), provider.Launch{Token: "one", Image: "memcached"})
	require.NoError(t, err)
	until(t, "the server ran", func() bool {
		all, err := cloud.Instances(t.Context(), nil)
		require.NoError(t, err)
		require.NotEqual(t, provider.Failed, all[0].State, all[0].Reason)
		return all[0].State == provider.Running
	})
	return cache.Server{Slot: "cache-1", Addr: net.JoinHostPort(inst.Private.String(), "11211")}
}

// A version from before a restart, or from the machine that was in the slot before, must not match by chance what is there
// now, though the servers' CAS IDs do.
func TestVersionDoesNotOutliveServer(t *testing.T) {
	eachTransport(t, testVersionDoesNotOutliveServer)
}

func testVersionDoesNotOutliveServer(t *testing.T, text bool) {
	ctx := t.Context()
	servers := testenv.Memcached(t, 2)
	c := clientOver(t, text, set(servers[:1]), 0)
	require.NoError(t, c.Set(ctx, cache.Item{Key: "k", Value: []byte("before")}))
	old, err := c.Get(ctx, "k")
	require.NoError(t, err)
	old.Value = []byte("stale")
	id := casID(t, servers[0], "k")
	// collide stores, as another process, what has the same CAS ID as the old item.
	collide := func(s *testenv.Server) {
		t.Helper()
		other := client(t, []cache.Server{{Slot: "cache-1", Addr: s.Addr}}, 0)
		for now := uint64(0); now != id; now = casID(t, s, "k") {
			require.Less(t, now, id)
			require.NoError(t, other.Set(ctx, cache.Item{Key: "k", Value: []byte("after")}))
		}
	}
	after := func() {
		t.Helper()
		got, err := c.Get(ctx, "k")
		require.NoError(t, err)
		require.Equal(t, "after", string(got.Value))
	}

	require.NoError(t, servers[0].Kill(ctx))
	require.NoError(t, servers[0].Start(ctx))
	collide(servers[0])
	require.ErrorIs(t, c.CompareAndSwap(ctx, old), io.EOF, "over the connection from before the restart")
	require.Equal(t, cache.ErrNotStored, c.CompareAndSwap(ctx, old), "over a new connection")
	after()

	collide(servers[1])
	require.NoError(t, c.SetServers([]cache.Server{{Slot: "cache-1", Addr: servers[1].Addr}}))
	require.Equal(t, cache.ErrMiss, c.CompareAndSwap(ctx, old), "on the machine that came into the slot")
	after()

	bare := memcache.New(servers[1].Addr)
	defer bare.Close()
	require.NoError(t, bare.CompareAndSwap(&memcache.Item{Key: "k", Value: []byte("stale"), CasID: id}), "the CAS ID alone does match")

	// Over gomemcache, a version of this very process is good over a connection that is younger, too.
	got, err := c.Get(ctx, "k")
	require.NoError(t, err)
	memcached.CloseIdle(c)
	got.Value = []byte("swapped")
	if !text {
		require.Equal(t, cache.ErrNotStored, c.CompareAndSwap(ctx, got))
		return
	}
	require.NoError(t, c.CompareAndSwap(ctx, got))
	require.Equal(t, cache.ErrNotStored, c.CompareAndSwap(ctx, got))
}

// casID asks the server itself.
func casID(t *testing.T, s *testenv.Server, key string) uint64 {
	t.Helper()
	bare := memcache.New(s.Addr)
	defer bare.Close()
	item, err := bare.Get(key)
	require.NoError(t, err)
	return item.CasID
}

// A context that ends just when its call does must not spoil the connection for the next call.
func TestCancelLeavesNoTrace(t *testing.T) {
	c := client(t, set(testenv.Memcached(t, 1)), 0)
	for i := range 500 {
		ctx, cancel := context.WithCancel(t.Context())
		stop := time.AfterFunc(time.Duration(i%100)*time.Microsecond, cancel)
		if _, err := c.Get(ctx, "k"); !errors.Is(err, cache.ErrMiss) {
			require.ErrorIs(t, err, context.Canceled)
		}
		_, err := c.Get(t.Context(), "k")
		require.Equal(t, cache.ErrMiss, err)
		stop.Stop()
		cancel()
	}
}
