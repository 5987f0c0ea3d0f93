package cronlocktest

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/scalr-go/scalr/cronlock"
)

func exclusion(h *harness) {
	const callers, rounds = 8, 10
	var inside, worked atomic.Int32
	var overlaps atomic.Int32
	unguarded := 0 // by the lock only: the race detector watches
	errs := make(chan error, callers)
	for range callers {
		l := h.Open()
		go func() {
			var err error
			for range rounds {
				err = errors.Join(err, l.Hold(h.ctx, "exclusion", func(context.Context, cronlock.Lease) error {
					if inside.Add(1) > 1 {
						overlaps.Add(1)
					} else {
						unguarded++
					}
					time.Sleep(50 * time.Microsecond)
					worked.Add(1)
					inside.Add(-1)
					return nil
				}))
			}
			errs <- err
		}()
	}
	for range callers {
		if err := receive(h, "the callers", errs); err != nil {
			h.broken("Hold failed: %v", err)
		}
	}
	if overlaps.Load() > 0 || worked.Load() != callers*rounds {
		h.broken("%d of %d pieces of work ran, %d of them while another one ran", worked.Load(), callers*rounds, overlaps.Load())
	}
}

func tokens(h *harness) {
	var last uint64
	check := func(before time.Time) func(context.Context, cronlock.Lease) error {
		return func(_ context.Context, lease cronlock.Lease) error {
			switch now := time.Now(); {
			case lease.Name != "tokens":
				return fmt.Errorf("Lease.Name is %q, want tokens", lease.Name)
			case lease.Token <= last:
				return fmt.Errorf("Lease.Token is %d after %d, want a greater one", lease.Token, last)
			case lease.Held.Before(before) || lease.Held.After(now):
				return fmt.Errorf("Lease.Held is %v, want an instant from %v to %v", lease.Held, before, now)
			default:
				last = lease.Token
				return nil
			}
		}
	}
	a, b := h.Open(), h.Open()
	for i := range 12 {
		l := a
		if i%2 == 1 {
			l = b
		}
		call := l.Hold
		if i%3 == 2 {
			call = l.TryHold
		}
		if err := call(h.ctx, "tokens", check(time.Now())); err != nil {
			h.broken("lease %d: %v", i, err)
		}
		if i == 6 { // names are held between, and the name is out of use for a moment
			_ = a.Hold(h.ctx, "other", func(context.Context, cronlock.Lease) error { return nil })
		}
	}
}

func order(h *harness) {
	if h.Waiting == nil {
		h.Skip("the store cannot tell who waits (Store.Waiting is nil)")
	}
	const waiters = 6
	holder := h.hold(h.ctx, h.Open(), "order")
	receive(h, "the first holder", holder.started)
	var mu sync.Mutex
	var served []int
	done := make(chan error, waiters)
	for i := range waiters {
		l := h.Open()
		go func() {
			done <- l.Hold(h.ctx, "order", func(context.Context, cronlock.Lease) error {
				mu.Lock()
				defer mu.Unlock()
				served = append(served, i)
				return nil
			})
		}()
		h.waiters("order", i+1)
	}
	close(holder.release)
	for range waiters {
		if err := receive(h, "the waiters", done); err != nil {
			h.broken("Hold failed: %v", err)
		}
	}
	if !slices.IsSorted(served) {
		h.broken("waiters 0 to %d were served in the order %v", waiters-1, served)
	}
}

func giveUp(h *harness) {
	holder := h.hold(h.ctx, h.Open(), "give-up")
	receive(h, "the first holder", holder.started)

	cause := errors.New("the caller has had enough")
	ctx, cancel := context.WithCancelCause(h.ctx)
	defer cancel(nil)
	quitter := h.hold(ctx, h.Open(), "give-up")
	h.waiters("give-up", 1)
	next := h.hold(h.ctx, h.Open(), "give-up")
	h.waiters("give-up", 2)
	cancel(cause)
	if err := receive(h, "the cancelled Hold to return", quitter.done); !errors.Is(err, cause) {
		h.broken("the cancelled Hold returned %v, want the cause of its context: %v", err, cause)
	}
	if len(quitter.started) > 0 {
		h.broken("the cancelled Hold worked, while another one held the lock")
	}
	h.waiters("give-up", 1)

	close(holder.release)
	receive(h, "the waiter behind the one that gave up", next.started)
	close(next.release)
	if err := receive(h, "its Hold to return", next.done); err != nil {
		h.broken("the waiter behind the one that gave up: %v", err)
	}
	h.wantFree("give-up", "after a waiter has given up")
}

func endedContext(h *harness) {
	cause := errors.New("ended before")
	ctx, cancel := context.WithCancelCause(h.ctx)
	cancel(cause)
	l := h.Open()
	for name, call := range methods(l) {
		worked := false
		err := call(ctx, "ended", func(context.Context, cronlock.Lease) error { worked = true; return nil })
		if worked || !errors.Is(err, cause) {
			h.broken("%s with an ended context returned %v and worked: %t; want %v and false", name, err, worked, cause)
		}
	}
	h.wantFree("ended", "after calls with an ended context")
}

func tryHold(h *harness) {
	a, b := h.Open(), h.Open()
	worked := false
	err := a.TryHold(h.ctx, "try", func(context.Context, cronlock.Lease) error {
		worked = true
		// The lock is held for as long as this call takes: it has to return by itself.
		err := b.TryHold(h.ctx, "try", func(context.Context, cronlock.Lease) error {
			return errors.New("worked while another one held the lock")
		})
		if !errors.Is(err, cronlock.ErrHeld) {
			return fmt.Errorf("TryHold of a held name returned %v, want ErrHeld", err)
		}
		return nil
	})
	if err != nil || !worked {
		h.broken("TryHold of a free name returned %v and worked: %t; want nil and true", err, worked)
	}
	h.wantFree("try", "after TryHold has returned")
}

func workError(h *harness) {
	want := errors.New("work failed")
	for name, call := range methods(h.Open()) {
		err := call(h.ctx, "error", func(context.Context, cronlock.Lease) error { return fmt.Errorf("today: %w", want) })
		if !errors.Is(err, want) || errors.Is(err, cronlock.ErrLost) || errors.Is(err, cronlock.ErrHeld) {
			h.broken("%s returned %v, want only the error of its work: %v", name, err, want)
		}
		h.wantFree("error", "after work has failed")
	}
}

func workContext(h *harness) {
	type key struct{}
	cause := errors.New("the caller stops")
	for name, call := range methods(h.Open()) {
		ctx, cancel := context.WithCancelCause(context.WithValue(h.ctx, key{}, "value"))
		err := call(ctx, "context", func(ctx context.Context, _ cronlock.Lease) error {
			if ctx.Value(key{}) != "value" {
				return errors.New("work's context lacks a value of the caller's context")
			}
			if ctx.Err() != nil {
				return fmt.Errorf("work started with an ended context: %w", context.Cause(ctx))
			}
			cancel(cause)
			select {
			case <-ctx.Done():
			case <-h.ctx.Done():
				return errors.New("work's context does not end with the caller's")
			}
			if !errors.Is(context.Cause(ctx), cause) {
				return fmt.Errorf("work's context has the cause %w, want the caller's", context.Cause(ctx))
			}
			h.wantHeld("context", "while work has not returned after its context ended")
			return nil
		})
		cancel(nil)
		if err != nil {
			h.broken("%s: %v", name, err)
		}
		h.wantFree("context", "after work has returned")
	}
}

func loss(h *harness) {
	workErr := errors.New("stopped half-way")
	old := h.hold(h.ctx, h.Open(), "loss")
	old.err = workErr
	first := receive(h, "the first holder", old.started)
	next := h.hold(h.ctx, h.Open(), "loss", first.ctx)
	h.waiters("loss", 1)
	h.Lose("loss")

	second := receive(h, "the next holder after the loss", next.started)
	if !errors.Is(second.seen[0], cronlock.ErrLost) {
		h.broken("when the next holder started, the context of the old one's work had the cause %v, want ErrLost", second.seen[0])
	}
	if second.lease.Token <= first.lease.Token {
		h.broken("the next holder's token is %d, want more than the lost lease's %d", second.lease.Token, first.lease.Token)
	}
	if len(old.done) > 0 {
		h.broken("Hold returned before its work did: %v", <-old.done)
	}
	close(old.release)
	if err := receive(h, "the Hold that lost its lease", old.done); !errors.Is(err, cronlock.ErrLost) || !errors.Is(err, workErr) {
		h.broken("the Hold that lost its lease returned %v, want an error that is ErrLost and %q", err, workErr)
	}
	h.wantHeld("loss", "after the old holder has returned, while the next one works")
	if second.ctx.Err() != nil {
		h.broken("the next holder's context ended with the old one: %v", context.Cause(second.ctx))
	}
	close(next.release)
	if err := receive(h, "the next holder to return", next.done); err != nil {
		h.broken("the next holder's Hold returned %v", err)
	}
}

func lossUnnoticed(h *harness) {
	old := h.hold(h.ctx, h.Open(), "unnoticed")
	first := receive(h, "the holder", old.started)
	h.Lose("unnoticed")
	receive(h, "the end of the context of work whose lease is lost", first.ctx.Done())
	close(old.release)
	if err := receive(h, "the Hold that lost its lease", old.done); !errors.Is(err, cronlock.ErrLost) {
		h.broken("the Hold that lost its lease returned %v, want ErrLost", err)
	}
	h.wantFree("unnoticed", "after a lease was lost")
}

func panics(h *harness) {
	for name, call := range methods(h.Open()) {
		got := func() (v any) {
			defer func() { v = recover() }()
			err := call(h.ctx, "panic", func(context.Context, cronlock.Lease) error { panic("work panics") })
			return fmt.Sprintf("no panic but the error %v", err)
		}()
		if got != "work panics" {
			h.broken("%s: recovered %v, want the panic of work", name, got)
		}
		h.wantFree("panic", "after a panic in work")
	}
}

func goexit(h *harness) {
	for _, call := range methods(h.Open()) {
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			_ = call(h.ctx, "goexit", func(context.Context, cronlock.Lease) error { runtime.Goexit(); return nil })
		}()
		receive(h, "the goroutine that ends in work", ended)
		h.wantFree("goexit", "after a goroutine has ended in work")
	}
}

func names(h *harness) {
	a, b, c := h.Open(), h.Open(), h.Open()
	worked := false
	err := a.Hold(h.ctx, "farm", func(ctx context.Context, _ cronlock.Lease) error {
		return b.Hold(ctx, "farm/www", func(ctx context.Context, _ cronlock.Lease) error {
			return c.TryHold(ctx, "far", func(ctx context.Context, lease cronlock.Lease) error {
				worked = lease.Name == "far"
				h.wantHeld("farm", "while three names are held")
				h.wantHeld("farm/www", "while three names are held")
				return nil
			})
		})
	})
	if err != nil || !worked {
		h.broken("Hold(farm), Hold(farm/www) and TryHold(far) in one another returned %v and worked: %t", err, worked)
	}
	h.wantFree("farm", "after nested holds")
}

func badNames(h *harness) {
	l := h.Open()
	for _, name := range []string{
		"", "/", "/a", "a/", "a//b", ".", "..", "a/../b", "a/.", "a b", "a\n", "caf\u00e9", "a\x00b", strings.Repeat("x", 201),
	} {
		for method, call := range methods(l) {
			worked := false
			err := call(h.ctx, name, func(context.Context, cronlock.Lease) error { worked = true; return nil })
			if err == nil || worked {
				h.broken("%s(%q) returned %v and worked: %t; want an error and false", method, name, err, worked)
			}
			if !strings.Contains(err.Error(), "name") {
				h.broken("%s(%q) returned %q, want an error that says what is wrong with the name", method, name, err)
			}
		}
	}
	h.wantFree(strings.Repeat("x", 200), "with a name of 200 bytes")
	h.wantFree("a-b_c.d/e:f~/...", "with a name of odd but legal characters")
}

// methods gives both ways to take a lock.
func methods(l cronlock.Locker) map[string]func(context.Context, string, func(context.Context, cronlock.Lease) error) error {
	return map[string]func(context.Context, string, func(context.Context, cronlock.Lease) error) error{
		"Hold": l.Hold, "TryHold": l.TryHold,
	}
}
