package memcached

import "time"

// outcome is what a call says about its server.
type outcome int

const (
	answered outcome = iota // the server answered, whatever it said
	failed                  // the server did not answer within the time that Options give it, or took no connection
	hurried                 // it did not answer before the caller's own, shorter deadline
	stale                   // an unused connection was dead, which says nothing about the server now
	abandons                // the caller has cancelled
)

const (
	firstPause = 500 * time.Millisecond
	maxPause   = 5 * time.Second
	// maxHurried is how many calls in a row may end at their own deadlines before the server is taken to have failed. One
	// says little, since the deadline may have been unreasonable.
	maxHurried = 3
)

// breaker decides when to ask a server that failed. It is pure: the time is an argument.
type breaker struct {
	open    bool
	pause   time.Duration // the current one
	until   time.Time     // when it ends
	trying  bool          // one call tries the server now
	hurried int           // in a row
	cause   error         // of the latest failure
}

// enter reports whether a call may ask the server, and whether it is the one that tries a server that failed.
func (b *breaker) enter(now time.Time) (ok, trial bool) {
	if !b.open {
		return true, false
	}
	if b.trying || now.Before(b.until) {
		return false, false
	}
	b.trying = true
	return true, true
}

// leave takes the outcome of a call that was let in.
func (b *breaker) leave(now time.Time, trial bool, o outcome, cause error) {
	if trial {
		b.trying = false
	}
	if o == hurried {
		if b.hurried++; b.open && trial || b.hurried >= maxHurried {
			o = failed
		}
	}
	switch {
	case o == answered:
		*b = breaker{trying: b.trying}
	case o == failed && (trial || !b.open):
		b.pause = min(max(2*b.pause, firstPause), maxPause)
		b.open, b.until, b.cause, b.hurried = true, now.Add(b.pause), cause, 0
	}
}
