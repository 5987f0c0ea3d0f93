package replication_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/scalr-go/scalr/replication"
	"github.com/scalr-go/scalr/replication/memdb"
)

// coarse counts whole seconds, as MariaDB does.
type coarse struct{ *memdb.Cluster }

func (e coarse) Observe(ctx context.Context, m replication.Member) (replication.Status, error) {
	st, err := e.Cluster.Observe(ctx, m)
	st.Lag = st.Lag.Truncate(time.Second)
	return st, err
}

// Less than a second of lag is seen by what the primary had at earlier looks.
func TestLagOfLessThanASecond(t *testing.T) {
	bubble(t, 3, replication.Config{}, func(t *testing.T, w *world) {
		w.config.Engine = coarse{w.db}
		w.start()
		w.whole()
		w.db.Delay(addr(2), 700*time.Millisecond)
		for i := range 100 {
			w.write("db-1", fmt.Sprint("x", i))
			time.Sleep(30 * time.Millisecond)
		}
		top, _ := w.manager().Topology()
		require.InDelta(t, 700, top.Members[1].Lag.Milliseconds(), 250)
		require.Less(t, top.Members[2].Lag, 50*time.Millisecond)
		time.Sleep(2 * time.Second)
		top, _ = w.manager().Topology()
		require.Zero(t, top.Members[1].Lag)
	})
}

// unaware says of a server that it is not behind, as one does that has received nothing yet.
type unaware struct {
	*memdb.Cluster
	addr string
}

func (e unaware) Observe(ctx context.Context, m replication.Member) (replication.Status, error) {
	st, err := e.Cluster.Observe(ctx, m)
	if m.Addr == e.addr {
		st.Lag = 0
	}
	return st, err
}

// A replica that has just been told to follow serves no reads before it has what the primary had then, however little it says to
// be behind.
func TestOneThatHasReceivedNothingServesNoReads(t *testing.T) {
	bubble(t, 3, replication.Config{}, func(t *testing.T, w *world) {
		w.config.Engine = unaware{w.db, addr(2)}
		w.start()
		w.whole()
		w.write("db-1", "w")
		time.Sleep(time.Second)
		w.db.Delay(addr(2), time.Minute)
		w.db.Crash(addr(2))
		w.write("db-1", "x")
		time.Sleep(20 * time.Second)
		w.db.Start(addr(2))
		top := w.until("it follows", time.Minute, func(t replication.Topology) bool { return t.Members[1].Role == replication.RoleReplica })
		require.False(t, top.Members[1].Serves)
		require.NotContains(t, w.rows("db-2"), "x")
		w.until("it serves", 2*time.Minute, func(t replication.Topology) bool { return t.Members[1].Serves })
		require.Contains(t, w.rows("db-2"), "x")
	})
}

// A replica about as far behind as it may be does not come and go with each look, and what is told of it says how far behind it is.
func TestAReplicaAtItsLimit(t *testing.T) {
	bubble(t, 3, replication.Config{}, func(t *testing.T, w *world) {
		w.start()
		w.whole()
		w.db.Delay(addr(2), 10100*time.Millisecond)
		for i := range 60 {
			w.write("db-1", fmt.Sprint("x", i))
			time.Sleep(time.Second)
		}
		var told []string
		for _, e := range w.seen(replication.KindMember) {
			if e.Subject == "db-2" && e.Attrs["role"] == string(replication.RoleReplica) {
				told = append(told, e.Message)
			}
		}
		require.Len(t, told, 2, told)
		require.Regexp(t, `^db-2 is replica \(\d+\.?\d*s behind\)$`, told[1])
		w.db.Delay(addr(2), 0)
		w.until("it serves", time.Minute, func(t replication.Topology) bool { return t.Members[1].Serves })
	})
}

// What a primary took along when it died is waited for by nobody: a replica that had yet to get it follows the next primary, and
// serves.
func TestAReplicaDoesNotWaitForWhatIsLost(t *testing.T) {
	bubble(t, 3, replication.Config{}, func(t *testing.T, w *world) {
		w.members[0].Prefer, w.members[1].Prefer = 2, 1
		w.hook = func(ctx context.Context, c memdb.Call) error {
			if c.Op == "Promote" && c.Addr == addr(2) && !c.Done {
				time.Sleep(2 * time.Second) // while the other one is told to follow
			}
			return nil
		}
		w.start()
		w.whole()
		w.write("db-1", "w")
		w.settled()
		w.db.Crash(addr(3))
		w.db.Cut(addr(1), addr(2))
		w.db.Cut(addr(1), addr(3))
		w.write("db-1", "x")
		time.Sleep(5 * time.Second)
		w.db.Start(addr(3))
		time.Sleep(5 * time.Second)
		w.db.Crash(addr(1))
		require.Equal(t, "db-2", w.primary("db-1").Primary)
		w.until("the other one serves", time.Minute, func(t replication.Topology) bool { return t.Members[2].Serves })
		require.NotContains(t, w.rows("db-3"), "x")
	})
}

// A Manager that finds the primary of before awake, and the one after it dead, takes on what is there. What that costs is told when the
// other one is back: all the memory of its recovery is on that one.
func TestTheLossOfAPrimaryThatNobodyRemembers(t *testing.T) {
	bubble(t, 2, replication.Config{Policy: replication.Availability, Unfenced: replication.UnfencedGoOn}, func(t *testing.T, w *world) {
		w.start()
		w.whole()
		w.write("db-1", "w")
		w.settled()
		w.db.Hang(addr(1))
		require.Equal(t, "db-2", w.primary("db-1").Primary)
		w.write("db-2", "x")
		w.db.Crash(addr(2))
		w.stop()
		w.db.Resume(addr(1))
		w.start()
		w.until("the other one is taken on", time.Minute, func(t replication.Topology) bool { return t.Primary == "db-1" })
		told := len(w.seen(replication.KindVerdict))
		w.db.Start(addr(2))
		top := w.settled()
		require.NotContains(t, w.rows("db-1"), "x")
		require.Len(t, w.seen(replication.KindVerdict), told+1)
		require.Equal(t, "db-2", top.Verdict.From)
		require.Equal(t, "db-1", top.Verdict.To)
		require.Equal(t, replication.LossExact, top.Verdict.Loss)
		require.EqualValues(t, 1, top.Verdict.Lost)
		require.False(t, top.Verdict.Began.IsZero())

		w.stop()
		w.start()
		top = w.settled()
		require.Equal(t, "db-2", top.Verdict.From, "the next Manager learns of it")
		require.Len(t, w.seen(replication.KindVerdict), told+1)
	})
}

// What the primary before the last one had too much the verdict of its own recovery has told, also where another Manager finds it.
func TestTheLossOfTwoPrimaries(t *testing.T) {
	for _, another := range []bool{false, true} {
		t.Run(fmt.Sprint(another), func(t *testing.T) {
			bubble(t, 3, replication.Config{}, func(t *testing.T, w *world) { lossOfTwo(t, w, another) })
		})
	}
}

func lossOfTwo(t *testing.T, w *world, another bool) {
	w.members[0].Prefer, w.members[1].Prefer = 2, 1
	w.start()
	w.whole()
	w.write("db-1", "w")
	w.settled()
	for i, p := range []string{"db-1", "db-2"} {
		w.db.Cut(addr(i+1), addr(2))
		w.db.Cut(addr(i+1), addr(3))
		w.write(p, "x"+p)
		w.db.Crash(addr(i + 1))
		w.primary(p)
	}
	require.Len(t, w.seen(replication.KindVerdict), 2)
	if another {
		time.Sleep(2 * time.Second)
		w.stop()
		w.start()
		w.until("db-3 is taken on", time.Minute, func(t replication.Topology) bool { return t.Primary == "db-3" })
	}
	for _, from := range []int{1, 2} {
		for _, to := range []int{1, 2, 3} {
			w.db.Heal(addr(from), addr(to))
		}
		w.db.Start(addr(from))
		w.until("it is back", time.Minute, func(t replication.Topology) bool { return t.Members[from-1].Role == replication.RoleReplica })
		require.Len(t, w.seen(replication.KindSurplus), from)
		require.Len(t, w.seen(replication.KindVerdict), 1+from, "the second time it is corrected")
	}
	require.Equal(t, "db-2", w.settled().Verdict.From)
}
