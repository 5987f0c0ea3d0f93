package zookeeper_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/scalr-go/scalr/cronlock"
	"github.com/scalr-go/scalr/cronlock/zookeeper"
)

// tour makes every kind of call once, beside another client that is not disturbed, and checks what comes of it.
func tour(ctx context.Context, w *world, c, other *zookeeper.Client) error {
	var errs []error
	must := func(what string, err error, want ...error) {
		if len(want) == 0 && err != nil || len(want) > 0 && !errors.Is(err, want[0]) {
			errs = append(errs, fmt.Errorf("%s: %v, want %v", what, err, want))
		}
	}
	run := func(n int, runner string) cronlock.Claim {
		return cronlock.Claim{
			Key: cronlock.Key{Job: "a/b", At: time.Unix(1e9+int64(n), 0).UTC()}, Runner: runner, Attempt: 1, Status: cronlock.Running, Exclusive: true,
		}
	}
	update := func(was cronlock.Claim, status cronlock.Status, attempt int) cronlock.Claim {
		to := was
		to.Status, to.Attempt, to.Runner = status, attempt, "r"
		got, err := c.Update(ctx, was, to)
		must(fmt.Sprintf("update of %s to %s, attempt %d", was.Key, status, attempt), err)
		if rises := status == cronlock.Running; err == nil && (got.Token > was.Token) != rises {
			errs = append(errs, fmt.Errorf("%s has token %d after %d", was.Key, got.Token, was.Token))
		}
		return got
	}
	pause := func(paused bool, floor time.Time) {
		s, err := c.Control(ctx, "a/b")
		must("Control", err)
		s.Paused, s.Floor = paused, floor
		must("SetControl", c.SetControl(ctx, "a/b", s))
	}

	pause(true, time.Time{})
	_, err := c.Claim(ctx, run(0, "r"))
	must("claim in a pause", err, cronlock.ErrPaused)
	pause(false, time.Time{})
	first, err := c.Claim(ctx, run(0, "r"))
	must("claim", err)
	_, err = c.Claim(ctx, run(1, "r"))
	must("second exclusive claim", err, cronlock.ErrBusy)
	_, err = c.Claim(ctx, run(0, "s"))
	must("claim of what is claimed", err, cronlock.ErrClaimed)
	_, err = c.Update(ctx, cronlock.Claim{Key: first.Key, Version: 77, Status: cronlock.Running, Runner: "r", Attempt: 1}, first)
	must("update of what is not there", err, cronlock.ErrClaimed)
	skipped := run(2, "r")
	skipped.Status, skipped.Exclusive, skipped.ID = cronlock.Skipped, false, "skip"
	_, err = c.Claim(ctx, skipped)
	must("a run that is skipped", err)
	first = update(first, cronlock.Running, 2)
	update(first, cronlock.Succeeded, 2)
	second := run(1, "")
	second.Status, second.Attempt, second.Exclusive, second.ID = cronlock.Requested, 0, false, "id"
	second, err = c.Claim(ctx, second)
	must("request", err)
	second.Exclusive = true
	second = update(second, cronlock.Running, 1)
	update(second, cronlock.Failed, 1)
	pause(false, second.At)
	_, err = c.Claim(ctx, run(0, "r"))
	must("claim before the floor", err, cronlock.ErrPruned)
	if all, err := c.Instants(ctx, "a/b", time.Time{}, time.Now()); err != nil || len(all) != 2 || !all[0].Equal(second.At) {
		errs = append(errs, fmt.Errorf("instants are %v, %v, want the second and the third", all, err))
	}
	open, err := c.Open(ctx)
	if must("Open", err); len(open) > 0 {
		errs = append(errs, fmt.Errorf("open are %v, want none", open))
	}

	var token uint64
	hold := func(_ context.Context, lease cronlock.Lease) error {
		if lease.Token <= token {
			return fmt.Errorf("token %d after %d", lease.Token, token)
		}
		token = lease.Token
		return nil
	}
	must("Hold", c.Hold(ctx, "l", hold))
	must("TryHold", c.TryHold(ctx, "l", hold))
	must("Hold of another name", c.Hold(ctx, "m", func(context.Context, cronlock.Lease) error {
		must("TryHold of what is held", c.TryHold(ctx, "m", hold), cronlock.ErrHeld)
		return nil
	}))
	var group sync.WaitGroup
	held := make(chan struct{})
	var failed error
	group.Go(func() { // holds until the other one waits
		failed = other.Hold(ctx, "l", func(_ context.Context, lease cronlock.Lease) error {
			close(held)
			for len(w.names("/locks/l")) < 2 && ctx.Err() == nil {
				time.Sleep(time.Millisecond)
			}
			return hold(ctx, lease)
		})
	})
	select {
	case <-held:
	case <-ctx.Done():
	}
	must("Hold after a wait", c.Hold(ctx, "l", hold))
	group.Wait()
	must("Hold of the other", failed)
	must("Join", c.Join(ctx, func(ctx context.Context, lease cronlock.Lease) error {
		f, err := c.Fleet(ctx)
		if err == nil && !slices.Contains(f.Runners, lease.Name) {
			return fmt.Errorf("fleet is %v, want %s in it", f.Runners, lease.Name)
		}
		return err
	}))
	return errors.Join(errs...)
}

// The answer to each request in turn is lost, or the connection breaks before the request is written, whatever it asks: all calls give what
// they would have given, and nothing is left over.
func TestEachAnswerLost(t *testing.T) {
	t.Parallel() // these wait most of the time, and their sessions last
	e := calm.ensemble(t)
	// try makes the tour with a fault at the nth request, and gives the opcodes of all requests.
	try := func(fault string, n int) (ops []int32, err error) {
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
		defer cancel()
		w := newWorld(t, e)
		var mu sync.Mutex
		var sent []int32
		nth := func(op int32) bool {
			mu.Lock()
			defer mu.Unlock()
			sent = append(sent, op)
			return len(sent) == n
		}
		l := &link{}
		if fault == "tear" {
			l.tear = nth
		} else {
			l.drop = nth
		}
		open := func(dial func(*zookeeper.Options)) (*zookeeper.Client, error) {
			o := zookeeper.Options{Servers: w.Addrs(), Timeout: 30 * time.Second, Root: w.root}
			dial(&o)
			return zookeeper.Open(ctx, o)
		}
		other, err := open(func(*zookeeper.Options) {})
		if err != nil {
			return nil, err
		}
		defer other.Close()
		c, err := open(func(o *zookeeper.Options) { o.Dial = l.dial })
		if err != nil {
			return nil, err
		}
		defer c.Close()
		if err := tour(ctx, w, c, other); err != nil {
			return nil, err
		}
		for _, dir := range []string{"/locks/l", "/locks/m", "/runners", "/open"} {
			for names := w.names(dir); len(names) > 0; names = w.names(dir) {
				if time.Sleep(5 * time.Millisecond); ctx.Err() != nil {
					return nil, fmt.Errorf("%s has %v left over", dir, names)
				}
			}
		}
		if names := w.names("/jobs/a%2Fb"); !slices.Equal(names, []string{"runs"}) {
			return nil, fmt.Errorf("the job has %v, want its runs only", names)
		}
		mu.Lock()
		defer mu.Unlock()
		return slices.Clone(sent), nil
	}
	all, err := try("none", -1)
	require.NoError(t, err)
	var (
		group sync.WaitGroup
		mu    sync.Mutex
		errs  []error
		room  = make(chan struct{}, 16)
	)
	for n := range len(all) {
		for _, fault := range []string{"drop", "tear"} {
			room <- struct{}{}
			group.Go(func() {
				defer func() { <-room }()
				if _, err := try(fault, n+1); err != nil {
					mu.Lock()
					defer mu.Unlock()
					errs = append(errs, fmt.Errorf("%s at request %d of opcode %d: %w", fault, n+1, all[n], err))
				}
			})
		}
	}
	group.Wait()
	require.NoError(t, errors.Join(errs...))
	kinds := map[int32]int{}
	for _, op := range all {
		kinds[op]++
	}
	t.Logf("%d requests, by opcode: %v", len(all), kinds)
	// create, delete, getData, setData, sync, getChildren2, multi, createContainer: all that the package uses
	require.Equal(t, []int32{1, 2, 4, 5, 9, 12, 14, 19}, slices.Sorted(maps.Keys(kinds)))
}
