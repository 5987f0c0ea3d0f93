package pool_test

import (
	"context"
	"database/sql"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/scalr-go/scalr/replication/pool"
)

// A transaction whose first statement is rejected begins again on the new primary, if nothing went before it.
func TestTransactionMovesBeforeItHasDoneAnything(t *testing.T) {
	bubble(t, pool.Config{}, func(t *testing.T, w *world, f *follower, db *pool.DB) {
		primary, other := a, b
		change := func() {
			primary, other = other, primary
			w.change(other, func(s *server) { s.writable = false })
			w.change(primary, func(s *server) { s.writable = true })
			f.say(primary, other, c)
		}
		took := func() (n int) {
			w.change(primary, func(s *server) { n = s.took })
			return n
		}
		begin := func(by interface {
			BeginTx(context.Context, *sql.TxOptions) (*sql.Tx, error)
		}) *sql.Tx {
			tx, err := by.BeginTx(t.Context(), nil)
			require.NoError(t, err)
			return tx
		}
		write := func(tx *sql.Tx) error {
			_, err := tx.ExecContext(t.Context(), "write")
			return err
		}

		tx := begin(db.Writer)
		change()
		require.NoError(t, write(tx))
		require.NoError(t, write(tx))
		require.NoError(t, tx.Commit())
		require.Equal(t, 2, took())

		tx = begin(db.Writer)
		prepared, err := tx.PrepareContext(t.Context(), "write")
		require.NoError(t, err)
		change()
		for range 3 {
			_, err := prepared.ExecContext(t.Context())
			require.NoError(t, err)
		}
		require.NoError(t, tx.Commit())
		require.Equal(t, 3, took())

		tx = begin(db.Writer)
		require.NoError(t, write(tx))
		change()
		require.ErrorIs(t, write(tx), pool.ErrRejected, "only the caller knows what went before")
		require.NoError(t, tx.Rollback())

		conn, err := db.Writer.Conn(t.Context())
		require.NoError(t, err)
		defer conn.Close()
		tx = begin(conn)
		require.NoError(t, write(tx))
		require.NoError(t, tx.Commit())
		tx = begin(conn)
		change()
		require.ErrorIs(t, write(tx), pool.ErrRejected, "the session may have had what the transaction needs")
		require.NoError(t, tx.Rollback())
	})
}

// A switchover lets open transactions end on the old primary, which takes writes until then: nothing new begins there once a
// Manager has said so.
func TestNothingBeginsOnAPrimaryThatHandsOver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, f := newWorld(a, b, c), &follower{}
		f.say(a, b, c)
		db := open(t, pool.Config{Driver: fakeDriver{w}, Manager: f})
		begin := func() *sql.Tx {
			tx, err := db.Writer.BeginTx(t.Context(), nil)
			require.NoError(t, err)
			return tx
		}
		write := func(tx *sql.Tx) {
			_, err := tx.ExecContext(t.Context(), "write")
			require.NoError(t, err)
		}
		held, err := db.Writer.Conn(t.Context())
		require.NoError(t, err)
		defer held.Close()
		open, idle := begin(), begin()
		write(open)
		f.say("", a, b, c)
		write(open)
		require.NoError(t, open.Commit())
		time.AfterFunc(time.Second, func() {
			w.change(a, func(s *server) { s.writable = false })
			w.change(b, func(s *server) { s.writable = true })
			f.say(b, a, c)
		})
		began := time.Now()
		write(idle)
		require.GreaterOrEqual(t, time.Since(began), time.Second)
		require.NoError(t, idle.Commit())
		f.say("", a, b, c)
		time.AfterFunc(time.Second, func() {
			w.change(b, func(s *server) { s.writable = false })
			w.change(a, func(s *server) { s.writable = true })
			f.say(a, b, c)
		})
		tx, err := held.BeginTx(t.Context(), nil)
		require.NoError(t, err)
		write(tx)
		require.NoError(t, tx.Commit())
		w.change(a, func(s *server) { require.Equal(t, 3, s.took) })
		w.change(b, func(s *server) { require.Equal(t, 1, s.took) })
	})
}
