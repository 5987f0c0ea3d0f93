package zookeeper_test

import (
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/scalr-go/scalr/cronlock"
	"github.com/scalr-go/scalr/cronlock/zookeeper"
)

// A claim without a rival is one request, and so is its end, however many jobs there are.
func TestClaimIsOneRoundTrip(t *testing.T) {
	e := calm.ensemble(t)
	w := newWorld(t, e)
	l := &link{}
	c := w.open(func(o *zookeeper.Options) { o.Timeout, o.Dial = time.Minute, l.dial })
	var mu sync.Mutex
	sent := map[int32]int{}
	l.mu.Lock()
	l.drop = func(op int32) bool {
		mu.Lock()
		defer mu.Unlock()
		sent[op]++
		return false
	}
	l.mu.Unlock()
	// since gives what was sent since the last call.
	since := func() map[int32]int {
		mu.Lock()
		defer mu.Unlock()
		was := maps.Clone(sent)
		clear(sent)
		return was
	}
	run := func(n int) cronlock.Claim {
		return cronlock.Claim{
			Key: cronlock.Key{Job: "j", At: time.Unix(1e9+int64(n), 0)}, Status: cronlock.Running, Runner: "r", Attempt: 1, Exclusive: true,
		}
	}
	const opMulti = 14
	for n := range 5 {
		got, err := c.Claim(t.Context(), run(n))
		require.NoError(t, err)
		if requests := since(); n > 0 { // the first makes the job known
			require.Equal(t, map[int32]int{opMulti: 1}, requests)
		}
		to := got
		to.Status = cronlock.Succeeded
		_, err = c.Update(t.Context(), got, to)
		require.NoError(t, err)
		require.Equal(t, map[int32]int{opMulti: 1}, since())
	}
}

// Records are pruned while late runners claim what lies before and behind the floor: no run is granted twice.
func TestPruneRace(t *testing.T) {
	t.Parallel() // these wait most of the time, and their sessions last
	e := calm.ensemble(t)
	w := newWorld(t, e)
	const runs, window, kept = 300, 40, 15
	ctx := t.Context()
	at := func(n int) time.Time { return time.Unix(1e9+int64(n), 0).UTC() }
	var (
		now     atomic.Int64 // the instant that is due
		calls   atomic.Int64
		pruned  atomic.Int64
		mu      sync.Mutex
		granted = map[int]int{}
		errs    []error
		group   sync.WaitGroup
	)
	fail := func(err error) {
		mu.Lock()
		defer mu.Unlock()
		errs = append(errs, err)
	}
	for i := range 5 {
		c := w.open(func(o *zookeeper.Options) { o.Timeout = 20 * time.Second })
		group.Go(func() {
			r := rand.New(rand.NewPCG(uint64(i), 1))
			for now.Load() < runs {
				n := max(0, int(now.Load())-r.IntN(window))
				// A name for each call, so that nothing is taken for the answer to an earlier one.
				claim := cronlock.Claim{Key: cronlock.Key{Job: "j", At: at(n)}, Status: cronlock.Running, Runner: fmt.Sprint("r", calls.Add(1)), Attempt: 1}
				got, err := c.Claim(ctx, claim)
				switch {
				case err == nil:
					mu.Lock()
					granted[n]++
					mu.Unlock()
					to := got
					to.Status = cronlock.Succeeded
					if _, err := c.Update(ctx, got, to); err != nil {
						fail(err)
					}
				case errors.Is(err, cronlock.ErrPruned):
					pruned.Add(1)
				case !errors.Is(err, cronlock.ErrClaimed):
					fail(err)
					return
				}
				now.Add(int64(r.IntN(4) / 3))
			}
		})
	}
	pruner := w.open(func(o *zookeeper.Options) { o.Timeout = 20 * time.Second })
	group.Go(func() {
		for now.Load() < runs {
			s, err := pruner.Control(ctx, "j")
			if err == nil {
				s.Floor = at(int(now.Load()) - kept)
				err = pruner.SetControl(ctx, "j", s)
			}
			if err != nil && !errors.Is(err, cronlock.ErrClaimed) {
				fail(err)
				return
			}
		}
	})
	group.Wait()
	require.NoError(t, errors.Join(errs...))
	for n, times := range granted {
		require.Equal(t, 1, times, "instant %d", n)
	}
	t.Logf("%d claims, %d granted, %d refused because they were pruned", calls.Load(), len(granted), pruned.Load())
	require.NotZero(t, pruned.Load())
	require.Greater(t, len(granted), runs/4)
}

// A pause that another client has ended is over, though the server that is asked has not heard of its end yet: what a server tells
// may be old, so that who is told of a pause asks again when the server has caught up.
func TestClaimAfterAPause(t *testing.T) {
	e := calm.ensemble(t)
	w := newWorld(t, e)
	ctx := t.Context()
	var clients []*zookeeper.Client
	for _, server := range e.Servers {
		clients = append(clients, w.open(func(o *zookeeper.Options) { o.Servers = []string{server.Addr} }))
	}
	for n := range 300 {
		a, b := clients[1+n%2], clients[0]
		run := cronlock.Claim{
			Key: cronlock.Key{Job: "j", At: time.Unix(1e9+int64(n), 0)}, Status: cronlock.Running, Runner: "r", Attempt: 1,
		}
		for _, paused := range []bool{true, false} {
			s, err := b.Control(ctx, "j")
			require.NoError(t, err)
			s.Paused = paused
			require.NoError(t, b.SetControl(ctx, "j", s))
			_, err = a.Claim(ctx, run)
			if paused {
				require.ErrorIs(t, err, cronlock.ErrPaused, "run %d", n)
			} else {
				require.NoError(t, err, "run %d", n)
			}
		}
	}
}
