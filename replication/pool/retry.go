package pool

import (
	"context"
	"database/sql/driver"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"
)

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
		timer.Stop()
		cancel(nil)
		mu.Lock()
		defer mu.Unlock()
		timer.Stop()
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

// elsewhere does what a replica may be lost over once more with another one, or where there is none with the primary: see run.
func elsewhere[T any](ctx context.Context, c *conn, do func() (T, error)) (result T, err error) {
	for used, again := c.used, false; ; again = true {
		if result, err = do(); err != driver.ErrBadConn || c.kind != reader || c.tx != nil || used || again {
			return result, err
		}
		to, err := c.db.connectReader(ctx)
		if err != nil {
			return result, err
		}
		_ = c.Close()
		c.physical, c.spoilt, c.used = to.(*conn).physical, false, false
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
