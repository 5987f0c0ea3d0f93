package farm

import (
	"fmt"
	"slices"
	"time"

	"github.com/scalr-go/scalr/provider"
)

// retire takes a machine out of service and ends it when its clients have had time to leave.
//
// One that is leaving although the role wants as many machines stays until a successor serves, if there is room for one.
func (d *decision) retire(r *Role, m *machine, want Desired, ill *illness) {
	why := fmt.Sprintf("role %s is to have %d machines", r.Name, want.Count)
	if d.end != nil {
		if other := d.dependent(r); other != "" {
			d.wait(r.Name, m.slot.index, "ends after role %s", other)
			return
		}
		d.terminate(m, why)
		return
	}
	if m.leaving != "" {
		why = m.leaving
		if inService(m) && !(m.updating && !d.surges(r)) {
			if ill.serving <= want.Count && (ill.room > 0 || ill.rising > 0) {
				d.wait(r.Name, m.slot.index, "serves until a successor does: %s", why)
				return
			}
			ill.serving--
			ill.room++
		}
	}
	if m.draining.IsZero() {
		m.draining = d.now
	}
	// A member of a database does not serve for a moment when its primary changes.
	busy := m.parting || m.leaving != "" && r.Serves == Database
	if m.ready || !m.stopping.IsZero() || busy && m.state == provider.Running {
		d.deregister(r, m, why)
		if d.named(m) && !(d.alone(m) && want.Count > 0) {
			m.cleared = time.Time{}
			d.plan.soon = true
			d.wait(r.Name, m.slot.index, "is still in the zone: %s", why)
			return
		}
		m.cleared = or(m.cleared, d.now)
		drained := m.cleared.Add(r.Drain)
		if m.parting {
			drained = d.unresolved(m.cleared, r.Drain)
		}
		switch left := drained.Sub(d.now); {
		case left > 0:
			d.plan.soon = true
			d.wait(r.Name, m.slot.index, "drains for %v more: %s", left, why)
			return
		case d.stopping(r, m, why):
			return
		}
	}
	d.terminate(m, why)
}

// alone reports whether nobody else of the role serves, so that names stay with the machine until it has a successor. A role that
// moves has one first.
func (d *decision) alone(m *machine) bool {
	return !m.parting && !slices.ContainsFunc(d.byRole[m.slot.role], func(o *machine) bool { return o != m && inService(o) })
}

// stopping reports whether hooks hold the machine.
func (d *decision) stopping(r *Role, m *machine, why string) bool {
	if !d.config.holds(HostStopping, r.Name) {
		return false
	}
	m.leaving, m.moving = why, false // it may have begun to stop
	m.stopping = or(m.stopping, d.now)
	err, asked := d.o.held[m.id]
	held := d.now.Sub(m.stopping)
	switch {
	case asked && err == nil:
		return false
	case held >= r.StopTimeout:
		d.event(StopTimedOut, m, "it has been held for %v: it is ended%s", held.Round(time.Second), because(textOf(err)))
		return false
	case asked:
		d.wait(r.Name, m.slot.index, "is held for %v at most: %v: %s", r.StopTimeout-held, err, why)
	default:
		d.wait(r.Name, m.slot.index, "its hooks are asked: %s", why)
	}
	d.plan.soon = true
	return true
}

func textOf(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

// dependent names a role that was launched after r and still has machines.
func (d *decision) dependent(r *Role) string {
	for _, other := range d.spec.Roles {
		if slices.Contains(other.After, r.Name) && len(d.byRole[other.Name]) > 0 {
			return other.Name
		}
	}
	return ""
}

// terminate ends a machine, unless the view of its cloud is not to be trusted.
func (d *decision) terminate(m *machine, why string) {
	if d.distrusted(m) && d.end == nil {
		d.wait(m.slot.role, m.slot.index, "%s, but the view of pool %s is not trusted", why, m.pool)
		return
	}
	m.ready = false
	d.step(Step{Action: TerminateInstance, Role: m.slot.role, Index: m.slot.index, Pool: m.pool, Subject: m.id, NoReturn: m.parting, Reason: why})
}

// crashed takes up the machines that are found to be broken for good, before their slots are filled again.
func (d *decision) crashed() {
	for _, name := range sortedKeys(d.byRole) {
		for _, m := range d.byRole[name] {
			if dead(m) && m.surplus.IsZero() && m.ended.IsZero() && d.end == nil {
				d.event(HostCrash, m, "the machine has %s%s", m.state, because(m.reason))
				d.cameToNothing(m)
			}
		}
	}
}

// unwanted ends what is broken for good at once, and what no slot wants after a grace period: it may be a launch whose
// answer was lost and that somebody is about to account for.
func (d *decision) unwanted() {
	for _, name := range sortedKeys(d.byRole) {
		r := d.roleOf(name)
		for _, m := range d.byRole[name] {
			if r == nil || m.at.holder != m {
				d.quarantine(r, m)
			}
		}
	}
}

func (d *decision) quarantine(r *Role, m *machine) {
	first := m.surplus.IsZero()
	m.surplus = or(m.surplus, d.now)
	switch left := m.surplus.Add(d.config.Grace).Sub(d.now); {
	case !m.ended.IsZero() && d.now.Sub(m.ended) < d.config.ListLag:
		d.plan.soon = true // the lists have not caught up yet
	case d.end != nil && r != nil && d.dependent(r) != "":
		d.wait(m.slot.role, m.slot.index, "ends after role %s", d.dependent(r))
	case d.end != nil:
		d.terminate(m, "the farm is to end")
	case dead(m):
		if r != nil && r.Serves == Database && r.Volume == nil && d.o.sets[r.Name].Primary == "" {
			d.wait(m.slot.role, m.slot.index, "%s has %s%s; it is kept while the database has no primary: its disk may hold the only data", m.id, m.state, because(m.reason))
			return
		}
		d.terminate(m, fmt.Sprintf("%s%s", m.state, because(m.reason)))
	case left > 0:
		if first {
			d.event(Quarantined, m, "no slot wants it: it is ended in %v", left)
		}
		d.wait(m.slot.role, m.slot.index, "%s is wanted by no slot and kept for %v more", m.id, left)
	default:
		d.terminate(m, fmt.Sprintf("no slot has wanted it for %v", d.config.Grace))
	}
}
