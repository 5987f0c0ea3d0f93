package cache_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/scalr-go/scalr/cache"
)

// numbered loads "1", "2" and so on.
type numbered struct {
	loads atomic.Int32
	takes time.Duration
	err   error
}

func (n *numbered) load(context.Context) (string, error) {
	i := n.loads.Add(1)
	time.Sleep(n.takes)
	return fmt.Sprint(i), n.err
}

func TestNegative(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var m cache.Memory
		n := &numbered{err: fmt.Errorf("no row: %w", cache.ErrNotFound)}
		for _, ttl := range []time.Duration{0, 10 * time.Second} {
			of := &cache.Of[string]{Store: &m, NegativeTTL: ttl}
			n.loads.Store(0)
			for range 3 {
				_, err := of.Get(t.Context(), "k", n.load)
				require.ErrorIs(t, err, cache.ErrNotFound)
			}
			require.EqualValues(t, map[bool]int{true: 3, false: 1}[ttl == 0], n.loads.Load())
		}
		of := &cache.Of[string]{Store: &m, NegativeTTL: 10 * time.Second}
		time.Sleep(10 * time.Second)
		n.err = nil
		v, err := of.Get(t.Context(), "k", n.load)
		require.NoError(t, err)
		require.Equal(t, "2", v)
	})
}

// At the end of the TTL, one caller of one process loads, and all others have the old value at once.
func TestStaleWhileRenewed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var m cache.Memory
		n := &numbered{takes: time.Second}
		options := func() *cache.Of[string] {
			return &cache.Of[string]{Store: &m, TTL: 10 * time.Second, Stale: time.Minute}
		}
		_, err := options().Get(t.Context(), "k", n.load)
		require.NoError(t, err)
		time.Sleep(11 * time.Second)
		var wg sync.WaitGroup
		var waited, stale atomic.Int32
		for range 4 {
			of := options()
			for range 4 {
				wg.Go(func() {
					start := time.Now()
					v, err := of.Get(t.Context(), "k", n.load)
					require.NoError(t, err)
					if time.Since(start) > 0 {
						waited.Add(1)
						require.Equal(t, "2", v)
					} else {
						stale.Add(1)
						require.Equal(t, "1", v)
					}
				})
			}
		}
		wg.Wait()
		require.EqualValues(t, 2, n.loads.Load())
		require.EqualValues(t, 1, waited.Load())
		require.EqualValues(t, 15, stale.Load())

		// A load that fails leaves the old value, and nobody tries again until LoadTimeout has passed.
		time.Sleep(11 * time.Second)
		n.err = errors.New("database is down")
		for range 5 {
			v, err := options().Get(t.Context(), "k", n.load)
			require.NoError(t, err)
			require.Equal(t, "2", v)
		}
		require.EqualValues(t, 3, n.loads.Load())
		// After Stale it is over.
		time.Sleep(2 * time.Minute)
		_, err = options().Get(t.Context(), "k", n.load)
		require.ErrorIs(t, err, n.err)
	})
}

// A Delete during a renewal voids it.
func TestDeleteVoidsRenewal(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var m cache.Memory
		of := &cache.Of[string]{Store: &m, TTL: 10 * time.Second, Stale: time.Minute}
		n := &numbered{}
		_, err := of.Get(t.Context(), "k", n.load)
		require.NoError(t, err)
		time.Sleep(11 * time.Second)
		_, err = of.Get(t.Context(), "k", func(ctx context.Context) (string, error) { return "old", of.Delete(ctx, "k") })
		require.NoError(t, err)
		v, err := of.Get(t.Context(), "k", n.load)
		require.NoError(t, err)
		require.Equal(t, "2", v)
	})
}

func TestRunRenewsAhead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		of := &cache.Of[string]{Store: new(cache.Memory), TTL: 10 * time.Second, Ahead: 5 * time.Second}
		done := make(chan error)
		go func() { done <- of.Run(ctx, 2) }()
		n := &numbered{takes: time.Second}
		_, err := of.Get(ctx, "k", n.load)
		require.NoError(t, err)
		require.ErrorIs(t, of.Run(ctx, 1), cache.ErrInvalid)
		for range 100 {
			time.Sleep(time.Second / 2)
			start := time.Now()
			_, err := of.Get(ctx, "k", n.load)
			require.NoError(t, err)
			require.Zero(t, time.Since(start), "nobody waits")
		}
		require.InDelta(t, 10, n.loads.Load(), 4)
		require.Zero(t, of.Stats().Stale)
		cancel()
		require.ErrorIs(t, <-done, context.Canceled)
	})
}

func TestTags(t *testing.T) {
	var m cache.Memory
	ctx := t.Context()
	tagged := &cache.Of[string]{Store: &m, Prefix: "page:", Tags: func(key string) []string { return []string{"pages", "author " + key[:1]} }}
	other := &cache.Of[string]{Store: &m, Prefix: "other:", Tags: cache.Tables("others")}
	n := &numbered{}
	get := func(of *cache.Of[string], key string) string {
		v, err := of.Get(ctx, key, n.load)
		require.NoError(t, err)
		return v
	}
	require.Equal(t, []string{"1", "2", "3"}, []string{get(tagged, "a1"), get(tagged, "b1"), get(other, "a1")})
	require.NoError(t, cache.Invalidate(ctx, &m, "author a"))
	require.Equal(t, []string{"4", "2", "3"}, []string{get(tagged, "a1"), get(tagged, "b1"), get(other, "a1")})
	require.NoError(t, cache.Invalidate(ctx, &m, "pages"))
	require.Equal(t, []string{"5", "6", "3"}, []string{get(tagged, "a1"), get(tagged, "b1"), get(other, "a1")})
	require.NoError(t, m.Delete(ctx, "tag:pages")) // evicted
	require.Equal(t, []string{"7", "8", "3"}, []string{get(tagged, "a1"), get(tagged, "b1"), get(other, "a1")})

	// What was loaded before an Invalidate and is stored after it is a miss.
	require.NoError(t, tagged.Delete(ctx, "a1"))
	v, err := tagged.Get(ctx, "a1", func(ctx context.Context) (string, error) { return "old", tagged.Invalidate(ctx, "pages") })
	require.NoError(t, err)
	require.Equal(t, "old", v)
	require.Equal(t, "9", get(tagged, "a1"))
	require.ErrorIs(t, cache.Invalidate(ctx, &m, ""), cache.ErrInvalid)
}

// Processes read the same hundred keys at once: each is loaded once, and each process calls its loader once or twice.
func TestGetMulti(t *testing.T) {
	for _, tags := range []func(string) []string{nil, cache.Tables("t")} {
		synctest.Test(t, func(t *testing.T) {
			var m cache.Memory
			var keys []string
			want := map[string]string{}
			for i := range 100 {
				keys = append(keys, fmt.Sprint("key ", i)) // not what a server takes for a key
				if i > 0 {
					want[keys[i]] = strings.ToUpper(keys[i])
				}
			}
			var mu sync.Mutex
			loaded := map[string]int{}
			calls := 0
			load := func(_ context.Context, missing []string) (map[string]string, error) {
				mu.Lock()
				calls++
				values := map[string]string{}
				for _, key := range missing {
					loaded[key]++
					if key != "key 0" {
						values[key] = strings.ToUpper(key)
					}
				}
				mu.Unlock()
				time.Sleep(50 * time.Millisecond)
				return values, nil
			}
			var wg sync.WaitGroup
			for range 4 {
				of := &cache.Of[string]{Store: &m, Tags: tags, NegativeTTL: time.Minute}
				wg.Go(func() {
					got, err := of.GetMulti(t.Context(), append(keys, keys...), load)
					require.NoError(t, err)
					require.True(t, maps.Equal(want, got))
				})
			}
			wg.Wait()
			for key, n := range loaded {
				require.Equal(t, 1, n, key)
			}
			require.Len(t, loaded, 100)
			require.LessOrEqual(t, calls, 8)

			of := &cache.Of[string]{Store: &m, Tags: tags}
			require.NoError(t, of.Delete(t.Context(), "key 7"))
			noDB := errors.New("no database")
			got, err := of.GetMulti(t.Context(), keys, func(_ context.Context, missing []string) (map[string]string, error) {
				require.Equal(t, []string{"key 7"}, missing)
				return nil, noDB
			})
			require.Equal(t, noDB, err)
			require.Len(t, got, 98)
			start := time.Now()
			v, err := of.Get(t.Context(), "key 7", func(context.Context) (string, error) { return "again", nil })
			require.NoError(t, err)
			require.Equal(t, "again", v)
			require.Zero(t, time.Since(start), "the lease was given up")
		})
	}
}

func TestGetMultiWithoutStore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var s counted
		down := error(&cache.Error{Op: "Get", Err: cache.ErrDown})
		s.err.Store(&down)
		of := &cache.Of[string]{Store: struct{ cache.Store }{&s}}
		calls := 0
		got, err := of.GetMulti(t.Context(), []string{"a", "b"}, func(_ context.Context, missing []string) (map[string]string, error) {
			calls++
			return map[string]string{"a": "A", "b": "B"}, nil
		})
		require.NoError(t, err)
		require.Equal(t, map[string]string{"a": "A", "b": "B"}, got)
		require.Equal(t, 1, calls)
	})
}

// A value of another codec, version or type is a miss, and never a wrong value.
func TestCodecs(t *testing.T) {
	ctx := t.Context()
	var m cache.Memory
	text := strings.Repeat("compressible ", 1000)
	plain := &cache.Of[string]{Store: &m, Compress: 1000}
	v, err := plain.Get(ctx, "k", func(context.Context) (string, error) { return text, nil })
	require.NoError(t, err)
	require.Equal(t, text, v)
	item, err := m.Get(ctx, "k")
	require.NoError(t, err)
	require.Less(t, len(item.Value), 1000)
	v, err = plain.Get(ctx, "k", func(context.Context) (string, error) { return "", errors.New("loaded again") })
	require.NoError(t, err)
	require.Equal(t, text, v)

	for i, of := range []*cache.Of[string]{{Version: 1}, {Codec: cache.Gob[string]{}}, {Codec: cache.Gob[string]{}, Version: 1}, {}} {
		of.Store = &m
		v, err := of.Get(ctx, "k", func(context.Context) (string, error) { return fmt.Sprint(i), nil })
		require.NoError(t, err)
		require.Equal(t, fmt.Sprint(i), v)
	}
	raw := &cache.Of[[]byte]{Store: &m, Codec: cache.Raw{}}
	b, err := raw.Get(ctx, "k", func(context.Context) ([]byte, error) { return []byte{0, 1}, nil })
	require.NoError(t, err)
	require.Equal(t, []byte{0, 1}, b)
	number := &cache.Of[float64]{Store: &m, Codec: cache.Gob[float64]{}}
	for range 2 {
		f, err := number.Get(ctx, "nan", func(context.Context) (float64, error) { return math.NaN(), nil })
		require.NoError(t, err)
		require.True(t, math.IsNaN(f))
	}
}

// A lease whose answer was lost is not waited for by others.
func TestLostLease(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var m cache.Memory
		n := &numbered{}
		_, err := (&cache.Of[string]{Store: lossy{&m}}).Get(t.Context(), "k", n.load)
		require.NoError(t, err)
		start := time.Now()
		_, err = (&cache.Of[string]{Store: &m}).Get(t.Context(), "k", n.load)
		require.NoError(t, err)
		require.Zero(t, time.Since(start))
	})
}

// lossy loses the answers to Lease.
type lossy struct{ *cache.Memory }

func (l lossy) Lease(ctx context.Context, key string, ttl time.Duration) (cache.Item, bool, error) {
	_, _, _ = l.Memory.Lease(ctx, key, ttl)
	return cache.Item{}, false, errFault
}

func TestSet(t *testing.T) {
	ctx := t.Context()
	of := &cache.Of[string]{Store: new(cache.Memory), Tags: cache.Tables("t")}
	require.NoError(t, of.Set(ctx, "k", "set"))
	n := &numbered{}
	v, err := of.Get(ctx, "k", n.load)
	require.NoError(t, err)
	require.Equal(t, "set", v)
	require.NoError(t, of.Delete(ctx, "k"))
	_, err = of.Get(ctx, "k", func(ctx context.Context) (string, error) { return "old", of.Set(ctx, "k", "new") })
	require.NoError(t, err)
	v, err = of.Get(ctx, "k", n.load)
	require.NoError(t, err)
	require.Equal(t, "new", v, "Set voids the lease of a load")
}

// Keys that servers do not take are stored under a hash, and errors have them as they are.
func TestAnyKey(t *testing.T) {
	ctx := t.Context()
	var m cache.Memory
	of := &cache.Of[string]{Store: &m, Prefix: "p:"}
	keys := []string{"a b", "a\r\nflush_all", strings.Repeat("k", 300), "#x", "\x00", "x"}
	for _, key := range keys {
		_, err := of.Get(ctx, key, func(context.Context) (string, error) { return "value of " + key, nil })
		require.NoError(t, err)
	}
	for _, key := range keys {
		v, err := of.Get(ctx, key, func(context.Context) (string, error) { return "", errors.New("loaded again") })
		require.NoError(t, err)
		require.Equal(t, "value of "+key, v)
	}
	ctx, cancel := context.WithCancel(ctx)
	cancel()
	require.ErrorContains(t, of.Delete(ctx, "a b"), `"p:a b"`)
}

func TestStatsOfOf(t *testing.T) {
	ctx := t.Context()
	of := &cache.Of[string]{Store: new(cache.Memory)}
	n := &numbered{}
	for range 3 {
		_, err := of.Get(ctx, "k", n.load)
		require.NoError(t, err)
	}
	s := of.Stats()
	require.EqualValues(t, 2, s.HitTimes.Total())
	require.EqualValues(t, 1, s.LoadTimes.Total())
	require.Equal(t, s.HitTimes.Sum, s.HitTime)
	require.Equal(t, s.LoadTimes.Sum, s.LoadTime)
	s.LoadTime, s.HitTime, s.LoadTimes, s.HitTimes = 0, 0, cache.Latencies{}, cache.Latencies{}
	require.Equal(t, cache.Stats{Hits: 2, Misses: 1, Loads: 1}, s)
}

func FuzzStoredValue(f *testing.F) {
	f.Add(uint32(0x5ca1_0002), []byte(`"json"`))
	f.Add(uint32(0x5ca1_0000), []byte(""))
	f.Fuzz(func(t *testing.T, flags uint32, b []byte) {
		if flags == 0x5ca1_0000 || flags == 0 {
			return // a stub is waited for
		}
		var m cache.Memory
		of := &cache.Of[[]int]{Store: &m, Tags: nil}
		require.NoError(t, m.Set(t.Context(), cache.Item{Key: "k", Flags: flags, Value: b}))
		_, err := of.Get(t.Context(), "k", func(context.Context) ([]int, error) { return nil, nil })
		require.NoError(t, err)
	})
}

// A caller who joins a load that began before an Invalidate that he knows of does not get what it brings.
func TestInvalidateDuringALoad(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		of := &cache.Of[int]{Store: &cache.Memory{}, Tags: func(string) []string { return []string{"table"} }}
		var row atomic.Int64
		row.Store(7)
		load := func(context.Context) (int, error) {
			v := int(row.Load())
			time.Sleep(time.Second) // what was read is on its way
			return v, nil
		}
		get := func() int {
			v, err := of.Get(t.Context(), "k", load)
			require.NoError(t, err)
			return v
		}
		first := make(chan int, 1)
		go func() { first <- get() }()
		time.Sleep(500 * time.Millisecond)
		row.Store(8)
		require.NoError(t, of.Invalidate(t.Context(), "table"))
		require.Equal(t, 8, get())
		require.Equal(t, 7, <-first)
		require.Equal(t, 8, get())
	})
}
