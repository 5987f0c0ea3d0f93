package mysql

import (
	"context"
	"database/sql"
	"fmt"
	"maps"
	"net"
	"sync"
	"sync/atomic"
	"time"

	sqldriver "github.com/go-sql-driver/mysql"

	"github.com/scalr-go/scalr/replication"
)

// server is what the engine holds of one address.
type server struct {
	engine *Engine
	addr   string
	db     *sql.DB
	probes *sql.DB

	mu      sync.Mutex
	kind    kind
	hearing hearing
	commits commits
	probe   *probe // that is under way
	relay   *relayReading
	// notFiles is why the next backup is not by files: the last one broke off in the middle.
	notFiles atomic.Pointer[error]

	readers sync.WaitGroup // of relay logs, and the probe
	closed  bool           // there are no more of them
}

// row is one row of a result by column; a NULL is absent.
type row map[string]string

// server gives the held connections to the member, opening nothing yet.
func (e *Engine) server(m replication.Member) (*server, error) {
	if host, port, err := net.SplitHostPort(m.Addr); err != nil || host == "" || port == "" {
		return nil, fmt.Errorf("the member's Addr is %q, want host:port", m.Addr)
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if s := e.servers[m.Addr]; s != nil {
		return s, nil
	}
	db, err := e.open(m.Addr, nil)
	if err != nil {
		return nil, err
	}
	probes, err := e.open(m.Addr, noWaits)
	if err != nil {
		return nil, err
	}
	s := &server{engine: e, addr: m.Addr, db: db, probes: probes, commits: commits{ask: true}}
	e.servers[m.Addr] = s
	return s, nil
}

// noTimeLimit is what follows a value where one is set: only MariaDB reads the comment, and has that limit.
const noTimeLimit = "/*M!100100 , max_statement_time=0*/"

// open makes a pool of connections to the address. The engine's sessions are never written to the binary log: what it
// writes (accounts, positions, copies) concerns one member.
func (e *Engine) open(addr string, more map[string]string) (*sql.DB, error) {
	return e.openBy(addr, more, e.dial)
}

func (e *Engine) openBy(addr string, more map[string]string,
	dial func(ctx context.Context, network, addr string) (net.Conn, error)) (*sql.DB, error) {
	c := sqldriver.NewConfig()
	c.User, c.Passwd = e.config.User, e.config.Password
	c.Net, c.Addr = "tcp", addr
	c.TLS = e.config.TLS
	c.Logger = &sqldriver.NopLogger{}
	c.MultiStatements = true
	c.InterpolateParams = true // replication statements cannot be prepared (MDEV-7640)
	c.MaxAllowedPacket = 1 << 30
	c.DialFunc = dial
	c.Params = map[string]string{
		"autocommit":        "1",
		"sql_log_bin":       "0",
		"sql_mode":          "''",
		"time_zone":         "'+00:00'",
		"lock_wait_timeout": "3" + noTimeLimit,
	}
	maps.Copy(c.Params, more)
	connector, err := sqldriver.NewConnector(c)
	if err != nil {
		return nil, fmt.Errorf("config: %s", e.redact(err.Error()))
	}
	db := sql.OpenDB(connector)
	db.SetMaxIdleConns(2)
	return db, nil
}

func (e *Engine) dial(ctx context.Context, network, addr string) (net.Conn, error) {
	dial := e.config.DialContext
	if dial == nil {
		dial = (&net.Dialer{}).DialContext
	}
	conn, err := dial(ctx, network, addr)
	if err != nil {
		return nil, &dialError{err}
	}
	return conn, nil
}

// execer is a pool, or one connection of it.
type execer interface {
	ExecContext(ctx context.Context, query string, args ...any) (sql.Result, error)
	QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error)
}

// exec runs statements, each within the engine's Timeout.
func (s *server) exec(ctx context.Context, statements ...string) error {
	return s.execOn(ctx, s.db, statements...)
}

func (s *server) execOn(ctx context.Context, on execer, statements ...string) error {
	for _, statement := range statements {
		if err := s.bounded(ctx, func(ctx context.Context) error {
			_, err := on.ExecContext(ctx, statement)
			return err
		}); err != nil {
			return err
		}
	}
	return nil
}

// query runs one statement, or several in one round trip, within the engine's Timeout, and gives the rows of each result.
func (s *server) query(ctx context.Context, statement string) (results [][]row, err error) {
	return s.queryOn(ctx, s.db, statement)
}

func (s *server) queryOn(ctx context.Context, on execer, statement string) (results [][]row, err error) {
	err = s.bounded(ctx, func(ctx context.Context) error {
		results, err = queryAll(ctx, on, statement)
		return err
	})
	return results, err
}

// queryAll gives the rows of each result.
func queryAll(ctx context.Context, on execer, statement string) (results [][]row, err error) {
	rows, err := on.QueryContext(ctx, statement)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	for {
		result, err := readRows(rows)
		if err != nil {
			return nil, err
		}
		results = append(results, result)
		if !rows.NextResultSet() {
			return results, rows.Err()
		}
	}
}

// rows runs one statement and gives its rows.
func (s *server) rows(ctx context.Context, statement string) ([]row, error) {
	return s.rowsOn(ctx, s.db, statement)
}

func (s *server) rowsOn(ctx context.Context, on execer, statement string) ([]row, error) {
	results, err := s.queryOn(ctx, on, statement)
	if err != nil {
		return nil, err
	}
	return results[0], nil
}

// bounded runs one statement within the engine's Timeout and explains its error.
func (s *server) bounded(ctx context.Context, run func(context.Context) error) error {
	if err := context.Cause(ctx); err != nil {
		return err
	}
	short, cancel := context.WithTimeout(ctx, s.engine.config.Timeout)
	defer cancel()
	return s.engine.explain(short, run(short))
}

func readRows(rows *sql.Rows) ([]row, error) {
	columns, err := rows.Columns()
	if err != nil {
		return nil, err
	}
	var list []row
	values := make([]sql.NullString, len(columns))
	targets := make([]any, len(columns))
	for i := range values {
		targets[i] = &values[i]
	}
	for rows.Next() {
		if err := rows.Scan(targets...); err != nil {
			return nil, err
		}
		r := make(row, len(columns))
		for i, v := range values {
			if v.Valid {
				r[columns[i]] = v.String
			}
		}
		list = append(list, r)
	}
	return list, rows.Err()
}

// sleep waits, or returns the context's cause.
func sleep(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
