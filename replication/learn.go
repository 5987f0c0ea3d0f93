package replication

import (
	"errors"
	"time"
)

// learn takes in a look at a member.
func (s *state) learn(k key, l look, contains func(a, b Position) bool) {
	f := s.find(k)
	if f == nil {
		return
	}
	switch {
	case silent(l.err):
		if f.misses == 0 {
			f.missing, f.missingAt, f.refusing = l.ended, l.at, true
			if _, known := s.doubts[k]; !known && s.followers[k] {
				s.doubts[k] = doubt{since: l.ended}
			}
		}
		f.misses++
		f.lastErr = l.err
		f.refused = errors.Is(l.err, ErrRefused)
		if f.refused && !f.refusing && s.followers[k] { // until now it may have acknowledged
			s.doubts[k] = doubt{since: l.ended}
		}
		f.refusing = f.refused
		f.stalled = errors.Is(l.err, ErrStalled)
		f.ended = f.ended || f.refused
		f.fault = nil
		return
	case l.began < f.settled:
		return // it saw the member before or while a step changed it
	case l.err != nil:
		f.misses, f.refused, f.stalled, f.fault, f.stopped = 0, false, false, l.err, false
		return
	}
	if l.status.Source != "" && !l.status.Writable && s.relayOf(f) == nil { // a relay's own lag comes on top
		l.status.Lag = max(l.status.Lag, s.behind(l, contains))
	}
	s.trust(k, f, l, contains)
	f.before, f.good = f.good, l
	if f.before.status.Server != l.status.Server {
		f.before, f.diverged, f.errant, f.counted = look{}, false, 0, ""
		f.saved, f.file, f.stays = "", "", ""
	}
	if f.misses > 0 {
		f.back = l.ended
	}
	f.misses, f.refused, f.stalled, f.fault, f.stopped = 0, false, false, nil, false
	st := &l.status
	f.ended = f.ended && !st.Writable
	since(&f.waits, l.at, st.Unacked > 0 && f.before.status.Unacked > 0 && st.Applied == f.before.status.Applied)
	since(&f.deaf, l.at, st.Source != "" && !st.Receives)
	since(&f.idle, l.at, st.Source != "" && !(st.Receives && st.Applies))
	if st.Receives {
		f.drained = false
	}
	if f.entry != "" && contains(st.Applied, f.entry) {
		f.entry = ""
	}
	// What has received nothing yet does not know how far behind it is, and servers call that not behind, or hardly.
	if st.Writable || st.Source != "" && st.Receives && st.Applies && f.entry == "" {
		f.current = l.at.Add(-st.Lag)
		if g := s.relayOf(f); g != nil && g.current.Before(l.at) {
			f.current = g.current.Add(-st.Lag)
		}
	}
	if k == s.heir && st.Writable {
		s.crown(f)
	} else if k == s.heir && f.running == nil {
		s.heir = key{} // the promotion has not taken place
	}
	if k == s.primary && st.Writable {
		s.learnPrimary(l)
	}
	if p := s.primary; p.addr != "" && st.Source == p.addr {
		s.followers[k], s.kin[k] = true, true
		if st.Receives {
			f.joined = true
			delete(s.former, k)
		}
	} else if g := s.relayOf(f); g != nil && g.joined && g.status().Source == p.addr && st.Receives {
		f.joined, s.kin[k] = true, true // the one between was accepted by the primary, and has accepted this one
		delete(s.former, k)
	}
}

// since keeps the time at which a condition began to hold.
func since(t *time.Time, now time.Time, holds bool) {
	switch {
	case !holds:
		*t = time.Time{}
	case t.IsZero():
		*t = now
	}
}

// trust decides whether a follower that answers still has what it had.
func (s *state) trust(k key, f *fact, l look, contains func(a, b Position) bool) {
	restarted := f.misses > 0
	if up := l.status.Uptime; up > 0 {
		restarted = l.at.Add(-up).After(f.good.at)
	}
	if restarted {
		f.leaks = nil
	}
	d, doubted := s.doubts[k]
	switch {
	case doubted && (!restarted && !d.again(f) || d.marked && contains(l.status.Received, d.mark)):
		delete(s.doubts, k)
	case !doubted && restarted && f.good.ended > 0 && s.followers[k]:
		s.doubts[k] = doubt{since: l.ended}
	}
}

// again reports whether the doubt is older than the newest answer: the member had started again by then.
func (d doubt) again(f *fact) bool { return d.since <= f.good.ended }

// learnPrimary takes in what the primary says of itself.
func (s *state) learnPrimary(l look) {
	st := &l.status
	s.position = st.Applied
	s.track(l.from, st.Applied)
	s.data = s.data || !st.Empty
	s.learnSync(l)
	for k, d := range s.doubts {
		if !d.marked && l.began > d.since {
			s.doubts[k] = doubt{d.since, true, st.Applied}
		}
	}
}

// learnSync takes in whether the primary's commits wait for a replica.
func (s *state) learnSync(l look) {
	switch {
	case !l.status.SemiSync:
		s.sync = semisync{}
	case !s.sync.on:
		s.sync = semisync{true, l.status.Applied}
	}
}

// crown makes the member to the primary that is known.
func (s *state) crown(f *fact) {
	k := keyOf(f.Member)
	if s.primary != k {
		if s.primary != (key{}) {
			s.former[s.primary] = true
		}
		delete(s.former, k)
		s.primary, s.found, s.sync = k, s.heir != k, semisync{}
	}
	if s.heir == k {
		s.sync = semisync{}
	}
	s.learnSync(f.good)
	s.heir = key{}
	f.errant = 0 // what it has is the set's now
	s.position, s.trail = f.status().Applied, nil
	s.kin[k] = true
	for _, g := range s.members {
		g.entry = "" // the one before may have taken it along
	}
	clear(s.followers)
	clear(s.doubts)
	for _, g := range s.members {
		g.joined = false
		switch {
		case g == f:
		case g.good.ended == 0: // it may have followed all the time, without being seen
			s.followers[keyOf(g.Member)], s.doubts[keyOf(g.Member)] = true, doubt{since: s.tick()}
		case g.told == k || g.status().Source == f.Addr:
			s.followers[keyOf(g.Member)] = true
		}
	}
}

// silent reports whether an error says that the server did not answer.
func silent(err error) bool { return errors.Is(err, ErrUnreachable) || errors.Is(err, ErrHung) }
