package mysql

import (
	"context"
	"errors"
	"fmt"
	"slices"

	sqldriver "github.com/go-sql-driver/mysql"

	"github.com/scalr-go/scalr/replication"
)

// errAccountLocked is MariaDB's; a lock is said only to who knows the password.
const errAccountLocked = 4151

// strangers makes sure that the set's own accounts are not let in at a server of another set, whose data it is to have: with them,
// whatever acts for the set could act on the other one.
func (e *Engine) strangers(ctx context.Context, other *Engine, source replication.Member) error {
	c := e.config
	for _, account := range [][2]string{{c.User, c.Password}, {c.ReplicationUser, c.ReplicationPassword}} {
		as := other.config
		as.User, as.Password = account[0], account[1]
		err := (&Engine{config: as}).login(ctx, source.Addr)
		server, answered := errors.AsType[*sqldriver.MySQLError](err)
		switch {
		case answered && slices.Contains([]uint16{errUserDenied, errPluginDenied, errHostDenied, errHostBlocked, errAccountLocked}, server.Number):
		case err == nil || answered: // what it says of the session comes after it has let the account in
			return fmt.Errorf("the account %q of this set is let in, with its password, by the source %s (%s): give the set "+
				"accounts or passwords of its own", account[0], source.ID, source.Addr)
		default:
			return fmt.Errorf("whether the source %s (%s) lets in the account %q of this set: %w", source.ID, source.Addr, account[0], other.explain(ctx, err))
		}
	}
	return nil
}

// login signs in once.
func (e *Engine) login(ctx context.Context, addr string) error {
	db, err := e.open(addr, nil)
	if err != nil {
		return err
	}
	defer db.Close()
	short, cancel := context.WithTimeout(ctx, e.config.Timeout)
	defer cancel()
	conn, err := db.Conn(short)
	if err != nil {
		return err
	}
	return conn.Close()
}
