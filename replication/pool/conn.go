package pool

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
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

// errCut ends what runs on a server that is lost.
var errCut = errors.New("its server was lost")

// period is how often a statement that takes long makes sure that its server is not lost.
const period = 50 * time.Millisecond

// watch gives a context for what runs on the server: it ends when the server is known to be lost, since a server that
// hangs says nothing. Stop ends the watch, and reports whether the context was ended by it.
func (c *conn) watch(ctx context.Context) (watched context.Context, stop func() (cut bool)) {
	watched, cancel := context.WithCancelCause(ctx)
	var mu sync.Mutex // held by a look, so that none outlives the call
	var timer *time.Timer
	mu.Lock()
	defer mu.Unlock()
	timer = time.AfterFunc(2*period, func() {
		mu.Lock()
		defer mu.Unlock()
		if watched.Err() != nil {
			return
		}
		if c.lost(c.db.view.look(watched, time.Now().Add(-c.db.config.Interval/2))) {
			cancel(errCut)
			return
		}
		timer.Reset(period)
	})
	return watched, func() bool {
		cut := context.Cause(watched) == errCut
		if !timer.Stop() {
			cancel(nil)
			mu.Lock()
			timer.Stop()
			mu.Unlock()
		}
		cancel(nil)
		return cut
	}
}

// lost reports whether the server is known to be lost, so that waiting for it is in vain. A primary is lost when there is
// another one.
func (c *conn) lost(v view) bool {
	if c.kind != reader || c.primary {
		return v.primary != "" && v.primary != c.addr
	}
	return slices.Contains(v.down, c.addr)
}

// run runs something on the server under a watch, and says what a failure means. Idle is what has no effect. After a success
// the watch is still to be stopped.
//
// What may be sent elsewhere is sent once more from here, if nothing depends on the session: database/sql tries three times in
// all, and may meet as many sessions that a change of primary has ended.
func (c *conn) run(ctx context.Context, idle bool, do func(context.Context) error) (stop func() bool, err error) {
	for used, again := c.used, false; ; again = true {
		first := !idle && c.use(ctx)
		watched, stop := c.watch(ctx)
		if err = do(watched); err == nil {
			return stop, nil
		}
		cut := stop()
		switch {
		case errors.Is(err, driver.ErrSkip): // it is to be prepared first
			c.used = used
			if first {
				c.tx.fresh = true
			}
			return nil, err
		case first && c.rejected(err) && c.moves(ctx, c.tx.options):
			continue
		}
		if err = c.outcome(ctx, err, cut, idle); err != driver.ErrBadConn || used || again || c.kind == reader && !c.primary {
			return nil, err
		}
		to, err := c.db.connectPrimary(ctx, c.kind)
		if err != nil {
			return nil, err
		}
		c.inner.Close()
		c.physical, c.spoilt = to.(*conn).physical, false
	}
}

// outcome is what a failure means to the caller.
func (c *conn) outcome(ctx context.Context, err error, cut, idle bool) error {
	d := c.db.config.Driver
	switch {
	case c.kind == writer && d.Rejected(err):
		c.spoilt = true
		c.db.view.doubt()
		if c.tx == nil {
			return driver.ErrBadConn // to be sent to the primary instead
		}
		return fmt.Errorf("%s: %w: %w", c.addr, ErrRejected, err)
	case errors.Is(err, driver.ErrBadConn), cut, d.Lost(err):
		c.spoilt = true
		c.db.view.doubt()
		if cut {
			err = errCut
		}
		switch {
		case c.tx != nil && c.kind == writer: // it was not committed
			return fmt.Errorf("%s: %w: %w", c.addr, ErrRejected, unbad(err))
		case c.kind == writer && !idle && !errors.Is(err, driver.ErrBadConn):
			return fmt.Errorf("%s: %w: %w", c.addr, ErrAmbiguous, err)
		case c.tx != nil:
			return fmt.Errorf("%s: %w", c.addr, unbad(err))
		case ctx.Err() != nil && !cut:
			return err
		}
		return driver.ErrBadConn // a read has no effect: it may be sent to another server
	}
	return err
}

// unbad keeps database/sql from taking an error for a reason to try again.
func unbad(err error) error {
	if errors.Is(err, driver.ErrBadConn) {
		return errCut
	}
	return err
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
