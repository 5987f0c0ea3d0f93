package cronlocktest

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/scalr-go/scalr/cronlock"
)

// harness is what a rule's check works with.
type harness struct {
	testing.TB
	Store
	ctx  context.Context // ends when patience does
	rule string
}

// broken ends the rule as broken.
func (h *harness) broken(format string, args ...any) {
	h.Helper()
	h.Fatalf("broken rule: "+h.rule+"\n"+format, args...)
}

// until waits for a condition.
func (h *harness) until(what string, cond func() bool) {
	h.Helper()
	for !cond() {
		if h.ctx.Err() != nil {
			h.broken("waited in vain until %s", what)
		}
		time.Sleep(time.Millisecond)
	}
}

// waiters waits until n callers wait for the name, where the store can tell.
func (h *harness) waiters(name string, n int) {
	h.Helper()
	if h.Waiting != nil {
		h.until("the store knew of the waiters", func() bool { return h.Waiting(name) == n })
	}
}

// receive waits for a value from the channel.
func receive[T any](h *harness, what string, c <-chan T) T {
	h.Helper()
	select {
	case v := <-c:
		return v
	case <-h.ctx.Done():
		h.broken("waited in vain for %s", what)
		panic("unreachable")
	}
}

// holding is a call of Hold under way in a goroutine of its own.
type holding struct {
	started chan start    // receives when work starts
	release chan struct{} // closed to let work return
	err     error         // what work returns
	done    chan error    // receives what Hold returned
}

type start struct {
	ctx   context.Context
	lease cronlock.Lease
	seen  []error // the causes of the watched contexts at the instant at which work started
}

// hold calls Hold in a goroutine. Its work goes on until release is closed or the rule ends, whatever its context says.
func (h *harness) hold(ctx context.Context, l cronlock.Locker, name string, watched ...context.Context) *holding {
	c := &holding{started: make(chan start, 1), release: make(chan struct{}), done: make(chan error, 1)}
	go func() {
		c.done <- l.Hold(ctx, name, func(ctx context.Context, lease cronlock.Lease) error {
			s := start{ctx: ctx, lease: lease}
			for _, w := range watched {
				s.seen = append(s.seen, context.Cause(w))
			}
			c.started <- s
			select {
			case <-c.release:
			case <-h.ctx.Done():
			}
			return c.err
		})
	}()
	return c
}

// wantFree fails the rule unless the name can be held now by a caller of its own.
func (h *harness) wantFree(name, after string) {
	h.Helper()
	worked := false
	err := h.Open().Hold(h.ctx, name, func(context.Context, cronlock.Lease) error { worked = true; return nil })
	if err != nil || !worked {
		h.broken("%s, Hold(%s) returned %v and worked: %t; want nil and true", after, name, err, worked)
	}
}

// wantHeld fails the rule unless somebody holds the name now.
func (h *harness) wantHeld(name, when string) {
	h.Helper()
	err := h.Open().TryHold(h.ctx, name, func(context.Context, cronlock.Lease) error { return nil })
	if !errors.Is(err, cronlock.ErrHeld) {
		h.broken("%s, TryHold(%s) returned %v, want ErrHeld", when, name, err)
	}
}
