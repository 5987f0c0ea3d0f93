package replication

import (
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
	from, at     time.Time // when it began and ended
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

	settled  uint64        // looks that began before are out of date: a step has ended then
	running  *Step         // under way now
	against  key           // the server that running.Other is
	withdrew bool          // it has been withdrawn
	drained  bool          // a drain has succeeded, and it has not received since
	told     key           // whom it was told to follow last
	claimed  bool          // see Guard, or it does not let itself be claimed
	refuses  bool          // it has not let itself be claimed when that was tried last
	recalled bool          // it has said what it keeps: see Recorder
	keeps    string        // the record that it is known to keep
	keepless bool          // it keeps none
	keeping  chan struct{} // open while it is being made to keep one; nil otherwise
	keptAt   time.Time     // when that failed last
	unkept   error         // why
	joined   bool          // it has been seen to receive from the primary, itself or through another member
	diverged bool          // Engine.Follow said so
	saved    Position      // its transactions up to here that the primary lacks have been saved
	file     string        // where; empty if they have not
	stays    string        // why Rewinder.Rewind has failed, if it did
	fell     int           // so many times in a row it fell silent while it was told to follow
	fellAt   time.Time     // the last time
	ended    bool          // it has refused connections since it took writes: it takes none when it has started again
	stopped  bool          // Member.Fence has succeeded, and it has not answered since
	leaks    error         // of Engine.Fence: it takes no writes but some; nil once it has been fenced, or has started again
	deaf     time.Time     // since when it follows somebody and does not receive; zero if it does
	idle     time.Time     // since when it follows somebody and does not receive or does not apply
	progress Progress      // of the step that is under way
	waits    time.Time     // since when commits have waited for an acknowledgement and nothing else has been written
	current  time.Time     // up to when it was known to have applied everything
	entry    Position      // how far the primary was when it was told to follow it, until it has that
	errant   uint64        // so many transactions were written to it while it followed the primary, and are there still
	counted  Position      // a surplus up to here has been reported
	lastErr  error         // why the newest look failed, if it did
	trouble  string        // why its last step failed
}

// answers reports whether the newest look says what the member is.
func (f *fact) answers() bool {
	return f.misses == 0 && f.fault == nil && f.good.ended > 0 && f.good.began >= f.settled
}

// delay is how much later than it could the member applies, or is to.
func (f *fact) delay() time.Duration { return max(f.Delay, f.status().Delay) }

// status is what the member said last.
func (f *fact) status() *Status { return &f.good.status }

// state is all that a decision is made from. It is plain data but for the members' Fence.
type state struct {
	set      string    // Config.Name
	clock    uint64    // counts looks and steps
	started  time.Time // when the Manager began to look
	members  []*fact   // sorted by ID
	expected int
	faults   []string // what was wrong with the members that were given
	soon     bool     // writers wait for the next looks

	primary  key      // the server that was known to be primary last
	found    bool     // it took writes when it was looked at, and no recovery of this Manager made it to the primary
	position Position // how far it was at the last look
	trail    []mark   // how far it was when, for as long as fits
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
	lost       key          // the server that draft.From was
	lostAt     Position     // how far that is known to have been
	number     uint64       // of the record
	left       string       // the record as it was found, or is to be kept
	written    *record      // what left says, if it was written here
	knows      bool         // this Manager knows better than any record that it finds
	former     map[key]bool // servers that were primaries, and have not followed a later one yet
	kin        map[key]bool // servers that were primaries or followed one
	recoveries []time.Time  // the latest unplanned promotions
	tries      map[try]tried
	request    *request
	shelf      shelf
	relieved   time.Time // when the Manager last began a switchover by itself
	verdict    *Verdict
}

// mark is how far the primary was from one time to another.
type mark struct {
	since, at time.Time
	position  Position
}

// marks bounds a trail.
const marks = 128

// track puts a look at the primary into the trail, which gets coarser with age.
func (s *state) track(at time.Time, p Position) {
	switch n := len(s.trail); {
	case n > 0 && s.trail[n-1].position == p:
		s.trail[n-1].at = at
		return
	case n == marks:
		for i := range marks / 2 {
			s.trail[i] = s.trail[2*i+1]
		}
		s.trail = s.trail[:marks/2]
	}
	s.trail = append(s.trail, mark{at, at, p})
}

// behind is for how long the primary has had what a replica lacks: servers count whole seconds.
func (s *state) behind(l look, contains func(a, b Position) bool) (lag time.Duration) {
	for _, m := range slices.Backward(s.trail) {
		if contains(l.status.Applied, m.position) {
			break
		}
		lag = l.at.Sub(m.since)
	}
	return lag
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

func newState(set string) *state {
	return &state{
		set:       set,
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
	c.recoveries, c.trail = slices.Clone(s.recoveries), slices.Clone(s.trail)
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
		if m.Delay < 0 || m.Delay%time.Second != 0 {
			s.faults = append(s.faults, fmt.Sprintf("the member %s has the Delay %v, want whole seconds, at least 0: it is left out", m.ID, m.Delay))
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
