package mysql_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	sqldriver "github.com/go-sql-driver/mysql"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/scalr-go/scalr/dnsreg"
	"github.com/scalr-go/scalr/dnsreg/nameserver"
	"github.com/scalr-go/scalr/replication"
	"github.com/scalr-go/scalr/replication/mysql"
	"github.com/scalr-go/scalr/replication/pool"
)

// openPool opens a pool of the application over the servers: by the Manager if there is one, otherwise by their addresses.
func openPool(t testing.TB, c pool.Config, nodes ...*node) *pool.DB {
	t.Helper()
	config := sqldriver.NewConfig()
	config.User, config.Passwd = appUser, appPassword
	client, err := mysql.NewClient(config)
	require.NoError(t, err)
	c.Driver = client
	if c.Manager == nil && c.Addrs == nil {
		for _, n := range nodes {
			c.Addrs = append(c.Addrs, n.Addr)
		}
	}
	db, err := pool.Open(c)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, db.Close()) })
	return db
}

// named runs a name server whose names follow the Manager as those of a farm's role db do, until the end of the test. The resolver
// asks it.
func (s *set) named(t testing.TB) *net.Resolver {
	t.Helper()
	const zone = "internal."
	server, err := nameserver.New(nameserver.Options{Zones: []nameserver.Zone{{Name: zone}}})
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(context.Background())
	published := make(chan struct{})
	var tasks sync.WaitGroup
	t.Cleanup(func() { cancel(); tasks.Wait() })
	tasks.Go(func() { assert.NoError(t, server.Run(ctx)) })
	tasks.Go(func() {
		for first := true; ; {
			topology, changed := s.manager.Topology()
			if p, ok := topology.Member(topology.Primary); ok { // while there is none the names stay
				sets := map[string][]string{"db": {s.node(p.Member.ID).Host}}
				for _, n := range s.nodes {
					sets["int-db"] = append(sets["int-db"], n.Host)
					if m, _ := topology.Member(n.Member.ID); m.Serves && m.Role == replication.RoleReplica {
						sets["db-replicas"] = append(sets["db-replicas"], n.Host)
					}
				}
				if sets["db-replicas"] == nil {
					sets["db-replicas"] = sets["db"]
				}
				var want []dnsreg.RRset
				for name, hosts := range sets {
					want = append(want, dnsreg.RRset{Name: name + ".shop." + zone, Type: "A", TTL: time.Second, Values: hosts})
				}
				if _, err := dnsreg.Sync(ctx, server, zone, "shop", want); ctx.Err() == nil {
					assert.NoError(t, err)
				}
				if first {
					close(published)
				}
				first = false
			}
			select {
			case <-changed:
			case <-ctx.Done():
				return
			}
		}
	})
	<-published
	return &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, network, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, network, server.Addr().String())
	}}
}

// Writers and readers through the pool see no error while the primary changes as planned, whether they know it from the
// Manager or ask the servers, by their addresses, one name for them all, that of the primary, or two for primary and replicas: with
// statements, prepared statements and transactions.
func TestPoolHoldsThroughASwitchover(t *testing.T) {
	s := manage(t, 3, replication.Config{})
	s.equal(t)
	resolver := s.named(t)
	for _, by := range []string{"manager", "addresses", "int-db", "db", "db db-replicas"} {
		t.Run(by, func(t *testing.T) {
			c := pool.Config{Interval: 100 * time.Millisecond}
			switch by {
			case "manager":
				c.Manager = s.manager
			case "addresses":
			default:
				for name := range strings.FieldsSeq(by) {
					c.Addrs = append(c.Addrs, name+".shop.internal:3306")
				}
				c.LookupHost = resolver.LookupHost
			}
			db := openPool(t, c, s.nodes...)
			db.Writer.SetMaxIdleConns(20)
			ctx, cancel := context.WithCancel(context.Background())
			defer cancel()
			var users sync.WaitGroup
			var writes, reads atomic.Int64
			var next atomic.Int64
			next.Store(time.Now().UnixMicro() % 1e8 * 10)
			// A session that is ended in the instant in which the application uses it again is the one thing that the pool
			// cannot make good.
			var unlucky atomic.Int64
			fail := func(what string, err error) bool {
				if errors.Is(err, pool.ErrAmbiguous) {
					unlucky.Add(1)
					t.Logf("%s: %v", what, err)
					return false
				}
				if err != nil && ctx.Err() == nil {
					t.Errorf("%s: %v", what, err)
				}
				return err != nil
			}
			for range 4 {
				users.Go(func() {
					for ctx.Err() == nil {
						i := next.Add(1)
						if _, err := db.Writer.ExecContext(ctx, fmt.Sprintf("INSERT INTO app.t VALUES (%d, 'x')", i)); fail("insert", err) {
							return
						}
						if _, err := db.Writer.ExecContext(ctx, "UPDATE app.t SET v = ? WHERE i = ?", "y", i); fail("prepared update", err) {
							return
						}
						err := db.Tx(ctx, nil, func(tx *sql.Tx) error {
							_, err := tx.ExecContext(ctx, "UPDATE app.t SET v = ? WHERE i = ?", "z", i)
							return err
						})
						if fail("transaction", err) {
							return
						}
						writes.Add(3)
					}
				})
				users.Go(func() {
					for ctx.Err() == nil {
						var n int
						if err := db.Reader.QueryRowContext(ctx, "SELECT COUNT(*) FROM app.t WHERE i < ?", 100).Scan(&n); fail("read", err) {
							return
						}
						reads.Add(1)
						time.Sleep(time.Millisecond)
					}
				})
			}
			for range 3 {
				before := writes.Load()
				within(t, "writers write", func() bool { return writes.Load() > before+60 || t.Failed() })
				s.whole(t)
				require.NoError(t, s.manager.Switchover(t.Context(), ""))
			}
			before := writes.Load()
			within(t, "writers write", func() bool { return writes.Load() > before+60 || t.Failed() })
			cancel()
			users.Wait()
			t.Logf("%d writes, %d reads, %d were cut off", writes.Load(), reads.Load(), unlucky.Load())
			require.LessOrEqual(t, unlucky.Load(), int64(3))
		})
	}
}

// A read through the pool after a write in the same session sees it, although replicas lag; without a session it does not.
func TestPoolReadsItsOwnWrites(t *testing.T) {
	s := manage(t, 3, replication.Config{})
	db := openPool(t, pool.Config{Manager: s.manager}, s.nodes...)
	_, err := db.Writer.Exec("REPLACE INTO app.t VALUES (1, '')")
	require.NoError(t, err)
	s.equal(t) // a read without a session goes to any replica
	rounds := 1000
	if testing.Short() {
		rounds = 100
	}
	stale, without := 0, 0
	for i := range rounds {
		session := pool.NewSession("")
		ctx := pool.WithSession(t.Context(), session)
		exec := func(v string) {
			if i%3 == 2 {
				var got string
				require.NoError(t, db.Writer.QueryRowContext(ctx, "REPLACE INTO app.t VALUES (?, ?) RETURNING v", 1, v).Scan(&got))
				require.Equal(t, v, got)
				return
			}
			_, err := db.Writer.ExecContext(ctx, "REPLACE INTO app.t VALUES (?, ?)", 1, v)
			require.NoError(t, err)
		}
		read := func(ctx context.Context) (v string) {
			require.NoError(t, db.Reader.QueryRowContext(ctx, "SELECT v FROM app.t WHERE i = ?", 1).Scan(&v))
			return v
		}
		exec(fmt.Sprint(i))
		if i%10 == 0 && read(t.Context()) != fmt.Sprint(i) {
			without++
		}
		if i%2 == 1 { // the read is in another process
			token, err := session.Token(ctx, db)
			require.NoError(t, err)
			ctx = pool.WithSession(t.Context(), pool.NewSession(token))
		}
		if read(ctx) != fmt.Sprint(i) {
			stale++
		}
	}
	t.Logf("%d of %d reads were stale; without a session %d of %d", stale, rounds, without, rounds/10)
	require.Zero(t, stale)
}

// A replica that does not apply serves no session that has written, and nobody once it is too far behind: the primary does.
func TestPoolBoundsTheLag(t *testing.T) {
	e, primary, replica := pair(t)
	db := openPool(t, pool.Config{MaxLag: 2 * time.Second, Interval: 100 * time.Millisecond}, primary, replica)
	server := func(ctx context.Context) (id string) {
		require.NoError(t, db.Reader.QueryRowContext(ctx, "SELECT @@server_id").Scan(&id))
		return id
	}
	ids := map[*node]string{}
	for _, n := range []*node{primary, replica} {
		ids[n] = one(t, n.admin(t), "SELECT @@server_id")
	}
	require.Equal(t, ids[replica], server(t.Context()))
	exec(t, replica.admin(t), "STOP SLAVE SQL_THREAD")
	session := pool.WithSession(t.Context(), pool.NewSession(""))
	exec(t, db.Writer, "INSERT INTO app.t (v) VALUES ('x')")
	require.Equal(t, ids[replica], server(session))
	_, err := db.Writer.ExecContext(session, "INSERT INTO app.t (v) VALUES ('y')")
	require.NoError(t, err)
	require.Equal(t, ids[primary], server(session))
	_, err = db.Reader.ExecContext(session, "INSERT INTO app.t (v) VALUES ('z')")
	require.ErrorContains(t, err, "READ ONLY", "what spills over is as read-only as the rest")
	tx, err := db.Reader.BeginTx(session, nil)
	require.NoError(t, err)
	var n int
	require.NoError(t, tx.QueryRowContext(session, "SELECT COUNT(*) FROM app.t WHERE v = ?", "y").Scan(&n))
	require.Equal(t, 1, n)
	require.NoError(t, tx.Commit())
	within(t, "the replica is too far behind", func() bool { return server(t.Context()) == ids[primary] })
	exec(t, replica.admin(t), "START SLAVE SQL_THREAD")
	caughtUp(t, e, replica, primary)
	within(t, "the replica serves again", func() bool { return server(session) == ids[replica] })
}

// A replica that has but a part of its copy when the primary dies serves nobody; what was the primary does, as soon as it answers.
func TestPoolDoesNotReadHalfACopy(t *testing.T) {
	e, primary, replica := pair(t)
	for range 10 {
		exec(t, primary.app(t), "INSERT INTO app.t (v) VALUES ('x')")
	}
	caughtUp(t, e, replica, primary)
	db := openPool(t, pool.Config{Wait: 500 * time.Millisecond, Interval: 100 * time.Millisecond}, primary, replica)
	read := func() (n int, err error) {
		err = db.Reader.QueryRowContext(t.Context(), "SELECT COUNT(*) FROM app.t").Scan(&n)
		return n, err
	}
	n, err := read()
	require.NoError(t, err)
	require.Equal(t, 10, n)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	_, err = e.Seed(ctx, replica.Member, primary.Member, func(p replication.Progress) {
		if p.What == "app.t" {
			cancel()
		}
	})
	require.ErrorIs(t, err, context.Canceled)
	n, err = read()
	require.NoError(t, err)
	require.Equal(t, 10, n)
	require.NoError(t, primary.Kill(t.Context()))
	for range 3 {
		_, err = read()
		require.ErrorIs(t, err, replication.ErrNoPrimary)
	}
	require.NoError(t, primary.Start(t.Context()))
	within(t, "what was the primary is read", func() bool { n, err = read(); return err == nil })
	require.Equal(t, 10, n)
	require.False(t, observe(t, e, primary).Writable)
}

// A primary that is killed or hangs costs the statements that are under way, as ambiguous ones, and no others.
func TestPoolHoldsThroughAFailover(t *testing.T) {
	for _, fault := range []string{"kill", "hang"} {
		t.Run(fault, func(t *testing.T) {
			s := manage(t, 3, replication.Config{Policy: replication.Durability})
			db := openPool(t, pool.Config{Manager: s.manager}, s.nodes...)
			old := s.primary()
			hang, cancel := context.WithCancel(context.Background())
			defer cancel()
			var users sync.WaitGroup
			var acked sync.Map
			var next, after, ambiguous atomic.Int64
			for range 4 {
				users.Go(func() {
					for hang.Err() == nil {
						i := next.Add(1)
						switch _, err := db.Writer.ExecContext(hang, "INSERT INTO app.t VALUES (?, 'x')", i); {
						case err == nil:
							acked.Store(int(i), true)
							if s.primary() != old {
								after.Add(1)
							}
						case errors.Is(err, pool.ErrAmbiguous):
							ambiguous.Add(1)
						case hang.Err() == nil:
							t.Errorf("insert: %v", err)
						}
					}
				})
			}
			within(t, "writers write", func() bool { return next.Load() > 200 })
			if fault == "kill" {
				require.NoError(t, s.node(old).Kill(t.Context()))
			} else {
				require.NoError(t, s.node(old).Hang(t.Context()))
			}
			within(t, "the new primary acknowledges", func() bool { return after.Load() > 100 })
			cancel()
			users.Wait()
			require.LessOrEqual(t, ambiguous.Load(), int64(4))
			have := map[int]bool{}
			rows, err := db.Writer.QueryContext(t.Context(), "SELECT i FROM app.t")
			require.NoError(t, err)
			defer rows.Close()
			for rows.Next() {
				var i int
				require.NoError(t, rows.Scan(&i))
				have[i] = true
			}
			acked.Range(func(i, _ any) bool {
				require.True(t, have[i.(int)], "row %d was acknowledged and is missing", i)
				return true
			})
			require.NoError(t, s.node(old).Start(t.Context()))
			s.whole(t)
		})
	}
}

// What never gets better is said at once.
func TestPoolSaysWhatIsWrong(t *testing.T) {
	_, primary, replica := pair(t)
	for name, c := range map[string]struct {
		user, password, schema, want string
	}{
		"password": {appUser, "secret", "", "Access denied for user 'app'"},
		"schema":   {appUser, appPassword, "app2", "Access denied for user 'app'"},
	} {
		t.Run(name, func(t *testing.T) {
			config := sqldriver.NewConfig()
			config.User, config.Passwd, config.DBName = c.user, c.password, c.schema
			client, err := mysql.NewClient(config)
			require.NoError(t, err)
			db, err := pool.Open(pool.Config{Driver: client, Addrs: []string{primary.Addr, replica.Addr}, Wait: 10 * time.Minute})
			require.NoError(t, err)
			defer db.Close()
			_, err = db.Writer.ExecContext(t.Context(), "DO 1")
			require.ErrorIs(t, err, replication.ErrAccess)
			require.ErrorContains(t, err, c.want)
			require.NotContains(t, err.Error(), "secret")
		})
	}
}
