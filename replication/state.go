package replication

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
)

// key names one server for good: a machine replaced in its slot has another key.
type key struct{ id, addr, machine string }

func keyOf(m Member) key { return key{m.ID, m.Addr, m.Machine} }

// look is one look at a member that has ended. Began and ended are ticks of state.clock, which order looks and steps also
// where the time is the same.
type look struct {
	began, ended uint64
	at           time.Time // when it ended
	status       Status
	err          error
}

// fact is what is known of one member.
type fact struct {
	Member
	good, before look // the newest look that was answered, and the one before it

	misses    int       // how many looks in a row were met with silence or refused
	missing   uint64    // when the first of them had ended
	missingAt time.Time // the same
	back      uint64    // when it answered again after that
	refused   bool      // the newest look was refused
	refusing  bool      // all of the looks that were missed were refused
	stalled   bool      // the newest look was answered, and commits do not end there
	fault     error     // the newest look was answered with this error

	settled  uint64    // looks that began before are out of date: a step has ended then
	running  *Step     // under way now
	against  key       // the server that running.Other is
	withdrew bool      // it has been withdrawn
	drained  bool      // a drain has succeeded, and it has not received since
	told     key       // whom it was told to follow last
	claimed  bool      // see Guard, or it does not let itself be claimed
	joined   bool      // it has been seen to receive from the primary, itself or through another member
	diverged bool      // Engine.Follow said so
	saved    Position  // its transactions up to here that the primary lacks have been saved
	file     string    // where; empty if they have not
	stays    string    // why Rewinder.Rewind has failed, if it did
	fell     int       // so many times in a row it fell silent while it was told to follow
	fellAt   time.Time // the last time
	ended    bool      // it has refused connections since it took writes: it takes none when it has started again
	stopped  bool      // Member.Fence has succeeded, and it has not answered since
	deaf     time.Time // since when it follows somebody and does not receive; zero if it does
	idle     time.Time // since when it follows somebody and does not receive or does not apply
	progress Progress  // of the step that is under way
	waits    time.Time // since when commits have waited for an acknowledgement and nothing else has been written
	current  time.Time // up to when it was known to have applied everything
	errant   uint64    // so many transactions were written to it while it followed the primary
	counted  Position  // a surplus up to here has been reported
	lastErr  error     // why the newest look failed, if it did
	trouble  string    // why its last step failed
}

// answers reports whether the newest look says what the member is.
func (f *fact) answers() bool {
	return f.misses == 0 && f.fault == nil && f.good.ended > 0 && f.good.began >= f.settled
}

// status is what the member said last.
func (f *fact) status() *Status { return &f.good.status }

// state is all that a decision is made from. It is plain data but for the members' Fence.
type state struct {
	clock    uint64    // counts looks and steps
	started  time.Time // when the Manager began to look
	members  []*fact   // sorted by ID
	expected int
	faults   []string // what was wrong with the members that were given
	soon     bool     // writers wait for the next looks

	primary  key      // the server that was known to be primary last
	position Position // how far it was at the last look
	data     bool     // the set has had data
	sync     semisync // whether its acknowledgements were those of a replica too
	// followers are the servers that may have acknowledged transactions of the primary, also such as are members no more.
	followers map[key]bool
	doubts    map[key]doubt

	ended map[string]bool // machines that do nothing any more, says their provider

	published key  // the server that was published as primary last
	shown     bool // it still is

	heir       key // a server that Engine.Promote has been called for, until it is known what came of it
	draft      *Verdict
	former     map[key]bool // servers that were primaries, and have not followed a later one yet
	kin        map[key]bool // servers that were primaries or followed one
	recoveries []time.Time  // the latest unplanned promotions
	tries      map[try]tried
	request    *request
	shelf      shelf
	relieved   time.Time // when the Manager last began a switchover by itself
	verdict    *Verdict
}

// semisync is what is known of the primary's acknowledgements.
type semisync struct {
	on   bool     // at the last look
	mark Position // has whatever the primary had before it was on; what it acknowledged since is on a replica too
}

// doubt is about a follower that has been lost sight of, or has started again: it may have been the only one to
// acknowledge some transactions, and may have lost them. Whoever has the mark has them all.
type doubt struct {
	since  uint64
	marked bool
	mark   Position // how far the primary was at a later look
}

// try names a step that may be tried again.
type try struct {
	member key
	kind   StepKind
	other  string
}

// tried is how often, and when it may be tried again.
type tried struct {
	times int
	until time.Time
	fail  bool // the last time failed
}

// stuck is how often a step may fail before there must be another way.
const stuck = 3

// isStuck reports whether a step of this kind keeps failing on the member.
func (s *state) isStuck(f *fact, kind StepKind) bool {
	t := s.tries[try{keyOf(f.Member), kind, ""}]
	return t.fail && t.times >= stuck
}

// request is a switchover that somebody waits for, or that the Manager has begun by itself.
type request struct {
	to    string // empty until a candidate has been chosen, if the caller leaves it open
	from  key    // the primary that was fenced for it
	began time.Time
	done  chan<- error // nil if nobody waits
}

func (r *request) answer(err error) {
	if r.done != nil {
		r.done <- err
	}
}

// hand notes that a primary is being fenced for a switchover.
func (s *state) hand(from *fact, to string, now time.Time) {
	if s.request == nil {
		s.request, s.relieved = &request{began: now}, now
	}
	s.request.to, s.request.from = to, keyOf(from.Member)
}

func newState() *state {
	return &state{
		followers: map[key]bool{},
		doubts:    map[key]doubt{},
		former:    map[key]bool{},
		kin:       map[key]bool{},
		tries:     map[try]tried{},
		ended:     map[string]bool{},
	}
}

func (s *state) tick() uint64 {
	s.clock++
	return s.clock
}

func (s *state) clone() *state {
	c := *s
	c.members = nil
	for _, f := range s.members {
		g := *f
		if g.running != nil {
			r := *g.running
			g.running = &r
		}
		c.members = append(c.members, &g)
	}
	c.followers, c.doubts = maps.Clone(s.followers), maps.Clone(s.doubts)
	c.former, c.kin, c.tries = maps.Clone(s.former), maps.Clone(s.kin), maps.Clone(s.tries)
	c.recoveries = slices.Clone(s.recoveries)
	c.ended = maps.Clone(s.ended)
	if s.request != nil {
		r := *s.request
		c.request = &r
	}
	return &c
}

func (s *state) find(k key) *fact {
	for _, f := range s.members {
		if keyOf(f.Member) == k {
			return f
		}
	}
	return nil
}

func (s *state) byID(id string) *fact {
	for _, f := range s.members {
		if f.ID == id {
			return f
		}
	}
	return nil
}

func (s *state) down(f *fact, c *Config) bool {
	return f.misses >= c.Misses || f.misses > 0 && s.ended[f.Machine]
}

// underWay reports whether the step is what runs on the member, with the same other server.
func (s *state) underWay(f *fact, step Step) bool {
	if f.running == nil || !same(step, *f.running) {
		return false
	}
	other := s.byID(step.Other)
	return step.Other == "" || other != nil && keyOf(other.Member) == f.against
}

func (s *state) byAddr(addr string) *fact {
	for _, f := range s.members {
		if f.Addr == addr {
			return f
		}
	}
	return nil
}

// setMembers takes over who is there.
func (s *state) setMembers(members []Member, expected int) {
	old := s.members
	s.members, s.faults = nil, nil
	members = slices.SortedFunc(slices.Values(members), func(a, b Member) int { return strings.Compare(a.ID, b.ID) })
	for i, m := range members {
		switch {
		case m.ID == "" || m.Addr == "":
			s.faults = append(s.faults, fmt.Sprintf("member %d has the ID %q and the Addr %q, want both: it is left out", i, m.ID, m.Addr))
			continue
		case s.byID(m.ID) != nil:
			s.faults = append(s.faults, fmt.Sprintf("two members have the ID %q: the one at %s is left out", m.ID, m.Addr))
			continue
		case s.byAddr(m.Addr) != nil:
			s.faults = append(s.faults, fmt.Sprintf("two members have the Addr %s: %s is left out", m.Addr, m.ID))
			continue
		}
		f := &fact{Member: m}
		for _, g := range old {
			if keyOf(g.Member) == keyOf(m) {
				f, g.Member = g, m
			}
		}
		s.members = append(s.members, f)
	}
	s.expected = max(expected, len(s.members))
	for k := range s.followers {
		if _, known := s.doubts[k]; !known && s.find(k) == nil {
			s.doubts[k] = doubt{since: s.tick()}
		}
	}
}

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
		f.refusing = f.refusing && f.refused
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
	if st.Writable || st.Source != "" && st.Receives && st.Applies {
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
		s.primary, s.sync = k, semisync{}
	}
	if s.heir == k {
		s.sync = semisync{}
	}
	s.learnSync(f.good)
	s.heir = key{}
	s.position = f.status().Applied
	s.kin[k] = true
	clear(s.followers)
	clear(s.doubts)
	for _, g := range s.members {
		g.joined = false
		if g != f && (g.told == k || g.good.ended > 0 && g.status().Source == f.Addr) {
			s.followers[keyOf(g.Member)] = true
		}
	}
}

// silent reports whether an error says that the server did not answer.
func silent(err error) bool { return errors.Is(err, ErrUnreachable) || errors.Is(err, ErrHung) }
