package mysql

import (
	"context"
	"fmt"
	"strconv"
	"strings"

	"github.com/scalr-go/scalr/replication"
)

// dialect is what the engine does with one server, in the statements of its kind: *server does it with MariaDB, mysql8 with
// MySQL.
type dialect interface {
	observe(ctx context.Context) (replication.Status, error)
	fence(ctx context.Context) error
	drain(ctx context.Context) (replication.Position, error)
	promote(ctx context.Context, semisync bool, token uint64) error
	setSemiSync(ctx context.Context, on bool) error
	follow(ctx context.Context, primary *server, m, p replication.Member) error
	seed(ctx context.Context, from *server, m, source replication.Member, progress func(replication.Progress)) (replication.Position, error)
}

var (
	_ dialect = (*server)(nil)
	_ dialect = mysql8{}
)

// kind is what runs at an address.
type kind int

const (
	kindUnknown kind = iota
	kindMariaDB
	kindMySQL
)

// dialect gives the member's, by what the server said of itself when it was first asked.
func (e *Engine) dialect(ctx context.Context, m replication.Member) (dialect, error) {
	s, err := e.server(m)
	if err != nil {
		return nil, err
	}
	k, err := s.kindOf(ctx)
	if err != nil {
		return nil, err
	}
	if k == kindMySQL {
		return mysql8{s}, nil
	}
	return s, nil
}

// changes is dialect for a method that changes the member.
func (e *Engine) changes(ctx context.Context, m replication.Member) (dialect, error) {
	d, err := e.dialect(ctx, m)
	if s, ok := d.(*server); ok && err == nil {
		err = s.mayChange(ctx, m.Token)
	}
	return d, err
}

// pair gives the dialect of m, and the server of its primary or source, which must speak the same.
func (e *Engine) pair(ctx context.Context, m replication.Member, role string, other replication.Member) (dialect, *server, error) {
	d, err := e.changes(ctx, m)
	if err != nil {
		return nil, nil, err
	}
	od, err := e.dialect(ctx, other)
	if err != nil {
		return nil, nil, fmt.Errorf("the %s %s (%s): %w", role, other.ID, other.Addr, err)
	}
	_, own := d.(mysql8)
	switch o := od.(type) {
	case mysql8:
		if own {
			return d, o.server, nil
		}
	case *server:
		if !own {
			return d, o, nil
		}
	}
	kinds := map[bool]string{true: "MySQL", false: "MariaDB"}
	return nil, nil, fmt.Errorf("it runs %s and the %s %s (%s) runs %s: the members of a set run one of them",
		kinds[own], role, other.ID, other.Addr, kinds[!own])
}

// kindOf asks the server once. A server of another kind at the same address is noticed when it does not understand what it
// is sent.
func (s *server) kindOf(ctx context.Context) (kind, error) {
	s.mu.Lock()
	k := s.kind
	s.mu.Unlock()
	if k != kindUnknown {
		return k, context.Cause(ctx)
	}
	version, err := s.version(ctx)
	if err != nil {
		return kindUnknown, err
	}
	k = kindMySQL
	if strings.Contains(version, "MariaDB") {
		k = kindMariaDB
	} else if err := checkMySQL(version); err != nil {
		return kindUnknown, err
	}
	s.mu.Lock()
	s.kind = k
	s.mu.Unlock()
	return k, nil
}

func (s *server) forgetKind() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.kind = kindUnknown
}

func (s *server) version(ctx context.Context) (string, error) {
	rows, err := s.rows(ctx, "SELECT VERSION() AS version")
	if err != nil {
		return "", err
	}
	if len(rows) != 1 {
		return "", fmt.Errorf("the server gave %d rows to the question for its version, want 1", len(rows))
	}
	return rows[0]["version"], nil
}

// checkMySQL refuses what speaks neither dialect.
func checkMySQL(version string) error {
	if v, ok := numbers(version); !ok || v[0] < 8 || v[0] == 8 && v[1] == 0 && v[2] < 26 {
		return fmt.Errorf("the server is too old, or no server that this engine knows (its version is %q): it speaks to "+
			"MariaDB 10.6 or later and MySQL 8.0.26 or later: upgrade it, or take it out of the set", version)
	}
	return nil
}

// numbers reads the first three of a version: "8.0.36-0ubuntu0.22.04.1".
func numbers(version string) (v [3]int, ok bool) {
	parts := strings.SplitN(version, ".", 3)
	if len(parts) != 3 {
		return v, false
	}
	if i := strings.IndexFunc(parts[2], func(r rune) bool { return r < '0' || r > '9' }); i >= 0 {
		parts[2] = parts[2][:i]
	}
	for i, p := range parts {
		n, err := strconv.Atoi(p)
		if err != nil {
			return v, false
		}
		v[i] = n
	}
	return v, true
}

// fencing is what differs between the kinds of server when one is fenced.
type fencing struct {
	statement string                      // makes it read-only, and waits for what sessions hold
	others    string                      // the condition of sessions that do not wait for that statement
	young     string                      // the condition of sessions with a statement that has just begun
	release   func(context.Context) error // ends the commits that wait on though their sessions have been ended; nil where they do not
	check     func(ctx context.Context, seen map[string]bool) error
}

func (s *server) fencing() fencing {
	s.mu.Lock()
	k := s.kind
	s.mu.Unlock()
	if k == kindMySQL {
		return fencing{
			statement: "SET GLOBAL super_read_only = ON",
			others:    " AND IFNULL(state, '') NOT IN ('Waiting for global read lock','Waiting for commit lock')",
			young:     " AND command NOT IN ('Sleep','Killed') AND time < 1",
			release:   mysql8{s}.releaseCommits,
			check:     func(context.Context, map[string]bool) error { return nil }, // nobody writes through super_read_only
		}
	}
	return fencing{
		statement: "SET GLOBAL read_only = ON",
		others:    " AND IFNULL(state, '') NOT LIKE 'Waiting for backup lock%'",
		young:     fmt.Sprintf(" AND command <> 'Sleep' AND time_ms < %d", fenceGrace.Milliseconds()),
		check:     s.checkFence,
	}
}
