package mysql

import (
	"context"
	"errors"
	"fmt"

	"github.com/scalr-go/scalr/replication"
)

// Import copies as Seed does, from a server that the origin, an Engine of this package, speaks to. The source's accounts come
// with their privileges, since views, routines and triggers run as them, but locked and without their passwords; the
// engine's own two stay the member's, and all others of the member are dropped before anything is copied. Whoever is to use
// the copy gets a password from scrub, or afterwards on the primary: ALTER USER … IDENTIFIED BY … ACCOUNT UNLOCK. Events are
// copied disabled.
//
// Scrub may use the engine's account, which read_only does not stop; what it writes is replicated to nobody, since the
// other members are seeded later. The copy gets a GTID history that begins anew with the member's server_id and
// gtid_domain_id. The server_id must not be the source's; a gtid_domain_id of its own (Server.More) keeps the histories of
// the two sets apart even where a later server of one takes over a server_id of the other.
//
// A set whose own accounts are let in at the source is refused, since whatever acts for it could act on the other one, unless the origin
// is this Engine itself, which a Manager refuses.
//
// The source is read only, so that the origin needs no administrator there. An account with these privileges is enough:
// SELECT, SHOW VIEW, TRIGGER, EVENT, BINLOG MONITOR, BINLOG ADMIN and REPLICA MONITOR ON *.*. (BINLOG ADMIN is for
// sql_log_bin, which the engine's sessions switch off; the replication account of the origin's Config is not used.) It has up to
// seven sessions there; if it may have fewer (MAX_USER_CONNECTIONS), fewer tables are copied at the same time.
//
// When the copy is complete, the member has a table mysql.scalr_imported with the position of the copy, until it follows
// another member.
//
// MySQL is not imported (errors.ErrUnsupported).
func (e *Engine) Import(ctx context.Context, m replication.Member, origin replication.Engine, source replication.Member,
	scrub func(context.Context, replication.Member) error, progress func(replication.Progress)) (replication.Position, error) {
	if progress == nil {
		progress = func(replication.Progress) {}
	}
	other, ok := origin.(*Engine)
	if !ok {
		return "", wrap("import to", m, fmt.Errorf("the origin's engine is %T, want %T", origin, e))
	}
	d, err := e.changes(ctx, m)
	if err != nil {
		return "", wrap("import to", m, err)
	}
	target, ok := d.(*server)
	if !ok {
		return "", wrap("import to", m, fmt.Errorf("it runs MySQL, which is copied within a set only: %w", errors.ErrUnsupported))
	}
	if other != e && source.Addr != m.Addr {
		if err := e.strangers(ctx, other, source); err != nil {
			return "", wrap("import to", m, err)
		}
	}
	// A connection of its own: those that the origin holds are its Manager's.
	db, err := other.open(source.Addr, nil)
	if err != nil {
		return "", wrap("import to", m, err)
	}
	defer db.Close()
	c := &copying{target: target, source: &server{engine: other, addr: source.Addr, db: db}, apart: true, progress: progress}
	at, err := c.run(ctx, m, source, func(ctx context.Context, at position) error {
		for _, snap := range c.snaps { // the source need not keep old versions any more
			if err := snap.exec(ctx, "ROLLBACK"); err != nil {
				return err
			}
		}
		return c.scrubbed(ctx, m, scrub, at)
	})
	return at.public(), wrap("import to", m, err)
}

// scrubbed lets a copy that is complete be scrubbed, and ends it.
func (c *copying) scrubbed(ctx context.Context, m replication.Member, scrub func(context.Context, replication.Member) error, at position) error {
	if scrub != nil {
		c.report("scrubbing")
		if err := scrub(ctx, m); err != nil {
			return fmt.Errorf("scrubbing the copy: %w", err)
		}
	}
	return c.settle(ctx, at)
}

// settle gives the target a history of its own: one transaction, which stands for the copy. It is in no binary log, so that
// nobody who lacks the copy can follow from the beginning. The marker goes last.
func (c *copying) settle(ctx context.Context, at position) error {
	rows, err := c.to.rows(ctx, "SELECT CONCAT(@@global.gtid_domain_id, '-', @@global.server_id, '-1') AS first")
	if err != nil {
		return err
	}
	return c.to.exec(ctx, "RESET MASTER", "SET GLOBAL gtid_slave_pos = ''", "SET GLOBAL gtid_binlog_state = "+quote(rows[0]["first"]),
		"CREATE TABLE "+name("mysql", imported)+" ENGINE=InnoDB AS SELECT "+quote(string(at.public()))+" AS position",
		"DROP SCHEMA "+name(marker))
}
