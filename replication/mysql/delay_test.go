package mysql_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/scalr-go/scalr/replication"
)

// A replica with MASTER_DELAY keeps it in a switchover, and is not waited for when the primary dies: it follows the new one and keeps
// its delay. It is promoted, with all that it has received, if it is the only one left.
func TestManagerAndADelayedReplica(t *testing.T) {
	s := manage(t, 3, replication.Config{})
	first := s.primary()
	var delayed, other *node
	for _, n := range s.nodes {
		switch {
		case n.Member.ID == first:
		case delayed == nil: // the first by ID, who would be promoted otherwise
			delayed = n
		default:
			other = n
		}
	}
	exec(t, delayed.admin(t), "STOP SLAVE", "CHANGE MASTER TO MASTER_DELAY=3600", "START SLAVE")
	within(t, "the replica receives", func() bool {
		st := observe(t, s.engine, delayed)
		return st.Receives && st.Delay == time.Hour
	})
	exec(t, s.node(first).app(t), "INSERT INTO app.t VALUES (1, 'x')")
	within(t, "the replicas have received it", func() bool {
		p := observe(t, s.engine, s.node(first)).Applied
		return observe(t, s.engine, delayed).Received == p && observe(t, s.engine, other).Received == p
	})
	require.NoError(t, s.manager.Switchover(t.Context(), other.Member.ID))
	s.whole(t)
	require.Equal(t, time.Hour, observe(t, s.engine, delayed).Delay)
	require.Equal(t, "0", one(t, delayed.admin(t), "SELECT COUNT(*) FROM app.t"))
	require.NoError(t, s.manager.Switchover(t.Context(), first))
	s.whole(t)
	require.NoError(t, s.node(first).Kill(t.Context()))
	within(t, "the other replica is promoted", func() bool { return s.primary() == other.Member.ID })
	exec(t, other.app(t), "INSERT INTO app.t VALUES (2, 'y')")
	within(t, "the delayed one follows and has received both", func() bool {
		st := observe(t, s.engine, delayed)
		return st.Source == other.Addr && st.Receives && s.engine.Compare(st.Received, observe(t, s.engine, other).Applied) == replication.Equal
	})
	require.Equal(t, time.Hour, observe(t, s.engine, delayed).Delay)
	require.Equal(t, "0", one(t, delayed.admin(t), "SELECT COUNT(*) FROM app.t"))

	began := time.Now()
	require.NoError(t, other.Kill(t.Context()))
	within(t, "the delayed one is promoted", func() bool { return s.primary() == delayed.Member.ID })
	t.Logf("after %v", time.Since(began))
	require.Equal(t, "2", one(t, delayed.admin(t), "SELECT COUNT(*) FROM app.t"))
	require.Zero(t, observe(t, s.engine, delayed).Delay)
	require.NoError(t, s.node(first).Start(t.Context()))
	require.NoError(t, other.Start(t.Context()))
	s.equal(t)
}
