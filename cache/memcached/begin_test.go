package memcached_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/scalr-go/scalr/cache"
	"github.com/scalr-go/scalr/cache/memcached"
)

// several runs a test of a client with three servers and one connection to each, over which something came already; and with
// twelve keys, four of each server. Answers take as long as slow was told.
func several(t *testing.T, f func(t *testing.T, n *network, c *memcached.Client, keys []string, slow func(map[string]time.Duration))) {
	synctest.Test(t, func(t *testing.T) {
		delay := map[string]time.Duration{}
		n := &network{}
		n.set(func(addr, command string) (reply string) {
			takes := delay[addr]
			n.mu.Unlock()
			time.Sleep(takes)
			n.mu.Lock()
			for _, key := range strings.Fields(command)[1:] {
				reply += "VALUE " + key + " 0 5 1\r\nvalue\r\n"
			}
			return reply + "END\r\n"
		})
		c, err := memcached.New(memcached.Options{Servers: slots("cache-1", "cache-2", "cache-3"), Connections: 1, DialContext: n.dial})
		require.NoError(t, err)
		var keys []string
		for _, some := range keysOf(t, c, 4) {
			keys = append(keys, some...)
		}
		items, err := c.GetMulti(t.Context(), keys)
		require.NoError(t, err)
		require.Len(t, items, 12)
		require.Equal(t, 3, n.dials)
		f(t, n, c, keys, func(d map[string]time.Duration) {
			n.mu.Lock()
			defer n.mu.Unlock()
			delay = d
		})
		time.Sleep(time.Minute)
		require.NoError(t, c.Close())
		require.Zero(t, n.connections(), "connections left")
	})
}

const first, second, third = "cache-1.example:11211", "cache-2.example:11211", "cache-3.example:11211"

// A server that hangs costs a GetMulti one time-out, and those who want the same connections to the others next to nothing.
func TestGetMultiHoldsUpNobody(t *testing.T) {
	several(t, func(t *testing.T, n *network, c *memcached.Client, keys []string, slow func(map[string]time.Duration)) {
		slow(map[string]time.Duration{first: 10 * time.Second, second: 10 * time.Second})
		start := time.Now()
		done := make(chan error)
		go func() {
			items, err := c.GetMulti(t.Context(), keys)
			if err == nil && len(items) != 12 {
				err = errors.New("items are missing")
			}
			done <- err
		}()
		synctest.Wait()
		_, err := c.Get(t.Context(), keysOf(t, c, 1)["cache-3"][0])
		require.NoError(t, err)
		require.LessOrEqual(t, time.Since(start), 5*time.Millisecond)
		slow(nil)
		err = <-done // stand-ins have what the first two do not give, or are down themselves
		require.LessOrEqual(t, time.Since(start), 300*time.Millisecond)
		if err != nil {
			partial, ok := errors.AsType[*cache.PartialError](err)
			require.True(t, ok)
			require.Less(t, len(partial.Failed), 8)
		}
		require.True(t, c.Stats()[0].Down)
		require.False(t, c.Stats()[2].Down)
		require.GreaterOrEqual(t, c.Stats()[0].Took.Sum, 250*time.Millisecond)
	})
}

// Servers that take longer than one is waited for lose nothing.
func TestGetMultiOfSlowServers(t *testing.T) {
	several(t, func(t *testing.T, n *network, c *memcached.Client, keys []string, slow func(map[string]time.Duration)) {
		for _, takes := range []map[string]time.Duration{
			{first: 100 * time.Millisecond}, {second: time.Millisecond, third: 3 * time.Millisecond},
			{first: 100 * time.Millisecond, second: 50 * time.Millisecond, third: 200 * time.Millisecond},
		} {
			longest := time.Duration(0)
			slow(takes)
			for _, d := range takes {
				longest = max(longest, d)
			}
			for range 3 {
				start := time.Now()
				items, err := c.GetMulti(t.Context(), keys)
				require.NoError(t, err)
				require.Len(t, items, 12)
				require.Equal(t, longest, time.Since(start), "all at once")
			}
			require.Equal(t, 3, n.dials)
			require.Equal(t, 1, c.Stats()[1].Idle)
		}
	})
}

// The context bounds a GetMulti in each of its steps.
func TestGetMultiOfSlowServersInContext(t *testing.T) {
	for _, bound := range []time.Duration{1, time.Millisecond, 3 * time.Millisecond, 50 * time.Millisecond} {
		several(t, func(t *testing.T, n *network, c *memcached.Client, keys []string, slow func(map[string]time.Duration)) {
			slow(map[string]time.Duration{first: 100 * time.Millisecond, second: 100 * time.Millisecond})
			ctx, cancel := context.WithTimeout(t.Context(), bound)
			defer cancel()
			start := time.Now()
			items, err := c.GetMulti(ctx, keys)
			require.Equal(t, bound, time.Since(start))
			require.ErrorIs(t, err, context.DeadlineExceeded)
			partial, ok := errors.AsType[*cache.PartialError](err)
			require.True(t, ok)
			require.Len(t, partial.Failed, 12-len(items))
			require.GreaterOrEqual(t, len(partial.Failed), 8)
			time.Sleep(time.Second)
			slow(nil)
			items, err = c.GetMulti(t.Context(), keys)
			require.NoError(t, err)
			require.Len(t, items, 12)
		})
	}
}

// Connections that are dead, as after a restart, are opened anew.
func TestGetMultiOverDeadConnections(t *testing.T) {
	several(t, func(t *testing.T, n *network, c *memcached.Client, keys []string, slow func(map[string]time.Duration)) {
		n.cut()
		items, err := c.GetMulti(t.Context(), keys)
		require.NoError(t, err)
		require.Len(t, items, 12)
		require.Equal(t, 6, n.dials)
		require.False(t, c.Stats()[0].Down)
	})
}
