package mysql_test

import (
	"context"
	"net"
	"sync/atomic"
	"testing"

	sqldriver "github.com/go-sql-driver/mysql"
	"github.com/stretchr/testify/require"
)

// prepares counts the statements that are prepared over a connection.
type prepares struct {
	net.Conn
	count, texts *atomic.Int64
}

func (c *prepares) Write(b []byte) (int, error) {
	if len(b) > 4 {
		switch b[4] {
		case 0x16: // COM_STMT_PREPARE
			c.count.Add(1)
		case 0x03: // COM_QUERY
			c.texts.Add(1)
		}
	}
	return c.Conn.Write(b)
}

// A prepared statement does not carry CHANGE MASTER's values (MDEV-7640), so nothing that an engine asks of a server is one,
// whatever is in the passwords.
func TestNothingIsPrepared(t *testing.T) {
	nodes := start(t, 3)
	_, err := nodes[1].admin(t).Exec("CHANGE MASTER TO MASTER_HOST = ?, MASTER_PASSWORD = ?", "127.0.0.1", config.ReplicationPassword)
	refused, ok := err.(*sqldriver.MySQLError)
	require.True(t, ok, "the server takes it, so that nothing hinders: %v", err)
	t.Log(refused)

	var count, texts atomic.Int64
	c := config
	c.Machines = machines(t, nodes...)
	c.DialContext = func(ctx context.Context, network, addr string) (net.Conn, error) {
		conn, err := new(net.Dialer).DialContext(ctx, network, addr)
		return &prepares{conn, &count, &texts}, err
	}
	e := engine(t, c, nodes...)
	a, b, d := nodes[0], nodes[1], nodes[2]
	require.NoError(t, e.Promote(t.Context(), a.Member, false))
	exec(t, a.app(t), "CREATE SCHEMA app", "CREATE TABLE app.t (i INT PRIMARY KEY)", "INSERT INTO app.t VALUES (1)")
	for _, n := range []*node{b, d} {
		_, err = e.Seed(t.Context(), n.Member, a.Member, nil)
		require.NoError(t, err)
		require.NoError(t, e.Follow(t.Context(), n.Member, a.Member))
		caughtUp(t, e, n, a)
	}
	require.NoError(t, e.SetSemiSync(t.Context(), a.Member, true))
	exec(t, a.app(t), "INSERT INTO app.t VALUES (2)")
	caughtUp(t, e, b, a)
	require.NoError(t, e.Fence(t.Context(), a.Member))
	_, err = e.Drain(t.Context(), b.Member)
	require.NoError(t, err)
	require.NoError(t, e.Promote(t.Context(), b.Member, false))
	for _, n := range []*node{a, d} {
		require.NoError(t, e.Follow(t.Context(), n.Member, b.Member))
		caughtUp(t, e, n, b)
	}
	require.Zero(t, count.Load(), "statements were prepared")
	require.Greater(t, texts.Load(), int64(50))
}
