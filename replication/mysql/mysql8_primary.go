package mysql

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/scalr-go/scalr/replication"
)

// releaseCommits ends the commits of sessions that have been ended and that wait on for a replica: MySQL looks after them only
// when it need not wait any more. So semi-synchronous acknowledgement is switched off, but not before each of those that
// wait has been cut off from its application. Others cannot commit meanwhile: super_read_only waits, and they wait for it.
func (s mysql8) releaseCommits(ctx context.Context) error {
	rows, err := s.rows(ctx, "SELECT command AS command FROM information_schema.processlist WHERE state LIKE '"+ackWaiting+"%'")
	if err != nil || len(rows) == 0 {
		return err
	}
	for _, r := range rows {
		if r["command"] != "Killed" {
			return nil
		}
	}
	l, err := s.look(ctx)
	if err != nil {
		return err
	}
	statements, err := l.semiSyncStatements(false)
	if err != nil {
		return err
	}
	return s.exec(ctx, statements...)
}

func (s mysql8) promote(ctx context.Context, semisync bool, _ uint64) error {
	l, err := s.look(ctx)
	if err != nil {
		return err
	}
	if l.seeding {
		return fmt.Errorf("%w: it holds a part of a copy: seed it again, or drop the schema %s to take it as it is",
			replication.ErrUnsafe, marker)
	}
	semi, err := l.semiSyncStatements(semisync)
	if err != nil {
		return err
	}
	var stops, resets []string
	for _, c := range l.channels {
		if c.io != "No" {
			stops = append(stops, "STOP REPLICA IO_THREAD"+c.of())
		}
	}
	if len(stops) > 0 {
		if err := s.exec(ctx, stops...); err != nil {
			return err
		}
		if l, err = s.look(ctx); err != nil {
			return err
		}
	}
	if !l.applied.holds(l.received) { // forgetting the source deletes the relay logs
		return fmt.Errorf("%w: it has received %s and applied %s: drain it first", replication.ErrUnsafe, l.received, l.applied)
	}
	if err := s.ensureReplicationUser(ctx); err != nil {
		return err
	}
	var statements []string
	for _, c := range l.channels {
		statements = append(statements, "STOP REPLICA"+c.of())
		resets = append(resets, "RESET REPLICA ALL"+c.of())
	}
	if p := l.replicaPlugin(); p != "" && l.on("rpl_semi_sync_"+p+"_enabled") {
		statements = append(statements, "SET GLOBAL rpl_semi_sync_"+p+"_enabled = OFF")
	}
	statements = append(append(statements, semi...), "SET GLOBAL read_only = OFF") // and super_read_only with it
	return s.exec(ctx, strings.Join(append(statements, resets...), "; "))          // in one round trip
}

// ensureReplicationUser creates the account that members use on each other, on this member only, unless there is one of this
// name.
func (s mysql8) ensureReplicationUser(ctx context.Context) error {
	c := s.engine.config
	rows, err := s.rows(ctx, "SELECT COUNT(*) AS n FROM mysql.user WHERE user = "+quote(c.ReplicationUser))
	if err != nil || rows[0]["n"] != "0" {
		return err
	}
	if err := s.administer(ctx, replicationUserSQL8(c)...); err != nil {
		return fmt.Errorf("creating the replication account %q: %w", c.ReplicationUser, err)
	}
	return nil
}

// administer runs statements that super_read_only would refuse. Applications are kept out meanwhile by read_only.
func (s mysql8) administer(ctx context.Context, statements ...string) error {
	rows, err := s.rows(ctx, "SELECT @@global.super_read_only AS super")
	if err != nil {
		return err
	}
	if rows[0]["super"] != "1" {
		return s.exec(ctx, statements...)
	}
	if err := s.exec(ctx, "SET GLOBAL super_read_only = OFF"); err != nil {
		return err
	}
	err = s.exec(ctx, statements...)
	return errors.Join(err, s.exec(context.WithoutCancel(ctx), "SET GLOBAL super_read_only = ON"))
}

func (s mysql8) setSemiSync(ctx context.Context, on bool) error {
	l, err := s.look(ctx)
	if err != nil {
		return err
	}
	if on && len(l.channels) > 0 {
		return fmt.Errorf("it follows %s: a replica must not wait for replicas: promote it first", l.channels[0].source)
	}
	if on && l.semiSync() {
		// What an acknowledgement was lost for is acknowledged with the next transaction, since MySQL lets others into the
		// binary log meanwhile; the application is not to wait for that.
		return s.endSessions(ctx, " AND state LIKE '"+ackWaiting+"%' AND time >= 1", map[string]bool{})
	}
	statements, err := l.semiSyncStatements(on)
	if err != nil {
		return err
	}
	return s.exec(ctx, statements...)
}
