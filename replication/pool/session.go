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

// servers is what is known of replicas, by address.
type servers struct {
	mu   sync.Mutex
	byID map[string]*replica
}

type replica struct {
	applied replication.Position // it shows at least this
	fresh   time.Time            // and all that the primary had then
}

func (s *servers) reset(addr string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.byID, addr)
}

func (s *servers) get(addr string) replica {
	s.mu.Lock()
	defer s.mu.Unlock()
	if r := s.byID[addr]; r != nil {
		return *r
	}
	return replica{}
}

func (s *servers) set(addr string, change func(*replica)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.byID == nil {
		s.byID = map[string]*replica{}
	}
	if s.byID[addr] == nil {
		s.byID[addr] = &replica{}
	}
	change(s.byID[addr])
}

// reached reports whether the replica shows everything up to p, and waits a moment for it.
func (db *DB) reached(ctx context.Context, on physical, p replication.Position) (bool, error) {
	if p == "" {
		return true, nil
	}
	if known := db.servers.get(on.addr).applied; known != "" && db.config.Driver.Contains(known, p) {
		return true, nil
	}
	bounded, cancel := context.WithTimeout(ctx, db.config.Catch+db.config.Timeout)
	defer cancel()
	ok, err := db.config.Driver.Await(bounded, on.inner, p, db.config.Catch)
	if ok && err == nil {
		db.servers.set(on.addr, func(r *replica) { r.applied = p })
	}
	return ok, err
}

// closeEnough reports whether the replica is within Config.MaxLag. Without a primary nobody can tell, and it is.
func (db *DB) closeEnough(ctx context.Context, on physical) (bool, error) {
	enough := func(r replica) bool { return time.Since(r.fresh) <= db.config.MaxLag*3/4 }
	if enough(db.servers.get(on.addr)) {
		return true, nil
	}
	if !db.sample(ctx) {
		return true, nil
	}
	bounded, cancel := context.WithTimeout(ctx, db.config.Timeout)
	defer cancel()
	p, err := db.config.Driver.Position(bounded, on.inner, false)
	if err != nil {
		return false, err
	}
	db.samples.mu.Lock()
	list := slices.Clone(db.samples.list)
	db.samples.mu.Unlock()
	var fresh time.Time
	for _, s := range slices.Backward(list) {
		if db.config.Driver.Contains(p, s.p) {
			fresh = s.at
			break
		}
	}
	db.servers.set(on.addr, func(r *replica) {
		if fresh.After(r.fresh) {
			r.fresh = fresh
		}
	})
	return time.Since(db.servers.get(on.addr).fresh) <= db.config.MaxLag, nil
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
