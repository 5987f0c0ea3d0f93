package pool_test

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/scalr-go/scalr/replication"
	"github.com/scalr-go/scalr/replication/pool"
)

// A read of a session sees its writes, whoever serves it; the replicas that are behind do not.
func TestSession(t *testing.T) {
	bubble(t, pool.Config{}, func(t *testing.T, w *world, f *follower, db *pool.DB) {
		for _, s := range []string{b, c} {
			w.change(s, func(s *server) { s.behind = 5 })
		}
		ctx := pool.WithSession(t.Context(), pool.NewSession(""))
		stale := 0
		for i := range 20 {
			require.NoError(t, write(ctx, db))
			server, at, err := read(ctx, db)
			require.NoError(t, err)
			require.Equal(t, a, server)
			require.Equal(t, i+1, at)
			if _, at, err = read(t.Context(), db); at != i+1 {
				stale++
			}
			require.NoError(t, err)
		}
		require.Greater(t, stale, 10, "reads without a session, once the replicas are known to be close enough")
		first := pool.NewSession("")
		require.NoError(t, write(pool.WithSession(t.Context(), first), db))
		token, err := first.Token(t.Context(), db)
		require.NoError(t, err)
		require.Equal(t, "21", token)
		_, at, err := read(pool.WithSession(t.Context(), pool.NewSession(token)), db)
		require.NoError(t, err)
		require.Equal(t, 21, at)
		w.change(c, func(s *server) { s.behind, s.applied = 0, 21 })
		for server := ""; server != c; time.Sleep(time.Millisecond) {
			var err error
			server, at, err = read(ctx, db)
			require.NoError(t, err)
			require.Equal(t, 21, at)
		}
		stmt, err := db.Reader.PrepareContext(ctx, "read")
		require.NoError(t, err)
		defer stmt.Close()
		w.change(c, func(s *server) { s.behind = 5 })
		require.NoError(t, write(ctx, db))
		var server string
		require.NoError(t, stmt.QueryRowContext(ctx).Scan(&server, &at))
		require.Equal(t, a, server)
		require.Equal(t, 22, at)
	})
}

// slowDriver takes its time to say how far the primary is.
type slowDriver struct {
	fakeDriver
	slow *atomic.Bool
}

func (d slowDriver) Position(ctx context.Context, c driver.Conn, primary bool) (replication.Position, error) {
	p, err := d.fakeDriver.Position(ctx, c, primary)
	if primary && d.slow.Load() {
		time.Sleep(100 * time.Millisecond)
	}
	return p, err
}

// A read of a session sees its writes while another one of it, or a write, is under way.
func TestSessionIsSharedAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, f := newWorld(a, b, c), &follower{}
		f.say(a, b, c)
		var slow atomic.Bool
		db := open(t, pool.Config{Driver: slowDriver{fakeDriver{w}, &slow}, Manager: f})
		for range 20 {
			_, _, err := read(t.Context(), db) // replicas are known to be close
			require.NoError(t, err)
		}
		for _, s := range []string{b, c} {
			w.change(s, func(s *server) { s.behind = 5 })
		}
		ctx := pool.WithSession(t.Context(), pool.NewSession(""))
		require.NoError(t, write(ctx, db))
		slow.Store(true)
		var other sync.WaitGroup
		defer other.Wait()
		other.Go(func() {
			_, at, err := read(ctx, db)
			assert.NoError(t, err)
			assert.Positive(t, at)
		})
		time.Sleep(10 * time.Millisecond)
		_, at, err := read(ctx, db)
		require.NoError(t, err)
		require.Equal(t, 1, at, "the write was acknowledged before the read began")
		other.Wait()

		require.NoError(t, write(ctx, db))
		other.Go(func() { _, _, err := read(ctx, db); assert.NoError(t, err) })
		time.Sleep(50 * time.Millisecond)
		require.NoError(t, write(ctx, db)) // the primary has been asked before it
		other.Wait()
		for _, s := range []string{b, c} {
			w.change(s, func(s *server) { s.applied = 2 })
		}
		_, at, err = read(ctx, db)
		require.NoError(t, err)
		require.Equal(t, 3, at)
	})
}

// What a query writes is known to its session when its rows are read, as an INSERT … RETURNING may end after it has begun to answer;
// and what a transaction writes when it is committed, whoever began it.
func TestSessionKnowsOfEveryWrite(t *testing.T) {
	bubble(t, pool.Config{}, func(t *testing.T, w *world, f *follower, db *pool.DB) {
		for range 20 {
			_, _, err := read(t.Context(), db)
			require.NoError(t, err)
		}
		for _, s := range []string{b, c} {
			w.change(s, func(s *server) { s.behind = 5 })
		}
		ctx := pool.WithSession(t.Context(), pool.NewSession(""))
		rows, err := db.Writer.QueryContext(ctx, "write returning")
		require.NoError(t, err)
		require.True(t, rows.Next())
		_, _, err = read(ctx, db)
		require.NoError(t, err)
		require.False(t, rows.Next())
		_, at, err := read(ctx, db)
		require.NoError(t, err)
		require.Equal(t, 1, at)

		var who string
		require.NoError(t, db.Writer.QueryRowContext(ctx, "write returning").Scan(&who, &at))
		_, at, err = read(ctx, db)
		require.NoError(t, err)
		require.Equal(t, 2, at)

		tx, err := db.Writer.BeginTx(t.Context(), nil)
		require.NoError(t, err)
		_, err = tx.ExecContext(ctx, "write at commit")
		require.NoError(t, err)
		_, _, err = read(ctx, db)
		require.NoError(t, err)
		for _, s := range []string{b, c} {
			w.change(s, func(s *server) { s.applied = 2 })
		}
		require.NoError(t, tx.Commit())
		_, at, err = read(ctx, db)
		require.NoError(t, err)
		require.Equal(t, 3, at)
	})
}

// Replicas that are too far behind serve nobody, and what goes to the primary instead is bounded.
func TestLagAndSpill(t *testing.T) {
	bubble(t, pool.Config{MaxLag: 4 * time.Second, Spill: 2, Wait: 2 * time.Second}, func(t *testing.T, w *world, f *follower, db *pool.DB) {
		for _, s := range []string{b, c} {
			w.change(s, func(s *server) { s.behind = 1000 })
		}
		for range 20 {
			require.NoError(t, write(t.Context(), db))
			time.Sleep(time.Second)
			_, _, err := read(t.Context(), db)
			require.NoError(t, err)
		}
		server, _, err := read(t.Context(), db)
		require.NoError(t, err)
		require.Equal(t, a, server)
		var open []*sql.Rows
		for range 2 {
			rows, err := db.Reader.QueryContext(t.Context(), "read")
			require.NoError(t, err)
			open = append(open, rows)
		}
		_, _, err = read(t.Context(), db)
		require.ErrorIs(t, err, pool.ErrStale)
		for _, rows := range open {
			require.NoError(t, rows.Close())
		}
		_, _, err = read(t.Context(), db)
		require.NoError(t, err)
		_, err = db.Reader.ExecContext(t.Context(), "write")
		require.ErrorIs(t, err, errReadOnly)
	})
}

// A replica that is about to get its data serves nobody, while there is no primary to compare it with either.
func TestHalfACopyServesNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(a, b)
		db := open(t, pool.Config{Driver: fakeDriver{w}, Addrs: []string{a, b}, Wait: 5 * time.Second})
		for range 10 {
			require.NoError(t, write(t.Context(), db))
		}
		who, at, err := read(t.Context(), db)
		require.NoError(t, err)
		require.Equal(t, b, who)
		require.Equal(t, 10, at)
		w.change(b, func(s *server) { s.applied = 0; s.sessions++ })
		who, at, err = read(t.Context(), db)
		require.NoError(t, err)
		require.Equal(t, a, who)
		require.Equal(t, 10, at)
		w.change(a, func(s *server) { s.readable = false; s.sessions++ })
		time.Sleep(3 * time.Second)
		_, _, err = read(t.Context(), db)
		require.ErrorIs(t, err, replication.ErrNoPrimary)
		w.change(b, func(s *server) { s.applied = 7 })
		who, at, err = read(t.Context(), db)
		require.NoError(t, err, "who has data serves, as far behind as nobody knows")
		require.Equal(t, b, who)
		require.Equal(t, 7, at)
		w.change(b, func(s *server) { s.applied = 0; s.sessions++ })
		_, _, err = read(t.Context(), db)
		require.ErrorIs(t, err, replication.ErrNoPrimary)
		w.change(a, func(s *server) { s.readable, s.writable = true, false })
		for range 3 { // one that has always been the primary has data
			who, at, err = read(t.Context(), db)
		}
		require.NoError(t, err)
		require.Equal(t, a, who)
		require.Equal(t, 10, at)
	})
}

// A read whose replica is lost or hangs goes to another one.
func TestReadsGoElsewhere(t *testing.T) {
	bubble(t, pool.Config{}, func(t *testing.T, w *world, f *follower, db *pool.DB) {
		for range 10 {
			_, _, err := read(t.Context(), db)
			require.NoError(t, err)
		}
		w.change(b, func(s *server) { s.readable = false; s.sessions++ })
		for range 10 {
			server, _, err := read(t.Context(), db)
			require.NoError(t, err)
			require.NotEqual(t, b, server)
		}
		w.change(b, func(s *server) { s.readable = true })
		w.change(c, func(s *server) { s.hung = true })
		go func() {
			time.Sleep(time.Second)
			f.say(a, b, "down "+c)
		}()
		for range 5 {
			server, _, err := read(t.Context(), db)
			require.NoError(t, err)
			require.NotEqual(t, c, server)
		}
	})
}
