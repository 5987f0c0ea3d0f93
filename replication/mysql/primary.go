package mysql

import (
	"context"
	"errors"
	"fmt"
	"math"
	"strings"
	"time"

	"github.com/scalr-go/scalr/replication"
)

// semiSyncForever is the time-out, in ms, from which on a wait counts as endless: 30 days.
const semiSyncForever = 30 * 24 * 3600 * 1000

// semiSyncOn are the settings of a primary that acknowledges what a replica has. AFTER_SYNC: before others see it and
// before it is committed, so that what a dead primary has too much was acknowledged to nobody. The time-out must not end
// the wait: it would go on without acknowledgements.
var semiSyncOn = []string{
	"SET GLOBAL rpl_semi_sync_master_wait_point = AFTER_SYNC",
	"SET GLOBAL rpl_semi_sync_master_timeout = 18446744073709551615",
	"SET GLOBAL rpl_semi_sync_master_wait_no_slave = ON",
	"SET GLOBAL rpl_semi_sync_master_enabled = ON",
}

var semiSyncOff = []string{"SET GLOBAL rpl_semi_sync_master_enabled = OFF"}

// Fence sets read_only and ends all sessions but those of replicas, of the server itself and of the engine's account. A
// commit that waits for a replica is ended too, unacknowledged; the member keeps the transaction.
//
// Sessions get the chance to end well: what they write is rejected, which the application may send to another server, while
// it cannot know what became of a statement whose session was ended. So they are ended when none has a statement under way
// that is younger than 200 ms, or when read_only has waited for what they hold (statements, table locks, commits) for 200 ms.
//
// read_only does not stop accounts with READ_ONLY ADMIN (up to MariaDB 10.10: SUPER as well), which ALL PRIVILEGES
// includes. If such an account had a session from another host, the member is read-only, and Fence fails with ErrUnsafe and
// names the account: only stopping the machine holds then.
func (e *Engine) Fence(ctx context.Context, m replication.Member) error {
	d, err := e.changes(ctx, m)
	if err == nil {
		err = d.fence(ctx)
	}
	return wrap("fence", m, err)
}

func (s *server) fence(ctx context.Context) error {
	f := s.fencing()
	done := make(chan error, 1)
	go func() { done <- s.setReadOnly(ctx, f.statement) }()
	seen := map[string]bool{} // the accounts whose sessions were ended
	killErr := errors.New("sessions were not ended yet")
	waits := false // the server has answered while read_only waited
	began, pause := time.Now(), fenceGrace
	for ended := false; !ended; pause = 20 * time.Millisecond {
		select {
		case err := <-done:
			if waits && (errors.Is(err, replication.ErrHung) || errors.Is(err, context.DeadlineExceeded)) {
				return fmt.Errorf("read_only still waits for what other sessions hold: %w", context.DeadlineExceeded)
			}
			if err != nil {
				return errors.Join(err, killErr)
			}
			ended = true
			s.quieten(ctx, f.young)
		case <-time.After(pause):
		}
		which := ""
		if !ended && time.Since(began) < 5*fenceGrace {
			which = f.others
		}
		// Once more after read_only: a session may have begun a transaction before.
		killErr = s.endSessions(ctx, which, seen)
		if killErr == nil && !ended && f.release != nil {
			killErr = f.release(ctx)
		}
		if killErr == nil || ctx.Err() == nil { // what the end of the context cuts off says nothing about the server
			waits = killErr == nil
		}
	}
	if killErr != nil {
		return killErr
	}
	return f.check(ctx, seen)
}

// fenceGrace is how long sessions may go on when the server is to be fenced: while read_only waits for them, and after it.
const fenceGrace = 200 * time.Millisecond

// quieten waits until the sessions of applications have got their answers, but for statements that take long.
func (s *server) quieten(ctx context.Context, young string) {
	for deadline := time.Now().Add(fenceGrace); time.Now().Before(deadline); {
		rows, err := s.rows(ctx, s.sessionsQuery()+young)
		if err != nil || len(rows) == 0 || sleep(ctx, 2*time.Millisecond) != nil {
			return
		}
	}
}

// sessionsQuery lists the sessions of applications.
func (s *server) sessionsQuery() string {
	c := s.engine.config
	return "SELECT id AS id, user AS user, host AS host FROM information_schema.processlist WHERE user NOT IN (" +
		quote(c.User) + "," + quote(c.ReplicationUser) + ",'system user','event_scheduler','unauthenticated user') " +
		"AND command NOT IN ('Binlog Dump','Binlog Dump GTID','Daemon','Slave_IO','Slave_SQL','Slave_worker')"
}

// setReadOnly waits for locks until the context ends.
func (s *server) setReadOnly(ctx context.Context, statement string) error {
	for {
		if err := s.exec(ctx, statement); !isServer(err, errLockTimeout) {
			return err
		}
	}
}

// endSessions ends the sessions of applications that meet a condition and adds their accounts to seen.
func (s *server) endSessions(ctx context.Context, which string, seen map[string]bool) error {
	rows, err := s.rows(ctx, s.sessionsQuery()+which)
	if err != nil {
		return err
	}
	for _, r := range rows {
		if host := r["host"]; !strings.HasPrefix(host, "localhost") || strings.Contains(host, ":") {
			seen[r["user"]] = true
		}
		if err := s.exec(ctx, "KILL CONNECTION "+r["id"]); err != nil && !isServer(err, errNoSuchThread) {
			return err
		}
	}
	return nil
}

// checkFence reports accounts that had sessions from other hosts and that read_only does not stop.
func (s *server) checkFence(ctx context.Context, seen map[string]bool) error {
	if len(seen) == 0 {
		return nil
	}
	rows, err := s.rows(ctx, "SELECT DISTINCT grantee FROM information_schema.user_privileges "+
		"WHERE privilege_type = 'READ_ONLY ADMIN' OR privilege_type = 'READ ONLY ADMIN' "+
		"OR privilege_type = 'SUPER' AND SUBSTRING_INDEX(@@version, '.', 2) IN ('10.6','10.7','10.8','10.9','10.10')")
	if err != nil {
		return err
	}
	var through []string
	for _, r := range rows {
		i := strings.LastIndexByte(r["grantee"], '@')
		user, host := strings.Trim(r["grantee"][:max(i, 0)], "'"), strings.Trim(r["grantee"][i+1:], "'")
		if seen[user] && host != "localhost" {
			through = append(through, r["grantee"])
		}
	}
	if len(through) > 0 {
		return fmt.Errorf("%w: it is read-only, but %s may write all the same and had sessions: revoke READ_ONLY ADMIN and SUPER "+
			"from the accounts of applications", replication.ErrUnsafe, strings.Join(through, ", "))
	}
	return nil
}

// Promote stops replication, sets semi-synchronous acknowledgement, opens the member for writes, and forgets its source
// last. ErrUnsafe if it has received transactions that it has not applied, or holds half of a copy.
func (e *Engine) Promote(ctx context.Context, m replication.Member, semisync bool) error {
	d, err := e.changes(ctx, m)
	if err == nil {
		err = d.promote(ctx, semisync, m.Token)
	}
	return wrap("promote", m, err)
}

func (s *server) promote(ctx context.Context, semisync bool, token uint64) error {
	if token > 0 {
		if err := s.claim(ctx, token); err != nil {
			return err
		}
	}
	l, err := s.status(ctx)
	if err != nil {
		return err
	}
	if l.seeding {
		return fmt.Errorf("%w: it holds a part of a copy: seed it again, or drop the schema %s to take it as it is",
			replication.ErrUnsafe, marker)
	}
	var statements []string
	if l.on("read_only") && !l.on("master_enabled") { // commits that wait for a replica would hold it up
		// Who follows it from now on begins with a new file. In the one before, each transaction would be read until its own position
		// is found, while commits wait for it.
		statements = append(statements, "FLUSH LOCAL BINARY LOGS")
	}
	flush := len(statements)
	for _, c := range l.channels {
		if c.io != "No" {
			statements = append(statements, "STOP SLAVE "+quote(c.name)+" IO_THREAD")
		}
	}
	if len(statements) > 0 {
		if err := s.exec(ctx, statements...); err != nil {
			return err
		}
	}
	if len(statements) > flush {
		if l, err = s.status(ctx); err != nil {
			return err
		}
	}
	if err := s.checkDrained(ctx, l); err != nil {
		return err
	}
	if err := s.ensureReplicationUser(ctx); err != nil {
		return err
	}
	statements = guard(token)
	for _, c := range l.channels {
		statements = append(statements, "STOP SLAVE "+quote(c.name))
	}
	if l.on("slave_enabled") {
		statements = append(statements, "SET GLOBAL rpl_semi_sync_slave_enabled = OFF")
	}
	if semisync {
		statements = append(statements, semiSyncOn...)
	} else {
		statements = append(statements, semiSyncOff...)
	}
	statements = append(append(statements, guard(token)...), "SET GLOBAL read_only = OFF")
	for _, c := range l.channels {
		statements = append(statements, "RESET SLAVE "+quote(c.name)+" ALL")
	}
	err = s.exec(ctx, strings.Join(statements, "; ")) // in one round trip
	if isServer(err, errSeveralRows) {
		return errors.Join(s.mayChange(ctx, token), err)
	}
	return err
}

// checkDrained refuses a replica that would lose what it has received: forgetting the source deletes the relay logs.
func (s *server) checkDrained(ctx context.Context, l look) error {
	unread, err := s.observeRelayLogs(ctx, l, math.MaxInt64)
	if err != nil {
		return err
	}
	if unread != "" {
		return fmt.Errorf("%w: %s", replication.ErrUnsafe, unread)
	}
	if !l.applied.holds(l.received) {
		return fmt.Errorf("%w: it has received %s and applied %s: drain it first",
			replication.ErrUnsafe, l.received.public(), l.applied.public())
	}
	return nil
}

// ensureReplicationUser creates the account that replicas use, on this member only, unless there is one of this name.
func (s *server) ensureReplicationUser(ctx context.Context) error {
	c := s.engine.config
	rows, err := s.rows(ctx, "SELECT COUNT(*) AS n FROM mysql.user WHERE user = "+quote(c.ReplicationUser))
	if err != nil || rows[0]["n"] != "0" {
		return err
	}
	if err := s.exec(ctx, replicationUserSQL(c)...); err != nil {
		return fmt.Errorf("creating the replication account %q: %w", c.ReplicationUser, err)
	}
	return nil
}

// SetSemiSync makes a primary wait for a replica (AFTER_SYNC, without end) or not wait. Commits that wait when it is
// switched off are acknowledged. A member that follows another one is refused: a replica that logs what it applies would
// wait for acknowledgements itself, transaction by transaction.
//
// Where it is on already, the sessions of commits that have waited for more than 500 ms are ended. When a replica's
// connection breaks after a transaction and before its acknowledgement, MariaDB does not take the replica's GTID position
// at the new connection for one, and a commit that waits lets no other one into the binary log that could be acknowledged
// in its place.
func (e *Engine) SetSemiSync(ctx context.Context, m replication.Member, on bool) error {
	d, err := e.changes(ctx, m)
	if err == nil {
		err = d.setSemiSync(ctx, on)
	}
	return wrap("set semi-sync of", m, err)
}

func (s *server) setSemiSync(ctx context.Context, on bool) error {
	if !on {
		return s.exec(ctx, semiSyncOff...)
	}
	l, err := s.status(ctx)
	if err != nil {
		return err
	}
	if len(l.channels) > 0 {
		return fmt.Errorf("it follows %s: a replica must not wait for replicas: promote it first", l.channels[0].source)
	}
	if l.semiSync() {
		return s.endWaits(ctx)
	}
	return s.exec(ctx, semiSyncOn...)
}

// endWaits ends commits that have long waited for an acknowledgement, for a moment: others are in the binary log already
// and begin to wait only when the one before them is gone.
func (s *server) endWaits(ctx context.Context) error {
	for range 10 {
		err := s.endSessions(ctx, " AND state LIKE 'Waiting for semi-sync ACK%' AND time_ms > 500", map[string]bool{})
		if err != nil {
			return err
		}
		if err := sleep(ctx, 20*time.Millisecond); err != nil {
			return err
		}
	}
	return nil
}
