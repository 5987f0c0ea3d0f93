package pool

import (
	"context"
	"database/sql/driver"
	"slices"
	"sync"
	"time"

	"github.com/scalr-go/scalr/replication"
)

// Session lets reads see the writes that were made with it. Put it into the context of both, one for each user, request or
// test, whose reads must not go back in time. It is safe for concurrent use.
type Session struct {
	mu     sync.Mutex
	token  replication.Position
	writes uint64 // how many there were
	known  uint64 // how many of them the token has
}

// NewSession makes a session whose reads see everything up to the token of an earlier one; "" begins anew.
func NewSession(token string) *Session { return &Session{token: replication.Position(token)} }

type sessionKey struct{}

// WithSession gives a context whose statements belong to the session.
func WithSession(ctx context.Context, s *Session) context.Context {
	return context.WithValue(ctx, sessionKey{}, s)
}

func sessionOf(ctx context.Context) *Session {
	s, _ := ctx.Value(sessionKey{}).(*Session)
	return s
}

// wrote notes that something was written, or may have been.
func (s *Session) wrote() {
	if s == nil {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.writes++
}

// Token gives the position that the session's reads must have seen, as text for [NewSession] in another process. It asks
// the primary if something was written since it was last known.
func (s *Session) Token(ctx context.Context, db *DB) (string, error) {
	p, err := s.need(ctx, db)
	return string(p), err
}

func (s *Session) need(ctx context.Context, db *DB) (replication.Position, error) {
	if s == nil {
		return "", nil
	}
	s.mu.Lock()
	token, writes, known := s.token, s.writes, s.known
	s.mu.Unlock()
	if known >= writes {
		return token, nil
	}
	p, err := db.primaryPosition(ctx)
	if err != nil {
		return "", err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.known = max(s.known, writes)
	if s.token == "" || !db.config.Driver.Contains(s.token, p) {
		s.token = p
	}
	return s.token, nil
}

// primaryPosition asks the primary how far it is.
func (db *DB) primaryPosition(ctx context.Context) (p replication.Position, err error) {
	err = db.onPrimary(ctx, func(c driver.Conn) error {
		bounded, cancel := context.WithTimeout(ctx, db.config.Timeout)
		defer cancel()
		p, err = db.config.Driver.Position(bounded, c, true)
		return err
	})
	return p, err
}

// onPrimary lends a connection to the primary. A loss is tried again: what is done with it is to have no effect.
func (db *DB) onPrimary(ctx context.Context, do func(driver.Conn) error) error {
	ctx, cancel := context.WithTimeoutCause(ctx, db.config.Wait, replication.ErrNoPrimary)
	defer cancel()
	for {
		c, err := db.control.Conn(ctx)
		if err != nil {
			return err
		}
		err = c.Raw(func(raw any) error {
			w := raw.(*conn)
			err := do(w.inner)
			if err != nil {
				w.spoilt = true
				return driver.ErrBadConn
			}
			return nil
		})
		c.Close()
		if err == nil {
			return nil
		}
		if err := wait(ctx, nil, 5*time.Millisecond); err != nil {
			return err
		}
	}
}

// samples are positions of the primary, and when it had them: a replica that has one is no older than that.
type samples struct {
	asking sync.Mutex
	mu     sync.Mutex
	list   []sample // oldest first
}

type sample struct {
	at time.Time
	p  replication.Position
}

func (s *samples) all() []sample {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.list)
}

// replica is what a connection to one has learnt of it. A server that loses its data ends its sessions first.
type replica struct {
	applied replication.Position // it shows at least this
	fresh   time.Time            // and all that the primary had then
	has     bool                 // it has data
}

// reached reports whether the replica shows everything up to p, and waits a moment for it.
func (c *conn) reached(ctx context.Context, p replication.Position) (bool, error) {
	config := &c.db.config
	if p == "" || c.seen.applied != "" && config.Driver.Contains(c.seen.applied, p) {
		return true, nil
	}
	bounded, cancel := context.WithTimeout(ctx, config.Catch+config.Timeout)
	defer cancel()
	ok, err := config.Driver.Await(bounded, c.inner, p, config.Catch)
	if ok && err == nil {
		c.seen.applied = p
	}
	return ok, err
}

// closeEnough reports whether the replica is within Config.MaxLag. Without a primary nobody can tell, and it is if it has data.
func (c *conn) closeEnough(ctx context.Context) (bool, error) {
	config := &c.db.config
	if time.Since(c.seen.fresh) <= config.MaxLag*3/4 {
		return true, nil
	}
	if !c.db.sample(ctx) {
		return c.hasData(ctx)
	}
	bounded, cancel := context.WithTimeout(ctx, config.Timeout)
	defer cancel()
	p, err := config.Driver.Position(bounded, c.inner, false)
	if err != nil {
		return false, err
	}
	for _, s := range slices.Backward(c.db.samples.all()) {
		if config.Driver.Contains(p, s.p) {
			if s.at.After(c.seen.fresh) {
				c.seen.fresh = s.at
			}
			break
		}
	}
	return time.Since(c.seen.fresh) <= config.MaxLag, nil
}

// hasData reports whether the replica has anything, if there is anything to have as far as is known. One that has nothing is about to
// get its data.
func (c *conn) hasData(ctx context.Context) (bool, error) {
	config := &c.db.config
	nothing := func(p replication.Position) bool { return config.Driver.Contains("", p) }
	if list := c.db.samples.all(); c.seen.has || len(list) == 0 || nothing(list[len(list)-1].p) {
		return true, nil
	}
	bounded, cancel := context.WithTimeout(ctx, config.Timeout)
	defer cancel()
	for _, primary := range []bool{false, true} { // one that has been the primary need not have followed anybody
		p, err := config.Driver.Position(bounded, c.inner, primary)
		if err != nil {
			return false, err
		}
		if !nothing(p) {
			c.seen.has = true
			return true, nil
		}
	}
	c.spoilt = true // another replica may serve the next read
	return false, nil
}

// sample makes sure that there is a recent position of the primary, and reports whether there is.
func (db *DB) sample(ctx context.Context) bool {
	recent := func() bool {
		db.samples.mu.Lock()
		defer db.samples.mu.Unlock()
		n := len(db.samples.list)
		return n > 0 && time.Since(db.samples.list[n-1].at) < db.config.MaxLag/8
	}
	if recent() {
		return true
	}
	if db.view.look(ctx, time.Now().Add(-db.config.Interval)).primary == "" {
		return false
	}
	db.samples.asking.Lock()
	defer db.samples.asking.Unlock()
	if recent() {
		return true
	}
	at := time.Now()
	bounded, cancel := context.WithTimeout(ctx, db.config.Timeout)
	defer cancel()
	p, err := db.primaryPosition(bounded)
	if err != nil {
		return false
	}
	db.samples.mu.Lock()
	defer db.samples.mu.Unlock()
	db.samples.list = append(db.samples.list, sample{at, p})
	db.samples.list = db.samples.list[max(0, len(db.samples.list)-16):]
	return true
}
