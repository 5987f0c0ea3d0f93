package pool

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/scalr-go/scalr/replication"
)

// kind is what a connection is for.
type kind int

const (
	writer  kind = iota
	reader       // to a replica, or to nobody while there is none that serves
	spilled      // to the primary, for what the replicas may not serve; its sessions are read-only
)

// physical is a connection to one server.
type physical struct {
	inner   driver.Conn // nil: to nobody
	addr    string
	epoch   uint64
	primary bool // where reads need no check
	seen    replica
}

// conn is what database/sql holds.
type conn struct {
	physical
	db     *DB
	kind   kind
	tx     *tx  // under way
	used   bool // since it was taken from the pool: its session may have what a transaction depends on
	spoilt bool
}

var (
	_ driver.QueryerContext     = (*conn)(nil)
	_ driver.ExecerContext      = (*conn)(nil)
	_ driver.ConnPrepareContext = (*conn)(nil)
	_ driver.ConnBeginTx        = (*conn)(nil)
	_ driver.SessionResetter    = (*conn)(nil)
	_ driver.Validator          = (*conn)(nil)
	_ driver.Pinger             = (*conn)(nil)
	_ driver.NamedValueChecker  = (*conn)(nil)
)

// IsValid reports whether the connection may go back to the pool.
func (c *conn) IsValid() bool {
	if v, ok := c.inner.(driver.Validator); ok && !v.IsValid() {
		return false
	}
	return !c.spoilt && c.fits(c.db.view.now())
}

// fits reports whether the server is still the one to use.
func (c *conn) fits(v view) bool {
	switch {
	case c.kind == reader && c.primary && v.members > 0:
		return false
	case c.kind != reader || c.primary:
		return v.primary == c.addr && v.epoch == c.epoch
	case c.inner == nil:
		return len(v.replicas) == 0
	}
	return v.serves(c.addr)
}

// ResetSession is called before the connection is used again.
func (c *conn) ResetSession(ctx context.Context) error {
	v := c.db.view.now()
	if c.kind == reader {
		v = c.db.view.look(ctx, time.Now().Add(-c.db.config.Interval))
	}
	if c.spoilt || !c.fits(v) {
		return driver.ErrBadConn
	}
	c.used = false
	if r, ok := c.inner.(driver.SessionResetter); ok {
		return r.ResetSession(ctx)
	}
	return nil
}

func (c *conn) Close() error {
	if c.inner == nil {
		return nil
	}
	return c.inner.Close()
}

func (c *conn) Ping(ctx context.Context) error {
	p, ok := c.inner.(driver.Pinger)
	if !ok {
		return nil
	}
	stop, err := c.run(ctx, true, p.Ping)
	if err == nil {
		stop()
	}
	return err
}

func (c *conn) CheckNamedValue(v *driver.NamedValue) error {
	if checker, ok := c.inner.(driver.NamedValueChecker); ok {
		return checker.CheckNamedValue(v)
	}
	return driver.ErrSkip
}

// wrote notes that something may have been written, after it has been. What is written in a transaction is there when that has ended.
func (c *conn) wrote(ctx context.Context) {
	if c.kind != writer {
		return
	}
	s := sessionOf(ctx)
	s.wrote()
	if t := c.tx; t != nil && !slices.Contains(t.sessions, s) {
		t.sessions = append(t.sessions, s)
	}
}

// ExecContext runs a statement where it belongs.
func (c *conn) ExecContext(ctx context.Context, query string, args []driver.NamedValue) (driver.Result, error) {
	return elsewhere(ctx, c, func() (driver.Result, error) {
		on, release, err := c.route(ctx)
		if err != nil {
			return nil, err
		}
		defer release()
		return on.exec(ctx, func(ctx context.Context) (driver.Result, error) {
			e, ok := on.inner.(driver.ExecerContext)
			if !ok {
				return nil, driver.ErrSkip
			}
			return e.ExecContext(ctx, query, args)
		})
	})
}

func (c *conn) exec(ctx context.Context, do func(context.Context) (driver.Result, error)) (result driver.Result, err error) {
	defer c.wrote(ctx)
	stop, err := c.run(ctx, false, func(ctx context.Context) error {
		result, err = do(ctx)
		return err
	})
	if err != nil {
		return nil, err
	}
	stop()
	return result, nil
}

// QueryContext runs a query where it belongs.
func (c *conn) QueryContext(ctx context.Context, query string, args []driver.NamedValue) (driver.Rows, error) {
	return elsewhere(ctx, c, func() (driver.Rows, error) {
		on, release, err := c.route(ctx)
		if err != nil {
			return nil, err
		}
		return on.query(ctx, release, func(ctx context.Context) (driver.Rows, error) {
			q, ok := on.inner.(driver.QueryerContext)
			if !ok {
				return nil, driver.ErrSkip
			}
			return q.QueryContext(ctx, query, args)
		})
	})
}

func (c *conn) query(ctx context.Context, release func(), do func(context.Context) (driver.Rows, error)) (driver.Rows, error) {
	defer c.wrote(ctx)
	var inner driver.Rows
	stop, err := c.run(ctx, false, func(ctx context.Context) (err error) {
		inner, err = do(ctx)
		return err
	})
	if err != nil {
		release()
		return nil, err
	}
	return &rows{Rows: inner, c: c, wrote: func() { c.wrote(ctx) }, stop: stop, release: release}, nil
}

// route finds the connection for a statement: this one, or one to the primary. Release gives it back.
func (c *conn) route(ctx context.Context) (on *conn, release func(), err error) {
	keep := func() {}
	switch {
	case c.tx != nil:
		return c.tx.on, keep, nil
	case c.kind != reader || c.primary:
		return c, keep, nil
	}
	if c.inner != nil {
		ok, err := c.ready(ctx)
		if err != nil {
			return nil, nil, err
		}
		if ok {
			return c, keep, nil
		}
	}
	return c.db.spillOver(ctx)
}

// ready reports whether the replica may serve a read of the context's session.
func (c *conn) ready(ctx context.Context) (bool, error) {
	p, err := sessionOf(ctx).need(ctx, c.db)
	if err != nil {
		return false, err
	}
	ok, err := c.reached(ctx, p)
	if ok && err == nil {
		ok, err = c.closeEnough(ctx)
	}
	if err != nil {
		c.spoilt = true
		if ctx.Err() != nil {
			return false, context.Cause(ctx)
		}
		c.db.view.doubt()
		return false, driver.ErrBadConn
	}
	return ok, nil
}

// spillOver takes one of the connections to the primary that are for reads.
func (db *DB) spillOver(ctx context.Context) (on *conn, release func(), err error) {
	bounded, cancel := context.WithTimeoutCause(ctx, db.config.Wait, replication.ErrNoPrimary)
	defer cancel()
	held, err := db.spill.Conn(bounded)
	if err != nil {
		if ctx.Err() == nil && err == bounded.Err() { // it did not come to connect
			err = fmt.Errorf("%w: no replica is fresh enough, and %d reads wait for the primary already", ErrStale, db.config.Spill)
		}
		return nil, nil, err
	}
	if err := held.Raw(func(raw any) error { on = raw.(*conn); return nil }); err != nil {
		held.Close()
		return nil, nil, err
	}
	return on, sync.OnceFunc(func() { giveBack(held, on) }), nil
}

func giveBack(held *sql.Conn, on *conn) {
	if on.spoilt {
		_ = held.Raw(func(any) error { return driver.ErrBadConn })
	}
	held.Close()
}
