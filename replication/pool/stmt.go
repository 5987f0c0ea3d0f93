package pool

import (
	"context"
	"database/sql/driver"
	"errors"
)

// stmt is a prepared statement. One of a reader is prepared anew on the primary when it has to go there, and one in a transaction
// that has moved to another primary there.
type stmt struct {
	c     *conn
	query string
	inner driver.Stmt // nil on a connection to nobody
	at    driver.Conn // where inner is prepared
}

var (
	_ driver.StmtExecContext   = (*stmt)(nil)
	_ driver.StmtQueryContext  = (*stmt)(nil)
	_ driver.NamedValueChecker = (*stmt)(nil)
)

// PrepareContext prepares a statement.
func (c *conn) PrepareContext(ctx context.Context, query string) (driver.Stmt, error) {
	return elsewhere(ctx, c, func() (driver.Stmt, error) {
		on := c
		if c.tx != nil {
			on = c.tx.on
		}
		s := &stmt{c: c, query: query}
		if on.inner == nil {
			return s, nil
		}
		stop, err := on.run(ctx, true, func(ctx context.Context) (err error) {
			s.inner, err = on.prepare(ctx, query)
			return err
		})
		if err != nil {
			return nil, err
		}
		stop()
		s.c, s.at = on, on.inner
		return s, nil
	})
}

// Prepare is not called: there is PrepareContext.
func (c *conn) Prepare(string) (driver.Stmt, error) { return nil, errors.ErrUnsupported }

func (c *conn) prepare(ctx context.Context, query string) (driver.Stmt, error) {
	if p, ok := c.inner.(driver.ConnPrepareContext); ok {
		return p.PrepareContext(ctx, query)
	}
	return c.inner.Prepare(query)
}

func (s *stmt) Close() error {
	if s.inner == nil {
		return nil
	}
	return s.inner.Close()
}

func (s *stmt) NumInput() int {
	if s.inner == nil {
		return -1
	}
	return s.inner.NumInput()
}

func (s *stmt) CheckNamedValue(v *driver.NamedValue) error {
	if checker, ok := s.inner.(driver.NamedValueChecker); ok {
		return checker.CheckNamedValue(v)
	}
	return s.c.CheckNamedValue(v)
}

// Exec is not called: there is ExecContext.
func (s *stmt) Exec([]driver.Value) (driver.Result, error) { return nil, errors.ErrUnsupported }

// Query is not called: there is QueryContext.
func (s *stmt) Query([]driver.Value) (driver.Rows, error) { return nil, errors.ErrUnsupported }

// prepared gives the statement as it is prepared on the connection now, and what ends that.
func (s *stmt) prepared(ctx context.Context, on *conn) (inner driver.Stmt, done func(), err error) {
	if on.inner == s.at {
		return s.inner, func() {}, nil
	}
	if inner, err = on.prepare(ctx, s.query); err != nil {
		return nil, nil, err
	}
	return inner, func() { inner.Close() }, nil
}

func (s *stmt) ExecContext(ctx context.Context, args []driver.NamedValue) (driver.Result, error) {
	return elsewhere(ctx, s.c, func() (driver.Result, error) {
		on, release, err := s.c.route(ctx)
		if err != nil {
			return nil, err
		}
		defer release()
		return on.exec(ctx, func(ctx context.Context) (driver.Result, error) {
			inner, done, err := s.prepared(ctx, on)
			if err != nil {
				return nil, err
			}
			defer done()
			if e, ok := inner.(driver.StmtExecContext); ok {
				return e.ExecContext(ctx, args)
			}
			return inner.Exec(values(args)) //lint:ignore SA1019 a driver's statements may have no more than this
		})
	})
}

func (s *stmt) QueryContext(ctx context.Context, args []driver.NamedValue) (driver.Rows, error) {
	return elsewhere(ctx, s.c, func() (driver.Rows, error) {
		on, give, err := s.c.route(ctx)
		if err != nil {
			return nil, err
		}
		done := func() {}
		return on.query(ctx, func() { done(); give() }, func(ctx context.Context) (driver.Rows, error) {
			var inner driver.Stmt
			if inner, done, err = s.prepared(ctx, on); err != nil {
				done = func() {}
				return nil, err
			}
			if q, ok := inner.(driver.StmtQueryContext); ok {
				return q.QueryContext(ctx, args)
			}
			return inner.Query(values(args)) //lint:ignore SA1019 a driver's statements may have no more than this
		})
	})
}

func values(args []driver.NamedValue) []driver.Value {
	list := make([]driver.Value, len(args))
	for i, a := range args {
		list[i] = a.Value
	}
	return list
}
