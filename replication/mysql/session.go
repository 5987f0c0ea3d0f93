package mysql

import (
	"context"
	"database/sql"
	"fmt"
	"time"
)

// session is one connection for statements that may take long: they are bounded by the context only, and [watch] ends the
// context when a server no longer answers.
type session struct {
	s    *server
	conn *sql.Conn
}

// sessions are those with one server that are closed together.
type sessions struct {
	s    *server
	db   *sql.DB
	open []*session
}

// sessions opens none yet.
func (s *server) sessions(settings map[string]string) (*sessions, error) {
	db, err := s.engine.open(s.addr, settings)
	return &sessions{s: s, db: db}, err
}

// add opens one.
func (p *sessions) add(ctx context.Context) (*session, error) {
	short, cancel := context.WithTimeout(ctx, p.s.engine.config.Timeout)
	defer cancel()
	conn, err := p.db.Conn(short)
	if err != nil {
		return nil, p.s.engine.explain(short, err)
	}
	t := &session{s: p.s, conn: conn}
	p.open = append(p.open, t)
	return t, nil
}

func (p *sessions) close() {
	for _, t := range p.open {
		t.conn.Close()
	}
	p.db.Close()
}

func (t *session) exec(ctx context.Context, statements ...string) error {
	for _, statement := range statements {
		if _, err := t.conn.ExecContext(ctx, statement); err != nil {
			return t.s.engine.explain(ctx, err)
		}
	}
	return nil
}

func (t *session) rows(ctx context.Context, statement string) ([]row, error) {
	results, err := t.results(ctx, statement)
	if err != nil {
		return nil, err
	}
	return results[0], nil
}

// results runs several statements in one round trip, and gives the rows of each that has some.
func (t *session) results(ctx context.Context, statements string) ([][]row, error) {
	results, err := queryAll(ctx, t.conn, statements)
	return results, t.s.engine.explain(ctx, err)
}

// watch gives a context that ends when one of the servers does not answer twice in a row. Stop ends the watch.
func watch(ctx context.Context, servers ...*server) (watched context.Context, stop func()) {
	watched, cancel := context.WithCancelCause(ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		misses := map[*server]int{}
		for sleep(watched, time.Second) == nil {
			for _, s := range servers {
				err := s.exec(watched, "DO 1")
				if misses[s]++; err == nil {
					misses[s] = 0
				}
				if misses[s] == 2 {
					cancel(fmt.Errorf("%s: %w", s.addr, err))
				}
			}
		}
	}()
	return watched, func() { cancel(nil); <-done }
}
