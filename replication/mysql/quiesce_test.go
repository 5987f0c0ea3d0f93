package mysql_test

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// A switchover lets a transaction end that has written. One that has only read from a snapshot is not waited for, nor are idle
// sessions, nor one that does not end.
func TestQuiesce(t *testing.T) {
	n := start(t, 1)[0]
	e := engine(t, config, n)
	require.NoError(t, e.Promote(t.Context(), n.Member, false))
	app := n.app(t)
	exec(t, app, "CREATE SCHEMA app", "CREATE TABLE app.t (i INT PRIMARY KEY, v INT)", "INSERT INTO app.t VALUES (1, 1)")
	begin := func(statement string) (end func()) {
		c, err := app.Conn(t.Context())
		require.NoError(t, err)
		exec(t, c, "START TRANSACTION", statement)
		return func() {
			exec(t, c, "COMMIT")
			require.NoError(t, c.Close())
		}
	}
	report := begin("SELECT * FROM app.t")
	require.NoError(t, e.Quiesce(t.Context(), n.Member))

	for _, statement := range []string{"INSERT INTO app.t VALUES (2, 2)", "UPDATE app.t SET v = 3 WHERE i = 1", "SELECT * FROM app.t FOR UPDATE"} {
		end := begin(statement)
		bounded, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		require.ErrorIs(t, e.Quiesce(bounded, n.Member), context.DeadlineExceeded, statement)
		cancel()
		done := make(chan error, 1)
		go func() { done <- e.Quiesce(t.Context(), n.Member) }()
		end()
		require.NoError(t, <-done)
	}
	report()
	require.NoError(t, e.Fence(t.Context(), n.Member))
	require.NoError(t, e.Quiesce(t.Context(), n.Member), "it asks, and changes nothing")
	require.Equal(t, "3", one(t, n.admin(t), "SELECT v FROM app.t WHERE i = 1"))
}
