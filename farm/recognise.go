package farm

import (
	"cmp"
	"errors"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/scalr-go/scalr/provider"
)

// recognise merges the lists into what is known of the machines. Both are sorted by ID, so that it takes one look at each. Then
// it makes the machines of this pass, in the order of memory.
func (d *decision) recognise() {
	known, most := d.h.machines, len(d.h.machines)
	for i := range d.o.clouds {
		most += len(d.o.clouds[i].instances.items)
	}
	k := keeper{found: make([]found, len(known)), byID: make([]int, 0, most)}
	var gone []*machine
	for i := range d.o.clouds {
		c := &d.o.clouds[i]
		n, _ := slices.BinarySearchFunc(known, c.id+1, func(m *machine, cloud int) int { return m.cloud - cloud })
		gone = append(gone, d.merge(c, known[:n], &k)...)
		known = known[n:]
	}
	slices.SortFunc(gone, func(a, b *machine) int { return cmp.Compare(a.id, b.id) })
	for _, m := range gone {
		d.event(HostDown, m, "the machine is gone")
	}
	d.renew(&k)
	d.resolve()
}

// keeper says which machines the farm has. Each gets the place in memory that its slot has among the others, since a pass walks
// the slots many times. A place that is taken or not there costs time and nothing else.
type keeper struct {
	found []found // by place
	byID  []int   // their places, in the order of clouds and IDs
}

// found is a machine that the farm has.
type found struct {
	was    *machine           // as the last pass left it, or as its tags say; nil if there is none in the place
	in     *provider.Instance // as a list shows it; nil if none does
	absent bool               // a complete list lacks it
}

func (k *keeper) keep(m found) {
	place := m.was.place
	if place < 0 || place >= len(k.found) || k.found[place].was != nil {
		place = len(k.found)
		k.found = append(k.found, found{})
	}
	k.found[place] = m
	k.byID = append(k.byID, place)
}

// renew makes the machines of this pass, for it to change.
func (d *decision) renew(k *keeper) {
	machines := make([]machine, len(k.found)) // never moved
	d.h.machines = make([]*machine, len(k.byID))
	for i, place := range k.byID {
		d.h.machines[i] = &machines[place]
	}
	d.order = make([]*machine, 0, len(k.byID))
	var slots *roleSlots
	for i := range machines {
		from, m := &k.found[i], &machines[i]
		if from.was == nil {
			continue
		}
		*m = *from.was
		if slots == nil || slots.role != m.slot.role {
			slots = d.h.slots.role(m.slot.role)
		}
		m.at = slots.slot(m.slot.index)
		if in := from.in; in != nil {
			m.at.sighted(m)
			m.size, m.image, m.spot, m.launched, m.missing, m.listed = in.Size, in.Image, in.Spot, in.Launched, time.Time{}, true
			m.state, m.reason, m.private, m.public = in.State, in.Reason, in.Private, in.Public
			m.needs = d.spec.Parent != "" && in.Tags[TagNeeds] != ""
		} else if from.absent {
			m.missing = or(m.missing, d.now)
		}
		d.absent = d.absent || !m.missing.IsZero()
		d.order = append(d.order, m)
	}
}

// sighted notes that a list shows a machine of the slot.
func (mem *slotMemory) sighted(m *machine) {
	if mem.open != nil && m.generation == mem.generation {
		mem.open = nil // here it is
	}
	mem.generation = max(mem.generation, m.generation)
}

// merge takes up the list of one cloud. It gives the machines that were ended and that the list has not any more.
func (d *decision) merge(c *cloud, known []*machine, k *keeper) (gone []*machine) {
	if c.instances.err != nil {
		for _, m := range known { // an error is no list: what is known stays as it was
			k.keep(found{was: m})
		}
		return nil
	}
	listed := c.instances.items
	for len(known) > 0 || len(listed) > 0 {
		if len(known) == 0 || len(listed) > 0 && listed[0].ID < known[0].id {
			d.sighted(c.machine(&listed[0]), &listed[0], true, k)
			listed = listed[1:]
			continue
		}
		m := known[0]
		known = known[1:]
		if len(listed) > 0 && listed[0].ID == m.id {
			d.sighted(m, &listed[0], false, k)
			listed = listed[1:]
			continue
		}
		switch {
		case !m.ended.IsZero(): // and no list shows it any more
			d.h.gone[m.id] = d.now
			gone = append(gone, m)
		case !m.listed && d.now.Sub(m.acked) < d.config.ListLag:
			k.keep(found{was: m}) // it has just been launched, and the lists are behind
		default:
			k.keep(found{was: m, absent: true})
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
	for mem := range d.h.slots.all() {
		if try := mem.open; try != nil && d.now.Sub(try.last) >= d.config.ListLag && !d.poolErr(try.offer.pool, func(c cloud) error { return c.instances.err }) {
			mem.open = nil
			d.h.offers[try.offer] = d.h.offers[try.offer].after(d.now, d.config.Backoff, "launches fail without a reason")
		}
	}
}

// sighted takes up one listed instance. A stranger is one that was not known: its tags say what it is, and are read once.
func (d *decision) sighted(m *machine, in *provider.Instance, stranger bool, k *keeper) {
	if in.State == provider.Failed || in.State == provider.Terminated {
		if r := d.roleOf(m.slot.role); r != nil && r.Serves == Database {
			d.plan.ended[r.Name] = append(d.plan.ended[r.Name], in.ID)
		}
	}
	if !in.State.Gone() {
		k.keep(found{was: m, in: in})
		return
	}
	d.h.slot(m.slot).sighted(m)
	d.plan.left = d.plan.left || in.State == provider.Terminating
	if in.State == provider.Terminated {
		d.h.gone[in.ID] = d.now
	}
	if !stranger {
		if m.ended.IsZero() && d.end == nil {
			d.event(HostCrash, m, "the machine has ended by itself%s", because(in.Reason))
			d.cameToNothing(m)
		}
		d.event(HostDown, m, "the machine is gone%s", because(in.Reason))
	}
}

// machine is an instance that a list shows for the first time, as its tags say.
func (c *cloud) machine(in *provider.Instance) *machine {
	s, ok := slotOf(in.Tags)
	if !ok {
		s = slot{} // ours by the farm's tag, and in no slot: nobody wants it
	}
	generation, _ := strconv.Atoi(in.Tags[TagGeneration])
	return &machine{id: in.ID, slot: s, place: -1, generation: generation, cloud: c.id, pool: c.poolNamed(in.Tags[TagPool]), build: in.Tags[TagBuild]}
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
		if d.absent {
			for _, m := range d.h.machines {
				if m.cloud == c.id {
					total++
					if !m.missing.IsZero() {
						missing++
					}
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
		if missing == 0 {
			continue
		}
		d.h.machines = slices.DeleteFunc(d.h.machines, func(m *machine) bool {
			if m.cloud != c.id || m.missing.IsZero() || d.now.Sub(m.missing) < patience {
				return false
			}
			d.h.gone[m.id] = d.now
			d.event(HostDown, m, "the machine has not been listed for %v", d.now.Sub(m.missing))
			if d.end == nil {
				d.cameToNothing(m)
			}
			m.at = nil
			return true
		})
	}
}

// distrusted reports whether the machine's cloud shows a view that is not to be acted on.
func (d *decision) distrusted(m *machine) bool {
	since := d.h.clouds[m.cloud].distrust
	return !since.IsZero() && d.now.Sub(since) < d.config.ShrinkPatience
}

// arrange puts the machines into the order of their roles and indices, and gives each the place in memory that it takes then.
func (d *decision) arrange() {
	order := d.order
	if d.absent {
		order = slices.DeleteFunc(order, func(m *machine) bool { return m.at == nil }) // which has been taken off the books
	}
	if !slices.IsSortedFunc(order, bySlot) { // most passes find what the last one has left
		slices.SortFunc(order, bySlot)
	}
	d.byRole = map[string][]*machine{}
	for first, i := 0, 0; i < len(order); i++ {
		order[i].place = i
		if role := order[i].slot.role; i+1 == len(order) || order[i+1].slot.role != role {
			d.byRole[role], first = order[first:i+1:i+1], i+1
		}
	}
}

func bySlot(a, b *machine) int {
	if a.slot.role != b.slot.role {
		return strings.Compare(a.slot.role, b.slot.role)
	}
	if a.slot.index != b.slot.index {
		return cmp.Compare(a.slot.index, b.slot.index)
	}
	return cmp.Or(strings.Compare(a.id, b.id), a.cloud-b.cloud)
}

// judge says of each machine whether it serves.
func (d *decision) judge() {
	for _, role := range sortedKeys(d.byRole) {
		r := d.roleOf(role)
		for _, m := range d.byRole[role] {
			d.judgeOne(r, m)
		}
	}
}

func (d *decision) judgeOne(r *Role, m *machine) {
	was := m.ready
	m.ready, m.why = d.serves(r, m)
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

// serves reports whether the machine works and its hooks have let it serve.
func (d *decision) serves(r *Role, m *machine) (bool, string) {
	if !m.started && d.config.holds(HostStarting, m.slot.role) {
		err, asked := d.o.held[m.id]
		_, waiting := errors.AsType[underWay](err)
		switch {
		case !asked && m.state != provider.Running:
			return d.works(r, m)
		case !asked:
			return false, "its hooks have not been asked yet"
		case waiting && m.acked.IsZero() && d.found(m):
			return d.works(r, m) // a run of the program before this one has let it serve
		case err != nil:
			return false, err.Error()
		}
		m.started = true
	}
	return d.works(r, m)
}

// found reports whether clients could find the machine when the pass began.
func (d *decision) found(m *machine) bool {
	return d.spec.Zone != "" && d.o.zoneErr == nil && d.inZone(m) || slices.ContainsFunc(d.o.clouds, func(c cloud) bool {
		return slices.ContainsFunc(c.balancers.items, func(b provider.Balancer) bool {
			return slices.ContainsFunc(b.Targets, func(t provider.Target) bool { return t.Instance == m.id })
		})
	})
}

func (d *decision) works(r *Role, m *machine) (bool, string) {
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
			return s.Serves, "is " + string(s.Role) + because(s.Why())
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
