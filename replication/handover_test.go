package replication_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/scalr-go/scalr/replication"
	"github.com/scalr-go/scalr/replication/memdb"
)

// What the old primary wrote last is still on its way when it is fenced: the switchover looks for it more often than
// members are looked at otherwise, since nobody can write meanwhile.
func TestSwitchoverDoesNotWaitForTheInterval(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const interval = 4 * time.Second
		w := newWorld(t, 3, memdb.Options{Latency: time.Millisecond, Delay: interval / 8, Apply: time.Millisecond}, replication.Config{Interval: interval})
		w.start()
		w.whole()
		w.write("db-1", "last")
		began := time.Now()
		require.NoError(t, w.manager().Switchover(w.ctx, "db-2"))
		require.Less(t, time.Since(began), interval/2)
		require.Contains(t, w.rows("db-2"), "last")
		w.stop()
	})
}

// A replica for reports is promoted where it alone has what was written, and hands over when somebody else has it too.
func TestPrimaryThatIsToBeNone(t *testing.T) {
	policies(t, func(t *testing.T, c replication.Config) {
		bubble(t, 3, c, func(t *testing.T, w *world) {
			w.members[2].Prefer = -1
			w.start()
			w.whole()
			w.write("db-1", "w")
			time.Sleep(time.Second)
			w.db.Cut(addr(1), addr(2))
			w.write("db-1", "x")
			time.Sleep(300 * time.Millisecond) // it is seen
			plan := fmt.Sprint(w.manager().PlanLoss(""))
			require.Regexp(t, `(?s)promote db-3.*fence db-3: db-2 can take over from it.*promote db-2`, plan)
			require.Equal(t, 1, strings.Count(plan, "fence db-3"), "%s", plan)
			w.db.Crash(addr(1))
			w.until("db-2 is the primary", time.Minute, func(top replication.Topology) bool { return top.Primary == "db-2" })
			require.Contains(t, w.rows("db-2"), "x")
			w.write("db-2", "y")
			w.db.Heal(addr(1), addr(2))
			w.db.Start(addr(1))
			w.whole()
			top := w.stays(time.Minute)
			require.Equal(t, "db-2", top.Primary)
			require.Equal(t, "db-3", top.Verdict.To, "the switchover is no recovery")

			require.ErrorContains(t, w.manager().Switchover(w.ctx, "db-3"), "db-3 is to be the primary only while nobody else can: its Prefer is -1")
			w.db.Crash(addr(1))
			require.Equal(t, "db-2", w.stays(time.Second).Primary)
		})
	})
}

// Two pools, and the one with the primary disappears with its provider: the other takes over, where the host program lets it go
// on without having stopped the old primary, and what comes back follows. Under Durability it does not where two members that
// are gone may have acknowledged something between them.
func TestPoolDisappears(t *testing.T) {
	policies(t, func(t *testing.T, c replication.Config) {
		c.Unfenced = replication.UnfencedGoOn
		for _, n := range []int{2, 4} {
			bubble(t, n, c, func(t *testing.T, w *world) {
				east := func(i int) bool { return i <= n/2 }
				for i := range w.members {
					w.members[i].Pool = map[bool]string{true: "east", false: "west"}[east(i+1)]
				}
				w.stoppable(time.Second, errors.New("the provider of east does not answer"))
				w.start()
				w.whole()
				w.write("db-1", "x")
				time.Sleep(time.Second)
				cut := func(do func(a, b string)) {
					for i := 1; east(i); i++ {
						do(memdb.Manager, addr(i))
						for j := n; !east(j); j-- {
							do(addr(i), addr(j))
						}
					}
				}
				cut(w.db.Cut)
				if c.Policy == replication.Durability && n > 2 {
					w.until("it is said why nothing is done", time.Minute, func(t replication.Topology) bool {
						return strings.Contains(fmt.Sprint(t.Held), "db-2 cannot be seen and may be the only one that has some acknowledged transaction")
					})
					require.Empty(t, w.stays(time.Minute).Primary)
					cut(w.db.Heal)
					w.settled()
					w.write("db-1", "y")
					return
				}
				top := w.primary("db-1")
				require.Equal(t, "west", w.members[top.Primary[3]-'1'].Pool)
				require.Contains(t, w.rows(top.Primary), "x")
				time.Sleep(time.Minute)
				if c.Policy == replication.Availability {
					w.write(top.Primary, "y")
				}
				cut(w.db.Heal)
				w.settled()
				require.Equal(t, top.Primary, w.stays(time.Second).Primary)
				for _, m := range w.members {
					require.Contains(t, w.rows(m.ID), "x")
				}
			})
		}
	})
}

// A switchover tells applications to begin nothing more, lets open transactions end, and cuts off those that do not. Nothing of the
// kind holds up a fence that is not planned.
func TestSwitchoverLetsTransactionsEnd(t *testing.T) {
	bubble(t, 3, replication.Config{Policy: replication.Durability, Unfenced: replication.UnfencedGoOn}, func(t *testing.T, w *world) {
		e := &busy{Engine: w.config.Engine}
		e.asked = func() {
			top, _ := w.manager().Topology()
			require.Empty(t, top.Primary, "applications have not been told")
			require.NoError(t, w.db.Write(w.ctx, addr(1), fmt.Sprint("open", e.times), "x"), "it is fenced already")
		}
		w.config.Engine = e
		w.start()
		w.whole()
		began := time.Now()
		require.NoError(t, w.manager().Switchover(w.ctx, "db-2"))
		require.Equal(t, 1, e.times)
		require.Contains(t, w.rows("db-2"), "open1")
		require.GreaterOrEqual(t, time.Since(began), 50*time.Millisecond)
		require.Less(t, time.Since(began), time.Second, "it is bounded")
		w.whole()
		w.db.Hang(addr(2))
		w.primary("db-2")
		w.db.Resume(addr(2)) // and is fenced as a stray
		w.settled()
		require.Equal(t, 1, e.times)
	})
}

// busy has a transaction open on each member that does not end.
type busy struct {
	replication.Engine
	asked func()
	times int
}

func (e *busy) Quiesce(ctx context.Context, _ replication.Member) error {
	e.times++
	e.asked()
	<-ctx.Done()
	return ctx.Err()
}

// A switchover that is left to the Manager goes to who is best to follow, and leaves the others as they are.
func TestSwitchoverToTheOneThatIsBestToFollow(t *testing.T) {
	for name, set := range map[string]func(w *world){
		"by version": func(w *world) {
			w.db.Upgrade(addr(1), "10.11.6-MariaDB")
			w.db.Upgrade(addr(2), "11.4.2-MariaDB")
			w.db.Upgrade(addr(3), "10.11.9-MariaDB")
		},
		"by delay": func(w *world) { w.db.Delay(addr(2), 5*time.Second) },
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, 3, replication.Config{}, func(t *testing.T, w *world) {
				w.start()
				w.whole()
				set(w)
				w.write("db-1", "x")
				time.Sleep(8 * time.Second)
				before, err := w.db.Observe(w.ctx, w.members[1])
				require.NoError(t, err)
				require.NoError(t, w.manager().Switchover(w.ctx, ""))
				top, _ := w.manager().Topology()
				require.Equal(t, "db-3", top.Primary)
				time.Sleep(time.Minute)
				after, err := w.db.Observe(w.ctx, w.members[1])
				require.NoError(t, err)
				require.Equal(t, before.Delay, after.Delay)
			})
		})
	}
}
