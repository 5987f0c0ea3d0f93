package main

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	sqldriver "github.com/go-sql-driver/mysql"

	"github.com/scalr-go/scalr"
	"github.com/scalr-go/scalr/internal/testenv"
	"github.com/scalr-go/scalr/provider/local"
	"github.com/scalr-go/scalr/replication"
	"github.com/scalr-go/scalr/replication/mysql"
	"github.com/scalr-go/scalr/replication/pool"
)

// The ends of the network that are no servers. Servers among themselves come from 127.0.0.1.
const (
	managerIP = "127.0.1.1"
	clientIP  = "127.0.1.2"
	rogueIP   = "127.0.1.3" // clients that reach everybody always, as this program's own questions do
	serversIP = "127.0.0.1"
)

const appUser, appPassword = "app", "app-pass"

// from makes connections from an address.
func from(ip string) func(ctx context.Context, network, addr string) (net.Conn, error) {
	return (&net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(ip)}}).DialContext
}

// fixture is the servers, their Manager, and the application's pool.
type fixture struct {
	b          *bench
	o          options
	nodes      []*testenv.Server
	config     mysql.Config
	members    []replication.Member
	manager    *replication.Manager
	endManager func()
	pool       *pool.DB
	direct     map[string]*sql.DB // by ID: the administrator's
	disks      string             // the directory of the disks that hold binary logs; empty where there are none

	mu     sync.Mutex
	events []scalr.Event
	next   int
}

func id(i int) string { return fmt.Sprintf("db-%d", i+1) }

func must(b *bench, err error) {
	if err != nil {
		b.Fatal(err)
	}
}

func begin(b *bench, o options) *fixture {
	if apart() {
		must(b, setUp())
	}
	f := &fixture{b: b, o: o, direct: map[string]*sql.DB{}}
	if apart() && o.mode == "chaos" {
		f.disks = testenv.Dir(b)
		b.Cleanup(func() {
			mounted, err := os.ReadDir(f.disks)
			for _, m := range mounted {
				err = errors.Join(err, unmountDisk(f.disk(m.Name())))
			}
			if err != nil {
				b.Errorf("%v", err)
			}
		})
	}
	config := mysql.Config{User: "scalr", Password: "admin-pass", ReplicationUser: "replica", ReplicationPassword: "replica-pass",
		DialContext: from(managerIP)}
	f.config = config
	bootstrap := strings.Split(strings.TrimRight(mysql.BootstrapSQL(config), ";\n"), ";\n")
	f.nodes = testenv.MariaDBWith(b, 3, local.MariaDB{
		User: config.User, Password: config.Password,
		Config: func(m local.Machine) string {
			more := []string{"slave_parallel_threads = 4"}
			if f.disks != "" {
				disk := f.disk(m.Addr.String())
				if err := mountDisk(disk); err != nil && !errors.Is(err, fs.ErrExist) {
					b.Errorf("a disk for %s: %v", m.Addr, err)
				}
				more = append(more, "log_bin = "+filepath.Join(disk, "binlog"))
			}
			return mysql.ServerConf(mysql.Server{Bind: m.Addr.String(), BufferPool: 32 << 20, More: more})
		},
		SQL: append(bootstrap, "CREATE USER IF NOT EXISTS "+appUser+"@'%' IDENTIFIED BY '"+appPassword+"'",
			"GRANT ALL PRIVILEGES ON app.* TO "+appUser+"@'%'"),
	})
	for i, n := range f.nodes {
		f.members = append(f.members, replication.Member{ID: id(i), Addr: n.Addr, Machine: n.ID, Fence: n.Stop})
		f.direct[id(i)] = f.open(n.Addr, config.User, config.Password)
	}
	f.runManager()
	b.Cleanup(func() { f.endManager() })
	must(b, f.whole(b.ctx))
	for _, statement := range []string{"CREATE SCHEMA app", "CREATE TABLE app.t (i BIGINT PRIMARY KEY, v VARCHAR(100))"} {
		_, err := f.direct[f.primary()].ExecContext(b.ctx, "SET sql_log_bin = 1; "+statement)
		must(b, err)
	}
	c := sqldriver.NewConfig()
	c.User, c.Passwd, c.DialFunc = appUser, appPassword, from(clientIP)
	client, err := mysql.NewClient(c)
	must(b, err)
	pc := pool.Config{Driver: client, Manager: f.manager}
	if o.mode == "chaos" {
		pc = pool.Config{Driver: client, Interval: 200 * time.Millisecond, Wait: time.Minute}
		for _, n := range f.nodes {
			pc.Addrs = append(pc.Addrs, n.Addr)
		}
	}
	f.pool, err = pool.Open(pc)
	must(b, err)
	f.pool.Writer.SetMaxIdleConns(o.writers)
	b.Cleanup(func() { f.pool.Close() })
	return f
}

// disk is where the disk of a server is mounted.
func (f *fixture) disk(host string) string { return filepath.Join(f.disks, host) }

// runManager runs a Manager and an engine that know nothing yet.
func (f *fixture) runManager() {
	engine, err := mysql.New(f.config)
	must(f.b, err)
	m, err := replication.New(replication.Config{Name: "bench/db", Engine: engine, Policy: f.o.policy, Recoveries: 1000,
		Events: func(e scalr.Event) {
			f.mu.Lock()
			defer f.mu.Unlock()
			f.events = append(f.events, e)
		}})
	must(f.b, err)
	m.SetMembers(f.members, len(f.members))
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- m.Run(ctx) }()
	f.manager, f.endManager = m, sync.OnceFunc(func() { cancel(); <-done })
}

// restartManager ends the Manager in whatever it does, and runs another one, as when the process is another one.
func (f *fixture) restartManager() {
	f.endManager()
	f.runManager()
}

// open connects without the pool.
func (f *fixture) open(addr, user, password string) *sql.DB {
	c := sqldriver.NewConfig()
	c.User, c.Passwd, c.Net, c.Addr, c.DialFunc = user, password, "tcp", addr, from(rogueIP)
	c.Timeout, c.ReadTimeout = time.Second, 2*time.Second
	c.InterpolateParams, c.MultiStatements = true, true
	c.Logger = &sqldriver.NopLogger{}
	connector, err := sqldriver.NewConnector(c)
	must(f.b, err)
	db := sql.OpenDB(connector)
	db.SetMaxIdleConns(1)
	f.b.Cleanup(func() { db.Close() })
	return db
}

func (f *fixture) primary() string {
	t, _ := f.manager.Topology()
	return t.Primary
}

func (f *fixture) node(name string) *testenv.Server {
	for i, n := range f.nodes {
		if id(i) == name {
			return n
		}
	}
	return nil
}

// tell prints what has happened.
func (f *fixture) tell() {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, e := range f.events {
		f.b.Logf("%v", e)
	}
	t, _ := f.manager.Topology()
	f.b.Logf("%+v", t)
	for i, n := range f.nodes {
		f.b.Logf("%s: %s", id(i), f.sessions(id(i)))
		lines := strings.Split(n.Output(), "\n")
		f.b.Logf("%s:\n%s", id(i), strings.Join(lines[max(0, len(lines)-150):], "\n"))
	}
}

// sessions says what a server does at present.
func (f *fixture) sessions(name string) string {
	var all sql.NullString
	err := f.direct[name].QueryRowContext(f.b.ctx, "SELECT CONCAT("+
		"(SELECT GROUP_CONCAT(variable_name, '=', variable_value SEPARATOR ' ') FROM information_schema.global_status WHERE variable_name LIKE 'rpl_semi_sync%'), "+
		"' read_only=', @@read_only, '\n', (SELECT GROUP_CONCAT(id, ' ', user, '@', host, ' ', command, ' ', time, ' ', IFNULL(state, ''), ' ', "+
		"IFNULL(info, '') SEPARATOR '\n') FROM information_schema.processlist))").Scan(&all)
	if err != nil {
		return err.Error()
	}
	return all.String
}

// until waits for a condition.
func until(ctx context.Context, what string, cond func() bool) error {
	ctx, cancel := context.WithTimeout(ctx, 90*time.Second)
	defer cancel()
	for !cond() {
		select {
		case <-ctx.Done():
			return fmt.Errorf("waiting until %s: %w", what, ctx.Err())
		case <-time.After(2 * time.Millisecond):
		}
	}
	return nil
}

// whole waits until there is a primary and the others follow it. A server that was away for long may take longer than that, while
// others write, as long as it gets on.
func (f *fixture) whole(ctx context.Context) (err error) {
	for range 4 {
		before := f.positions()
		if err = f.wholeSoon(ctx); err == nil || ctx.Err() != nil || maps.Equal(before, f.positions()) {
			return err
		}
	}
	return err
}

// positions are how far those are that do not serve.
func (f *fixture) positions() map[string]replication.Position {
	at := map[string]replication.Position{}
	t, _ := f.manager.Topology()
	for _, m := range t.Members {
		if m.Role == replication.RoleReplica && !m.Serves {
			at[m.Member.ID] = m.Position
		}
	}
	return at
}

func (f *fixture) wholeSoon(ctx context.Context) error {
	return until(ctx, "the set is whole", func() bool {
		t, _ := f.manager.Topology()
		well := 0
		for _, m := range t.Members {
			if m.Role == replication.RolePrimary || m.Role == replication.RoleReplica && m.Serves && m.Error == "" {
				well++
			}
		}
		return well == len(f.nodes)
	})
}

// tend starts servers that have died by themselves, as a farm does, until the end: some MariaDB 10.11 crash now and then when
// a replica that has just started attaches.
func (f *fixture) tend(ctx context.Context) (end func()) {
	ctx, cancel := context.WithCancel(ctx)
	var user sync.WaitGroup
	user.Go(func() {
		for ctx.Err() == nil {
			for _, n := range f.nodes {
				if err := n.Start(ctx); err != nil && ctx.Err() == nil {
					f.b.Logf("%v", err)
				}
			}
			select {
			case <-time.After(2 * time.Second):
			case <-ctx.Done():
			}
		}
	})
	return func() { cancel(); user.Wait() }
}

// hasAll waits until the member has everything that the primary has now.
func (f *fixture) hasAll(ctx context.Context, name string) error {
	var pos string
	if err := f.direct[f.primary()].QueryRowContext(ctx, "SELECT @@gtid_binlog_pos").Scan(&pos); err != nil {
		return err
	}
	return until(ctx, name+" has everything", func() bool {
		t, _ := f.manager.Topology()
		if m, _ := t.Member(name); m.Role != replication.RoleReplica || m.Error != "" {
			return false
		}
		var r sql.NullInt64
		err := f.direct[name].QueryRowContext(ctx, "SELECT MASTER_GTID_WAIT(?, 1)", pos).Scan(&r)
		return err == nil && r.Valid && r.Int64 == 0
	})
}

// equal compares the data of all servers.
func (f *fixture) equal(ctx context.Context) error {
	// A statement that its caller has given up may still be under way.
	if err := until(ctx, "nobody writes any more", func() bool {
		var n int
		err := f.direct[f.primary()].QueryRowContext(ctx, "SELECT COUNT(*) FROM information_schema.processlist "+
			"WHERE user = '"+appUser+"' AND command <> 'Sleep'").Scan(&n)
		return err == nil && n == 0
	}); err != nil {
		return err
	}
	// What a client had sent when it gave up, the server may read later still.
	var differ error
	if err := until(ctx, "all have the same rows", func() bool { differ = f.compare(ctx); return differ == nil }); err != nil {
		return fmt.Errorf("%w: %w", err, differ)
	}
	return nil
}

// compare reports a server that has other rows than the primary, or cannot say.
func (f *fixture) compare(ctx context.Context) error {
	sums := map[string]string{}
	for name, db := range f.direct {
		if name != f.primary() {
			if err := f.hasAll(ctx, name); err != nil {
				return err
			}
		}
		var table, sum string
		if err := db.QueryRowContext(ctx, "CHECKSUM TABLE app.t EXTENDED").Scan(&table, &sum); err != nil {
			return err
		}
		sums[name] = sum
	}
	for name, sum := range sums {
		if sum != sums[f.primary()] {
			return fmt.Errorf("%s has the checksum %s and the primary %s", name, sum, sums[f.primary()])
		}
	}
	return nil
}
