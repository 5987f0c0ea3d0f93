package mysql

import (
	"context"
	"strings"
	"time"

	"github.com/scalr-go/scalr/replication"
)

var _ replication.Quiescer = (*Engine)(nil)

// Quiesce asks the server for its open transactions every few milliseconds until none of a session has locked or written
// anything in an InnoDB table.
func (e *Engine) Quiesce(ctx context.Context, m replication.Member) error {
	s, err := e.server(m)
	if err == nil {
		err = s.quiesce(ctx)
	}
	return wrap("quiesce", m, err)
}

func (s *server) quiesce(ctx context.Context) error {
	// The end of the context is not to cut off a question, and the connection with it, that is answered in time.
	asking, cancel := context.WithTimeout(context.WithoutCancel(ctx), fenceGrace)
	defer cancel()
	for quiet := 1; ; quiet++ {
		// It is no query of information_schema.innodb_trx, which is renewed every 100 ms only.
		rows, err := s.rows(asking, "SHOW ENGINE INNODB STATUS")
		switch {
		case err != nil || len(rows) == 0:
			return err
		case transactionsOpen(rows[0]["Status"]):
			quiet = 0
		case quiet == quietLooks:
			return nil
		}
		if err := sleep(ctx, 2*time.Millisecond); err != nil {
			return err
		}
	}
}

// quietLooks are how many looks in a row must find no transaction: one may have been about to begin when its application was told to
// begin no more.
const quietLooks = 2

// transactionsOpen reports whether a session's transaction holds locks, as whatever has written does, by the text of InnoDB's
// monitor.
func transactionsOpen(status string) bool {
	_, list, _ := strings.Cut(status, "\nLIST OF TRANSACTIONS FOR EACH SESSION:")
	for i, t := range strings.Split(list, "\n---TRANSACTION ") {
		first, rest, _ := strings.Cut(t, "\n")
		if i > 0 && strings.Contains(first, ", ACTIVE") && strings.Contains(rest, " lock struct(s)") && !strings.HasPrefix(rest, "0 lock ") &&
			strings.Contains(rest, " thread id ") {
			return true
		}
	}
	return false
}
