package mysql

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
)

// snapshotTries is how often all sessions, then all but one, and so on, try to begin their snapshots with no commit in between.
const snapshotTries = 10

// state tells a snapshot's state from all others of the same server: every transaction that commits changes the place in the
// binary log, or, on a source that does not log what it applies, the numbers in its table of positions. The server reads the
// place under the lock under which transactions become visible.
type state struct{ file, place, applied string }

// snapshot begins the transactions that all rows are read in, which see the same state, and gives its position. Nobody waits
// for them, so that on a source where somebody always commits in between c.snaps ends with fewer of them, with one at least.
func (c *copying) snapshot(ctx context.Context) (position, error) {
	for _, t := range c.snaps {
		if err := t.exec(ctx, "SET SESSION TRANSACTION ISOLATION LEVEL REPEATABLE READ"); err != nil {
			return nil, err
		}
	}
	for try := 0; ; try++ {
		rows, err := c.snaps[0].rows(ctx, "SELECT @@global.gtid_binlog_state AS state")
		if err != nil {
			return nil, err
		}
		log, err := parsePosition(rows[0]["state"])
		if err != nil {
			return nil, err
		}
		states, err := begin(ctx, c.snaps)
		if err != nil {
			return nil, err
		}
		same, of := agreeing(states, c.snaps)
		if len(same) < len(c.snaps)-try/snapshotTries {
			continue
		}
		for _, t := range c.snaps {
			if !slices.Contains(same, t) {
				if err := t.exec(ctx, "ROLLBACK"); err != nil {
					return nil, err
				}
			}
		}
		c.snaps = same
		list, err := of.list(ctx, same[0])
		return log.upTo(list), err
	}
}

// begin begins a snapshot in each session, at once.
func begin(ctx context.Context, sessions []*session) ([]state, error) {
	states, errs := make([]state, len(sessions)), make([]error, len(sessions))
	var all sync.WaitGroup
	for i, t := range sessions {
		all.Go(func() { states[i], errs[i] = t.begin(ctx) })
	}
	all.Wait()
	return states, cmp.Or(errs...)
}

func (t *session) begin(ctx context.Context) (state, error) {
	results, err := t.results(ctx, "START TRANSACTION WITH CONSISTENT SNAPSHOT; SHOW STATUS LIKE 'binlog_snapshot_%'; "+
		"SELECT domain_id, server_id, MAX(seq_no) AS seq FROM mysql.gtid_slave_pos GROUP BY domain_id, server_id ORDER BY domain_id, server_id")
	if err != nil {
		return state{}, err
	}
	status := row{}
	for _, r := range results[0] {
		status[strings.ToLower(r["Variable_name"])] = r["Value"]
	}
	var applied []string
	for _, r := range results[1] {
		applied = append(applied, r["domain_id"]+"-"+r["server_id"]+"-"+r["seq"])
	}
	return state{status["binlog_snapshot_file"], status["binlog_snapshot_position"], strings.Join(applied, ",")}, nil
}

// agreeing gives the most sessions that see one state.
func agreeing(states []state, sessions []*session) (same []*session, of state) {
	by := map[state][]*session{}
	for i, s := range states {
		by[s] = append(by[s], sessions[i])
		if len(by[s]) > len(same) {
			same, of = by[s], s
		}
	}
	return same, of
}

// list gives the last transactions that the state has.
func (s state) list(ctx context.Context, t *session) (position, error) {
	rows, err := t.rows(ctx, fmt.Sprintf("SELECT BINLOG_GTID_POS(%s, %d) AS at", quote(s.file), number(s.place)))
	if err != nil {
		return nil, err
	}
	text, ok := rows[0]["at"]
	if !ok {
		return nil, fmt.Errorf("the server cannot tell its GTID position from its binary log %s: if that has an event larger than "+
			"max_allowed_packet, FLUSH BINARY LOGS or raise that", s.file)
	}
	list, err := parsePosition(text)
	if err != nil {
		return nil, err
	}
	applied, err := parsePosition(s.applied)
	for _, g := range applied.gtids() {
		list.add(g)
	}
	return list, err
}
