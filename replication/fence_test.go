package replication_test

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/scalr-go/scalr/replication"
	"github.com/scalr-go/scalr/replication/memdb"
)

// leaky is an engine whose Fence says that an account may write all the same, until that is closed. As on a real server, the
// member is read-only for a moment before it can say so.
type leaky struct {
	*memdb.Cluster
	closed *atomic.Bool
}

func (e leaky) Fence(ctx context.Context, m replication.Member) error {
	if err := e.Cluster.Fence(ctx, m); err != nil || e.closed.Load() {
		return err
	}
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(100 * time.Millisecond):
	}
	return fmt.Errorf("%w: it is read-only, but 'boss' may write all the same", replication.ErrUnsafe)
}

// Where an account writes through a fence, a switchover is given up, also to a member that is preferred.
func TestSwitchoverWhoseFenceDoesNotHold(t *testing.T) {
	policies(t, func(t *testing.T, c replication.Config) {
		bubble(t, 3, c, func(t *testing.T, w *world) {
			var closed atomic.Bool
			w.config.Engine = leaky{w.db, &closed}
			w.start()
			w.whole()
			w.write("db-1", "x")
			w.settled()
			w.members[1].Prefer = 1
			w.manager().SetMembers(w.members, 3)
			require.ErrorContains(t, w.manager().Switchover(w.ctx, "db-2"), "db-1 stays the primary: refused as unsafe: it is read-only, but 'boss'")
			require.Equal(t, "db-1", w.settled().Primary)
			w.write("db-1", "y")
			closed.Store(true)
			require.NoError(t, w.manager().Switchover(w.ctx, "db-2"))
			require.Equal(t, "db-2", w.settled().Primary)
		})
	})
}

// An old primary that wakes and that an account writes to, though it is read-only, is stopped through its provider.
func TestOldPrimaryWhoseFenceDoesNotHold(t *testing.T) {
	bubble(t, 3, replication.Config{}, func(t *testing.T, w *world) {
		var closed, works atomic.Bool
		stopped := make(chan struct{}, 1)
		w.config.Engine = leaky{w.db, &closed}
		w.members[0].Fence = func(context.Context) error {
			if !works.Load() {
				return errors.New("quota")
			}
			w.db.Crash(addr(1))
			stopped <- struct{}{}
			return nil
		}
		w.start()
		w.whole()
		w.write("db-1", "x")
		time.Sleep(time.Second)
		w.db.Hang(addr(1))
		top := w.primary("db-1")
		w.db.Resume(addr(1))
		time.Sleep(time.Second)
		require.True(t, w.step("stop-machine db-1: refused as unsafe"))
		require.False(t, w.step("follow db-1"))
		works.Store(true)
		w.await("it is stopped", stopped)
		time.Sleep(time.Second)
		w.db.Start(addr(1))
		require.Equal(t, top.Primary, w.settled().Primary)
	})
}

// If it can be the primary no more either, its machine is stopped before there is another one, or the policy decides.
func TestPrimaryWhoseFenceDoesNotHoldCannotStay(t *testing.T) {
	for _, stoppable := range []bool{false, true} {
		policies(t, func(t *testing.T, c replication.Config) {
			bubble(t, 3, c, func(t *testing.T, w *world) {
				var closed atomic.Bool
				w.config.Engine = leaky{w.db, &closed}
				if stoppable {
					w.members[0].Fence = func(context.Context) error { w.db.Crash(addr(1)); return nil }
				}
				w.start()
				w.whole()
				w.write("db-1", "x")
				w.settled()
				w.hook = func(_ context.Context, c memdb.Call) error {
					if c.Op == "Promote" && c.Addr == addr(1) {
						return errors.New("a table is broken")
					}
					return nil
				}
				require.Error(t, w.manager().Switchover(w.ctx, "db-2"))
				if !stoppable && c.Policy == replication.Durability {
					time.Sleep(time.Minute)
					top, _ := w.manager().Topology()
					require.Empty(t, top.Primary)
					require.Contains(t, fmt.Sprint(top.Held), "db-1 takes some writes all the same, and cannot be stopped, and Config.Unfenced says to wait")
					return
				}
				require.Equal(t, "db-2", w.primary("db-1").Primary)
				require.Equal(t, stoppable, w.step("stop-machine db-1: refused as unsafe"))
			})
		})
	}
}

// step reports whether a step was begun whose text begins so.
func (w *world) step(text string) bool {
	for _, e := range w.seen(replication.KindStep) {
		if len(e.Message) >= len(text) && e.Message[:len(text)] == text {
			return true
		}
	}
	return false
}

// A Manager begins while it cannot reach a replica that goes on acknowledging what the primary writes: what that one may have
// alone is not given up.
func TestFollowerThatWasNeverSeen(t *testing.T) {
	c := replication.Config{Policy: replication.Durability}
	bubble(t, 3, c, func(t *testing.T, w *world) {
		w.start()
		w.whole()
		w.write("db-1", "before")
		w.settled()
		w.stop()
		w.db.Cut(memdb.Manager, addr(3))
		w.start()
		w.until("db-1 is known", time.Minute, func(t replication.Topology) bool { return t.Primary == "db-1" })
		time.Sleep(time.Second)
		w.db.Cut(addr(1), addr(2))
		w.write("db-1", "x") // db-3 acknowledges it
		w.db.Crash(addr(1))
		time.Sleep(20 * time.Second)
		top, _ := w.manager().Topology()
		require.Empty(t, top.Primary)
		require.Contains(t, fmt.Sprint(top.Held), "db-3 cannot be seen and may be the only one that has some acknowledged transaction")
		w.db.Heal(memdb.Manager, addr(3))
		top = w.primary("db-1")
		require.Equal(t, "db-3", top.Primary)
		require.Contains(t, w.rows("db-3"), "x")
	})
}

// One that was dead when the Manager began, and refuses connections ever since, holds nothing up.
func TestFollowerThatWasNeverThere(t *testing.T) {
	c := replication.Config{Policy: replication.Durability}
	bubble(t, 3, c, func(t *testing.T, w *world) {
		w.start()
		w.whole()
		w.write("db-1", "before")
		w.settled()
		w.stop()
		w.db.Crash(addr(3))
		w.start()
		w.until("db-1 is known", time.Minute, func(t replication.Topology) bool { return t.Primary == "db-1" })
		time.Sleep(time.Second)
		w.write("db-1", "x")
		w.db.Crash(addr(1))
		require.Equal(t, "db-2", w.primary("db-1").Primary)
		require.Contains(t, w.rows("db-2"), "x")
	})
}

// A replica that is being told to follow whoever is promoted is not interrupted when that one shows itself as the primary before
// its promotion has been answered.
func TestFollowOutlivesThePromotion(t *testing.T) {
	c := replication.Config{Policy: replication.Durability}
	bubble(t, 3, c, func(t *testing.T, w *world) {
		w.start()
		w.whole()
		w.write("db-1", "x")
		w.settled()
		var armed atomic.Bool
		var cut atomic.Int64
		w.hook = func(ctx context.Context, c memdb.Call) error {
			switch {
			case !armed.Load():
			case c.Op == "Promote" && c.Done:
				time.Sleep(30 * time.Millisecond)
			case c.Op == "Follow" && !c.Done && c.Addr == addr(3):
				select {
				case <-time.After(60 * time.Millisecond):
				case <-ctx.Done():
					cut.Add(1)
					return ctx.Err()
				}
			}
			return nil
		}
		for i := range 40 { // at many phases of the looks
			time.Sleep(time.Duration(i) * 7 * time.Millisecond)
			armed.Store(true)
			top, _ := w.manager().Topology()
			to := map[string]string{"db-1": "db-2", "db-2": "db-1"}[top.Primary]
			require.NoError(t, w.manager().Switchover(w.ctx, to))
			armed.Store(false)
			w.settled()
		}
		require.Zero(t, cut.Load())
	})
}
