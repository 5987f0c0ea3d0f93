package mysql

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"syscall"
	"time"

	sqldriver "github.com/go-sql-driver/mysql"

	"github.com/scalr-go/scalr/replication"
	"github.com/scalr-go/scalr/replication/pool"
)

// Client is the [pool.Driver] for MariaDB and MySQL: what an application needs to follow a change of primary, with an account
// that has privileges on its own data only.
//
// Tokens are GTID positions (gtid_binlog_pos), which the servers' gtid_strict_mode makes comparable by their numbers as long as they are
// servers of one set; of MySQL they are GTID sets (gtid_executed), which tell another set's servers apart.
type Client struct {
	config *sqldriver.Config
}

var _ pool.Driver = (*Client)(nil)

// NewClient makes a Client that connects as the config says, but for its Net and Addr. RejectReadOnly must not be set: it
// hides what the pool has to see. The config is copied.
func NewClient(config *sqldriver.Config) (*Client, error) {
	var faults []error
	if config.User == "" {
		faults = append(faults, errors.New("config.User is empty, want the application's account"))
	}
	if config.RejectReadOnly {
		faults = append(faults, errors.New("config.RejectReadOnly is set, want false: the pool does it, and must tell a rejection from a loss"))
	}
	if config.Net != "" && config.Net != "tcp" {
		faults = append(faults, fmt.Errorf("config.Net is %q, want tcp", config.Net))
	}
	if err := errors.Join(faults...); err != nil {
		return nil, err
	}
	c := config.Clone()
	c.Net, c.CheckConnLiveness = "tcp", true
	c.Logger = &sqldriver.NopLogger{} // what it would log is returned
	return &Client{c}, nil
}

// String names the account, without its password.
func (c *Client) String() string { return "mysql.Client{User:" + c.config.User + "}" }

// Format keeps every verb from showing the password.
func (c *Client) Format(f fmt.State, _ rune) { fmt.Fprint(f, c.String()) }

// Connect connects to one server.
func (c *Client) Connect(ctx context.Context, addr string, readOnly bool) (driver.Conn, error) {
	config := c.config.Clone()
	config.Addr = addr
	connector, err := sqldriver.NewConnector(config)
	if err != nil {
		return nil, fmt.Errorf("%w: config: %w", replication.ErrAccess, err)
	}
	conn, err := connector.Connect(ctx)
	if err != nil {
		return nil, explainConnect(ctx, err)
	}
	if readOnly {
		if err := run(ctx, conn, "SET SESSION TRANSACTION READ ONLY"); err != nil {
			conn.Close()
			return nil, err
		}
	}
	return conn, nil
}

// neverBetter are what a server says that it will say again: wrong credentials, unknown schema or plugin.
var neverBetter = []uint16{errUserDenied, errPluginDenied, errHostDenied, errHostBlocked, errDatabaseDenied, errPasswordExpired,
	1049, 1251, 1524}

func explainConnect(ctx context.Context, err error) error {
	if server, ok := errors.AsType[*sqldriver.MySQLError](err); ok && slices.Contains(neverBetter, server.Number) {
		return fmt.Errorf("%w: %w", replication.ErrAccess, err)
	}
	if ctx.Err() != nil {
		return fmt.Errorf("%w: %w", replication.ErrHung, err)
	}
	return err
}

// Writable asks for read_only.
func (c *Client) Writable(ctx context.Context, conn driver.Conn) (bool, error) {
	v, err := ask(ctx, conn, "SELECT @@global.read_only")
	return v == "0", err
}

// Begin begins a transaction. One that is to write is refused by a server that is read-only.
func (c *Client) Begin(ctx context.Context, conn driver.Conn, o driver.TxOptions) error {
	if level := sql.IsolationLevel(o.Isolation); level != sql.LevelDefault {
		switch level {
		case sql.LevelReadUncommitted, sql.LevelReadCommitted, sql.LevelRepeatableRead, sql.LevelSerializable:
		default:
			return fmt.Errorf("isolation level %v: want default, read uncommitted, read committed, repeatable read or serializable: %w",
				level, errors.ErrUnsupported)
		}
		if err := run(ctx, conn, "SET TRANSACTION ISOLATION LEVEL "+strings.ToUpper(level.String())); err != nil {
			return err
		}
	}
	if o.ReadOnly {
		return run(ctx, conn, "START TRANSACTION READ ONLY")
	}
	return run(ctx, conn, "START TRANSACTION READ WRITE")
}

// Commit ends a transaction. It makes sure first that the server has not ended the session meanwhile, since what became of a
// commit that was sent could not be told.
func (c *Client) Commit(ctx context.Context, conn driver.Conn) error {
	if err := conn.(driver.SessionResetter).ResetSession(ctx); err != nil { // it only looks whether there is something to read
		return err
	}
	return run(ctx, conn, "COMMIT")
}

// Rollback takes a transaction back.
func (c *Client) Rollback(ctx context.Context, conn driver.Conn) error {
	return run(ctx, conn, "ROLLBACK")
}

// Position is gtid_binlog_pos of a primary and gtid_slave_pos of a replica, and gtid_executed of MySQL.
func (c *Client) Position(ctx context.Context, conn driver.Conn, primary bool) (replication.Position, error) {
	variable := "gtid_slave_pos"
	if primary {
		variable = "gtid_binlog_pos"
	}
	// Each server takes the other's comment for one.
	v, err := ask(ctx, conn, "SELECT /*M!100100 @@global."+variable+"*/ /*!80000 @@global.gtid_executed*/")
	return replication.Position(strings.ReplaceAll(v, "\n", "")), err
}

// Await waits for a replica by MASTER_GTID_WAIT, or MySQL's WAIT_FOR_EXECUTED_GTID_SET.
func (c *Client) Await(ctx context.Context, conn driver.Conn, p replication.Position, d time.Duration) (bool, error) {
	if isGTIDSet(p) {
		if _, err := parseGTIDSet(string(p)); err != nil {
			return false, fmt.Errorf("token: %w", err)
		}
		d = max(d, time.Millisecond) // 0 is for ever
		v, err := ask(ctx, conn, fmt.Sprintf("SELECT WAIT_FOR_EXECUTED_GTID_SET(%s, %.3f)", quote(string(p)), d.Seconds()))
		return v == "0", err
	}
	if _, err := parsePosition(string(p)); err != nil {
		return false, fmt.Errorf("token: %w", err)
	}
	v, err := ask(ctx, conn, fmt.Sprintf("SELECT MASTER_GTID_WAIT(%s, %.3f)", quote(string(p)), d.Seconds()))
	return v == "0", err
}

// Contains reports whether a goes as far as b in every domain of b, or whether the set a has all of the set b. What is no
// position contains nothing. Of MariaDB's positions a higher number is taken to come after a lower one, as it does within a set; that
// they are of two histories shows only where they have one number with two servers.
func (c *Client) Contains(a, b replication.Position) bool {
	if isGTIDSet(a) || isGTIDSet(b) {
		s, err1 := parseGTIDSet(string(a))
		t, err2 := parseGTIDSet(string(b))
		return err1 == nil && err2 == nil && s.holds(t)
	}
	p, err1 := parsePosition(string(a))
	q, err2 := parsePosition(string(b))
	if err1 != nil || err2 != nil {
		return false
	}
	for domain, h := range q {
		if p[domain] == nil {
			return false
		}
		want, have := h.last(domain), p[domain].last(domain)
		if have.seq < want.seq || have.seq == want.seq && have.server != want.server {
			return false
		}
	}
	return true
}

// Rejected reports whether the error is that of a server that is read-only.
func (c *Client) Rejected(err error) bool {
	server, ok := errors.AsType[*sqldriver.MySQLError](err)
	return ok && (server.Number == errReadOnly || server.Number == 1836)
}

// Lost reports whether the error is that of a connection that broke.
func (c *Client) Lost(err error) bool {
	if server, ok := errors.AsType[*sqldriver.MySQLError](err); ok {
		return server.Number == 1927 || server.Number == errShutdown // killed
	}
	if _, ok := errors.AsType[*net.OpError](err); ok {
		return true
	}
	for _, target := range []error{sqldriver.ErrInvalidConn, sqldriver.ErrMalformPkt, io.EOF, io.ErrUnexpectedEOF,
		net.ErrClosed, syscall.ECONNRESET, syscall.EPIPE} {
		if errors.Is(err, target) {
			return true
		}
	}
	return false
}

func run(ctx context.Context, conn driver.Conn, statement string) error {
	_, err := conn.(driver.ExecerContext).ExecContext(ctx, statement, nil)
	return err
}

// ask gives the only value of a result.
func ask(ctx context.Context, conn driver.Conn, statement string) (string, error) {
	rows, err := conn.(driver.QueryerContext).QueryContext(ctx, statement, nil)
	if err != nil {
		return "", err
	}
	defer rows.Close()
	dest := make([]driver.Value, 1)
	if err := rows.Next(dest); err != nil {
		return "", err
	}
	var text string
	switch v := dest[0].(type) {
	case []byte:
		text = string(v)
	case nil:
	default:
		text = fmt.Sprint(v)
	}
	if err := rows.Next(dest); !errors.Is(err, io.EOF) {
		return "", fmt.Errorf("more than one row: %w", err)
	}
	return text, nil
}
