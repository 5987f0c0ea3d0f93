package mysql

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"time"

	"github.com/scalr-go/scalr/replication"
)

// errRestartFailed says that the server has ended to start again, and that nothing starts it.
const errRestartFailed = 3707

// seed copies by the clone plugin: the server itself fetches the source's files, with its accounts, and starts again on
// them. The GTIDs come along.
func (s mysql8) seed(ctx context.Context, source *server, m, at replication.Member, progress func(replication.Progress)) (replication.Position, error) {
	from := mysql8{source}
	if err := s.checkClone(ctx, from, m, at); err != nil {
		return "", err
	}
	watched, stop := watch(ctx, source)
	defer stop()
	if err := from.ensureReplicationUser(ctx); err != nil {
		return "", fmt.Errorf("the source %s: %w", at.ID, err)
	}
	if err := s.prepareClone(watched, at); err != nil {
		return "", err
	}
	progress(replication.Progress{Unit: "bytes", What: "clone"})
	if err := s.clone(watched, at, progress); err != nil {
		return "", err
	}
	l, err := s.awaitClone(ctx)
	if err != nil {
		return "", err
	}
	statements := []string{"SET GLOBAL super_read_only = ON"}
	for _, c := range l.channels { // a source that is a replica gives its copy that too
		statements = append(statements, "STOP REPLICA"+c.of(), "RESET REPLICA ALL"+c.of())
	}
	if err := s.exec(ctx, statements...); err != nil {
		return "", err
	}
	if l, err = s.look(ctx); err != nil {
		return "", err
	}
	return l.applied.public(), nil
}

// checkClone refuses what must not be, before anything is touched.
func (s mysql8) checkClone(ctx context.Context, from mysql8, m, source replication.Member) error {
	if m.Addr == source.Addr {
		return fmt.Errorf("it cannot be its own source: the source's Addr is %s too", source.Addr)
	}
	if host, _, _ := net.SplitHostPort(source.Addr); strings.Contains(host, ":") {
		return fmt.Errorf("the source's Addr is %s: MySQL clones from a name or an IPv4 address", source.Addr)
	}
	l, err := s.look(ctx)
	if err != nil {
		return err
	}
	who := func(err error) error { return fmt.Errorf("the source %s (%s): %w", source.ID, source.Addr, err) }
	fl, err := from.look(ctx)
	if err != nil {
		return who(err)
	}
	switch {
	case l.vars["server_id"] == fl.vars["server_id"]:
		return fmt.Errorf("it and the source %s have the same server_id %s: set another one in my.cnf and start it again",
			source.ID, l.vars["server_id"])
	case !l.on("read_only"):
		return fmt.Errorf("%w: it takes writes: fence it first", replication.ErrUnsafe)
	case fl.seeding:
		return fmt.Errorf("the source %s holds a part of a copy itself", source.ID)
	}
	for _, c := range fl.channels {
		if c.source == m.Addr {
			return fmt.Errorf("%w: the source %s follows it: point the source to another primary, or promote it, first",
				replication.ErrUnsafe, source.ID)
		}
	}
	if err := s.hasClone(ctx); err != nil {
		return err
	}
	if err := from.hasClone(ctx); err != nil {
		return who(err)
	}
	return nil
}

func (s mysql8) hasClone(ctx context.Context) error {
	rows, err := s.rows(ctx, "SELECT COUNT(*) AS n FROM information_schema.plugins WHERE plugin_name = 'clone' AND plugin_status = 'ACTIVE'")
	if err != nil {
		return err
	}
	if rows[0]["n"] == "0" {
		return fmt.Errorf("it has no clone plugin: set plugin_load_add = mysql_clone.so in its my.cnf and start it again, see ServerConfMySQL8")
	}
	return nil
}

// prepareClone makes the target empty and marks it. A clone that breaks off has deleted the marker with everything else of
// users, so that the target is empty without.
func (s mysql8) prepareClone(ctx context.Context, source replication.Member) error {
	if err := s.endClones(ctx); err != nil {
		return err
	}
	if err := s.fence(ctx); err != nil {
		return err
	}
	l, err := s.look(ctx)
	if err != nil {
		return err
	}
	statements, err := l.semiSyncStatements(false)
	if err != nil {
		return err
	}
	for _, c := range l.channels {
		statements = append(statements, "STOP REPLICA"+c.of(), "RESET REPLICA ALL"+c.of())
	}
	reset := "RESET MASTER"
	if v, ok := numbers(l.vars["version"]); ok && (v[0] > 8 || v[1] >= 2) {
		reset = "RESET BINARY LOGS AND GTIDS"
	}
	statements = append(statements, "SET GLOBAL super_read_only = OFF", "CREATE SCHEMA IF NOT EXISTS "+name(marker), reset)
	if err := s.exec(ctx, statements...); err != nil {
		return err
	}
	rows, err := s.rows(ctx, "SELECT schema_name AS name FROM information_schema.schemata WHERE schema_name NOT IN "+systemSchemas+
		" AND schema_name <> "+quote(marker))
	if err != nil {
		return err
	}
	for _, r := range rows {
		drop := func() error { return s.exec(ctx, "DROP SCHEMA IF EXISTS "+name(r["name"])) }
		err := drop()
		for isServer(err, errLockTimeout) { // somebody reads
			if err = s.endSessions(ctx, "", map[string]bool{}); err == nil {
				err = drop()
			}
		}
		if err != nil {
			return fmt.Errorf("dropping the schema %s: %w", r["name"], err)
		}
	}
	return s.exec(ctx, "SET GLOBAL clone_valid_donor_list = "+quote(source.Addr))
}

// endClones ends clones that are under way on the target.
func (s mysql8) endClones(ctx context.Context) error {
	rows, err := s.rows(ctx, "SELECT id AS id FROM information_schema.processlist WHERE info LIKE 'CLONE INSTANCE FROM%' AND command <> 'Killed'")
	if err != nil {
		return err
	}
	for _, r := range rows {
		if err := s.exec(ctx, "KILL CONNECTION "+r["id"]); err != nil && !isServer(err, errNoSuchThread) {
			return err
		}
	}
	return nil
}

// clone runs the statement, which takes as long as it takes, and tells how far it is.
func (s mysql8) clone(ctx context.Context, source replication.Member, progress func(replication.Progress)) error {
	host, port, _ := net.SplitHostPort(source.Addr)
	c := s.engine.config
	statement := fmt.Sprintf("CLONE INSTANCE FROM %s@%s:%s IDENTIFIED BY %s", quote(c.ReplicationUser), quote(host), port,
		quote(c.ReplicationPassword))
	if c.TLS != nil {
		statement += " REQUIRE SSL"
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	result := make(chan error, 1)
	go func() {
		_, err := s.db.ExecContext(ctx, statement)
		result <- s.engine.explain(ctx, err)
	}()
	for misses := 0; ; {
		select {
		case err := <-result:
			switch {
			case ctx.Err() != nil:
				short, cancel := context.WithTimeout(context.WithoutCancel(ctx), c.Timeout)
				defer cancel()
				return errors.Join(context.Cause(ctx), s.endClones(short))
			case isServer(err, errRestartFailed):
				return fmt.Errorf("it has the copy and has ended, and nothing starts it again: start it, and run it under systemd or "+
					"mysqld_safe: %w", err)
			case err == nil, errors.Is(err, replication.ErrUnreachable): // it starts again
				return nil
			}
			return fmt.Errorf("cloning %s: %w", source.ID, err)
		case <-time.After(200 * time.Millisecond):
		}
		rows, err := s.rows(ctx, "SELECT SUM(estimate) AS estimate, SUM(data) AS data FROM performance_schema.clone_progress")
		if misses++; err == nil {
			misses = 0
			if done := number(rows[0]["data"]); done > 0 {
				progress(replication.Progress{Done: done, Total: max(done, number(rows[0]["estimate"])), Unit: "bytes", What: "clone"})
			}
		} else if misses == 3 && errors.Is(err, replication.ErrHung) {
			cancel(err)
		}
	}
}

// awaitClone waits until the server runs on the copy.
func (s mysql8) awaitClone(ctx context.Context) (look8, error) {
	for {
		rows, err := s.rows(ctx, "SELECT state AS state, error_no AS number, error_message AS message FROM performance_schema.clone_status")
		switch {
		case errors.Is(err, replication.ErrAccess):
			return look8{}, fmt.Errorf("it runs on the copy, whose accounts are the source's: %w", err)
		case err == nil && len(rows) == 1 && rows[0]["state"] == "Failed":
			return look8{}, fmt.Errorf("the clone failed: %s (error %s)", s.engine.clean(rows[0]["message"]), rows[0]["number"])
		case err == nil && len(rows) == 1 && rows[0]["state"] == "Completed":
			return s.look(ctx)
		}
		if err := sleep(ctx, 50*time.Millisecond); err != nil {
			return look8{}, err
		}
	}
}
