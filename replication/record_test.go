package replication_test

import (
	"context"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/scalr-go/scalr/replication"
	"github.com/scalr-go/scalr/replication/memdb"
)

// What the old primary alone has is counted by a Manager that did not see the recovery, and stays there until the count is kept.
func TestCountedByTheNext(t *testing.T) {
	bubble(t, 3, replication.Config{}, func(t *testing.T, w *world) {
		w.start()
		w.whole()
		w.write("db-1", "x")
		w.settled()
		surplus(w)
		require.Equal(t, replication.LossAtLeast, w.primary("db-1").Verdict.Loss)
		w.stop()
		w.hook = func(ctx context.Context, c memdb.Call) error { // it keeps nothing
			if c.Op == "Record" && c.Addr == addr(2) {
				return fmt.Errorf("its disk: %w", replication.ErrHung)
			}
			return nil
		}
		w.start()
		top := w.until("the surplus is counted", time.Minute, func(t replication.Topology) bool {
			return t.Verdict != nil && t.Verdict.Loss == replication.LossExact
		})
		require.Equal(t, "db-2", top.Primary)
		require.EqualValues(t, 1, top.Verdict.Lost)
		time.Sleep(10 * time.Second)
		require.Contains(t, w.rows("db-1"), "surplus", "it has been taken away before the count was kept")

		w.stop()
		w.hook = nil
		w.start()
		top = w.settled()
		require.Equal(t, replication.LossExact, top.Verdict.Loss)
		require.EqualValues(t, 1, top.Verdict.Lost)
		require.NotContains(t, w.rows("db-1"), "surplus")

		w.stop()
		w.start()
		require.Equal(t, top.Verdict, w.settled().Verdict)
	})
}

// A recovery that another Manager has begun keeps its beginning, and what it is known to cost.
func TestBegunByAnother(t *testing.T) {
	bubble(t, 3, replication.Config{}, func(t *testing.T, w *world) {
		promoting := make(chan struct{})
		var armed atomic.Bool
		w.hook = func(ctx context.Context, c memdb.Call) error {
			if c.Op == "Promote" && armed.CompareAndSwap(true, false) {
				close(promoting)
				<-ctx.Done()
				return context.Cause(ctx)
			}
			return nil
		}
		w.start()
		w.whole()
		w.write("db-1", "x")
		w.settled()
		w.db.Cut(addr(1), addr(2))
		w.db.Cut(addr(1), addr(3))
		time.Sleep(10 * time.Millisecond)
		w.write("db-1", "y")
		time.Sleep(300 * time.Millisecond) // so that it is seen
		armed.Store(true)
		began := time.Now()
		w.db.Crash(addr(1))
		w.await("a member is promoted", promoting)
		w.stop()
		time.Sleep(10 * time.Second)
		w.start()
		v := w.primary("db-1").Verdict
		require.NotNil(t, v)
		require.EqualValues(t, 1, v.Lost)
		require.Equal(t, replication.LossAtLeast, v.Loss)
		require.Less(t, v.Began.Sub(began), time.Second)
		w.db.Start(addr(1))
		w.db.Heal(addr(1), addr(2))
		w.db.Heal(addr(1), addr(3))
		require.Equal(t, replication.LossExact, w.settled().Verdict.Loss)
	})
}

// An engine whose members keep nothing, for want of a privilege say, recovers all the same, and it is said.
func TestNothingKept(t *testing.T) {
	policies(t, func(t *testing.T, c replication.Config) {
		bubble(t, 3, c, func(t *testing.T, w *world) {
			w.hook = func(ctx context.Context, c memdb.Call) error {
				if c.Op == "Record" {
					return fmt.Errorf("INSERT: %w", replication.ErrAccess)
				}
				return nil
			}
			w.start()
			w.whole()
			w.write("db-1", "x")
			time.Sleep(time.Second)
			w.db.Crash(addr(1))
			require.NotNil(t, w.primary("db-1").Verdict)
			w.db.Start(addr(1))
			top := w.whole()
			require.Contains(t, fmt.Sprint(top.Held), "db-2 does not keep what the next Manager has to know of recoveries: INSERT: access denied")
		})
	})
}
