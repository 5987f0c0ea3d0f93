package mysql_test

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/scalr-go/scalr/replication"
)

func TestFollowRefuses(t *testing.T) {
	nodes := start(t, 2)
	primary, m := nodes[0], nodes[1]
	e := engine(t, config, nodes...)
	require.NoError(t, e.Promote(t.Context(), primary.Member, false))
	exec(t, primary.app(t), "CREATE SCHEMA app")
	before := observe(t, e, m)
	refused := func(t *testing.T, other *node, text ...string) error {
		t.Helper()
		err := e.Follow(t.Context(), m.Member, other.Member)
		require.Error(t, err)
		for _, s := range append(text, "follow db-2 ("+m.Addr+")") {
			require.ErrorContains(t, err, s)
		}
		after := observe(t, e, m)
		after.Uptime = before.Uptime
		require.Equal(t, before, after, "it was changed")
		return err
	}
	t.Run("itself", func(t *testing.T) { refused(t, m, "cannot follow itself") })
	t.Run("a primary that is down", func(t *testing.T) {
		gone := *primary
		gone.Member.Addr, gone.Member.ID = "127.88.7.9:3306", "db-9"
		defer e.Close(gone.Member)
		require.ErrorIs(t, refused(t, &gone, "the primary db-9 (127.88.7.9:3306)"), replication.ErrRefused)
	})
	t.Run("a primary with the same server_id", func(t *testing.T) {
		id := one(t, m.admin(t), "SELECT @@server_id")
		twin := start(t, 1, "server_id = "+id)[0]
		twin.Member.ID = "db-3"
		defer e.Close(twin.Member)
		refused(t, twin, "it and the primary db-3 have the same server_id "+id, "my.cnf")
	})
	t.Run("a primary without a binary log", func(t *testing.T) {
		bare := start(t, 1, "skip_log_bin")[0]
		bare.Member.ID = "db-3"
		defer e.Close(bare.Member)
		refused(t, bare, "the primary db-3 has no binary log", "log_bin")
		err := e.Follow(t.Context(), bare.Member, primary.Member)
		require.ErrorContains(t, err, "could never be promoted")
	})
	t.Run("a primary that is half a copy", func(t *testing.T) {
		half := start(t, 1)[0]
		half.Member.ID = "db-3"
		defer e.Close(half.Member)
		exec(t, half.admin(t), "SET sql_log_bin=0; CREATE SCHEMA scalr_seeding")
		refused(t, half, "the primary db-3 holds a part of a copy")
		require.ErrorContains(t, e.Follow(t.Context(), half.Member, primary.Member), "it holds a part of a copy: seed it again")
		require.ErrorIs(t, e.Promote(t.Context(), half.Member, false), replication.ErrUnsafe)
	})
	t.Run("a loop", func(t *testing.T) {
		require.NoError(t, e.Follow(t.Context(), m.Member, primary.Member))
		caughtUp(t, e, m, primary)
		err := e.Follow(t.Context(), primary.Member, m.Member)
		require.ErrorContains(t, err, "the primary db-2 follows it")
		require.True(t, observe(t, e, primary).Writable)
	})
}

// The account for replication is created on the primary alone, or its refusal is told.
func TestFollowAndTheReplicationAccount(t *testing.T) {
	nodes := start(t, 2)
	primary, m := nodes[0], nodes[1]
	e := engine(t, config, nodes...)
	exec(t, primary.admin(t), "SET sql_log_bin=0; DROP USER scalr_repl@'%'")
	require.NoError(t, e.Follow(t.Context(), m.Member, primary.Member))
	within(t, "it receives", func() bool { return observe(t, e, m).Receives })
	require.Empty(t, observe(t, e, primary).Applied)

	exec(t, m.admin(t), "STOP SLAVE")
	exec(t, primary.admin(t), "SET sql_log_bin=0; ALTER USER scalr_repl@'%' IDENTIFIED BY 'another'")
	err := e.Follow(t.Context(), m.Member, primary.Member)
	require.ErrorIs(t, err, replication.ErrAccess)
	require.ErrorContains(t, err, `the primary db-1 refuses the replication account "scalr_repl"`)
	require.NotContains(t, err.Error(), "re'pl")
}

func TestFollowAgainChangesNothing(t *testing.T) {
	e, primary, replica := pair(t)
	const thread = "SELECT GROUP_CONCAT(id ORDER BY id) FROM information_schema.processlist WHERE user='system user'"
	before := one(t, replica.admin(t), thread)
	require.NoError(t, e.Follow(t.Context(), replica.Member, primary.Member))
	require.Equal(t, before, one(t, replica.admin(t), thread))
	// but what is wrong is put right
	for _, wrong := range []string{"STOP SLAVE IO_THREAD", "STOP SLAVE SQL_THREAD", "STOP SLAVE", "SET GLOBAL read_only=0",
		"SET GLOBAL rpl_semi_sync_slave_enabled=0", "SET GLOBAL rpl_semi_sync_master_enabled=1",
		"STOP SLAVE; CHANGE MASTER TO MASTER_USE_GTID=no; START SLAVE"} {
		exec(t, replica.admin(t), wrong)
		exec(t, primary.app(t), "INSERT INTO app.t (v) VALUES ('x')")
		require.NoError(t, e.Follow(t.Context(), replica.Member, primary.Member), wrong)
		caughtUp(t, e, replica, primary)
		st := observe(t, e, replica)
		require.True(t, st.Receives && st.Applies && !st.Writable, "%s: %+v", wrong, st)
		require.Equal(t, "1", one(t, replica.admin(t), "SELECT @@global.rpl_semi_sync_slave_enabled"), wrong)
		require.Equal(t, "0", one(t, replica.admin(t), "SELECT @@global.rpl_semi_sync_master_enabled"), wrong)
	}
}

// A primary that was fenced and has nothing of its own goes on where it was, though its successor no longer has the
// binary logs from before.
func TestFollowOfADemotedPrimary(t *testing.T) {
	e, old, next := pair(t)
	exec(t, old.app(t), "INSERT INTO app.t (v) VALUES ('x')")
	require.NoError(t, e.Fence(t.Context(), old.Member))
	caughtUp(t, e, next, old)
	_, err := e.Drain(t.Context(), next.Member)
	require.NoError(t, err)
	require.NoError(t, e.Promote(t.Context(), next.Member, false))
	purge(t, next)
	exec(t, next.app(t), "INSERT INTO app.t (v) VALUES ('y')")
	require.NoError(t, e.Follow(t.Context(), old.Member, next.Member))
	caughtUp(t, e, old, next)
	require.Equal(t, "2", one(t, old.app(t), "SELECT COUNT(*) FROM app.t"))
}

// purge leaves the server with an empty binary log.
func purge(t testing.TB, n *node) {
	t.Helper()
	db := n.admin(t)
	exec(t, db, "FLUSH BINARY LOGS")
	within(t, "the log is purged", func() bool {
		exec(t, db, "PURGE BINARY LOGS BEFORE NOW() + INTERVAL 1 DAY")
		rows, err := db.Query("SHOW BINARY LOGS")
		require.NoError(t, err)
		defer rows.Close()
		files := 0
		for rows.Next() {
			files++
		}
		return files == 1
	})
}

// A primary whose binary logs no longer reach back to the replica's position cannot be followed: the replica is seeded.
func TestFollowWhereBinaryLogsArePurged(t *testing.T) {
	e, primary, replica := pair(t)
	exec(t, replica.admin(t), "STOP SLAVE")
	exec(t, primary.app(t), "INSERT INTO app.t (v) VALUES ('x')")
	purge(t, primary)
	err := e.Follow(t.Context(), replica.Member, primary.Member)
	require.ErrorIs(t, err, replication.ErrDiverged)
	require.ErrorContains(t, err, "seed it again")
	_, err = e.Seed(t.Context(), replica.Member, primary.Member, nil)
	require.NoError(t, err)
	require.NoError(t, e.Follow(t.Context(), replica.Member, primary.Member))
	caughtUp(t, e, replica, primary)
	require.Equal(t, "1", one(t, replica.app(t), "SELECT COUNT(*) FROM app.t"))
}

// A tail that the old primary wrote before it died is found before anything is changed, also where the new primary has
// higher numbers by then.
func TestFollowFindsATail(t *testing.T) {
	e, old, next := pair(t)
	exec(t, next.admin(t), "STOP SLAVE")
	exec(t, old.app(t), "INSERT INTO app.t (v) VALUES ('tail')")
	require.NoError(t, old.Kill(t.Context()))
	_, err := e.Drain(t.Context(), next.Member)
	require.NoError(t, err)
	require.NoError(t, e.Promote(t.Context(), next.Member, false))
	for range 3 {
		exec(t, next.app(t), "INSERT INTO app.t (v) VALUES ('new')")
	}
	require.NoError(t, old.Start(t.Context()))
	before := observe(t, e, old)
	err = e.Follow(t.Context(), old.Member, next.Member)
	require.ErrorIs(t, err, replication.ErrDiverged)
	require.ErrorContains(t, err, "the primary db-2 lacks 1 of its transactions")
	after := observe(t, e, old)
	after.Uptime = before.Uptime
	require.Equal(t, before, after)
}

// Two domains, as two primaries in two pools have them, stay apart.
func TestTwoDomains(t *testing.T) {
	e, primary, replica := pair(t)
	exec(t, primary.admin(t), "SET GLOBAL gtid_domain_id=7")
	exec(t, primary.app(t), "INSERT INTO app.t (v) VALUES ('x')")
	exec(t, replica.admin(t), "STOP SLAVE SQL_THREAD")
	exec(t, primary.app(t), "INSERT INTO app.t (v) VALUES ('y')")
	want := received(t, e, replica, primary)
	require.Contains(t, want, ",7-")
	require.NoError(t, primary.Kill(t.Context()))
	got, err := e.Drain(t.Context(), replica.Member)
	require.NoError(t, err)
	require.Equal(t, replication.Equal, e.Compare(got, want))
	n, exact := e.Count(got, "")
	require.True(t, exact)
	require.EqualValues(t, 4, n)
}

// A replica that lags is drained before it is pointed to another primary: it may be the only one to have what it received.
func TestFollowAppliesRelayLogsFirst(t *testing.T) {
	e, primary, replica := pair(t)
	other := start(t, 1)[0]
	other.Member.ID = "db-3"
	t.Cleanup(func() { e.Close(other.Member) })
	require.NoError(t, e.Follow(t.Context(), other.Member, primary.Member))
	caughtUp(t, e, other, primary)
	exec(t, replica.admin(t), "STOP SLAVE SQL_THREAD")
	exec(t, primary.app(t), "INSERT INTO app.t (v) VALUES ('x')")
	received(t, e, replica, primary)
	caughtUp(t, e, other, primary)
	require.NoError(t, primary.Kill(t.Context()))
	_, err := e.Drain(t.Context(), other.Member)
	require.NoError(t, err)
	require.NoError(t, e.Promote(t.Context(), other.Member, false))

	unlock := lockTable(t, replica)
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	require.ErrorIs(t, e.Follow(ctx, replica.Member, other.Member), context.DeadlineExceeded)
	st := observe(t, e, replica)
	require.True(t, st.Source == primary.Addr && e.Compare(st.Received, st.Applied) == replication.Ahead, "%+v", st)
	unlock()
	require.NoError(t, e.Follow(t.Context(), replica.Member, other.Member))
	require.Equal(t, "1", one(t, replica.app(t), "SELECT COUNT(*) FROM app.t"))
	caughtUp(t, e, replica, other)
}
