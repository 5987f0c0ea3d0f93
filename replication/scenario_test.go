package replication_test

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/scalr-go/scalr"
	"github.com/scalr-go/scalr/replication"
	"github.com/scalr-go/scalr/replication/memdb"
)

// seen gives the events of a kind, or all.
func (w *world) seen(kind scalr.Kind) (found []scalr.Event) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, e := range w.events {
		if e.Kind == kind || kind == "" {
			found = append(found, e)
		}
	}
	return found
}

// stays fails if the primary changes within the time.
func (w *world) stays(d time.Duration) replication.Topology {
	w.t.Helper()
	before, _ := w.manager().Topology()
	for end := time.Now().Add(d); time.Now().Before(end); {
		top, changed := w.manager().Topology()
		require.Equal(w.t, before.Primary, top.Primary)
		select {
		case <-changed:
		case <-time.After(time.Until(end)):
		}
	}
	top, _ := w.manager().Topology()
	return top
}

// stoppable gives every member a provider that stops its machine, after a while, or fails to.
func (w *world) stoppable(d time.Duration, err error) {
	w.stopper = func(addr string) func(context.Context) error {
		return func(ctx context.Context) error {
			select {
			case <-time.After(d):
			case <-ctx.Done():
				return ctx.Err()
			}
			if err == nil {
				w.db.Crash(addr)
			}
			return err
		}
	}
	for i := range w.members {
		w.members[i].Fence = w.stopper(w.members[i].Addr)
	}
}

func TestHung(t *testing.T) {
	policies(t, func(t *testing.T, c replication.Config) {
		bubble(t, 3, c, func(t *testing.T, w *world) {
			w.stoppable(300*time.Millisecond, nil)
			w.start()
			w.whole()
			w.write("db-1", "x")
			time.Sleep(100 * time.Millisecond)
			w.db.Hang(addr(1))
			begin := time.Now()
			top := w.primary("db-1")
			t.Log("primary after", time.Since(begin))
			require.Less(t, time.Since(begin), 3*time.Second)
			require.Contains(t, w.rows(top.Primary), "x")
			require.ErrorIs(t, w.db.Write(w.ctx, addr(1), "y", ""), replication.ErrRefused, "its machine was not stopped")
			w.db.Start(addr(1))
			w.settled()
		})
	})
}

// The primary's disk is full: it answers and its replicas hear it, but it commits nothing.
func TestStalled(t *testing.T) {
	policies(t, func(t *testing.T, c replication.Config) {
		bubble(t, 3, c, func(t *testing.T, w *world) {
			w.stoppable(300*time.Millisecond, nil)
			w.start()
			w.whole()
			w.write("db-1", "x")
			time.Sleep(100 * time.Millisecond)
			w.db.Stall(addr(1))
			begin := time.Now()
			top := w.primary("db-1")
			t.Log("primary after", time.Since(begin))
			require.Less(t, time.Since(begin), 2*time.Second)
			require.Contains(t, top.Verdict.Reason, "its machine has been stopped")
			require.Contains(t, w.rows(top.Primary), "x")
			require.ErrorIs(t, w.db.Write(w.ctx, addr(1), "y", ""), replication.ErrRefused, "its machine was not stopped")
			w.db.Start(addr(1))
			w.settled()
		})
	})
}

// A Manager that begins when the disk is full already waits for nobody: the primary is there and says so, and so are all others,
// however short the time is that they have been there. That no more is known of the one that it has then stopped itself is no
// reason to wait either.
func TestStalledBeforeTheManagerBegins(t *testing.T) {
	for _, age := range []time.Duration{time.Second, 10 * time.Second} {
		policies(t, func(t *testing.T, c replication.Config) {
			bubble(t, 3, c, func(t *testing.T, w *world) {
				w.stoppable(300*time.Millisecond, nil)
				w.start()
				w.whole()
				w.write("db-1", "x")
				time.Sleep(age)
				w.stop()
				w.db.Stall(addr(1))
				begin := time.Now()
				w.start()
				top := w.primary("db-1")
				require.Less(t, time.Since(begin), 2*time.Second, "%v", w.seen(""))
				require.Contains(t, w.rows(top.Primary), "x")
				w.db.Start(addr(1))
				w.settled()
			})
		})
	}
}

// A replica whose disk is full says what it has, but cannot be promoted: another one is.
func TestStalledReplicaIsNoHeir(t *testing.T) {
	policies(t, func(t *testing.T, c replication.Config) {
		bubble(t, 3, c, func(t *testing.T, w *world) {
			w.start()
			w.whole()
			w.write("db-1", "x")
			time.Sleep(100 * time.Millisecond)
			w.db.Stall(addr(2))
			w.stays(3 * time.Second)
			w.db.Crash(addr(1))
			require.Equal(t, "db-3", w.primary("db-1").Primary)
		})
	})
}

// A replica that applies with a delay is promoted last, follows the new primary with its delay, and is promoted at once if it
// is the only one left.
func TestDelayedReplica(t *testing.T) {
	policies(t, func(t *testing.T, c replication.Config) {
		bubble(t, 3, c, func(t *testing.T, w *world) {
			w.start()
			w.whole()
			w.db.Delay(addr(2), time.Hour)
			w.write("db-1", "x")
			time.Sleep(time.Second)
			w.db.Crash(addr(1))
			require.Equal(t, "db-3", w.primary("db-1").Primary)
			w.db.Start(addr(1))
			w.write("db-3", "y")
			time.Sleep(time.Minute)
			st, err := w.db.Observe(w.ctx, w.members[1])
			require.NoError(t, err)
			require.Equal(t, addr(3), st.Source)
			require.Equal(t, time.Hour, st.Delay)
			require.NotContains(t, w.rows("db-2"), "x")
			w.db.Crash(addr(1))
			w.db.Crash(addr(3))
			if c.Policy == replication.Durability { // one that is gone may have more
				time.Sleep(time.Minute)
				top, _ := w.manager().Topology()
				require.Empty(t, top.Primary)
				return
			}
			require.Equal(t, "db-2", w.primary("db-3").Primary)
			require.Subset(t, w.rows("db-2"), []string{"x", "y"})
		})
	})
}

// Of members with the same data, one whose software is older is promoted: those that are newer can follow it.
func TestOlderSoftwareIsPromoted(t *testing.T) {
	policies(t, func(t *testing.T, c replication.Config) {
		bubble(t, 3, c, func(t *testing.T, w *world) {
			w.db.Upgrade(addr(1), "10.11.6-MariaDB")
			w.db.Upgrade(addr(2), "11.4.2-MariaDB")
			w.db.Upgrade(addr(3), "10.11.9-MariaDB")
			w.start()
			w.whole()
			w.write("db-1", "x")
			time.Sleep(time.Second)
			w.db.Crash(addr(1))
			require.Equal(t, "db-3", w.primary("db-1").Primary)
		})
	})
}

// A replica whose server dies whenever it is told to follow is seeded anew.
func TestReplicaThatDiesOfFollowing(t *testing.T) {
	policies(t, func(t *testing.T, c replication.Config) {
		bubble(t, 3, c, func(t *testing.T, w *world) {
			var sick atomic.Bool
			w.hook = func(_ context.Context, call memdb.Call) error {
				switch {
				case call.Addr != addr(2) || !sick.Load() || call.Done:
				case call.Op == "Follow":
					w.db.Crash(addr(2))
				case call.Op == "Seed":
					sick.Store(false)
				}
				return nil
			}
			w.start()
			w.whole()
			w.write("db-1", "x")
			sick.Store(true)
			w.db.Crash(addr(2))
			require.NoError(t, w.manager().Switchover(w.ctx, "db-3"))
			for range 100 {
				w.db.Start(addr(2))
				time.Sleep(5 * time.Second)
			}
			require.False(t, sick.Load(), "it was not seeded")
			w.settled()
		})
	})
}

// The provider says that the primary's machine is gone for good: there is nothing to wait for.
func TestMachineEnded(t *testing.T) {
	policies(t, func(t *testing.T, c replication.Config) {
		bubble(t, 3, c, func(t *testing.T, w *world) {
			w.stoppable(time.Hour, nil)
			w.start()
			w.whole()
			w.write("db-1", "x")
			time.Sleep(time.Second)
			w.db.Remove(addr(1))
			w.manager().MachineEnded("i-1")
			begin := time.Now()
			top := w.primary("db-1")
			t.Log("primary after", time.Since(begin))
			require.Less(t, time.Since(begin), time.Second)
			require.Contains(t, w.rows(top.Primary), "x")
		})
	})
}

// Without means to stop the machine, Availability goes on and fences the old primary when it wakes; Durability waits.
func TestHungUnfenced(t *testing.T) {
	for name, fence := range map[string]error{"NoFence": nil, "FenceFails": errors.New("quota")} {
		t.Run(name, func(t *testing.T) {
			policies(t, func(t *testing.T, c replication.Config) {
				bubble(t, 3, c, func(t *testing.T, w *world) {
					if fence != nil {
						w.stoppable(time.Second, fence)
					}
					w.start()
					w.whole()
					w.write("db-1", "x")
					w.db.Hang(addr(1))
					if c.Policy == replication.Durability {
						time.Sleep(time.Minute)
						top, _ := w.manager().Topology()
						require.Empty(t, top.Primary)
						require.Contains(t, fmt.Sprint(top.Held), "Config.Unfenced says to wait")
						w.db.Resume(addr(1))
						require.Equal(t, "db-1", w.settled().Primary)
						return
					}
					top := w.primary("db-1")
					w.write(top.Primary, "y")
					w.db.Resume(addr(1))
					w.settled()
					require.ErrorIs(t, w.db.Write(w.ctx, addr(1), "z", ""), memdb.ErrReadOnly)
				})
			})
		})
	}
}

// The Manager's own network is cut: the replicas still hear the primary.
func TestManagerPartitioned(t *testing.T) {
	policies(t, func(t *testing.T, c replication.Config) {
		bubble(t, 3, c, func(t *testing.T, w *world) {
			w.stoppable(0, nil)
			w.start()
			w.whole()
			w.db.Cut(memdb.Manager, addr(1))
			top := w.stays(time.Minute)
			require.Equal(t, "db-1", top.Primary)
			require.Contains(t, fmt.Sprint(top.Held), "network that is in doubt")
			w.write("db-1", "x")
			for i := range 3 {
				w.db.Cut(memdb.Manager, addr(i+1))
			}
			w.stays(time.Minute)
			w.write("db-1", "y")
			for i := range 3 {
				w.db.Heal(memdb.Manager, addr(i+1))
			}
			require.EqualValues(t, 1, w.settled().Epoch)
		})
	})
}

// The Manager and one replica are on the one side, the primary and the other replica on the other one.
func TestMinority(t *testing.T) {
	bubble(t, 3, replication.Config{}, func(t *testing.T, w *world) {
		w.start()
		w.whole()
		for _, far := range []string{addr(1), addr(2)} {
			w.db.Cut(memdb.Manager, far)
			w.db.Cut(addr(3), far)
		}
		time.Sleep(time.Minute)
		top, _ := w.manager().Topology()
		require.Empty(t, top.Primary, "%+v", top)
		require.Contains(t, fmt.Sprint(top.Held), "only a minority")
		for _, far := range []string{addr(1), addr(2)} {
			w.db.Heal(memdb.Manager, far)
			w.db.Heal(addr(3), far)
		}
		require.Equal(t, "db-1", w.settled().Primary)
	})
}

// A replica hangs together with the primary's death, or has hung before: it delays the choice by its time-outs at most.
func TestHungReplica(t *testing.T) {
	for _, before := range []time.Duration{0, 10 * time.Second} {
		bubble(t, 4, replication.Config{}, func(t *testing.T, w *world) {
			w.start()
			w.whole()
			w.db.Hang(addr(2))
			time.Sleep(before)
			w.db.Crash(addr(1))
			begin := time.Now()
			top := w.primary("db-1")
			t.Log("primary after", time.Since(begin))
			require.Equal(t, "db-3", top.Primary)
			if before > 0 {
				require.Less(t, time.Since(begin), 500*time.Millisecond)
			}
			w.db.Resume(addr(2))
			w.db.Start(addr(1))
			w.settled()
		})
	}
}

// A replica that lags, with acknowledged transactions in its relay log, is promoted after it has applied them.
func TestMostAdvancedIsDrained(t *testing.T) {
	policies(t, func(t *testing.T, c replication.Config) {
		bubble(t, 3, c, func(t *testing.T, w *world) {
			w.start()
			w.whole()
			w.write("db-1", "before")
			time.Sleep(100 * time.Millisecond)
			w.db.Cut(addr(1), addr(2)) // db-2 gets nothing any more
			for i := range 5 {
				w.write("db-1", fmt.Sprint(i))
			}
			time.Sleep(100 * time.Millisecond)
			w.db.Crash(addr(1))
			w.db.Heal(addr(1), addr(2))
			top := w.primary("db-1")
			require.Equal(t, "db-3", top.Primary)
			require.Len(t, w.rows("db-3"), 6)
			w.db.Start(addr(1))
			top = w.settled()
			if c.Policy == replication.Durability {
				require.Equal(t, replication.LossNone, top.Verdict.Loss)
			} else {
				require.Equal(t, replication.LossExact, top.Verdict.Loss)
				require.Zero(t, top.Verdict.Lost)
			}
		})
	})
}

// What the dead primary alone had is counted when it comes back, before it is seeded anew.
func TestSurplusIsCounted(t *testing.T) {
	bubble(t, 3, replication.Config{}, func(t *testing.T, w *world) {
		w.start()
		w.whole()
		w.write("db-1", "kept")
		time.Sleep(100 * time.Millisecond)
		w.db.Cut(addr(1), addr(2))
		w.db.Cut(addr(1), addr(3))
		cut := time.Now()
		for i := range 7 {
			w.write("db-1", fmt.Sprint("lost", i))
		}
		time.Sleep(time.Second)
		w.db.Crash(addr(1))
		top := w.primary("db-1")
		require.WithinRange(t, top.Verdict.Until, cut.Add(-250*time.Millisecond), cut.Add(time.Millisecond))
		require.Contains(t, top.Verdict.String(), "at least 7 transactions are missing, none that was acknowledged until 00:00:0")
		require.Equal(t, replication.LossAtLeast, top.Verdict.Loss)
		require.EqualValues(t, 7, top.Verdict.Lost)
		w.db.Heal(addr(1), addr(2))
		w.db.Heal(addr(1), addr(3))
		time.Sleep(time.Second)
		w.db.Start(addr(1))
		top = w.settled()
		require.Equal(t, replication.LossExact, top.Verdict.Loss)
		require.EqualValues(t, 7, top.Verdict.Lost)
		require.Len(t, w.rows(top.Primary), 1)
		require.Len(t, w.seen(replication.KindSurplus), 1)
		require.Len(t, w.seen(replication.KindVerdict), 2)
	})
}

// twins makes one member give the identity of another one.
type twins struct {
	replication.Engine
	one, other string
}

func (e twins) Observe(ctx context.Context, m replication.Member) (replication.Status, error) {
	st, err := e.Engine.Observe(ctx, m)
	if m.Addr == e.one && err == nil {
		o, _ := e.Engine.Observe(ctx, replication.Member{Addr: e.other})
		st.Server = o.Server
	}
	return st, err
}

// unwilling makes a method fail on one member.
type unwilling struct {
	replication.Engine
	op, addr string
}

func (e unwilling) Drain(ctx context.Context, m replication.Member) (replication.Position, error) {
	if e.op == "Drain" && m.Addr == e.addr {
		return "", errors.New("duplicate key")
	}
	return e.Engine.Drain(ctx, m)
}

func (e unwilling) Fence(ctx context.Context, m replication.Member) error {
	if e.op == "Fence" && m.Addr == e.addr {
		return errors.New("out of memory")
	}
	return e.Engine.Fence(ctx, m)
}
