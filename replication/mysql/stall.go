package mysql

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/scalr-go/scalr/replication"
)

// processesQuery lists what the sessions do. It is no query of information_schema, whose table of processes would be a
// temporary one on a disk that may be full.
const processesQuery = "SHOW PROCESSLIST"

// The State of a session whose statement is in its commit, or waits there for a full disk, which the server tries again once
// a minute, or for a replica.
const (
	committing = "Commit"
	diskFull   = "Waiting for someone to free space"
	ackWaiting = "Waiting for semi-sync ACK" // and of whom, which differs by version
)

// commits remembers which statements are in their commit, and since when.
type commits struct {
	ask     bool      // the next look has a reason to begin with processesQuery
	known   bool      // a look has found that commits end, or that there were none
	written string    // changes with whatever is written to the binary log
	quiet   time.Time // since when that has not changed and no probe has ended
	waiting map[string]commit
}

// commit is a statement that has been in its commit at each look since then. Began is when it began, by the server's clock of
// whole seconds.
type commit struct{ began, since time.Time }

// asksProcesses reports whether the next look is to begin with processesQuery: there was none yet, or the last one hung, since a
// statement in its commit may hold what the status waits for, or saw a primary that works and writes nothing. What the first look at a
// primary sees counts as what it had acknowledged, so that it must not be one whose commits wait already.
func (s *server) asksProcesses() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.commits.ask
}

// learn takes in what a look says of writing, or that it hung.
func (s *server) learn(l look, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err != nil {
		s.commits.ask = errors.Is(err, replication.ErrHung) || !s.commits.known
		return
	}
	now := time.Now()
	written := l.vars["binlog_state"] + " " + l.counters["binlog_bytes_written"]
	idle := written == s.commits.written || s.commits.written == ""
	if written != s.commits.written {
		s.commits.written, s.commits.quiet, s.commits.waiting = written, now, nil
	}
	s.commits.ask = idle && !l.on("read_only") && (number(l.counters["threads_running"]) > 1 || s.probe != nil)
	s.commits.known = s.commits.known || !s.commits.ask
	s.probeIdle(l, now)
}

// knows reports whether commits are known to end here, now that the sessions have been looked at.
func (s *server) knows() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.commits.known = s.commits.known || len(s.commits.waiting) == 0
	return s.commits.known
}

// stalled gives an ErrStalled if the disk is full, or a commit has waited for it for longer than Config.Stall, by what the
// sessions did while nothing was written or the status hung.
func (s *server) stalled(processes []row, now time.Time) error {
	waiting, longest, probed, acks := map[string]commit{}, time.Duration(0), time.Duration(0), false
	s.mu.Lock()
	defer s.mu.Unlock()
	s.checkProbe(processes, now)
	for _, r := range processes {
		switch state := r["State"]; {
		case state == diskFull:
			return fmt.Errorf("%w: the disk of its binary log is full", replication.ErrStalled)
		case strings.HasPrefix(state, ackWaiting):
			acks = true // the others wait for it, but for the probe
		case state == committing:
			c := commit{began: now.Add(-time.Duration(number(r["Time"])) * time.Second), since: now}
			if known, ok := s.commits.waiting[r["Id"]]; ok && c.began.Sub(known.began).Abs() < 2*time.Second {
				c = known
			}
			if p := s.probe; p != nil && r["Id"] == p.session {
				if c.since.Before(p.sent) { // that was the probe before
					c.since = p.sent
				}
				probed = now.Sub(c.since)
			}
			waiting[r["Id"]] = c
			longest = max(longest, now.Sub(c.since))
		}
	}
	s.commits.waiting = waiting
	s.commits.known = s.commits.known || acks
	if acks {
		longest = probed
	}
	if longest > s.engine.config.Stall {
		return fmt.Errorf("%w: one has waited for the disk for %v", replication.ErrStalled, longest.Round(time.Millisecond))
	}
	return nil
}
