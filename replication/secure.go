package replication

import (
	"cmp"
	"slices"
)

// fence makes sure that nobody else can take writes. Unfenced says that it goes on without.
func (d *decider) fence(l lost, best *fact) (ok, unfenced bool) {
	ok = true
	for _, f := range d.members {
		suspect := f == l.fact || keyOf(f.Member) == d.heir || !l.warm
		still := f.fault == nil && f.misses == 0 && f.leaks == nil || f.misses > 0 && f.ended
		if d.ended[f.Machine] || f == best || !suspect || still || f.stopped {
			continue
		}
		why, what := "it does not work and could take writes again", "can be neither reached nor stopped"
		if f.leaks != nil {
			why, what = f.leaks.Error(), "takes some writes all the same, and cannot be stopped"
		}
		failed := f.Fence == nil || f.fault != nil
		if !failed {
			d.step(StepStop, f, "", "%s", why)
			failed = d.tries[try{keyOf(f.Member), StepStop, ""}].fail
		}
		switch {
		case !failed: // wait for it
			ok = false
		case d.c.Unfenced == UnfencedGoOn && d.majority():
			unfenced = true
		case d.c.Unfenced == UnfencedGoOn:
			d.hold("%s %s, and only a minority of the set can be seen", f.ID, what)
			ok = false
		default:
			d.hold("%s %s, and Config.Unfenced says to wait", f.ID, what)
			ok = false
		}
	}
	return ok, unfenced
}

// complete reports whether every member that there should be answers.
func (d *decider) complete() bool { return d.seen() >= d.expected }

// seen counts the members that answer.
func (d *decider) seen() (n int) {
	for _, f := range d.members {
		if d.counts(f) {
			n++
		}
	}
	return n
}

// majority reports whether the Manager and the members that it sees are more than half of all of them.
func (d *decider) majority() bool { return 2*(d.seen()+1) > d.expected+1 }

// drain plans for the candidate and those who will follow it to apply what they have received, which may be done while the
// old primary is being stopped. It reports whether the candidate may be promoted.
func (d *decider) drain(l lost, best *fact, unfenced bool) bool {
	ready := best.drained || best.status().Source == ""
	if !ready {
		d.step(StepDrain, best, "", "it has most of what %s had, and is to apply all of it", cmp.Or(l.name, "the primary"))
	}
	for _, f := range d.members {
		st := f.status()
		if f == best || !d.counts(f) || st.Source == "" || st.Empty || f.drained || d.chained(f) {
			continue
		}
		switch {
		case unfenced && d.c.Policy == Durability: // whoever is drained acknowledges nothing to a primary that wakes
			d.step(StepDrain, f, "", "%s may still run, and must find nobody to acknowledge its writes", l.name)
			ready = false
		case st.Delay > 0: // it is to keep its delay, and what it has not applied the new primary has
		case d.contains(best.status().Received, st.Received):
			d.step(StepDrain, f, "", "%s is to be promoted, and can be followed by who has applied all that it has received", best.ID)
		}
	}
	return ready
}

// attach plans for the replicas to follow the member that is being promoted, so that its first write finds them there.
func (d *decider) attach(heir *fact) {
	d.out.steps = slices.DeleteFunc(d.out.steps, func(s Step) bool { return s.Kind == StepDrain && s.Member != heir.ID })
	for _, f := range d.members {
		st := f.status()
		if f != heir && !d.chained(f) && d.counts(f) && !st.Writable && !st.Empty && st.Source != "" && st.Source != heir.Addr &&
			st.Source != f.Addr && heir.status().Source != f.Addr && f.joined && d.contains(heir.status().Received, st.Received) {
			d.step(StepFollow, f, heir.ID, "%s is being promoted", heir.ID)
		}
	}
}
