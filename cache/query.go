package cache

import (
	"context"
	"crypto/sha256"
	"database/sql"
	"database/sql/driver"
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"math"
	"time"
)

// Query is a statement that is read through a cache, by its text and its arguments:
//
//	pages := cache.Query[Page]{
//		DB:    db,
//		SQL:   "SELECT id, title FROM pages WHERE author = ?",
//		Scan:  func(r *sql.Rows) (p Page, err error) { err = r.Scan(&p.ID, &p.Title); return p, err },
//		Cache: &cache.Of[[]Page]{Store: store, Prefix: "sql:", Tags: cache.Tables("pages")},
//	}
//	list, err := pages.Rows(ctx, 42)
//
// Who writes to the tables calls [Invalidate] with their names after the transaction is committed. It is safe for concurrent
// use.
type Query[V any] struct {
	// DB is what the statement is sent to: a *sql.DB, mostly. One that reads from replicas that lag brings back what was
	// there before an Invalidate. Required.
	DB interface {
		QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error)
	}
	// SQL is the statement. Required.
	SQL string
	// Scan reads the row that the rows are at. Required.
	Scan func(*sql.Rows) (V, error)
	// Cache is where the lists of rows are kept, with the options for that. Several queries may share it if their SQL differs.
	// Required.
	Cache *Of[[]V]
}

// Tables is an Of.Tags for a Query: the tables that it reads.
func Tables(names ...string) func(string) []string {
	return func(string) []string { return names }
}

// Rows returns the rows of the statement with these arguments, from the cache or from the database.
func (q *Query[V]) Rows(ctx context.Context, args ...any) ([]V, error) {
	if q.DB == nil || q.SQL == "" || q.Scan == nil || q.Cache == nil {
		return nil, &Error{Op: "Rows", Err: fmt.Errorf("%w: Query needs DB, SQL, Scan and Cache; SQL is %q", ErrInvalid, q.SQL)}
	}
	key, err := q.key(args)
	if err != nil {
		return nil, &Error{Op: "Rows", Key: q.SQL, Err: err}
	}
	return q.Cache.Get(ctx, key, func(ctx context.Context) ([]V, error) { return q.load(ctx, args) })
}

func (q *Query[V]) load(ctx context.Context, args []any) (list []V, err error) {
	rows, err := q.DB.QueryContext(ctx, q.SQL, args...)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	for rows.Next() {
		v, err := q.Scan(rows)
		if err != nil {
			return nil, err
		}
		list = append(list, v)
	}
	return list, rows.Err()
}

// key is a hash of the statement and the arguments, which may be secret, as database/sql would send them.
func (q *Query[V]) key(args []any) (string, error) {
	b := appendText(nil, 'q', q.SQL)
	for i, arg := range args {
		name := ""
		if n, ok := arg.(sql.NamedArg); ok {
			name, arg = n.Name, n.Value
		}
		v, err := driver.DefaultParameterConverter.ConvertValue(arg)
		if err != nil {
			return "", fmt.Errorf("%w: argument %d has type %T: %w", ErrInvalid, i+1, arg, err)
		}
		b = appendText(b, 'a', name)
		switch v := v.(type) {
		case nil:
			b = append(b, 'n')
		case int64:
			b = binary.BigEndian.AppendUint64(append(b, 'i'), uint64(v))
		case float64:
			b = binary.BigEndian.AppendUint64(append(b, 'f'), math.Float64bits(v))
		case bool:
			b = fmt.Appendf(b, "b%t", v)
		case string:
			b = appendText(b, 's', v)
		case []byte:
			b = appendText(b, 'x', string(v))
		case time.Time:
			b = appendText(b, 't', v.Format(time.RFC3339Nano))
		default:
			return "", fmt.Errorf("%w: argument %d has type %T", ErrInvalid, i+1, arg)
		}
	}
	sum := sha256.Sum256(b)
	return base64.RawURLEncoding.EncodeToString(sum[:]), nil
}

// appendText keeps texts next to each other apart.
func appendText(b []byte, kind byte, s string) []byte {
	b = binary.BigEndian.AppendUint64(append(b, kind), uint64(len(s)))
	return append(b, s...)
}
