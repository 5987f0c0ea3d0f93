package cache_test

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"io"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/scalr-go/scalr/cache"
)

// table is a database whose every query returns its first argument and how many there were.
type table struct{ queries int64 }

func (d *table) Connect(context.Context) (driver.Conn, error) { return d, nil }
func (d *table) Driver() driver.Driver                        { return nil }
func (d *table) Prepare(string) (driver.Stmt, error)          { return nil, errors.ErrUnsupported }
func (d *table) Begin() (driver.Tx, error)                    { return nil, errors.ErrUnsupported }
func (d *table) Close() error                                 { return nil }

func (d *table) QueryContext(_ context.Context, _ string, args []driver.NamedValue) (driver.Rows, error) {
	d.queries++
	return &oneRow{row: []driver.Value{args[0].Value, d.queries}}, nil
}

type oneRow struct{ row []driver.Value }

func (r *oneRow) Columns() []string { return []string{"arg", "n"} }
func (r *oneRow) Close() error      { return nil }
func (r *oneRow) Next(dest []driver.Value) error {
	if r.row == nil {
		return io.EOF
	}
	copy(dest, r.row)
	r.row = nil
	return nil
}

func TestQuery(t *testing.T) {
	ctx := t.Context()
	d := new(table)
	db := sql.OpenDB(d)
	defer db.Close()
	var m cache.Memory
	type row struct {
		Arg string
		N   int
	}
	q := &cache.Query[row]{
		DB: db, SQL: "SELECT arg, n FROM t WHERE arg = ?",
		Scan:  func(r *sql.Rows) (v row, err error) { err = r.Scan(&v.Arg, &v.N); return v, err },
		Cache: &cache.Of[[]row]{Store: &m, Tags: cache.Tables("t")},
	}
	rows := func(args ...any) row {
		t.Helper()
		list, err := q.Rows(ctx, args...)
		require.NoError(t, err)
		require.Len(t, list, 1)
		return list[0]
	}
	require.Equal(t, row{"a", 1}, rows("a"))
	require.Equal(t, row{"a", 1}, rows("a"))
	// What differs for the database differs for the cache.
	now := time.Now()
	for i, args := range [][]any{{"b"}, {"a", ""}, {"1"}, {1}, {1.0}, {true}, {"1", "23"}, {"12", "3"}, {now}, {now.Add(1)}, {sql.Named("x", "1")}} {
		require.Equal(t, 2+i, rows(args...).N, "%v", args)
		require.Equal(t, 2+i, rows(args...).N, "%v", args)
	}
	require.NoError(t, cache.Invalidate(ctx, &m, "t"))
	require.Equal(t, row{"a", 13}, rows("a"))

	_, err := q.Rows(ctx, struct{}{})
	require.ErrorIs(t, err, cache.ErrInvalid)
	require.ErrorContains(t, err, "argument 1 has type struct {}")
	_, err = (&cache.Query[row]{}).Rows(ctx)
	require.ErrorIs(t, err, cache.ErrInvalid)
}
