// Package cronlocktest is the conformance suite for implementations of cronlock.Locker.
//
//	func TestConformance(t *testing.T) {
//		cronlocktest.Run(t, func(t testing.TB) cronlocktest.Store {
//			m := new(cronlock.Memory)
//			return cronlocktest.Store{
//				Open:    func() cronlock.Locker { return m },
//				Lose:    func(name string) { m.Expire(name) },
//				Waiting: m.Waiting,
//			}
//		})
//	}
//
// Each failure begins with the rule that was broken, in words. No rule depends on how long anything takes: waits are for
// a condition, and their bound only decides when a broken implementation is given up.
package cronlocktest

import (
	"context"
	"testing"
	"time"

	"github.com/scalr-go/scalr/cronlock"
)

// Store is what the suite is run against: a lock service and the means to disturb it.
type Store struct {
	// Open gives a locker on the store. The rules open several, as so many processes would, and use them at once. An
	// implementation that has no clients gives the same one each time. Whatever has to be closed is closed by the
	// factory, with t.Cleanup. Required.
	Open func() cronlock.Locker
	// Lose makes the present holder of the name lose its lease, in the way in which that really happens: it ends the
	// holder's session, say. It may return before the holder knows. Required.
	Lose func(name string)
	// Waiting says how many callers wait for the name as far as the store knows, the holder not counted. Nil where the
	// store cannot tell; the rule about the order of waiters is then skipped.
	Waiting func(name string) int
}

// Run holds an implementation to the rules of cronlock.Locker. The factory makes a fresh store for each of them.
func Run(t *testing.T, factory func(t testing.TB) Store) {
	for _, r := range rules {
		t.Run(r.name, func(t *testing.T) { r.run(t, factory) })
	}
}

// rule is one rule of the contract.
type rule struct {
	name  string
	words string
	check func(h *harness)
}

func (r rule) run(t testing.TB, factory func(t testing.TB) Store) {
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	r.check(&harness{TB: t, Store: factory(t), ctx: ctx, rule: r.words})
}

// patience bounds every wait of a rule. A correct implementation never comes near.
const patience = 30 * time.Second

var rules = []rule{
	{"Exclusion", "at most one caller at a time works under a name", exclusion},
	{"Tokens", "each lease bears its name, the time of its grant and a token greater than every earlier one of the name", tokens},
	{"Order", "waiters are served in the order in which they came", order},
	{"Give up waiting", "a context that ends while Hold waits ends the wait with its cause and leaves nothing in the queue", giveUp},
	{"Ended context", "a context that has ended starts no work", endedContext},
	{"TryHold", "TryHold works under a free name and fails with ErrHeld at once under a held one", tryHold},
	{"Error of work", "Hold returns the error of its work, and is free again", workError},
	{"Context of work", "work's context is derived from Hold's, and the lock is held until work returns", workContext},
	{"Loss", "work's context is cancelled with cause ErrLost before another holder starts, and Hold returns ErrLost and work's error", loss},
	{"Loss unnoticed", "Hold returns ErrLost also if work returned nil after the loss", lossUnnoticed},
	{"Panic", "a panic in work goes through Hold and frees the lock", panics},
	{"Goexit", "runtime.Goexit in work frees the lock", goexit},
	{"Names", "names are independent of each other, also if one is the beginning of another", names},
	{"Bad names", "a name that CheckName refuses is refused before anything is touched", badNames},
}
