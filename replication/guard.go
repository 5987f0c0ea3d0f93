package replication

import (
	"context"
	"errors"
	"fmt"
)

// ErrOvertaken: the member has been claimed under a later lease.
var ErrOvertaken = errors.New("another Manager has a later lease")

// Guard is what an [Engine] may have besides. With it a [Manager] that [Manager.RunUnder] runs under a lease changes nothing
// any more once another one has begun under a later lease, however late it notices: its process may have stood still.
type Guard interface {
	// Claim makes the member refuse, as ErrOvertaken, whatever is to change it with a Member.Token that is lower than this
	// one's and not 0, for ever: the member keeps the token on its disk, and hands it on to nobody. It is ErrOvertaken if the
	// member has been claimed with a higher token, and then changes nothing. Engine.Promote claims too.
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
		f.claimed = true
		if done {
			f.settled = m.state.tick() // what was seen before may have been changed until now
		}
	}
	m.ring()
	return done
}

// marked is the member as the Engine gets it.
func (m *Manager) marked(member Member) Member {
	member.Token = m.token
	return member
}
