package mysql_test

import (
	"context"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/scalr-go/scalr/replication"
	"github.com/scalr-go/scalr/replication/mysql"
)

// watch runs a Manager over servers until the function is called, or the end of the test.
func watch(t *testing.T, c mysql.Config, nodes ...*node) (m *replication.Manager, stop func()) {
	t.Helper()
	return watchUnder(t, 0, c, nodes...)
}

// watchUnder makes it run under a lease with that token.
func watchUnder(t *testing.T, token uint64, c mysql.Config, nodes ...*node) (m *replication.Manager, stop func()) {
	t.Helper()
	m, err := replication.New(replication.Config{Name: "test/db", Engine: engine(t, c, nodes...), Interval: 50 * time.Millisecond})
	require.NoError(t, err)
	m.SetMembers(membersOf(nodes), len(nodes))
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- m.RunUnder(ctx, token) }()
	stop = sync.OnceFunc(func() { cancel(); <-done })
	t.Cleanup(stop)
	return m, stop
}

func membersOf(nodes []*node) (members []replication.Member) {
	for _, n := range nodes {
		members = append(members, n.Member)
	}
	return members
}

// holds is what a server has and is, but for data.
func holds(t *testing.T, n *node) string {
	t.Helper()
	db := n.admin(t)
	defer db.Close()
	var all []string
	for _, query := range []string{
		"SELECT GROUP_CONCAT(schema_name ORDER BY schema_name) FROM information_schema.schemata",
		"SELECT GROUP_CONCAT(CONCAT_WS('.', table_schema, table_name) ORDER BY table_schema, table_name) FROM information_schema.tables",
		"SELECT GROUP_CONCAT(CONCAT_WS(' ', user, host, priv) ORDER BY user, host) FROM mysql.global_priv",
		"SELECT CONCAT_WS(' ', @@gtid_binlog_state, @@gtid_slave_pos, @@read_only, @@rpl_semi_sync_master_enabled, @@rpl_semi_sync_slave_enabled)",
		"SELECT COUNT(*) FROM information_schema.processlist WHERE command LIKE 'Slave%'",
	} {
		all = append(all, one(t, db, query))
	}
	return strings.Join(all, "\n")
}

// names checks that a Manager says what is wrong with a member, and changes nothing on any server.
func names(t *testing.T, c mysql.Config, nodes []*node, id string, words ...string) {
	t.Helper()
	var before, after []string
	for _, n := range nodes {
		before = append(before, holds(t, n))
	}
	m, stop := watch(t, c, nodes...)
	says(t, m, id, words...)
	time.Sleep(300 * time.Millisecond) // it goes on looking
	stop()
	for _, n := range nodes {
		after = append(after, holds(t, n))
	}
	require.Equal(t, before, after)
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
	pair := nodes[:2]
	t.Run("wrong password", func(t *testing.T) {
		wrong := config
		wrong.Password = "not it"
		names(t, wrong, pair, "db-1", "wrong password", "create it as BootstrapSQL does")
	})
	t.Run("missing privilege", func(t *testing.T) {
		for _, n := range pair {
			exec(t, n.admin(t), "SET sql_log_bin=0; CREATE USER weak@'%' IDENTIFIED BY 'w'; GRANT REPLICATION SLAVE ON *.* TO weak@'%'")
		}
		weak := config
		weak.User, weak.Password = "weak", "w"
		names(t, weak, pair, "db-2", "lacks a privilege", "grant it what BootstrapSQL does")
	})
	t.Run("another server", func(t *testing.T) {
		other := start(t, 1, "version = 8.0.25")[0]
		other.Member.ID = "db-9"
		names(t, config, []*node{other}, "db-9", "the server is too old, or no server that this engine knows")
	})
	t.Run("one server_id", func(t *testing.T) {
		id := one(t, nodes[0].admin(t), "SELECT @@server_id")
		own := one(t, nodes[1].admin(t), "SELECT @@server_id")
		exec(t, nodes[1].admin(t), "SET GLOBAL server_id = "+id)
		names(t, config, pair, "db-2", "it is the same server as db-1", "give each an identity of its own")
		exec(t, nodes[1].admin(t), "SET GLOBAL server_id = "+own)
	})
	t.Run("foreign data", func(t *testing.T) {
		theirs := nodes[2]
		exec(t, theirs.admin(t), "CREATE SCHEMA theirs", "CREATE TABLE theirs.t (i INT)", "INSERT INTO theirs.t VALUES (1)")
		before := holds(t, theirs)
		m, stop := watch(t, config, pair...)
		within(t, "there is a primary with a replica", func() bool {
			top, _ := m.Topology()
			x, _ := top.Member("db-2")
			return top.Primary == "db-1" && x.Role == replication.RoleReplica
		})
		exec(t, nodes[0].app(t), "CREATE SCHEMA app", "CREATE TABLE app.t (i INT PRIMARY KEY)")
		m.SetMembers(membersOf(nodes), 3)
		says(t, m, "db-3", "it holds data that is not of this set", "empty it or remove it")
		time.Sleep(300 * time.Millisecond)
		stop()
		require.Equal(t, before, holds(t, theirs))
		require.Equal(t, "1", one(t, theirs.admin(t), "SELECT COUNT(*) FROM theirs.t"))
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
