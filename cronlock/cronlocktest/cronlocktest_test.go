package cronlocktest

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/scalr-go/scalr/cronlock"
)

// Each wrapper is caught by the rule that it breaks, and a correct one is not.
func TestSuiteCatches(t *testing.T) {
	for _, c := range brokenLockers {
		t.Run(c.what, func(t *testing.T) {
			for _, r := range rules {
				if r.name == c.rule {
					require.True(t, fails(t, r, c.call), "the rule %q did not catch it", r.name)
					require.False(t, fails(t, r, call.correct), "the rule %q fails a correct implementation", r.name)
					return
				}
			}
			t.Fatalf("there is no rule %q", c.rule)
		})
	}
}

// fails runs one rule in virtual time, where patience costs nothing, and reports whether it failed.
func fails(t *testing.T, r rule, f func(call) error) (failed bool) {
	synctest.Test(t, func(t *testing.T) {
		rec := &recorder{TB: t}
		done := make(chan struct{})
		go func() {
			defer close(done)
			r.run(rec, func(testing.TB) Store {
				m := &wrapper{call: f}
				return Store{Open: func() cronlock.Locker { return m }, Lose: func(name string) { m.Expire(name) }, Waiting: m.Waiting}
			})
		}()
		<-done
		time.Sleep(time.Minute) // what the wrapper left running ends
		if failed = rec.message != ""; failed {
			require.Contains(t, rec.message, "broken rule: "+r.words)
		}
	})
	return failed
}

// recorder is a testing.TB whose failure is noted and does not fail the test.
type recorder struct {
	testing.TB
	message string
}

func (r *recorder) Fatalf(format string, args ...any) {
	r.message = fmt.Sprintf(format, args...)
	runtime.Goexit()
}

type work = func(context.Context, cronlock.Lease) error

// wrapper is a Locker around a correct one that does something else.
type wrapper struct {
	cronlock.Memory
	call func(call) error

	mu    sync.Mutex
	token uint64
	stack []func(context.Context, cronlock.Lease)
}

// call is one call of Hold or TryHold.
type call struct {
	*wrapper
	try  bool
	ctx  context.Context
	name string
	work work
}

func (w *wrapper) Hold(ctx context.Context, name string, f work) error {
	return w.call(call{w, false, ctx, name, f})
}

func (w *wrapper) TryHold(ctx context.Context, name string, f work) error {
	return w.call(call{w, true, ctx, name, f})
}

func (c call) correct() error {
	if c.try {
		return c.Memory.TryHold(c.ctx, c.name, c.work)
	}
	return c.Memory.Hold(c.ctx, c.name, c.work)
}

// changed is correct with another lease, context or error.
func changedLease(change func(*cronlock.Lease)) func(call) error {
	return func(c call) error {
		f := c.work
		c.work = func(ctx context.Context, l cronlock.Lease) error { change(&l); return f(ctx, l) }
		return c.correct()
	}
}

func changedContext(change func(outer, inner context.Context) context.Context) func(call) error {
	return func(c call) error {
		f := c.work
		c.work = func(inner context.Context, l cronlock.Lease) error { return f(change(c.ctx, inner), l) }
		return c.correct()
	}
}

func changedError(change func(ctx context.Context, err error) error) func(call) error {
	return func(c call) error { return change(c.ctx, c.correct()) }
}

var brokenLockers = []struct {
	what string
	rule string
	call func(call) error
}{
	{"no lock at all", "Exclusion", func(c call) error {
		c.mu.Lock()
		c.token++
		lease := cronlock.Lease{Name: c.name, Token: c.token, Held: time.Now()}
		c.mu.Unlock()
		return c.work(c.ctx, lease)
	}},
	{"a lock that is free before work ends", "Exclusion", func(c call) error {
		f, lease := c.work, cronlock.Lease{}
		c.work = func(_ context.Context, l cronlock.Lease) error { lease = l; return nil }
		if err := c.correct(); err != nil {
			return err
		}
		return f(c.ctx, lease)
	}},
	{"the same token again", "Tokens", changedLease(func(l *cronlock.Lease) { l.Token = 7 })},
	{"falling tokens", "Tokens", changedLease(func(l *cronlock.Lease) { l.Token = 1000 - l.Token })},
	{"a lease without its name", "Tokens", changedLease(func(l *cronlock.Lease) { l.Name = "" })},
	{"a lease without its time", "Tokens", changedLease(func(l *cronlock.Lease) { l.Held = time.Time{} })},
	{"last come, first served", "Order", func(c call) error {
		f, done := c.work, make(chan error, 1)
		c.mu.Lock()
		c.stack = append(c.stack, func(ctx context.Context, l cronlock.Lease) { done <- f(ctx, l) })
		c.mu.Unlock()
		c.work = func(ctx context.Context, l cronlock.Lease) error {
			c.mu.Lock()
			latest := c.stack[len(c.stack)-1]
			c.stack = c.stack[:len(c.stack)-1]
			c.mu.Unlock()
			latest(ctx, l)
			return nil
		}
		_ = c.correct()
		return <-done
	}},
	{"a wait that is deaf", "Give up waiting", func(c call) error {
		if !c.try {
			c.ctx = context.WithoutCancel(c.ctx)
		}
		return c.correct()
	}},
	{"a wait that ends without its cause", "Give up waiting", changedError(func(ctx context.Context, err error) error {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		return err
	})},
	{"a waiter that gave up and stays in the queue", "Give up waiting", func(c call) error {
		if c.try {
			return c.correct()
		}
		outer, done := c.ctx, make(chan error, 1)
		c.ctx = context.WithoutCancel(outer)
		go func() { done <- c.correct() }()
		select {
		case err := <-done:
			return err
		case <-outer.Done():
			return context.Cause(outer)
		}
	}},
	{"work in spite of an ended context", "Ended context", func(c call) error {
		f, outer := c.work, c.ctx
		c.ctx = context.WithoutCancel(outer)
		c.work = func(_ context.Context, l cronlock.Lease) error { return f(outer, l) }
		return c.correct()
	}},
	{"an ended context without its cause", "Ended context", changedError(func(ctx context.Context, err error) error {
		return errors.Join(ctx.Err())
	})},
	{"TryHold that waits", "TryHold", func(c call) error { c.try = false; return c.correct() }},
	{"TryHold that is silent about a held lock", "TryHold", changedError(func(_ context.Context, err error) error {
		if errors.Is(err, cronlock.ErrHeld) {
			return nil
		}
		return err
	})},
	{"TryHold that never works", "TryHold", func(c call) error {
		if c.try {
			return cronlock.ErrHeld
		}
		return c.correct()
	}},
	{"work's error is lost", "Error of work", changedError(func(context.Context, error) error { return nil })},
	{"work's error as mere text", "Error of work", changedError(func(_ context.Context, err error) error {
		if err != nil {
			return errors.New(err.Error())
		}
		return nil
	})},
	{"every error is a loss", "Error of work", changedError(func(_ context.Context, err error) error {
		if err != nil {
			return errors.Join(err, cronlock.ErrLost)
		}
		return nil
	})},
	{"a context of its own", "Context of work", changedContext(func(context.Context, context.Context) context.Context {
		return context.Background()
	})},
	{"a context that does not end", "Context of work", changedContext(func(_, inner context.Context) context.Context {
		return context.WithoutCancel(inner)
	})},
	{"a lock that is free when the context ends", "Context of work", func(c call) error {
		f := c.work
		c.work = func(ctx context.Context, l cronlock.Lease) error {
			late, cancel := context.WithCancelCause(context.WithoutCancel(ctx))
			defer context.AfterFunc(ctx, func() { c.Expire(c.name); cancel(context.Cause(c.ctx)) })()
			return f(late, l)
		}
		return c.correct()
	}},
	{"a loss of which work is not told", "Loss", changedContext(func(outer, _ context.Context) context.Context { return outer })},
	{"a loss of which work is told late", "Loss", changedContext(func(_, inner context.Context) context.Context {
		late, cancel := context.WithCancelCause(context.WithoutCancel(inner))
		context.AfterFunc(inner, func() { time.Sleep(time.Millisecond); cancel(context.Cause(inner)) })
		return late
	})},
	{"a loss without its cause", "Loss", changedContext(func(_, inner context.Context) context.Context {
		plain, cancel := context.WithCancel(context.WithoutCancel(inner))
		context.AfterFunc(inner, cancel)
		return plain
	})},
	{"a loss that hides work's error", "Loss", changedError(func(_ context.Context, err error) error {
		if errors.Is(err, cronlock.ErrLost) {
			return cronlock.ErrLost
		}
		return err
	})},
	{"a token that does not rise with a loss", "Loss", changedLease(func(l *cronlock.Lease) { l.Token = 1 })},
	{"Hold that returns before work does", "Loss", func(c call) error {
		f := c.work
		c.work = func(ctx context.Context, l cronlock.Lease) error {
			done := make(chan error, 1)
			go func() { done <- f(ctx, l) }()
			select {
			case err := <-done:
				return err
			case <-ctx.Done():
				return nil
			}
		}
		return c.correct()
	}},
	{"an old holder that frees the lock of the new one", "Loss", func(c call) error {
		err := c.correct()
		if errors.Is(err, cronlock.ErrLost) {
			c.Expire(c.name)
		}
		return err
	}},
	{"silence about a loss that work did not notice", "Loss unnoticed", changedError(func(_ context.Context, err error) error {
		if err != nil && err.Error() == cronlock.ErrLost.Error() {
			return nil
		}
		return err
	})},
	{"a panic that becomes an error", "Panic", func(c call) (err error) {
		defer func() {
			if v := recover(); v != nil {
				err = fmt.Errorf("panic: %v", v)
			}
		}()
		return c.correct()
	}},
	{"a panic that keeps the lock", "Panic", releasedWithoutDefer},
	{"a Goexit that keeps the lock", "Goexit", releasedWithoutDefer},
	{"one lock for all names", "Names", func(c call) error { c.name = "all"; return c.correct() }},
	{"one lock for a name and those under it", "Names", func(c call) error {
		c.name, _, _ = strings.Cut(c.name, "/")
		return c.correct()
	}},
	{"bad names that are taken", "Bad names", func(c call) error {
		if cronlock.CheckName(c.name) != nil {
			c.name = "repaired"
		}
		return c.correct()
	}},
	{"bad names that are not explained", "Bad names", changedError(func(_ context.Context, err error) error {
		if err != nil {
			return errors.New("invalid argument")
		}
		return nil
	})},
	{"good names that are refused", "Bad names", func(c call) error {
		if len(c.name) > 100 {
			return errors.New("name is too long for me")
		}
		return c.correct()
	}},
}

// releasedWithoutDefer keeps the lock until the context ends, unless work returns.
func releasedWithoutDefer(c call) error {
	held, release, done := make(chan cronlock.Lease, 1), make(chan struct{}), make(chan error, 1)
	f := c.work
	c.work = func(ctx context.Context, l cronlock.Lease) error {
		held <- l
		select {
		case <-release:
		case <-ctx.Done():
		}
		return nil
	}
	go func() { done <- c.correct() }()
	select {
	case lease := <-held:
		err := f(c.ctx, lease)
		close(release)
		<-done
		return err
	case err := <-done:
		return err
	}
}
