package zookeeper_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"
	"github.com/go-zookeeper/zk"
	"github.com/stretchr/testify/require"

	"github.com/scalr-go/scalr/cronlock"
	"github.com/scalr-go/scalr/cronlock/zookeeper"
)

// times is how often a scenario is repeated: a few times, or as CRON_TIMES says.
func times(few int) int {
	if n, err := strconv.Atoi(os.Getenv("CRON_TIMES")); err == nil {
		return n
	}
	return few
}

// claims is the model of claims: the first wins, and everybody learns who that was.
var claims = porcupine.Model{
	Partition: func(history []porcupine.Operation) [][]porcupine.Operation {
		runs := map[string][]porcupine.Operation{}
		for _, op := range history {
			key := op.Input.(cronlock.Claim).Key.String()
			runs[key] = append(runs[key], op)
		}
		var list [][]porcupine.Operation
		for _, ops := range runs {
			list = append(list, ops)
		}
		return list
	},
	Init: func() any { return "" },
	Step: func(state, input, output any) (bool, any) {
		winner, claimer, told := state.(string), input.(cronlock.Claim).Runner, output.(string)
		if winner == "" {
			winner = claimer
		}
		return told == winner, winner
	},
}

// Each answer is lost once in a while, whatever was asked: claims stay linearizable, locks exclusive with rising tokens,
// and nothing is left over.
func TestLostAnswers(t *testing.T) {
	t.Parallel() // these wait most of the time, and their sessions last
	e := calm.ensemble(t)
	w := newWorld(t, e)
	const clients, runs = 6, 30
	var (
		mu      sync.Mutex
		history []porcupine.Operation
		dropped = map[int32]int{}
		inside  atomic.Int32
		token   uint64
		group   sync.WaitGroup
	)
	began := time.Now()
	var errs []error
	for i := range clients {
		r := rand.New(rand.NewPCG(uint64(began.UnixNano()), uint64(i)))
		l := &link{}
		c := w.open(func(o *zookeeper.Options) { o.Timeout, o.Dial = 20*time.Second, l.dial })
		l.mu.Lock()
		l.drop = func(op int32) bool {
			mu.Lock()
			defer mu.Unlock()
			if r.IntN(100) < 4 {
				dropped[op]++
				return true
			}
			return false
		}
		l.mu.Unlock()
		fail := func(err error) {
			if err != nil {
				mu.Lock()
				errs = append(errs, err)
				mu.Unlock()
			}
		}
		group.Go(func() {
			runner := fmt.Sprint("runner-", i)
			for n := range runs {
				claim := cronlock.Claim{
					Key: cronlock.Key{Job: "job", At: time.Unix(1e9+int64(n), 0)}, Runner: runner, Attempt: 1, Status: cronlock.Running,
				}
				call := time.Since(began).Nanoseconds()
				got, err := c.Claim(t.Context(), claim)
				back := time.Since(began).Nanoseconds()
				if err == nil && got.Runner == runner {
					to := got
					to.Attempt, to.Error = 2, "once more"
					next, err := c.Update(t.Context(), got, to)
					fail(err)
					if err == nil && next.Token <= got.Token {
						fail(fmt.Errorf("token %d after %d", next.Token, got.Token))
					}
					to.Status = cronlock.Succeeded
					_, err = c.Update(t.Context(), next, to)
					fail(err)
				} else if !errors.Is(err, cronlock.ErrClaimed) {
					fail(fmt.Errorf("claim: %w", err))
				}
				mu.Lock()
				history = append(history, porcupine.Operation{ClientId: i, Input: claim, Call: call, Output: got.Runner, Return: back})
				mu.Unlock()
				fail(c.Hold(t.Context(), "lock", func(_ context.Context, lease cronlock.Lease) error {
					if inside.Add(1) > 1 {
						return errors.New("two hold the lock")
					}
					defer inside.Add(-1)
					if lease.Token <= token {
						return fmt.Errorf("lock's token %d after %d", lease.Token, token)
					}
					token = lease.Token
					return nil
				}))
			}
		})
	}
	group.Wait()
	require.NoError(t, errors.Join(errs...))
	require.True(t, porcupine.CheckOperations(claims, history), "the history of claims is not linearizable")
	// A winner that nobody else agrees with makes a history that is not; the checker can tell.
	bad := slices.Clone(history)
	bad[0].Output = "nobody"
	require.False(t, porcupine.CheckOperations(claims, bad))
	t.Logf("%d claims; answers lost, by opcode: %v", len(history), dropped)
	require.Greater(t, len(dropped), 4)
	w.clean()
	require.Empty(t, w.names("/open"))
}

// The holder's server is cut off from the others. It goes on answering reads, and says nothing. The holder stops before
// the waiter has the lock.
func TestFollowerOnlyPartition(t *testing.T) {
	e := hurt.ensemble(t)
	w := newWorld(t, e)
	ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
	defer cancel()
	var gaps []time.Duration
	for n := range times(2) {
		leader, err := e.Leader(ctx)
		require.NoError(t, err)
		follower := (leader + 1 + n%2) % 3
		holder := w.open(func(o *zookeeper.Options) { o.Servers = []string{e.Servers[follower].Addr} })
		waiter := w.open(func(o *zookeeper.Options) { o.Servers = []string{e.Servers[leader].Addr} })
		name := fmt.Sprint("lock-", n)
		started, stopped := make(chan cronlock.Lease), make(chan time.Time, 1)
		lost := make(chan error, 1)
		go func() {
			lost <- holder.Hold(ctx, name, func(ctx context.Context, l cronlock.Lease) error {
				started <- l
				<-ctx.Done()
				stopped <- time.Now()
				return nil
			})
		}()
		first := <-started
		next := make(chan cronlock.Lease, 1)
		go func() {
			_ = waiter.Hold(ctx, name, func(_ context.Context, l cronlock.Lease) error { next <- l; return nil })
		}()
		require.Eventually(t, func() bool { return len(w.names("/locks/"+name)) == 2 }, time.Minute, time.Millisecond)
		e.Cut(follower)
		second := <-next
		select {
		case at := <-stopped:
			gaps = append(gaps, second.Held.Sub(at))
			require.Positive(t, second.Held.Sub(at))
		default:
			t.Fatal("the waiter has the lock, and the holder's context has not ended")
		}
		require.Greater(t, second.Token, first.Token)
		e.Heal()
		require.ErrorIs(t, <-lost, cronlock.ErrLost)
		require.NoError(t, e.Ready(ctx))
		holder.Close()
		waiter.Close()
	}
	slices.Sort(gaps)
	t.Logf("%d of %d; the holder stopped %s to %s before the waiter had the lock", len(gaps), times(2), gaps[0], gaps[len(gaps)-1])
	w.clean()
}

// Leaders are killed, one after the other: the session and its lock are kept.
func TestLeaderKill(t *testing.T) {
	e := hurt.ensemble(t)
	w := newWorld(t, e)
	ctx := t.Context()
	c := w.open(func(o *zookeeper.Options) { o.Timeout = 20 * time.Second })
	var killed []int
	require.NoError(t, c.Hold(ctx, "kept", func(held context.Context, lease cronlock.Lease) error {
		for range times(2) {
			leader, err := e.Leader(ctx)
			if err != nil {
				return err
			}
			if err := e.Servers[leader].Kill(ctx); err != nil {
				return err
			}
			began := time.Now()
			_, err = c.Claim(ctx, cronlock.Claim{Key: cronlock.Key{Job: "j", At: time.Now()}, Status: cronlock.Running, Runner: "r", Attempt: 1})
			if err != nil {
				return err
			}
			t.Logf("a claim took %s over the death of the leader", time.Since(began).Round(time.Millisecond))
			killed = append(killed, leader)
			if err := errors.Join(e.Servers[leader].Start(ctx), e.Ready(ctx), context.Cause(held)); err != nil {
				return err
			}
		}
		return nil
	}))
	w.clean()
}

const opSetAuth = 100

// With credentials, what is made is for this user alone, also after a reconnection. Without them nothing can be done.
func TestDigest(t *testing.T) {
	e := calm.ensemble(t)
	w := newWorld(t, e)
	l := &link{}
	secret := func(o *zookeeper.Options) { o.User, o.Password, o.Dial = "cron", "s3cret", l.dial }
	c := w.open(secret)
	run := cronlock.Claim{Key: cronlock.Key{Job: "j", At: time.Unix(1e9, 0)}, Status: cronlock.Running, Runner: "r", Attempt: 1}
	_, err := c.Claim(t.Context(), run)
	require.NoError(t, err)
	// The next connection breaks while the credentials are sent again.
	var torn atomic.Bool
	l.mu.Lock()
	l.tear = func(op int32) bool { return op == opSetAuth && torn.CompareAndSwap(false, true) }
	l.mu.Unlock()
	l.cut()
	l.heal()
	require.NoError(t, c.Hold(t.Context(), "a", func(context.Context, cronlock.Lease) error {
		_, _, err := w.admin.Children(w.root + "/locks/a")
		require.ErrorIs(t, err, zk.ErrNoAuth)
		return nil
	}))
	require.True(t, torn.Load())
	_, _, err = w.admin.Get(w.root + "/jobs/j")
	require.ErrorIs(t, err, zk.ErrNoAuth)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	_, err = zookeeper.Open(ctx, zookeeper.Options{Servers: e.Addrs(), Root: w.root, User: "cron", Password: "wr0ng"})
	require.ErrorContains(t, err, "not authenticated")
	require.NotContains(t, err.Error(), "wr0ng")
}

// Close ends the work of what is held before anybody else can have it.
func TestCloseEndsWork(t *testing.T) {
	e := calm.ensemble(t)
	w := newWorld(t, e)
	a, b := w.open(), w.open()
	inside, done, release := make(chan context.Context), make(chan error), make(chan struct{})
	go func() {
		done <- a.Hold(t.Context(), "a", func(ctx context.Context, _ cronlock.Lease) error { inside <- ctx; <-release; return nil })
	}()
	held := <-inside
	next := make(chan error, 1)
	go func() {
		done <- b.Hold(t.Context(), "a", func(context.Context, cronlock.Lease) error { next <- context.Cause(held); return nil })
	}()
	a.Close()
	require.ErrorIs(t, <-next, cronlock.ErrLost)
	require.NoError(t, <-done)
	close(release)
	require.ErrorIs(t, <-done, cronlock.ErrLost)
	require.Error(t, a.Hold(t.Context(), "b", func(context.Context, cronlock.Lease) error { return nil }))
	w.clean()
}

// A server that hangs while the others go on costs no lease: the client takes another server in time.
func TestServerHangs(t *testing.T) {
	e := hurt.ensemble(t)
	w := newWorld(t, e)
	leader, err := e.Leader(t.Context())
	require.NoError(t, err)
	follower := (leader + 1) % 3
	var free atomic.Bool // to take another server than the follower
	const timeout = 20 * time.Second
	c := w.open(func(o *zookeeper.Options) {
		o.Timeout = timeout
		o.Dial = func(ctx context.Context, network, address string) (net.Conn, error) {
			if !free.Load() && address != e.Servers[follower].Addr {
				return nil, errors.New("not yet")
			}
			var d net.Dialer
			return d.DialContext(ctx, network, address)
		}
	})
	require.NoError(t, c.Hold(t.Context(), "kept", func(held context.Context, _ cronlock.Lease) error {
		free.Store(true)
		if err := e.Servers[follower].Hang(t.Context()); err != nil {
			return err
		}
		defer e.Servers[follower].Resume(context.WithoutCancel(t.Context()))
		select {
		case <-held.Done(): // as without renewal at half the timeout
			return context.Cause(held)
		case <-time.After(timeout/2 + time.Second):
			return nil
		}
	}))
	w.clean()
}

// A connection that breaks while a request is being written is as any lost connection: the client library hands on the
// network's own error then.
func TestTornWrites(t *testing.T) {
	e := calm.ensemble(t)
	w := newWorld(t, e)
	l := &link{}
	c := w.open(func(o *zookeeper.Options) { o.Dial = l.dial })
	run := cronlock.Claim{Key: cronlock.Key{Job: "j", At: time.Unix(1e9, 0)}, Status: cronlock.Running, Runner: "r", Attempt: 1}
	var mu sync.Mutex
	torn := map[int32]int{}
	l.mu.Lock()
	l.tear = func(op int32) bool {
		mu.Lock()
		defer mu.Unlock()
		torn[op]++
		return torn[op] == 1 // the first of each kind
	}
	l.mu.Unlock()
	_, err := c.Claim(t.Context(), run)
	require.NoError(t, err)
	require.NoError(t, c.Hold(t.Context(), "a", func(context.Context, cronlock.Lease) error { return nil }))
	require.NoError(t, c.TryHold(t.Context(), "b", func(context.Context, cronlock.Lease) error { return nil }))
	mu.Lock()
	defer mu.Unlock()
	require.Greater(t, len(torn), 3, "%v", torn)
}

func TestBadOptions(t *testing.T) {
	for want, o := range map[string]zookeeper.Options{
		"Options.Servers is empty":                      {},
		"Options.Timeout is 1ms":                        {Servers: []string{"a"}, Timeout: time.Millisecond},
		`Options.Root is "x"`:                           {Servers: []string{"a"}, Root: "x"},
		`Options.Root is "/x/"`:                         {Servers: []string{"a"}, Root: "/x/"},
		`Options.User is "", want a name without ':'`:   {Servers: []string{"a"}, Password: "p"},
		`Options.User is "a:b", want a name without ':`: {Servers: []string{"a"}, User: "a:b", Password: "p"},
	} {
		_, err := zookeeper.Open(t.Context(), o)
		require.ErrorContains(t, err, want)
	}
}
