package cronlock

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"
)

// Memory is a Locker and a Claimer within one process, for tests and for programs that run alone. The zero value is ready to use; it
// must not be copied. Waiters are served strictly in the order in which they came. It is not re-entrant: work that holds
// the name it holds already waits for itself.
//
// A lease in memory never ends by itself. [Memory.Expire] ends one, so that a test sees what its work does then.
type Memory struct {
	mu    sync.Mutex
	token uint64 // of the latest grant of any name, which makes the tokens of each name rise
	locks map[string]*memoryLock

	joined int // runners so far
	jobs   map[string]*memoryJob
}

var _ Locker = (*Memory)(nil)

// memoryLock is a name that is held. A name that is free has none, so that names cost nothing after their use.
type memoryLock struct {
	holder *memoryClaim
	queue  []*memoryClaim
}

// memoryClaim is one call of Hold or TryHold.
type memoryClaim struct {
	granted chan struct{} // closed when the claim has become the holder
	lease   Lease         // set before granted is closed
	lose    context.CancelCauseFunc
	lost    bool // guarded by Memory.mu
}

// Hold implements Locker.
func (m *Memory) Hold(ctx context.Context, name string, work func(context.Context, Lease) error) error {
	return m.hold(ctx, name, true, work)
}

// TryHold implements Locker.
func (m *Memory) TryHold(ctx context.Context, name string, work func(context.Context, Lease) error) error {
	return m.hold(ctx, name, false, work)
}

func (m *Memory) hold(ctx context.Context, name string, wait bool, work func(context.Context, Lease) error) (err error) {
	if err := CheckName(name); err != nil {
		return err
	}
	if work == nil {
		return fmt.Errorf("lock %s: work is nil, want a function", name)
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	// The claim can be lost from the instant of its grant, so its context exists before that.
	workCtx, lose := context.WithCancelCause(ctx)
	defer lose(nil)
	c := &memoryClaim{granted: make(chan struct{}), lose: lose}
	if !m.enter(name, c, wait) {
		return ErrHeld
	}
	// Deferred, so that the lock is free also after a panic in work or a runtime.Goexit.
	defer func() {
		if m.leave(name, c) && !errors.Is(err, ErrLost) {
			err = errors.Join(ErrLost, err)
		}
	}()
	select {
	case <-c.granted:
	case <-ctx.Done():
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if workCtx.Err() != nil {
		return ErrLost
	}
	return work(workCtx, c.lease)
}

// enter makes c the holder of a free name or, if it may wait, its last waiter.
func (m *Memory) enter(name string, c *memoryClaim, wait bool) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	l := m.locks[name]
	if l == nil {
		if m.locks == nil {
			m.locks = map[string]*memoryLock{}
		}
		m.locks[name] = &memoryLock{queue: []*memoryClaim{c}}
		m.pass(name)
		return true
	}
	if wait {
		l.queue = append(l.queue, c)
	}
	return wait
}

// leave takes c out of the lock, wherever it is, and reports whether its lease was lost.
func (m *Memory) leave(name string, c *memoryClaim) (lost bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if l := m.locks[name]; l != nil && l.holder == c {
		m.pass(name)
	} else if l != nil {
		l.queue = slices.DeleteFunc(l.queue, func(other *memoryClaim) bool { return other == c })
	}
	return c.lost
}

// pass hands the lock to its first waiter or, if there is none, makes it free.
func (m *Memory) pass(name string) {
	l := m.locks[name]
	if len(l.queue) == 0 {
		delete(m.locks, name)
		return
	}
	l.holder, l.queue = l.queue[0], l.queue[1:]
	m.token++
	l.holder.lease = Lease{Name: name, Token: m.token, Held: time.Now()}
	close(l.holder.granted)
}

// Expire makes the present holder of the name lose its lease, as a store does with a holder that is cut off: the context
// of its work is cancelled with cause [ErrLost], and then the lock passes to the first waiter, whether or not the work
// has returned. It reports whether anybody held the name. It is for tests.
func (m *Memory) Expire(name string) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	l := m.locks[name]
	if l == nil {
		return false
	}
	l.holder.lost = true
	l.holder.lose(ErrLost)
	m.pass(name)
	return true
}

// Waiting says how many calls of Hold wait for the name, its holder not counted. It is for tests.
func (m *Memory) Waiting(name string) int {
	m.mu.Lock()
	defer m.mu.Unlock()
	if l := m.locks[name]; l != nil {
		return len(l.queue)
	}
	return 0
}
