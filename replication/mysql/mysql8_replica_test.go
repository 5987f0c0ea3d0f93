package mysql_test

import (
	"context"
	"database/sql/driver"
	"errors"
	"fmt"
	"io"
	"testing"
	"time"

	sqldriver "github.com/go-sql-driver/mysql"
	"github.com/stretchr/testify/require"

	"github.com/scalr-go/scalr/replication"
	"github.com/scalr-go/scalr/replication/mysql"
)

// What was received and not applied when the primary died is applied, whatever the replica's threads did.
func TestMySQL8DrainsWhatWasReceived(t *testing.T) {
	t.Run("delayed", func(t *testing.T) {
		testDrain8(t, time.Hour, func(r *replica8) { r.delay = 3600 })
	})
	t.Run("stopped", func(t *testing.T) {
		testDrain8(t, 0, func(r *replica8) { r.sql = false })
	})
}

func testDrain8(t *testing.T, delay time.Duration, hold func(*replica8)) {
	e, f, m := pair8(t)
	f[1].with(func() { hold(f[1].replica) })
	for i := range 20 {
		require.NoError(t, put8(t.Context(), m[0], fmt.Sprint("row", i)))
	}
	want := replication.Position(f[0].uuid + ":1-21")
	within(t, "all is received", func() bool {
		st, err := e.Observe(t.Context(), m[1])
		return err == nil && st.Received == want && st.Delay == delay
	})
	f[0].Kill()
	f[1].Kill()
	f[1].Restart()
	require.ErrorIs(t, e.Promote(t.Context(), m[1], false), replication.ErrUnsafe)
	at, err := e.Drain(t.Context(), m[1])
	require.NoError(t, err)
	require.Equal(t, want, at)
	st, err := e.Observe(t.Context(), m[1])
	require.NoError(t, err)
	require.Equal(t, want, st.Applied)
	require.Zero(t, st.Delay)
	require.Equal(t, m[0].Addr, st.Source)
	require.NoError(t, e.Promote(t.Context(), m[1], false))
	require.NoError(t, put8(t.Context(), m[1], "next"))
}

// What was received is applied before the relay logs are given up, although the primary has it too.
func TestMySQL8FollowDrainsFirst(t *testing.T) {
	e, f, m := pair8(t)
	f[1].with(func() { f[1].replica.sql = false })
	require.NoError(t, put8(t.Context(), m[0], "late"))
	within(t, "it is received", func() bool {
		st, err := e.Observe(t.Context(), m[1])
		return err == nil && st.Received != st.Applied
	})
	require.NoError(t, e.Follow(t.Context(), m[1], m[0])) // the fake objects if it loses something
	f[1].with(func() { require.Contains(t, f[1].data, "late") })
}

// A delayed replica that is told to follow keeps its delay, and asks its source again for what it has not applied.
func TestMySQL8FollowKeepsTheDelay(t *testing.T) {
	e, f, m := pair8(t)
	f[1].with(func() { f[1].replica.delay = 3600 })
	require.NoError(t, put8(t.Context(), m[0], "late"))
	f[1].Kill()
	f[1].Restart()
	require.NoError(t, e.Follow(t.Context(), m[1], m[0]))
	within(t, "it is received again", func() bool {
		st, err := e.Observe(t.Context(), m[1])
		require.NoError(t, err)
		require.Equal(t, time.Hour, st.Delay)
		return st.Receives && st.Received == replication.Position(f[0].uuid+":1-2") && st.Applied != st.Received
	})
}

// A commit that waits for an acknowledgement is part of what the primary has: a replica that has it too has nothing of its
// own.
func TestMySQL8FollowWhileACommitWaits(t *testing.T) {
	e, f, m := pair8(t)
	require.NoError(t, e.SetSemiSync(t.Context(), m[0], true))
	f[1].with(func() { f[1].vars["rpl_semi_sync_replica_enabled"] = "OFF" })
	done := make(chan error, 1)
	ctx, cancel := context.WithCancel(t.Context())
	defer func() { cancel(); <-done }()
	go func() { done <- put8(ctx, m[0], "waiting") }()
	f[1].has(t, "waiting")
	require.NoError(t, e.Follow(t.Context(), m[1], m[0]))
	st, err := e.Observe(t.Context(), m[0])
	require.NoError(t, err)
	require.Equal(t, 1, st.Unacked)
	require.Equal(t, replication.Position(f[0].uuid+":1-2"), st.Applied)
}

// Where semi-synchronous replication is on, switching it on ends the sessions of commits that have long waited.
func TestMySQL8EndsLostWaits(t *testing.T) {
	e, f, m := pair8(t)
	require.NoError(t, e.SetSemiSync(t.Context(), m[0], true))
	f[1].with(func() { f[1].replica.io = false })
	done := make(chan error, 1)
	go func() { done <- put8(t.Context(), m[0], "x") }()
	within(t, "the commit is ended", func() bool {
		require.NoError(t, e.SetSemiSync(t.Context(), m[0], true))
		select {
		case err := <-done:
			require.Error(t, err)
			return true
		default:
			return false
		}
	})
	st, err := e.Observe(t.Context(), m[0])
	require.NoError(t, err)
	require.True(t, st.SemiSync, "%+v", st)
}

// A commit whose session Fence spares is acknowledged to it by nothing but a replica, whatever Fence does with others.
func TestMySQL8FenceAcknowledgesNothing(t *testing.T) {
	e, f, m := set8(t, "8.4.3", 1)
	require.NoError(t, e.Promote(t.Context(), m[0], true))
	own, err := openAs8(t.Context(), m[0], config.User, config.Password)
	require.NoError(t, err)
	defer own.Close()
	spared, cut := make(chan error, 1), make(chan error, 1)
	go func() { spared <- own.Write(t.Context(), "own", "1") }()
	go func() { cut <- put8(t.Context(), m[0], "other") }()
	within(t, "both wait", func() bool {
		st, err := e.Observe(t.Context(), m[0])
		return err == nil && st.Unacked == 2
	})
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	require.ErrorIs(t, e.Fence(ctx, m[0]), context.DeadlineExceeded)
	require.Error(t, <-cut)
	select {
	case err := <-spared:
		t.Fatalf("the commit ended: %v", err)
	default:
	}
	f[0].Kill()
	require.Error(t, <-spared)
}

func TestMySQL8FollowSaysWhatIsWrong(t *testing.T) {
	e, f, m := set8(t, "8.0.36", 2)
	require.NoError(t, e.Promote(t.Context(), m[0], false))
	require.NoError(t, put8(t.Context(), m[0], "x"))
	fails := func(why string, words ...string) error {
		t.Helper()
		err := e.Follow(t.Context(), m[1], m[0])
		for _, w := range append(words, "db-2") {
			require.ErrorContains(t, err, w, why)
		}
		require.NotContains(t, err.Error(), config.ReplicationPassword)
		return err
	}
	set := func(of int, name, value string) (restore func()) {
		old := f[of].vars[name]
		f[of].with(func() { f[of].vars[name] = value })
		return func() { f[of].with(func() { f[of].vars[name] = old }) }
	}
	restore := set(1, "server_id", f[0].vars["server_id"])
	fails("one server_id", "the same server_id 1", "db-1")
	restore()
	restore = set(1, "server_uuid", f[0].uuid)
	fails("one server_uuid", "the same server_uuid", "auto.cnf")
	restore()
	restore = set(0, "gtid_mode", "OFF_PERMISSIVE")
	fails("no GTIDs", "the primary db-1", "gtid_mode = ON")
	restore()
	restore = set(1, "log_replica_updates", "OFF")
	fails("no log", "log_replica_updates")
	restore()
	f[1].with(func() { delete(f[1].vars, "rpl_semi_sync_replica_enabled") })
	fails("no plugin", "semisync_replica.so", "ServerConfMySQL8")
	f[1].with(func() { f[1].vars["rpl_semi_sync_replica_enabled"] = "ON" })
	f[0].with(func() {
		f[0].accounts[config.ReplicationUser] = account8{"another", map[string]bool{"REPLICATION SLAVE": true}}
	})
	require.ErrorIs(t, fails("wrong password", "refuses the replication account"), replication.ErrAccess)
	// Where there is no such account it is made, also on a primary that is read-only itself.
	f[0].with(func() { delete(f[0].accounts, config.ReplicationUser) })
	require.NoError(t, e.Fence(t.Context(), m[0]))
	require.NoError(t, e.Follow(t.Context(), m[1], m[0]))
	f[1].has(t, "x")
	f[0].with(func() { require.Equal(t, "ON", f[0].vars["super_read_only"]) })

	require.NoError(t, e.Promote(t.Context(), m[0], false))
	f[1].Kill()
	require.NoError(t, put8(t.Context(), m[0], "y"))
	f[0].with(func() { f[0].log = nil }) // PURGE BINARY LOGS
	f[1].Restart()
	require.ErrorIs(t, fails("purged", "purged required binary logs", "seed it again"), replication.ErrDiverged)
}

func TestMySQL8WithoutPlugins(t *testing.T) {
	e, f, m := set8(t, "8.0.36", 1)
	f[0].with(func() {
		for name := range f[0].vars {
			if len(name) > 13 && name[:13] == "rpl_semi_sync" {
				delete(f[0].vars, name)
			}
		}
	})
	require.ErrorContains(t, e.Promote(t.Context(), m[0], true), "semisync_source.so")
	st, err := e.Observe(t.Context(), m[0])
	require.NoError(t, err)
	require.False(t, st.Writable)
	require.NoError(t, e.Promote(t.Context(), m[0], false))
	require.NoError(t, put8(t.Context(), m[0], "x"))
}

func TestMySQL8SeedRefuses(t *testing.T) {
	e, f, m := pair8(t)
	refuses := func(of, from replication.Member, words string) error {
		t.Helper()
		before, err := e.Observe(t.Context(), of)
		require.NoError(t, err)
		_, err = e.Seed(t.Context(), of, from, nil)
		require.ErrorContains(t, err, words)
		after, err2 := e.Observe(t.Context(), of)
		require.NoError(t, err2)
		require.Equal(t, before.Received, after.Received)
		require.False(t, after.Empty)
		return err
	}
	require.ErrorIs(t, refuses(m[0], m[1], "it takes writes"), replication.ErrUnsafe)
	refuses(m[1], m[1], "its own source")
	require.NoError(t, e.Fence(t.Context(), m[0]))
	require.ErrorIs(t, refuses(m[0], m[1], "the source db-2 follows it"), replication.ErrUnsafe)
	f[1].with(func() { f[1].vars["server_id"] = f[0].vars["server_id"] })
	refuses(m[1], m[0], "the same server_id")
	_, err := e.Import(t.Context(), m[1], e, m[0], nil, nil)
	require.ErrorContains(t, err, "it runs MySQL, which is copied within a set only")
	_, err = e.Backup(t.Context(), m[0], io.Discard, nil)
	require.ErrorIs(t, err, errors.ErrUnsupported)
	_, err = e.Restore(t.Context(), m[1], nil, nil, nil)
	require.ErrorIs(t, err, errors.ErrUnsupported)
	_, err = e.Save(t.Context(), m[1], m[0], io.Discard)
	require.ErrorIs(t, err, errors.ErrUnsupported)
	require.ErrorContains(t, err, "transactions of MySQL can be neither saved nor taken back")
	require.ErrorIs(t, e.Rewind(t.Context(), m[1], m[0], "", nil), errors.ErrUnsupported)
}

// A clone that breaks off leaves an empty server, which can neither be promoted nor followed from half a copy.
func TestMySQL8SeedWhoseSourceDies(t *testing.T) {
	e, f, m := pair8(t)
	f[0].with(func() { f[0].w.cloning = time.Hour })
	_, err := e.Seed(t.Context(), m[1], m[0], func(p replication.Progress) {
		if p.Done > 0 {
			f[0].Kill()
		}
	})
	require.Error(t, err)
	f[0].with(func() { f[0].w.cloning = 0 })
	st, err := e.Observe(t.Context(), m[1])
	require.NoError(t, err)
	require.True(t, st.Empty && !st.Writable && st.Source == "" && st.Received == "", "%+v", st)
	f[0].Restart()
	require.NoError(t, e.Promote(t.Context(), m[0], false))
	at, err := e.Seed(t.Context(), m[1], m[0], nil)
	require.NoError(t, err)
	require.Equal(t, replication.Position(f[0].uuid+":1"), at)
	require.NoError(t, e.Follow(t.Context(), m[1], m[0]))
	require.NoError(t, put8(t.Context(), m[0], "z"))
	f[1].has(t, "z")
}

// An application's driver finds the primary of either kind, and waits on a replica for what it has written.
func TestMySQL8Client(t *testing.T) {
	_, f, m := pair8(t)
	c := sqldriver.NewConfig()
	c.User, c.Passwd = appUser, appPassword
	client, err := mysql.NewClient(c)
	require.NoError(t, err)
	var conns []driver.Conn
	for i := range m {
		conn, err := client.Connect(t.Context(), m[i].Addr, false)
		require.NoError(t, err)
		defer conn.Close()
		writable, err := client.Writable(t.Context(), conn)
		require.NoError(t, err)
		require.Equal(t, i == 0, writable)
		conns = append(conns, conn)
	}
	before, err := client.Position(t.Context(), conns[1], false)
	require.NoError(t, err)
	f[1].with(func() { f[1].replica.sql = false })
	require.NoError(t, put8(t.Context(), m[0], "mine"))
	token, err := client.Position(t.Context(), conns[0], true)
	require.NoError(t, err)
	require.Equal(t, replication.Position(f[0].uuid+":1-2"), token)
	require.True(t, client.Contains(token, before) && !client.Contains(before, token) && client.Contains(token, "") && !client.Contains("", token))
	require.False(t, client.Contains(token, "0-1-1") || client.Contains("0-1-1", token))
	done, err := client.Await(t.Context(), conns[1], token, 0)
	require.NoError(t, err)
	require.False(t, done)
	f[1].with(func() { f[1].replica.sql = true })
	done, err = client.Await(t.Context(), conns[1], token, time.Minute)
	require.NoError(t, err)
	require.True(t, done)
	err = put8(t.Context(), m[1], "no")
	require.True(t, client.Rejected(err), "%v", err)
}

// The copy of a replica follows nobody until it is told to.
func TestMySQL8SeedOfAReplica(t *testing.T) {
	e, f, m := set8(t, "8.0.36", 3)
	require.NoError(t, e.Promote(t.Context(), m[0], false))
	require.NoError(t, e.Follow(t.Context(), m[1], m[0]))
	require.NoError(t, put8(t.Context(), m[0], "x"))
	f[1].has(t, "x")
	_, err := e.Seed(t.Context(), m[2], m[1], nil)
	require.NoError(t, err)
	st, err := e.Observe(t.Context(), m[2])
	require.NoError(t, err)
	require.Empty(t, st.Source)
	f[2].has(t, "x")
	f[2].with(func() { require.Equal(t, "ON", f[2].vars["super_read_only"]) })
}
