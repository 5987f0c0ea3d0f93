package replication_test

import (
	"context"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/scalr-go/scalr/replication"
	"github.com/scalr-go/scalr/replication/memdb"
)

// A Manager's process stands still in the middle of a promotion. Another one, which has the lease meanwhile, promotes another
// member. When the first one wakes it changes nothing, and ends.
func TestOvertaken(t *testing.T) {
	policies(t, func(t *testing.T, c replication.Config) {
		c.StepTimeout = time.Hour
		bubble(t, 3, c, func(t *testing.T, w *world) {
			var armed atomic.Bool
			woken := make(chan func(), 1)
			w.hook = func(ctx context.Context, c memdb.Call) error {
				if c.Op == "Promote" && !c.Done && armed.CompareAndSwap(true, false) {
					woken <- w.standStill()
					<-w.running.Load().still
				}
				return nil
			}
			w.start()
			w.whole()
			w.write("db-1", "x")
			w.settled()
			armed.Store(true)
			w.db.Crash(addr(1))
			var wake func()
			select {
			case wake = <-woken:
			case <-time.After(time.Minute):
				require.FailNow(t, "waited in vain for a promotion", "plan:\n%v", w.manager().Plan())
			}
			first := w.running.Load()

			w.members[2].Prefer = 1
			w.start()
			require.Equal(t, "db-3", w.until("it recovers", time.Minute, func(t replication.Topology) bool { return t.Primary != "" }).Primary)
			w.write("db-3", "y")
			wake()
			time.Sleep(5 * time.Second)
			require.Equal(t, []string{addr(3)}, w.db.Writable())
			first.stop()
			require.ErrorIs(t, first.result, replication.ErrOvertaken)
			w.db.Start(addr(1))
			w.settled()
		})
	})
}

// The one that a Manager was about to promote when its process stood still lets itself not be claimed by the next Manager, until
// that one is about to promote another.
func TestUnclaimedUntilThePromotion(t *testing.T) {
	policies(t, func(t *testing.T, c replication.Config) {
		c.StepTimeout = time.Hour
		bubble(t, 3, c, func(t *testing.T, w *world) {
			var armed, stands, free atomic.Bool
			var wake atomic.Value
			check := w.guard(func(string) bool { return false })
			w.hook = func(ctx context.Context, c memdb.Call) error {
				check(c)
				second := stands.Load() && ctx.Value(runKey{}) == w.running.Load()
				switch {
				case c.Op == "Promote" && !c.Done && armed.CompareAndSwap(true, false):
					wake.Store(w.standStill())
					still := w.running.Load().still
					stands.Store(true)
					<-still
				case second && c.Op == "Claim" && c.Addr == addr(2) && !free.Load():
					return replication.ErrHung
				case second && c.Op == "Drain" && c.Addr == addr(3) && c.Done:
					free.Store(true)
				case second && c.Op == "Promote" && c.Addr == addr(3) && c.Done:
					wake.Load().(func())()
				}
				return nil
			}
			w.start()
			w.whole()
			w.write("db-1", "x")
			w.settled()
			armed.Store(true)
			w.db.Crash(addr(1))
			w.until("a Manager stands still", time.Minute, func(replication.Topology) bool { return stands.Load() })
			first := w.running.Load()
			w.members[2].Prefer = 1
			w.start()
			require.Equal(t, "db-3", w.until("it recovers", time.Minute, func(t replication.Topology) bool { return t.Primary != "" }).Primary)
			time.Sleep(5 * time.Second)
			first.stop()
			require.Empty(t, w.broken)
			require.Equal(t, []string{addr(3)}, w.db.Writable())
			require.ErrorIs(t, first.result, replication.ErrOvertaken)
			w.db.Start(addr(1))
			w.settled()
		})
	})
}

// A server of another set, which was named by mistake, is not claimed: its own set's Manager would be overtaken.
func TestForeignServerIsNotClaimed(t *testing.T) {
	policies(t, func(t *testing.T, c replication.Config) {
		bubble(t, 2, c, func(t *testing.T, w *world) {
			var theirs, ours atomic.Int64
			w.hook = func(_ context.Context, c memdb.Call) error {
				switch {
				case c.Op == "Claim" && c.Addr == addr(3):
					theirs.Add(1)
				case c.Op == "Claim" && c.Done && c.Addr == addr(2):
					ours.Add(1)
				}
				return nil
			}
			w.start()
			w.whole()
			w.write("db-1", "x")
			w.settled()
			w.stop()
			w.db.Start(addr(3))
			w.db.Inject(addr(3), "theirs", "1")
			w.members = append(w.members, replication.Member{ID: "db-3", Addr: addr(3), Machine: "i-3"})
			ours.Store(0)
			w.start()
			w.until("it is told", time.Minute, func(t replication.Topology) bool { return t.Members[2].Role == replication.RoleQuarantined })
			require.Empty(t, w.seen(replication.KindVerdict))
			w.db.Crash(addr(1))
			require.Equal(t, "db-2", w.primary("db-1").Primary)
			require.EqualValues(t, 1, ours.Load())
			require.Zero(t, theirs.Load())
		})
	})
}

// A replica whose disk is full lets itself not be claimed, and delays the others for a moment only.
func TestUnclaimed(t *testing.T) {
	policies(t, func(t *testing.T, c replication.Config) {
		bubble(t, 3, c, func(t *testing.T, w *world) {
			w.start()
			w.whole()
			w.write("db-1", "x")
			w.settled()
			w.stop()
			w.db.Stall(addr(3))
			w.start()
			w.until("db-1 is known", time.Minute, func(t replication.Topology) bool { return t.Primary == "db-1" })
			time.Sleep(time.Second)
			w.db.Crash(addr(1))
			require.Equal(t, "db-2", w.primary("db-1").Primary)
			w.db.Start(addr(1))
			w.db.Resume(addr(3))
			w.settled()
		})
	})
}
