package cronlocktest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/scalr-go/scalr/cronlock"
)

func claimPaused(h *claimHarness) {
	a, b := h.Open(), h.Open()
	before := h.claim(a, running("paused", 0, "a")) // both know the job
	h.claim(b, running("paused", 1, "b"))
	set := func(paused bool) {
		h.Helper()
		s, err := b.Control(h.ctx, "paused")
		h.must("Control", err)
		s.Paused = paused
		h.must("SetControl", b.SetControl(h.ctx, "paused", s))
	}
	set(true)
	_, err := a.Claim(h.ctx, running("paused", 2, "a"))
	h.want("a claim of a paused job", err, cronlock.ErrPaused)
	requested := running("paused", 3, "")
	requested.Status = cronlock.Requested
	h.claim(a, requested)
	h.update(a, before, func(c *cronlock.Claim) { c.Status = cronlock.Succeeded })
	set(false)
	h.claim(a, running("paused", 2, "a"))
}

func claimFloor(h *claimHarness) {
	a, b := h.Open(), h.Open()
	for n := range 5 {
		c := h.claim(a, running("floor", n, "a"))
		if n != 1 {
			h.update(a, c, func(c *cronlock.Claim) { c.Status = cronlock.Succeeded })
		}
	}
	raise := func(second int) {
		h.Helper()
		s, err := b.Control(h.ctx, "floor")
		h.must("Control", err)
		s.Floor = noon.Add(time.Duration(second) * time.Second)
		h.must("SetControl", b.SetControl(h.ctx, "floor", s))
	}
	raise(3)
	raise(2) // in vain
	left, err := b.Instants(h.ctx, "floor", noon, noon.Add(time.Hour))
	h.must("Instants", err)
	want := []time.Time{noon.Add(time.Second), noon.Add(3 * time.Second), noon.Add(4 * time.Second)}
	if !slices.EqualFunc(left, want, time.Time.Equal) {
		h.broken("after the floor was raised there are %v, want %v", left, want)
	}
	for _, c := range []cronlock.Claimer{a, b} { // a has not seen the new floor
		_, err := c.Claim(h.ctx, running("floor", 2, "late"))
		h.want("a claim before the floor", err, cronlock.ErrPruned)
	}
	_, err = a.Claim(h.ctx, running("floor", 1, "late"))
	h.want("a claim of an open run before the floor", err, cronlock.ErrClaimed)
	h.claim(a, running("floor", 5, "a"))
}

func claimControl(h *claimHarness) {
	a, b := h.Open(), h.Open()
	s, err := a.Control(h.ctx, "control")
	h.must("Control", err)
	if s != (cronlock.Control{}) {
		h.broken("the state of a job that nobody used is %+v, want the zero state", s)
	}
	s.Paused, s.Since = true, noon
	h.must("SetControl", a.SetControl(h.ctx, "control", s))
	h.want("SetControl by who has not seen it", b.SetControl(h.ctx, "control", s), cronlock.ErrClaimed)
	got, err := b.Control(h.ctx, "control")
	h.must("Control", err)
	if !got.Paused || !got.Since.Equal(noon) || got.Created.IsZero() {
		h.broken("the state is %+v, want what was set, and when the job was made", got)
	}
	h.must("SetControl", b.SetControl(h.ctx, "control", got))
	h.want("SetControl of what was replaced", a.SetControl(h.ctx, "control", got), cronlock.ErrClaimed)
}

// joined is a Join under way.
type joined struct {
	name    string
	ctx     context.Context
	release chan struct{}
	done    chan error
}

func (h *claimHarness) join(c cronlock.Claimer) joined {
	type start struct {
		lease cronlock.Lease
		ctx   context.Context
	}
	started := make(chan start, 1)
	j := joined{release: make(chan struct{}), done: make(chan error, 1)}
	go func() {
		j.done <- c.Join(h.ctx, func(ctx context.Context, lease cronlock.Lease) error {
			started <- start{lease, ctx}
			select {
			case <-j.release:
			case <-h.ctx.Done():
			}
			return nil
		})
	}()
	s := receive(&h.harness, "a runner to join", started)
	j.name, j.ctx = s.lease.Name, s.ctx
	return j
}

// fleet waits until the claimer sees these runners and no others.
func (h *claimHarness) fleet(c cronlock.Claimer, want ...string) {
	h.Helper()
	slices.Sort(want)
	h.until(fmt.Sprintf("the fleet was %q", want), func() bool {
		f, err := c.Fleet(h.ctx)
		h.must("Fleet", err)
		return slices.Equal(f.Runners, want)
	})
}

func joinFleet(h *claimHarness) {
	a, b := h.Open(), h.Open()
	one, two := h.join(a), h.join(b)
	if one.name == two.name {
		h.broken("two runners are called %q", one.name)
	}
	h.fleet(a, one.name, two.name)
	close(one.release)
	h.must("Join", receive(&h.harness, "Join to return", one.done))
	h.fleet(b, two.name)
	three := h.join(a)
	if three.name == one.name {
		h.broken("a new runner has the old name %q", one.name)
	}
	h.fleet(b, two.name, three.name)
	close(two.release)
	close(three.release)
	receive(&h.harness, "Join to return", two.done)
	receive(&h.harness, "Join to return", three.done)
	h.fleet(a)
}

func joinLost(h *claimHarness) {
	a, b := h.Open(), h.Open()
	j := h.join(a)
	h.fleet(b, j.name)
	h.Lose(j.name)
	h.until("the runner left the fleet", func() bool {
		f, err := b.Fleet(h.ctx)
		h.must("Fleet", err)
		gone := !slices.Contains(f.Runners, j.name)
		if gone && !errors.Is(context.Cause(j.ctx), cronlock.ErrLost) {
			h.broken("the runner has left the fleet, and its context has the cause %v, want ErrLost", context.Cause(j.ctx))
		}
		return gone
	})
	close(j.release)
	h.want("Join", receive(&h.harness, "Join to return", j.done), cronlock.ErrLost)
}
