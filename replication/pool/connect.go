package pool

import (
	"context"
	"database/sql/driver"
	"errors"
	"fmt"
	"time"

	"github.com/scalr-go/scalr/replication"
)

// connector opens the connections of one of the two pools.
type connector struct {
	db   *DB
	kind kind
}

// Driver is for database/sql, which needs none where there is a connector.
func (c *connector) Driver() driver.Driver { return noDriver{} }

type noDriver struct{}

func (noDriver) Open(string) (driver.Conn, error) { return nil, errors.ErrUnsupported }

// Connect waits for a server that may serve, and connects to it.
func (c *connector) Connect(ctx context.Context) (driver.Conn, error) {
	if c.kind == reader {
		return c.db.connectReader(ctx)
	}
	return c.db.connectPrimary(ctx, c.kind)
}

// dial connects to one server, within Config.Timeout.
func (db *DB) dial(ctx context.Context, addr string, readOnly bool) (driver.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, db.config.Timeout)
	defer cancel()
	return db.config.Driver.Connect(ctx, addr, readOnly)
}

// connectPrimary connects to the primary, and waits for one.
func (db *DB) connectPrimary(ctx context.Context, k kind) (driver.Conn, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, db.config.Wait, replication.ErrNoPrimary)
	defer cancel()
	began := time.Now()
	var last error
	for since := began.Add(-db.config.Interval); ; since = time.Now() {
		news := db.view.changed()
		v := db.view.look(ctx, since)
		switch {
		case v.primary != "":
			c, err := db.tryPrimary(ctx, v, k)
			if err == nil || errors.Is(err, replication.ErrAccess) {
				return c, err
			}
			last = err
		case v.denied != nil:
			return nil, v.denied
		default:
			last = errors.New(v.why)
		}
		if err := wait(ctx, news, pause(time.Since(began))); err != nil {
			return nil, fmt.Errorf("no primary to write to after %v: %w: %w", time.Since(began).Round(time.Millisecond), context.Cause(ctx), last)
		}
	}
}

func (db *DB) tryPrimary(ctx context.Context, v view, k kind) (driver.Conn, error) {
	inner, err := db.dial(ctx, v.primary, k != writer)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", v.primary, err)
	}
	bounded, cancel := context.WithTimeout(ctx, db.config.Timeout)
	defer cancel()
	switch writable, err := db.config.Driver.Writable(bounded, inner); {
	case err != nil:
		inner.Close()
		return nil, fmt.Errorf("%s: %w", v.primary, err)
	case !writable:
		inner.Close()
		return nil, fmt.Errorf("%s takes no writes", v.primary)
	}
	return &conn{db: db, kind: k, physical: physical{inner: inner, addr: v.primary, epoch: v.epoch, primary: true}}, nil
}

// connectReader connects to a replica that serves. Where there is none the connection is to nobody, and what is read over
// it goes to the primary.
func (db *DB) connectReader(ctx context.Context) (driver.Conn, error) {
	v := db.view.look(ctx, time.Now().Add(-db.config.Interval))
	if v.members == 0 && v.primary != "" { // there is nobody to spill from
		return db.connectPrimary(ctx, reader)
	}
	n := uint64(len(v.replicas))
	first := db.next.Add(1)
	for i := range n {
		addr := v.replicas[(first+i)%n]
		inner, err := db.dial(ctx, addr, true)
		if err == nil {
			return &conn{db: db, kind: reader, physical: physical{inner: inner, addr: addr, epoch: v.epoch}}, nil
		}
		if errors.Is(err, replication.ErrAccess) || ctx.Err() != nil {
			return nil, fmt.Errorf("%s: %w", addr, err)
		}
	}
	return &conn{db: db, kind: reader, physical: physical{epoch: v.epoch}}, nil
}

// pause is how long to wait between two attempts: little at first, since a change of primary is short.
func pause(waited time.Duration) time.Duration {
	return min(max(waited/8, 2*time.Millisecond), 100*time.Millisecond)
}

// wait waits for news or for some time.
func wait(ctx context.Context, news <-chan struct{}, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-news:
		return nil
	case <-t.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
