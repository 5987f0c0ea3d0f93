package farm

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strconv"

	"github.com/scalr-go/scalr/cache"
	"github.com/scalr-go/scalr/provider"
	"github.com/scalr-go/scalr/replication"
)

// role decides for one role: how many machines, in which slots, what to launch, to mend and to end.
func (d *decision) role(r *Role) {
	machines := d.byRole[r.Name]
	held := make([]*machine, 0, len(machines))
	for _, m := range machines {
		if m.at.holder == m {
			held = append(held, m)
		}
	}
	d.plan.servers.roles, d.plan.servers.held = append(d.plan.servers.roles, r), append(d.plan.servers.held, held)
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
		return
	}
	there, here := d.part(r, held)
	d.moved(r, there, here)
	want := d.desired(r, max(stayers(there)-r.warm(), stayers(here)-r.warm(), 0), d.ready[r.Name], d.late(r, held))
	d.plan.Desired[r.Name] = want
	d.doom(r, held)
	total := want.Count
	if d.end == nil {
		total += r.warm()
	}
	d.relocate(r, d.settling(r, there, here, total))
	d.update(r, there)
	d.balance(r, there, total)
	empty := d.choose(r, there, total)
	d.muster(r, there, want.Count)
	d.muster(r, here, want.Count)
	ill := d.count(r, held, len(empty))
	for _, m := range held {
		if m.at.wants && m.leaving == "" {
			d.keep(r, m, ill)
		} else {
			d.retire(r, m, want, ill)
		}
	}
	for _, s := range empty {
		d.launch(r, s)
	}
	d.leftBehind(r, held)
	d.tellMove(r)
	d.tellUpdate(r, there)
	d.connect(r, held)
}

// stayers counts the machines that are not on their way out.
func stayers(held []*machine) (n int) {
	for _, m := range held {
		if m.draining.IsZero() {
			n++
		}
	}
	return n
}

// late counts the machines that have not served for so long, since their launch or their failure, that nobody should wait for
// them: half the launch time-out.
func (d *decision) late(r *Role, held []*machine) (n int) {
	for _, m := range held {
		if m.ready || !m.warm.IsZero() || !m.draining.IsZero() {
			continue
		}
		since := m.launched
		if m.down.After(since) {
			since = m.down
		}
		if d.now.Sub(since) > r.LaunchTimeout/2 {
			n++
		}
	}
	return n
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

// doom makes machines leave that their cloud is about to take back.
func (d *decision) doom(r *Role, held []*machine) {
	if len(d.o.doomed) == 0 || r.owns() {
		return
	}
	for _, m := range held {
		if why, doomed := d.o.doomed[m.id]; doomed && m.leaving == "" && m.draining.IsZero() {
			m.leaving = "its cloud takes it back" + because(why)
			d.event(HostDoomed, m, "%s: a successor is launched", m.leaving)
		}
	}
}

// owns reports whether a slot of the role owns what only its own next machine can have.
func (r *Role) owns() bool { return r.Serves == Database || r.Volume != nil || r.Address }

// balance keeps a role that is to be spread even: while one pool has two machines more than another one that has room, a
// machine of the first leaves.
func (d *decision) balance(r *Role, held []*machine, count int) {
	if !r.Spread || r.owns() {
		return
	}
	in := map[string]int{}
	var moving *machine
	quiet, staying := true, 0
	for _, m := range held {
		switch {
		case m.moving:
			moving = m
			continue // its successor is to come in its place
		case m.leaving != "" || !m.draining.IsZero() || !m.ready && m.warm.IsZero():
			quiet = false
		}
		if m.leaving == "" {
			staying++
			in[m.pool]++
		}
	}
	var full, bare *Pool
	for _, p := range d.config.poolsOf(r) {
		if d.poolErr(p.Name, func(c cloud) error { return c.instances.err }) {
			quiet = false
			continue
		}
		if full == nil || in[p.Name] > in[full.Name] {
			full = p
		}
		if (bare == nil || in[p.Name] < in[bare.Name]) && !d.h.offers[offer{p.Name, or(p.Sizes[r.Size], r.Size), r.Spot}].until.After(d.now) {
			bare = p
		}
	}
	switch {
	case moving != nil && moving.draining.IsZero() && staying < count && (bare == nil || in[bare.Name] >= in[moving.pool]):
		moving.moving, moving.leaving = false, "" // there is no room for a successor where it would help
	case moving != nil || !quiet || staying != count || bare == nil || in[full.Name]-in[bare.Name] < 2:
	default:
		for _, m := range slices.Backward(held) {
			if m.pool == full.Name && !d.distrusted(m) {
				m.moving, m.leaving = true, fmt.Sprintf("pool %s has %d machines of the role and pool %s has %d", full.Name, in[full.Name], bare.Name, in[bare.Name])
				return
			}
		}
	}
}

// choose notes which slots the role is to have and gives those of them that are empty. When there are too
// many machines, the ones to go are those that are on their way out already, then those that do not serve, then those that
// the role's Shrink says, then the highest;
// never the primary. When there are too few, a slot comes first that may have a machine after all, then one that had one a
// moment ago, then one that owns a volume or an address, then the lowest.
func (d *decision) choose(r *Role, held []*machine, count int) (empty []slot) {
	room := r.Max + r.warm() - len(held)
	if slices.ContainsFunc(held, func(m *machine) bool { return m.leaving != "" }) {
		held = slices.DeleteFunc(slices.Clone(held), func(m *machine) bool {
			if m.updating && !d.surges(r) && count > 0 {
				m.at.wants = true // by the successor
				count--
			}
			return m.leaving != ""
		})
	}
	if count < len(held) {
		held = slices.Clone(held)
		stays := d.stays(r)
		slices.SortStableFunc(held, func(a, b *machine) int {
			return cmp.Or(trueFirst(d.primary(a), d.primary(b)), trueFirst(a.draining.IsZero(), b.draining.IsZero()),
				trueFirst(a.ready || !a.warm.IsZero(), b.ready || !b.warm.IsZero()), stays(a, b), a.slot.index-b.slot.index)
		})
		held = held[:count]
	}
	for _, m := range held {
		m.at.wants = true
	}
	missing := min(count-len(held), room)
	if missing <= 0 {
		return nil
	}
	var known []*slotMemory
	for mem := range d.h.slots.of(r.Name) {
		if mem.holder == nil && (mem.open != nil || mem.wanted || d.owns(mem.slot)) && !d.stranded(r, mem.slot) {
			known = append(known, mem)
		}
	}
	slices.SortStableFunc(known, func(a, b *slotMemory) int {
		return cmp.Or(trueFirst(a.open != nil, b.open != nil), trueFirst(a.wanted, b.wanted))
	})
	for _, mem := range known[:min(missing, len(known))] {
		mem.wants = true
		empty = append(empty, mem.slot)
	}
	for i := 1; len(empty) < missing; i++ {
		s := slot{r.Name, i}
		if mem := d.h.slot(s); !mem.wants && mem.holder == nil && !d.stranded(r, s) {
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

// roster is the machines that hold slots, as a pass has left them.
type roster struct {
	roles []*Role
	held  [][]*machine // of each of these, sorted by index
	sets  map[string]replication.Topology
}

// of gives the servers of a role, or of all; a machine without an address is none.
func (s roster) of(role string) []Server {
	var servers []Server
	for i, r := range s.roles {
		if role != "" && role != r.Name {
			continue
		}
		for _, m := range s.held[i] {
			if m.private.IsValid() {
				servers = append(servers, Server{ID: m.id, Name: m.at.name, Role: r.Name, Index: m.slot.index,
					Pool: m.pool, State: m.state, Ready: inService(m), Warm: !m.warm.IsZero(), Primary: m.primary(s.sets), Private: m.private,
					Public: publicOf(m.private, m.public), Port: r.Port})
			}
		}
	}
	return servers
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
		d.plan.members[r.Name], d.plan.missing[r.Name] = members, d.orphaned(r, held)
		d.succeeded(r, held)
	case Cache:
		// A slot keeps its keys while its machine is being replaced: its server stays in the set.
		var servers []cache.Server
		for mem := range d.h.slots.of(r.Name) {
			if mem.wants && mem.addr.IsValid() {
				servers = append(servers, cache.Server{Slot: mem.name, Addr: hostPort(mem.addr, r.Port)})
			}
		}
		d.plan.caches[r.Name] = servers
	}
}

// succeeded tells of another primary than the one that this program has known.
func (d *decision) succeeded(r *Role, held []*machine) {
	mem, now := d.h.roles[r.Name], d.o.sets[r.Name].Primary
	if now == "" || now == mem.primary {
		return
	}
	switch i := slices.IndexFunc(held, d.primary); {
	case mem.primary == "":
	case i < 0:
		return // it is told when its machine is seen
	default:
		d.event(PrimaryChanged, held[i], "%s is the primary now, and %s was", now, mem.primary)
	}
	mem.primary = now
	d.h.roles[r.Name] = mem
}

func hostPort(a netip.Addr, port int) string { return netip.AddrPortFrom(a, uint16(port)).String() }

func tagsOf(farm string, s slot, pool string) map[string]string {
	return map[string]string{TagFarm: farm, TagRole: s.role, TagIndex: strconv.Itoa(s.index), TagPool: pool}
}

func launchTags(farm string, s *Step) map[string]string {
	tags := tagsOf(farm, slot{s.Role, s.Index}, s.Pool)
	tags[TagGeneration], tags[TagBuild] = strconv.Itoa(s.Generation), s.Build
	return tags
}
