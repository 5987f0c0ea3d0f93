package mysql

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/scalr-go/scalr/replication"
)

// drainSlice is how long Drain waits before it looks again whether the SQL thread still works.
const drainSlice = 200 * time.Millisecond

// Drain stops the IO thread and lets the SQL thread apply what the relay logs hold. A SQL thread that is stopped, by a
// person, an error or a restart of the server, is started in a way that deletes no relay log. If it fails with an error,
// the relay logs stay, and Drain may be called again once the cause is removed. A transaction of which the source sent a
// part only is not applied: its source cannot have acknowledged it on the strength of this replica.
//
// A SQL thread that it starts applies alone: with workers (slave_parallel_threads), MariaDB 10.11.19 dies where it is started again
// at a place in the relay logs without GTIDs (compare_log_name of the empty name of the source's log). The next Follow lets workers apply again.
//
// A MASTER_DELAY is taken away. The member goes on following its source by name, without receiving. If the context ends
// first, the SQL thread goes on.
func (e *Engine) Drain(ctx context.Context, m replication.Member) (replication.Position, error) {
	d, err := e.changes(ctx, m)
	if err != nil {
		return "", wrap("drain", m, err)
	}
	p, err := d.drain(ctx)
	return p, wrap("drain", m, err)
}

func (s *server) drain(ctx context.Context) (replication.Position, error) {
	l, err := s.status(ctx)
	if err != nil || l.seeding {
		return "", err
	}
	if len(l.channels) > 0 && l.on("master_enabled") {
		// The SQL thread would wait for acknowledgements of what it logs.
		if err := s.exec(ctx, semiSyncOff...); err != nil {
			return "", err
		}
	}
	for _, c := range l.channels {
		if c.io == "No" {
			continue
		}
		// The SQL thread is not started first, even if it is stopped: should the IO thread die in between, the start
		// would find both stopped.
		if err := s.exec(ctx, "STOP SLAVE "+quote(c.name)+" IO_THREAD"); err != nil {
			return "", err
		}
	}
	for _, c := range l.channels {
		if c.delay() > 0 && c.sql == "Yes" { // it is started again without the delay
			if err := s.exec(ctx, "STOP SLAVE "+quote(c.name)+" SQL_THREAD"); err != nil {
				return "", err
			}
		}
	}
	if l, err = s.status(ctx); err != nil {
		return "", err
	}
	for _, c := range l.channels {
		if err := s.drainChannel(ctx, l, c); err != nil {
			return "", err
		}
	}
	if len(l.channels) == 0 {
		return l.applied.public(), nil
	}
	if l, err = s.status(ctx); err != nil {
		return "", err
	}
	return l.applied.public(), s.forget(ctx, l)
}

// forget makes a member that has applied all of its relay logs no longer say that it has received more. It does if somebody
// has deleted relay logs, by a plain START SLAVE for one.
func (s *server) forget(ctx context.Context, l look) error {
	for _, c := range l.channels {
		if l.applied.holds(c.received) {
			continue
		}
		if err := s.exec(ctx, "STOP SLAVE "+quote(c.name),
			"CHANGE MASTER "+quote(c.name)+" TO MASTER_USE_GTID=no"); err != nil {
			return err
		}
	}
	return nil
}

func (s *server) drainChannel(ctx context.Context, l look, c channel) error {
	end := c.received
	if c.sql != "Yes" {
		first, err := s.firstRelayLog(ctx, c.name)
		if err != nil || first.file == "" {
			return err
		}
		scan, err := s.scanRelayLogs(ctx, c.name, first, l.applied)
		if err != nil {
			return fmt.Errorf("relay logs from %s: %w", first.file, err)
		}
		if end = scan.end; scan.groups == 0 {
			return nil
		}
		if scan.unordered.seq != 0 {
			return fmt.Errorf("its relay logs hold %s after transactions that are not applied, so the SQL thread cannot start in "+
				"the middle: apply the rest with mariadb-binlog and set gtid_slave_pos by hand", scan.unordered)
		}
		if err := s.exec(ctx, "SET GLOBAL "+name(c.name, "slave_parallel_mode")+" = none",
			fmt.Sprintf("CHANGE MASTER %s TO MASTER_USE_GTID=no, MASTER_DELAY=0, RELAY_LOG_FILE=%s, RELAY_LOG_POS=%d",
				quote(c.name), quote(scan.first.file), scan.first.pos),
			"START SLAVE "+quote(c.name)+" SQL_THREAD"); err != nil {
			return err
		}
	} else if c.gtid && len(end) == 0 {
		return nil // its IO thread has received nothing since it started
	}
	return s.awaitApplied(ctx, c.name, end)
}

// awaitApplied waits until the SQL thread has applied everything up to end, or has nothing more to apply. Without an end,
// only the latter tells.
func (s *server) awaitApplied(ctx context.Context, channelName string, end position) error {
	var now channel
	for idle := 0; idle < 2; {
		done, err := s.waitFor(ctx, end, drainSlice)
		var l look
		if err == nil && !done {
			l, err = s.status(ctx)
		}
		if ctx.Err() != nil {
			return fmt.Errorf("not done in time: it has not applied all up to %q (its SQL thread: %q): %w",
				end.public(), now.state, context.Cause(ctx))
		}
		if err != nil || done {
			return err
		}
		for _, c := range l.channels {
			if c.name == channelName {
				now = c
			}
		}
		if now.sql != "Yes" {
			return fmt.Errorf("its SQL thread stopped before it had applied all up to %q: %s: remove the cause and drain it again",
				end.public(), s.engine.clean(now.row["Last_SQL_Error"]))
		}
		// A SQL thread that has read all relay logs has nothing more to apply, unless parallel workers are busy.
		busy, err := s.busyWorkers(ctx)
		if err != nil && ctx.Err() == nil {
			return err
		}
		if idle++; busy || !isIdle(now.state) {
			idle = 0
		}
	}
	return nil
}

// waitFor waits up to d for the SQL thread to have applied everything up to end, and reports whether it has.
func (s *server) waitFor(ctx context.Context, end position, d time.Duration) (bool, error) {
	if len(end) == 0 {
		return false, sleep(ctx, d)
	}
	rows, err := s.rows(ctx, fmt.Sprintf("SELECT MASTER_GTID_WAIT(%s, %.3f) AS r", quote(end.plain()), d.Seconds()))
	if err != nil {
		return false, err
	}
	return rows[0]["r"] == "0", nil
}

func isIdle(state string) bool {
	return strings.HasPrefix(state, "Slave has read all relay log") || strings.HasPrefix(state, "Replica has read all relay log")
}

// busyWorkers reports whether a parallel worker (slave_parallel_threads) has something to do.
func (s *server) busyWorkers(ctx context.Context) (bool, error) {
	rows, err := s.rows(ctx, "SELECT COUNT(*) AS busy FROM information_schema.processlist "+
		"WHERE command = 'Slave_worker' AND state NOT LIKE 'Waiting for work from %'")
	if err != nil {
		return false, err
	}
	return rows[0]["busy"] != "0", nil
}
