package memcached_test

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/bradfitz/gomemcache/memcache"
	"github.com/stretchr/testify/require"

	"github.com/scalr-go/scalr/cache"
	"github.com/scalr-go/scalr/internal/testenv"
)

// The same calls over bare gomemcache and over this package, by turns in one run, on three servers: medians, and the ratio
// of our time to gomemcache's.
func BenchmarkAgainstGomemcache(b *testing.B) {
	servers := testenv.Memcached(b, 3)
	var addrs []string
	for _, s := range servers {
		addrs = append(addrs, s.Addr)
	}
	bare := memcache.New(addrs...)
	bare.MaxIdleConns = 16
	defer bare.Close()
	ours := client(b, set(servers), 0)
	ctx, cancel := context.WithTimeout(context.Background(), time.Hour) // as a request has
	defer cancel()
	var keys []string
	for i := range 100 {
		keys = append(keys, fmt.Sprintf("page:%04d", i))
		require.NoError(b, bare.Set(&memcache.Item{Key: keys[i], Value: make([]byte, 100)}))
		require.NoError(b, ours.Set(ctx, cache.Item{Key: keys[i], Value: make([]byte, 100)}))
	}
	get := func() error { _, err := bare.Get("page:0042"); return err }
	getOurs := func() error { _, err := ours.Get(ctx, "page:0042"); return err }
	multi := func() error {
		items, err := bare.GetMulti(keys)
		if len(items) < len(keys) {
			b.Error("items are missing")
		}
		return err
	}
	multiOurs := func() error {
		items, err := ours.GetMulti(ctx, keys)
		if len(items) < len(keys) {
			b.Error("items are missing")
		}
		return err
	}
	sixteen := func(call func() error) func() error {
		return func() error {
			var wg sync.WaitGroup
			for range 16 {
				wg.Go(func() {
					for range 10 {
						if err := call(); err != nil {
							b.Error(err)
						}
					}
				})
			}
			wg.Wait()
			return nil
		}
	}
	for _, bench := range []struct {
		name        string
		bare, ours  func() error
		callsInEach int
	}{
		{"Get", get, getOurs, 1},
		{"GetMulti100", multi, multiOurs, 1},
		{"Get by 16 goroutines", sixteen(get), sixteen(getOurs), 160},
	} {
		b.Run(bench.name, func(b *testing.B) {
			var took [2][]time.Duration
			for b.Loop() {
				for i, call := range []func() error{bench.bare, bench.ours} {
					start := time.Now()
					if err := call(); err != nil {
						b.Fatal(err)
					}
					took[i] = append(took[i], time.Since(start))
				}
			}
			var median [2]float64
			for i := range took {
				slices.Sort(took[i])
				median[i] = float64(took[i][len(took[i])/2].Nanoseconds()) / float64(bench.callsInEach)
			}
			b.ReportMetric(median[0], "ns/bare")
			b.ReportMetric(median[1], "ns/ours")
			b.ReportMetric(median[1]/median[0], "ratio")
		})
	}
	for name, call := range map[string]func() error{"bare": get, "ours": getOurs} {
		b.Run("allocations of Get "+name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if err := call(); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
