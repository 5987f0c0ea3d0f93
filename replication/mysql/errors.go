package mysql

import (
	"context"
	"database/sql/driver"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"slices"
	"strings"
	"syscall"

	sqldriver "github.com/go-sql-driver/mysql"

	"github.com/scalr-go/scalr/replication"
)

// The server's error numbers that the engine acts on (MariaDB Knowledge Base, "MariaDB Error Codes").
const (
	errHostDenied       = 1130
	errHostBlocked      = 1129
	errDatabaseDenied   = 1044
	errUserDenied       = 1045
	errPluginDenied     = 1698
	errTableDenied      = 1142
	errColumnDenied     = 1143
	errRoutineDenied    = 1370
	errPrivilegeMissing = 1227
	errShutdown         = 1053
	errNoSuchThread     = 1094
	errSyntax           = 1064
	errUnknownVariable  = 1193
	errUnknownTable     = 1109
	errNoSuchTable      = 1146
	errSeveralRows      = 1242 // of a subquery that may have one
	errUnknownView      = 4092
	errNoSuchRoutine    = 1305
	errViewInvalid      = 1356 // it uses what is not there, or what its definer may not use
	errLockTimeout      = 1205
	errNoReplicaInfo    = 1201 // of CHANGE MASTER: it cannot open its relay log
	errNoRelayLog       = 1220
	errSourceFatal      = 1236 // the source cannot send what the replica asks for
	errReadOnly         = 1290
	errSameServerID     = 1593
	errRelayLogCorrupt  = 1594
	errPasswordExpired  = 1820
	errTooManySessions  = 1040
	errTooManyOfUser    = 1203
	errLimitOfUser      = 1226
)

// errsNoRoom are what a server says that takes no further session.
var errsNoRoom = []uint16{errTooManySessions, errTooManyOfUser, errLimitOfUser}

// dialError is a failure to connect, told from one to talk.
type dialError struct{ err error }

func (e *dialError) Error() string { return e.err.Error() }
func (e *dialError) Unwrap() error { return e.err }

// wrap names the operation and the member. What err says has been through explain already.
func wrap(op string, m replication.Member, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("mysql: %s %s (%s): %w", op, m.ID, m.Addr, err)
}

// explain gives the error of a statement or connection its kind, and takes out of its text what a server may have echoed
// of the statement: passwords and the data of users.
func (e *Engine) explain(ctx context.Context, err error) error {
	if err == nil {
		return nil
	}
	if server, ok := errors.AsType[*sqldriver.MySQLError](err); ok {
		return e.explainServer(server)
	}
	if dial, ok := errors.AsType[*dialError](err); ok {
		switch {
		case context.Cause(ctx) != nil && errors.Is(context.Cause(ctx), context.Canceled):
			return context.Cause(ctx)
		case errors.Is(err, syscall.ECONNREFUSED):
			return fmt.Errorf("%w: %v", replication.ErrRefused, dial.err)
		}
		return fmt.Errorf("%w: %v", replication.ErrUnreachable, dial.err)
	}
	timeout := errors.Is(err, context.DeadlineExceeded) || errors.Is(err, os.ErrDeadlineExceeded)
	switch cause := context.Cause(ctx); {
	case timeout || errors.Is(cause, context.DeadlineExceeded):
		return replication.ErrHung
	case cause != nil:
		return cause
	case errors.Is(err, sqldriver.ErrInvalidConn), errors.Is(err, driver.ErrBadConn), errors.Is(err, io.EOF),
		errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE),
		errors.Is(err, net.ErrClosed):
		return fmt.Errorf("%w: the server ended the connection", replication.ErrUnreachable)
	}
	return errors.New(e.clean(err.Error()))
}

func (e *Engine) explainServer(err *sqldriver.MySQLError) error {
	text := e.clean(err.Message)
	switch err.Number {
	case errUserDenied, errPluginDenied:
		return fmt.Errorf("%w: account %q: wrong password, or no such account for this host (error %d): "+
			"create it as BootstrapSQL does", replication.ErrAccess, e.config.User, err.Number)
	case errHostDenied, errHostBlocked:
		return fmt.Errorf("%w: the server takes no connections of account %q from this host (error %d): "+
			"create the account as BootstrapSQL does, or FLUSH HOSTS", replication.ErrAccess, e.config.User, err.Number)
	case errPrivilegeMissing, errDatabaseDenied, errTableDenied, errColumnDenied, errRoutineDenied, errPasswordExpired:
		return fmt.Errorf("%w: account %q lacks a privilege: %s (error %d): grant it what BootstrapSQL does",
			replication.ErrAccess, e.config.User, e.redact(err.Message), err.Number)
	case errShutdown:
		return fmt.Errorf("%w: the server shuts down", replication.ErrUnreachable)
	}
	return &statementError{number: err.Number, text: text}
}

// statementError is a server's answer whose text is safe to show.
type statementError struct {
	number uint16
	text   string
}

func (e *statementError) Error() string { return fmt.Sprintf("%s (error %d)", e.text, e.number) }

// isServer reports whether err is one of the server's with one of the numbers.
func isServer(err error, numbers ...uint16) bool {
	e, ok := errors.AsType[*statementError](err)
	if !ok {
		return false
	}
	return slices.Contains(numbers, e.number)
}

// clean takes everything quoted out of a server's message: servers quote what they echo of statements, names and data,
// and cut it anywhere, so that a part of a password would not be found by looking for the whole.
func (e *Engine) clean(text string) string {
	text, _, _ = strings.Cut(e.redact(text), " Query: '")
	first, last := -1, -1
	for i := range len(text) {
		before, after := i > 0 && isWord(text[i-1]), i+1 < len(text) && isWord(text[i+1])
		switch {
		case text[i] != '\'' || before && after: // "doesn't"
		case first >= 0:
			last = i
		case !before: // not as in "users' data"
			first = i
		}
	}
	switch {
	case last > first && first >= 0:
		text = text[:first] + "'…'" + text[last+1:]
	case first >= 0:
		text = text[:first] + "'…'"
	}
	return text
}

func isWord(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c >= 0x80
}

// redact takes the engine's passwords out of a text that quotes nothing else in need of hiding.
func (e *Engine) redact(text string) string {
	for _, secret := range []string{e.config.Password, e.config.ReplicationPassword} {
		if secret != "" {
			text = strings.ReplaceAll(text, secret, "…")
			text = strings.ReplaceAll(text, strings.Trim(quote(secret), "'"), "…")
		}
	}
	return text
}
