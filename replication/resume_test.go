package replication_test

import (
	"context"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/scalr-go/scalr/replication"
	"github.com/scalr-go/scalr/replication/memdb"
)

// situation is something that a Manager has to deal with, and how it shall end.
type situation struct {
	name  string
	keeps bool           // what the primary lacks is saved and taken back
	loses bool           // the primary is lost, and has one transaction that none else has
	begin func(w *world) // from a whole set with some rows
	end   func(w *world, t replication.Topology) bool
}

var situations = []situation{
	{"Beginning", false, false, nil, func(w *world, t replication.Topology) bool { return whole(t) }},
	{"Killed", false, false, func(w *world) { w.db.Crash(addr(1)) }, func(w *world, t replication.Topology) bool {
		return t.Primary != "" && t.Primary != "db-1" && serving(t) == 2
	}},
	{"KilledAndBack", false, false, func(w *world) {
		w.db.Crash(addr(1))
		time.Sleep(500 * time.Millisecond)
		time.AfterFunc(time.Second, func() { w.db.Start(addr(1)) })
	}, func(w *world, t replication.Topology) bool { return whole(t) }},
	{"Hung", false, false, func(w *world) { w.db.Hang(addr(1)) }, func(w *world, t replication.Topology) bool {
		return t.Primary != "" && t.Primary != "db-1" && serving(t) == 2
	}},
	{"Surplus", false, true, surplus, func(w *world, t replication.Topology) bool { return whole(t) }},
	{"SurplusSaved", true, true, surplus, func(w *world, t replication.Topology) bool { return whole(t) }},
	{"Replaced", false, false, func(w *world) { // a replica's machine, by an empty one
		w.db.Remove(addr(2))
		w.db.Start(addr(9))
		w.members[1].Addr, w.members[1].Machine = addr(9), "i-9"
		w.manager().SetMembers(w.members, 3)
	}, func(w *world, t replication.Topology) bool { return whole(t) }},
	{"Switchover", false, false, func(w *world) {
		m := w.manager()
		go m.Switchover(w.ctx, "db-2")
	}, func(w *world, t replication.Topology) bool { return whole(t) }},
}

// surplus lets the primary die and come back with transactions of its own.
func surplus(w *world) {
	w.db.Hang(addr(1))
	w.db.Crash(addr(1))
	w.db.Inject(addr(1), "surplus", "1")
	time.Sleep(500 * time.Millisecond)
	time.AfterFunc(time.Second, func() { w.db.Start(addr(1)) })
}

func serving(t replication.Topology) (n int) {
	for _, x := range t.Members {
		if x.Serves {
			n++
		}
	}
	return n
}

// A Manager that is killed at any call, before or after it has had its effect, is followed by one that finishes the work:
// by the facts alone, at once, and with nothing lost under Durability. However many Managers have been at it, the recovery ends in
// a verdict, and that is right.
func TestKilledAtEveryCall(t *testing.T) {
	for _, s := range situations {
		t.Run(s.name, func(t *testing.T) {
			policies(t, func(t *testing.T, c replication.Config) {
				var longest time.Duration
				calls := 0
				c.Patience = 3 * time.Second
				if s.keeps {
					c.Salvage = t.TempDir()
				}
				for k := 1; ; k++ {
					took, reached := resume(t, s, c, k)
					longest = max(longest, took)
					if calls = k; !reached {
						break
					}
				}
				t.Logf("killed at each of %d calls; it took %v at most", calls-1, longest)
			})
		})
	}
}

// resume plays a situation and kills the Manager at its call k.
func resume(t *testing.T, s situation, c replication.Config, k int) (took time.Duration, reached bool) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 3, slow, c)
		w.stoppable(100*time.Millisecond, nil)
		var calls atomic.Int64
		var armed, done atomic.Bool
		check := w.guard(func(string) bool { return false })
		w.hook = func(ctx context.Context, call memdb.Call) error {
			check(call)
			if armed.Load() && call.Op != "Observe" && calls.Add(1) == int64(k) {
				done.Store(true)
				w.kill()
				return context.Canceled
			}
			return nil
		}
		if s.begin == nil {
			armed.Store(true)
		}
		w.start()
		w.whole()
		if s.begin != nil {
			for i := range 10 {
				w.write("db-1", fmt.Sprint(i))
			}
			time.Sleep(c.Patience) // a set that has just started might not be all there yet
			w.whole()
			armed.Store(true)
			s.begin(w)
		}
		begin := time.Now()
		time.Sleep(50 * time.Millisecond) // so that what has begun is seen
		for !func() bool { t, _ := w.manager().Topology(); return s.end(w, t) }() {
			if time.Since(begin) > time.Minute {
				require.FailNow(t, "it has not come to its end", "killed at call %d\n%s", k, w.story())
			}
			time.Sleep(10 * time.Millisecond)
		}
		took = time.Since(begin)
		armed.Store(false)
		reached = done.Load()
		top, _ := w.manager().Topology()
		require.Empty(t, w.broken)
		if s.begin != nil {
			for i := range 10 {
				require.Contains(t, w.rows(top.Primary), fmt.Sprint(i), "killed at call %d", k)
			}
		}
		w.write(top.Primary, "afterwards")
		w.db.Start(addr(1))
		w.settled()
		w.judged(s, c, k)
		w.stop()
	})
	return took, reached
}

// judged fails unless every recovery has been told the verdict of, and the latest Manager knows the last one, which is right.
func (w *world) judged(s situation, c replication.Config, k int) {
	w.t.Helper()
	top, _ := w.manager().Topology()
	promoting, from := "", 0
	told := map[string]bool{}
	for _, e := range w.seen("") {
		switch {
		case e.Kind == replication.KindVerdict:
			told[e.Subject] = true
		case e.Kind == replication.KindStep && strings.HasPrefix(e.Message, "promote ") && !strings.Contains(e.Message, "as planned") &&
			!strings.Contains(e.Message, "the set is new") && !strings.Contains(e.Message, "was broken off"):
			promoting = e.Subject
		case e.Kind == replication.KindPrimary && e.Subject != "" && e.Subject == promoting:
			promoting, from = "", from+1
			require.NotNil(w.t, top.Verdict, "killed at call %d\n%s", k, w.story())
			defer func() {
				require.True(w.t, told[e.Subject], "killed at call %d: no verdict on %s\n%s", k, e.Subject, w.story())
			}()
		}
	}
	if s.loses {
		require.NotZero(w.t, from)
	}
	if s.loses && c.Policy == replication.Availability {
		require.Equal(w.t, replication.LossExact, top.Verdict.Loss, "killed at call %d: %v\n%s", k, top.Verdict, w.story())
		require.EqualValues(w.t, 1, top.Verdict.Lost, "killed at call %d: %v\n%s", k, top.Verdict, w.story())
		require.Equal(w.t, s.keeps, top.Verdict.Saved != "", "killed at call %d: %v\n%s", k, top.Verdict, w.story())
	}
}
