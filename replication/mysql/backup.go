package mysql

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"

	"github.com/scalr-go/scalr/replication"
)

// Backup writes everything that Seed would copy over SQL: rows and definitions, and the accounts and roles with what they are
// granted and without their passwords or hashes of them. An engine's own two accounts are left out. With Config.Machines it writes
// the member's files as mariadb-backup reads them, otherwise and where that cannot be a text of SQL. [Engine.Restore] takes both.
//
// What Seed cannot copy makes Backup fail too: it says what and why. Nobody is kept from writing; definitions (DDL, accounts)
// that change meanwhile make it fail.
//
// MySQL is not backed up (errors.ErrUnsupported).
//
// # By files
//
// It is a stream of mbstream's, of which nothing is kept anywhere but in w. Commits stand still for as long as mariadb-backup locks
// them: some tenths of a second at most, unless w stops taking what is written just then; and it gives up when it would wait for
// the lock for more than 1 s, since nobody could commit meanwhile. The position is that of this moment.
//
// Its first file, scalr_backup.sql, has the definitions as statements. Then come the files of InnoDB, among them those of the
// system tables in it, and what describes the tables, views and triggers of users. The system tables of Aria, where passwords and
// their hashes are, and Aria's log, where they stay, are left out, and an empty log is put in, which mariadbd --bootstrap makes in a
// temporary directory on the member's machine. The last file has the position: without it, a backup is a part of one.
//
// SQL is written instead, and each Progress says why ("not by mariadb-backup: …"), where mariadb-backup says so before it has begun: it is
// not installed there, or of another series, or takes no account; a table is of another engine than InnoDB or has a DATA
// DIRECTORY; a system table has been made one of InnoDB; or files are encrypted. Of a backup that breaks off later the error says why, and the
// next one of that member is SQL.
//
// Without this library, a server of the same series can start on what follows, where SYSTEM is a data directory that
// mariadb-install-db has made:
//
//	zcat FILE | mbstream -x -C DIR   # ends with an error: the file's last line is not mbstream's
//	mariadb-backup --prepare --target-dir=DIR
//	rm DIR/aria_log* && cp -a SYSTEM/aria_log* SYSTEM/sys SYSTEM/performance_schema DIR
//	for f in SYSTEM/mysql/*.MAI SYSTEM/mysql/*.CSM; do cp -a ${f%.*}.* DIR/mysql; done
//
// Routines, events and accounts are missing then, and are in DIR/scalr_backup.sql.
//
// # Over SQL
//
// It is a text of statements, of one consistent snapshot, read table by table over one session: each comes after a comment that says what it is, and each table's rows
// are followed by their number and checksum, which the server has worked out in the same snapshot. While a table is read nobody can
// change the definition of that one: on a replica, that is what replication waits for. The account needs what Import needs of a source.
//
// Without this library it can be loaded into an empty server with what every MariaDB has:
//
//	zcat FILE | mariadb --binary-mode --comments --max-allowed-packet=1G --force
//
// Then views that use a later view, and accounts, are missing, and nothing has been compared.
func (e *Engine) Backup(ctx context.Context, m replication.Member, w io.Writer, progress func(replication.Progress)) (replication.Position, error) {
	if progress == nil {
		progress = func(replication.Progress) {}
	}
	s, err := e.backedUp(ctx, m)
	if err != nil {
		return "", wrap("back up", m, err)
	}
	if e.config.Machines.Run != nil {
		at, err := s.backupFiles(ctx, m, w, progress)
		not, ok := errors.AsType[*notByFiles](err)
		if !ok {
			return at.public(), wrap("back up", m, err)
		}
		progress = not.tell(progress)
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

// readable refuses a source that a backup cannot be read from.
func (c *copying) readable(ctx context.Context) (look, error) {
	l, err := c.source.status(ctx)
	switch {
	case err != nil:
		return l, err
	case l.seeding:
		return l, fmt.Errorf("%w: it holds a part of a copy", replication.ErrUnsafe)
	case !l.on("log_bin"):
		return l, fmt.Errorf("it has no binary log: set log_bin in my.cnf, see ServerConf")
	}
	return l, nil
}

func (c *copying) backup(ctx context.Context, to io.Writer) (position, error) {
	l, err := c.readable(ctx)
	if err != nil {
		return nil, err
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
	out.accounts(all)
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
	l := c.lane(0)
	if err := l.from.exec(ctx, "SAVEPOINT seed", "SET NAMES binary"); err != nil {
		return err
	}
	out.write(frame{Kind: frameTable, Schema: t.schema, Name: t.name, Engine: t.engine, Versioned: t.versioned})
	out.set("SET NAMES binary")
	if t.versioned {
		out.set(keepHistory)
	}
	var rows int64
	err := l.readRows(ctx, t, func(statement string, n int64) bool {
		out.write(frame{Kind: frameRows, Rows: n, statement: statement})
		rows += n
		l.copied(t, n)
		return out.err == nil
	})
	if out.err != nil {
		return out.err
	}
	if err != nil {
		return err
	}
	sum, err := l.checksumSource(ctx, t)
	if err != nil {
		return err
	}
	out.write(frame{Kind: frameSum, Rows: rows, Checksum: sum})
	out.set("SET NAMES utf8mb4")
	if out.err != nil {
		return out.err
	}
	return l.from.exec(ctx, "SET NAMES utf8mb4", "ROLLBACK TO SAVEPOINT seed")
}

// Restore fills a member from what Backup wrote, by the rules of Import: the accounts come locked, the histories have no
// transaction in common. If the member runs the version that the source ran, all definitions are compared. So a backup that has been
// restored without an error is proven, as far as a server can be asked.
//
// Of a text of SQL each table is compared with its checksum and number of rows when the backup was made.
//
// Files are restored where Config.Machines runs commands on the member's machine: they are written beside the data directory, so that there must be room
// for both, and made one state by mariadb-backup; then the server is stopped, the directories are exchanged, and it starts on the
// copy, with its own my.cnf, server_id, system tables and passwords, as in [Engine.Seed]; and CHECK TABLE must find every table
// whole. Until then it can go back to what it had, and does if anything fails; that is Empty by then, since it has the
// schema scalr_seeding, and is removed in the end. Refused before anything is touched: a server of another version series, page size or the
// like, a machine without mariadb-backup, a datadir that is a mount point, events of the member's that would run on the copy.
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
	buffered := bufio.NewReaderSize(from, 1<<16)
	if magic, _ := buffered.Peek(len(chunkMagic)); string(magic) == chunkMagic {
		return c.restoreFiles(ctx, m, buffered, scrub)
	}
	in, err := newFrameReader(buffered)
	if err != nil {
		return nil, err
	}
	head, all, first, err := c.readDefinitions(in)
	if err == nil && head.Files != nil {
		err = unexpected(head)
	}
	if err != nil {
		return nil, err
	}
	at, err := parsePosition(head.Position)
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
func (c *copying) readDefinitions(in *frameReader) (head frame, all *catalog, next frame, err error) {
	head, err = in.next()
	switch {
	case err != nil:
		return head, nil, head, err
	case head.Kind != frameHead:
		return head, nil, head, unexpected(head)
	case head.Format != backupFormat:
		return head, nil, head, fmt.Errorf("its format is %d, want %d", head.Format, backupFormat)
	}
	all = &catalog{schemas: head.Schemas, rows: head.Rows}
	c.sourceVersion, c.total = head.Version, head.Rows
	config := c.target.engine.config
	for {
		if next, err = in.next(); err != nil {
			return head, nil, next, err
		}
		switch {
		case next.Kind == frameAccount && slices.Contains([]string{config.User, config.ReplicationUser}, next.User): // they stay the member's
		case next.Kind == frameAccount:
			all.accounts = append(all.accounts, userAccount{user: next.User, host: next.Host, role: next.Role, grants: next.Grants})
		case next.Kind == frameObject && !next.object().late():
			all.objects = append(all.objects, next.object())
		default:
			c.accounts = locked(all.accounts)
			return head, all, next, nil
		}
	}
}

// restoreTable inserts the rows of a table, and compares it.
func (c *copying) restoreTable(ctx context.Context, in *frameReader, f frame) error {
	t := &table{schema: f.Schema, name: f.Name, engine: f.Engine, versioned: f.Versioned}
	l := c.lane(0)
	var sum frame
	rows, err := l.insertRows(ctx, t, func(ctx context.Context, emit func(statement string, rows int64) bool) error {
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
		if here, err = checksum(ctx, l.to, t); err == nil {
			err = l.compareWith(ctx, t, here, sum.Rows, sum.Checksum)
		}
	}
	if err != nil {
		return fmt.Errorf("table %s: %w", t, err)
	}
	return nil
}
