package replication

import (
	"cmp"
	"slices"
	"strconv"
	"strings"
	"time"
)

// lost is the primary that is no more, as far as it is known.
type lost struct {
	fact *fact  // nil if it is no member any more, or not known
	addr string // empty if it is not known
	name string // its ID or address, for texts
	warm bool   // this Manager saw it take writes
}

// recovery plans for a set in which nobody takes writes.
func (d *decider) recovery() {
	l := d.findLost()
	stray := false
	for _, f := range d.members {
		if d.counts(f) && f.status().Writable {
			d.forbid(f, "it takes writes and lacks transactions that the primary had")
			stray = true
		}
	}
	if stray {
		return
	}
	// A set that has had a primary is not new, though it may be empty.
	if r := d.request; r != nil && l.fact != nil && l.fact.answers() && r.from == keyOf(l.fact.Member) && d.handover(l.fact) {
		return
	}
	if d.fresh(l) {
		return
	}
	if f := l.fact; f != nil && f.fault != nil {
		d.hold("%s answers and does not say what it is: %v", l.name, f.fault)
		return
	}
	if !d.settled(l) {
		d.keepPrimary()
		return
	}
	if !d.isLost(l) {
		return
	}
	candidates := d.candidates(l)
	if len(candidates) == 0 {
		if !d.anyAnswers() {
			d.keepPrimary() // nobody answers: perhaps it is the Manager that is cut off
		}
		if l.addr == "" {
			d.hold("no primary is known, and no member with data answers as it should")
			return
		}
		d.hold("%s is lost, and no replica with data answers", l.name)
		return
	}
	if n := d.recent(); n >= d.c.Recoveries {
		d.hold("%d recoveries within %v are enough: the next one waits until the first of them is older", n, d.c.Window)
		return
	}
	d.promotion(l, candidates)
}

// findLost says whom to replace: the primary that was known, or the one that most members say they follow.
func (d *decider) findLost() lost {
	if p := d.primary; p != (key{}) {
		return lost{d.find(p), p.addr, p.id, true}
	}
	count := map[string]int{}
	addr := ""
	for _, f := range d.members {
		if st := f.status(); f.good.ended > 0 && st.Source != "" {
			if src := d.byAddr(st.Source); src != nil && src.good.ended > 0 && src.status().Source != "" {
				continue // a replica of a replica
			}
			count[st.Source]++
			if addr == "" || count[st.Source] > count[addr] {
				addr = st.Source
			}
		}
	}
	return lost{d.byAddr(addr), addr, d.name(addr), false}
}

// fresh plans the beginning of a set in which nobody has data, if that is what it is.
func (d *decider) fresh(l lost) bool {
	answer := 0
	var imported *fact
	for _, f := range d.members {
		if !d.counts(f) {
			continue
		}
		switch st := f.status(); {
		case st.Imported && imported == nil:
			imported = f
		case !st.Empty:
			return false
		}
		answer++
	}
	if answer == 0 {
		return false
	}
	if answer < d.expected && (l.warm || imported != nil) || imported != nil && d.data {
		return false // somebody may have been the primary
	}
	if answer < d.expected {
		d.hold("a new set waits for all of its %d members: %d answer and are new", d.expected, answer)
		return true
	}
	first := slices.MinFunc(d.members, func(f, g *fact) int { return cmp.Or(cmp.Compare(g.Prefer, f.Prefer), cmp.Compare(f.Delay, g.Delay)) })
	if f := l.fact; f != nil {
		first = f
	}
	if imported != nil {
		first = imported
	}
	if d.data {
		n, exact := d.c.Engine.Count(d.position, "")
		if d.c.Policy == Durability {
			d.hold("%v: the set had data (%s) and all of its members are empty", ErrUnsafe, transactions(n, exact))
			return true
		}
		d.out.draft = &Verdict{From: l.name, To: first.ID, Began: d.now, Loss: LossAtLeast, Lost: n, Reason: "all members are empty"}
		d.lose(l)
	}
	switch {
	case imported != nil: // the others are seeded from it when it is the primary
		d.addPromote(first, "the set is new, and %s has the data of its origin", first.ID)
		return true
	case d.c.Origin != nil:
		d.importing(first)
		return true
	}
	wait := false
	for _, f := range d.members { // before the first write, so that it need not be copied
		if f == first || f.status().Source == first.Addr {
			continue
		}
		if d.tries[try{keyOf(f.Member), StepFollow, first.ID}].times == 0 {
			d.step(StepFollow, f, first.ID, "the set is new: %s will be its primary", first.ID)
			wait = true
		}
	}
	if !wait {
		d.addPromote(first, "the set is new, and its members are empty")
	}
	return true
}

// settled reports whether it is known of every member what it is, by looks that are newer than the loss. Otherwise looks
// are on their way.
func (d *decider) settled(l lost) bool {
	ok := true
	for _, f := range d.members {
		busy := f.running != nil && (f.running.Kind == StepFollow || f.running.Kind == StepFence || f.running.Kind == StepPromote)
		older := l.fact != nil && d.down(l.fact) && f.answers() && f.good.began < l.fact.missing
		if d.open(f) || busy || older {
			ok = false
		}
	}
	return ok
}

// isLost makes sure that it is the primary that is lost and not the Manager's view of it.
func (d *decider) isLost(l lost) bool {
	if l.addr == "" || l.fact != nil && l.fact.answers() {
		return true // nobody knows of one, or it says itself that it takes no writes
	}
	if l.warm && d.ended[d.primary.machine] {
		return true // a replica that has not noticed yet is no witness
	}
	if l.fact != nil && l.fact.stalled {
		return true // it is in sight, and whoever hears it is no witness
	}
	silence := time.Duration(d.c.Misses) * d.c.Timeout
	for _, f := range d.members {
		g := d.relayOf(f)
		switch st := f.status(); {
		case d.counts(f) && st.Receives && g != nil && !g.answers() && g.status().Source == l.addr:
			d.keepPrimary()
			d.hold("neither %s nor %s answers, and %s still receives from that one: it is the Manager's own network that is in doubt", l.name, g.ID, f.ID)
			return false
		case !d.counts(f) || st.Source != l.addr:
		case st.Receives:
			d.keepPrimary()
			d.hold("%s does not answer, and %s still receives from it: it is the Manager's own network that is in doubt", l.name, f.ID)
			return false
		case l.fact == nil && d.now.Sub(f.deaf) < silence:
			return false // it cannot be asked, so give it the time that a hung one would get
		}
	}
	return true
}

func (d *decider) anyAnswers() bool {
	return slices.ContainsFunc(d.members, func(f *fact) bool { return f.answers() })
}

func (d *decider) recent() (n int) {
	for _, t := range d.recoveries {
		if d.now.Sub(t) < d.c.Window {
			n++
		}
	}
	return n
}

// candidates are the members that may be promoted, the one that has most first. Among equals it is one that could not be kept
// from all writes, then the one that is preferred, one that applies without a delay, one whose software is older, the old primary, if it is back, then one in its pool, one that has been drained, one that has applied more,
// and the first by ID.
func (d *decider) candidates(l lost) []*fact {
	var candidates []*fact
	for _, f := range d.members {
		if d.counts(f) && !f.status().Empty && !f.refills() {
			candidates = append(candidates, f)
		}
	}
	for _, f := range candidates {
		for _, g := range candidates {
			x, y := f.status().Received, g.status().Received
			if d.c.Engine.Compare(x, y) == Diverged && !d.related(x, y) && !(d.data && d.related(x, d.position)) {
				d.quarantine(f, "it has nothing in common with %s", g.ID)
			}
		}
	}
	candidates = slices.DeleteFunc(candidates, func(f *fact) bool { return d.out.roles[f.ID] == RoleQuarantined })
	tainted := func(f *fact) bool {
		return f.errant > 0 || d.leftBehind(f) || d.isStuck(f, StepDrain) || d.isStuck(f, StepPromote)
	}
	if clean := slices.DeleteFunc(slices.Clone(candidates), tainted); len(clean) > 0 {
		candidates = clean
	}
	if len(candidates) == 0 && l.warm && !d.data { // it died before anything came from it
		for _, f := range d.members {
			if d.counts(f) && (f == l.fact || f.status().Source == l.addr) {
				candidates = append(candidates, f)
			}
		}
	}
	pool := ""
	if l.fact != nil {
		pool = l.fact.Pool
	}
	rank := func(f *fact) int {
		switch {
		case f == l.fact:
			return 0
		case f.Pool == pool && f.drained:
			return 1
		case f.Pool == pool:
			return 2
		case f.drained:
			return 3
		}
		return 4
	}
	leak := func(f *fact) int {
		if f.leaks != nil {
			return 1
		}
		return 0
	}
	lacks := func(f *fact) (n uint64) {
		for _, g := range candidates {
			k, _ := d.c.Engine.Count(g.status().Received, f.status().Received)
			n += k
		}
		return n
	}
	slices.SortFunc(candidates, func(f, g *fact) int {
		applied := 0
		switch d.c.Engine.Compare(f.status().Applied, g.status().Applied) {
		case Ahead:
			applied = -1
		case Behind:
			applied = 1
		}
		return cmp.Or(cmp.Compare(lacks(f), lacks(g)), leak(g)-leak(f), preference(f, g), cmp.Compare(rank(f), rank(g)), applied, cmp.Compare(f.ID, g.ID))
	})
	return candidates
}

// preference is negative if f is to be the primary rather than g, where both have the same data: it is preferred, or applies with less
// of a delay, or its software is older, since a replica can follow a primary whose software is older, not always one whose is newer.
func preference(f, g *fact) int {
	return cmp.Or(cmp.Compare(g.Prefer, f.Prefer), cmp.Compare(f.delay(), g.delay()),
		slices.Compare(release(f.status().Version), release(g.status().Version)))
}

// release gives the first two numbers of a version; none where it has none.
func release(version string) (numbers []int) {
	for part := range strings.SplitSeq(version, ".") {
		n, err := strconv.Atoi(part)
		if err != nil || len(numbers) == 2 {
			break
		}
		numbers = append(numbers, n)
	}
	return numbers
}

// leftBehind reports whether the member has got nothing from the primary that was known: what it has and others lack is
// from before, and the recovery that made that primary has accounted for it.
func (d *decider) leftBehind(f *fact) bool {
	if d.primary == (key{}) || d.primary == keyOf(f.Member) || f.joined {
		return false
	}
	counted := f.counted != "" && d.c.Engine.Compare(f.status().Received, f.counted) == Equal
	return f.status().Source != d.primary.addr || counted
}

// promotion plans to make a candidate the primary: fence, drain, promote. Under Durability it is the first one that is
// certain to have everything.
func (d *decider) promotion(l lost, candidates []*fact) {
	complete, best := d.complete(), candidates[0]
	proven, why := d.proof(l, best, complete)
	for i := 1; !proven && d.c.Policy == Durability && i < len(candidates); i++ {
		if ok, also := d.proof(l, candidates[i], complete); ok {
			best, proven, why = candidates[i], ok, also
		}
	}
	if !complete && !(proven && l.warm) && d.patient(l) {
		d.hold("%d members should be there and not all of them answer: waiting for them, for %v at most", d.expected, d.c.Patience)
		return
	}
	if d.c.Policy == Durability && !proven {
		d.hold("%v: %s is not promoted: %s", ErrUnsafe, best.ID, why)
		return
	}
	fenced, unfenced := d.fence(l, best)
	stops := slices.ContainsFunc(d.out.steps, func(s Step) bool { return s.Kind == StepStop })
	if !fenced && !stops {
		return
	}
	if !d.drain(l, best, unfenced) || !fenced {
		return
	}
	d.addPromote(best, "%s", reason(l))
	d.attach(best)
	d.lose(l)
	began := d.started
	switch {
	case l.fact != nil && !l.fact.missingAt.IsZero() && l.fact.misses > 0:
		began = l.fact.missingAt
	case l.warm:
		began = d.now
	}
	// A recovery that another Manager has begun goes on.
	if d.draft != nil && d.draft.Began.Before(began) && d.lost == d.out.lost && !l.warm {
		began, d.out.lostAt = d.draft.Began, d.lostAt
	}
	v := &Verdict{From: l.name, To: best.ID, Began: began, Loss: LossNone, Reason: reason(l) + "; " + why}
	if !proven {
		v.Loss = LossAtLeast
		v.Lost, _ = d.c.Engine.Count(d.out.lostAt, best.status().Received)
		v.Until = d.until(l, best)
	}
	d.out.draft = v
}

// until gives a time until which best has whatever the lost primary acknowledged.
func (d *decider) until(l lost, best *fact) time.Time {
	switch {
	case l.warm:
		for _, m := range slices.Backward(d.trail) {
			if d.contains(best.status().Received, m.position) {
				return m.at
			}
		}
	case d.draft != nil && d.draft.To == best.ID && d.lost == d.out.lost:
		return d.draft.Until
	}
	return time.Time{}
}

func reason(l lost) string {
	switch {
	case l.addr == "":
		return "nobody took writes"
	case l.fact == nil:
		return l.name + " is gone"
	case l.fact.answers():
		return l.name + " has started again or was fenced, and takes no writes"
	case l.fact.refused:
		return l.name + " refuses connections"
	case l.fact.stopped:
		return l.name + " did not work, and its machine has been stopped"
	case l.fact.stalled:
		return l.name + " answers, and its commits do not end"
	}
	return l.name + " does not answer"
}

// patient reports whether members that do not answer are to be waited for.
//
// If somebody was there all the time while the primary was lost, nobody is: who can be reached now decides. But if all have
// been away themselves, as after a power cut, the others are probably starting too, and one of them may have more. So it is
// taken to be if it is not known how long they have been there.
func (d *decider) patient(l lost) bool {
	witness := false
	began := d.started
	for _, f := range d.members {
		if !d.counts(f) || f == l.fact || f.status().Source != l.addr {
			continue
		}
		if l.warm {
			witness = witness || l.fact == nil || f.back < l.fact.missing
		} else {
			said := l.fact != nil && (l.fact.stalled || l.fact.stopped) // so that it was there, not about to start
			witness = witness || l.addr != "" && (said || f.status().Uptime > d.c.Patience)
		}
	}
	if l.warm && l.fact != nil {
		began = l.fact.missingAt
	}
	if !l.warm { // another primary may be among those that do not answer, unless it is known that they do not run
		for _, f := range d.members {
			witness = witness && (d.counts(f) || f.refused || f == l.fact)
		}
	}
	return !witness && d.now.Sub(began) < d.c.Patience
}
