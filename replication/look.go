package replication

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"
)

// loop is the goroutine that looks at one member.
type loop struct {
	end  context.CancelFunc
	kick chan struct{} // has room for one: look at once
}

// watch starts and ends loops, so that there is one for each member.
func (m *Manager) watch(ctx context.Context, tasks *sync.WaitGroup) {
	for k, l := range m.loops {
		if m.state.find(k) == nil {
			l.end()
			delete(m.loops, k)
		}
	}
	for _, f := range m.state.members {
		if m.loops[keyOf(f.Member)] == nil {
			ctx, end := context.WithCancel(ctx)
			l := &loop{end, make(chan struct{}, 1)}
			m.loops[keyOf(f.Member)] = l
			member := m.marked(f.Member)
			tasks.Go(func() {
				defer m.config.Engine.Close(member)
				m.look(ctx, member, l)
			})
			tasks.Go(func() { m.ask(ctx, member) })
			if w, ok := m.config.Engine.(Watcher); ok {
				tasks.Go(func() { m.hold(ctx, w, member, l) })
			}
		}
	}
}

// hold lets a member be looked at as soon as a connection to it breaks.
func (m *Manager) hold(ctx context.Context, w Watcher, member Member, l *loop) {
	for ctx.Err() == nil {
		if err := w.Watch(ctx, member); ctx.Err() == nil && silent(err) {
			select {
			case l.kick <- struct{}{}:
			default:
			}
		}
		t := time.NewTimer(m.config.Interval)
		select {
		case <-t.C:
		case <-ctx.Done():
		}
		t.Stop()
	}
}

// look looks at a member until the context ends.
func (m *Manager) look(ctx context.Context, member Member, l *loop) {
	for ctx.Err() == nil {
		begin := time.Now()
		m.mu.Lock()
		v := look{began: m.state.tick(), from: begin}
		m.mu.Unlock()
		bounded, cancel := context.WithTimeout(ctx, m.config.Timeout)
		v.status, v.err = m.config.Engine.Observe(bounded, member)
		late := bounded.Err() != nil
		cancel()
		if ctx.Err() != nil {
			return
		}
		if late && v.err != nil && !silent(v.err) {
			v.err = fmt.Errorf("%w: %w", ErrHung, v.err)
		}
		t := time.NewTimer(max(m.looked(member, v)-time.Since(begin), time.Millisecond))
		select {
		case <-t.C:
		case <-l.kick:
		case <-ctx.Done():
		}
		t.Stop()
	}
}

// looked takes in a look, and gives the time from its beginning to the next one.
func (m *Manager) looked(member Member, v look) time.Duration {
	m.mu.Lock()
	defer m.mu.Unlock()
	v.ended, v.at = m.state.tick(), time.Now()
	k := keyOf(member)
	f := m.state.find(k)
	if f == nil {
		return m.config.Interval
	}
	m.state.learn(k, v, func(a, b Position) bool {
		o := m.config.Engine.Compare(a, b)
		return o == Equal || o == Ahead
	})
	if f.misses == 1 && k == m.state.primary {
		m.kick(k) // what do the others see?
	}
	m.ring()
	missed := f.misses > 0 && f.misses < m.config.Misses
	switch {
	case missed && errors.Is(v.err, ErrRefused), // a positive answer, and a quick one
		v.err == nil && m.state.soon:
		return m.config.Interval / 16
	case missed:
		return m.config.Interval / 4
	}
	return m.config.Interval
}

// kick makes all loops but one look at once.
func (m *Manager) kick(but key) {
	for k, l := range m.loops {
		if k == but {
			continue
		}
		select {
		case l.kick <- struct{}{}:
		default:
		}
	}
}
