package journal

import (
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/scalr-go/scalr"
)

// SQL is a journal in a table of a database that takes "?" as a placeholder, such as MariaDB, MySQL and SQLite.
type SQL struct {
	db    *sql.DB
	table string
	count atomic.Uint64
}

var _ Journal = (*SQL)(nil)

var isTable = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]{0,63}$`)

// NewSQL makes a journal of a table, which it creates unless it is there. An empty name is "scalr_journal".
func NewSQL(ctx context.Context, db *sql.DB, table string) (*SQL, error) {
	if table == "" {
		table = "scalr_journal"
	}
	if !isTable.MatchString(table) {
		return nil, fmt.Errorf("journal: table %q, want letters, digits and '_', at most 64", table)
	}
	_, err := db.ExecContext(ctx, "CREATE TABLE IF NOT EXISTS "+table+` (
		at BIGINT NOT NULL, id VARCHAR(40) NOT NULL, farm VARCHAR(64) NOT NULL, role VARCHAR(64) NOT NULL, slot INT NOT NULL,
		kind VARCHAR(64) NOT NULL, event MEDIUMBLOB NOT NULL, PRIMARY KEY (at, id))`)
	if err != nil {
		return nil, fmt.Errorf("journal: %w", err)
	}
	return &SQL{db: db, table: table}, nil
}

// Append implements Journal. The events of one call are there all or not at all.
func (s *SQL) Append(ctx context.Context, events ...scalr.Event) error {
	tx, err := s.db.BeginTx(ctx, nil)
	if err != nil {
		return fmt.Errorf("journal: %w", err)
	}
	defer tx.Rollback()
	for _, e := range events {
		data, err := json.Marshal(e)
		if err != nil {
			return fmt.Errorf("journal: %w", err)
		}
		// Events of one time are told apart by when they came, and by how many came before from this program.
		id := fmt.Sprintf("%016x%016x", time.Now().UnixNano(), s.count.Add(1))
		_, err = tx.ExecContext(ctx, "INSERT INTO "+s.table+" (at, id, farm, role, slot, kind, event) VALUES (?, ?, ?, ?, ?, ?, ?)",
			e.Time.UnixNano(), id, e.Farm, e.Role, e.Index, string(e.Kind), string(data))
		if err != nil {
			return fmt.Errorf("journal: %w", err)
		}
	}
	if err := tx.Commit(); err != nil {
		return fmt.Errorf("journal: %w", err)
	}
	return nil
}

// Read implements Journal. The database narrows by time, farm, role, slot and kind.
func (s *SQL) Read(ctx context.Context, q Query) ([]scalr.Event, error) {
	where, args := []string{"1 = 1"}, []any{}
	and := func(condition string, values ...any) {
		where, args = append(where, condition), append(args, values...)
	}
	if !q.From.IsZero() {
		and("at >= ?", q.From.UnixNano())
	}
	if !q.To.IsZero() {
		and("at < ?", q.To.UnixNano())
	}
	if q.Farm != "" {
		and("farm = ?", q.Farm)
	}
	if q.Role != "" {
		and("role = ?", q.Role)
	}
	if q.Index != 0 {
		and("slot = ?", q.Index)
	}
	if len(q.Kinds) > 0 {
		kinds := make([]any, len(q.Kinds))
		for i, k := range q.Kinds {
			kinds[i] = string(k)
		}
		and("kind IN ("+strings.TrimSuffix(strings.Repeat("?,", len(kinds)), ",")+")", kinds...)
	}
	// Backwards, so that the last few are found without reading them all.
	rows, err := s.db.QueryContext(ctx, "SELECT event FROM "+s.table+" WHERE "+strings.Join(where, " AND ")+" ORDER BY at DESC, id DESC", args...)
	if err != nil {
		return nil, fmt.Errorf("journal: %w", err)
	}
	defer rows.Close()
	found := []scalr.Event{}
	for rows.Next() && (q.Last == 0 || len(found) < q.Last) {
		var data []byte
		var e scalr.Event
		if err := rows.Scan(&data); err != nil {
			return nil, fmt.Errorf("journal: %w", err)
		}
		if err := json.Unmarshal(data, &e); err != nil {
			return nil, fmt.Errorf("journal: an event in table %s: %w", s.table, err)
		}
		if q.Match(e) {
			found = append(found, e)
		}
	}
	if err := rows.Err(); err != nil {
		return nil, fmt.Errorf("journal: %w", err)
	}
	slices.Reverse(found)
	return found, nil
}
