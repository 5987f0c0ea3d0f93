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

// A member that is to apply with a delay is not the first primary, nor the next one; it has its delay from the beginning, when its
// machine is replaced, when it has been drained, and when it is given one later.
func TestDeclaredDelay(t *testing.T) {
	policies(t, func(t *testing.T, c replication.Config) {
		bubble(t, 3, c, func(t *testing.T, w *world) {
			delayed := func(i int, d time.Duration) {
				t.Helper()
				w.until("it follows with its delay", time.Minute, func(top replication.Topology) bool {
					st, err := w.db.Observe(w.ctx, w.members[i])
					return err == nil && st.Source == w.addr(top.Primary) && st.Receives && st.Delay == d
				})
			}
			w.members[0].Delay = time.Hour
			w.start()
			require.Equal(t, "db-2", w.primary("").Primary)
			delayed(0, time.Hour)
			w.write("db-2", "x")
			time.Sleep(time.Second)
			require.NotContains(t, w.rows("db-1"), "x")

			w.db.Crash(addr(2))
			require.Equal(t, "db-3", w.primary("db-2").Primary)
			w.db.Start(addr(2))
			delayed(0, time.Hour)

			w.db.Remove(addr(1))
			w.replace(0, addr(9))
			delayed(0, time.Hour)
			w.write("db-3", "y")
			time.Sleep(30 * time.Second)
			require.Contains(t, w.rows("db-1"), "x", "it has been seeded")
			require.NotContains(t, w.rows("db-1"), "y")
			require.Contains(t, w.rows("db-2"), "y")
			require.Empty(t, w.manager().Plan().Steps)

			w.membership.Lock()
			w.members[1].Delay = 7 * time.Second
			w.manager().SetMembers(w.members, 3)
			w.membership.Unlock()
			delayed(1, 7*time.Second)

			if c.Policy == replication.Availability { // with more of what the primary had than the other, it is promoted, and then the other
				w.members[0].Prefer = -1
				w.manager().SetMembers(w.members, 3)
				w.db.Crash(addr(2))
				time.Sleep(time.Second)
				w.db.Crash(addr(3))
				require.Equal(t, "db-1", w.primary("db-3").Primary)
				require.Contains(t, w.rows("db-1"), "y")
				w.db.Start(addr(3))
				require.Equal(t, "db-3", w.primary("db-1").Primary)
				delayed(0, time.Hour)
			}
			for _, d := range []time.Duration{-time.Second, time.Millisecond} {
				w.members[0].Delay = d
				w.manager().SetMembers(w.members, 3)
				top, _ := w.manager().Topology()
				require.Contains(t, fmt.Sprint(top.Held), fmt.Sprintf("the member db-1 has the Delay %v, want whole seconds, at least 0: it is left out", d))
			}
		})
	})
}

// The new primary dies when the old one, which has nothing of its own, has just been told to follow it: that one is promoted before
// one that applies with a delay.
func TestBackAndNotSeenYet(t *testing.T) {
	policies(t, func(t *testing.T, c replication.Config) {
		bubble(t, 3, c, func(t *testing.T, w *world) {
			w.members[1].Delay = time.Hour
			var armed atomic.Bool
			w.hook = func(ctx context.Context, c memdb.Call) error {
				if c.Op == "Follow" && c.Addr == addr(1) && c.Done && armed.Load() {
					w.db.Crash(addr(3))
				}
				return nil
			}
			w.start()
			w.until("there are replicas", time.Minute, func(t replication.Topology) bool {
				return t.Primary == "db-1" && t.Members[1].Role == replication.RoleReplica && t.Members[2].Serves
			})
			w.write("db-1", "x")
			time.Sleep(5 * time.Second)
			armed.Store(true)
			require.NoError(t, w.manager().Switchover(w.ctx, "db-3"))
			require.Equal(t, "db-1", w.primary("db-3").Primary)
			require.Contains(t, w.rows("db-1"), "x")
		})
	})
}
