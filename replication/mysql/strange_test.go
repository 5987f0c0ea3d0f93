package mysql_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/scalr-go/scalr/replication"
)

// Under Durability a replica that hung before it died is no reason to refuse for ever: what it may have acknowledged the primary had
// when it was seen later, and it has refused connections since.
func TestManagerExcusesAReplicaThatHungAndDied(t *testing.T) {
	s := pools(t, 2, replication.Config{Policy: replication.Durability})
	stop := s.write(4)
	defer stop()
	east := s.nodes[:2]
	require.NoError(t, east[1].Hang(t.Context()))
	s.is(t, east[1], replication.RoleDown)
	require.NoError(t, east[1].Kill(t.Context()))
	time.Sleep(2 * time.Second)
	s.more(t, 500)
	require.NoError(t, east[0].Kill(t.Context()))
	require.Equal(t, "west", s.node(s.takesOver(t, "db-1")).Member.Pool)
	top, _ := s.manager.Topology()
	require.Equal(t, replication.LossNone, top.Verdict.Loss, top.Verdict.String())
	require.Zero(t, s.lost(t))
}

// A server of another set, which was named by mistake, keeps its own set's record, and that set's verdict is not this one's; its
// Manager is not overtaken.
func TestManagerLeavesAForeignRecordAlone(t *testing.T) {
	nodes := start(t, 2)
	theirs := nodes[1]
	exec(t, theirs.admin(t), "CREATE SCHEMA theirs", "CREATE TABLE theirs.t (i INT)", "INSERT INTO theirs.t VALUES (1)")
	const record = `{"number":99,"verdict":{"epoch":7,"from":"their-1","to":"their-2","reason":"theirs","loss":"none"}}`
	e := engine(t, config, nodes...)
	require.NoError(t, e.Record(t.Context(), theirs.Member, record))
	theirs.Member.Token = 3
	require.NoError(t, e.Claim(t.Context(), theirs.Member))
	m, stop := watchUnder(t, 8, config, nodes[0])
	within(t, "there is a primary", func() bool { top, _ := m.Topology(); return top.Primary == "db-1" })
	exec(t, nodes[0].app(t), "CREATE SCHEMA app", "CREATE TABLE app.t (i INT PRIMARY KEY)")
	m.SetMembers(membersOf(nodes), 2)
	says(t, m, "db-2", "it holds data that is not of this set", "empty it or remove it")
	time.Sleep(time.Second)
	stop()
	text, err := e.Recorded(t.Context(), theirs.Member)
	require.NoError(t, err)
	require.Equal(t, record, text)

	again, _ := watchUnder(t, 9, config, nodes...)
	says(t, again, "db-2", "it holds data that is not of this set")
	top, _ := again.Topology()
	require.Nil(t, top.Verdict)
	require.NoError(t, e.Claim(t.Context(), theirs.Member))
	ours := nodes[0].Member
	ours.Token = 3
	require.ErrorIs(t, e.Claim(t.Context(), ours), replication.ErrOvertaken)
}
