package farm

import (
	"cmp"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/scalr-go/scalr"
	"github.com/scalr-go/scalr/cache"
	"github.com/scalr-go/scalr/farm/scale"
	"github.com/scalr-go/scalr/provider"
	"github.com/scalr-go/scalr/replication"
)

// decide turns the facts into a plan. It is a pure function: the same spec, configuration, facts, history and time give
// the same plan, and nothing is done. The live pass, the dry run and the end of a farm all come through here.
//
// It returns the history that the next pass starts from and what there is to tell.
func decide(spec Spec, config *Config, end *TerminateOptions, o observation, h history) (Plan, history, []scalr.Event) {
	d := &decision{spec: spec, config: config, end: end, o: o, h: h.next(), now: o.at,
		plan: Plan{Time: o.at, Desired: map[string]Desired{}, members: map[string][]replication.Member{},
			ended: map[string][]string{}, missing: map[string]int{}, caches: map[string][]cache.Server{}}, moves: map[string]*moving{}}
	if d.h.started.IsZero() {
		d.h.started = d.now
	}
	d.plan.servers.sets = o.sets
	d.recognise()
	d.distrust()
	d.arrange()
	d.judge()
	d.group()
	d.crashed()
	d.belongings.sort(o.clouds)
	for i := range spec.Roles {
		d.role(&spec.Roles[i])
	}
	d.unwanted()
	d.resources()
	d.backups()
	d.firsts()
	d.fed()
	d.publish()
	d.forget()
	d.plan.sort()
	d.plan.Cost = d.cost()
	return d.plan, d.h, d.events
}

// decision is the state of one call of decide.
type decision struct {
	spec   Spec
	config *Config
	end    *TerminateOptions // not nil: everything is to go
	o      observation
	h      history // the next one
	now    time.Time
	plan   Plan
	events []scalr.Event

	order      []*machine // all, in the order of memory
	absent     bool       // complete lists lack some of the machines
	belongings belongings

	byRole map[string][]*machine // sorted by index; the holder of a slot before others in it
	ready  map[string]int        // how many machines of a role serve and are to stay
	untidy bool                  // there is something that nobody wants
	addrs  map[string]bool       // the addresses and hosts that the farm has in the zone; nil until somebody asks
	moves  map[string]*moving    // of the roles that move
	lacks  map[string]bool       // the roles whose first data is to be copied; nil if there are none
}

func (d *decision) step(s Step) { d.plan.Steps = append(d.plan.Steps, s) }

func (d *decision) wait(role string, index int, format string, args ...any) {
	d.plan.Waits = append(d.plan.Waits, Wait{role, index, fmt.Sprintf(format, args...)})
}

func (d *decision) event(kind scalr.Kind, m *machine, format string, args ...any) {
	e := scalr.Event{Time: d.now, Kind: kind, Farm: d.spec.Name, Message: fmt.Sprintf(format, args...)}
	if m != nil {
		e.Role, e.Index, e.Subject = m.slot.role, m.slot.index, m.id
	}
	d.events = append(d.events, e)
}

// group chooses the holder of each slot.
func (d *decision) group() {
	d.ready = map[string]int{}
	for role, machines := range d.byRole {
		ready := 0
		for len(machines) > 0 {
			n := 1 // machines in one slot
			for n < len(machines) && machines[n].slot.index == machines[0].slot.index {
				n++
			}
			if n > 1 {
				slices.SortFunc(machines[:n], holderFirst)
			}
			for _, m := range machines[:n] {
				if m.slot.index > 0 && !dead(m) {
					m.at.holder = m
					if inService(m) {
						ready++
					}
					break
				}
			}
			machines = machines[n:]
		}
		d.ready[role] = ready
	}
}

// holderFirst orders machines in one slot: who serves, then who is not on its way out, then the oldest.
func holderFirst(a, b *machine) int {
	return cmp.Or(trueFirst(a.ready, b.ready), trueFirst(a.draining.IsZero(), b.draining.IsZero()),
		a.launched.Compare(b.launched), cmp.Compare(a.id, b.id))
}

func trueFirst(a, b bool) int {
	switch {
	case a == b:
		return 0
	case a:
		return -1
	}
	return 1
}

// dead reports whether the machine exists and will not serve any more. A stopped one can be started again.
func dead(m *machine) bool { return m.state == provider.Failed || !m.ended.IsZero() }

func (d *decision) roleOf(name string) *Role {
	for i := range d.spec.Roles {
		if d.spec.Roles[i].Name == name {
			return &d.spec.Roles[i]
		}
	}
	return nil
}

// member gives what the machine's database manager says of it.
func (d *decision) member(m *machine) (replication.MemberState, bool) {
	return m.member(d.o.sets)
}

func (m *machine) member(sets map[string]replication.Topology) (replication.MemberState, bool) {
	set, ok := sets[m.slot.role]
	if !ok {
		return replication.MemberState{}, false
	}
	s, ok := set.Member(m.at.name)
	return s, ok && s.Member.Machine == m.id
}

// primary reports whether the machine is the primary of its database.
func (d *decision) primary(m *machine) bool { return m.primary(d.o.sets) }

func (m *machine) primary(sets map[string]replication.Topology) bool {
	_, ok := m.member(sets)
	return ok && sets[m.slot.role].Primary == m.at.name
}

// desired asks the role's policy how many machines there should be.
func (d *decision) desired(r *Role, held, ready, late int) Desired {
	mem := d.h.roles[r.Name]
	if d.end != nil {
		return Desired{0, "the farm is to end"}
	}
	policy := r.policy(d.config.Policies)
	if policy == nil {
		mem.desired = r.Min
		d.h.roles[r.Name] = mem
		return Desired{r.Min, "the role has a fixed size"}
	}
	if mem.desired == 0 {
		mem.desired = held // after a restart the tags say how many were wanted
	}
	mem.desired = min(max(mem.desired, r.Min), r.Max)
	in := scale.Input{Now: d.now, Min: r.Min, Max: r.Max, Count: mem.desired, Ready: ready, Late: late, Past: mem.advice,
		Since: d.h.started, LastUp: mem.lastUp, LastDown: mem.lastDown, Boot: mem.boot, Memory: mem.memory}
	for _, s := range d.o.samples[r.Name] {
		if age := d.now.Sub(s.At); age <= d.config.MetricAge {
			in.Samples = append(in.Samples, s)
		}
	}
	got := policy.Desired(in)
	mem.memory = got.Memory
	keep := scale.MemoryOf(policy)
	mem.advice = slices.DeleteFunc(slices.Clone(mem.advice), func(a scale.Advice) bool { return d.now.Sub(a.At) > keep })
	mem.advice = append(mem.advice, scale.Advice{At: d.now, Desired: got.Raw})
	if mem.moving && got.Desired < mem.desired {
		got.Desired, got.Reason = mem.desired, got.Reason+": not while the role moves"
	}
	count := min(max(got.Desired, r.Min), r.Max)
	if count != got.Desired {
		got.Reason += fmt.Sprintf(" (%d is kept within %d to %d)", got.Desired, r.Min, r.Max)
	}
	if count > mem.desired {
		mem.lastUp = d.now
		d.events = append(d.events, scalr.Event{Time: d.now, Kind: ScaleUp, Farm: d.spec.Name, Role: r.Name, Message: got.Reason})
	} else if count < mem.desired {
		mem.lastDown = d.now
		d.events = append(d.events, scalr.Event{Time: d.now, Kind: ScaleDown, Farm: d.spec.Name, Role: r.Name, Message: got.Reason})
	}
	mem.desired = count
	d.h.roles[r.Name] = mem
	return Desired{count, got.Reason}
}

// forget drops what no longer matters from the history. What is left of the farm is known for sure only when the lists have
// had the time to show what was created last.
func (d *decision) forget() {
	d.plan.left = d.plan.left || len(d.h.machines) > 0 || d.blind() || d.now.Sub(d.h.unlisted()) < d.config.ListLag
	d.h.tidy = d.h.tidy || !d.untidy && !d.blind()
	for o, b := range d.h.offers {
		if d.now.Sub(b.until) > time.Hour {
			delete(d.h.offers, o)
		}
	}
	for id, at := range d.h.gone {
		if d.now.Sub(at) > time.Hour {
			delete(d.h.gone, id)
		}
	}
	for mem := range d.h.slots.all() {
		if mem.wanted = mem.wants; !mem.wanted {
			mem.retry, mem.addr, mem.replaced = backoff{}, netip.Addr{}, time.Time{}
		}
	}
}

// blind reports whether a list that the end of the farm depends on could not be had. What the credentials may not list, and
// the spec does not want, the farm has never had.
func (d *decision) blind() bool {
	var wants struct{ volumes, addresses, balancers, snapshots bool }
	wants.snapshots = d.end != nil && (d.end.FinalSnapshot || d.end.DeleteSnapshots)
	for _, r := range d.spec.Roles {
		wants.snapshots = wants.snapshots || r.copiesNow()
		wants.volumes = wants.volumes || r.Volume != nil
		wants.addresses = wants.addresses || r.Address
		wants.balancers = wants.balancers || r.Balancer != nil
	}
	blind := func(err error, wanted bool) bool {
		return err != nil && (wanted || !errors.Is(err, provider.ErrAuth) && !errors.Is(err, errors.ErrUnsupported))
	}
	return slices.ContainsFunc(d.o.clouds, func(c cloud) bool {
		own := c.snapshotsOf(d.spec.Name)
		return d.end != nil && own != nil && blind(own.err, wants.snapshots) || c.instances.err != nil || blind(c.volumes.err, wants.volumes) || blind(c.addresses.err, wants.addresses) ||
			blind(c.balancers.err, wants.balancers)
	})
}
