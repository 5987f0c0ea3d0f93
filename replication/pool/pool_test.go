package pool_test

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"net"
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

const a, b, c = "10.0.0.1:3306", "10.0.0.2:3306", "10.0.0.3:3306"

// bubble runs a test in virtual time with two pools of one world: one by the servers' addresses, one by a Manager.
func bubble(t *testing.T, config pool.Config, test func(t *testing.T, w *world, f *follower, db *pool.DB)) {
	for _, by := range []string{"addresses", "manager"} {
		t.Run(by, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w, f := newWorld(a, b, c), &follower{}
				f.say(a, b, c)
				config := config
				config.Driver = fakeDriver{w}
				if by == "manager" {
					config.Manager = f
				} else {
					config.Addrs = []string{a, b, c}
				}
				test(t, w, f, open(t, config))
			})
		})
	}
}

func write(ctx context.Context, db *pool.DB) error {
	_, err := db.Writer.ExecContext(ctx, "write")
	return err
}

func read(ctx context.Context, db *pool.DB) (server string, position int, err error) {
	err = db.Reader.QueryRowContext(ctx, "read").Scan(&server, &position)
	return server, position, err
}

// move makes b the primary in the place of a.
func move(w *world, f *follower, pause time.Duration) {
	w.change(a, func(s *server) { s.writable = false })
	f.say("", b, c)
	time.Sleep(pause)
	w.change(b, func(s *server) { s.writable = true })
	f.say(b, a, c)
}

// While there is no primary, statements and beginnings of transactions wait, and go to the new one without an error.
func TestRejectedStatementsWait(t *testing.T) {
	bubble(t, pool.Config{}, func(t *testing.T, w *world, f *follower, db *pool.DB) {
		var users sync.WaitGroup
		stop := make(chan struct{})
		prepared, err := db.Writer.PrepareContext(t.Context(), "write")
		require.NoError(t, err)
		defer prepared.Close()
		for i := range 12 {
			users.Go(func() {
				for {
					select {
					case <-stop:
						return
					case <-time.After(time.Millisecond):
					}
					var err error
					switch i % 3 {
					case 0:
						err = write(t.Context(), db)
					case 1:
						_, err = prepared.ExecContext(t.Context())
					case 2:
						err = db.Tx(t.Context(), nil, func(tx *sql.Tx) error {
							_, err := tx.ExecContext(t.Context(), "write")
							return err
						})
					}
					if err != nil {
						t.Errorf("user %d: %v", i, err)
						return
					}
				}
			})
		}
		time.Sleep(time.Second)
		move(w, f, 3*time.Second)
		time.Sleep(time.Second)
		close(stop)
		users.Wait()
		w.change(b, func(s *server) { require.Greater(t, s.took, 100) })
	})
}

// Nothing waits for ever.
func TestWaitIsBounded(t *testing.T) {
	bubble(t, pool.Config{Wait: 5 * time.Second}, func(t *testing.T, w *world, f *follower, db *pool.DB) {
		w.change(a, func(s *server) { s.writable = false })
		f.say("", a, b, c)
		began := time.Now()
		err := write(t.Context(), db)
		require.ErrorIs(t, err, replication.ErrNoPrimary)
		require.InDelta(t, 5, time.Since(began).Seconds(), 1)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		require.ErrorIs(t, write(ctx, db), context.DeadlineExceeded)
		_, _, err = read(t.Context(), db)
		require.NoError(t, err, "replicas serve without a primary")
	})
}

// A statement whose server is lost under way is not sent again.
func TestAmbiguousIsTold(t *testing.T) {
	bubble(t, pool.Config{}, func(t *testing.T, w *world, f *follower, db *pool.DB) {
		require.NoError(t, write(t.Context(), db))
		w.change(a, func(s *server) { s.hung = true })
		began := time.Now()
		go func() {
			time.Sleep(2 * time.Second)
			w.change(b, func(s *server) { s.writable = true })
			f.say(b, c)
		}()
		require.ErrorIs(t, write(t.Context(), db), pool.ErrAmbiguous)
		require.Less(t, time.Since(began), 6*time.Second, "there is another primary: no need to wait for this one")
		require.NoError(t, write(t.Context(), db))

		tx, err := db.Writer.BeginTx(t.Context(), nil)
		require.NoError(t, err)
		w.change(b, func(s *server) { s.sessions++ })
		_, err = tx.ExecContext(t.Context(), "write")
		require.ErrorIs(t, err, pool.ErrRejected, "it was not committed")
		require.NoError(t, tx.Rollback())

		require.NoError(t, write(t.Context(), db))
		w.change(b, func(s *server) { s.sessions++ })
		require.ErrorIs(t, write(t.Context(), db), pool.ErrAmbiguous)
		require.NoError(t, write(t.Context(), db))
	})
}

// Two servers that take writes are one too many: nobody is written to until that is settled.
func TestTwoPrimariesAreNone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(a, b)
		db := open(t, pool.Config{Driver: fakeDriver{w}, Addrs: []string{a, b}})
		w.change(b, func(s *server) { s.writable = true })
		ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
		defer cancel()
		require.ErrorContains(t, write(ctx, db), a+" and "+b+" take writes")
		w.change(a, func(s *server) { s.writable = false })
		require.NoError(t, write(t.Context(), db))
	})
}

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

func TestConfig(t *testing.T) {
	_, err := pool.Open(pool.Config{Addrs: []string{"db", "x:1"}, Wait: -time.Second, Spill: -1})
	for _, want := range []string{"Config.Driver is nil", `Config.Addrs[0] is "db", want host:port`, "Config.Wait is -1s", "Config.Spill is -1"} {
		require.ErrorContains(t, err, want)
	}
	_, err = pool.Open(pool.Config{Driver: fakeDriver{}})
	require.ErrorContains(t, err, "want one of the two")
}

// Wrong credentials are told at once and not tried for as long as a primary would be waited for.
func TestAccessIsNotWaitedFor(t *testing.T) {
	bubble(t, pool.Config{}, func(t *testing.T, w *world, f *follower, db *pool.DB) {
		for _, s := range []string{a, b, c} {
			w.change(s, func(s *server) { s.denied = true })
		}
		began := time.Now()
		require.ErrorIs(t, write(t.Context(), db), replication.ErrAccess)
		require.Less(t, time.Since(began), 2*time.Second)
	})
}

// A name stands for all of its addresses, and is looked up again.
func TestName(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(a, b)
		var mu sync.Mutex
		ips := []string{"10.0.0.1"}
		db := open(t, pool.Config{Driver: fakeDriver{w}, Addrs: []string{"db.shop:3306"},
			LookupHost: func(_ context.Context, host string) ([]string, error) {
				mu.Lock()
				defer mu.Unlock()
				if host != "db.shop" {
					return nil, errors.New("no such host")
				}
				return ips, nil
			}})
		require.NoError(t, write(t.Context(), db))
		w.change(a, func(s *server) { s.readable = false; s.sessions++ })
		w.change(b, func(s *server) { s.writable = true })
		go func() {
			time.Sleep(3 * time.Second)
			mu.Lock()
			defer mu.Unlock()
			ips = []string{"10.0.0.2"}
		}()
		require.ErrorIs(t, write(t.Context(), db), pool.ErrAmbiguous)
		require.NoError(t, write(t.Context(), db))
		w.change(b, func(s *server) { require.Equal(t, 1, s.took) })
	})
}

// While names cannot be looked up, those that were found are what they were; a name that is no more stands for nobody.
func TestNameServersAreAway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(a, b)
		var mu sync.Mutex
		var trouble func(context.Context) error
		say := func(f func(context.Context) error) {
			mu.Lock()
			defer mu.Unlock()
			trouble = f
		}
		say(func(context.Context) error {
			return &net.DNSError{Err: "server misbehaving", Name: "db.shop", IsTemporary: true}
		})
		db := open(t, pool.Config{Driver: fakeDriver{w}, Addrs: []string{"db.shop:3306"}, Wait: 3 * time.Second,
			LookupHost: func(ctx context.Context, host string) ([]string, error) {
				mu.Lock()
				f := trouble
				mu.Unlock()
				if f != nil {
					return nil, f(ctx)
				}
				return []string{"10.0.0.1", "10.0.0.2"}, nil
			}})
		require.ErrorContains(t, write(t.Context(), db), "server misbehaving")
		say(nil)
		require.NoError(t, write(t.Context(), db))
		for _, f := range []func(context.Context) error{
			func(context.Context) error { return errors.New("server misbehaving") },
			func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() },
		} {
			say(f)
			for range 3 {
				time.Sleep(2 * time.Second)
				who, _, err := read(t.Context(), db)
				require.NoError(t, err)
				require.Equal(t, b, who)
				require.NoError(t, write(t.Context(), db))
				w.change(a, func(s *server) { s.sessions++ })
				require.ErrorIs(t, write(t.Context(), db), pool.ErrAmbiguous)
				require.NoError(t, write(t.Context(), db))
			}
			w.change(a, func(s *server) { s.writable = false })
			w.change(b, func(s *server) { s.writable = true })
			require.NoError(t, write(t.Context(), db), "the other one has been known too")
			w.change(a, func(s *server) { s.writable = true })
			w.change(b, func(s *server) { s.writable = false })
		}
		say(func(context.Context) error {
			return &net.DNSError{Err: "no such host", Name: "db.shop", IsNotFound: true}
		})
		require.ErrorContains(t, write(t.Context(), db), "no such host")
	})
}
