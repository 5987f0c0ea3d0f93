package cronlocktest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/scalr-go/scalr/cronlock"
)

// ClaimStore is what RunClaimer is run against.
type ClaimStore struct {
	// Open gives a claimer on the store, as Store.Open gives a locker. Required.
	Open func() cronlock.Claimer
	// Lose makes the runner of that name lose its lease. Required.
	Lose func(runner string)
}

// RunClaimer holds an implementation to the rules of cronlock.Claimer. The factory makes a fresh store for each of them.
func RunClaimer(t *testing.T, factory func(t testing.TB) ClaimStore) {
	for _, r := range claimRules {
		t.Run(r.name, func(t *testing.T) { r.run(t, factory) })
	}
}

type claimRule struct {
	name  string
	words string
	check func(h *claimHarness)
}

func (r claimRule) run(t testing.TB, factory func(t testing.TB) ClaimStore) {
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	r.check(&claimHarness{harness: harness{TB: t, ctx: ctx, rule: r.words}, ClaimStore: factory(t)})
}

type claimHarness struct {
	harness
	ClaimStore
}

var claimRules = []claimRule{
	{"Once", "of those who claim a run exactly one gets it, and the others learn who", claimOnce},
	{"Own", "a claim that meets its own record is granted again, and only while it is running", claimOwn},
	{"ID", "a claim that bears the ID of the record that it meets gets that record, whatever has become of it", claimID},
	{"Instants", "instants are kept to the microsecond, listed from the first to before the last, in order, by job", claimInstants},
	{"Tokens", "each grant has a greater token than those before it, and an update that is none keeps it", claimTokens},
	{"Update", "an update of a record that has changed since is refused, and one of a present record is kept in all fields", claimUpdate},
	{"Open", "all runs are listed that have not ended, and no others", claimOpen},
	{"Exclusive", "of a job's exclusive runs one is active at a time, whatever the others do", claimExclusive},
	{"Paused", "a paused job cannot be claimed to run, but for runs that are asked for", claimPaused},
	{"Floor", "what lies before the floor is forgotten, cannot be claimed, and the floor never falls; open runs stay", claimFloor},
	{"Control", "the state of a job is replaced by who has seen it last", claimControl},
	{"Join", "a runner is in the fleet while it works, under a name of its own", joinFleet},
	{"Join lost", "a runner's context is cancelled with cause ErrLost before it leaves the fleet, and Join returns ErrLost", joinLost},
	{"Bad claims", "a claim that Check refuses is refused before anything is touched", badClaims},
	{"Ended context", "nothing is done in a context that has ended", claimEnded},
}

var noon = time.Date(2026, 1, 2, 12, 0, 0, 0, time.UTC)

// running is a claim by a runner, so many seconds after noon.
func running(job string, second int, runner string) cronlock.Claim {
	at := noon.Add(time.Duration(second) * time.Second)
	return cronlock.Claim{Key: cronlock.Key{Job: job, At: at}, Status: cronlock.Running, Runner: runner, Attempt: 1}
}

// claim makes a claim that must be granted.
func (h *claimHarness) claim(c cronlock.Claimer, claim cronlock.Claim) cronlock.Claim {
	h.Helper()
	got, err := c.Claim(h.ctx, claim)
	if err != nil {
		h.broken("the claim of %s by %q failed: %v", claim.Key, claim.Runner, err)
	}
	return got
}

func (h *claimHarness) update(c cronlock.Claimer, was cronlock.Claim, change func(*cronlock.Claim)) cronlock.Claim {
	h.Helper()
	to := was
	change(&to)
	got, err := c.Update(h.ctx, was, to)
	if err != nil {
		h.broken("the update of %s from %s to %s failed: %v", was.Key, was.Status, to.Status, err)
	}
	return got
}

func (h *claimHarness) want(what string, got, want error) {
	h.Helper()
	if !errors.Is(got, want) {
		h.broken("%s returned %v, want %v", what, got, want)
	}
}

func (h *claimHarness) must(what string, err error) {
	h.Helper()
	if err != nil {
		h.broken("%s failed: %v", what, err)
	}
}

func claimOnce(h *claimHarness) {
	const claimers, runs = 8, 12
	type outcome struct {
		runner string
		err    error
		claim  cronlock.Claim
	}
	for n := range runs {
		outcomes := make(chan outcome, claimers)
		for i := range claimers {
			c, runner := h.Open(), fmt.Sprint("runner-", i)
			go func() {
				claim, err := c.Claim(h.ctx, running("once", n, runner))
				outcomes <- outcome{runner, err, claim}
			}()
		}
		winner := ""
		var losers []outcome
		for range claimers {
			switch o := receive(&h.harness, "the claimers", outcomes); {
			case o.err == nil && winner == "":
				winner = o.runner
			case o.err == nil:
				h.broken("both %s and %s have run %d", winner, o.runner, n)
			case errors.Is(o.err, cronlock.ErrClaimed):
				losers = append(losers, o)
			default:
				h.broken("a claim failed: %v", o.err)
			}
		}
		for _, o := range losers {
			if o.claim.Runner != winner {
				h.broken("%s is told that %q has run %d, want %q", o.runner, o.claim.Runner, n, winner)
			}
		}
		got, err := h.Open().Get(h.ctx, running("once", n, "").Key)
		h.must("Get", err)
		if got.Runner != winner || got.Status != cronlock.Running || got.Attempt != 1 {
			h.broken("the record is %+v, want it of %s, running, attempt 1", got, winner)
		}
		if got.Claimed.IsZero() || time.Since(got.Claimed).Abs() > time.Hour {
			h.broken("Claimed is %v, want about now", got.Claimed)
		}
	}
}

func claimOwn(h *claimHarness) {
	a, b := h.Open(), h.Open()
	first := h.claim(a, running("own", 0, "me"))
	if again := h.claim(a, running("own", 0, "me")); again.Token != first.Token || again.Version != first.Version {
		h.broken("the second answer is %+v, want the first, %+v", again, first)
	}
	_, err := b.Claim(h.ctx, running("own", 0, "you"))
	h.want("another's claim", err, cronlock.ErrClaimed)
	h.update(a, first, func(c *cronlock.Claim) { c.Status = cronlock.Succeeded })
	_, err = a.Claim(h.ctx, running("own", 0, "me"))
	h.want("the claim of a run that one has ended", err, cronlock.ErrClaimed)
}

func claimID(h *claimHarness) {
	a, b := h.Open(), h.Open()
	requested := running("id", 0, "")
	requested.Status, requested.Attempt, requested.ID = cronlock.Requested, 0, "mine"
	c := h.claim(a, requested)
	again := func() {
		h.Helper()
		if got := h.claim(b, requested); got.ID != "mine" || got.Version != c.Version || got.Status != c.Status {
			h.broken("the second answer is %+v, want the record, %+v", got, c)
		}
		for _, id := range []string{"yours", ""} {
			other := requested
			other.ID = id
			_, err := b.Claim(h.ctx, other)
			h.want(fmt.Sprintf("a claim with the ID %q", id), err, cronlock.ErrClaimed)
		}
	}
	again()
	c = h.update(b, c, func(c *cronlock.Claim) { c.Status, c.Runner, c.Attempt = cronlock.Running, "r", 1 })
	again()
	c = h.update(b, c, func(c *cronlock.Claim) { c.Status, c.ID = cronlock.Succeeded, "" })
	again()
}

func claimInstants(h *claimHarness) {
	a := h.Open()
	var want []time.Time
	for _, n := range []int{3, 1, 2, 0} {
		c := running("instants/a", 0, "r")
		c.At = noon.Add(time.Duration(n) * time.Microsecond)
		if n == 1 {
			c.At = c.At.In(time.FixedZone("", 3600))
		}
		h.claim(a, c)
		want = append(want, noon.Add(time.Duration(n)*time.Microsecond))
	}
	h.claim(a, running("instants", 0, "r"))
	b := h.Open() // so that it lacks nothing that was there before
	slices.SortFunc(want, time.Time.Compare)
	for _, c := range []struct{ from, to, first, last int }{{0, 4, 0, 4}, {1, 3, 1, 3}, {-5, 1, 0, 1}, {4, 9, 4, 4}} {
		got, err := b.Instants(h.ctx, "instants/a", noon.Add(time.Duration(c.from)*time.Microsecond), noon.Add(time.Duration(c.to)*time.Microsecond))
		h.must("Instants", err)
		if !slices.EqualFunc(got, want[c.first:c.last], time.Time.Equal) {
			h.broken("Instants from %d to %d µs gives %v, want %v", c.from, c.to, got, want[c.first:c.last])
		}
	}
	if got, err := b.Instants(h.ctx, "instants/none", noon, noon.Add(time.Hour)); err != nil || len(got) > 0 {
		h.broken("Instants of a job without any gives %v and %v", got, err)
	}
	_, err := b.Get(h.ctx, cronlock.Key{Job: "instants/a", At: noon.Add(time.Hour)})
	h.want("Get of a run without a record", err, cronlock.ErrNoClaim)
}

func claimTokens(h *claimHarness) {
	a, b := h.Open(), h.Open()
	var token uint64
	rises := func(c cronlock.Claim) cronlock.Claim {
		h.Helper()
		if c.Token <= token {
			h.broken("attempt %d of %s has token %d after %d", c.Attempt, c.Key, c.Token, token)
		}
		token = c.Token
		return c
	}
	keeps := func(c cronlock.Claim) cronlock.Claim {
		h.Helper()
		read, err := h.Open().Get(h.ctx, c.Key) // one that comes later lacks nothing
		h.must("Get", err)
		if c.Token != token || read.Token != token {
			h.broken("%s that is %s has token %d, and %d when read, want %d", c.Key, c.Status, c.Token, read.Token, token)
		}
		return c
	}
	for n := range 4 {
		c := rises(h.claim(a, running("tokens", n, "a")))
		keeps(c)
		c = rises(h.update(b, c, func(c *cronlock.Claim) { c.Attempt = 2 }))
		c = rises(h.update(b, c, func(c *cronlock.Claim) { c.Runner = "b" }))
		c = keeps(h.update(a, c, func(c *cronlock.Claim) { c.Status = cronlock.Stopping }))
		keeps(h.update(b, c, func(c *cronlock.Claim) { c.Status = cronlock.Failed }))
	}
	requested := running("tokens", 9, "")
	requested.Status, requested.Attempt = cronlock.Requested, 0
	c := h.claim(a, requested)
	rises(h.update(b, c, func(c *cronlock.Claim) { c.Status, c.Runner, c.Attempt = cronlock.Running, "b", 1 }))
}

func claimUpdate(h *claimHarness) {
	a, b := h.Open(), h.Open()
	first := h.claim(a, running("update", 0, "a"))
	ended := noon.Add(time.Minute)
	second := h.update(b, first, func(c *cronlock.Claim) {
		c.Status, c.Runner, c.Attempt, c.Ended, c.Error = cronlock.Failed, "b", 7, ended, "disk full"
	})
	for what, was := range map[string]cronlock.Claim{"the first record": first, "a record that never was": running("update", 1, "a")} {
		_, err := a.Update(h.ctx, was, second)
		h.want("an update of "+what, err, cronlock.ErrClaimed)
	}
	got, err := a.Get(h.ctx, first.Key)
	h.must("Get", err)
	if got.Status != cronlock.Failed || got.Runner != "b" || got.Attempt != 7 || !got.Ended.Equal(ended) || got.Error != "disk full" ||
		!got.Claimed.Equal(first.Claimed) || got.Version != second.Version {
		h.broken("the record is %+v, want what was written, %+v", got, second)
	}
}

func claimOpen(h *claimHarness) {
	a, b := h.Open(), h.Open()
	ended := running("open", 3, "a")
	ended.Status = cronlock.Skipped
	h.claim(a, ended)
	one := h.claim(a, running("open", 2, "a"))
	two := running("open/b@c", 1, "")
	two.Status, two.Attempt = cronlock.Requested, 0
	second := h.claim(a, two)
	check := func(want ...cronlock.Key) {
		h.Helper()
		got, err := a.Open(h.ctx)
		h.must("Open", err)
		if !slices.EqualFunc(got, want, func(a, b cronlock.Key) bool { return a.Job == b.Job && a.At.Equal(b.At) }) {
			h.broken("Open gives %v, want %v", got, want)
		}
	}
	check(one.Key, second.Key)
	one = h.update(a, one, func(c *cronlock.Claim) { c.Status = cronlock.Stopping })
	check(one.Key, second.Key)
	h.update(a, one, func(c *cronlock.Claim) { c.Status = cronlock.Failed })
	check(second.Key)
	second = h.update(a, second, func(c *cronlock.Claim) { c.Status, c.Runner, c.Attempt = cronlock.Running, "a", 1 })
	check(second.Key)
	h.update(a, second, func(c *cronlock.Claim) { c.Status = cronlock.Succeeded })
	check()
	_ = b
}

func claimExclusive(h *claimHarness) {
	a, b := h.Open(), h.Open()
	exclusive := func(second int) cronlock.Claim {
		c := running("exclusive", second, "a")
		c.Exclusive = true
		return c
	}
	busy := func(second int) {
		h.Helper()
		_, err := b.Claim(h.ctx, exclusive(second))
		h.want("a second exclusive claim", err, cronlock.ErrBusy)
		_, err = b.Get(h.ctx, exclusive(second).Key)
		h.want("Get of what was refused", err, cronlock.ErrNoClaim)
	}
	first := h.claim(a, exclusive(0))
	busy(1)
	h.claim(b, running("exclusive", 2, "b")) // not exclusive
	skipped := exclusive(3)
	skipped.Status = cronlock.Skipped
	h.claim(b, skipped)
	first = h.update(a, first, func(c *cronlock.Claim) { c.Attempt = 2 })
	busy(4)
	first = h.update(a, first, func(c *cronlock.Claim) { c.Status = cronlock.Stopping })
	busy(5)
	requested := exclusive(6)
	requested.Status = cronlock.Requested
	second := h.claim(b, requested)
	to := second
	to.Status = cronlock.Running
	_, err := b.Update(h.ctx, second, to)
	h.want("an update to a second exclusive run", err, cronlock.ErrBusy)
	first = h.update(a, first, func(c *cronlock.Claim) { c.Status = cronlock.Requested }) // handed back
	second = h.update(b, second, func(c *cronlock.Claim) { c.Status = cronlock.Running })
	busy(7)
	h.update(b, second, func(c *cronlock.Claim) { c.Status = cronlock.Succeeded })
	h.update(a, first, func(c *cronlock.Claim) { c.Status = cronlock.Failed })
	h.claim(b, exclusive(8))
}

func badClaims(h *claimHarness) {
	c := h.Open()
	for what, bad := range map[string]func(*cronlock.Claim){
		"without a job":      func(c *cronlock.Claim) { c.Job = "" },
		"of a job like ..":   func(c *cronlock.Claim) { c.Job = "a/.." },
		"without an instant": func(c *cronlock.Claim) { c.At = time.Time{} },
		"without a status":   func(c *cronlock.Claim) { c.Status = "" },
		"without a runner":   func(c *cronlock.Claim) { c.Runner = "" },
		"without an attempt": func(c *cronlock.Claim) { c.Attempt = 0 },
	} {
		claim := running("bad", 0, "a")
		bad(&claim)
		if _, err := c.Claim(h.ctx, claim); err == nil {
			h.broken("a claim %s was taken", what)
		}
	}
	if open, err := c.Open(h.ctx); err != nil || len(open) > 0 {
		h.broken("bad claims have left %v, %v", open, err)
	}
	if err := c.SetControl(h.ctx, "", cronlock.Control{}); err == nil {
		h.broken("SetControl of a job without a name was taken")
	}
}

func claimEnded(h *claimHarness) {
	c := h.Open()
	cause := errors.New("too late")
	ctx, cancel := context.WithCancelCause(h.ctx)
	cancel(cause)
	_, err := c.Claim(ctx, running("ended", 0, "a"))
	h.want("Claim", err, cause)
	h.want("SetControl", c.SetControl(ctx, "ended", cronlock.Control{}), cause)
	err = c.Join(ctx, func(context.Context, cronlock.Lease) error { h.broken("Join runs work"); return nil })
	h.want("Join", err, cause)
	_, err = c.Get(h.ctx, running("ended", 0, "a").Key)
	h.want("Get after that", err, cronlock.ErrNoClaim)
}
