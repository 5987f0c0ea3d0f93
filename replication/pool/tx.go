package pool

import (
	"context"
	"database/sql/driver"
	"errors"
	"fmt"
)

// BeginTx begins a transaction where it belongs: all of its statements go there.
func (c *conn) BeginTx(ctx context.Context, o driver.TxOptions) (driver.Tx, error) {
	return elsewhere(ctx, c, func() (driver.Tx, error) {
		on, release, err := c.route(ctx)
		if err != nil {
			return nil, err
		}
		if on.kind != writer {
			o.ReadOnly = true
		}
		if on.kind != writer || on.used || on.fits(on.db.view.now()) || !on.moves(ctx, o) {
			stop, err := on.run(ctx, true, func(ctx context.Context) error { return on.db.config.Driver.Begin(ctx, on.inner, o) })
			if err != nil {
				release()
				return nil, err
			}
			stop()
		}
		t := &tx{ctx: ctx, c: c, on: on, release: release, options: o, writes: on.kind == writer && !o.ReadOnly,
			sessions: []*Session{sessionOf(ctx)}}
		t.fresh = t.writes && !on.used
		c.tx, on.tx = t, t
		return t, nil
	})
}

// Begin is not called: there is BeginTx.
func (c *conn) Begin() (driver.Tx, error) { return nil, errors.ErrUnsupported }

// tx is a transaction, which lives no longer than the context that it was begun with.
type tx struct {
	ctx     context.Context // driver.Tx has no other
	c, on   *conn
	release func()
	options driver.TxOptions
	writes  bool
	fresh   bool // no statement has been run in it, nor on its connection before it

	sessions []*Session // of its beginning and of its statements
}

func (t *tx) Commit() error {
	d := t.on.db.config.Driver
	watched, stop := t.on.watch(t.ctx)
	err := d.Commit(watched, t.on.inner)
	cut := stop()
	if t.writes {
		for _, s := range t.sessions {
			s.wrote()
		}
	}
	defer t.end()
	lost := cut || d.Lost(err)
	t.on.spoilt = t.on.spoilt || err != nil
	switch {
	case err == nil, lost && !t.writes:
		return nil
	case lost && !errors.Is(err, driver.ErrBadConn):
		t.on.db.view.doubt()
		return fmt.Errorf("%s: %w: %w", t.on.addr, ErrAmbiguous, err)
	case d.Rejected(err), errors.Is(err, driver.ErrBadConn): // the latter was not sent
		t.on.db.view.doubt()
		return fmt.Errorf("%s: %w: %w", t.on.addr, ErrRejected, unbad(err))
	}
	return err
}

// Rollback cannot fail: a server that does not take it takes the transaction back when it has lost the connection.
func (t *tx) Rollback() error {
	defer t.end()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(t.ctx), t.on.db.config.Timeout)
	defer cancel()
	watched, stop := t.on.watch(ctx)
	if err := t.on.db.config.Driver.Rollback(watched, t.on.inner); err != nil {
		t.on.spoilt = true
	}
	stop()
	return nil
}

func (t *tx) end() {
	t.c.tx, t.on.tx = nil, nil
	t.release()
}

// use notes that a statement is to be run, and reports whether it is the first one of a transaction that nothing went before. Such a
// transaction is begun again elsewhere if its server is known to be the primary no more.
func (c *conn) use(ctx context.Context) (first bool) {
	c.used = true
	if c.tx != nil {
		first, c.tx.fresh = c.tx.fresh, false
	}
	if first && !c.fits(c.db.view.now()) {
		c.moves(ctx, c.tx.options)
	}
	return first
}

// rejected reports whether the server has refused a statement because it takes no writes.
func (c *conn) rejected(err error) bool { return err != nil && c.db.config.Driver.Rejected(err) }

// moves connects to the primary that there is now, and begins a transaction there in which nothing has been done yet.
func (c *conn) moves(ctx context.Context, o driver.TxOptions) bool {
	c.db.view.doubt()
	to, err := c.db.connectPrimary(ctx, writer)
	if err != nil {
		return false
	}
	next := to.(*conn)
	watched, stop := next.watch(ctx)
	err = c.db.config.Driver.Begin(watched, next.inner, o)
	if cut := stop(); err != nil || cut {
		next.Close()
		return false
	}
	c.inner.Close()
	c.physical = next.physical
	return true
}
