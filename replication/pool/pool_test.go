package pool_test

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"net"
	"sync"
	"testing"
	"testing/synctest"
	"time"

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

// A change of primary may end the session of each try of database/sql before its statement is sent. A session that a statement may
// depend on is not made anew.
func TestSessionsThatEndBeforeTheirStatement(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(a)
		db := open(t, pool.Config{Driver: fakeDriver{w}, Addrs: []string{a}})
		written, err := db.Writer.PrepareContext(t.Context(), "write")
		require.NoError(t, err)
		defer written.Close()
		for name, do := range map[string]func() error{
			"write":    func() error { return write(t.Context(), db) },
			"prepared": func() error { _, err := written.ExecContext(t.Context()); return err },
			"read":     func() error { _, _, err := read(t.Context(), db); return err },
			"transaction": func() error {
				tx, err := db.Writer.BeginTx(t.Context(), nil)
				if err == nil {
					err = tx.Commit()
				}
				return err
			},
		} {
			for _, slowly := range []time.Duration{0, 150 * time.Millisecond} { // the second while a watch looks at the connection
				w.change(a, func(s *server) { s.cuts, s.slowly = 4, slowly })
				require.NoError(t, do(), name)
				w.change(a, func(s *server) { require.Zero(t, s.cuts) })
			}
		}
		held, err := db.Writer.Conn(t.Context())
		require.NoError(t, err)
		defer held.Close()
		_, err = held.ExecContext(t.Context(), "write")
		require.NoError(t, err)
		w.change(a, func(s *server) { s.cuts = 1 })
		_, err = held.ExecContext(t.Context(), "write")
		require.ErrorIs(t, err, driver.ErrBadConn)
		w.change(a, func(s *server) { require.Equal(t, 5, s.took) })
	})
}

// So may the end of one replica after another.
func TestReplicasThatEndBeforeTheStatement(t *testing.T) {
	bubble(t, pool.Config{}, func(t *testing.T, w *world, f *follower, db *pool.DB) {
		prepared, err := db.Reader.PrepareContext(t.Context(), "read")
		require.NoError(t, err)
		defer prepared.Close()
		for name, do := range map[string]func() error{
			"read":     func() error { _, _, err := read(t.Context(), db); return err },
			"prepared": func() error { var server, n string; return prepared.QueryRowContext(t.Context()).Scan(&server, &n) },
			"transaction": func() error {
				tx, err := db.Reader.BeginTx(t.Context(), &sql.TxOptions{ReadOnly: true})
				if err == nil {
					err = tx.Commit()
				}
				return err
			},
		} {
			for _, addr := range []string{b, c} {
				w.change(addr, func(s *server) { s.cuts = 2 })
			}
			require.NoError(t, do(), name)
			for _, addr := range []string{b, c} {
				w.change(addr, func(s *server) { s.cuts = 0 })
			}
		}
		held, err := db.Reader.Conn(t.Context())
		require.NoError(t, err)
		defer held.Close()
		var who, n string
		one := func() error { return held.QueryRowContext(t.Context(), "read").Scan(&who, &n) }
		require.NoError(t, one())
		w.change(who, func(s *server) { s.cuts = 1 })
		require.ErrorIs(t, one(), driver.ErrBadConn, "its session may have what the statement needs")
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
