//go:build linux

package local_test

import (
	"context"
	"database/sql"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/bradfitz/gomemcache/memcache"
	"github.com/go-sql-driver/mysql"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/scalr-go/scalr/internal/testenv"
	"github.com/scalr-go/scalr/provider"
	"github.com/scalr-go/scalr/provider/local"
)

// open connects to a server as its administrator.
func open(t *testing.T, s *testenv.Server, addr string) *sql.DB {
	cfg := mysql.NewConfig()
	cfg.User, cfg.Passwd, cfg.Net, cfg.Addr, cfg.InterpolateParams = s.User, s.Password, "tcp", addr, true
	cfg.Logger = &mysql.NopLogger{}
	conn, err := mysql.NewConnector(cfg)
	require.NoError(t, err)
	db := sql.OpenDB(conn)
	t.Cleanup(func() { db.Close() })
	return db
}

// write writes rows 1, 2, 3, … until the server fails, and counts what it acknowledged.
func write(ctx context.Context, db *sql.DB, acked *atomic.Int64) {
	for n := acked.Load() + 1; ctx.Err() == nil; n++ {
		if _, err := db.ExecContext(ctx, "INSERT INTO d.t VALUES (?, REPEAT('x', 500))", n); err != nil {
			return
		}
		acked.Store(n)
	}
}

func createTable(t *testing.T, db *sql.DB) {
	for _, q := range []string{"CREATE DATABASE d", "CREATE TABLE d.t (id BIGINT PRIMARY KEY, x TEXT) ENGINE=InnoDB"} {
		_, err := db.ExecContext(t.Context(), q)
		require.NoError(t, err)
	}
}

// rows checks that the table has rows 1 to n without a gap, and gives n.
func rows(t *testing.T, db *sql.DB) (n int64) {
	t.Helper()
	var last sql.NullInt64
	require.NoError(t, db.QueryRowContext(t.Context(), "SELECT COUNT(*), MAX(id) FROM d.t").Scan(&n, &last))
	assert.Equal(t, n, last.Int64, "rows are missing in the middle")
	var table, op, kind, text string
	require.NoError(t, db.QueryRowContext(t.Context(), "CHECK TABLE d.t EXTENDED").Scan(&table, &op, &kind, &text))
	assert.Equal(t, "OK", text)
	return n
}

func TestMariaDBKeepsWhatItAcknowledged(t *testing.T) {
	s := testenv.MariaDB(t, 1)[0]
	db := open(t, s, s.Addr)
	createTable(t, db)
	var acked atomic.Int64
	ended := make(chan bool)
	go func() { write(t.Context(), db, &acked); close(ended) }()
	until(t, "rows are acknowledged", func() bool { return acked.Load() > 50 })
	require.NoError(t, s.Kill(t.Context()))
	<-ended
	i := find(t, s.Cloud, s.ID)
	assert.Equal(t, provider.Failed, i.State)
	assert.Equal(t, "killed by signal 9", i.Reason)
	require.NoError(t, s.Start(t.Context()))
	n := rows(t, db)
	assert.GreaterOrEqual(t, n, acked.Load(), "an acknowledged row is lost")
	assert.LessOrEqual(t, n, acked.Load()+1)

	// The volume carries the data to a successor at another address.
	require.NoError(t, s.Cloud.Terminate(t.Context(), s.ID))
	next, err := s.Cloud.Launch(t.Context(), provider.Launch{Token: "next", Image: "server", Volumes: []string{s.Volume}})
	require.NoError(t, err)
	assert.NotEqual(t, s.Host, next.Private.String())
	untilState(t, s.Cloud, next.ID, provider.Running)
	assert.Equal(t, n, rows(t, open(t, s, net.JoinHostPort(next.Private.String(), "3306"))))
}

// A server that was shut down while it replicated may have closed its binary log over a transaction that InnoDB has only prepared. Such
// a data directory is made of one whose server was killed while it waited for a replica: the row is in the binary log, and stays.
func TestMariaDBStartsWithAPreparedTransaction(t *testing.T) {
	t.Run("AnotherInstance", func(t *testing.T) { startsWithAPreparedTransaction(t, false) })
	t.Run("TheSame", func(t *testing.T) { startsWithAPreparedTransaction(t, true) })
}

func startsWithAPreparedTransaction(t *testing.T, same bool) {
	s := testenv.MariaDB(t, 1)[0]
	db := open(t, s, s.Addr)
	createTable(t, db)
	position := func() (pos string) {
		require.NoError(t, db.QueryRowContext(t.Context(), "SELECT @@gtid_binlog_pos").Scan(&pos))
		return pos
	}
	for _, q := range []string{"INSERT INTO d.t VALUES (1, 'x')", "SET GLOBAL rpl_semi_sync_master_wait_point = AFTER_SYNC",
		"SET GLOBAL rpl_semi_sync_master_timeout = 600000", "SET GLOBAL rpl_semi_sync_master_enabled = ON"} {
		_, err := db.ExecContext(t.Context(), q)
		require.NoError(t, err)
	}
	before, ended := position(), make(chan error, 1)
	go func() {
		_, err := db.ExecContext(t.Context(), "INSERT INTO d.t VALUES (2, 'x')")
		ended <- err
	}()
	until(t, "the row is in the binary log", func() bool { return position() != before })
	after := position()
	var base string
	require.NoError(t, db.QueryRowContext(t.Context(), "SELECT @@log_bin_basename").Scan(&base))
	require.NoError(t, s.Kill(t.Context()))
	require.Error(t, <-ended)

	require.NoError(t, os.WriteFile(base+".state", []byte(after+"\n"), 0o600))
	f, err := os.OpenFile(base+".000001", os.O_RDWR, 0)
	require.NoError(t, err)
	flags := []byte{0}
	_, err = f.ReadAt(flags, 21)
	require.NoError(t, err)
	require.EqualValues(t, 1, flags[0], "in use")
	_, err = f.WriteAt([]byte{0}, 21)
	require.NoError(t, err)
	require.NoError(t, f.Close())

	addr := s.Addr
	if same {
		require.NoError(t, s.Start(t.Context()))
	} else {
		require.NoError(t, s.Cloud.Terminate(t.Context(), s.ID))
		next, err := s.Cloud.Launch(t.Context(), provider.Launch{Token: "next", Image: "server", Volumes: []string{s.Volume}})
		require.NoError(t, err)
		untilState(t, s.Cloud, next.ID, provider.Running)
		addr = net.JoinHostPort(next.Private.String(), "3306")
	}
	db = open(t, s, addr)
	require.EqualValues(t, 2, rows(t, db))
	require.Equal(t, after, position())
}

func TestSnapshotOfABusyMariaDB(t *testing.T) {
	s := testenv.MariaDB(t, 1)[0]
	db := open(t, s, s.Addr)
	createTable(t, db)
	var acked atomic.Int64
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	ended := make(chan bool)
	go func() { write(ctx, db, &acked); close(ended) }()
	for n := range 3 {
		before := acked.Load()
		until(t, "rows are acknowledged", func() bool { return acked.Load() > before+50 })
		before = acked.Load()
		snap, err := s.Cloud.CreateSnapshot(t.Context(), provider.SnapshotSpec{Token: fmt.Sprint("s", n), Volume: s.Volume})
		require.NoError(t, err)
		after := acked.Load()
		v, err := s.Cloud.CreateVolume(t.Context(), provider.VolumeSpec{Token: fmt.Sprint("v", n), Snapshot: snap.ID})
		require.NoError(t, err)
		i, err := s.Cloud.Launch(t.Context(), provider.Launch{Token: fmt.Sprint("i", n), Image: "server", Volumes: []string{v.ID}})
		require.NoError(t, err)
		untilState(t, s.Cloud, i.ID, provider.Running)
		got := rows(t, open(t, s, net.JoinHostPort(i.Private.String(), "3306")))
		assert.GreaterOrEqual(t, got, before, "a row acknowledged before the snapshot is not in it")
		assert.LessOrEqual(t, got, after+1)
		require.NoError(t, s.Cloud.Terminate(t.Context(), i.ID))
	}
	cancel()
	<-ended
}

func TestMariaDBAccounts(t *testing.T) {
	r := local.MariaDB{
		User: `o'brien\`, Password: `it's "a" \secret;`,
		SQL: []string{"CREATE USER IF NOT EXISTS app@'%' IDENTIFIED BY 'app'", "GRANT SELECT ON *.* TO app@'%';"},
		Config: func(m local.Machine) string {
			return testenv.BinaryLog + "read_only = ON\nserver_id = 7\ncharacter_set_server = utf8mb4\n# " + m.Name
		},
	}
	s := testenv.MariaDBWith(t, 1, r)[0]
	db := open(t, s, s.Addr)
	var id int
	var readOnly bool
	var pos string
	require.NoError(t, db.QueryRowContext(t.Context(), "SELECT @@server_id, @@read_only, @@gtid_binlog_pos").Scan(&id, &readOnly, &pos))
	assert.Equal(t, 7, id, "the config wins over the recipe")
	assert.True(t, readOnly)
	assert.Empty(t, pos, "creating accounts leaves no trace in the binary log")

	for user, password := range map[string]string{"root": "", "": "", s.User: "wrong", "app": ""} {
		cfg := mysql.NewConfig()
		cfg.User, cfg.Passwd, cfg.Net, cfg.Addr, cfg.Logger = user, password, "tcp", s.Addr, &mysql.NopLogger{}
		conn, err := mysql.NewConnector(cfg)
		require.NoError(t, err)
		denied := sql.OpenDB(conn)
		assert.Error(t, denied.PingContext(t.Context()), "user %q", user)
		denied.Close()
	}
	require.NoError(t, open(t, &testenv.Server{User: "app", Password: "app"}, s.Addr).PingContext(t.Context()))

	// Secrets are in files of mode 0600, and on no command line.
	assert.Empty(t, withArgument(s.Password))
	files, err := filepath.Glob("/proc/[0-9]*/cmdline")
	require.NoError(t, err)
	for _, f := range files {
		line, _ := os.ReadFile(f)
		assert.NotContains(t, string(line), "secret;", f)
	}
	for _, name := range []string{"init.sql", "my.cnf"} {
		st, err := os.Stat(filepath.Join(s.Dir, name))
		require.NoError(t, err)
		assert.Equal(t, os.FileMode(0o600), st.Mode().Perm(), name)
	}
	assert.NotContains(t, s.Output(), "secret;")
	require.NoError(t, s.Stop(t.Context()))
	require.NoError(t, s.Start(t.Context()))
	require.NoError(t, db.PingContext(t.Context()), "the statements can be run again")
}

func TestRecipesRefuse(t *testing.T) {
	testenv.Need(t, "mariadbd", "memcached")
	for _, r := range []local.MariaDB{{User: "x"}, {Password: "x"}, {User: "x", Password: "a\nb"}, {User: "x", Password: "y", SQL: []string{"a\nb"}}} {
		_, err := r.Image()
		require.Error(t, err)
		assert.NotContains(t, err.Error(), "a\nb")
	}
	_, err := local.Memcached{MemoryMB: -1}.Image()
	require.ErrorContains(t, err, "MemoryMB is -1")
	_, err = local.FindProgram("scalr-no-such-program", "some-package")
	require.ErrorContains(t, err, "Debian package some-package")
}

// Two programs that start their first MariaDB at once share the work of the template.
func TestMariaDBTemplateIsMadeOnce(t *testing.T) {
	testenv.Need(t, "mariadbd", "mariadb-install-db")
	template := testenv.Dir(t)
	errs := make(chan error)
	for range 2 {
		im, err := local.MariaDB{User: "a", Password: "b", Template: template}.Image()
		require.NoError(t, err)
		dir := testenv.Dir(t)
		go func() {
			errs <- im.Prepare(t.Context(), local.Machine{Dir: dir, Addr: netip.MustParseAddr("127.77.1.1")})
		}()
	}
	require.NoError(t, <-errs)
	require.NoError(t, <-errs)
	left, err := os.ReadDir(template)
	require.NoError(t, err)
	var names []string
	for _, f := range left {
		names = append(names, f.Name())
	}
	require.Len(t, names, 2, "one template and its lock: %s", names)
	assert.True(t, strings.HasPrefix(names[0], "mariadb-") && names[1] == names[0]+".lock", names)
}

func TestMemcached(t *testing.T) {
	servers := testenv.Memcached(t, 2)
	for n, s := range servers {
		m := memcache.New(s.Addr)
		defer m.Close()
		require.NoError(t, m.Set(&memcache.Item{Key: "k", Value: fmt.Append(nil, n)}))
	}
	for n, s := range servers {
		m := memcache.New(s.Addr)
		defer m.Close()
		item, err := m.Get("k")
		require.NoError(t, err)
		assert.Equal(t, fmt.Sprint(n), string(item.Value), "each is a server of its own")
	}
	s := servers[0]
	require.NoError(t, s.Kill(t.Context()))
	require.NoError(t, s.Start(t.Context()))
	m := memcache.New(s.Addr)
	defer m.Close()
	_, err := m.Get("k")
	require.ErrorIs(t, err, memcache.ErrCacheMiss)
}

func TestHungServer(t *testing.T) {
	s := testenv.Memcached(t, 1)[0]
	require.NoError(t, s.Hang(t.Context()))
	require.Contains(t, states(s.ID), "T", "it stands still when Hang returns")
	conn, err := net.Dial("tcp", s.Addr)
	require.NoError(t, err, "it takes connections")
	defer conn.Close()
	_, err = io.WriteString(conn, "version\r\n")
	require.NoError(t, err)
	answered := make(chan string)
	go func() {
		b := make([]byte, 100)
		n, _ := conn.Read(b)
		answered <- string(b[:n])
	}()
	assert.Equal(t, provider.Running, find(t, s.Cloud, s.ID).State, "to its cloud a hung machine runs")
	require.NoError(t, s.Resume(t.Context()))
	assert.Contains(t, <-answered, "VERSION")
}

// A server is stopped and started again while its machine runs, which outlives a start that fails. A machine that has been
// switched off is not woken.
func TestMariaDBService(t *testing.T) {
	s := testenv.MariaDB(t, 1)[0]
	stop, start := local.MariaDB{}.Service()
	run := func(args []string) (int, error) {
		r, err := s.Cloud.RunCommand(t.Context(), s.ID, provider.Command{Args: args})
		return r.Exit, err
	}
	ok := func(args []string) {
		t.Helper()
		exit, err := run(args)
		require.NoError(t, err)
		require.Zero(t, exit)
	}
	state := func() provider.State {
		all, err := s.Cloud.Instances(t.Context(), nil)
		require.NoError(t, err)
		return all[0].State
	}
	served := func() bool {
		conn, err := net.Dial("tcp", s.Addr)
		if err == nil {
			conn.Close()
		}
		return err == nil
	}
	answers := func() {
		db := open(t, s, s.Addr)
		require.Eventually(t, func() bool { return db.Ping() == nil }, time.Minute, 10*time.Millisecond)
		require.NoError(t, db.Close())
	}
	answers()
	for range 2 {
		ok(stop)
		require.False(t, served())
		require.Equal(t, provider.Running, state())
	}
	data := filepath.Join(s.Cloud.Dir(s.Volume), "mysql")
	require.NoError(t, os.Rename(data, data+".away"))
	exit, err := run(start)
	require.NoError(t, err)
	require.NotZero(t, exit)
	require.Equal(t, provider.Running, state())
	require.NoError(t, os.Rename(data+".away", data))
	for range 2 {
		ok(start)
		require.True(t, served())
	}
	answers()

	ok(stop)
	require.NoError(t, s.Stop(t.Context()))
	_, err = run(start)
	require.ErrorIs(t, err, provider.ErrInvalid)
	require.Equal(t, provider.Stopped, state())
	require.False(t, served())
	require.NoError(t, s.Start(t.Context()), "a machine begins with its server")
	require.NoError(t, s.Kill(t.Context()), "which it ends with")
}
