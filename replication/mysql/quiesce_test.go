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

// Whose transaction is open is said by MySQL's monitor in the same words, as its manual has them.
func TestMySQL8Quiesce(t *testing.T) {
	e, f, m := set8(t, "8.4.3", 1)
	for _, c := range []struct {
		transactions string
		open         bool
	}{
		{"---TRANSACTION 421949033065200, not started\n0 lock struct(s), heap size 1136, 0 row lock(s)\n", false},
		{"---TRANSACTION 421949033065200, ACTIVE 12 sec\n0 lock struct(s), heap size 1136, 0 row lock(s)\nMySQL thread id 9, OS thread handle 1, query id 7 app\n", false},
		{"---TRANSACTION 1806, ACTIVE 25 sec recovered trx\n3 lock struct(s), heap size 1136, 2 row lock(s), undo log entries 1\n", false},
		{"---TRANSACTION 421949033065200, not started\n0 lock struct(s), heap size 1136, 0 row lock(s)\n" +
			"---TRANSACTION 1807, ACTIVE 25 sec\n3 lock struct(s), heap size 1136, 2 row lock(s), undo log entries 1\n" +
			"MySQL thread id 8, OS thread handle 140737353742080, query id 50 localhost root\n", true},
	} {
		f[0].with(func() { f[0].transactions = c.transactions })
		bounded, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		err := e.Quiesce(bounded, m[0])
		cancel()
		if c.open {
			require.ErrorIs(t, err, context.DeadlineExceeded, c.transactions)
		} else {
			require.NoError(t, err, c.transactions)
		}
	}
}
