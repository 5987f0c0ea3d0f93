package memcached_test

import (
	"fmt"
	"math"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/scalr-go/scalr/cache"
	"github.com/scalr-go/scalr/cache/memcached"
)

func slots(names ...string) (servers []cache.Server) {
	for _, name := range names {
		servers = append(servers, cache.Server{Slot: name, Addr: name + ".example:11211"})
	}
	return servers
}

func numbered(n int) (names []string) {
	for i := range n {
		names = append(names, fmt.Sprintf("cache-%d", i+1))
	}
	return names
}

// All processes, and all releases, must agree on which slot has which key.
func TestPickIsFixed(t *testing.T) {
	pick := memcached.PickFrom(slots(numbered(10)...))
	for key, want := range map[string]string{ // computed by another program
		"a":         "cache-6",
		"b":         "cache-1",
		"page:1":    "cache-8",
		"page:2":    "cache-6",
		"page:3":    "cache-4",
		"user:4711": "cache-4",
		"\u00e9":    "cache-6",
		"a much longer key than the others/with/segments": "cache-8",
	} {
		require.Equal(t, want, pick(key), "%q", key)
	}
}

// The shares of 100,000 keys, and how many move when servers change.
func TestPickMovesOnlyWhatItMust(t *testing.T) {
	const keys = 100_000
	before := memcached.PickFrom(slots(numbered(10)...))
	share := map[string]int{}
	for i := range keys {
		share[before(fmt.Sprintf("page:%d", i))]++
	}
	for slot, n := range share {
		require.InDelta(t, keys/10, n, keys/10*0.05, "share of %s", slot)
	}
	moved := func(names ...string) (n int, from, to map[string]int) {
		from, to = map[string]int{}, map[string]int{}
		after := memcached.PickFrom(slots(names...))
		for i := range keys {
			key := fmt.Sprintf("page:%d", i)
			if a, b := before(key), after(key); a != b {
				n++
				from[a]++
				to[b]++
			}
		}
		return n, from, to
	}

	n, from, to := moved(numbered(11)...)
	t.Logf("10 to 11 servers: %.1f %% of the keys move", 100*float64(n)/keys)
	require.InDelta(t, keys/11, n, keys/11*0.05)
	require.Len(t, from, 10, "from all")
	require.Equal(t, map[string]int{"cache-11": n}, to, "to the new one only")

	n, _, to = moved(append([]string{"a-cache"}, numbered(10)...)...)
	require.Equal(t, map[string]int{"a-cache": n}, to, "also where the new one sorts first")

	n, from, to = moved(slices.Delete(numbered(10), 4, 5)...)
	t.Logf("10 to 9 servers: %.1f %% of the keys move", 100*float64(n)/keys)
	require.Equal(t, map[string]int{"cache-5": share["cache-5"]}, from, "from the one that went only")
	require.Len(t, to, 9, "to all others")
	for slot, n := range to {
		require.InDelta(t, share["cache-5"]/9, n, keys/90*0.15, "to %s", slot)
	}

	n, _, _ = moved(numbered(10)...)
	require.Zero(t, n, "a slot that has another machine is the same slot")
}

func TestPickProperties(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		names := rapid.SliceOfNDistinct(rapid.StringN(1, 12, -1), 1, 8, rapid.ID[string]).Draw(t, "slots")
		key := rapid.StringN(1, 40, -1).Draw(t, "key")
		winner := memcached.PickFrom(slots(names...))(key)
		require.Contains(t, names, winner)
		require.Equal(t, winner, memcached.PickFrom(slots(rapid.Permutation(names).Draw(t, "permuted")...))(key), "order does not matter")
		for i, name := range names {
			rest := slices.Delete(slices.Clone(names), i, i+1)
			if len(rest) > 0 && name != winner {
				require.Equal(t, winner, memcached.PickFrom(slots(rest...))(key), "nor does the loss of another slot")
			}
		}
	})
}

// The stand-in has the key when its owner has left.
func TestStandIn(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		names := rapid.SliceOfNDistinct(rapid.StringN(1, 12, -1), 2, 8, rapid.ID[string]).Draw(t, "slots")
		key := rapid.StringN(1, 40, -1).Draw(t, "key")
		owner := memcached.PickFrom(slots(names...))(key)
		rest := slices.DeleteFunc(slices.Clone(names), func(name string) bool { return name == owner })
		require.Equal(t, memcached.PickFrom(slots(rest...))(key), memcached.StandInFrom(slots(names...))(key))
	})
}

func TestPickDoesNotAllocate(t *testing.T) {
	pick := memcached.PickFrom(slots(numbered(10)...))
	require.Zero(t, testing.AllocsPerRun(100, func() { pick("page:4711") }))
}

func BenchmarkPick(b *testing.B) {
	pick := memcached.PickFrom(slots(numbered(10)...))
	b.ReportAllocs()
	for b.Loop() {
		pick("a-key-of-20-bytes-xx")
	}
}

func TestExpiration(t *testing.T) {
	now := time.Unix(1_800_000_000, 0)
	const day = 24 * time.Hour
	for ttl, want := range map[time.Duration]int32{
		0:                         0,
		1:                         2,
		time.Second:               2, // one could end at once
		2 * time.Second:           2,
		2*time.Second + 1:         3,
		30 * day:                  30 * 24 * 3600,
		30*day + 1:                1_800_000_000 + 30*24*3600 + 1,
		365 * day:                 1_800_000_000 + 365*24*3600,
		347_483_647 * time.Second: math.MaxInt32,
		347_483_648 * time.Second: 0,
		math.MaxInt64:             0,
	} {
		require.Equal(t, want, memcached.Expiration(ttl, now), "%v", ttl)
	}
}
