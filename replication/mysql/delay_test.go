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
	within(t, "the replica has the table", func() bool {
		return observe(t, s.engine, delayed).Applied == observe(t, s.engine, s.node(first)).Applied
	})
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

// A replica with a Member.Delay has it from the beginning, and again when it has lost its data and been seeded. It is not promoted while
// another one can be.
func TestManagerSeedsADelayedReplica(t *testing.T) {
	nodes := start(t, 3)
	delayed := nodes[1] // the first by ID of the replicas
	delayed.Member.Delay = time.Hour
	s := manageOn(t, nodes, replication.Config{})
	first := s.node(s.primary())
	require.Equal(t, nodes[0], first)
	receives := func() {
		t.Helper()
		within(t, "the replica has received all and keeps its delay", func() bool {
			st := observe(t, s.engine, delayed)
			return st.Source == first.Addr && st.Receives && st.Delay == time.Hour &&
				s.engine.Compare(st.Received, observe(t, s.engine, first).Applied) == replication.Equal
		})
	}
	receives()
	exec(t, first.app(t), "INSERT INTO app.t VALUES (1, 'x')")
	receives()
	const tables = "SELECT COUNT(*) FROM information_schema.tables WHERE table_schema = 'app'"
	require.Equal(t, "0", one(t, delayed.admin(t), tables))

	exec(t, delayed.admin(t), "STOP SLAVE", "RESET SLAVE ALL", "RESET MASTER", "SET GLOBAL gtid_slave_pos = ''")
	within(t, "the replica has been seeded", func() bool { return one(t, delayed.admin(t), tables) == "1" })
	receives()
	exec(t, first.app(t), "INSERT INTO app.t VALUES (2, 'y')")
	receives()
	require.Equal(t, "1", one(t, delayed.admin(t), "SELECT COUNT(*) FROM app.t"))
	within(t, "the other one has it", func() bool { return one(t, nodes[2].admin(t), "SELECT COUNT(*) FROM app.t") == "2" })
	require.NoError(t, first.Kill(t.Context()))
	within(t, "the other one is promoted", func() bool { return s.primary() == nodes[2].Member.ID })
	first = nodes[2]
	receives()
	require.Equal(t, "1", one(t, delayed.admin(t), "SELECT COUNT(*) FROM app.t"))
}
