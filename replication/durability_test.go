package replication_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/scalr-go/scalr/replication"
	"github.com/scalr-go/scalr/replication/memdb"
)

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

// So is one that hung first and has been dead since.
func TestDurabilityExcusesOneThatHungFirst(t *testing.T) {
	bubble(t, 3, replication.Config{Policy: replication.Durability}, func(t *testing.T, w *world) {
		w.start()
		w.whole()
		w.db.Hang(addr(3))
		time.Sleep(3 * time.Second)
		w.db.Crash(addr(3))
		time.Sleep(time.Minute)
		w.write("db-1", "x")
		time.Sleep(time.Second)
		w.db.Crash(addr(1))
		top := w.until("db-2 takes over", time.Minute, func(t replication.Topology) bool { return t.Primary == "db-2" })
		require.Equal(t, replication.LossNone, top.Verdict.Loss)
	})
}

// One that could not be seen, and acknowledged all the time until it died, is excused for what it alone had only by who has that.
func TestDurabilityExcusesFromItsDeathOn(t *testing.T) {
	bubble(t, 3, replication.Config{Policy: replication.Durability}, func(t *testing.T, w *world) {
		w.start()
		w.whole()
		w.write("db-1", "w")
		w.settled()
		w.db.Cut(memdb.Manager, addr(3))
		time.Sleep(5 * time.Second)
		w.db.Cut(addr(1), addr(2))
		w.write("db-1", "x") // db-3 acknowledges it
		w.db.Crash(addr(3))
		w.db.Heal(memdb.Manager, addr(3))
		time.Sleep(5 * time.Second)
		w.db.Crash(addr(1))
		time.Sleep(20 * time.Second)
		top, _ := w.manager().Topology()
		require.Empty(t, top.Primary)
		require.Contains(t, fmt.Sprint(top.Held), "db-3 cannot be seen and may be the only one that has some acknowledged transaction")
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
		for i, n := range []int{1, 0, 3, 2} {
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

// Somebody switches the primary's semi-synchronous replication off: it is said, though it is on again at once.
func TestSemiSyncIsOnAgain(t *testing.T) {
	bubble(t, 3, replication.Config{Policy: replication.Durability}, func(t *testing.T, w *world) {
		w.start()
		w.whole()
		w.write("db-1", "x")
		w.settled()
		require.Empty(t, w.seen(replication.KindHeld))
		require.NoError(t, w.db.SetSemiSync(w.ctx, w.members[0], false))
		time.Sleep(time.Second)
		held := w.seen(replication.KindHeld)
		require.Len(t, held, 1)
		require.Equal(t, "db-1 acknowledges what no replica may have, until its writes wait for one", held[0].Message)
		st, err := w.db.Observe(w.ctx, w.members[0])
		require.NoError(t, err)
		require.True(t, st.SemiSync)
		w.settled()
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

// What the primary has at one of the first looks of a Manager may be a commit that waits for its acknowledgement, and that no
// replica ever gets.
func TestDurabilitySoonAfterAManagerStarts(t *testing.T) {
	for ms := range 100 {
		alive := time.Duration(210+ms) * time.Millisecond
		t.Run(alive.String(), func(t *testing.T) {
			bubble(t, 3, replication.Config{Policy: replication.Durability}, func(t *testing.T, w *world) {
				w.start()
				w.whole()
				w.stop()
				var acked []string
				ended := make(chan struct{})
				go func() {
					defer close(ended)
					for i := 0; ; i++ {
						key := fmt.Sprint(i)
						if w.db.Write(w.ctx, addr(1), key, "") != nil {
							return
						}
						acked = append(acked, key)
					}
				}()
				w.start()
				time.Sleep(alive)
				w.db.Crash(addr(1))
				w.await("a write fails", ended)
				top := w.primary("db-1")
				require.Equal(t, replication.LossNone, top.Verdict.Loss)
				rows := w.rows(top.Primary)
				for _, key := range acked {
					require.Contains(t, rows, key)
				}
			})
		})
	}
}

// A primary that could not be fenced sleeps through a recovery, and wakes when its successor has come back and who acknowledged that
// one's transactions has not. A Manager that has seen nothing of it waits for that one.
func TestSleptThroughARecovery(t *testing.T) {
	for name, records := range map[string]bool{"with records": true, "without": false} {
		t.Run(name, func(t *testing.T) {
			c := replication.Config{Policy: replication.Durability, Unfenced: replication.UnfencedGoOn}
			bubble(t, 4, c, func(t *testing.T, w *world) {
				w.hook = func(_ context.Context, c memdb.Call) error {
					if strings.HasPrefix(c.Op, "Record") && !records {
						return errors.ErrUnsupported
					}
					return nil
				}
				w.members[3].Prefer = 1
				w.start()
				require.Equal(t, "db-4", w.whole().Primary)
				w.write("db-4", "x")
				w.settled()
				w.db.Crash(addr(4)) // it follows nobody, and will not by itself
				require.Equal(t, "db-1", w.primary("db-4").Primary)
				w.write("db-1", "x")
				time.Sleep(time.Second)
				w.db.Hang(addr(1))
				require.Equal(t, "db-2", w.primary("db-1").Primary)
				w.write("db-2", "y")
				time.Sleep(time.Second)
				w.stop()
				w.db.Crash(addr(2))
				w.db.Crash(addr(3))
				w.start()
				time.Sleep(100 * time.Millisecond)
				w.db.Resume(addr(1))
				w.db.Start(addr(2))
				w.db.Start(addr(4))
				time.Sleep(time.Minute)
				require.Contains(t, w.rows("db-2"), "y")
				w.db.Start(addr(3))
				top := w.settled()
				require.Contains(t, w.rows(top.Primary), "y")
			})
		})
	}
}
