package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math"
	"os"
	"slices"
	"sync/atomic"
	"time"

	"github.com/anishathalye/porcupine"

	"github.com/scalr-go/scalr/cronlock"
)

// call is one call to the store that is to change a record, as a runner saw it: said once before it is made, and once more with what
// came of it. What a runner did not live to say is not known.
type call struct {
	Process int
	N       uint64    // of this process
	Begin   time.Time // before the call
	Was     int64     // the version that is to be replaced, or -1 for a claim
	To      cronlock.Claim

	Outcome string // empty while it is not known
	Got     cronlock.Claim
}

// Outcomes of calls.
const (
	done    = "done"
	claimed = "claimed" // it is somebody else's, or has changed
	busy    = "busy"
	refused = "refused" // paused or pruned
)

var calls atomic.Uint64

// tell says that a call is made, makes it, and says what came of it.
func tell(was int64, to cronlock.Claim, do func() (cronlock.Claim, error)) (cronlock.Claim, error) {
	to.At = to.At.UTC() // JSON has no seconds of an offset
	c := &call{Process: os.Getpid(), N: calls.Add(1), Begin: time.Now(), Was: was, To: to}
	say(line{Kind: "call", Run: to.Key.String(), At: to.At, Call: c, Requests: transactions.Load()})
	got, err := do()
	switch c.Got = got; {
	case err == nil:
		c.Outcome = done
	case errors.Is(err, cronlock.ErrClaimed):
		c.Outcome = claimed
	case errors.Is(err, cronlock.ErrBusy):
		c.Outcome = busy
	case errors.Is(err, cronlock.ErrPaused), errors.Is(err, cronlock.ErrPruned):
		c.Outcome = refused
	default:
		return got, err // it may yet be done
	}
	say(line{Kind: "return", Run: to.Key.String(), At: to.At, Call: c, Requests: transactions.Load()})
	return got, err
}

// state is a run's record as the model has it.
type state struct {
	made    bool
	version int64
	runner  string
	id      string
	attempt int
	status  cronlock.Status
	token   uint64 // of the last grant of which somebody was told
}

// after is the state when a call has been done.
func (s state) after(c call) state {
	to := state{true, c.Was + 1, c.To.Runner, s.id, c.To.Attempt, c.To.Status, s.token}
	if c.Was < 0 {
		to.version, to.id = 1, c.To.ID // made and written once
	}
	return to
}

// records is the model of a run's record: whoever claims it first has it, a change needs the version that it replaces, and each grant has a
// token that is greater than the one before.
var records = porcupine.NondeterministicModel{
	Partition: func(history []porcupine.Operation) [][]porcupine.Operation {
		runs := map[string][]porcupine.Operation{}
		for _, op := range history {
			key := op.Input.(call).To.Key.String()
			runs[key] = append(runs[key], op)
		}
		var list [][]porcupine.Operation
		for _, ops := range runs {
			list = append(list, ops)
		}
		return list
	},
	Init: func() []any { return []any{state{}} },
	Step: func(from, input, _ any) (next []any) {
		s, c := from.(state), input.(call)
		applies := !s.made
		if c.Was >= 0 {
			applies = s.made && s.version == c.Was
		}
		own := c.Was < 0 && s.made && c.To.Made(cronlock.Claim{ID: s.id, Status: s.status, Runner: s.runner, Attempt: s.attempt})
		switch c.Outcome {
		case done:
			if own { // an earlier call of the same runner has made it, and its answer did not arrive
				if s.token = max(s.token, c.Got.Token); s.version == c.Got.Version {
					next = append(next, s)
				}
			}
			if applies {
				to := s.after(c)
				if to.version != c.Got.Version || c.To.Status != c.Got.Status {
					return nil
				}
				if c.To.Status == cronlock.Running {
					if c.Got.Token <= s.token {
						return nil
					}
					to.token = c.Got.Token
				}
				next = append(next, to)
			}
		case claimed:
			if !applies && !own {
				next = append(next, s)
			}
			// It was done, the answer was lost, and somebody has changed it again before it was asked about.
			if applies && (c.Was >= 0 || c.Got.Attempt > c.To.Attempt) {
				next = append(next, s.after(c))
			}
		case busy:
			if applies {
				next = append(next, s)
			}
		case refused:
			next = append(next, s)
		default:
			if next = append(next, s); applies {
				next = append(next, s.after(c))
			}
		}
		return next
	},
}

// history makes operations of what the runners said.
func history(lines []line) (list []porcupine.Operation) {
	type id struct {
		process int
		n       uint64
	}
	open := map[id]porcupine.Operation{}
	clients := map[int]int{}
	for _, l := range lines {
		if l.Call == nil {
			continue
		}
		c := *l.Call
		if _, ok := clients[c.Process]; !ok {
			clients[c.Process] = len(clients)
		}
		op := porcupine.Operation{ClientId: clients[c.Process], Input: c, Call: c.Begin.UnixNano(), Return: math.MaxInt64}
		if l.Kind == "return" {
			op.Return = l.Time.UnixNano()
			delete(open, id{c.Process, c.N})
			list = append(list, op)
		} else {
			open[id{c.Process, c.N}] = op
		}
	}
	for _, op := range open {
		list = append(list, op)
	}
	slices.SortFunc(list, func(a, b porcupine.Operation) int { return cmp.Compare(a.Call, b.Call) })
	return list
}

// linearizable checks all that was claimed and changed, and gives the runs whose records could not have become so; their histories go to
// standard error.
func linearizable(ops []porcupine.Operation) (bad []string) {
	model := records.ToModel()
	for _, run := range records.Partition(ops) {
		if porcupine.CheckOperationsTimeout(model, run, time.Minute) != porcupine.Ok {
			bad = append(bad, run[0].Input.(call).To.Key.String())
			for _, op := range run {
				c := op.Input.(call)
				fmt.Fprintf(os.Stderr, "%s %d-%d: process %d: version %d to %s: %q, %s\n",
					c.To.Key, op.Call/1e6, op.Return/1e6, c.Process, c.Was, plain(c.To), c.Outcome, plain(c.Got))
			}
		}
	}
	slices.Sort(bad)
	return bad
}

// plain is a claim that prints with all its fields.
func plain(c cronlock.Claim) string {
	return fmt.Sprintf("{%s attempt %d by %s token %d version %d id %q}", c.Status, c.Attempt, c.Runner, c.Token, c.Version, c.ID)
}

// fallen counts grants of a job's runs whose token is not greater than that of a grant which was known before they were asked for.
func fallen(ops []porcupine.Operation) (n int) {
	type grant struct {
		at    int64
		token uint64
	}
	granted := map[string][]grant{} // by job
	for _, op := range ops {
		if c := op.Input.(call); c.Outcome == done && c.To.Status == cronlock.Running {
			granted[c.To.Job] = append(granted[c.To.Job], grant{op.Return, c.Got.Token})
		}
	}
	for job, list := range granted {
		slices.SortFunc(list, func(a, b grant) int { return cmp.Compare(a.at, b.at) })
		highest := uint64(0)
		for i := range list {
			highest = max(highest, list[i].token)
			list[i].token = highest
		}
		granted[job] = list
	}
	type claimer struct {
		process int
		run     string
	}
	unsure := map[claimer]bool{} // whose claim may have been granted by an earlier call than that which says so
	for _, op := range ops {
		c := op.Input.(call)
		who := claimer{c.Process, c.To.Key.String()}
		if c.Outcome == "" {
			unsure[who] = true
		}
		if c.Outcome != done || c.To.Status != cronlock.Running || unsure[who] {
			continue
		}
		list := granted[c.To.Job]
		i, _ := slices.BinarySearchFunc(list, op.Call, func(g grant, at int64) int { return cmp.Compare(g.at, at) })
		if i > 0 && list[i-1].token > c.Got.Token {
			n++
		}
	}
	return n
}

// Claim implements cronlock.Claimer.
func (c *claimer) Claim(ctx context.Context, claim cronlock.Claim) (cronlock.Claim, error) {
	c.die("before claim")
	defer c.die("after claim")
	return tell(-1, claim, func() (cronlock.Claim, error) { return c.Client.Claim(ctx, claim) })
}

// Update implements cronlock.Claimer.
func (c *claimer) Update(ctx context.Context, was, claim cronlock.Claim) (cronlock.Claim, error) {
	if claim.Status.Over() {
		c.die("before done")
	}
	claim.Key = was.Key
	return tell(was.Version, claim, func() (cronlock.Claim, error) { return c.Client.Update(ctx, was, claim) })
}
