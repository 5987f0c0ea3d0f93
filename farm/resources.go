package farm

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/scalr-go/scalr/provider"
)

// belongings are what the lists show beside machines, by whom it belongs to.
type belongings struct {
	volumes   map[slot][]*provider.Volume // the one to use first: that in use, then the oldest
	addresses map[place]*provider.Address // of several the one in use, then the first
	balancers map[[2]string]*provider.Balancer
	targets   map[[2]string]bool // balancer and instance: registered, and not draining
}

// place is a slot in a cloud.
type place struct {
	cloud int
	slot  slot
}

// sort finds out whom things belong to, once for all who ask.
func (b *belongings) sort(clouds []cloud) {
	b.volumes, b.addresses = map[slot][]*provider.Volume{}, map[place]*provider.Address{}
	b.balancers, b.targets = map[[2]string]*provider.Balancer{}, map[[2]string]bool{}
	for i := range clouds {
		c := &clouds[i]
		for i := range c.volumes.items {
			v := &c.volumes.items[i]
			if s, ok := slotOf(v.Tags); ok {
				b.volumes[s] = append(b.volumes[s], v)
			}
		}
		for i := range c.addresses.items {
			a := &c.addresses.items[i]
			if s, ok := slotOf(a.Tags); ok {
				if found := b.addresses[place{c.id, s}]; found == nil || found.Instance == "" && a.Instance != "" {
					b.addresses[place{c.id, s}] = a
				}
			}
		}
		for i := range c.balancers.items {
			l := &c.balancers.items[i]
			if key := [2]string{l.Tags[TagRole], l.Tags[TagPool]}; b.balancers[key] == nil {
				b.balancers[key] = l
			}
			for _, t := range l.Targets {
				if t.State != provider.TargetDraining {
					b.targets[[2]string{l.ID, t.Instance}] = true
				}
			}
		}
	}
	for _, found := range b.volumes {
		if len(found) > 1 {
			slices.SortFunc(found, func(a, b *provider.Volume) int {
				return cmp.Or(trueFirst(a.Instance != "", b.Instance != ""), a.Created.Compare(b.Created), cmp.Compare(a.ID, b.ID))
			})
		}
	}
}

// disk finds the volume of a slot. Not ok means that no machine may be launched into the slot now; a nil volume that is
// ok is one that the role does not want or that is yet to be created.
func (d *decision) disk(r *Role, s slot) (v *provider.Volume, ok bool) {
	if r.Volume == nil {
		return nil, true
	}
	for _, c := range d.o.clouds {
		if c.volumes.err != nil {
			d.wait(r.Name, s.index, "the volumes of pool %s cannot be listed", c.pools[0].Name)
			return nil, false
		}
	}
	v = d.volumeOf(s)
	if v == nil {
		return nil, true
	}
	holder := d.machine(v.Instance)
	switch {
	case !v.Ready:
		d.wait(r.Name, s.index, "volume %s is not ready", v.ID)
	case v.Instance == "":
		return v, true
	case holder != nil:
		d.wait(r.Name, s.index, "volume %s is still with %s", v.ID, v.Instance)
	default:
		d.detach(v, s)
	}
	return nil, false
}

// detach takes a volume from a machine that is known to have ended. A machine that is merely not known may be one that a
// person has given the volume to, or one that lists do not show yet.
func (d *decision) detach(v *provider.Volume, s slot) {
	if _, gone := d.h.gone[v.Instance]; !gone {
		d.wait(s.role, s.index, "volume %s is with %s, which is no machine of the farm", v.ID, v.Instance)
		return
	}
	d.step(Step{Action: DetachVolume, Role: s.role, Index: s.index, Pool: v.Tags[TagPool], Subject: v.ID, Instance: v.Instance,
		Reason: "its machine is gone"})
}

// machine gives the known machine of that ID, or nil.
func (d *decision) machine(id string) *machine {
	for i := range d.o.clouds {
		if at, ok := d.h.find(d.o.clouds[i].id, id); ok {
			return d.h.machines[at]
		}
	}
	return nil
}

// volumeOf gives the volume of a slot, or nil.
func (d *decision) volumeOf(s slot) *provider.Volume {
	found := d.belongings.volumes[s]
	if len(found) == 0 {
		return nil
	}
	for _, v := range found[1:] {
		// Data is never deleted on a suspicion: a person, or the end of the farm, does that.
		d.wait(s.role, s.index, "volume %s belongs to the slot too; %s is used", v.ID, found[0].ID)
	}
	key := thing{kind: "volume", slot: s}
	d.listed(key)
	if m := d.h.made[key]; found[0].Instance != "" && m.fresh != "" {
		m.fresh = ""
		d.h.made[key] = m
	}
	return found[0]
}

// creating asks whether something may be created now: not if it has been and is still to turn up. After a try whose outcome
// is not known only the same may be repeated, some times: at says where that was.
func (d *decision) creating(key thing) (at offer, ok bool) {
	m := d.h.made[key]
	switch {
	case m.at.IsZero():
		return offer{}, true
	case d.now.Sub(m.at) < d.config.ListLag:
		return m.offer, m.tries > 0 && m.tries < 3
	}
	if m.tries > 0 {
		d.h.offers[m.offer] = d.h.offers[m.offer].after(d.now, d.config.Backoff, "creations fail without a reason")
	}
	m.at, m.tries, m.try = time.Time{}, 0, m.try+1
	d.h.made[key] = m
	return offer{}, true
}

// listed notes that a list shows what was created.
func (d *decision) listed(key thing) {
	if m, ok := d.h.made[key]; ok && !m.at.IsZero() {
		m.at = time.Time{}
		d.h.made[key] = m
	}
}

func (d *decision) createVolume(r *Role, s slot, o offer, from shot) {
	if left := d.config.ListLag - d.now.Sub(d.h.started); left > 0 {
		// An earlier run of the program may have made one just now, in another pool. Of machines that come to be twice one
		// is ended; a volume may hold data, and is never ended on a suspicion.
		d.wait(r.Name, s.index, "looks for a volume of an earlier run for %v more", left)
		d.plan.soon = true
		return
	}
	key := thing{kind: "volume", slot: s}
	at, ok := d.creating(key)
	if !ok {
		d.wait(r.Name, s.index, "its volume in pool %s is being created", at.pool)
		return
	}
	o = or(at, o)
	step := Step{Action: CreateVolume, Role: r.Name, Index: s.index, Pool: o.pool, Size: o.size,
		Reason: fmt.Sprintf("slot %s wants a volume of %d GB for its machine", s.name(), r.Volume.SizeGB)}
	if at == (offer{}) {
		step.from(from, r.Volume.SizeGB)
	} else {
		step.again(d.h.made[key])
	}
	d.step(step)
}

// moveVolume lets a slot fall back to another pool although its volume cannot leave its own: a volume that this program
// has created itself and that no machine has ever had is empty, and is deleted.
func (d *decision) moveVolume(r *Role, s slot, v *provider.Volume) {
	if v == nil || v.Instance != "" || d.h.made[thing{kind: "volume", slot: s}].fresh != v.ID {
		return
	}
	if v.Tags[TagSnapshot] != "" {
		if r = d.within(r, d.cloudHaving(v)); r == nil {
			return // its snapshot is nowhere else
		}
	}
	if o, _ := d.offer(r, s, nil); o.pool != "" {
		d.step(Step{Action: DeleteVolume, Role: r.Name, Index: s.index, Pool: v.Tags[TagPool], Subject: v.ID,
			Reason: fmt.Sprintf("it has never been used, and pool %s has room for its machine", o.pool)})
	}
}

// attach gives the slot's volume to its machine where the launch has not.
func (d *decision) attach(r *Role, m *machine) {
	if r.Volume == nil {
		return
	}
	v := d.volumeOf(m.slot)
	switch {
	case v == nil || !v.Ready || v.Instance == m.id:
	case v.Instance == "":
		d.step(Step{Action: AttachVolume, Role: r.Name, Index: m.slot.index, Pool: m.pool, Subject: v.ID, Instance: m.id,
			Reason: "the slot's machine does not have it yet"})
	case d.machine(v.Instance) == nil:
		d.detach(v, m.slot)
	}
}

// address gives the slot's public address to its machine, allocating it first.
func (d *decision) address(r *Role, m *machine) {
	if !r.Address {
		return
	}
	c := d.cloudOf(m)
	if c == nil || c.addresses.err != nil {
		return
	}
	a := d.belongings.addresses[place{c.id, m.slot}]
	key := thing{"address", m.slot, m.pool}
	switch {
	case a == nil:
		if _, ok := d.creating(key); !ok {
			d.wait(r.Name, m.slot.index, "its address is being allocated")
			return
		}
		d.step(Step{Action: AllocateAddress, Role: r.Name, Index: m.slot.index, Pool: m.pool,
			Reason: fmt.Sprintf("slot %s wants an address", m.at.name)})
	case a.Instance != m.id:
		d.listed(key)
		d.step(Step{Action: AssociateAddress, Role: r.Name, Index: m.slot.index, Pool: m.pool, Subject: a.ID, Instance: m.id,
			Reason: fmt.Sprintf("%s is the address of slot %s", a.Addr, m.at.name)})
	default:
		d.listed(key)
	}
}

// slotAddress gives the address of the machine's slot, if the machine has it.
func (d *decision) slotAddress(m *machine) netip.Addr {
	if a := d.belongings.addresses[place{m.cloud, m.slot}]; a != nil && a.Instance == m.id {
		return a.Addr
	}
	return netip.Addr{}
}

func (d *decision) cloudOf(m *machine) *cloud {
	for i := range d.o.clouds {
		if d.o.clouds[i].id == m.cloud {
			return &d.o.clouds[i]
		}
	}
	return nil
}

// balancerOf gives the balancer of a role in a pool.
func (d *decision) balancerOf(role, pool string) *provider.Balancer {
	b := d.belongings.balancers[[2]string{role, pool}]
	if b != nil {
		d.listed(thing{"balancer", slot{role: role}, pool})
	}
	return b
}

// register puts a machine that serves behind its pool's balancer.
func (d *decision) register(r *Role, m *machine) {
	c := d.cloudOf(m)
	if r.Balancer == nil || c == nil || c.balancers.err != nil {
		return
	}
	b := d.balancerOf(r.Name, m.pool)
	if b == nil || !b.Ready || d.belongings.targets[[2]string{b.ID, m.id}] || d.unsure(r, m) {
		return
	}
	d.step(Step{Action: RegisterTarget, Role: r.Name, Index: m.slot.index, Pool: m.pool, Subject: b.ID, Instance: m.id, Reason: "it serves"})
}

// deregister lets the balancer drain a machine.
func (d *decision) deregister(r *Role, m *machine, why string) {
	b := d.balancerOf(r.Name, m.pool)
	if b != nil && d.belongings.targets[[2]string{b.ID, m.id}] {
		d.step(Step{Action: DeregisterTarget, Role: r.Name, Index: m.slot.index, Pool: m.pool, Subject: b.ID, Instance: m.id, Reason: why})
	}
}

// resources creates the balancers that are missing, and releases and deletes what nobody wants any more.
func (d *decision) resources() {
	needed := map[[2]string]bool{}
	for i := range d.spec.Roles {
		r := &d.spec.Roles[i]
		if r.Balancer == nil || d.end != nil {
			continue
		}
		for _, p := range d.pools(r) {
			if !slices.ContainsFunc(d.byRole[r.Name], func(m *machine) bool { return m.pool == p.Name && (m.at.wants || m.parting) }) {
				continue
			}
			needed[[2]string{r.Name, p.Name}] = true
			if d.balancerOf(r.Name, p.Name) != nil || d.poolErr(p.Name, func(c cloud) error { return c.balancers.err }) {
				continue
			}
			if _, ok := d.creating(thing{"balancer", slot{role: r.Name}, p.Name}); !ok {
				d.wait(r.Name, 0, "its balancer in pool %s is being created", p.Name)
				continue
			}
			d.step(Step{Action: CreateBalancer, Role: r.Name, Pool: p.Name, Reason: "the role has machines in the pool"})
		}
	}
	for i := range d.o.clouds {
		c := &d.o.clouds[i]
		for _, b := range c.balancers.items {
			role, pool := b.Tags[TagRole], b.Tags[TagPool]
			d.plan.left = true
			if needed[[2]string{role, pool}] {
				delete(d.h.extras, b.ID)
				continue
			}
			if why, ok := d.spent(b.ID, "the role has no machine in the pool"); ok {
				d.step(Step{Action: DeleteBalancer, Role: role, Pool: c.poolNamed(pool), Subject: b.ID, Reason: why})
			}
		}
		d.releaseAddresses(c)
	}
	d.endVolumes()
}

// spent reports whether something that nobody wants has been so for the grace period, and why it goes. It is never so while
// a list is missing that could show who wants it.
func (d *decision) spent(id, why string) (string, bool) {
	if d.end != nil {
		return "the farm is to end", true
	}
	d.untidy = true
	since, noted := d.h.extras[id]
	if !noted {
		d.h.extras[id] = d.now
	}
	if !noted || d.unseen() != "" || d.now.Sub(since) < d.config.Grace {
		return "", false
	}
	return fmt.Sprintf("%s, for %v", why, d.config.Grace), true
}

// releaseAddresses gives back the addresses of slots that have gone, or have moved to another provider, and those that a
// slot has twice.
func (d *decision) releaseAddresses(c *cloud) {
	for i := range c.addresses.items {
		a := &c.addresses.items[i]
		if d.end != nil && d.end.KeepAddresses {
			continue
		}
		d.plan.left = true
		s, ok := slotOf(a.Tags)
		r, first, here := d.roleOf(s.role), ok && d.belongings.addresses[place{c.id, s}] == a, false
		if mem := d.h.slots.get(s); mem != nil {
			here = mem.holder != nil && mem.holder.cloud == c.id || mem.holder == nil && mem.wants
		}
		if d.end == nil && first && here && r != nil && r.Address {
			delete(d.h.extras, a.ID)
			continue
		}
		if why, ok := d.spent(a.ID, "nobody wants it"); ok {
			d.step(Step{Action: ReleaseAddress, Role: s.role, Index: s.index, Pool: c.poolNamed(a.Tags[TagPool]), Subject: a.ID, Reason: why})
		}
	}
}

// poolErr reports whether a listing of the pool's cloud failed.
func (d *decision) poolErr(pool string, of func(cloud) error) bool {
	for _, c := range d.o.clouds {
		for _, p := range c.pools {
			if p.Name == pool {
				return of(c) != nil
			}
		}
	}
	return true
}

// poolNamed gives the name if it is a pool of the cloud, or else its first pool: things may bear the name of a pool that
// the configuration no longer has.
func (c *cloud) poolNamed(name string) string {
	for _, p := range c.pools {
		if p.Name == name {
			return name
		}
	}
	return c.pools[0].Name
}
