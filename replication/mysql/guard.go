package mysql

import (
	"context"
	"errors"
	"fmt"
	"strconv"

	"github.com/scalr-go/scalr/replication"
)

// claimed is the table in which a member keeps the fencing token that it was claimed with. Replicas do not get it.
const claimed = "mysql.scalr_claimed"

// Claim keeps the token in a table of the member, mysql.scalr_claimed. A promotion looks there in the same round trip in which it opens
// the member for writes, anything else before it begins. MySQL is not claimed (errors.ErrUnsupported).
func (e *Engine) Claim(ctx context.Context, m replication.Member) error {
	d, err := e.dialect(ctx, m)
	if err == nil {
		err = errors.ErrUnsupported
		if s, ok := d.(*server); ok {
			err = s.claim(ctx, m.Token)
		}
	}
	return wrap("claim", m, err)
}

func (s *server) claim(ctx context.Context, token uint64) error {
	have, err := s.claimedWith(ctx)
	if err != nil || have == token {
		return err
	}
	if have > token {
		return overtaken(token, have)
	}
	// Two may do so at the same time: the lower one finds the higher one's token, whoever is first.
	n := strconv.FormatUint(token, 10)
	err = s.exec(ctx,
		"CREATE TABLE IF NOT EXISTS "+claimed+" (one TINYINT PRIMARY KEY, token BIGINT UNSIGNED NOT NULL) ENGINE=InnoDB",
		"INSERT INTO "+claimed+" VALUES (1, "+n+") ON DUPLICATE KEY UPDATE token = GREATEST(token, "+n+")")
	if err != nil {
		return err
	}
	return s.mayChange(ctx, token)
}

// claimedWith gives the token that the member was claimed with, or 0.
func (s *server) claimedWith(ctx context.Context) (uint64, error) {
	rows, err := s.rows(ctx, "SELECT token FROM "+claimed)
	if isServer(err, errNoSuchTable) || err == nil && len(rows) == 0 {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	return strconv.ParseUint(rows[0]["token"], 10, 64)
}

// mayChange refuses a token that is lower than the member's.
func (s *server) mayChange(ctx context.Context, token uint64) error {
	if token == 0 {
		return nil
	}
	have, err := s.claimedWith(ctx)
	if err == nil && have > token {
		err = overtaken(token, have)
	}
	return err
}

// guard gives the statement that fails with errSeveralRows if the member has been claimed with a higher token. (DO would only warn.)
func guard(token uint64) []string {
	if token == 0 {
		return nil
	}
	return []string{"SET @scalr_claimed = (SELECT 1 UNION ALL SELECT 1 FROM " + claimed + " WHERE token > " + strconv.FormatUint(token, 10) + ")"}
}

func overtaken(token, have uint64) error {
	return fmt.Errorf("%w: this one's token is %d, and the server was claimed with %d", replication.ErrOvertaken, token, have)
}
