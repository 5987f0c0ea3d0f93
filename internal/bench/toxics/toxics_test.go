// Package toxics tries the cache behind Shopify's toxiproxy, in a module of its own, so that it is no dependency of the library.
package toxics

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/Shopify/toxiproxy/v2"
	"github.com/rs/zerolog"
	"github.com/stretchr/testify/require"

	"github.com/scalr-go/scalr/cache"
	"github.com/scalr-go/scalr/cache/memcached"
	"github.com/scalr-go/scalr/internal/testenv"
)

// rounds are the toxics of each round, by line from a process to a server. An empty one is a proxy that takes no connections.
var rounds = [][]string{
	{
		`{"name": "t", "type": "timeout", "stream": "downstream", "attributes": {"timeout": 0}}`,
		`{"name": "t", "type": "timeout", "stream": "upstream", "attributes": {"timeout": 0}}`,
		`{"name": "t", "type": "latency", "stream": "downstream", "attributes": {"latency": 40, "jitter": 40}}`,
		`{"name": "t", "type": "latency", "stream": "upstream", "attributes": {"latency": 200, "jitter": 100}}`,
		``,
		`{"name": "t", "type": "reset_peer", "stream": "downstream", "attributes": {"timeout": 20}}`,
	},
	{
		`{"name": "t", "type": "limit_data", "stream": "downstream", "attributes": {"bytes": 700}}`,
		`{"name": "t", "type": "limit_data", "stream": "upstream", "attributes": {"bytes": 700}}`,
		`{"name": "t", "type": "bandwidth", "stream": "downstream", "attributes": {"rate": 1}}`,
		`{"name": "t", "type": "slicer", "stream": "downstream", "attributes": {"average_size": 3, "size_variation": 2, "delay": 2000}}`,
		`{"name": "t", "type": "slow_close", "stream": "upstream", "attributes": {"delay": 500}}`,
		`{"name": "t", "type": "timeout", "stream": "downstream", "toxicity": 0.5, "attributes": {"timeout": 60}}`,
	},
}

// Processes read and write through leases while each of their ways to each server is toxic in another way. Settle after a Delete that was
// acknowledged, no Get that begins later returns an older value.
//
// Writing ends with the toxics, so that a value that is older stays where it is, to be seen: the next Delete would remove it.
func TestNoStaleValueBehindToxics(t *testing.T) {
	const slots, processes, keys, settle = 2, 3, 4, 3 * time.Second
	servers := testenv.Memcached(t, slots)
	log := zerolog.Nop()
	api := toxiproxy.NewServer(toxiproxy.NewMetricsContainer(nil), log)
	var ways []*toxiproxy.Proxy
	rows := map[string]*row{}
	for i := range keys {
		rows[fmt.Sprint(i)] = &row{settle: settle}
	}
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	var wg, writing sync.WaitGroup
	var writers []func(context.Context)
	for p := range processes {
		var reach []cache.Server
		for i, s := range servers {
			way := toxiproxy.NewProxy(api, fmt.Sprintf("%d-%d", p, i), "127.0.0.1:0", s.Addr)
			require.NoError(t, way.Start())
			t.Cleanup(way.Stop)
			ways = append(ways, way)
			reach = append(reach, cache.Server{Slot: fmt.Sprintf("cache-%d", i+1), Addr: way.Listen})
		}
		c, err := memcached.New(memcached.Options{Servers: reach, Timeout: 50 * time.Millisecond, Settle: settle})
		require.NoError(t, err)
		t.Cleanup(func() { require.NoError(t, c.Close()) })
		of := &cache.Of[int]{Store: c, Prefix: "row:", LoadTimeout: 300 * time.Millisecond}
		for key, r := range rows {
			for range 2 {
				wg.Go(func() {
					for ctx.Err() == nil {
						r.read(ctx, t, of, key)
					}
				})
			}
			writers = append(writers, func(ctx context.Context) {
				for ctx.Err() == nil {
					time.Sleep(20 * time.Millisecond)
					r.write(ctx, of, key)
				}
			})
		}
	}
	moment := func() { time.Sleep(300 * time.Millisecond) }
	for _, toxics := range rounds {
		quiet, end := context.WithCancel(ctx)
		for _, write := range writers {
			writing.Go(func() { write(quiet) })
		}
		moment()
		for i, toxic := range toxics {
			if toxic == "" {
				ways[i].Stop()
				continue
			}
			_, err := ways[i].Toxics.AddToxicJson(strings.NewReader(toxic))
			require.NoError(t, err, "%s", toxic)
		}
		moment()
		moment()
		end()
		writing.Wait()
		for i, toxic := range toxics {
			if toxic == "" {
				require.NoError(t, ways[i].Start())
			}
			ways[i].Toxics.ResetToxics(t.Context())
		}
		time.Sleep(settle + 500*time.Millisecond)
	}
	stop()
	wg.Wait()
	acks := 0
	for key, r := range rows {
		acks += len(r.acks)
		t.Logf("row %s: %d writes, %d Deletes acknowledged, %d reads, %d of them older, for up to %v, %d loads",
			key, r.version, len(r.acks), r.reads, r.older, r.longest, r.loads)
	}
	require.Greater(t, acks, 30, "the test did something")
}

// row counts its writes.
type row struct {
	settle time.Duration // for how long after a Delete a value may be older

	mu      sync.Mutex
	version int
	acks    []ack // of Deletes
	reads   int
	older   int           // reads of a value that was older than a Delete
	longest time.Duration // how much later than that
	loads   int
}

// ack: a Delete that followed a write was acknowledged.
type ack struct {
	version int
	at      time.Time
}

func (r *row) load(ctx context.Context) (int, error) {
	r.mu.Lock()
	version := r.version
	r.loads++
	r.mu.Unlock()
	select {
	case <-time.After(10 * time.Millisecond): // what was read is on its way
		return version, nil
	case <-ctx.Done():
		return 0, context.Cause(ctx)
	}
}

func (r *row) read(ctx context.Context, t *testing.T, of *cache.Of[int], key string) {
	start := time.Now()
	version, err := of.Get(ctx, key, r.load)
	if err != nil && ctx.Err() == nil && !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("row %s: Get: %v", key, err)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.reads++
	if err != nil {
		return
	}
	newer := slices.IndexFunc(r.acks, func(a ack) bool { return a.version > version })
	if newer < 0 || !r.acks[newer].at.Before(start) {
		return
	}
	since := start.Sub(r.acks[newer].at)
	r.older++
	if r.longest = max(r.longest, since); since > r.settle {
		t.Errorf("row %s: Get returned the version %d, %v after a Delete after version %d was acknowledged", key, version, since, r.acks[newer].version)
	}
}

func (r *row) write(ctx context.Context, of *cache.Of[int], key string) {
	r.mu.Lock()
	r.version++
	version := r.version
	r.mu.Unlock()
	if of.Delete(ctx, key) == nil {
		r.mu.Lock()
		r.acks = append(r.acks, ack{version, time.Now()})
		r.mu.Unlock()
	}
}
