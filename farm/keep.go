package farm

import (
	"fmt"
	"time"

	"github.com/scalr-go/scalr/provider"
	"github.com/scalr-go/scalr/replication"
)

// keep looks after the machine that holds a wanted slot.
func (d *decision) keep(r *Role, m *machine, ill *illness) {
	m.draining, m.cleared, m.surplus, m.stopping = time.Time{}, time.Time{}, time.Time{}, time.Time{}
	if !m.missing.IsZero() {
		d.wait(r.Name, m.slot.index, "%s has been missing from lists for %v", m.id, d.now.Sub(m.missing).Round(time.Second))
	}
	if why := d.broken(r, m); why != "" {
		if not := d.spare(r, m, ill); not != "" {
			d.wait(r.Name, m.slot.index, "%s %s; it is kept: %s", m.id, why, not)
			return
		}
		d.cameToNothing(m)
		if m.served() {
			m.at.replaced = d.now
			ill.replacing++
		}
		d.terminate(m, why)
		return
	}
	switch {
	case d.asleep(r, m):
		m.down = d.now // its time to come up has not begun
		return
	case m.state == provider.Stopped:
		d.start(r, m)
	case m.state == provider.Running && m.missing.IsZero():
		d.attach(r, m)
		d.address(r, m)
	}
	if !m.ready {
		d.wait(r.Name, m.slot.index, "%s does not serve yet: %s", m.id, m.why)
		d.plan.soon = d.plan.soon || m.readyAt.IsZero()
		return
	}
	switch {
	case !m.missing.IsZero():
	case !m.warm.IsZero():
		d.rest(r, m)
	default:
		d.register(r, m)
	}
	m.at.addr = m.private
}

// broken says why a machine should be replaced, or "".
func (d *decision) broken(r *Role, m *machine) string {
	switch {
	case m.ready || d.asleep(r, m):
		return ""
	case d.now.Sub(m.down) >= r.LaunchTimeout:
		// Counted from when this program first saw it: after a restart nothing is hasty.
		return fmt.Sprintf("has not served for %v: %s", r.LaunchTimeout, m.why)
	case !m.readyAt.IsZero() && r.Health != nil && m.failures >= r.Health.Failures:
		return fmt.Sprintf("failed %d checks in a row: %s", m.failures, m.why)
	}
	return ""
}

// illness is how a role is, as a whole.
type illness struct {
	held      int      // machines that hold a slot
	serving   int      // of these, how many are in service
	room      int      // how many more there may be
	broken    int      // of these, how many should be replaced
	first     *machine // the first of the broken
	rising    int      // wanted slots whose machine does not serve yet, or that have none
	replacing int      // slots whose machine failed and was ended, and whose successor does not serve yet
}

// inService reports whether clients are sent to the machine.
func inService(m *machine) bool { return m.ready && m.draining.IsZero() && m.warm.IsZero() }

func (d *decision) count(r *Role, held []*machine, empty int) *illness {
	ill := &illness{held: len(held), rising: empty, room: r.Max + r.warm() - len(held)}
	for _, m := range held {
		if inService(m) {
			ill.serving++
		}
		switch {
		case d.broken(r, m) != "":
			ill.first = or(ill.first, m)
			ill.broken++
		case !m.ready && !d.asleep(r, m):
			ill.rising++
		}
	}
	if ill.broken > 0 {
		for mem := range d.h.slots.of(r.Name) {
			// A successor that does not come up is no reason to leave the others as they are.
			if mem.wants && !mem.replaced.IsZero() && d.now.Sub(mem.replaced) < r.LaunchTimeout {
				ill.replacing++
			}
		}
	}
	return ill
}

// spare says why a machine that should be replaced is to stay for now, or "". What takes many at once is more likely to have
// one cause than to be many broken machines, and to replace them all would be the end of the role.
func (d *decision) spare(r *Role, m *machine, ill *illness) string {
	if r.Serves == Database {
		state, _ := d.member(m)
		switch {
		case d.primary(m):
			return "it is the primary, and its manager promotes another one first"
		case d.o.sets[r.Name].Primary == "":
			return "the database has no primary, and it may hold the only data"
		case state.Role == replication.RoleQuarantined:
			return "it holds data that nobody else has"
		case ill.rising > 0 || ill.first != m:
			return "another member is being replaced"
		}
		return ""
	}
	if !m.served() {
		return "" // nothing is lost
	}
	if ill.broken >= 3 && 2*ill.broken > ill.held {
		return fmt.Sprintf("%d of %d machines do not serve, so that a common cause is likelier than broken machines", ill.broken, ill.held)
	}
	if most := or(r.Replace, max(ill.held/10, 1)); ill.replacing >= most {
		return fmt.Sprintf("%d failed machines are being replaced, and at most %d are at once", ill.replacing, most)
	}
	return ""
}

// start switches a machine on again that somebody has switched off; a database's only when it cannot come in the way of a
// recovery.
func (d *decision) start(r *Role, m *machine) {
	c := d.cloudOf(m)
	switch {
	case r.Serves == Database && (d.o.sets[r.Name].Primary == "" || d.primary(m)) && len(d.byRole[r.Name]) > 1:
		d.wait(r.Name, m.slot.index, "%s is stopped; it is started when the database has a primary", m.id)
	case c == nil || !has[provider.Power](c.provider):
		d.wait(r.Name, m.slot.index, "%s is stopped, and its provider cannot start it", m.id)
	default:
		d.step(Step{Action: StartInstance, Role: r.Name, Index: m.slot.index, Pool: m.pool, Subject: m.id, Reason: "it has been stopped, and its slot is wanted"})
	}
}

// cameToNothing makes the slot and the offer of a machine that never served wait before they are tried again, unless it is what
// the machine was made of that is bad.
func (d *decision) cameToNothing(m *machine) {
	if !m.readyAt.IsZero() || d.h.suspect(m.slot.role, m.build) {
		return
	}
	mem := d.h.slot(m.slot)
	mem.retry = mem.retry.after(d.now, d.config.Backoff, "the last machine came to nothing")
	o := offer{m.pool, m.size, m.spot}
	d.h.offers[o] = d.h.offers[o].after(d.now, d.config.Backoff, "a machine came to nothing")
}
