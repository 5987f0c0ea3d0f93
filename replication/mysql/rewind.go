package mysql

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/scalr-go/scalr/replication"
)

// Save writes what mariadb-binlog makes of the transactions, with each row in words: what they changed can be read, and the
// file can be given to the client mariadb on another server. The program reads the member's binary log over the network; it must
// be in PATH here (10.8 or later, Debian's package mariadb-client), and gets the password in its environment. Relay logs are applied
// first. It fails if the binary log no longer reaches back to the last common transaction. Where a history is open (see
// [Engine.Compare]) there may be transactions among them that the primary has.
func (e *Engine) Save(ctx context.Context, m, primary replication.Member, w io.Writer) (replication.Position, error) {
	at, err := e.save(ctx, m, primary, w)
	return at.public(), wrap("save what is only on", m, err)
}

func (e *Engine) save(ctx context.Context, m, primary replication.Member, w io.Writer) (position, error) {
	d, p, err := e.pair(ctx, m, "primary", primary)
	if err != nil {
		return nil, err
	}
	s, ok := d.(*server)
	if !ok {
		return nil, notRewound()
	}
	pl, err := p.status(ctx)
	if err != nil {
		return nil, fmt.Errorf("the primary %s (%s): %w", primary.ID, primary.Addr, err)
	}
	l, err := s.status(ctx)
	if err != nil {
		return nil, err
	}
	if !l.on("read_only") {
		return nil, fmt.Errorf("%w: it takes writes: fence it first", replication.ErrUnsafe)
	}
	if l, err = s.settle(ctx, l); err != nil {
		return nil, err
	}
	shared, _ := l.applied.common(pl.applied)
	_, err = s.readSurplus(ctx, l.applied, pl.applied, shared, w)
	return l.applied, err
}

// readSurplus reads what a member has after the shared transactions, and makes sure that it is all.
func (s *server) readSurplus(ctx context.Context, has, other, shared position, w io.Writer) (*transactions, error) {
	t := &transactions{to: w, last: position{}}
	if err := s.dumpBinlog(ctx, "", t, append(after(shared), "--verbose")...); err != nil {
		return nil, err
	}
	for _, g := range other.lacks(has) {
		if held, _ := t.last[g.domain].holds(g); !held {
			return nil, fmt.Errorf("its binary log, as far as %s reads it, lacks %s, which it has", program, g)
		}
	}
	return t, nil
}

// Rewind undoes the rows that the transactions changed, as mariadb-binlog --flashback says, and sets the position back. Then the
// member follows the source, acknowledging nothing, up to a consistent snapshot of it, where every table is compared by
// CHECKSUM TABLE EXTENDED and by its number of rows, and all definitions and accounts as well. So what the binary log does
// not show is found out: cascades of foreign keys, rows that were logged in part or not at all.
//
// Refused before anything is changed: transactions that change definitions or accounts, a history that is open, a member that takes
// writes. Copies of the binary logs concerned lie in a temporary directory meanwhile, which only
// its owner may enter.
func (e *Engine) Rewind(ctx context.Context, m, source replication.Member, at replication.Position, progress func(replication.Progress)) error {
	if progress == nil {
		progress = func(replication.Progress) {}
	}
	d, from, err := e.pair(ctx, m, "source", source)
	if err != nil {
		return wrap("rewind", m, err)
	}
	target, ok := d.(*server)
	if !ok {
		return wrap("rewind", m, notRewound())
	}
	c := &copying{target: target, source: from, progress: progress}
	return wrap("rewind", m, c.rewind(ctx, m, source, at))
}

// notRewound says what a set of MySQL does without.
func notRewound() error {
	return fmt.Errorf("transactions of MySQL can be neither saved nor taken back: without replication.Config.Salvage the member is "+
		"seeded anew: %w", errors.ErrUnsupported)
}

func (c *copying) rewind(ctx context.Context, m, source replication.Member, at replication.Position) error {
	if err := c.check(ctx, m, source); err != nil {
		return err
	}
	ctx, stop := watch(ctx, c.target, c.source)
	defer stop()
	l, err := c.target.status(ctx)
	if err != nil {
		return err
	}
	if now := l.received.public(); compare(now, at) != replication.Equal {
		return fmt.Errorf("it has %s, and what it has up to %s has been saved", now, at)
	}
	sl, err := c.source.status(ctx)
	if err != nil {
		return fmt.Errorf("the source %s: %w", source.ID, err)
	}
	shared, known := l.applied.common(sl.applied)
	if !known {
		return fmt.Errorf("its history and that of the source %s are not known whole (%s and %s)", source.ID, l.applied.public(), sl.applied.public())
	}
	found, err := c.target.readSurplus(ctx, l.applied, sl.applied, shared, io.Discard)
	if err != nil {
		return err
	}
	if found.ddl.seq != 0 {
		return fmt.Errorf("its transaction %s changes more than rows", found.ddl)
	}
	dir, err := os.MkdirTemp("", "scalr-rewind-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	undo, err := c.target.flashback(ctx, dir, found.from, shared)
	if err != nil {
		return err
	}
	defer undo.Close()
	release, err := c.claim(ctx)
	defer release()
	if err != nil {
		return err
	}
	c.report("undoing")
	if err := c.undo(ctx, undo); err != nil {
		return err
	}
	if err := c.to.exec(ctx, "RESET MASTER", "SET GLOBAL gtid_binlog_state = "+quote(shared.state()),
		"SET GLOBAL gtid_slave_pos = "+quote(shared.plain())); err != nil {
		return err
	}
	if err := c.equal(ctx, source); err != nil {
		return err
	}
	return c.to.exec(ctx, "DROP SCHEMA "+name(marker))
}

// flashback gives what undoes the transactions after the shared ones, which begin in the log. Reading remotely the program
// mixes up the events of a statement that has several, so it is given copies of the logs.
func (s *server) flashback(ctx context.Context, dir, log string, shared position) (*os.File, error) {
	if log != "" {
		if err := s.dumpBinlog(ctx, log, io.Discard, "--raw", "--result-file="+dir+string(os.PathSeparator)); err != nil {
			return nil, err
		}
	}
	logs, err := filepath.Glob(filepath.Join(dir, "*")) // sorted
	if err != nil {
		return nil, err
	}
	undo, err := os.Create(filepath.Join(dir, "undo.sql"))
	if err != nil || len(logs) == 0 {
		return undo, err
	}
	err = s.engine.runBinlog(ctx, undo, slices.Concat(after(shared), []string{"--flashback"}, logs)...)
	if err == nil {
		_, err = undo.Seek(0, io.SeekStart)
	}
	if err != nil {
		undo.Close()
		return nil, err
	}
	return undo, nil
}

// undo runs the row events of a text of the program, and nothing else of it.
func (c *copying) undo(ctx context.Context, text io.Reader) error {
	if err := c.to.exec(ctx, "SET pseudo_slave_mode = 1", "BEGIN"); err != nil {
		return err
	}
	r := bufio.NewReaderSize(text, 1<<16)
	var event strings.Builder
	for inside := false; ; {
		line, err := r.ReadString('\n')
		switch {
		case errors.Is(err, io.EOF) && !inside:
			return c.to.exec(ctx, "COMMIT", "SET pseudo_slave_mode = 0")
		case err != nil:
			return err
		case !inside && line == "BINLOG '\n":
			inside = true
			event.Reset()
			event.WriteString(line)
		case inside && strings.HasPrefix(line, "'"):
			inside = false
			event.WriteString("'")
			if err := c.to.exec(ctx, event.String()); err != nil {
				return fmt.Errorf("undoing: %w", err)
			}
		case inside:
			event.WriteString(line)
		}
	}
}

// equal brings the target to a snapshot of the source, and fails unless it is equal to it then.
func (c *copying) equal(ctx context.Context, source replication.Member) (err error) {
	leave, err := c.openSource(ctx)
	defer leave()
	if err != nil {
		return err
	}
	all, err := readCatalog(ctx, c.defs, c.target.engine.config)
	if err != nil {
		return fmt.Errorf("the source %s: %w", source.ID, err)
	}
	if err := all.checksumUnsafe(ctx, c.defs); err != nil {
		return fmt.Errorf("the source %s: %w", source.ID, err)
	}
	at, err := c.snapshot(ctx)
	if err != nil {
		return fmt.Errorf("the source %s: snapshot: %w", source.ID, err)
	}
	if err := c.catchUp(ctx, at); err != nil {
		return fmt.Errorf("following %s up to %s: %w", source.ID, at.public(), err)
	}
	c.total = all.rows
	l := c.lane(0)
	for _, t := range all.tables {
		if t.elsewhere() {
			continue
		}
		c.report("comparing " + t.String())
		rows, err := l.from.rows(ctx, "SELECT COUNT(*) AS n FROM "+t.ident()+t.allRows())
		if err != nil {
			return err
		}
		if err := l.compare(ctx, t, number(rows[0]["n"])); err != nil {
			return fmt.Errorf("table %s: %w", t, err)
		}
		c.done += number(rows[0]["n"])
	}
	return c.verify(ctx, all)
}

// catchUp lets the target follow the source up to a position, and no longer. It acknowledges nothing meanwhile, since it may yet
// be seeded anew.
func (c *copying) catchUp(ctx context.Context, at position) error {
	t := c.target
	if len(at) == 0 {
		return nil
	}
	if err := t.exec(ctx, strings.Join([]string{"SET GLOBAL rpl_semi_sync_slave_enabled = OFF", t.engine.changeMaster(c.source.addr),
		"START SLAVE UNTIL master_gtid_pos = " + quote(at.plain())}, "; ")); err != nil {
		return err
	}
	for {
		l, err := t.status(ctx)
		if err != nil {
			return err
		}
		for _, ch := range l.channels {
			switch {
			case ch.row["Last_SQL_Errno"] != "0":
				return fmt.Errorf("error %s: %s", ch.row["Last_SQL_Errno"], t.engine.clean(ch.row["Last_SQL_Error"]))
			case ch.io != "Yes" && ch.row["Last_IO_Errno"] != "0":
				return fmt.Errorf("error %s: %s", ch.row["Last_IO_Errno"], t.engine.clean(ch.row["Last_IO_Error"]))
			case ch.sql == "No" && l.applied.holds(at):
				return t.exec(ctx, "STOP SLAVE", "RESET SLAVE ALL", "SET GLOBAL rpl_semi_sync_slave_enabled = ON")
			case ch.sql == "No":
				return fmt.Errorf("replication has stopped at %s", l.applied.public())
			}
		}
		if err := sleep(ctx, 20*time.Millisecond); err != nil {
			return err
		}
	}
}
