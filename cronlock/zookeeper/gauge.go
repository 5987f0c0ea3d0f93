package zookeeper

import (
	"sync"
	"time"
)

// gauge is what is known of the clock of the ensemble's leader, which stamps writes. Time goes on from there on the monotonic clock of this
// machine, so that nothing is wrong in the meantime when the other clock of this machine is set.
type gauge struct {
	mu    sync.Mutex
	at    time.Time // on this machine; zero as long as nothing is known
	store time.Time // what the leader's clock showed then
}

// slow is a round trip that says little.
const slow = 500 * time.Millisecond

// note learns from a write that was stamped between sent and now. What says little counts only where nothing is known, or where it shows
// that what is known is wrong.
func (g *gauge) note(mtime int64, sent, now time.Time) {
	stamp, trip := time.UnixMilli(mtime), now.Sub(sent)
	g.mu.Lock()
	defer g.mu.Unlock()
	if trip > slow && !g.at.IsZero() {
		shown := g.store.Add(now.Sub(g.at)) // if what is known is right
		if !shown.Before(stamp) && !shown.After(stamp.Add(trip+time.Millisecond)) {
			return
		}
	}
	g.at, g.store = sent.Add(trip/2), stamp
}

// ahead is how far the leader's clock is ahead of this machine's, or 0 as long as nothing is known.
func (g *gauge) ahead(now time.Time) time.Duration {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.at.IsZero() {
		return 0
	}
	return g.store.Add(now.Sub(g.at)).Sub(now.Round(0))
}
