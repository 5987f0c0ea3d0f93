package mysql

import (
	"context"
	"errors"

	"github.com/scalr-go/scalr/replication"
)

// recorded is the table in which a member keeps what a Manager leaves to the next one, in its row 1; row 2 is the probe's. Replicas
// do not get it.
const recorded = "mysql.scalr_record"

// Record keeps the text in a table of the member, mysql.scalr_record. MySQL keeps none (errors.ErrUnsupported).
func (e *Engine) Record(ctx context.Context, m replication.Member, text string) error {
	d, err := e.changes(ctx, m)
	if err == nil {
		err = errors.ErrUnsupported
		if s, ok := d.(*server); ok {
			err = s.record(ctx, text)
		}
	}
	return wrap("record on", m, err)
}

func (s *server) record(ctx context.Context, text string) error {
	write := "REPLACE INTO " + recorded + " VALUES (1, " + quote(text) + ")"
	err := s.exec(ctx, write)
	if isServer(err, errNoSuchTable) {
		err = s.exec(ctx, "CREATE TABLE IF NOT EXISTS "+recorded+
			" (one TINYINT PRIMARY KEY, text LONGTEXT CHARACTER SET utf8mb4 NOT NULL) ENGINE=InnoDB", write)
	}
	return err
}

// Recorded reads the text.
func (e *Engine) Recorded(ctx context.Context, m replication.Member) (text string, err error) {
	d, err := e.dialect(ctx, m)
	if err == nil {
		err = errors.ErrUnsupported
		if s, ok := d.(*server); ok {
			text, err = s.recorded(ctx)
		}
	}
	return text, wrap("read the record of", m, err)
}

func (s *server) recorded(ctx context.Context) (string, error) {
	rows, err := s.rows(ctx, "SELECT text FROM "+recorded+" WHERE one = 1")
	if isServer(err, errNoSuchTable) || err == nil && len(rows) == 0 {
		return "", nil
	}
	if err != nil {
		return "", err
	}
	return rows[0]["text"], nil
}
