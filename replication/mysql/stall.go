package mysql

import (
	"context"
	"fmt"
	"time"

	"github.com/scalr-go/scalr/replication"
)

// commitsQuery lists the statements that are in their commit. A full disk has a state of its own: the server tries again
// once a minute.
const commitsQuery = "SELECT query_id, state = '" + diskFull + "' AS full FROM information_schema.processlist " +
	"WHERE state IN ('Commit', '" + diskFull + "')"

const diskFull = "Waiting for someone to free space"

// commits remembers which statements are in their commit, and since when.
type commits struct {
	written string               // changes with whatever is written to the binary log
	since   map[string]time.Time // by query_id, while nothing is written
}

// stalled gives an ErrStalled if the disk is full, or commits have waited for it longer than Config.Stall. A second round
// trip is made only where nothing has been written since the last look and somebody works.
func (s *server) stalled(ctx context.Context, l look, st *replication.Status) error {
	written := l.vars["binlog_state"] + " " + l.counters["binlog_bytes_written"]
	s.mu.Lock()
	idle := s.commits.written == written
	if !idle {
		s.commits = commits{written: written, since: map[string]time.Time{}}
	}
	s.mu.Unlock()
	if !idle || number(l.counters["threads_running"]) < 2 {
		return nil
	}
	rows, err := s.rows(ctx, commitsQuery)
	if err != nil {
		return err
	}
	now := time.Now()
	s.mu.Lock()
	defer s.mu.Unlock()
	since, longest := map[string]time.Time{}, time.Duration(0)
	for _, r := range rows {
		if r["full"] == "1" {
			return fmt.Errorf("%w: the disk of its binary log is full", replication.ErrStalled)
		}
		id := r["query_id"]
		since[id] = now
		if t, known := s.commits.since[id]; known {
			since[id] = t
			longest = max(longest, now.Sub(t))
		}
	}
	s.commits.since = since
	if longest > s.engine.config.Stall && st.Unacked == 0 { // those who wait for a replica are another matter
		return fmt.Errorf("%w: one has waited for the disk for %v", replication.ErrStalled, longest.Round(time.Millisecond))
	}
	return nil
}
