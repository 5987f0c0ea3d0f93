package memcached_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/scalr-go/scalr/cache"
	"github.com/scalr-go/scalr/cache/memcached"
	"github.com/scalr-go/scalr/internal/faultproxy"
	"github.com/scalr-go/scalr/internal/testenv"
)

// Processes read and write through leases while their servers are killed, hang, and are replaced in their slots by empty ones, and
// while one process is partitioned from one server: in both directions, or in one, so that what it asks comes late, or takes effect
// without an answer. Settle after a Delete that was acknowledged, no Get that begins later returns an older value.
//
// Writing ends with each fault, so that a value that is older stays where it is, to be seen: the next Delete would remove it.
func TestNoStaleValueUnderFaults(t *testing.T) {
	const slots, processes, keys, settle = 2, 3, 4, 3 * time.Second
	servers := testenv.Memcached(t, slots+1) // one is spare
	var lines [processes]map[string]*faultproxy.Line
	var clients []*memcached.Client
	reach := func(process int) (all []cache.Server) { // the servers as the process sees them
		for i, s := range servers[:slots] {
			all = append(all, cache.Server{Slot: fmt.Sprintf("cache-%d", i+1), Addr: lines[process][s.ID].Addr()})
		}
		return all
	}
	rows := map[string]*row{}
	for i := range keys {
		rows[fmt.Sprint(i)] = &row{settle: settle}
	}
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	var wg, writing sync.WaitGroup
	var writers []func(context.Context)
	for i := range processes {
		lines[i] = map[string]*faultproxy.Line{}
		for _, s := range servers {
			lines[i][s.ID] = faultproxy.NewLine(t, s.Addr)
		}
		c, err := memcached.New(memcached.Options{Servers: reach(i), Timeout: 50 * time.Millisecond, Settle: settle})
		require.NoError(t, err)
		t.Cleanup(func() { require.NoError(t, c.Close()) })
		clients = append(clients, c)
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
	moment := func() { time.Sleep(200 * time.Millisecond) }
	for round, cut := range [][2]bool{{true, false}, {false, true}, {true, true}} {
		quiet, end := context.WithCancel(ctx)
		for _, write := range writers {
			writing.Go(func() { write(quiet) })
		}
		moment()
		line := lines[round%processes][servers[round%slots].ID]
		line.Cut(cut[0], cut[1])
		moment()
		at := (round + 1) % slots
		victim := servers[at]
		switch round {
		case 0:
			require.NoError(t, victim.Kill(ctx))
			moment()
			require.NoError(t, victim.Start(ctx))
		case 1:
			require.NoError(t, victim.Hang(ctx))
			moment()
			require.NoError(t, victim.Resume(ctx))
		case 2: // the old machine is gone before the new one has its slot
			require.NoError(t, victim.Kill(ctx))
			servers[at], servers[slots] = servers[slots], victim
			for i, c := range clients {
				require.NoError(t, c.SetServers(reach(i)))
			}
			moment()
			require.NoError(t, victim.Start(ctx)) // empty, as a new machine
		}
		end()
		writing.Wait()
		line.Mend()
		time.Sleep(settle + 500*time.Millisecond)
	}
	stop()
	wg.Wait()
	total := 0
	for key, r := range rows {
		total += len(r.acks)
		r.read(context.Background(), t, &cache.Of[int]{Store: client(t, reach(0), 0), Prefix: "row:"}, key)
		t.Logf("row %s: %d writes, %d Deletes acknowledged, %d reads, %d of them older, for up to %v, %d loads",
			key, r.version, len(r.acks), r.reads, r.older, r.longest, r.loads)
	}
	require.Greater(t, total, 30, "the test did something")
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
