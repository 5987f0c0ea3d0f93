package replication_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/scalr-go/scalr/replication"
	"github.com/scalr-go/scalr/replication/memdb"
)

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

// Another Manager counts what somebody wrote to a replica, and calls it no loss: no primary has acknowledged it.
func TestErrantThatAnotherManagerFinds(t *testing.T) {
	policies(t, func(t *testing.T, c replication.Config) {
		bubble(t, 3, c, func(t *testing.T, w *world) {
			w.start()
			w.whole()
			w.write("db-1", "x")
			w.settled()
			w.stop()
			w.db.Inject(addr(2), "errant", "1")
			w.start()
			w.until("it is found", time.Minute, func(replication.Topology) bool { return len(w.seen(replication.KindSurplus)) > 0 })
			w.settled()
			require.Empty(t, w.seen(replication.KindVerdict))
		})
	})
}

// One to which somebody wrote is the primary where there is nobody else, and what it has is the set's then: it is not given up for
// one that has less.
func TestErrantPrimary(t *testing.T) {
	bubble(t, 3, replication.Config{}, func(t *testing.T, w *world) {
		w.start()
		w.whole()
		w.write("db-1", "x")
		w.settled()
		w.db.Inject(addr(2), "errant", "1")
		w.until("it is found", time.Minute, func(t replication.Topology) bool { return t.Members[1].Role == replication.RoleQuarantined })
		w.db.Crash(addr(3))
		w.db.Crash(addr(1))
		require.Equal(t, "db-2", w.primary("db-1").Primary)
		w.db.Start(addr(3))
		w.db.Start(addr(1))
		w.settled()
		w.db.Cut(addr(2), addr(1))
		w.db.Cut(addr(2), addr(3))
		w.write("db-2", "y")
		w.db.Crash(addr(2))
		w.db.Start(addr(2))
		time.Sleep(10 * time.Second)
		w.db.Heal(addr(2), addr(1))
		w.db.Heal(addr(2), addr(3))
		require.Contains(t, w.rows(w.settled().Primary), "y")
	})
}

// touched is an engine by which a replica has a transaction of its own for a while, until a person has taken it back.
type touched struct {
	*memdb.Cluster
	addr string
	is   *atomic.Bool
}

func (e touched) Observe(ctx context.Context, m replication.Member) (replication.Status, error) {
	st, err := e.Cluster.Observe(ctx, m)
	if err == nil && m.Addr == e.addr && e.is.Load() {
		st.Applied += ",person:3"
		st.Received += ",person:3"
	}
	return st, err
}

// What was written to a replica and has been taken back counts no more: if it is the only one that has what was acknowledged last,
// it is promoted.
func TestErrantAndTakenBack(t *testing.T) {
	policies(t, func(t *testing.T, c replication.Config) {
		bubble(t, 3, c, func(t *testing.T, w *world) {
			var is atomic.Bool
			w.config.Engine = touched{w.db, addr(3), &is}
			w.start()
			w.whole()
			w.write("db-1", "x")
			w.settled()
			is.Store(true)
			w.until("it is found", time.Minute, func(t replication.Topology) bool { return t.Members[2].Role == replication.RoleQuarantined })
			is.Store(false)
			w.settled()
			w.db.Cut(addr(1), addr(2))
			w.write("db-1", "y")
			time.Sleep(10 * time.Millisecond)
			w.db.Crash(addr(1))
			require.Equal(t, "db-3", w.primary("db-1").Primary)
			require.Contains(t, w.rows("db-3"), "y")
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

// The best candidate cannot apply what it has: the next one is taken, under Durability only if it has everything too.
func TestStuckCandidate(t *testing.T) {
	policies(t, func(t *testing.T, c replication.Config) {
		for _, op := range []string{"Drain", "Promote"} {
			bubble(t, 3, c, func(t *testing.T, w *world) {
				w.hook = func(_ context.Context, c memdb.Call) error {
					if c.Op == op && c.Addr == addr(2) {
						return errors.New("unwilling")
					}
					return nil
				}
				w.start()
				w.whole()
				w.write("db-1", "x")
				time.Sleep(time.Second)
				w.db.Crash(addr(1))
				top := w.primary("db-1")
				require.Equal(t, "db-3", top.Primary)
				require.Contains(t, w.rows("db-3"), "x")
			})
		}
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
	for name, restart := range map[string]bool{"OneManager": false, "Many": true} {
		t.Run(name, func(t *testing.T) { flapping(t, restart) })
	}
}

// flapping lets each primary die, and with restart its Manager too.
func flapping(t *testing.T, restart bool) {
	bubble(t, 3, replication.Config{Recoveries: 2, Window: 5 * time.Minute}, func(t *testing.T, w *world) {
		w.start()
		w.whole()
		w.write("db-1", "x")
		w.settled()
		begin := time.Now()
		for time.Since(begin) < 30*time.Minute {
			top, _ := w.manager().Topology()
			if top.Primary != "" {
				w.db.Crash(w.addr(top.Primary))
				if restart {
					w.stop()
					w.start()
				}
				time.Sleep(5 * time.Second)
				for i := range 3 {
					w.db.Start(addr(i + 1))
				}
			}
			time.Sleep(5 * time.Second)
		}
		var times []time.Time
		for _, e := range w.seen(replication.KindStep) {
			if contains(e.Message, "promote ") && e.Time.After(begin) {
				times = append(times, e.Time)
			}
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

// The old primary could not be stopped, and wakes while its successor is being promoted. Nobody may follow it then, who would
// acknowledge what the successor will never have.
func TestWakesDuringThePromotion(t *testing.T) {
	c := replication.Config{Policy: replication.Durability, Unfenced: replication.UnfencedGoOn}
	bubble(t, 3, c, func(t *testing.T, w *world) {
		w.start()
		w.whole()
		w.write("db-1", "x")
		w.settled()
		w.hook = func(ctx context.Context, c memdb.Call) error {
			if c.Op == "Promote" {
				if !c.Done {
					w.db.Resume(addr(1))
				} else {
					time.Sleep(time.Millisecond) // the promotion's reply takes longer than looks do
				}
			}
			return nil
		}
		before := len(w.seen(replication.KindStep))
		w.db.Hang(addr(1))
		w.primary("db-1")
		w.whole()
		require.NotContains(t, w.steps(before), "-> db-1")
	})
}
