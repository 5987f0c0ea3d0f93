package farm

import (
	"cmp"
	"slices"
	"time"

	"github.com/scalr-go/scalr/provider"
)

// muster says which of the wanted machines are in service, and which wait in the warm pool: who serves and is in service
// comes first, then who could serve at once. So the place of one that fails is taken by one that waits.
func (d *decision) muster(r *Role, held []*machine, count int) {
	if r.warm() == 0 || d.end != nil {
		for _, m := range held {
			m.warm = time.Time{}
		}
		return
	}
	var wanted []*machine
	for _, m := range held {
		if m.at.wants {
			wanted = append(wanted, m)
		}
	}
	slices.SortStableFunc(wanted, func(a, b *machine) int {
		return cmp.Or(trueFirst(a.ready && a.warm.IsZero(), b.ready && b.warm.IsZero()), trueFirst(a.ready, b.ready),
			trueFirst(a.warm.IsZero(), b.warm.IsZero()), trueFirst(a.state == provider.Running, b.state == provider.Running),
			a.slot.index-b.slot.index)
	})
	for i, m := range wanted {
		switch {
		case i >= count:
			m.warm = or(m.warm, d.now)
		case !m.warm.IsZero():
			m.warm = time.Time{}
			if m.ready {
				d.event(CalledUp, m, "leaves the warm pool and serves")
			}
		}
	}
}

// asleep reports whether a machine is switched off because it waits.
func (d *decision) asleep(r *Role, m *machine) bool {
	return !m.warm.IsZero() && r.Warm.Stopped && m.state == provider.Stopped
}

// rest takes a machine that waits out of its balancer and, if the role's wait switched off, switches it off when its clients
// have left.
func (d *decision) rest(r *Role, m *machine) {
	d.deregister(r, m, "it waits in the warm pool")
	if !r.Warm.Stopped {
		return
	}
	switch left := m.warm.Add(r.Drain).Sub(d.now); {
	case left > 0:
		d.plan.soon = true
		d.wait(r.Name, m.slot.index, "goes into the warm pool: drains for %v more", left)
		return
	case d.named(m):
		d.wait(r.Name, m.slot.index, "goes into the warm pool: is still in the zone")
		return
	}
	d.step(Step{Action: StopInstance, Role: r.Name, Index: m.slot.index, Pool: m.pool, Subject: m.id, Reason: "it waits in the warm pool, switched off"})
}
