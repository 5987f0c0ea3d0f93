package pool_test

import (
	"context"
	"database/sql/driver"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/scalr-go/scalr/replication"
	"github.com/scalr-go/scalr/replication/pool"
)

// world is servers in memory. A position is how many writes there were. Statements: "write" makes one, "write at commit" one when its
// transaction is committed, "write returning" is a query that makes one when its rows have been read, "read" gives the server and its
// position, anything else is an error of the application's.
type world struct {
	mu      sync.Mutex
	servers map[string]*server
	opened  map[string]int
}

type server struct {
	addr               string
	writable, readable bool
	hung, denied       bool
	followed           bool // or it does not know of any position that it has as a replica
	applied            int
	behind             int // this many writes are not applied
	sessions           int // those of an older number are lost
	cuts               int // this many sessions are lost before the statement that is to be sent,
	slowly             time.Duration
	took               int // writes that were acknowledged here
}

var (
	errReadOnly = errors.New("read-only")
	errLost     = errors.New("lost")
	errSyntax   = errors.New("syntax")
)

func newWorld(addrs ...string) *world {
	w := &world{servers: map[string]*server{}, opened: map[string]int{}}
	for i, addr := range addrs {
		w.servers[addr] = &server{addr: addr, writable: i == 0, readable: true, followed: i > 0}
	}
	return w
}

// change changes a server.
func (w *world) change(addr string, f func(s *server)) {
	w.mu.Lock()
	defer w.mu.Unlock()
	f(w.servers[addr])
}

// at runs f on a server that answers.
func (w *world) at(ctx context.Context, addr string, session int, f func(s *server) error) error {
	for {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		w.mu.Lock()
		s := w.servers[addr]
		switch {
		case !s.readable || session >= 0 && s.sessions != session:
			w.mu.Unlock()
			return errLost
		case !s.hung:
			err := f(s)
			w.mu.Unlock()
			return err
		}
		w.mu.Unlock()
		select {
		case <-time.After(10 * time.Millisecond):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

type fakeDriver struct{ *world }

var _ pool.Driver = fakeDriver{}

type fakeConn struct {
	w        *world
	addr     string
	session  int
	readOnly bool
	dead     bool
	pending  int // writes of its transaction
}

func (d fakeDriver) Connect(ctx context.Context, addr string, readOnly bool) (driver.Conn, error) {
	c := &fakeConn{w: d.world, addr: addr, readOnly: readOnly}
	err := d.at(ctx, addr, -1, func(s *server) error {
		if s.denied {
			return fmt.Errorf("%w: wrong password", replication.ErrAccess)
		}
		d.opened[addr]++
		c.session = s.sessions
		return nil
	})
	return c, err
}

func (d fakeDriver) Writable(ctx context.Context, c driver.Conn) (writable bool, err error) {
	err = c.(*fakeConn).at(ctx, func(s *server) error { writable = s.writable; return nil })
	return writable, err
}

func (d fakeDriver) Begin(ctx context.Context, c driver.Conn, o driver.TxOptions) error {
	return c.(*fakeConn).statement(ctx, func(s *server) error {
		if !o.ReadOnly && !s.writable {
			return errReadOnly
		}
		return nil
	})
}

func (d fakeDriver) Commit(ctx context.Context, conn driver.Conn) error {
	c := conn.(*fakeConn)
	return c.at(ctx, func(s *server) error {
		if !s.writable && !c.readOnly {
			return errReadOnly
		}
		for ; c.pending > 0; c.pending-- {
			if err := c.write(s); err != nil {
				return err
			}
		}
		return nil
	})
}

func (d fakeDriver) Rollback(ctx context.Context, c driver.Conn) error {
	c.(*fakeConn).pending = 0
	return c.(*fakeConn).at(ctx, func(*server) error { return nil })
}

func (d fakeDriver) Position(ctx context.Context, c driver.Conn, primary bool) (p replication.Position, err error) {
	err = c.(*fakeConn).at(ctx, func(s *server) error {
		if primary || s.followed {
			p = replication.Position(strconv.Itoa(s.applied))
		}
		return nil
	})
	return p, err
}

func (d fakeDriver) Await(ctx context.Context, c driver.Conn, p replication.Position, wait time.Duration) (bool, error) {
	for end := time.Now().Add(wait); ; time.Sleep(10 * time.Millisecond) {
		at, err := d.Position(ctx, c, false)
		if err != nil || d.Contains(at, p) || time.Now().After(end) {
			return err == nil && d.Contains(at, p), err
		}
	}
}

func (d fakeDriver) Contains(a, b replication.Position) bool {
	x, _ := strconv.Atoi(string(a))
	y, _ := strconv.Atoi(string(b))
	return x >= y
}

func (d fakeDriver) Rejected(err error) bool { return errors.Is(err, errReadOnly) }
func (d fakeDriver) Lost(err error) bool     { return errors.Is(err, errLost) }

func (c *fakeConn) at(ctx context.Context, f func(s *server) error) error {
	if c.dead {
		return driver.ErrBadConn
	}
	err := c.w.at(ctx, c.addr, c.session, f)
	c.dead = err != nil && !errors.Is(err, errReadOnly) && !errors.Is(err, errSyntax)
	return err
}

func (c *fakeConn) statement(ctx context.Context, f func(s *server) error) error {
	var wait time.Duration
	err := c.at(ctx, func(s *server) error {
		if s.cuts > 0 {
			s.cuts, wait = s.cuts-1, s.slowly
			return driver.ErrBadConn
		}
		return f(s)
	})
	time.Sleep(wait)
	return err
}

func (c *fakeConn) IsValid() bool                         { return !c.dead }
func (c *fakeConn) Close() error                          { return nil }
func (c *fakeConn) Begin() (driver.Tx, error)             { panic("the pool has its own") }
func (c *fakeConn) Prepare(q string) (driver.Stmt, error) { return &fakeStmt{c, q}, nil }

func (c *fakeConn) ExecContext(ctx context.Context, query string, _ []driver.NamedValue) (driver.Result, error) {
	return driver.ResultNoRows, c.statement(ctx, func(s *server) error {
		switch query {
		case "write":
			return c.write(s)
		case "write at commit":
			c.pending++
			return nil
		}
		return errSyntax
	})
}

func (c *fakeConn) write(s *server) error {
	if !s.writable || c.readOnly {
		return errReadOnly
	}
	s.applied++
	s.took++
	for _, r := range c.w.servers {
		if r != s {
			r.applied = max(r.applied, s.applied-r.behind)
		}
	}
	return nil
}

func (c *fakeConn) QueryContext(ctx context.Context, query string, _ []driver.NamedValue) (driver.Rows, error) {
	var r *fakeRows
	err := c.statement(ctx, func(s *server) error {
		r = &fakeRows{row: []driver.Value{s.addr, int64(s.applied)}, end: func() error { return nil }}
		switch query {
		case "read":
		case "write returning":
			r.end = func() error { return c.at(ctx, c.write) }
		default:
			return errSyntax
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return r, nil
}

type fakeStmt struct {
	c     *fakeConn
	query string
}

func (s *fakeStmt) Close() error                               { return nil }
func (s *fakeStmt) NumInput() int                              { return -1 }
func (s *fakeStmt) Exec([]driver.Value) (driver.Result, error) { panic("the pool has its own") }
func (s *fakeStmt) Query([]driver.Value) (driver.Rows, error)  { panic("the pool has its own") }

func (s *fakeStmt) ExecContext(ctx context.Context, args []driver.NamedValue) (driver.Result, error) {
	return s.c.ExecContext(ctx, s.query, args)
}

func (s *fakeStmt) QueryContext(ctx context.Context, args []driver.NamedValue) (driver.Rows, error) {
	return s.c.QueryContext(ctx, s.query, args)
}

type fakeRows struct {
	row         []driver.Value
	done, ended bool
	end         func() error
}

func (r *fakeRows) Columns() []string { return []string{"server", "position"} }

func (r *fakeRows) Close() error {
	if r.ended {
		return nil
	}
	r.ended = true
	return r.end()
}

func (r *fakeRows) Next(dest []driver.Value) error {
	if r.done {
		if err := r.Close(); err != nil {
			return err
		}
		return io.EOF
	}
	r.done = true
	copy(dest, r.row)
	return nil
}

// follower is a Manager that says what the test tells it.
type follower struct {
	mu      sync.Mutex
	t       replication.Topology
	changed chan struct{}
}

func (f *follower) Topology() (replication.Topology, <-chan struct{}) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.t, f.changed
}

// say publishes a primary and replicas, by address, or "down " and an address.
func (f *follower) say(primary string, replicas ...string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	t := replication.Topology{Epoch: f.t.Epoch, Primary: primary}
	if primary != "" {
		t.Epoch++
		t.Members = append(t.Members, replication.MemberState{Member: replication.Member{ID: primary, Addr: primary},
			Role: replication.RolePrimary, Serves: true})
	}
	for _, r := range replicas {
		if addr, down := strings.CutPrefix(r, "down "); down {
			t.Members = append(t.Members, replication.MemberState{Member: replication.Member{ID: addr, Addr: addr}, Role: replication.RoleDown})
			continue
		}
		t.Members = append(t.Members, replication.MemberState{Member: replication.Member{ID: r, Addr: r},
			Role: replication.RoleReplica, Serves: true})
	}
	f.t = t
	if f.changed != nil {
		close(f.changed)
	}
	f.changed = make(chan struct{})
}

func open(t testing.TB, c pool.Config) *pool.DB {
	t.Helper()
	db, err := pool.Open(c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	return db
}
