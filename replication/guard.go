package replication

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
)

// ErrOvertaken: the member has been claimed under a later lease.
var ErrOvertaken = errors.New("another Manager has a later lease")

// Guard is what an [Engine] may have besides. With it a [Manager] that [Manager.RunUnder] runs under a lease changes nothing
// any more once another one has begun under a later lease, however late it notices: its process may have stood still.
type Guard interface {
	// Claim makes the member refuse, as ErrOvertaken, whatever is to change it with a Member.Token that is lower than this
	// one's and not 0, for ever: the member keeps the token on its disk, and hands it on to nobody. It is ErrOvertaken if the
	// member has been claimed with a higher token, and then changes nothing. Engine.Promote claims too.
	//
	// A member that has nothing in common with the others is not claimed.
	Claim(ctx context.Context, m Member) error
}

// claim claims a member, and reports whether it need not be tried again.
func (m *Manager) claim(ctx context.Context, g Guard, member Member) (done bool) {
	bounded, cancel := context.WithTimeout(ctx, 2*m.config.Timeout)
	err := g.Claim(bounded, member)
	cancel()
	if ctx.Err() != nil {
		return false
	}
	done = err == nil || errors.Is(err, errors.ErrUnsupported)
	m.mu.Lock()
	defer m.mu.Unlock()
	if errors.Is(err, ErrOvertaken) {
		m.stop(fmt.Errorf("claiming %s: %w", member.ID, err))
	}
	if f := m.state.find(keyOf(member)); f != nil && !errors.Is(err, ErrUnreachable) {
		f.claimed, f.refuses = true, !done
		if done {
			f.settled = m.state.tick() // what was seen before may have been changed until now
		}
	}
	m.ring()
	return done
}

// mayClaim reports whether a member is to be claimed now, or else whether that shows when all that answer have been looked at. One that
// may be of another set is not: that set's Manager would be overtaken.
func (m *Manager) mayClaim(member Member) (may, open bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, g := range m.state.members {
		if g.misses == 0 && g.fault == nil && g.good.ended == 0 {
			return false, true
		}
	}
	f := m.state.find(keyOf(member))
	return f != nil && !m.strange(f), false
}

// strange reports whether a member has nothing in common with another one, and neither is nor follows the primary that is known: it is
// not promoted as it is.
func (m *Manager) strange(f *fact) bool {
	d := &decider{state: m.state, c: &m.config}
	mine := f.status()
	if f.good.ended == 0 || mine.Empty || d.kin[keyOf(f.Member)] {
		return false
	}
	return slices.ContainsFunc(d.members, func(g *fact) bool {
		data := !g.status().Empty || keyOf(g.Member) == d.primary
		return g != f && g.good.ended > 0 && data && !d.related(mine.Received, g.status().Received)
	})
}

// refusing gives the members that answer and have not let themselves be claimed.
func (m *Manager) refusing() (members []Member) {
	for _, f := range m.state.members {
		if f.misses == 0 && f.refuses {
			members = append(members, m.marked(f.Member))
		}
	}
	return members
}

// claimAgain claims members once more before another one is promoted: whoever stood still while these were claimed in vain may be
// about to promote one of them. It is an error if one lets itself be claimed now, since what it is has to be looked at first.
func (m *Manager) claimAgain(ctx context.Context, members []Member) error {
	errs := make([]error, len(members))
	var tasks sync.WaitGroup
	for i, member := range members {
		tasks.Go(func() {
			if m.claim(ctx, m.config.Engine.(Guard), member) {
				errs[i] = fmt.Errorf("%s lets itself be claimed only now, and is looked at first", member.ID)
			}
		})
	}
	tasks.Wait()
	return errors.Join(errs...)
}

// marked is the member as the Engine gets it.
func (m *Manager) marked(member Member) Member {
	member.Token = m.token
	return member
}
