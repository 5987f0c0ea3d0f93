package farm

import (
	"cmp"
	"slices"
	"strconv"
	"time"

	"github.com/scalr-go/scalr/provider"
)

// recognise merges the lists into what is known of the machines. Both are sorted by ID, so that it takes one look at each.
func (d *decision) recognise() {
	known, most := d.h.machines, len(d.h.machines)
	for i := range d.o.clouds {
		most += len(d.o.clouds[i].instances.items)
	}
	d.h.machines = make([]*machine, 0, most)
	var gone []*machine
	for i := range d.o.clouds {
		c := &d.o.clouds[i]
		n, _ := slices.BinarySearchFunc(known, c.id+1, func(m *machine, cloud int) int { return m.cloud - cloud })
		gone = append(gone, d.merge(c, known[:n])...)
		known = known[n:]
	}
	slices.SortFunc(gone, func(a, b *machine) int { return cmp.Compare(a.id, b.id) })
	for _, m := range gone {
		d.event(HostDown, m, "the machine is gone")
	}
	d.resolve()
}

// merge takes up the list of one cloud. It gives the machines that were ended and that the list has not any more.
func (d *decision) merge(c *cloud, known []*machine) (gone []*machine) {
	var copies []machine // allocated many at once, and never moved
	keep := func(m *machine, at *slotMemory) *machine {
		if len(copies) == cap(copies) {
			copies = make([]machine, 0, max(len(known), len(c.instances.items), 1))
		}
		copies = append(copies, *m)
		kept := &copies[len(copies)-1]
		kept.at = at
		d.h.machines = append(d.h.machines, kept)
		return kept
	}
	if c.instances.err != nil {
		for _, m := range known { // an error is no list: what is known stays as it was
			keep(m, d.h.slot(m.slot))
		}
		return nil
	}
	listed := c.instances.items
	for len(known) > 0 || len(listed) > 0 {
		if len(known) == 0 || len(listed) > 0 && listed[0].ID < known[0].id {
			d.sighted(c, &listed[0], nil, keep)
			listed = listed[1:]
			continue
		}
		m := known[0]
		known = known[1:]
		if len(listed) > 0 && listed[0].ID == m.id {
			d.sighted(c, &listed[0], m, keep)
			listed = listed[1:]
			continue
		}
		switch {
		case !m.ended.IsZero(): // and no list shows it any more
			d.h.gone[m.id] = d.now
			gone = append(gone, m)
		case !m.listed && d.now.Sub(m.acked) < d.config.ListLag:
			keep(m, d.h.slot(m.slot)) // it has just been launched, and the lists are behind
		default:
			m = keep(m, d.h.slot(m.slot))
			m.missing = or(m.missing, d.now)
		}
	}
	mem := d.h.clouds[c.id]
	mem.listed = true
	d.h.clouds[c.id] = mem
	return gone
}

// resolve gives up launches whose outcome was not known and that no list has shown since: there was none. The next try
// takes another generation, and so another token.
func (d *decision) resolve() {
	for _, mem := range d.h.slots {
		if mem.unresolved && d.now.Sub(mem.tried) >= d.config.ListLag && !d.poolErr(mem.offer.pool, func(c cloud) error { return c.instances.err }) {
			mem.unresolved, mem.tries = false, 0
			d.h.offers[mem.offer] = d.h.offers[mem.offer].after(d.now, d.config.Backoff, "launches fail without a reason")
		}
	}
}

// sighted takes up one listed instance: the known machine, or nil, as it is now.
func (d *decision) sighted(c *cloud, in *provider.Instance, known *machine, keep func(*machine, *slotMemory) *machine) {
	stranger := known == nil
	if stranger {
		s, ok := slotOf(in.Tags)
		if !ok {
			s = slot{} // ours by the farm's tag, and in no slot: nobody wants it
		}
		generation, _ := strconv.Atoi(in.Tags[TagGeneration])
		known = &machine{id: in.ID, slot: s, generation: generation, cloud: c.id, build: in.Tags[TagBuild]}
	}
	mem := d.h.slot(known.slot)
	if mem.unresolved && known.generation == mem.generation {
		mem.unresolved, mem.tries = false, 0 // here it is
	}
	mem.generation = max(mem.generation, known.generation)
	if r := d.roleOf(known.slot.role); r != nil && r.Serves == Database && (in.State == provider.Failed || in.State == provider.Terminated) {
		d.plan.ended[r.Name] = append(d.plan.ended[r.Name], in.ID)
	}
	if in.State.Gone() {
		d.plan.left = d.plan.left || in.State == provider.Terminating
		if in.State == provider.Terminated {
			d.h.gone[in.ID] = d.now
		}
		if !stranger {
			if known.ended.IsZero() && d.end == nil {
				d.event(HostCrash, known, "the machine has ended by itself%s", because(in.Reason))
			}
			d.event(HostDown, known, "the machine is gone%s", because(in.Reason))
		}
		return
	}
	m := keep(known, mem)
	m.pool = c.pools[0].Name
	for _, p := range c.pools {
		if p.Name == in.Tags[TagPool] {
			m.pool = p.Name
		}
	}
	m.image = in.Image
	m.size, m.spot, m.launched, m.missing, m.listed = in.Size, in.Spot, in.Launched, time.Time{}, true
	m.state, m.reason, m.private, m.public = in.State, in.Reason, in.Private, in.Public
}

func because(reason string) string {
	if reason == "" {
		return ""
	}
	return ": " + reason
}

// distrust finds views that have shrunk too much to be believed, and takes machines that are missing for good off the
// books. Absence from one list is not death; a machine that is listed as terminated is another matter.
func (d *decision) distrust() {
	for _, c := range d.o.clouds {
		total, missing := 0, 0
		for _, m := range d.h.machines {
			if m.cloud == c.id {
				total++
				if !m.missing.IsZero() {
					missing++
				}
			}
		}
		mem := d.h.clouds[c.id]
		switch shrunk := missing >= 3 && float64(missing) > d.config.ShrinkLimit*float64(total); {
		case shrunk && mem.distrust.IsZero():
			mem.distrust = d.now
			d.event(ViewDistrusted, nil, "%d of %d machines of pool %s are missing from one list: nothing is ended or replaced there until %s",
				missing, total, c.pools[0].Name, d.now.Add(d.config.ShrinkPatience).UTC().Format(time.RFC3339))
		case !shrunk && !mem.distrust.IsZero():
			mem.distrust = time.Time{}
			d.event(ViewTrusted, nil, "pool %s shows its machines again", c.pools[0].Name)
		}
		d.h.clouds[c.id] = mem
		patience := d.config.MissingAfter
		if !mem.distrust.IsZero() {
			patience = d.config.ShrinkPatience
			if left := mem.distrust.Add(patience).Sub(d.now); left > 0 {
				d.wait("", 0, "pool %s shows %d of %d machines: ends and replaces nothing there for %v", c.pools[0].Name, total-missing, total, left)
			}
		}
		d.h.machines = slices.DeleteFunc(d.h.machines, func(m *machine) bool {
			if m.cloud != c.id || m.missing.IsZero() || d.now.Sub(m.missing) < patience {
				return false
			}
			d.h.gone[m.id] = d.now
			d.event(HostDown, m, "the machine has not been listed for %v", d.now.Sub(m.missing))
			return true
		})
	}
}

// distrusted reports whether the machine's cloud shows a view that is not to be acted on.
func (d *decision) distrusted(m *machine) bool {
	since := d.h.clouds[m.cloud].distrust
	return !since.IsZero() && d.now.Sub(since) < d.config.ShrinkPatience
}

// judge says of each machine whether it serves.
func (d *decision) judge() {
	for _, m := range d.h.machines {
		was := m.ready
		m.ready, m.why = d.serves(m)
		if m.ready && m.readyAt.IsZero() {
			m.readyAt = d.now
			d.event(HostUp, m, "serves, %v after its launch", d.now.Sub(m.launched).Round(time.Millisecond))
			d.measure(m)
			m.at.retry = backoff{}
			m.at.replaced = time.Time{}
			delete(d.h.offers, offer{m.pool, m.size, m.spot})
		}
		switch {
		case m.ready:
			m.down = time.Time{}
		case m.down.IsZero():
			m.down = d.now
		}
		if was && !m.ready {
			d.event(HostUnhealthy, m, "does not serve: %s", m.why)
		}
	}
}

// measure takes up how long a launch of this program took until the machine served.
func (d *decision) measure(m *machine) {
	took := d.now.Sub(m.acked)
	if m.acked.IsZero() || took < 0 {
		return
	}
	mem := d.h.roles[m.slot.role]
	if mem.boot == 0 {
		mem.boot = took
	}
	mem.boot += (took - mem.boot) / 4
	d.h.roles[m.slot.role] = mem
}

// serves reports whether the machine works and its Started hook has let it serve.
func (d *decision) serves(m *machine) (bool, string) {
	if d.config.Hooks[m.slot.role].Started != nil && !m.started {
		err, asked := d.o.started[m.id]
		switch {
		case !asked:
			return false, "its Started hook has not been asked yet"
		case err != nil:
			return false, "its Started hook: " + err.Error()
		}
		m.started = true
	}
	return d.works(m)
}

func (d *decision) works(m *machine) (bool, string) {
	r := d.roleOf(m.slot.role)
	switch {
	case r == nil:
		return false, "its role is not in the spec"
	case !m.ended.IsZero():
		return false, "is being ended"
	case m.state != provider.Running:
		m.failures = 0
		return false, string(m.state) + because(m.reason)
	case r.Serves == Database:
		if s, ok := d.member(m); ok {
			return s.Serves, or(s.Error, "is "+string(s.Role))
		}
		return false, "its manager does not know it yet"
	case r.Health == nil:
		return true, ""
	}
	err, checked := d.o.health[m.id]
	switch {
	case !checked:
		return m.ready, m.why // not listed this time: as it was
	case err != nil:
		m.failures++
		return false, err.Error()
	}
	m.failures = 0
	return true, ""
}
