package ec2

import (
	"context"
	"sync"
	"time"
)

// keep is how long what was made is remembered. Nothing depends on memory, which another process has not; it serves to
// tell what is new from what is gone.
const keep = 10 * time.Minute

// memory is what a Cloud has lately made.
type memory struct {
	lag time.Duration

	mu     sync.Mutex
	tokens map[string]*token
	made   map[string]time.Time // by ID
	swept  time.Time
}

// token is what became of the calls with one token. Its fields belong to whoever holds it.
type token struct {
	held  chan struct{}
	users int // under memory.mu
	used  time.Time

	thing    any       // what a call made
	doubtful time.Time // when a call was of unknown outcome
}

// hold waits until no other call has the token, and takes it.
func (m *memory) hold(ctx context.Context, op, key string) (t *token, release func(), err error) {
	key = op + " " + key
	m.mu.Lock()
	m.sweep()
	t = m.tokens[key]
	if t == nil {
		t = &token{held: make(chan struct{}, 1)}
		m.tokens[key] = t
	}
	t.users++
	m.mu.Unlock()
	leave := func() {
		m.mu.Lock()
		defer m.mu.Unlock()
		t.users--
		t.used = time.Now()
	}
	select {
	case t.held <- struct{}{}:
		return t, func() { <-t.held; leave() }, nil
	case <-ctx.Done():
		leave()
		return nil, nil, ctx.Err()
	}
}

// sweep forgets what is old, once a minute at most.
func (m *memory) sweep() {
	now := time.Now()
	if now.Sub(m.swept) < time.Minute {
		return
	}
	m.swept = now
	for k, t := range m.tokens {
		if t.users == 0 && now.Sub(t.used) > keep+m.lag {
			delete(m.tokens, k)
		}
	}
	for id, at := range m.made {
		if now.Sub(at) > keep+m.lag {
			delete(m.made, id)
		}
	}
}

// note remembers that a thing has just been made. One that is made again by its token does not become younger.
func (m *memory) note(id string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.sweep()
	if _, known := m.made[id]; !known {
		m.made[id] = time.Now()
	}
}

// forget is for what has been ended.
func (m *memory) forget(id string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.made, id)
}

// young reports whether a thing was made so lately that it may not be shown yet, and how long ago.
func (m *memory) young(id string) (time.Duration, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	at, known := m.made[id]
	since := time.Since(at)
	return since, known && since < m.lag
}

// left is how long lists may still be late with what happened then.
func (m *memory) left(at time.Time) time.Duration { return m.lag - time.Since(at) }
