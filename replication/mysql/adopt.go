package mysql

import (
	"context"
	"errors"
	"fmt"

	"github.com/scalr-go/scalr/replication"
)

// Adopt makes a copy of another set's volume, which [Config.Set] has locked, the data of the member. What it leaves is what
// Import leaves: accounts that are locked and have no passwords, but for the engine's own; events that are disabled; a history that begins
// anew; and a table mysql.scalr_imported with the position of the copy. Nothing is copied or compared: the data is what InnoDB
// recovers of a volume as after a loss of power. Tables of engines without transactions are as such a loss leaves them.
//
// The event scheduler is off until the server starts again, and must not be switched on before: it still knows the events as they
// were. With event_scheduler = ON in the my.cnf of a server, an event of a primary's volume could begin in the moment before it is
// locked; a replica's events are disabled.
//
// Refused before anything is touched: tables of engines whose data is elsewhere (FEDERATED, CONNECT, SPIDER).
//
// Scrub runs on the only copy that the member has. Where it breaks off, the next Adopt locks the accounts again, and runs it again on
// what is there: each of its statements must be fit to be run twice.
//
// MySQL's are not adopted (errors.ErrUnsupported).
func (e *Engine) Adopt(ctx context.Context, m replication.Member, scrub func(context.Context, replication.Member) error,
	progress func(replication.Progress)) (replication.Position, error) {
	if progress == nil {
		progress = func(replication.Progress) {}
	}
	d, err := e.changes(ctx, m)
	if err != nil {
		return "", wrap("adopt", m, err)
	}
	s, ok := d.(*server)
	if !ok {
		return "", wrap("adopt", m, fmt.Errorf("it runs MySQL: %w", errors.ErrUnsupported))
	}
	c := &copying{target: s, progress: progress}
	at, err := c.adopt(ctx, m, scrub)
	return at, wrap("adopt", m, err)
}

// Adopts implements replication.Adopter: it takes a Config.Set.
func (e *Engine) Adopts() error {
	if e.config.Set == "" {
		return errors.New("mysql: Config.Set is empty, want a name, which BootstrapSQL locks other sets' data by")
	}
	return nil
}

func (c *copying) adopt(ctx context.Context, m replication.Member, scrub func(context.Context, replication.Member) error) (replication.Position, error) {
	l, err := c.target.status(ctx)
	switch {
	case err != nil:
		return "", err
	case !l.seeding || !l.foreign:
		return "", errors.New("it does not start on another set's data, or has it no more: see Config.Set")
	case !l.on("read_only"):
		return "", fmt.Errorf("%w: it takes writes: fence it first", replication.ErrUnsafe)
	case !l.on("log_bin"):
		return "", errors.New("it has no binary log: set log_bin in my.cnf, see ServerConf")
	}
	ctx, stop := watch(ctx, c.target)
	defer stop()
	if l.imported { // all is done but for the end
		rows, err := c.target.rows(ctx, "SELECT position FROM "+name("mysql", imported))
		if err == nil && len(rows) == 1 {
			return replication.Position(rows[0]["position"]), c.target.exec(ctx, "DROP SCHEMA "+name(marker))
		}
		return "", errors.Join(err, errors.New("the table mysql."+imported+" has no position"))
	}
	c.report("definitions")
	release, err := c.claim(ctx)
	defer release()
	if err != nil {
		return "", err
	}
	all, err := readCatalog(ctx, c.to, c.target.engine.config)
	if err == nil {
		err = all.check()
	}
	if err != nil {
		return "", err
	}
	// Before anything is written: a try that was broken off has left the position, and writes of its own.
	held := name(marker, foreign)
	if err := c.to.exec(ctx, "INSERT INTO "+held+" SELECT "+quote(string(l.applied.public()))+" FROM DUAL WHERE NOT EXISTS (SELECT * FROM "+held+")"); err != nil {
		return "", err
	}
	rows, err := c.to.rows(ctx, "SELECT position FROM "+held)
	if err != nil {
		return "", err
	}
	if err := c.to.exec(ctx, lockAccounts(c.target.engine.config)...); err != nil {
		return "", err
	}
	if err := c.target.endSessions(ctx, "", map[string]bool{}); err != nil {
		return "", err
	}
	at, err := parsePosition(rows[0]["position"])
	if err != nil {
		return "", err
	}
	return at.public(), c.scrubbed(ctx, m, scrub, at)
}
