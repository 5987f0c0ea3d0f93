package farm

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/scalr-go/scalr/cache"
	"github.com/scalr-go/scalr/provider"
	"github.com/scalr-go/scalr/replication"
)

// role decides for one role: how many machines, in which slots, what to launch, to mend and to end.
func (d *decision) role(r *Role) {
	machines := d.byRole[r.Name]
	var held []*machine
	for _, m := range machines {
		if m.at.holder == m {
			held = append(held, m)
		}
	}
	mem := d.h.roles[r.Name]
	if len(machines) > 0 {
		mem.launched = true
		d.h.roles[r.Name] = mem
	}
	if unseen := d.unseen(); unseen != "" {
		d.wait(r.Name, 0, "pool %s has not been listed yet: what is there is not known", unseen)
		for _, m := range held {
			m.at.wants = true
		}
		d.serverList(r, held)
		return
	}
	staying := 0
	for _, m := range held {
		if m.draining.IsZero() {
			staying++
		}
	}
	want := d.desired(r, staying, d.ready[r.Name])
	d.plan.Desired[r.Name] = want
	empty := d.choose(r, held, want.Count)
	ill := d.count(r, held, len(empty))
	for _, m := range held {
		if m.at.wants {
			d.keep(r, m, ill)
		} else {
			d.retire(r, m, want)
		}
	}
	for _, s := range empty {
		d.launch(r, s)
	}
	d.serverList(r, held)
	d.connect(r, held)
}

// unseen names a pool whose machines have never been listed: without it nobody can say what is missing.
func (d *decision) unseen() string {
	for _, c := range d.o.clouds {
		if !d.h.clouds[c.id].listed {
			return c.pools[0].Name
		}
	}
	return ""
}

// choose notes which slots the role is to have and gives those of them that are empty. When there are too
// many machines, the ones to go are those that are on their way out already, then those that do not serve, then the highest;
// never the primary. When there are too few, a slot comes first that may have a machine after all, then one that had one a
// moment ago, then one that owns a volume or an address, then the lowest.
func (d *decision) choose(r *Role, held []*machine, count int) (empty []slot) {
	if count < len(held) {
		held = slices.Clone(held)
		slices.SortStableFunc(held, func(a, b *machine) int {
			return cmp.Or(trueFirst(d.primary(a), d.primary(b)), trueFirst(a.draining.IsZero(), b.draining.IsZero()),
				trueFirst(a.ready, b.ready), a.slot.index-b.slot.index)
		})
		held = held[:count]
	}
	for _, m := range held {
		m.at.wants = true
	}
	missing := count - len(held)
	if missing == 0 {
		return nil
	}
	var known []slot
	for s, mem := range d.h.slots {
		if s.role == r.Name && mem.holder == nil && (mem.unresolved || mem.wanted || d.owns(s)) {
			known = append(known, s)
		}
	}
	slices.SortFunc(known, func(a, b slot) int {
		x, y := d.h.slots[a], d.h.slots[b]
		return cmp.Or(trueFirst(x.unresolved, y.unresolved), trueFirst(x.wanted, y.wanted), a.index-b.index)
	})
	empty = known[:min(missing, len(known))]
	for _, s := range empty {
		d.h.slot(s).wants = true
	}
	for i := 1; len(empty) < missing; i++ {
		s := slot{r.Name, i}
		if mem := d.h.slot(s); !mem.wants && mem.holder == nil {
			mem.wants = true
			empty = append(empty, s)
		}
	}
	slices.SortFunc(empty, func(a, b slot) int { return a.index - b.index })
	return empty
}

// owns reports whether the slot has a volume or an address.
func (d *decision) owns(s slot) bool {
	return len(d.belongings.volumes[s]) > 0 || slices.ContainsFunc(d.o.clouds, func(c cloud) bool {
		return d.belongings.addresses[place{c.id, s}] != nil
	})
}

// launch puts a machine into a slot, or says why not now.
func (d *decision) launch(r *Role, s slot) {
	mem := d.h.slot(s)
	if !d.h.roles[r.Name].launched && !mem.unresolved {
		for _, after := range r.After {
			if other := d.roleOf(after); d.ready[after] < other.Min {
				d.wait(r.Name, s.index, "waits for role %s: %d of %d serve", after, d.ready[after], other.Min)
				return
			}
		}
	}
	if left := mem.retry.until.Sub(d.now); left > 0 {
		d.wait(r.Name, s.index, "%s: next try in %v", mem.retry.reason, left.Round(time.Second))
		return
	}
	if mem.unresolved && mem.tries >= 3 {
		d.wait(r.Name, s.index, "%d launches in pool %s have failed without a reason: waits for lists to show what became of them", mem.tries, mem.offer.pool)
		return
	}
	disk, ok := d.disk(r, s)
	if !ok {
		return
	}
	o, reason := d.offer(r, s, disk)
	if o.pool == "" {
		d.wait(r.Name, s.index, "%s", reason)
		d.moveVolume(r, s, disk)
		return
	}
	if r.Volume != nil && disk == nil {
		d.createVolume(r, s, o)
		return
	}
	step := Step{Action: LaunchInstance, Role: r.Name, Index: s.index, Pool: o.pool, Size: o.size,
		Image: or(d.config.pool(o.pool).Images[r.Image], r.Image), Generation: mem.generation + 1, Reason: reason}
	if mem.unresolved {
		step.Generation, step.Reason = mem.generation, "the outcome of the last try is not known: the same again"
	}
	if disk != nil {
		step.Volumes = []string{disk.ID}
	}
	d.step(step)
}

// offer chooses the pool and the size for a machine: the next pool of the same provider, then the next size, then the
// next provider.
func (d *decision) offer(r *Role, s slot, disk *provider.Volume) (offer, string) {
	mem := d.h.slot(s)
	pools := d.config.poolsOf(r)
	if disk != nil {
		// A disk cannot leave its placement: it decides before any fallback.
		pools = slices.DeleteFunc(pools, func(p *Pool) bool { return p.Name != disk.Tags[TagPool] })
		if len(pools) == 0 {
			return offer{}, fmt.Sprintf("volume %s is in pool %q, where the role may not be", disk.ID, disk.Tags[TagPool])
		}
	}
	var skipped []string
	for _, c := range d.o.clouds {
		if c.instances.err != nil {
			for _, p := range c.pools {
				pools = slices.DeleteFunc(pools, func(q *Pool) bool { return q == p })
			}
			skipped = append(skipped, fmt.Sprintf("pool %s cannot be listed", c.pools[0].Name))
		}
	}
	if mem.unresolved {
		if !slices.ContainsFunc(pools, func(p *Pool) bool { return p.Name == mem.offer.pool }) {
			return offer{}, fmt.Sprintf("a launch in pool %s may have taken effect, and the pool cannot be listed", mem.offer.pool)
		}
		return mem.offer, "the outcome of the last try is not known"
	}
	for len(pools) > 0 {
		first := pools[0].Provider
		for _, size := range append([]string{r.Size}, r.Fallback...) {
			for _, p := range pools {
				if p.Provider != first {
					continue
				}
				o := offer{p.Name, or(p.Sizes[size], size)}
				if b := d.h.offers[o]; b.until.After(d.now) {
					skipped = append(skipped, strings.TrimSpace(fmt.Sprintf("%s in %s: %s until %s", o.size, p.Name, b.reason, b.until.UTC().Format("15:04:05"))))
					continue
				}
				reason := fmt.Sprintf("slot %s is empty", s.name())
				if len(skipped) > 0 {
					reason += " (not " + strings.Join(skipped, "; ") + ")"
				}
				return o, reason
			}
		}
		pools = slices.DeleteFunc(pools, func(p *Pool) bool { return p.Provider == first })
	}
	return offer{}, strings.Join(skipped, "; ")
}

// keep looks after the machine that holds a wanted slot.
func (d *decision) keep(r *Role, m *machine, ill illness) {
	m.draining, m.surplus = time.Time{}, time.Time{}
	if !m.missing.IsZero() {
		d.wait(r.Name, m.slot.index, "%s has been missing from lists for %v", m.id, d.now.Sub(m.missing).Round(time.Second))
	}
	if why := d.broken(r, m); why != "" {
		if not := d.spare(r, m, ill); not != "" {
			d.wait(r.Name, m.slot.index, "%s %s; it is kept: %s", m.id, why, not)
			return
		}
		d.cameToNothing(m)
		d.terminate(m, why)
		return
	}
	switch {
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
	if m.missing.IsZero() {
		d.register(r, m)
	}
	m.at.addr = m.private
}

// broken says why a machine should be replaced, or "".
func (d *decision) broken(r *Role, m *machine) string {
	switch {
	case m.ready:
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
	held   int      // machines that hold a slot
	broken int      // of these, how many should be replaced
	first  *machine // the first of the broken
	rising int      // wanted slots whose machine does not serve yet, or that have none
}

func (d *decision) count(r *Role, held []*machine, empty int) illness {
	ill := illness{held: len(held), rising: empty}
	for _, m := range held {
		switch {
		case d.broken(r, m) != "":
			ill.first = or(ill.first, m)
			ill.broken++
		case !m.ready:
			ill.rising++
		}
	}
	return ill
}

// spare says why a machine that should be replaced is to stay for now, or "". What takes many at once is more likely to have
// one cause than to be many broken machines, and to replace them all would be the end of the role.
func (d *decision) spare(r *Role, m *machine, ill illness) string {
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
	if !m.acked.IsZero() && m.readyAt.IsZero() {
		return "" // it was launched by this program and has never served: nothing is lost
	}
	if ill.broken >= 3 && 2*ill.broken > ill.held {
		return fmt.Sprintf("%d of %d machines do not serve, so that a common cause is likelier than broken machines", ill.broken, ill.held)
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

// cameToNothing makes the slot and the offer of a machine that never served wait before they are tried again.
func (d *decision) cameToNothing(m *machine) {
	if !m.readyAt.IsZero() {
		return
	}
	m.at.retry = m.at.retry.after(d.now, d.config.Backoff, "the last machine came to nothing")
	o := offer{m.pool, m.size}
	d.h.offers[o] = d.h.offers[o].after(d.now, d.config.Backoff, "a machine came to nothing")
}

// retire takes a machine out of service and ends it when its clients have had time to leave.
func (d *decision) retire(r *Role, m *machine, want Desired) {
	why := fmt.Sprintf("role %s is to have %d machines", r.Name, want.Count)
	if d.end != nil {
		if other := d.dependent(r); other != "" {
			d.wait(r.Name, m.slot.index, "ends after role %s", other)
			return
		}
		d.terminate(m, why)
		return
	}
	if m.draining.IsZero() {
		m.draining = d.now
	}
	if m.ready {
		d.deregister(r, m, why)
		left := m.draining.Add(r.Drain).Sub(d.now)
		switch {
		case left > 0:
			d.plan.soon = true
			d.wait(r.Name, m.slot.index, "drains for %v more: %s", left, why)
			return
		case d.named(m):
			d.wait(r.Name, m.slot.index, "is still in the zone: %s", why)
			return
		}
	}
	d.terminate(m, why)
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
	d.step(Step{Action: TerminateInstance, Role: m.slot.role, Index: m.slot.index, Pool: m.pool, Subject: m.id, Reason: why})
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
	if first {
		m.surplus = d.now
	}
	switch left := m.surplus.Add(d.config.Grace).Sub(d.now); {
	case !m.ended.IsZero() && d.now.Sub(m.ended) < d.config.ListLag:
		d.plan.soon = true // the lists have not caught up yet
	case d.end != nil && r != nil && d.dependent(r) != "":
		d.wait(m.slot.role, m.slot.index, "ends after role %s", d.dependent(r))
	case d.end != nil:
		d.terminate(m, "the farm is to end")
	case dead(m):
		if first && m.ended.IsZero() {
			d.event(HostCrash, m, "the machine has %s%s", m.state, because(m.reason))
			d.cameToNothing(m)
		}
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

// serverList tells what machines hold the role's slots.
func (d *decision) serverList(r *Role, held []*machine) {
	for _, m := range held {
		if m.private.IsValid() {
			d.plan.servers = append(d.plan.servers, Server{ID: m.id, Name: m.at.name, Role: r.Name, Index: m.slot.index,
				Pool: m.pool, State: m.state, Ready: m.ready && m.draining.IsZero(), Primary: d.primary(m), Private: m.private,
				Public: publicOf(m.private, m.public), Port: r.Port})
		}
	}
}

// connect says who the members of a database and the servers of a cache are.
func (d *decision) connect(r *Role, held []*machine) {
	switch r.Serves {
	case Database:
		members := []replication.Member{}
		for _, m := range held {
			if m.private.IsValid() && m.state == provider.Running {
				members = append(members, replication.Member{ID: m.at.name, Addr: hostPort(m.private, r.Port), Machine: m.id, Pool: m.pool})
			}
		}
		d.plan.members[r.Name] = members
	case Cache:
		// A slot keeps its keys while its machine is being replaced: its server stays in the set.
		var servers []cache.Server
		for s, mem := range d.h.slots {
			if s.role == r.Name && mem.wants && mem.addr.IsValid() {
				servers = append(servers, cache.Server{Slot: mem.name, Addr: hostPort(mem.addr, r.Port)})
			}
		}
		slices.SortFunc(servers, func(a, b cache.Server) int { return cmp.Or(len(a.Slot)-len(b.Slot), cmp.Compare(a.Slot, b.Slot)) })
		d.plan.caches[r.Name] = servers
	}
}

func hostPort(a netip.Addr, port int) string { return netip.AddrPortFrom(a, uint16(port)).String() }

func tagsOf(farm string, s slot, pool string) map[string]string {
	return map[string]string{TagFarm: farm, TagRole: s.role, TagIndex: strconv.Itoa(s.index), TagPool: pool}
}

func launchTags(farm string, s *Step) map[string]string {
	tags := tagsOf(farm, slot{s.Role, s.Index}, s.Pool)
	tags[TagGeneration] = strconv.Itoa(s.Generation)
	return tags
}
