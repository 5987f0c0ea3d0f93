package mysql_test

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/scalr-go/scalr/replication"
	"github.com/scalr-go/scalr/replication/mysql"
)

// counted counts the commands that a client sends, but for those of a probe: each is one write, of a packet with the number 0.
type counted struct {
	net.Conn
	writes *atomic.Int64
}

func (c counted) Write(b []byte) (int, error) {
	probe := slices.ContainsFunc([]string{"innodb_lock_wait_timeout", "CONNECTION_ID()", "scalr_record"}, func(word string) bool {
		return bytes.Contains(b, []byte(word))
	})
	if !probe && b[3] == 0 {
		c.writes.Add(1)
	}
	return c.Conn.Write(b)
}

func counting(writes *atomic.Int64) mysql.Config {
	c := config
	c.DialContext = func(ctx context.Context, network, addr string) (net.Conn, error) {
		conn, err := (&net.Dialer{}).DialContext(ctx, network, addr)
		return counted{conn, writes}, err
	}
	return c
}

func TestObserveTakesOneRoundTrip(t *testing.T) {
	nodes := start(t, 2)
	var writes atomic.Int64
	e := engine(t, counting(&writes), nodes...)
	require.NoError(t, e.Promote(t.Context(), nodes[0].Member, false))
	_, err := nodes[0].app(t).Exec("CREATE SCHEMA app")
	require.NoError(t, err)
	require.NoError(t, e.Follow(t.Context(), nodes[1].Member, nodes[0].Member))
	within(t, "the replica has the schema", func() bool {
		st, err := e.Observe(t.Context(), nodes[1].Member)
		return err == nil && !st.Empty
	})
	for _, n := range nodes {
		writes.Store(0)
		for range 10 {
			_, err := e.Observe(t.Context(), n.Member)
			require.NoError(t, err)
		}
		require.EqualValues(t, 10, writes.Load(), "round trips of ten looks at %s", n.Member.ID)
	}
}

func TestEmpty(t *testing.T) {
	n := start(t, 1)[0]
	e := engine(t, config, n)
	empty := func() bool {
		st, err := e.Observe(t.Context(), n.Member)
		require.NoError(t, err)
		return st.Empty
	}
	require.True(t, empty(), "a fresh server")
	admin := n.admin(t)
	exec(t, admin, "SET sql_log_bin=0; CREATE SCHEMA app; CREATE TABLE app.t (i INT)")
	require.False(t, empty(), "a table that is in no binary log is data too")
	exec(t, admin, "CREATE SCHEMA scalr_seeding")
	require.True(t, empty(), "half of a copy is no data")
	exec(t, admin, "DROP SCHEMA scalr_seeding", "SET sql_log_bin=0; DROP SCHEMA app")
	require.True(t, empty(), "nothing is left")
	exec(t, n.admin(t), "CREATE SCHEMA app", "DROP SCHEMA app")
	require.False(t, empty(), "transactions in the binary log are data, whatever they left")
}

// listen gives an address where accepted connections go to handle.
func listen(t *testing.T, handle func(net.Conn)) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.88.7.1:0")
	require.NoError(t, err)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			t.Cleanup(func() { conn.Close() })
			handle(conn)
		}
	}()
	t.Cleanup(func() { l.Close(); <-done })
	return l.Addr().String()
}

func TestObserveTellsFailuresApart(t *testing.T) {
	kinds := []error{replication.ErrUnreachable, replication.ErrRefused, replication.ErrHung, replication.ErrAccess}
	check := func(t *testing.T, c mysql.Config, addr string, want []error, text ...string) {
		t.Helper()
		n := &node{Member: replication.Member{ID: "db-7", Addr: addr}}
		e := engine(t, c, n)
		_, err := e.Observe(t.Context(), n.Member)
		require.Error(t, err)
		for _, kind := range kinds {
			is := false
			for _, w := range want {
				is = is || w == kind
			}
			if is {
				require.ErrorIs(t, err, kind)
			} else {
				require.NotErrorIs(t, err, kind)
			}
		}
		for _, s := range append(text, "db-7 ("+addr+")") {
			require.ErrorContains(t, err, s)
		}
	}
	quick := config
	quick.Timeout = 200 * time.Millisecond

	t.Run("nobody listens", func(t *testing.T) {
		check(t, config, "127.88.7.2:3306", []error{replication.ErrUnreachable, replication.ErrRefused})
	})
	t.Run("no reply to a connection", func(t *testing.T) {
		c := quick
		c.DialContext = func(ctx context.Context, _, _ string) (net.Conn, error) { <-ctx.Done(); return nil, ctx.Err() }
		check(t, c, "127.88.7.2:3306", []error{replication.ErrUnreachable})
	})
	t.Run("silence after the connection", func(t *testing.T) {
		check(t, quick, listen(t, func(net.Conn) {}), []error{replication.ErrHung})
	})
	t.Run("another protocol", func(t *testing.T) {
		addr := listen(t, func(c net.Conn) { fmt.Fprint(c, "\x06\x00\x00\x00\x09hello"); c.Close() })
		check(t, config, addr, nil, "unsupported protocol version 9")
	})
	t.Run("the connection is closed at once", func(t *testing.T) {
		check(t, config, listen(t, func(c net.Conn) { c.Close() }), []error{replication.ErrUnreachable})
	})
	t.Run("an address that is none", func(t *testing.T) {
		check(t, config, "db-7", nil, `"db-7", want host:port`)
	})
	n := start(t, 1)[0]
	t.Run("wrong password", func(t *testing.T) {
		c := config
		c.Password = "wrong"
		check(t, c, n.Addr, []error{replication.ErrAccess}, `account "scalr": wrong password`, "BootstrapSQL")
	})
	t.Run("a privilege is missing", func(t *testing.T) {
		exec(t, n.admin(t), "SET sql_log_bin=0; CREATE USER weak@'%' IDENTIFIED BY 'w'; GRANT BINLOG ADMIN ON *.* TO weak@'%'")
		c := config
		c.User, c.Password = "weak", "w"
		check(t, c, n.Addr, []error{replication.ErrAccess}, `account "weak" lacks a privilege`, "MONITOR")
		exec(t, n.admin(t), "SET sql_log_bin=0; REVOKE BINLOG ADMIN ON *.* FROM weak@'%'")
		check(t, c, n.Addr, []error{replication.ErrAccess}, `account "weak" lacks a privilege`, "BINLOG ADMIN")
	})
	t.Run("no connection left", func(t *testing.T) {
		exec(t, n.admin(t), "SET GLOBAL max_connections=10")
		admin, app := n.admin(t), n.app(t)
		for _, db := range []interface {
			PingContext(context.Context) error
		}{admin, app} {
			require.NoError(t, db.PingContext(t.Context()))
		}
		for range 10 { // until there is none left, not even the one for administrators
			if conn, err := admin.Conn(t.Context()); err == nil {
				t.Cleanup(func() { conn.Close() })
			}
		}
		check(t, config, n.Addr, nil, "error 1040")
	})
}

func TestObserveKnowsOtherServers(t *testing.T) {
	for version, want := range map[string]string{
		"5.7.44":          `is too old, or no server that this engine knows (its version is "5.7.44")`,
		"10.3.39-MariaDB": `is too old (its version is "10.3.39-MariaDB")`,
	} {
		t.Run(version, func(t *testing.T) {
			n := start(t, 1, "version = "+version)[0]
			_, err := engine(t, config, n).Observe(t.Context(), n.Member)
			require.ErrorContains(t, err, want)
			require.ErrorContains(t, err, "10.6 or later")
		})
	}
}

// A replica hears of a hung primary by its heartbeats, long before its own time-out.
func TestReceivesNeedsHeartbeats(t *testing.T) {
	nodes := start(t, 2, "slave_net_timeout = 3600")
	e := engine(t, config, nodes...)
	require.NoError(t, e.Promote(t.Context(), nodes[0].Member, false))
	require.NoError(t, e.Follow(t.Context(), nodes[1].Member, nodes[0].Member))
	status := func() replication.Status {
		st, err := e.Observe(t.Context(), nodes[1].Member)
		require.NoError(t, err)
		return st
	}
	for end := time.Now().Add(2 * time.Second); time.Now().Before(end); time.Sleep(100 * time.Millisecond) {
		st := status() // idle, and heard all the time
		require.True(t, st.Receives && st.Applies, "%+v", st)
	}
	require.NoError(t, nodes[0].Hang(t.Context()))
	began := time.Now()
	within(t, "the replica does not hear its primary", func() bool { return !status().Receives })
	t.Logf("after %v", time.Since(began))
	require.Contains(t, status().Error, "no heartbeat")
	require.NoError(t, nodes[0].Resume(t.Context()))
	within(t, "it hears it again", func() bool { return status().Receives })
}

// A server's limit on the time of statements is none on the engine's.
func TestObserveWithoutTimeLimit(t *testing.T) {
	n := start(t, 1)[0]
	exec(t, n.admin(t), "SET GLOBAL max_statement_time = 0.000001")
	_, err := engine(t, config, n).Observe(t.Context(), n.Member)
	require.NoError(t, err)
}
