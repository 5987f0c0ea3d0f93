package mysql

import (
	"context"
	"errors"
	"fmt"

	"github.com/scalr-go/scalr/replication"
)

// Seed copies everything of users. With Config.Machines it copies the source's files by mariadb-backup, otherwise and where that
// cannot be it copies rows over SQL alone.
//
// Refused before anything is touched: a member that takes writes (fence it first) or that the source follows. While Seed is under
// way, and after it broke off, the member has a schema scalr_seeding, which makes it Empty for Observe; the next Seed begins anew.
// The copies of events are disabled as those of a replica are (DISABLE ON SLAVE). If somebody changes a definition on the source
// during the copy, Seed fails and says so, and the next try may succeed. Progress comes from one goroutine at a time.
//
// # By files
//
// On the source's machine mariadb-backup reads the files while the server works, the caller's process passes them on as they come,
// keeping nothing, and mbstream writes them beside the member's data directory. There mariadb-backup makes them one state, that
// of the position at which commits stood still, for some tenths of a second at most. Then the member's server is stopped, the
// directories are exchanged, and it starts on the copy, as itself: its my.cnf and server_id stay. If it does not start, it gets
// back what it had, without rows by then. The exchange is one script on the machine, which ends with a server that runs
// whatever becomes of the caller; only a machine that loses power within it may be left without.
//
// The rows are not compared with the source's, which has gone on. Verified is what each step can tell: mariadb-backup checks every
// page of InnoDB that it reads, mbstream the stream; the redo log has been applied to its end; CHECK TABLE finds every table whole;
// and the definitions and accounts are the source's. Everything that is in files comes along, also plugins' tables and time zones.
//
// Rows are copied instead, and each Progress says why ("not by mariadb-backup: …"), where both servers answer and files could not
// be copied: a machine has no mariadb-backup of the server's series or takes no commands, the servers differ in version
// series, page size or the like, the datadir is a mount point or not all in one place, a table is MEMORY or of an engine that keeps
// its rows elsewhere, the source's enabled events would run on the copy, or the backup would wait for a lock: for more than 1 s for
// commits, such as those that wait for a replica, since then nobody else can commit.
//
// # Over SQL
//
// Copied are schemas, tables with their rows, sequences, views, routines, triggers, events, accounts, roles and grants, except the
// engine's own two accounts. Up to four tables are copied at the same time, the largest first, each over a session of its own on
// either server, and with a few MB of rows in this program, or a few rows where those are larger. The sessions read consistent
// snapshots (START TRANSACTION WITH CONSISTENT SNAPSHOT), which are begun anew until all are of the same place in the binary log: that
// of the position. This keeps nobody from writing. Where somebody always commits between two of them, or a server takes no
// more sessions, there are fewer, in the end one. What is written without the binary log (sql_log_bin=0) belongs to no position: of a
// transaction like that which commits just then, some tables of the copy may have the rows, and others not.
//
// Each table is compared by CHECKSUM TABLE EXTENDED and by its number of rows before its session goes on, and the definitions at the end.
// The first error ends all sessions.
//
// Tables of engines whose data is elsewhere (FEDERATED, CONNECT, SPIDER) are refused before anything is touched. Tables of engines
// without transactions (MyISAM, Aria, MEMORY) are copied if nobody writes to them meanwhile; otherwise Seed fails and says so.
// Plugins, UDFs, time zone tables and global variables are not copied. Progress counts rows against an estimate of the source's.
func (e *Engine) Seed(ctx context.Context, m, source replication.Member, progress func(replication.Progress)) (replication.Position, error) {
	if progress == nil {
		progress = func(replication.Progress) {}
	}
	d, from, err := e.pair(ctx, m, "source", source)
	if err != nil {
		return "", wrap("seed", m, err)
	}
	at, err := d.seed(ctx, from, m, source, progress)
	return at, wrap("seed", m, err)
}

func (s *server) seed(ctx context.Context, from *server, m, source replication.Member, progress func(replication.Progress)) (replication.Position, error) {
	if s.engine.config.Machines.Run != nil {
		at, err := s.seedFiles(ctx, from, m, source, progress)
		not, ok := errors.AsType[*notByFiles](err)
		if !ok {
			return at.public(), err
		}
		progress = not.tell(progress)
	}
	c := &copying{target: s, source: from, progress: progress}
	at, err := c.run(ctx, m, source, c.finish)
	return at.public(), err
}

// copying is one Seed, Import, Rewind, Backup (which has no target) or Restore (which has no source).
type copying struct {
	target, source *server
	apart          bool          // the source is of another set
	accounts       []userAccount // as the target gets them
	progress       func(replication.Progress)
	done, total    int64 // rows

	to, defs      *session   // on the target; on the source
	snaps         []*session // on the source, in snapshots of one state
	writers       []*session // on the target, at least as many; the first one is to
	reads, writes *sessions  // all of them
	sourceVersion string
	targetVersion string
}

// errChanged is for definitions that changed during the copy.
var errChanged = errors.New("definitions on the source changed during the copy: seed it again")

// run copies, and finishes when the target has all of it.
func (c *copying) run(ctx context.Context, m, source replication.Member, finish func(context.Context, position) error) (position, error) {
	if err := c.check(ctx, m, source); err != nil {
		return nil, err
	}
	ctx, stop := watch(ctx, c.target, c.source)
	defer stop()

	leave, err := c.openSource(ctx)
	defer leave()
	if err != nil {
		return nil, fmt.Errorf("the source %s: %w", source.ID, err)
	}
	before, err := readCatalog(ctx, c.defs, c.target.engine.config)
	if err != nil {
		return nil, fmt.Errorf("the source %s: %w", source.ID, err)
	}
	if err := before.check(); err != nil {
		return nil, fmt.Errorf("the source %s: %w", source.ID, err)
	}
	if c.accounts = before.accounts; c.apart {
		c.accounts = locked(c.accounts)
	}
	c.total = before.rows
	c.report("definitions")

	release, err := c.prepare(ctx)
	defer release()
	if err != nil {
		return nil, err
	}
	if err := before.checksumUnsafe(ctx, c.defs); err != nil {
		return nil, fmt.Errorf("the source %s: %w", source.ID, err)
	}
	if err := c.openLanes(ctx, before); err != nil {
		return nil, err
	}
	at, err := c.snapshot(ctx)
	if err != nil {
		return nil, fmt.Errorf("the source %s: snapshot: %w", source.ID, err)
	}
	if err := c.copyAll(ctx, before); err != nil {
		return nil, err
	}
	if err := c.verify(ctx, before); err != nil {
		return nil, err
	}
	return at, finish(ctx, at)
}

// openSource takes the sessions that the source is read with.
func (c *copying) openSource(ctx context.Context) (leave func(), err error) {
	if c.reads, err = c.source.sessions(map[string]string{"net_write_timeout": "3600"}); err != nil {
		return func() {}, err
	}
	if c.defs, err = c.reads.add(ctx); err != nil {
		return c.reads.close, err
	}
	snap, err := c.reads.add(ctx)
	c.snaps = []*session{snap}
	return c.reads.close, err
}

// check refuses what must not be, before anything is touched.
func (c *copying) check(ctx context.Context, m, source replication.Member) error {
	if m.Addr == source.Addr {
		return fmt.Errorf("it cannot be its own source: the source's Addr is %s too", source.Addr)
	}
	t, err := c.target.status(ctx)
	if err != nil {
		return err
	}
	s, err := c.source.status(ctx)
	if err != nil {
		return fmt.Errorf("the source %s (%s): %w", source.ID, source.Addr, err)
	}
	c.targetVersion, c.sourceVersion = t.vars["version"], s.vars["version"]
	switch {
	case t.vars["server_id"] == s.vars["server_id"]:
		return fmt.Errorf("it and the source %s have the same server_id %s: set another one in my.cnf and start it again",
			source.ID, s.vars["server_id"])
	case !t.on("read_only"):
		return fmt.Errorf("%w: it takes writes: fence it first", replication.ErrUnsafe)
	case !t.on("log_bin"), !s.on("log_bin"):
		return fmt.Errorf("it or the source %s has no binary log: set log_bin in my.cnf, see ServerConf", source.ID)
	case s.seeding:
		return fmt.Errorf("the source %s holds a part of a copy itself", source.ID)
	}
	for _, channel := range s.channels {
		if channel.source == m.Addr {
			return fmt.Errorf("%w: the source %s follows it: point the source to another primary, or promote it, first",
				replication.ErrUnsafe, source.ID)
		}
	}
	return nil
}

// prepare makes the target empty. The release undoes what is only for the time of the copy.
func (c *copying) prepare(ctx context.Context) (release func(), err error) {
	release, err = c.claim(ctx)
	if err != nil {
		return release, err
	}
	if err := c.to.exec(ctx, "DROP TABLE IF EXISTS "+name(marker, foreign), "RESET MASTER", "SET GLOBAL gtid_slave_pos = ''"); err != nil {
		return release, err
	}
	if err := c.clear(ctx); err != nil {
		return release, err
	}
	// Before what runs as them; and if the source is of another set, nobody but administrators may see what comes now.
	if err := c.makeAccounts(ctx); err != nil {
		return release, err
	}
	return release, c.target.endSessions(ctx, "", map[string]bool{})
}

// takesAnything is the settings of a session that inserts what another server has.
var takesAnything = map[string]string{
	"sql_mode": "'NO_AUTO_VALUE_ON_ZERO'", "foreign_key_checks": "0", "unique_checks": "0",
	"check_constraint_checks": "0", "innodb_strict_mode": "0", "net_read_timeout": "3600",
}

// claim ends what the target does, marks it, and takes the session that changes it.
func (c *copying) claim(ctx context.Context) (release func(), err error) {
	release = func() {}
	t := c.target
	if err := t.fence(ctx); err != nil && !errors.Is(err, replication.ErrUnsafe) {
		return release, err
	}
	l, err := t.status(ctx)
	if err != nil {
		return release, err
	}
	var statements []string
	for _, channel := range l.channels {
		statements = append(statements, "STOP SLAVE "+quote(channel.name), "RESET SLAVE "+quote(channel.name)+" ALL")
	}
	statements = append(statements, "SET GLOBAL rpl_semi_sync_master_enabled = OFF",
		"CREATE SCHEMA IF NOT EXISTS "+name(marker), "DROP TABLE IF EXISTS "+name("mysql", imported))
	if err := t.exec(ctx, statements...); err != nil {
		return release, err
	}
	rows, err := t.rows(ctx, "SELECT @@global.max_allowed_packet AS packet")
	if err != nil {
		return release, err
	}
	if err := t.exec(ctx, "SET GLOBAL max_allowed_packet = 1073741824"); err != nil { // for sessions from now on
		return release, err
	}
	restore := func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), t.engine.config.Timeout)
		defer cancel()
		_ = t.exec(ctx, "SET GLOBAL max_allowed_packet = "+rows[0]["packet"]) // only a limit stays larger
	}
	writes, err := t.sessions(takesAnything)
	if err != nil {
		return restore, err
	}
	release = func() { restore(); writes.close() }
	c.writes = writes
	if c.to, err = writes.add(ctx); err != nil {
		return release, err
	}
	return release, c.takeOver(ctx)
}

// clear drops the schemas of users.
func (c *copying) clear(ctx context.Context) error {
	rows, err := c.to.rows(ctx, "SELECT schema_name FROM information_schema.schemata WHERE schema_name NOT IN "+systemSchemas+
		" AND schema_name <> "+quote(marker))
	if err != nil {
		return err
	}
	for _, r := range rows {
		for {
			err := c.to.exec(ctx, "DROP SCHEMA IF EXISTS "+name(r["schema_name"]))
			if isServer(err, errLockTimeout) {
				if err = c.target.endSessions(ctx, "", map[string]bool{}); err == nil {
					continue
				}
			}
			if err != nil {
				return fmt.Errorf("dropping the schema %s: %w", r["schema_name"], err)
			}
			break
		}
	}
	return nil
}

// finish gives the target the position of the snapshot. The marker goes last.
func (c *copying) finish(ctx context.Context, at position) error {
	var statements []string
	if len(at) > 0 {
		statements = append(statements, "SET GLOBAL gtid_binlog_state = "+quote(at.state()),
			"SET GLOBAL gtid_slave_pos = "+quote(at.plain()))
	}
	return c.to.exec(ctx, append(statements, "DROP SCHEMA "+name(marker))...)
}

func (c *copying) report(what string) {
	c.progress(replication.Progress{Done: c.done, Total: max(c.done, c.total), Unit: "rows", What: what})
}
