package replication

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// decision is what a look at the state leads to.
type decision struct {
	steps   []Step // to be under way now; what is under way and not among them is withdrawn
	held    []string
	primary string            // the ID of the member to write to; empty if there is none
	leader  *fact             // the member that is primary by the facts
	roles   map[string]Role   // by ID, where it is not what the member says of itself
	errors  map[string]string // by ID
	draft   *Verdict          // of the recovery that a promotion among the steps ends
	lost    key               // the server that draft.From is
	lostAt  Position          // how far that is known to have been
	surplus []surplus         // found on members
	chosen  string            // the candidate of a switchover
	answer  error             // ends the switchover that is asked for, with answered
	done    bool              // the switchover has come to its end
	soon    bool              // writers wait for what the next looks will show
	bare    bool              // a backup is due, and no replica serves that it could be read from
}

// surplus is transactions that a member has and the primary lacks.
type surplus struct {
	member key
	at     Position
	n      uint64
	exact  bool
}

// decider makes one decision. It changes nothing but the decision.
type decider struct {
	*state
	c        *Config
	now      time.Time
	out      decision
	excluded map[*fact]bool // two members that are one server: only one of them counts
}

// decide is the whole policy, as a pure function of what is known.
func decide(s *state, c *Config, now time.Time) decision {
	d := &decider{state: s, c: c, now: now, excluded: map[*fact]bool{}}
	d.out.roles, d.out.errors = map[string]Role{}, map[string]string{}
	d.out.held = slices.Clone(s.faults)
	if len(s.members) == 0 {
		return d.out // nobody has said yet who is there
	}
	d.doubles()
	d.plan()
	d.keep()
	return d.out
}

func (d *decider) plan() {
	for _, f := range d.members {
		if r := f.running; r != nil && r.Kind == StepPromote && !d.down(f) {
			d.add(*r) // everything else depends on what comes of it
			d.attach(f)
			d.keepPrimary()
			return
		}
	}
	if f := d.find(d.heir); f != nil && d.open(f) {
		d.keepPrimary() // it has just been promoted, and the next look shows it: whoever else takes writes is to be fenced then
		return
	}
	leader, sure := d.findLeader()
	switch {
	case leader != nil:
		d.maintain(leader)
	case sure:
		d.recovery()
	default:
		d.keepPrimary()
	}
	if r := d.request; r != nil && leader == nil && d.now.Sub(r.began) > 2*d.c.StepTimeout {
		d.out.done, d.out.answer = true, ErrNoPrimary
	}
}

// add puts a step into the decision.
func (d *decider) add(s Step) { d.out.steps = append(d.out.steps, s) }

func (d *decider) step(kind StepKind, f *fact, other, format string, args ...any) {
	d.add(Step{Kind: kind, Member: f.ID, Other: other, Reason: fmt.Sprintf(format, args...)})
}

// hold says that something should be done and is not.
func (d *decider) hold(format string, args ...any) {
	if s := fmt.Sprintf(format, args...); !slices.Contains(d.out.held, s) {
		d.out.held = append(d.out.held, s)
	}
}

// down reports whether enough looks have failed.
func (d *decider) down(f *fact) bool { return d.state.down(f, d.c) }

// open reports whether it is not known yet what a member is: a look is to be waited for.
func (d *decider) open(f *fact) bool { return !f.answers() && !d.down(f) && f.fault == nil }

// counts reports whether the member answers and is to be reckoned with.
func (d *decider) counts(f *fact) bool { return f.answers() && !d.excluded[f] }

func (d *decider) contains(a, b Position) bool {
	o := d.c.Engine.Compare(a, b)
	return o == Equal || o == Ahead
}

// related reports whether two positions have transactions in common, and with that an origin.
func (d *decider) related(a, b Position) bool {
	all, _ := d.c.Engine.Count(a, "")
	own, _ := d.c.Engine.Count(a, b)
	return all > own
}

// doubles finds members that say that they are the same server. The primary counts, or the first one.
func (d *decider) doubles() {
	first := map[string]*fact{}
	for _, f := range d.members {
		name := f.status().Server
		if !f.answers() || name == "" {
			continue
		}
		g := first[name]
		if g == nil {
			first[name] = f
			continue
		}
		if keyOf(f.Member) == d.primary {
			f, g = g, f
			first[name] = g
		}
		d.excluded[f] = true
		d.quarantine(f, "it is the same server as %s (identity %q): give each an identity of its own", g.ID, name)
	}
}

func (d *decider) quarantine(f *fact, format string, args ...any) {
	d.out.roles[f.ID] = RoleQuarantined
	d.out.errors[f.ID] = fmt.Sprintf(format, args...)
	d.hold("%s is left alone: %s", f.ID, d.out.errors[f.ID])
}

// keepPrimary goes on publishing the primary that is known, while it is not known to be lost.
func (d *decider) keepPrimary() {
	p := d.find(d.published)
	switch {
	case p == nil || !d.shown:
	case d.request != nil && d.request.from == d.published: // it is being fenced for a switchover
	case p.misses > 0 || p.good.ended == 0 || p.status().Writable:
		d.out.primary = p.ID
	}
}

// findLeader finds the member that takes writes. If it finds none it says whether that is sure, or whether looks must be
// waited for.
func (d *decider) findLeader() (leader *fact, sure bool) {
	p := d.find(d.primary)
	if p != nil && d.counts(p) && p.status().Writable {
		return p, true
	}
	if p != nil && (d.open(p) || p.fault != nil) {
		if p.fault != nil {
			d.hold("the primary %s answers and does not say what it is: %v", p.ID, p.fault)
		}
		return nil, false
	}
	var writable []*fact
	for _, f := range d.members {
		if p == nil && d.open(f) {
			return nil, false // which of several is the primary shows only when all have been seen
		}
		if d.counts(f) && f.status().Writable && (d.primary == (key{}) || d.contains(f.status().Applied, d.position)) {
			writable = append(writable, f)
		}
	}
	if len(writable) == 0 {
		return nil, true
	}
	slices.SortStableFunc(writable, func(a, b *fact) int {
		if n := d.followed(b) - d.followed(a); n != 0 {
			return n
		}
		x, _ := d.c.Engine.Count(a.status().Applied, b.status().Applied)
		y, _ := d.c.Engine.Count(b.status().Applied, a.status().Applied)
		switch {
		case x > y:
			return -1
		case x < y:
			return 1
		}
		return strings.Compare(a.ID, b.ID)
	})
	leader = writable[0]
	for _, f := range writable[1:] {
		if !f.status().Empty && !leader.status().Empty && !d.related(f.status().Applied, leader.status().Applied) {
			d.hold("%s and %s take writes and have nothing in common: make one of them read-only or remove it", leader.ID, f.ID)
			return nil, false
		}
	}
	if d.c.Policy == Durability {
		if st := leader.status(); st.SemiSync && st.Waiters == 0 {
			slept, known := d.maySleep(leader)
			if !known {
				return nil, false
			}
			if slept {
				d.hold("%s takes writes and acknowledges none, since nobody follows it: it may have slept through a recovery, "+
					"which shows when more of the %d members answer", leader.ID, d.expected)
				return nil, false
			}
		}
		for _, f := range d.members {
			st := f.status()
			if !d.counts(f) || st.Writable || st.Source == "" || d.under(leader, f) {
				continue
			}
			switch d.relation(f, leader) {
			case unknown:
				return nil, false
			case hasMore: // no promotion would have left them out
				d.step(StepFence, leader, "", "%s follows %s and has transactions that this one lacks: it slept through a recovery",
					f.ID, d.name(st.Source))
				return nil, false
			}
		}
	}
	return leader, true
}

// maySleep reports whether members may have acknowledged what a primary lacks that nobody follows, if that is known. Two of them may, of
// which one answers: it has more, and is not known to have been the primary before this one, with transactions that nobody acknowledged.
func (d *decider) maySleep(leader *fact) (slept, known bool) {
	hidden := d.expected - d.seen()
	if hidden != 1 {
		return hidden > 1, true
	}
	known = true
	for _, f := range d.members {
		if f == leader || !d.counts(f) || f.status().Writable || d.former[keyOf(f.Member)] {
			continue
		}
		r := d.relation(f, leader)
		slept, known = slept || r == hasMore, known && r != unknown
	}
	return slept, slept || known
}

// followed counts the members that follow f.
func (d *decider) followed(f *fact) (n int) {
	for _, g := range d.members {
		if g != f && d.counts(g) && g.status().Source == f.Addr {
			n++
		}
	}
	return n
}

// name gives the ID of the member at an address, or the address.
func (d *decider) name(addr string) string {
	if f := d.byAddr(addr); f != nil {
		return f.ID
	}
	return addr
}

// relation is what a replica or a former primary has in comparison with the primary.
type relation int

const (
	unknown relation = iota // the looks do not tell
	hasLess                 // the primary has all that it has
	hasMore                 // it has transactions that the primary lacks
)

// relation compares a look at f with a later one at the primary: a replica that was looked at later than its primary may
// seem to be ahead of it.
func (d *decider) relation(f, primary *fact) relation {
	if d.contains(primary.status().Applied, f.status().Received) {
		return hasLess
	}
	if f.counted != "" && d.contains(f.status().Received, f.counted) && !d.contains(primary.status().Applied, f.counted) {
		return hasMore // as has been found before
	}
	for _, l := range []look{f.good, f.before} {
		if l.ended > 0 && l.ended < primary.good.began && !d.contains(primary.status().Applied, l.status.Received) {
			return hasMore
		}
	}
	return unknown
}

// keep goes on with what is under way and still makes sense, and withdraws the rest.
func (d *decider) keep() {
	for _, f := range d.members {
		r := f.running
		if r == nil {
			continue
		}
		planned := slices.IndexFunc(d.out.steps, func(s Step) bool { return s.Member == f.ID })
		switch {
		case planned >= 0 && d.underWay(f, d.out.steps[planned]):
		case planned >= 0 && r.Kind == StepFence && d.out.steps[planned].Kind != StepStop && d.sensible(f, *r):
			d.out.steps[planned] = *r // read-only is not all: its end says whether somebody may write all the same
		case planned >= 0 && !r.Kind.refills() && r.Kind != StepImport:
		case d.sensible(f, *r):
			d.out.steps = slices.DeleteFunc(d.out.steps, func(s Step) bool { return s.Member == f.ID })
			d.add(*r)
		}
	}
	slices.SortStableFunc(d.out.steps, func(a, b Step) int { return strings.Compare(a.Member, b.Member) })
}

// same reports whether two steps do the same thing.
func same(a, b Step) bool {
	a.Reason, a.Phase, b.Reason, b.Phase = "", 0, "", 0
	return a == b
}

// sensible reports whether a step that is under way, and not planned any more because its effect begins to show or because
// the state is unclear for a moment, should go on.
func (d *decider) sensible(f *fact, r Step) bool {
	other := d.find(f.against)
	restarts := (r.Kind == StepSeed || r.Kind == StepImport) && d.now.Sub(f.missingAt) < d.c.Patience // an engine may start the server again, on the copy
	if d.down(f) && r.Kind != StepStop && !restarts || r.Other != "" && other == nil {
		return false
	}
	switch r.Kind {
	case StepFollow:
		return d.out.leader == nil && (d.out.primary == r.Other || d.heir == f.against || d.primary == f.against) || d.out.leader != nil && d.upstream(d.out.leader, f) == other
	case StepSave:
		return d.out.leader == other
	case StepImport:
		return d.out.leader == nil
	case StepSeed, StepRewind:
		return !d.down(other) && !d.excluded[other] && d.out.roles[other.ID] != RoleQuarantined
	case StepStop:
		return !f.answers() || f.status().Writable && d.out.leader != f
	case StepDrain:
		return d.out.leader == nil
	case StepBackup:
		return d.out.primary != "" && d.request == nil
	case StepFence:
		return d.out.leader != f
	case StepPromote:
		return true
	default:
		return d.out.leader == f
	}
}
