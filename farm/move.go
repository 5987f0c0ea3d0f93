package farm

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/scalr-go/scalr/provider"
)

// Move takes a role's machines to where the role may be: to Role.Pools. What runs in another pool goes on serving while as many
// machines as the role is to have are launched in these, each in an index of its own, whatever Max says. When all of them serve
// and the zone has their names, a database's primary is switched over to the one that is least behind; then the machines
// elsewhere leave their names and balancers, drain, and are ended, all of them as machines of a role that shrinks are. So clients
// find a server at every moment, and what a machine has is launched, checked and named as ever.
//
// The data of a database comes by replication. A volume cannot leave its pool, so that a role with volumes that is no database
// does not move; a database's volumes stay behind, full, until DeleteVolumes or the farm's end.
//
// Until the first machine elsewhere is ended, or asked its Stopping hook, everything can be taken back by naming the old pools
// again: these machines stay, the primary is switched back, and the new ones are drained and ended. [Plan.Moves] and
// Step.NoReturn mark that point. After it, the same is a move like any other.
//
// A machine elsewhere that fails during the move is not replaced there, unless the role's pools have no room. A policy may
// make the role larger during the move, and not smaller. A database that loses its primary and every copy of its data during
// the move waits for a person to name its old pools again, where its volumes are.
type Move struct {
	// Hold launches the machines and lets them serve, and goes no further.
	Hold bool `json:"hold,omitempty"`
	// DeleteVolumes deletes the volumes that the role has elsewhere, and the data in them, when the move is over.
	DeleteVolumes bool `json:"delete_volumes,omitempty"`
}

// moving is the move of a role in one pass.
type moving struct {
	here, there []*machine // in pools where the role may not be any more, and in those where it may
	pools       []*Pool    // of those that are here
	want, come  int        // how many are to be there, and how many serve there as all should know
	why         string     // why one that is there has not come
	primary     *machine   // here, if it is the database's
	ready       bool       // all are there, serve, and have been seen for long enough
	short       int        // how many machines the role lacks, here and there
	stage       string
}

// part tells machines that are where the role may be from those that are to move.
func (d *decision) part(r *Role, held []*machine) (there, here []*machine) {
	if r.Move == nil || d.end != nil {
		return held, nil
	}
	pools := d.config.poolsOf(r)
	for _, m := range held {
		if slices.ContainsFunc(pools, func(p *Pool) bool { return p.Name == m.pool }) {
			there = append(there, m)
		} else {
			here = append(here, m)
		}
	}
	return there, here
}

// pools gives the pools where the role may be or has machines that are to move.
func (d *decision) pools(r *Role) []*Pool {
	pools := d.config.poolsOf(r)
	if mv := d.moves[r.Name]; mv != nil {
		pools = append(pools, mv.pools...)
	}
	return pools
}

// moved notes whether the role moves, and tells when it has moved.
func (d *decision) moved(r *Role, there, here []*machine) {
	mem := d.h.roles[r.Name]
	if mem.moving && len(here) == 0 && len(there) > 0 && d.end == nil {
		d.event(MoveDone, there[0], "all machines are in pool %s", strings.Join(r.Pools, ", "))
	}
	if mem.moving = len(here) > 0; !mem.moving {
		mem.fronted = time.Time{}
	}
	d.h.roles[r.Name] = mem
}

// settling notes how far the move of a role is; nil if nothing is to move.
func (d *decision) settling(r *Role, there, here []*machine, total int) *moving {
	if len(here) == 0 {
		return nil
	}
	mv := &moving{here: here, there: there, want: total, short: total - len(here) - len(there)}
	for _, m := range here {
		m.at.wants = true
		if p := d.config.pool(m.pool); !slices.Contains(mv.pools, p) {
			mv.pools = append(mv.pools, p)
		}
		if d.primary(m) {
			mv.primary = m
		}
	}
	for _, m := range there {
		switch why := d.astray(r, m); {
		case why == "":
			mv.come++
		case mv.why == "":
			mv.why = fmt.Sprintf("%s %s", m.at.name, why)
		}
	}
	mv.ready = mv.come >= mv.want && d.now.Sub(d.h.started) >= d.config.ListLag
	d.moves[r.Name] = mv
	return mv
}

// astray says why clients may not find the machine yet, or "".
func (d *decision) astray(r *Role, m *machine) string {
	public := r.Serves == Web || r.Serves == ""
	switch {
	case m.leaving != "" || !m.draining.IsZero():
		return "is leaving"
	case d.asleep(r, m):
		return ""
	case !m.ready:
		return "does not serve yet: " + m.why
	case !m.missing.IsZero():
		return "is missing from lists"
	case !m.warm.IsZero():
		return ""
	case r.Address && public && !d.slotAddress(m).IsValid():
		return "has not got its address yet"
	case r.Balancer != nil && !d.balanced(r, m):
		return "is not healthy behind its balancer yet"
	case d.spec.Zone != "" && !d.inZone(m):
		return "is not in the zone yet"
	}
	return ""
}

// relocate decides how far the move of a role goes in this pass. It makes machines leave, or stay after all.
func (d *decision) relocate(r *Role, mv *moving) {
	if mv == nil {
		return
	}
	to := "pool " + strings.Join(r.Pools, ", ")
	leave := false
	d.plan.soon = true
	fronted := d.fronted(r, mv)
	switch {
	case len(mv.there) < mv.want:
		mv.stage = stageLaunch
	case mv.come < mv.want:
		mv.stage = stageServe
		d.wait(r.Name, 0, "moves to %s: %d of %d machines there serve: %s", to, mv.come, mv.want, mv.why)
	case !mv.ready:
		mv.stage = stageServe
		d.wait(r.Name, 0, "moves to %s: looks for %v more at what an earlier run may have done", to, d.config.ListLag-d.now.Sub(d.h.started))
	case r.Move.Hold:
		mv.stage, d.plan.soon = stageServe, false
		d.wait(r.Name, 0, "moves to %s: %d machines there serve, and the move is held", to, mv.come)
	case r.Serves == Database && d.o.sets[r.Name].Primary == "":
		mv.stage = stageSwitchOver
		d.wait(r.Name, 0, "moves to %s: the database has no primary", to)
	case mv.primary != nil:
		mv.stage = stageSwitchOver
		d.takeOver(r, mv)
	case fronted:
		mv.stage = stageNames
		d.wait(r.Name, 0, "moves to %s: clients may still know the balancers elsewhere", to)
	default:
		mv.stage, leave = stageNames, true
		if r.Balancer != nil && d.spec.Zone != "" {
			mv.stage = stageDrain
		}
	}
	for _, m := range mv.here {
		switch {
		case leave && !d.primary(m) && m.leaving == "":
			m.parting, m.leaving = true, "the role moves to "+to
		case !leave && m.parting && m.stopping.IsZero():
			m.parting, m.leaving = false, ""
		}
		m.at.wants = !m.parting
	}
}

// near is how far behind who takes over may be: catching up takes about as long, and writes wait for that. The way between two
// continents takes less.
const near = 250 * time.Millisecond

// calm is for how long a replica must have served before it takes over: what has just been copied is still being written to the disk.
const calm = 5 * time.Second

// takeOver switches the primary over to the machine there that is least behind. While all are behind, writes would wait for as long.
func (d *decision) takeOver(r *Role, mv *moving) {
	lag := func(m *machine) time.Duration { s, _ := d.member(m); return s.Lag }
	heir := slices.MinFunc(mv.there, func(a, b *machine) int {
		return cmp.Or(cmp.Compare(lag(a), lag(b)), a.slot.index-b.slot.index)
	})
	if behind := lag(heir); behind >= near {
		d.wait(r.Name, 0, "moves to pool %s: waits until a replica there is less than %v behind: %s is %v", strings.Join(r.Pools, ", "), near,
			heir.at.name, behind.Round(time.Millisecond))
		return
	}
	if left := heir.readyAt.Add(calm).Sub(d.now); left > 0 {
		d.wait(r.Name, 0, "moves to pool %s: %s takes over in %v, when it has served for %v", strings.Join(r.Pools, ", "), heir.at.name, left, calm)
		return
	}
	d.step(Step{Action: SwitchOver, Role: r.Name, Index: mv.primary.slot.index, Pool: mv.primary.pool, Subject: heir.at.name,
		Reason: fmt.Sprintf("the role moves to pool %s, where all members serve", strings.Join(r.Pools, ", "))})
}

// unsure reports whether an earlier run may have taken the machine out of its names and its balancer, because its role moves. It is not
// put back before this run knows how far the move is.
func (d *decision) unsure(r *Role, m *machine) bool {
	mv := d.moves[r.Name]
	return mv != nil && d.now.Before(d.unresolved(d.h.started, d.config.ListLag)) && slices.Contains(mv.here, m)
}

// balanced reports whether the machine's balancer sends clients to it.
func (d *decision) balanced(r *Role, m *machine) bool {
	b := d.balancerOf(r.Name, m.pool)
	return b != nil && b.Ready && b.Host != "" && slices.ContainsFunc(b.Targets, func(t provider.Target) bool {
		return t.Instance == m.id && t.State == provider.TargetHealthy
	})
}

// fronted reports whether clients may still be sent to the role's balancers in pools that it leaves: the zone has them, or had
// them less than a TTL ago.
func (d *decision) fronted(r *Role, mv *moving) bool {
	if r.Balancer == nil || d.spec.Zone == "" {
		return false
	}
	mem := d.h.roles[r.Name]
	defer func() { d.h.roles[r.Name] = mem }()
	known := d.o.zoneErr != nil
	for _, p := range mv.pools {
		b := d.balancerOf(r.Name, p.Name)
		known = known || b != nil && (d.zoneHas(strings.TrimSuffix(b.Host, ".")) || d.given(r.Name, strings.TrimSuffix(b.Host, "."))) ||
			d.poolErr(p.Name, func(c cloud) error { return c.balancers.err })
	}
	if known {
		mem.fronted = time.Time{}
		return true
	}
	mem.fronted = or(mem.fronted, d.now)
	return d.now.Before(d.unresolved(mem.fronted, 0))
}

// fronts gives the pools whose balancers clients are sent to: those that they are sent to now, until all serve where the role is to be.
func (d *decision) fronts(r *Role) []*Pool {
	if mv := d.moves[r.Name]; mv != nil && (!mv.ready || r.Move.Hold) {
		for _, pools := range [][]*Pool{d.pools(r), mv.pools} {
			pools = slices.DeleteFunc(slices.Clone(pools), func(p *Pool) bool {
				b := d.balancerOf(r.Name, p.Name)
				return b == nil || !b.Ready || len(pools) > len(mv.pools) && !d.zoneHas(strings.TrimSuffix(b.Host, "."))
			})
			if len(pools) > 0 {
				return pools
			}
		}
	}
	return d.config.poolsOf(r)
}

// stranded reports whether the slot has a volume where a role that moves may not be: it gets no machine there.
func (d *decision) stranded(r *Role, s slot) bool {
	if r.Move == nil {
		return false
	}
	v := d.belongings.volumes[s]
	return len(v) > 0 && !slices.ContainsFunc(d.config.poolsOf(r), func(p *Pool) bool { return p.Name == v[0].Tags[TagPool] })
}

// orphaned counts the volumes elsewhere of a database that moves whose machines are gone, if nothing else may have its data.
func (d *decision) orphaned(r *Role, held []*machine) (n int) {
	if _, here := d.part(r, held); r.Move == nil || r.Serves != Database || len(here) > 0 || d.o.sets[r.Name].Primary != "" {
		return 0
	}
	for _, m := range d.o.sets[r.Name].Members {
		if m.Position != "" {
			return 0
		}
	}
	for s := range d.belongings.volumes {
		if s.role == r.Name && d.stranded(r, s) {
			n++
		}
	}
	return n
}

// leftBehind deletes the volumes that a role has left behind, if it is to.
func (d *decision) leftBehind(r *Role, held []*machine) {
	if r.Move == nil || !r.Move.DeleteVolumes || d.end != nil || d.moves[r.Name] != nil || r.Serves != Database {
		return
	}
	serving := 0
	for _, m := range held {
		if m.ready {
			serving++
		}
	}
	if d.o.sets[r.Name].Primary == "" || serving == 0 || serving < d.plan.Desired[r.Name].Count {
		return // this may be the only data
	}
	var slots []slot
	for s := range d.belongings.volumes {
		slots = append(slots, s)
	}
	slices.SortFunc(slots, func(a, b slot) int { return a.index - b.index })
	for _, s := range slots {
		if s.role != r.Name || d.h.slot(s).holder != nil || !d.stranded(r, s) {
			continue
		}
		for _, v := range d.belongings.volumes[s] {
			switch _, gone := d.h.gone[v.Instance]; {
			case v.Instance != "" && !gone:
				d.wait(r.Name, s.index, "volume %s is still with %s", v.ID, v.Instance)
			case v.Instance != "":
				d.detach(v, s)
			default:
				d.step(Step{Action: DeleteVolume, Role: r.Name, Index: s.index, Pool: v.Tags[TagPool], Subject: v.ID, NoReturn: true,
					Reason: "the role has moved, and its data with it"})
			}
		}
	}
}

// fresh reports whether a machine in the slot would begin a database anew although its data is elsewhere: what is launched for a
// move copies it from the primary.
func (d *decision) fresh(r *Role, s slot) bool {
	if r.Move == nil || r.Serves != Database || d.o.sets[r.Name].Primary != "" {
		return false
	}
	elsewhere := d.moves[r.Name] != nil
	for at := range d.belongings.volumes {
		elsewhere = elsewhere || at.role == r.Name && d.stranded(r, at)
	}
	if elsewhere && len(d.belongings.volumes[s]) == 0 {
		d.wait(r.Name, s.index, "moves to pool %s: the database has no primary whose data a machine there could copy", strings.Join(r.Pools, ", "))
		return true
	}
	return false
}
