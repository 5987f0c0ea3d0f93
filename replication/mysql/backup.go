package mysql

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"

	"github.com/scalr-go/scalr/replication"
)

// Backup writes everything that Seed would copy, of one consistent snapshot and over SQL alone, as a text of statements:
// each comes after a comment that says what it is, and each table's rows are followed by their number and checksum, which the
// server has worked out in the same snapshot. Accounts and roles come with what they are granted and without their passwords
// or hashes of them. An engine's own two accounts are left out.
//
// What Seed cannot copy makes Backup fail too: it says what and why. Nobody is kept from writing; definitions (DDL, accounts)
// that change meanwhile make it fail, and while a table is read nobody can change the definition of that one: on a
// replica, that is what replication waits for. The account needs what Import needs of a source.
//
// Without this library a backup can be loaded into an empty server with what every MariaDB has:
//
//	zcat FILE | mariadb --binary-mode --comments --max-allowed-packet=1G --force
//
// Then views that use a later view, and accounts, are missing, and nothing has been compared.
//
// MySQL is not backed up (errors.ErrUnsupported).
func (e *Engine) Backup(ctx context.Context, m replication.Member, w io.Writer, progress func(replication.Progress)) (replication.Position, error) {
	if progress == nil {
		progress = func(replication.Progress) {}
	}
	s, err := e.backedUp(ctx, m)
	if err != nil {
		return "", wrap("back up", m, err)
	}
	c := &copying{source: s, progress: progress}
	at, err := c.backup(ctx, w)
	if err != nil {
		return "", wrap("back up", m, err)
	}
	return at.public(), nil
}

// backedUp gives the member's server if it is one that can be backed up.
func (e *Engine) backedUp(ctx context.Context, m replication.Member) (*server, error) {
	d, err := e.dialect(ctx, m)
	if err != nil {
		return nil, err
	}
	s, ok := d.(*server)
	if !ok {
		return nil, fmt.Errorf("it runs MySQL, of which no backups are made: %w", errors.ErrUnsupported)
	}
	return s, nil
}

func (c *copying) backup(ctx context.Context, to io.Writer) (position, error) {
	l, err := c.source.status(ctx)
	switch {
	case err != nil:
		return nil, err
	case l.seeding:
		return nil, fmt.Errorf("%w: it holds a part of a copy", replication.ErrUnsafe)
	case !l.on("log_bin"):
		return nil, fmt.Errorf("it has no binary log: set log_bin in my.cnf, see ServerConf")
	}
	ctx, stop := watch(ctx, c.source)
	defer stop()
	leave, err := c.openSource(ctx)
	defer leave()
	if err != nil {
		return nil, err
	}
	all, err := readCatalog(ctx, c.defs, c.source.engine.config)
	if err != nil {
		return nil, err
	}
	if err := all.check(); err != nil {
		return nil, err
	}
	c.total = all.rows
	c.report("definitions")
	if err := all.checksumUnsafe(ctx, c.defs); err != nil {
		return nil, err
	}
	at, err := c.snapshot(ctx)
	if err != nil {
		return nil, fmt.Errorf("snapshot: %w", err)
	}
	out := newFrameWriter(to)
	out.write(frame{Kind: frameHead, Format: backupFormat, Position: string(at.public()), Version: l.vars["version"], Schemas: all.schemas, Rows: all.rows})
	for _, a := range locked(all.accounts) {
		out.write(frame{Kind: frameAccount, User: a.user, Host: a.host, Role: a.role, Grants: a.grants})
	}
	out.session()
	out.objects(all, false)
	for _, t := range all.tables {
		if t.elsewhere() {
			continue
		}
		if err := c.backupTable(ctx, t, out); err != nil {
			return nil, fmt.Errorf("table %s: %w", t, err)
		}
	}
	out.objects(all, true)
	c.report("comparing")
	if err := c.unchanged(ctx, all, c.source.engine.config); err != nil {
		return nil, err
	}
	out.write(frame{Kind: frameEnd})
	return at, out.flush()
}

// objects writes what the rows need, or the rest.
func (w *frameWriter) objects(all *catalog, late bool) {
	for _, o := range all.objects {
		if o.late() != late {
			continue
		}
		before, after := o.settings(all)
		w.set(before...)
		w.write(objectFrame(o))
		w.set(after...)
	}
}

// backupTable writes the rows of a table.
func (c *copying) backupTable(ctx context.Context, t *table, out *frameWriter) error {
	if err := c.snap.exec(ctx, "SAVEPOINT seed", "SET NAMES binary"); err != nil {
		return err
	}
	out.write(frame{Kind: frameTable, Schema: t.schema, Name: t.name, Engine: t.engine, Versioned: t.versioned})
	out.set("SET NAMES binary")
	if t.versioned {
		out.set(keepHistory)
	}
	var rows int64
	err := c.readRows(ctx, t, func(statement string, n int64) bool {
		out.write(frame{Kind: frameRows, Rows: n, statement: statement})
		rows, c.done = rows+n, c.done+n
		c.report(t.String())
		return out.err == nil
	})
	if out.err != nil {
		return out.err
	}
	if err != nil {
		return err
	}
	sum, err := c.checksumSource(ctx, t)
	if err != nil {
		return err
	}
	out.write(frame{Kind: frameSum, Rows: rows, Checksum: sum})
	out.set("SET NAMES utf8mb4")
	if out.err != nil {
		return out.err
	}
	return c.snap.exec(ctx, "SET NAMES utf8mb4", "ROLLBACK TO SAVEPOINT seed")
}

// Restore fills a member from what Backup wrote, by the rules of Import: the accounts come locked, the histories have no
// transaction in common. Each table is compared with its checksum and number of rows when the backup was made, and, if the
// member runs the version that the source ran, all definitions are too. So a backup that has been restored without an error
// is proven, as far as a server can be asked.
func (e *Engine) Restore(ctx context.Context, m replication.Member, r io.Reader, scrub func(context.Context, replication.Member) error,
	progress func(replication.Progress)) (replication.Position, error) {
	if progress == nil {
		progress = func(replication.Progress) {}
	}
	s, err := e.backedUp(ctx, m)
	if err == nil {
		err = s.mayChange(ctx, m.Token)
	}
	if err != nil {
		return "", wrap("restore to", m, err)
	}
	c := &copying{target: s, apart: true, progress: progress}
	at, err := c.restore(ctx, m, r, scrub)
	if err != nil {
		return "", wrap("restore to", m, err)
	}
	return at.public(), nil
}

func (c *copying) restore(ctx context.Context, m replication.Member, from io.Reader, scrub func(context.Context, replication.Member) error) (position, error) {
	l, err := c.target.status(ctx)
	switch {
	case err != nil:
		return nil, err
	case !l.on("read_only"):
		return nil, fmt.Errorf("%w: it takes writes: fence it first", replication.ErrUnsafe)
	case !l.on("log_bin"):
		return nil, fmt.Errorf("it has no binary log: set log_bin in my.cnf, see ServerConf")
	}
	in, err := newFrameReader(from)
	if err != nil {
		return nil, err
	}
	at, all, first, err := c.readDefinitions(in)
	if err != nil {
		return nil, err
	}
	c.targetVersion = l.vars["version"]
	ctx, stop := watch(ctx, c.target)
	defer stop()
	c.report("definitions")
	release, err := c.prepare(ctx)
	defer release()
	if err != nil {
		return nil, err
	}
	if err := c.createFirst(ctx, all); err != nil {
		return nil, err
	}
	for f := first; f.Kind != frameEnd; {
		switch f.Kind {
		case frameTable:
			err = c.restoreTable(ctx, in, f)
		case frameObject:
			all.objects = append(all.objects, f.object())
		default:
			err = unexpected(f)
		}
		if err == nil {
			f, err = in.next()
		}
		if err != nil {
			return nil, err
		}
	}
	if err := in.end(); err != nil {
		return nil, err
	}
	if err := c.createLast(ctx, all); err != nil {
		return nil, err
	}
	c.report("comparing")
	if err := c.equalDefinitions(ctx, all); err != nil {
		return nil, err
	}
	return at, c.scrubbed(ctx, m, scrub, at)
}

func unexpected(f frame) error {
	return fmt.Errorf("%w: a frame %q is where there should be none", errNoBackup, f.Kind)
}

// readDefinitions reads what comes before the first table: nothing is done before it has been understood.
func (c *copying) readDefinitions(in *frameReader) (at position, all *catalog, next frame, err error) {
	head, err := in.next()
	switch {
	case err != nil:
		return nil, nil, head, err
	case head.Kind != frameHead:
		return nil, nil, head, unexpected(head)
	case head.Format != backupFormat:
		return nil, nil, head, fmt.Errorf("its format is %d, want %d", head.Format, backupFormat)
	}
	if at, err = parsePosition(head.Position); err != nil {
		return nil, nil, head, err
	}
	all = &catalog{schemas: head.Schemas, rows: head.Rows}
	c.sourceVersion, c.total = head.Version, head.Rows
	config := c.target.engine.config
	for {
		if next, err = in.next(); err != nil {
			return nil, nil, next, err
		}
		switch {
		case next.Kind == frameAccount && slices.Contains([]string{config.User, config.ReplicationUser}, next.User): // they stay the member's
		case next.Kind == frameAccount:
			all.accounts = append(all.accounts, userAccount{user: next.User, host: next.Host, role: next.Role, grants: next.Grants})
		case next.Kind == frameObject && !next.object().late():
			all.objects = append(all.objects, next.object())
		default:
			c.accounts = locked(all.accounts)
			return at, all, next, nil
		}
	}
}

// restoreTable inserts the rows of a table, and compares it.
func (c *copying) restoreTable(ctx context.Context, in *frameReader, f frame) error {
	t := &table{schema: f.Schema, name: f.Name, engine: f.Engine, versioned: f.Versioned}
	var sum frame
	rows, err := c.insertRows(ctx, t, func(ctx context.Context, emit func(statement string, rows int64) bool) error {
		for {
			f, err := in.next()
			switch {
			case err != nil:
				return err
			case f.Kind == frameSum:
				sum = f
				return nil
			case f.Kind != frameRows:
				return unexpected(f)
			case !emit(f.statement, f.Rows):
				return context.Cause(ctx)
			}
		}
	})
	if err == nil && rows != sum.Rows {
		err = fmt.Errorf("%w: it holds %d rows, and says that it has %d", errNoBackup, rows, sum.Rows)
	}
	if err == nil {
		var here string
		if here, err = checksum(ctx, c.to, t); err == nil {
			err = c.compareWith(ctx, t, here, sum.Rows, sum.Checksum)
		}
	}
	if err != nil {
		return fmt.Errorf("table %s: %w", t, err)
	}
	return nil
}
