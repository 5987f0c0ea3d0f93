package mysql_test

import (
	"context"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/scalr-go/scalr/cronlock"
	"github.com/scalr-go/scalr/replication"
)

// Two Managers have had the lease, one after the other, and the older one has not noticed: whatever it wants to do is refused, and it
// ends. The set stays the later one's.
func TestManagerIsOvertaken(t *testing.T) {
	nodes := start(t, 3)
	var members []replication.Member
	for _, n := range nodes {
		members = append(members, n.Member)
	}
	var locks cronlock.Memory
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	// lead runs a Manager as soon as it has the lease, and does not look whether it still has it.
	lead := func() (m *replication.Manager, token chan uint64, ended chan error) {
		m, err := replication.New(replication.Config{Name: "test/db", Engine: engine(t, config, nodes...), Policy: replication.Durability})
		require.NoError(t, err)
		m.SetMembers(members, len(members))
		token, ended = make(chan uint64, 1), make(chan error, 1)
		go func() {
			ended <- locks.Hold(ctx, "test/db", func(_ context.Context, l cronlock.Lease) error {
				token <- l.Token
				return m.RunUnder(ctx, l.Token)
			})
		}()
		return m, token, ended
	}
	whole := func(m *replication.Manager, primary string) {
		t.Helper()
		within(t, "the set is whole", func() bool {
			top, _ := m.Topology()
			serve := 0
			for _, x := range top.Members {
				if x.Serves && x.Error == "" {
					serve++
				}
			}
			return top.Primary == primary && serve == len(nodes)
		})
	}
	first, token, firstEnded := lead()
	earlier := <-token
	whole(first, "db-1")
	exec(t, nodes[0].app(t), "CREATE SCHEMA app", "CREATE TABLE app.t (i INT PRIMARY KEY)")
	e := engine(t, config, nodes...)
	within(t, "the first one has left its record everywhere", func() bool {
		texts := map[string]bool{}
		for _, n := range nodes {
			text, err := e.Recorded(t.Context(), n.Member)
			require.NoError(t, err)
			texts[text] = true
		}
		return len(texts) == 1 && !texts[""]
	})

	later, token, laterEnded := lead()
	require.True(t, locks.Expire("test/db"))
	require.Greater(t, <-token, earlier)
	whole(later, "db-1")
	within(t, "all have been claimed by the later one", func() bool {
		for _, n := range nodes {
			if one(t, n.admin(t), "SELECT token FROM mysql.scalr_claimed") == "1" {
				return false
			}
		}
		return true
	})
	select {
	case err := <-firstEnded:
		t.Fatalf("it has nothing to do, and ended: %v", err)
	default:
	}
	require.Error(t, first.Switchover(t.Context(), "db-2"))
	err := <-firstEnded
	require.ErrorIs(t, err, replication.ErrOvertaken)
	require.ErrorIs(t, err, cronlock.ErrLost)
	require.ErrorContains(t, err, "fence db-1", "not even its first step")
	t.Log(err)
	require.Equal(t, "0", one(t, nodes[0].admin(t), "SELECT @@read_only"))
	top, _ := later.Topology()
	require.EqualValues(t, 1, top.Epoch)
	exec(t, nodes[0].app(t), "INSERT INTO app.t VALUES (1)")
	require.ErrorIs(t, first.RunUnder(t.Context(), earlier), replication.ErrOvertaken, "it begins again, with the same lease")

	require.NoError(t, later.Switchover(t.Context(), "db-2"))
	whole(later, "db-2")
	cancel()
	require.ErrorIs(t, <-laterEnded, context.Canceled)
}
