package mysql_test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/scalr-go/scalr/replication"
	"github.com/scalr-go/scalr/replication/mysql"
)

// pair is a primary and a replica that has table app.t, with further lines of my.cnf.
func pair(t testing.TB, more ...string) (e *mysql.Engine, primary, replica *node) {
	t.Helper()
	nodes := start(t, 2, more...)
	e = engine(t, config, nodes...)
	primary, replica = nodes[0], nodes[1]
	require.NoError(t, e.Promote(t.Context(), primary.Member, false))
	exec(t, primary.app(t), "CREATE SCHEMA app", "CREATE TABLE app.t (i INT AUTO_INCREMENT PRIMARY KEY, v LONGTEXT)")
	require.NoError(t, e.Follow(t.Context(), replica.Member, primary.Member))
	caughtUp(t, e, replica, primary)
	return e, primary, replica
}

func observe(t testing.TB, e *mysql.Engine, n *node) replication.Status {
	t.Helper()
	st, err := e.Observe(t.Context(), n.Member)
	require.NoError(t, err)
	return st
}

func caughtUp(t testing.TB, e *mysql.Engine, replica, primary *node) {
	t.Helper()
	within(t, "the replica has caught up", func() bool {
		p, st := observe(t, e, primary), observe(t, e, replica)
		return st.Applies && e.Compare(st.Applied, p.Applied) == replication.Equal
	})
}

// received waits until the replica has in its relay logs what the primary has.
func received(t testing.TB, e *mysql.Engine, replica, primary *node) replication.Position {
	t.Helper()
	p := observe(t, e, primary).Applied
	within(t, "the replica has received all", func() bool {
		return e.Compare(observe(t, e, replica).Received, p) == replication.Equal
	})
	return p
}

// Whatever state the replication threads are in, nothing that was received is lost when the primary is gone. Each case
// leaves unapplied relay logs behind and the primary dead.
func TestDrainKeepsRelayLogs(t *testing.T) {
	const rows = 40
	for _, c := range []struct {
		name string
		more []string
		trap func(t *testing.T, e *mysql.Engine, primary, replica *node)
		lost bool // by a person's plain START SLAVE, which shows that the trap is one
	}{
		{name: "the SQL thread is stopped", trap: func(*testing.T, *mysql.Engine, *node, *node) {}},
		{name: "both threads are stopped", lost: true, trap: func(t *testing.T, _ *mysql.Engine, _, replica *node) {
			exec(t, replica.admin(t), "STOP SLAVE")
		}},
		{name: "both threads are stopped, with many relay logs", lost: true, more: []string{"max_relay_log_size = 4096"},
			trap: func(t *testing.T, _ *mysql.Engine, _, replica *node) { exec(t, replica.admin(t), "STOP SLAVE") }},
		{name: "both threads are stopped, with parallel workers", lost: true, more: []string{"slave_parallel_threads = 4"},
			trap: func(t *testing.T, _ *mysql.Engine, _, replica *node) { exec(t, replica.admin(t), "STOP SLAVE") }},
		{name: "the replica was killed and started again", lost: true, trap: func(t *testing.T, _ *mysql.Engine, _, replica *node) {
			require.NoError(t, replica.Kill(t.Context()))
			require.NoError(t, replica.Start(t.Context()))
		}},
		{name: "it was killed after a drain had begun", lost: true, trap: func(t *testing.T, e *mysql.Engine, _, replica *node) {
			lock := lockTable(t, replica)
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			defer cancel()
			_, err := e.Drain(ctx, replica.Member)
			require.ErrorIs(t, err, context.DeadlineExceeded)
			require.ErrorContains(t, err, "has not applied all up to")
			require.NotErrorIs(t, err, replication.ErrHung)
			require.NoError(t, replica.Kill(t.Context()))
			lock()
			require.NoError(t, replica.Start(t.Context()))
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			e, primary, replica := pair(t, c.more...)
			app := primary.app(t)
			exec(t, replica.admin(t), "STOP SLAVE SQL_THREAD")
			for range rows {
				exec(t, app, "INSERT INTO app.t (v) VALUES (REPEAT('x', 500))")
			}
			want := received(t, e, replica, primary)
			require.NoError(t, primary.Kill(t.Context()))
			c.trap(t, e, primary, replica)

			st := observe(t, e, replica)
			require.Equal(t, replication.Equal, e.Compare(st.Received, want), "%+v", st)
			require.Equal(t, replication.Behind, e.Compare(st.Applied, want), "%+v", st)
			require.ErrorIs(t, e.Promote(t.Context(), replica.Member, false), replication.ErrUnsafe)
			for range 2 {
				got, err := e.Drain(t.Context(), replica.Member)
				require.NoError(t, err)
				require.Equal(t, replication.Equal, e.Compare(got, want), "%s, want %s", got, want)
			}
			require.Equal(t, fmt.Sprint(rows), one(t, replica.app(t), "SELECT COUNT(*) FROM app.t"))
			require.NoError(t, e.Promote(t.Context(), replica.Member, false))
			exec(t, replica.app(t), "INSERT INTO app.t (v) VALUES ('after')")
			require.Equal(t, fmt.Sprint(rows+1), one(t, replica.app(t), "SELECT COUNT(*) FROM app.t"))
		})
		if c.lost {
			t.Run(c.name+": a plain start loses them", func(t *testing.T) {
				t.Parallel()
				e, primary, replica := pair(t, c.more...)
				exec(t, replica.admin(t), "STOP SLAVE SQL_THREAD")
				exec(t, primary.app(t), "INSERT INTO app.t (v) VALUES ('lost')")
				received(t, e, replica, primary)
				require.NoError(t, primary.Kill(t.Context()))
				c.trap(t, e, primary, replica)
				exec(t, replica.admin(t), "STOP SLAVE", "CHANGE MASTER TO MASTER_USE_GTID=slave_pos", "START SLAVE SQL_THREAD")
				_, err := e.Drain(t.Context(), replica.Member)
				require.NoError(t, err)
				require.Equal(t, "0", one(t, replica.app(t), "SELECT COUNT(*) FROM app.t"))
			})
		}
	}
}

// What somebody deleted is not waited for, nor claimed.
func TestDrainWithoutRelayLogs(t *testing.T) {
	for _, deletion := range []string{"STOP SLAVE; RESET SLAVE", "STOP SLAVE; CHANGE MASTER TO MASTER_CONNECT_RETRY=2",
		"STOP SLAVE; START SLAVE SQL_THREAD"} {
		t.Run(deletion, func(t *testing.T) {
			t.Parallel()
			e, primary, replica := pair(t)
			exec(t, replica.admin(t), "STOP SLAVE SQL_THREAD")
			exec(t, primary.app(t), "INSERT INTO app.t (v) VALUES ('lost')")
			received(t, e, replica, primary)
			require.NoError(t, primary.Kill(t.Context()))
			exec(t, replica.admin(t), deletion)
			t.Log(observe(t, e, replica))
			_, err := e.Drain(t.Context(), replica.Member)
			require.NoError(t, err)
			st := observe(t, e, replica)
			require.Equal(t, st.Applied, st.Received)
			require.NoError(t, e.Promote(t.Context(), replica.Member, false))
		})
	}
}

// lockTable holds a lock that the SQL thread waits for. The function releases it.
func lockTable(t testing.TB, n *node) func() {
	t.Helper()
	conn, err := n.admin(t).Conn(t.Context())
	require.NoError(t, err)
	exec(t, conn, "LOCK TABLES app.t WRITE")
	return func() {
		conn.ExecContext(context.Background(), "UNLOCK TABLES") // fails where the server has been killed
		conn.Close()
	}
}

// Relay logs that take longer to be read than a look has time are read all the same: each look says so, and one of the next has
// what they hold.
func TestLooksThatAreShorterThanTheRelayLogs(t *testing.T) {
	e, primary, replica := pair(t)
	app := primary.app(t)
	exec(t, replica.admin(t), "STOP SLAVE SQL_THREAD")
	exec(t, app, "CREATE PROCEDURE app.fill() BEGIN DECLARE n INT DEFAULT 0; WHILE n < 5000 DO INSERT INTO app.t (v) VALUES ('x'); SET n = n + 1; END WHILE; END")
	exec(t, app, "CALL app.fill()")
	want := received(t, e, replica, primary)
	require.NoError(t, replica.Kill(t.Context()))
	require.NoError(t, replica.Start(t.Context()))
	reading := 0
	within(t, "what the relay logs hold is known", func() bool {
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		defer cancel()
		st, err := e.Observe(ctx, replica.Member)
		if err == nil && strings.Contains(st.Error, "are being read") {
			reading++
		}
		return err == nil && e.Compare(st.Received, want) == replication.Equal
	})
	t.Logf("%d looks had no time", reading)
}

// A SQL thread that fails leaves the relay logs where they are; when the cause is gone, draining again applies them.
func TestDrainAfterAnError(t *testing.T) {
	e, primary, replica := pair(t)
	exec(t, replica.admin(t), "SET sql_log_bin=0; INSERT INTO app.t VALUES (1, 'in the way of jane@example.org')")
	exec(t, primary.app(t), "INSERT INTO app.t VALUES (1, 'x')", "INSERT INTO app.t VALUES (2, 'y')")
	received(t, e, replica, primary)
	within(t, "the SQL thread has failed", func() bool { return !observe(t, e, replica).Applies })
	require.Contains(t, observe(t, e, replica).Error, "does not apply")
	require.NoError(t, primary.Kill(t.Context()))
	for range 2 {
		_, err := e.Drain(t.Context(), replica.Member)
		require.ErrorContains(t, err, "Duplicate entry '…'")
		require.ErrorContains(t, err, "drain it again")
	}
	require.Error(t, e.Promote(t.Context(), replica.Member, false))
	exec(t, replica.admin(t), "SET sql_log_bin=0; DELETE FROM app.t")
	_, err := e.Drain(t.Context(), replica.Member)
	require.NoError(t, err)
	require.Equal(t, "2", one(t, replica.app(t), "SELECT COUNT(*) FROM app.t"))
}

// A transaction that the primary died in the middle of sending is not waited for.
func TestDrainOfPartOfATransaction(t *testing.T) {
	e, primary, replica := pair(t, "max_allowed_packet = 64M")
	exec(t, primary.app(t), "INSERT INTO app.t (v) VALUES ('whole')")
	caughtUp(t, e, replica, primary)
	admin := replica.admin(t)
	space := func() int {
		rows, err := admin.Query("SHOW SLAVE STATUS")
		require.NoError(t, err)
		defer rows.Close()
		columns, err := rows.Columns()
		require.NoError(t, err)
		values, targets := make([]any, len(columns)), make([]any, len(columns))
		for i := range values {
			targets[i] = &values[i]
		}
		require.True(t, rows.Next())
		require.NoError(t, rows.Scan(targets...))
		var n int
		for i, name := range columns {
			if name == "Relay_Log_Space" {
				fmt.Sscan(fmt.Sprint(values[i]), &n)
			}
		}
		return n
	}
	before := space()
	// One transaction of many events; the primary is killed when some of them have arrived.
	conn, err := primary.app(t).Conn(t.Context())
	require.NoError(t, err)
	exec(t, conn, "BEGIN")
	for range 20 {
		exec(t, conn, "INSERT INTO app.t (v) VALUES "+strings.TrimSuffix(strings.Repeat("(REPEAT('x',2000)),", 1000), ","))
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		conn.ExecContext(context.Background(), "COMMIT")
	}()
	defer func() { <-ended; conn.Close() }()
	within(t, "a part has arrived", func() bool { return space() > before+1<<20 })
	require.NoError(t, primary.Kill(t.Context()))
	st := observe(t, e, replica)
	got, err := e.Drain(t.Context(), replica.Member)
	require.NoError(t, err)
	require.Equal(t, st.Received, got)
	require.Equal(t, "1", one(t, replica.app(t), "SELECT COUNT(*) FROM app.t"), "of %d bytes in relay logs", space()-before)
	require.NoError(t, e.Promote(t.Context(), replica.Member, false))
	exec(t, replica.app(t), "INSERT INTO app.t (v) VALUES ('after')")
}

// What is left in relay logs when a server starts is applied by one thread, which is how MariaDB survives it; a replica that follows
// again has its workers again.
func TestDrainAppliesAlone(t *testing.T) {
	e, primary, replica := pair(t, "slave_parallel_threads = 4", "slave_parallel_mode = conservative")
	mode := func() string { return one(t, replica.admin(t), "SELECT @@global.slave_parallel_mode") }
	require.Equal(t, "conservative", mode())
	exec(t, replica.admin(t), "STOP SLAVE SQL_THREAD")
	exec(t, primary.app(t), "INSERT INTO app.t (v) VALUES ('x')")
	received(t, e, replica, primary)
	require.NoError(t, replica.Kill(t.Context()))
	require.NoError(t, replica.Start(t.Context()))
	_, err := e.Drain(t.Context(), replica.Member)
	require.NoError(t, err)
	require.Equal(t, "1", one(t, replica.app(t), "SELECT COUNT(*) FROM app.t"))
	require.Equal(t, "none", mode())
	require.NoError(t, e.Follow(t.Context(), replica.Member, primary.Member))
	caughtUp(t, e, replica, primary)
	require.Equal(t, "conservative", mode())
}
