package replication_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/scalr-go/scalr"
	"github.com/scalr-go/scalr/replication"
	"github.com/scalr-go/scalr/replication/memdb"
)

func (w *world) seen(kind scalr.Kind) (found []scalr.Event) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, e := range w.events {
		if e.Kind == kind {
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

// Durability that is told to go on drains every replica first, so that the old primary can acknowledge nothing.
func TestDurabilityGoesOn(t *testing.T) {
	c := replication.Config{Policy: replication.Durability, Unfenced: replication.UnfencedGoOn}
	bubble(t, 3, c, func(t *testing.T, w *world) {
		w.start()
		w.whole()
		w.write("db-1", "x")
		w.db.Hang(addr(1))
		top := w.primary("db-1")
		require.Equal(t, replication.LossNone, top.Verdict.Loss)
		drains := 0
		for _, e := range w.seen(replication.KindStep) {
			if len(e.Message) > 5 && e.Message[:5] == "drain" {
				drains++
			}
		}
		require.Equal(t, 2, drains)
		w.db.Resume(addr(1))
		w.settled()
	})
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
		for i := range 7 {
			w.write("db-1", fmt.Sprint("lost", i))
		}
		time.Sleep(time.Second)
		w.db.Crash(addr(1))
		top := w.primary("db-1")
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

// Under Durability a replica that is out of sight may be the only one that acknowledged.
func TestDurabilityRefuses(t *testing.T) {
	bubble(t, 3, replication.Config{Policy: replication.Durability}, func(t *testing.T, w *world) {
		w.start()
		w.whole()
		w.db.Cut(addr(1), addr(2))
		w.write("db-1", "x") // only db-3 has it too
		w.db.Crash(addr(1))
		w.db.Crash(addr(3))
		time.Sleep(10 * time.Second)
		top, _ := w.manager().Topology()
		require.Empty(t, top.Primary)
		require.Contains(t, fmt.Sprint(top.Held), replication.ErrUnsafe.Error())
		w.db.Start(addr(3)) // without what it had received and not applied
		time.Sleep(10 * time.Second)
		top, _ = w.manager().Topology()
		require.Empty(t, top.Primary)
		require.Contains(t, fmt.Sprint(top.Held), "db-3 has started again and may have lost what it had received")
		w.db.Heal(addr(1), addr(2))
		w.db.Start(addr(1))
		top = w.settled()
		require.Contains(t, w.rows(top.Primary), "x")
		require.Equal(t, replication.LossNone, top.Verdict.Loss)
	})
}

// A replica that had been dead for a while when the primary died is no reason to refuse.
func TestDurabilityExcuses(t *testing.T) {
	bubble(t, 3, replication.Config{Policy: replication.Durability}, func(t *testing.T, w *world) {
		w.start()
		w.whole()
		w.db.Crash(addr(3))
		time.Sleep(time.Second)
		w.write("db-1", "x")
		w.db.Crash(addr(1))
		top := w.until("db-2 takes over", time.Second, func(t replication.Topology) bool { return t.Primary == "db-2" })
		require.Equal(t, replication.LossNone, top.Verdict.Loss)
	})
}

// With no replica left the primary waits under Durability.
func TestDurabilityWaits(t *testing.T) {
	bubble(t, 2, replication.Config{Policy: replication.Durability}, func(t *testing.T, w *world) {
		w.start()
		w.whole()
		w.db.Crash(addr(2))
		time.Sleep(time.Second)
		ctx, cancel := context.WithTimeout(w.ctx, time.Minute)
		defer cancel()
		require.ErrorIs(t, w.db.Write(ctx, addr(1), "x", ""), context.DeadlineExceeded)
		w.db.Start(addr(2))
		w.write("db-1", "y")
		w.settled()
	})
}

// The member that is preferred is promoted among equals: in a fresh set, in a recovery and in a switchover; and data come first.
func TestPreferred(t *testing.T) {
	bubble(t, 4, replication.Config{}, func(t *testing.T, w *world) {
		for i, n := range []int{0, -1, 2, 1} {
			w.members[i].Prefer = n
		}
		w.start()
		w.whole()
		w.until("db-3 is the first", time.Second, func(t replication.Topology) bool { return t.Primary == "db-3" })
		w.write("db-3", "a")
		require.NoError(t, w.manager().Switchover(w.ctx, ""))
		w.until("db-4 takes over", time.Second, func(t replication.Topology) bool { return t.Primary == "db-4" })
		w.settled()
		w.write("db-4", "b")
		w.db.Crash(addr(4))
		w.until("db-3 takes over", 5*time.Second, func(t replication.Topology) bool { return t.Primary == "db-3" })
		w.db.Start(addr(4))
		w.settled()
		for _, i := range []int{1, 4} { // they miss what comes
			w.db.Cut(addr(i), addr(3))
		}
		w.write("db-3", "c")
		time.Sleep(time.Second)
		w.db.Crash(addr(3))
		w.until("db-2 has most", 10*time.Second, func(t replication.Topology) bool { return t.Primary == "db-2" })
	})
}

// Commits that wait for an acknowledgement that was lost are ended, and the set goes on.
func TestLostAcknowledgement(t *testing.T) {
	bubble(t, 3, replication.Config{Policy: replication.Durability}, func(t *testing.T, w *world) {
		w.start()
		w.whole()
		w.db.LoseAcks(addr(1))
		ctx, cancel := context.WithTimeout(w.ctx, time.Minute)
		defer cancel()
		require.ErrorIs(t, w.db.Write(ctx, addr(1), "x", ""), memdb.ErrLost)
		require.Equal(t, "db-1", w.stays(time.Second).Primary)
		w.write("db-1", "y")
		rows, err := w.db.Rows(w.ctx, addr(2))
		require.NoError(t, err)
		require.Contains(t, rows, "x")
	})
}

// A set of one has nobody to wait for, whatever the policy.
func TestSingle(t *testing.T) {
	policies(t, func(t *testing.T, c replication.Config) {
		bubble(t, 1, c, func(t *testing.T, w *world) {
			w.start()
			w.whole()
			w.write("db-1", "x")
			w.db.Crash(addr(1))
			time.Sleep(5 * time.Second)
			w.db.Start(addr(1))
			top := w.settled()
			require.Contains(t, w.rows("db-1"), "x")
			require.Equal(t, replication.LossNone, top.Verdict.Loss)

			w.db.Start(addr(2)) // and grows
			w.members = append(w.members, replication.Member{ID: "db-2", Addr: addr(2), Machine: "i-2"})
			w.manager().SetMembers(w.members, 2)
			w.until("two serve", time.Minute, func(t replication.Topology) bool { return whole(t) && len(t.Members) == 2 })
			w.write("db-1", "y")
			w.settled()
			st, err := w.db.Observe(w.ctx, w.members[0])
			require.NoError(t, err)
			require.Equal(t, c.Policy == replication.Durability, st.SemiSync)

			w.members = w.members[:1] // and shrinks again
			w.manager().SetMembers(w.members, 1)
			w.db.Remove(addr(2))
			time.Sleep(time.Second)
			w.write("db-1", "z")
			w.settled()
		})
	})
}

// A fresh set waits for all of its members.
func TestFreshWaits(t *testing.T) {
	bubble(t, 3, replication.Config{}, func(t *testing.T, w *world) {
		all := w.members
		w.members = all[:2]
		w.start()
		w.manager().SetMembers(w.members, 3)
		time.Sleep(10 * time.Minute)
		top, _ := w.manager().Topology()
		require.Empty(t, top.Primary)
		require.Contains(t, fmt.Sprint(top.Held), "a new set waits for all of its 3 members")
		w.members = all
		w.manager().SetMembers(w.members, 3)
		w.settled()
	})
}

// One member has data: it becomes the primary, and the others are seeded.
func TestOneHasData(t *testing.T) {
	bubble(t, 3, replication.Config{}, func(t *testing.T, w *world) {
		w.db.Inject(addr(2), "k", "v")
		w.start()
		top := w.settled()
		require.Equal(t, "db-2", top.Primary)
		require.Len(t, w.rows("db-3"), 1)
	})
}

// Everything loses its power and starts again.
func TestPowerCut(t *testing.T) {
	policies(t, func(t *testing.T, c replication.Config) {
		for _, restart := range []bool{false, true} {
			bubble(t, 3, c, func(t *testing.T, w *world) {
				w.start()
				w.whole()
				for i := range 20 {
					w.write("db-1", fmt.Sprint(i))
				}
				for i := range 3 {
					w.db.Crash(addr(i + 1))
				}
				if restart {
					w.stop()
				}
				time.Sleep(5 * time.Second)
				if restart {
					w.start()
				}
				for i := range 3 {
					time.Sleep(time.Second)
					w.db.Start(addr(3 - i))
				}
				w.settled()
				top, _ := w.manager().Topology()
				require.Len(t, w.rows(top.Primary), 20)
			})
		}
	})
}

// The machine of a member is replaced: the same ID, but another server, which is empty.
func TestReplaced(t *testing.T) {
	policies(t, func(t *testing.T, c replication.Config) {
		for _, which := range []int{0, 1} {
			bubble(t, 3, c, func(t *testing.T, w *world) {
				w.start()
				w.whole()
				w.write("db-1", "x")
				time.Sleep(100 * time.Millisecond)
				w.db.Remove(w.members[which].Addr)
				time.Sleep(10 * time.Second)
				w.db.Start(addr(9))
				w.members[which].Addr, w.members[which].Machine = addr(9), "i-9"
				w.manager().SetMembers(w.members, 3)
				w.settled()
				require.Contains(t, w.rows(w.members[which].ID), "x")
			})
		}
	})
}

// A member with data of its own that is not of this set is never overwritten.
func TestForeignData(t *testing.T) {
	bubble(t, 3, replication.Config{}, func(t *testing.T, w *world) {
		w.start()
		w.whole()
		w.write("db-1", "x")
		w.db.Start(addr(4))
		w.db.Inject(addr(4), "precious", "1")
		w.members = append(w.members, replication.Member{ID: "db-4", Addr: addr(4)})
		w.manager().SetMembers(w.members, 4)
		time.Sleep(time.Minute)
		top, _ := w.manager().Topology()
		x, _ := top.Member("db-4")
		require.Equal(t, replication.RoleQuarantined, x.Role)
		require.Contains(t, x.Error, "it holds data that is not of this set (1 transaction)")
		require.Contains(t, w.rows("db-4"), "precious")
		require.Empty(t, w.manager().Plan().Steps)
		w.db.Crash(addr(1))
		top = w.primary("db-1")
		require.NotEqual(t, "db-4", top.Primary)
		w.db.Start(addr(1))
		w.db.Remove(addr(4))
		w.members = w.members[:3]
		w.manager().SetMembers(w.members, 3)
		w.settled()
	})
}

// Somebody writes to a replica: it is found, does not serve reads, and is not promoted.
func TestErrant(t *testing.T) {
	policies(t, func(t *testing.T, c replication.Config) {
		bubble(t, 3, c, func(t *testing.T, w *world) {
			w.start()
			w.whole()
			w.write("db-1", "x")
			time.Sleep(time.Second)
			w.db.Inject(addr(2), "errant", "1")
			top := w.until("it is found", time.Minute, func(t replication.Topology) bool {
				return t.Members[1].Role == replication.RoleQuarantined
			})
			require.False(t, top.Members[1].Serves)
			require.Contains(t, top.Members[1].Error, "somebody wrote to it")
			w.db.Crash(addr(1))
			require.Equal(t, "db-3", w.primary("db-1").Primary)
		})
	})
}

// Two members say that they are the same server.
func TestSameServer(t *testing.T) {
	bubble(t, 3, replication.Config{}, func(t *testing.T, w *world) {
		w.config.Engine = twins{w.db, addr(3), addr(2)}
		w.start()
		time.Sleep(time.Minute)
		top, _ := w.manager().Topology()
		require.Empty(t, top.Primary)
		require.Equal(t, replication.RoleQuarantined, top.Members[2].Role)
		require.Contains(t, top.Members[2].Error, "it is the same server as db-2")
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

// The best candidate cannot apply what it has: the next one is taken, under Durability only if it has everything too.
func TestStuckCandidate(t *testing.T) {
	policies(t, func(t *testing.T, c replication.Config) {
		bubble(t, 3, c, func(t *testing.T, w *world) {
			w.config.Engine = unwilling{w.db, "Drain", addr(2)}
			w.start()
			w.whole()
			w.write("db-1", "x")
			time.Sleep(time.Second)
			w.db.Crash(addr(1))
			begin := time.Now()
			top := w.primary("db-1")
			t.Log("primary after", time.Since(begin))
			require.Equal(t, "db-3", top.Primary)
			require.Contains(t, w.rows("db-3"), "x")
		})
	})
}

// An old primary wakes and cannot be fenced by the engine: its machine is stopped.
func TestFenceThatFails(t *testing.T) {
	bubble(t, 3, replication.Config{}, func(t *testing.T, w *world) {
		w.config.Engine = unwilling{w.db, "Fence", addr(1)}
		w.start()
		w.whole()
		w.write("db-1", "x")
		time.Sleep(time.Second)
		w.db.Hang(addr(1))
		top := w.primary("db-1")
		w.stoppable(0, nil)
		w.manager().SetMembers(w.members, 3)
		w.db.Resume(addr(1))
		time.Sleep(5 * time.Second)
		require.Equal(t, []string{w.addr(top.Primary)}, w.db.Writable())
	})
}

// A primary that crashes again and again is followed only so often, and then again without a person.
func TestFlapping(t *testing.T) {
	bubble(t, 3, replication.Config{Recoveries: 2, Window: 5 * time.Minute}, func(t *testing.T, w *world) {
		w.start()
		w.whole()
		begin := time.Now()
		for time.Since(begin) < 30*time.Minute {
			top, _ := w.manager().Topology()
			if top.Primary != "" {
				w.db.Crash(w.addr(top.Primary))
				time.Sleep(5 * time.Second)
				for i := range 3 {
					w.db.Start(addr(i + 1))
				}
			}
			time.Sleep(5 * time.Second)
		}
		var times []time.Time
		for _, e := range w.seen(replication.KindVerdict) {
			times = append(times, e.Time)
		}
		require.Greater(t, len(times), 8)
		for i := 2; i < len(times); i++ {
			require.GreaterOrEqual(t, times[i].Sub(times[i-2]), 5*time.Minute)
		}
		require.Contains(t, fmt.Sprint(w.seen(replication.KindHeld)), "are enough")
	})
}

// The wrong password on one member is shown and hurts nobody else.
func TestAccessDenied(t *testing.T) {
	bubble(t, 3, replication.Config{}, func(t *testing.T, w *world) {
		w.start()
		w.whole()
		w.db.Deny(addr(2), true)
		top := w.until("it shows", time.Minute, func(t replication.Topology) bool { return !t.Members[1].Serves })
		require.Contains(t, top.Members[1].Error, "access denied")
		w.db.Deny(addr(1), true)
		top = w.stays(time.Minute)
		require.Equal(t, "db-1", top.Primary)
		require.Contains(t, fmt.Sprint(top.Held), "does not say what it is")
		w.db.Deny(addr(1), false)
		w.db.Deny(addr(2), false)
		require.EqualValues(t, 1, w.settled().Epoch)
	})
}

func TestSwitchover(t *testing.T) {
	policies(t, func(t *testing.T, c replication.Config) {
		bubble(t, 3, c, func(t *testing.T, w *world) {
			w.start()
			w.whole()
			ctx, cancel := context.WithCancel(w.ctx)
			acked, pause := make(chan map[string]bool, 1), make(chan time.Duration, 1)
			go func() { // an application that follows the topology
				rows, longest, last := map[string]bool{}, time.Duration(0), time.Now()
				for i := 0; ctx.Err() == nil; i++ {
					top, _ := w.manager().Topology()
					key := fmt.Sprint(i)
					if top.Primary != "" && w.db.Write(ctx, w.addr(top.Primary), key, key) == nil {
						rows[key], longest, last = true, max(longest, time.Since(last)), time.Now()
					}
					time.Sleep(time.Millisecond)
				}
				acked <- rows
				pause <- longest
			}()
			time.Sleep(time.Second)
			require.NoError(t, w.manager().Switchover(w.ctx, "db-3"))
			top, _ := w.manager().Topology()
			require.Equal(t, "db-3", top.Primary)
			require.EqualValues(t, 2, top.Epoch)
			w.whole()
			require.NoError(t, w.manager().Switchover(w.ctx, ""))
			top, _ = w.manager().Topology()
			require.NotEqual(t, "db-3", top.Primary)
			require.NoError(t, w.manager().Switchover(w.ctx, top.Primary), "to itself")
			time.Sleep(time.Second)
			cancel()
			rows := <-acked
			t.Log(len(rows), "rows, longest pause", <-pause)
			top = w.settled()
			require.Nil(t, top.Verdict)
			for key := range rows {
				require.Contains(t, w.rows(top.Primary), key)
			}
		})
	})
}

func TestSwitchoverFails(t *testing.T) {
	bubble(t, 3, replication.Config{StepTimeout: 2 * time.Second}, func(t *testing.T, w *world) {
		w.start()
		w.whole()
		w.write("db-1", "x")
		require.ErrorContains(t, w.manager().Switchover(w.ctx, "db-7"), `no member "db-7"`)
		w.db.Crash(addr(3))
		time.Sleep(time.Second)
		require.ErrorContains(t, w.manager().Switchover(w.ctx, "db-3"), "does not answer")
		w.db.Start(addr(3))
		w.whole()
		w.db.Cut(addr(1), addr(3)) // it does not show at once that it receives nothing
		w.write("db-1", "y")
		require.ErrorContains(t, w.manager().Switchover(w.ctx, "db-3"), "did not catch up within 2s: db-1 stays the primary")
		w.db.Heal(addr(1), addr(3))
		top := w.settled()
		require.Equal(t, "db-1", top.Primary)

		ctx, cancel := context.WithTimeout(w.ctx, time.Millisecond)
		defer cancel()
		require.ErrorIs(t, w.manager().Switchover(ctx, "db-2"), context.DeadlineExceeded)
		w.settled()

		for i := range 3 {
			w.db.Crash(addr(i + 1))
		}
		time.Sleep(time.Second)
		require.ErrorIs(t, w.manager().Switchover(w.ctx, ""), replication.ErrNoPrimary)
	})
}

// What Plan says is what is done, and PlanLoss foresees a whole recovery.
func TestPlan(t *testing.T) {
	bubble(t, 3, replication.Config{}, func(t *testing.T, w *world) {
		w.start()
		w.whole()
		w.write("db-1", "x")
		time.Sleep(time.Second)
		require.Empty(t, w.manager().Plan())
		plan := w.manager().PlanLoss("")
		var kinds []string
		for _, s := range plan.Steps {
			kinds = append(kinds, fmt.Sprint(s.Phase, " ", s.Kind, " ", s.Member))
		}
		require.Equal(t, []string{"1 drain db-2", "1 drain db-3", "2 promote db-2", "2 follow db-3"}, kinds)
		require.Empty(t, w.manager().PlanLoss("db-3").Steps)
		require.Empty(t, w.manager().PlanLoss("db-9"))
		before := len(w.seen(replication.KindStep))
		w.db.Crash(addr(1))
		w.primary("db-1")
		w.until("db-3 follows", time.Minute, func(t replication.Topology) bool {
			return t.Members[2].Role == replication.RoleReplica && t.Members[2].Error == ""
		})
		var done []string
		for _, e := range w.seen(replication.KindStep)[before:] {
			done = append(done, e.Message)
		}
		for i, s := range plan.Steps {
			s.Phase = 0
			require.Equal(t, s.String(), done[i])
		}
	})
}

func TestConfigFaults(t *testing.T) {
	_, err := replication.New(replication.Config{
		Policy: 7, Unfenced: 9, Interval: -1, Timeout: time.Microsecond, Misses: -2, Recoveries: -1, Window: 1,
	})
	for _, field := range []string{
		"Config.Engine is nil", "Config.Policy is 7", "Config.Unfenced is 9", "Config.Interval is -1ns", "Config.Timeout is 1µs",
		"Config.Misses is -2", "Config.Recoveries is -1", "Config.Window is 1ns",
	} {
		require.ErrorContains(t, err, field)
	}
	m, err := replication.New(replication.Config{Engine: memdb.New(memdb.Options{})})
	require.NoError(t, err)
	m.SetMembers([]replication.Member{{ID: "a"}, {ID: "b", Addr: "x"}, {ID: "b", Addr: "y"}, {ID: "c", Addr: "x"}}, 3)
	top, _ := m.Topology()
	require.Len(t, top.Members, 1)
	require.Len(t, top.Held, 3)
	require.True(t, slices.ContainsFunc(top.Held, func(s string) bool { return s == `two members have the ID "b": the one at y is left out` }))
}
