package replication

import (
	"fmt"
	"strings"
	"time"
)

// switchover begins a planned change of primary, when somebody has asked for one and the primary is well.
func (d *decider) switchover(p *fact) {
	if d.draft != nil {
		return // its own recovery ends first, with a verdict
	}
	r := d.request
	if r == nil {
		d.relieve(p)
		return
	}
	to, err := d.target(p, r.to)
	switch {
	case err != nil && d.joins(p, r.to) && d.now.Sub(r.began) <= d.c.StepTimeout:
		d.hold("the switchover waits for a replica: %v", err)
	case err != nil:
		d.out.done, d.out.answer = true, err
	case to == p:
		d.out.done = d.out.primary == p.ID
	case d.now.Sub(r.began) > d.c.StepTimeout:
		d.out.done, d.out.answer = true, fmt.Errorf("%s could not take over from %s within %v: %s", to.ID, p.ID, d.c.StepTimeout, p.trouble)
	default:
		d.out.chosen = to.ID
		d.out.primary = ""
		d.step(StepFence, p, "", "%s is to take over from it", to.ID)
	}
}

// relieve begins a switchover that nobody has asked for, from a primary that is to be it only while nobody else can, to a
// replica that has caught up. One that fails is tried again a Config.Window later.
func (d *decider) relieve(p *fact) {
	if p.Prefer >= 0 || !d.relieved.IsZero() && d.now.Sub(d.relieved) < d.c.Window {
		return
	}
	to, err := d.target(p, "")
	if err != nil || to.Prefer < 0 || d.stale(to) > time.Second {
		return
	}
	d.out.chosen = to.ID
	d.out.primary = ""
	d.step(StepFence, p, "", "%s can take over from it, which is to be the primary only while nobody else can", to.ID)
}

// target finds the member that is to be primary.
func (d *decider) target(p *fact, id string) (*fact, error) {
	if id != "" {
		f := d.byID(id)
		switch {
		case f == nil:
			return nil, fmt.Errorf("there is no member %q", id)
		case f == p:
			return p, nil
		}
		if why := d.unfit(p, f); why != "" {
			return nil, fmt.Errorf("%s cannot take over: %s", id, why)
		}
		if best, err := d.target(p, ""); f.Prefer < 0 && (p.Prefer >= 0 || err == nil && best.Prefer >= 0) {
			return nil, fmt.Errorf("%s is to be the primary only while nobody else can: its Prefer is %d", id, f.Prefer)
		}
		return f, nil
	}
	var best *fact
	var whys []string
	for _, f := range d.members {
		if f == p {
			continue
		}
		if why := d.unfit(p, f); why != "" {
			whys = append(whys, f.ID+" "+why)
			continue
		}
		if best == nil {
			best = f
		} else if c := preference(f, best); c < 0 || c == 0 && best.Pool != p.Pool && f.Pool == p.Pool {
			best = f
		}
	}
	if best == nil {
		return nil, fmt.Errorf("no replica can take over: %s", strings.Join(whys, "; "))
	}
	return best, nil
}

// joins reports whether the member, or any if id is empty, is about to follow the primary: it is well and needs a moment
// only, as after another change of primary.
func (d *decider) joins(p *fact, id string) bool {
	for _, f := range d.members {
		st := f.status()
		switch {
		case f == p || id != "" && id != f.ID || d.out.roles[f.ID] != "":
		case d.open(f):
			return true
		case d.counts(f) && st.Source != "" && d.unfit(p, f) == unattached && !f.refills():
			return true
		}
	}
	return false
}

// unattached is why a member is unfit that is not a replica of the primary now.
const unattached = "does not follow the primary"

// unfit says why f cannot take over from p, or nothing if it can.
func (d *decider) unfit(p, f *fact) string {
	st := f.status()
	switch {
	case !d.counts(f):
		return "does not answer"
	case d.out.roles[f.ID] == RoleQuarantined:
		return d.out.errors[f.ID]
	case st.Source != p.Addr || !st.Receives || !st.Applies || st.Empty && !p.status().Empty:
		return unattached
	case d.stale(f) > d.c.MaxLag:
		return fmt.Sprintf("is %v behind", d.stale(f))
	}
	return ""
}

// handover goes on with a switchover when the old primary has been fenced, and reports whether it still can. Otherwise the
// old primary, which has most, is promoted again as after any loss.
func (d *decider) handover(p *fact) bool {
	r := d.request
	to := d.byID(r.to)
	switch {
	case to == nil || d.down(to):
		d.out.done, d.out.answer = true, fmt.Errorf("%s does not answer any more: %s stays the primary", r.to, p.ID)
		return false
	case p.leaks != nil:
		d.out.done, d.out.answer = true, fmt.Errorf("%s stays the primary: %w", p.ID, p.leaks)
		return false
	case d.now.Sub(r.began) > d.c.StepTimeout:
		d.out.done, d.out.answer = true, fmt.Errorf("%s did not catch up within %v: %s stays the primary", r.to, d.c.StepTimeout, p.ID)
		return false
	case !to.answers() || !d.contains(to.status().Received, p.status().Received):
		d.out.soon = true
	case !to.drained:
		d.step(StepDrain, to, "", "it has all that %s had, and is to apply it", p.ID)
		for _, f := range d.members {
			st := f.status()
			// One with a delay is to keep it.
			if f != to && d.counts(f) && st.Source == p.Addr && st.Delay == 0 && !st.Empty && !f.drained && d.contains(st.Received, p.status().Received) {
				d.step(StepDrain, f, "", "it has all that %s had, and is to follow %s", p.ID, to.ID)
			}
		}
	default:
		d.addPromote(to, "it takes over from %s as planned", p.ID)
		d.attach(to)
	}
	return true
}
