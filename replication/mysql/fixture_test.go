package mysql_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	sqldriver "github.com/go-sql-driver/mysql"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/scalr-go/scalr/internal/testenv"
	"github.com/scalr-go/scalr/provider/local"
	"github.com/scalr-go/scalr/replication"
	"github.com/scalr-go/scalr/replication/mysql"
	"github.com/scalr-go/scalr/replication/replicationtest"
)

func TestMain(m *testing.M) {
	sqldriver.SetLogger(&sqldriver.NopLogger{})
	code := m.Run()
	if code == 0 {
		if err := goleak.Find(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			code = 1
		}
	}
	os.Exit(code)
}

// The accounts of the tests. The passwords have everything that quoting could get wrong.
var config = mysql.Config{
	User: "scalr", Password: `adm'in\"pass;-- #é☃`,
	ReplicationUser: "scalr_repl", ReplicationPassword: `re'pl\"pass;-- #é☃`,
}

const appUser, appPassword = "app", "app-pass"

// engine makes an engine that closes its connections at the end of the test.
func engine(t testing.TB, c mysql.Config, servers ...*node) *mysql.Engine {
	t.Helper()
	e, err := mysql.New(c)
	require.NoError(t, err)
	t.Cleanup(func() {
		for _, s := range servers {
			require.NoError(t, e.Close(s.Member))
		}
	})
	return e
}

// node is one server of a test.
type node struct {
	*testenv.Server
	Member replication.Member
}

// start runs n servers as members, with further lines of my.cnf. What they commit survives their process, and to save time
// not the machine; a benchmark has the real settings.
func start(t testing.TB, n int, more ...string) []*node {
	t.Helper()
	return startOn(t, n, func(local.Machine) string { return "" }, more...)
}

// startOn does so with a line of my.cnf for each machine.
func startOn(t testing.TB, n int, line func(local.Machine) string, more ...string) []*node {
	t.Helper()
	return startAs(t, config, n, line, more...)
}

// startAs does so with the accounts of c.
func startAs(t testing.TB, c mysql.Config, n int, line func(local.Machine) string, more ...string) []*node {
	t.Helper()
	if _, ok := t.(*testing.B); !ok {
		more = append([]string{"sync_binlog = 0", "innodb_flush_log_at_trx_commit = 2"}, more...)
	}
	bootstrap := strings.Split(strings.TrimRight(mysql.BootstrapSQL(c), ";\n"), ";\n")
	servers := testenv.MariaDBWith(t, n, local.MariaDB{
		User: c.User, Password: c.Password,
		Config: func(m local.Machine) string {
			return mysql.ServerConf(mysql.Server{Bind: m.Addr.String(), More: append(slices.Clone(more), line(m))})
		},
		SQL: append(bootstrap,
			"CREATE USER IF NOT EXISTS "+appUser+"@'%' IDENTIFIED BY '"+appPassword+"'",
			"GRANT ALL PRIVILEGES ON app.* TO "+appUser+"@'%'"),
	})
	var nodes []*node
	for i, s := range servers {
		nodes = append(nodes, &node{s, replication.Member{ID: fmt.Sprintf("db-%d", i+1), Addr: s.Addr, Machine: s.ID, Fence: s.Stop}})
	}
	return nodes
}

// db gives a pool that is closed at the end of the test.
func (n *node) db(t testing.TB, user, password, more string) *sql.DB {
	t.Helper()
	c := sqldriver.NewConfig()
	c.User, c.Passwd, c.Net, c.Addr = user, password, "tcp", n.Addr
	c.Timeout = 10 * time.Second
	c.MaxAllowedPacket = 1 << 30
	c.MultiStatements = true
	if more != "" {
		c.Params = map[string]string{"sql_mode": more}
	}
	connector, err := sqldriver.NewConnector(c)
	require.NoError(t, err)
	db := sql.OpenDB(connector)
	t.Cleanup(func() { db.Close() })
	return db
}

// admin gives a pool of the administrator.
func (n *node) admin(t testing.TB) *sql.DB { return n.db(t, config.User, config.Password, "") }

// app gives a pool of an application.
func (n *node) app(t testing.TB) *sql.DB { return n.db(t, appUser, appPassword, "") }

func exec(t testing.TB, db interface {
	ExecContext(context.Context, string, ...any) (sql.Result, error)
}, statements ...string) {
	t.Helper()
	for _, s := range statements {
		_, err := db.ExecContext(t.Context(), s)
		require.NoError(t, err, "%.200s", s)
	}
}

// one gives the first column of the only row.
func one(t testing.TB, db interface {
	QueryRowContext(context.Context, string, ...any) *sql.Row
}, query string) string {
	t.Helper()
	var s sql.NullString
	require.NoError(t, db.QueryRowContext(t.Context(), query).Scan(&s), query)
	return s.String
}

// within waits for a condition.
func within(t testing.TB, what string, cond func() bool) {
	t.Helper()
	for deadline := time.Now().Add(30 * time.Second); !cond(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("waited in vain until %s", what)
		}
	}
}

func factory(t testing.TB) replicationtest.Fixture {
	own := config
	own.Set = "conformance/db"
	return fixture(t, own, func(*node) {})
}

// fixture does so with the config, and tells of each server.
func fixture(t testing.TB, own mysql.Config, started func(*node)) replicationtest.Fixture {
	e, err := mysql.New(own)
	require.NoError(t, err)
	wrong := own
	wrong.Password = "not it"
	denied, err := mysql.New(wrong)
	require.NoError(t, err)
	count := 0
	server := func(n *node) replicationtest.Server {
		count++
		n.Member.ID = fmt.Sprintf("db-%d", count)
		started(n)
		t.Cleanup(func() {
			require.NoError(t, e.Close(n.Member))
			require.NoError(t, denied.Close(n.Member))
		})
		must := func(do func(context.Context) error) func() {
			return func() { require.NoError(t, do(context.Background())) }
		}
		return replicationtest.Server{Member: n.Member, Kill: must(n.Kill), Restart: must(n.Start),
			Hang: must(n.Hang), Resume: must(n.Resume)}
	}
	return replicationtest.Fixture{
		Engine: e,
		Denied: denied,
		Within: 30 * time.Second,
		Start: func() replicationtest.Server {
			return server(startAs(t, own, 1, func(local.Machine) string { return "" })[0])
		},
		Copy: func(keys ...string) (replicationtest.Server, replication.Position) {
			s := newShelf(t, own)
			parent := s.launch("parent", "")
			other := engine(t, config, parent)
			within(t, "the other set answers", func() bool { _, err := other.Observe(t.Context(), parent.Member); return err == nil })
			require.NoError(t, other.Promote(t.Context(), parent.Member, false))
			app, err := open(t.Context(), parent.Member)
			require.NoError(t, err)
			for _, key := range keys {
				require.NoError(t, app.Write(t.Context(), key, key))
			}
			require.NoError(t, app.Close())
			at := observe(t, other, parent).Applied
			n := s.launch("twin", s.snapshot(parent))
			within(t, "the copy answers", func() bool { _, err := e.Observe(t.Context(), n.Member); return err == nil })
			return server(n), at
		},
		Open: open,
		Scrub: func(ctx context.Context, m replication.Member) error {
			db, err := connect(config.User, config.Password, m.Addr)
			if err != nil {
				return err
			}
			defer db.Close()
			for _, s := range []string{"UPDATE app.kv SET v = 'scrubbed' WHERE k = 'secret'",
				"ALTER USER " + appUser + "@'%' IDENTIFIED BY '" + appPassword + "' ACCOUNT UNLOCK"} {
				if _, err := db.ExecContext(ctx, s); err != nil {
					return err
				}
			}
			return nil
		},
	}
}

// connect opens a pool without a test.
func connect(user, password, addr string) (*sql.DB, error) {
	c := sqldriver.NewConfig()
	c.User, c.Passwd, c.Net, c.Addr = user, password, "tcp", addr
	connector, err := sqldriver.NewConnector(c)
	if err != nil {
		return nil, err
	}
	return sql.OpenDB(connector), nil
}

// session is an application's one connection.
type session struct {
	db   *sql.DB
	conn *sql.Conn
}

func open(ctx context.Context, m replication.Member) (replicationtest.Session, error) {
	db, err := connect(appUser, appPassword, m.Addr)
	if err != nil {
		return nil, err
	}
	conn, err := db.Conn(ctx)
	if err != nil {
		db.Close()
		return nil, err
	}
	return &session{db, conn}, nil
}

func missing(err error) bool {
	e, ok := errors.AsType[*sqldriver.MySQLError](err)
	return ok && (e.Number == 1146 || e.Number == 1049)
}

func (s *session) Write(ctx context.Context, key, value string) error {
	const insert = "REPLACE INTO app.kv VALUES (?, ?)"
	_, err := s.conn.ExecContext(ctx, insert, key, value)
	if missing(err) {
		for _, create := range []string{"CREATE SCHEMA IF NOT EXISTS app",
			"CREATE TABLE IF NOT EXISTS app.kv (k VARCHAR(64) PRIMARY KEY, v TEXT)"} {
			if _, err := s.conn.ExecContext(ctx, create); err != nil {
				return err
			}
		}
		_, err = s.conn.ExecContext(ctx, insert, key, value)
	}
	return err
}

func (s *session) Read(ctx context.Context, key string) (value string, found bool, err error) {
	err = s.conn.QueryRowContext(ctx, "SELECT v FROM app.kv WHERE k = ?", key).Scan(&value)
	if missing(err) || errors.Is(err, sql.ErrNoRows) {
		return "", false, nil
	}
	return value, err == nil, err
}

func (s *session) Close() error {
	return errors.Join(s.conn.Close(), s.db.Close())
}

func TestEngine(t *testing.T) {
	t.Parallel() // with the next one: both wait most of the time
	replicationtest.Run(t, factory)
}

// An engine that copies files keeps the same rules.
func TestEngineByFiles(t *testing.T) {
	t.Parallel()
	replicationtest.Run(t, func(t testing.TB) replicationtest.Fixture {
		own := config
		own.Set = "conformance/db"
		var nodes []*node
		own.Machines = machines(t)
		own.Machines.Run = func(ctx context.Context, m replication.Member, args []string, stdin io.Reader, stdout io.Writer) (int, []byte, error) {
			return on(nodes)(ctx, m, args, stdin, stdout)
		}
		return fixture(t, own, func(n *node) { nodes = append(nodes, n) })
	})
}

// limited makes connections that break once so many statements have been sent over all of them together.
func limited(left *atomic.Int64) func(context.Context, string, string) (net.Conn, error) {
	return func(ctx context.Context, network, addr string) (net.Conn, error) {
		conn, err := (&net.Dialer{}).DialContext(ctx, network, addr)
		return &limitedConn{conn, left}, err
	}
}

type limitedConn struct {
	net.Conn
	left *atomic.Int64
}

func (c *limitedConn) Write(b []byte) (int, error) {
	if len(b) > 4 && b[4] == 3 && string(b[5:]) != "DO 1" { // COM_QUERY, but for the looks whether the server is there
		if c.left.Add(-1) < 0 {
			c.Close()
			return 0, net.ErrClosed
		}
	}
	return c.Conn.Write(b)
}
