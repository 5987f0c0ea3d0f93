package pool

import (
	"database/sql/driver"
	"errors"
	"io"
	"reflect"
)

// rows keeps the watch over a result that is still being read, and the connection that it comes from.
type rows struct {
	driver.Rows
	c       *conn
	wrote   func() // for the end of each result: what is written with it may not be there before
	stop    func() bool
	release func()
	closed  bool
}

func (r *rows) Next(dest []driver.Value) error {
	return r.outcome(r.Rows.Next(dest))
}

// outcome explains a failure in the middle of a result: it can no longer be sent elsewhere.
func (r *rows) outcome(err error) error {
	if err == nil {
		return nil
	}
	r.wrote()
	if errors.Is(err, io.EOF) {
		return err
	}
	if errors.Is(err, driver.ErrBadConn) || r.c.db.config.Driver.Lost(err) {
		r.c.spoilt = true
		r.c.db.view.doubt()
		return unbad(err)
	}
	return err
}

func (r *rows) Close() error {
	if r.closed {
		return nil
	}
	r.closed = true
	err := r.Rows.Close()
	r.wrote()
	r.stop()
	r.release()
	return err
}

func (r *rows) HasNextResultSet() bool {
	n, ok := r.Rows.(driver.RowsNextResultSet)
	return ok && n.HasNextResultSet()
}

func (r *rows) NextResultSet() error {
	n, ok := r.Rows.(driver.RowsNextResultSet)
	if !ok {
		return io.EOF
	}
	return r.outcome(n.NextResultSet())
}

func (r *rows) ColumnTypeScanType(i int) reflect.Type {
	if t, ok := r.Rows.(driver.RowsColumnTypeScanType); ok {
		return t.ColumnTypeScanType(i)
	}
	return reflect.TypeFor[any]()
}

func (r *rows) ColumnTypeDatabaseTypeName(i int) string {
	if t, ok := r.Rows.(driver.RowsColumnTypeDatabaseTypeName); ok {
		return t.ColumnTypeDatabaseTypeName(i)
	}
	return ""
}

func (r *rows) ColumnTypeLength(i int) (int64, bool) {
	if t, ok := r.Rows.(driver.RowsColumnTypeLength); ok {
		return t.ColumnTypeLength(i)
	}
	return 0, false
}

func (r *rows) ColumnTypeNullable(i int) (nullable, ok bool) {
	if t, ok := r.Rows.(driver.RowsColumnTypeNullable); ok {
		return t.ColumnTypeNullable(i)
	}
	return false, false
}

func (r *rows) ColumnTypePrecisionScale(i int) (precision, scale int64, ok bool) {
	if t, ok := r.Rows.(driver.RowsColumnTypePrecisionScale); ok {
		return t.ColumnTypePrecisionScale(i)
	}
	return 0, 0, false
}
