package mysql_test

import (
	"context"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/scalr-go/scalr/replication"
	"github.com/scalr-go/scalr/replication/mysql"
)

// watch runs a Manager over members until the end of the test.
func watch(t *testing.T, c mysql.Config, members []replication.Member, nodes ...*node) *replication.Manager {
	t.Helper()
	m, err := replication.New(replication.Config{Name: "test/db", Engine: engine(t, c, nodes...)})
	require.NoError(t, err)
	m.SetMembers(members, len(members))
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- m.Run(ctx) }()
	t.Cleanup(func() { cancel(); <-done })
	return m
}

// says waits until the topology names a member and says the words about it.
func says(t *testing.T, m *replication.Manager, id string, words ...string) {
	t.Helper()
	var text string
	within(t, id+" is said to be wrong", func() bool {
		top, _ := m.Topology()
		x, _ := top.Member(id)
		text = strings.Join(append(slices.Clone(top.Held), x.Error), "\n")
		for _, w := range append(words, id) {
			if !strings.Contains(text, w) {
				return false
			}
		}
		return true
	})
	require.NotContains(t, text, config.Password)
	t.Log(text)
}

// What a person has to put right is said with the member's name and what to do, and changes nothing.
func TestManagerNamesWhatIsWrong(t *testing.T) {
	nodes := start(t, 3)
	members := []replication.Member{nodes[0].Member, nodes[1].Member}
	t.Run("wrong password", func(t *testing.T) {
		wrong := config
		wrong.Password = "not it"
		m := watch(t, wrong, members, nodes...)
		says(t, m, "db-1", "wrong password", "create it as BootstrapSQL does")
	})
	t.Run("missing privilege", func(t *testing.T) {
		exec(t, nodes[0].admin(t), "SET sql_log_bin=0; CREATE USER weak@'%' IDENTIFIED BY 'w'; GRANT REPLICATION SLAVE ON *.* TO weak@'%'")
		exec(t, nodes[1].admin(t), "SET sql_log_bin=0; CREATE USER weak@'%' IDENTIFIED BY 'w'; GRANT REPLICATION SLAVE ON *.* TO weak@'%'")
		weak := config
		weak.User, weak.Password = "weak", "w"
		m := watch(t, weak, members, nodes...)
		says(t, m, "db-2", "lacks a privilege", "grant it what BootstrapSQL does")
	})
	t.Run("another server", func(t *testing.T) {
		other := start(t, 1, "version = 8.0.25")[0]
		other.Member.ID = "db-9"
		m := watch(t, config, []replication.Member{other.Member}, other)
		says(t, m, "db-9", "the server is too old, or no server that this engine knows")
	})
	t.Run("one server_id", func(t *testing.T) {
		id := one(t, nodes[0].admin(t), "SELECT @@server_id")
		own := one(t, nodes[1].admin(t), "SELECT @@server_id")
		exec(t, nodes[1].admin(t), "SET GLOBAL server_id = "+id)
		m := watch(t, config, members, nodes...)
		says(t, m, "db-2", "it is the same server as db-1", "give each an identity of its own")
		exec(t, nodes[1].admin(t), "SET GLOBAL server_id = "+own)
	})
	for _, n := range nodes[:2] {
		require.Equal(t, "", one(t, n.admin(t), "SELECT @@gtid_binlog_state"))
		require.Equal(t, "1", one(t, n.admin(t), "SELECT @@read_only"))
	}
	t.Run("foreign data", func(t *testing.T) {
		exec(t, nodes[2].admin(t), "CREATE SCHEMA theirs", "CREATE TABLE theirs.t (i INT)", "INSERT INTO theirs.t VALUES (1)")
		m := watch(t, config, members, nodes...)
		within(t, "there is a primary with a replica", func() bool {
			top, _ := m.Topology()
			x, _ := top.Member("db-2")
			return top.Primary == "db-1" && x.Role == replication.RoleReplica
		})
		exec(t, nodes[0].app(t), "CREATE SCHEMA app", "CREATE TABLE app.t (i INT PRIMARY KEY)")
		before := one(t, nodes[2].admin(t), "SELECT @@gtid_binlog_state")
		m.SetMembers(append(members, nodes[2].Member), 3)
		says(t, m, "db-3", "it holds data that is not of this set", "empty it or remove it")
		require.Equal(t, before, one(t, nodes[2].admin(t), "SELECT @@gtid_binlog_state"))
		require.Equal(t, "1", one(t, nodes[2].admin(t), "SELECT COUNT(*) FROM theirs.t"))
	})
}

// What was written to a replica behind the primary's back is found, and the replica is not promoted while there is another one.
func TestManagerFindsErrantTransactions(t *testing.T) {
	s := manage(t, 3, replication.Config{})
	s.equal(t)
	first := s.primary()
	replica := s.nodes[slices.IndexFunc(s.nodes, func(n *node) bool { return n.Member.ID != first })]
	exec(t, replica.admin(t), "INSERT INTO app.t VALUES (77, 'errant')")
	exec(t, s.node(first).app(t), "INSERT INTO app.t VALUES (78, 'x')")
	says(t, s.manager, replica.Member.ID, "somebody wrote to it")
	require.NoError(t, s.node(first).Kill(t.Context()))
	within(t, "another one is promoted", func() bool { p := s.primary(); return p != "" && p != first })
	require.NotEqual(t, replica.Member.ID, s.primary())
}
