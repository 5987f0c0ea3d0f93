package farm

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strconv"
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
			ended: map[string][]string{}, caches: map[string][]cache.Server{}}}
	if d.h.started.IsZero() {
		d.h.started = d.now
	}
	d.recognise()
	d.distrust()
	d.judge()
	d.group()
	for i := range spec.Roles {
		d.role(&spec.Roles[i])
	}
	d.unwanted()
	d.resources()
	d.publish()
	d.forget()
	d.plan.sort()
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

	ids     []string              // of the machines, sorted: what is decided and told has one order
	byRole  map[string][]*machine // sorted by index; the holder of a slot before others in it
	holders map[slot]*machine
	wanted  map[slot]bool
	ready   map[string]int  // how many machines of a role serve and are to stay
	untidy  bool            // there is something that nobody wants
	addrs   map[string]bool // the addresses that the farm has in the zone; nil until somebody asks
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

// recognise merges the lists into what is known of the machines.
func (d *decision) recognise() {
	var gone []machine
	for _, c := range d.o.clouds {
		if c.instances.err != nil {
			continue // an error is no list: what is known stays as it was
		}
		listed := make(map[string]bool, len(c.instances.items))
		for i := range c.instances.items {
			in := &c.instances.items[i]
			listed[in.ID] = true
			d.sighted(c, in)
		}
		for id, m := range d.h.machines {
			switch {
			case m.cloud != c.id || listed[id]:
			case !m.ended.IsZero():
				delete(d.h.machines, id) // it was ended, and no list shows it any more
				d.h.gone[id] = d.now
				gone = append(gone, m)
			case !m.listed && d.now.Sub(m.acked) < d.config.ListLag:
				// It has just been launched, and the lists are behind.
			case m.missing.IsZero():
				m.missing = d.now
				d.h.machines[id] = m
			}
		}
		mem := d.h.clouds[c.id]
		mem.listed = true
		d.h.clouds[c.id] = mem
	}
	slices.SortFunc(gone, func(a, b machine) int { return cmp.Compare(a.id, b.id) })
	for _, m := range gone {
		d.event(HostDown, &m, "the machine is gone")
	}
	d.resolve()
	d.ids = slices.Sorted(maps.Keys(d.h.machines))
}

// resolve gives up launches whose outcome was not known and that no list has shown since: there was none. The next try
// takes another generation, and so another token.
func (d *decision) resolve() {
	for s, mem := range d.h.slots {
		if mem.unresolved && d.now.Sub(mem.tried) >= d.config.ListLag && !d.poolErr(mem.offer.pool, func(c cloud) error { return c.instances.err }) {
			mem.unresolved, mem.tries = false, 0
			d.h.slots[s] = mem
			d.h.offers[mem.offer] = d.h.offers[mem.offer].after(d.now, d.config.Backoff, "launches fail without a reason")
		}
	}
}

// sighted takes up one listed instance.
func (d *decision) sighted(c cloud, in *provider.Instance) {
	s, ok := slotOf(in.Tags)
	if !ok {
		s = slot{} // ours by the farm's tag, and in no slot: nobody wants it
	}
	generation, _ := strconv.Atoi(in.Tags[TagGeneration])
	mem := d.h.slots[s]
	if mem.unresolved && generation == mem.generation {
		mem.unresolved, mem.tries = false, 0 // here it is
	}
	mem.generation = max(mem.generation, generation)
	if ok {
		d.h.slots[s] = mem
	}
	if r := d.roleOf(s.role); r != nil && r.Serves == Database && (in.State == provider.Failed || in.State == provider.Terminated) {
		d.plan.ended[s.role] = append(d.plan.ended[s.role], in.ID)
	}
	m, known := d.h.machines[in.ID]
	if in.State.Gone() {
		d.plan.left = d.plan.left || in.State == provider.Terminating
		if in.State == provider.Terminated {
			d.h.gone[in.ID] = d.now
		}
		if known {
			delete(d.h.machines, in.ID)
			if m.ended.IsZero() && d.end == nil {
				d.event(HostCrash, &m, "the machine has ended by itself%s", because(in.Reason))
			}
			d.event(HostDown, &m, "the machine is gone%s", because(in.Reason))
		}
		return
	}
	if !known {
		m = machine{id: in.ID, slot: s, generation: generation, cloud: c.id}
	}
	m.pool = c.pools[0].Name
	for _, p := range c.pools {
		if p.Name == in.Tags[TagPool] {
			m.pool = p.Name
		}
	}
	m.size, m.launched, m.missing, m.listed = in.Size, in.Launched, time.Time{}, true
	m.state, m.reason, m.private, m.public = in.State, in.Reason, in.Private, in.Public
	d.h.machines[in.ID] = m
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
		for _, id := range d.ids {
			if m, ok := d.h.machines[id]; ok && m.cloud == c.id && !m.missing.IsZero() && d.now.Sub(m.missing) >= patience {
				delete(d.h.machines, id)
				d.h.gone[id] = d.now
				d.event(HostDown, &m, "the machine has not been listed for %v", d.now.Sub(m.missing))
			}
		}
	}
}

// distrusted reports whether the machine's cloud shows a view that is not to be acted on.
func (d *decision) distrusted(m *machine) bool {
	since := d.h.clouds[m.cloud].distrust
	return !since.IsZero() && d.now.Sub(since) < d.config.ShrinkPatience
}

// judge says of each machine whether it serves.
func (d *decision) judge() {
	for _, id := range d.ids {
		m, ok := d.h.machines[id]
		if !ok {
			continue
		}
		was := m.ready
		m.ready, m.why = d.serves(&m)
		if m.ready && m.readyAt.IsZero() {
			m.readyAt = d.now
			d.event(HostUp, &m, "serves, %v after its launch", d.now.Sub(m.launched).Round(time.Millisecond))
			mem := d.h.slots[m.slot]
			mem.retry = backoff{}
			d.h.slots[m.slot] = mem
			delete(d.h.offers, offer{m.pool, m.size})
		}
		switch {
		case m.ready:
			m.down = time.Time{}
		case m.down.IsZero():
			m.down = d.now
		}
		if was && !m.ready {
			d.event(HostUnhealthy, &m, "does not serve: %s", m.why)
		}
		d.h.machines[id] = m
	}
}

func (d *decision) serves(m *machine) (bool, string) {
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

// group sorts the machines by role and index and chooses the holder of each slot.
func (d *decision) group() {
	d.byRole, d.holders, d.wanted = map[string][]*machine{}, map[slot]*machine{}, map[slot]bool{}
	d.ready = map[string]int{}
	for _, id := range d.ids {
		m, ok := d.h.machines[id]
		if !ok {
			continue
		}
		d.byRole[m.slot.role] = append(d.byRole[m.slot.role], &m)
	}
	for _, machines := range d.byRole {
		slices.SortStableFunc(machines, func(a, b *machine) int {
			return cmp.Or(a.slot.index-b.slot.index, holderFirst(a, b))
		})
		for _, m := range machines {
			if d.holders[m.slot] == nil && m.slot.index > 0 && !dead(m) {
				d.holders[m.slot] = m
				if m.ready && m.draining.IsZero() {
					d.ready[m.slot.role]++
				}
			}
		}
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
	i := slices.IndexFunc(d.spec.Roles, func(r Role) bool { return r.Name == name })
	if i < 0 {
		return nil
	}
	return &d.spec.Roles[i]
}

// member gives what the machine's database manager says of it.
func (d *decision) member(m *machine) (replication.MemberState, bool) {
	set, ok := d.o.sets[m.slot.role]
	if !ok {
		return replication.MemberState{}, false
	}
	s, ok := set.Member(m.slot.name())
	return s, ok && s.Member.Machine == m.id
}

// primary reports whether the machine is the primary of its database.
func (d *decision) primary(m *machine) bool {
	_, ok := d.member(m)
	return ok && d.o.sets[m.slot.role].Primary == m.slot.name()
}

// desired asks the role's policy how many machines there should be.
func (d *decision) desired(r *Role, held, ready int) Desired {
	mem := d.h.roles[r.Name]
	if d.end != nil {
		return Desired{0, "the farm is to end"}
	}
	policy, metric := r.policy(d.config.Policies)
	if policy == nil {
		mem.desired = r.Min
		d.h.roles[r.Name] = mem
		return Desired{r.Min, "the role has a fixed size"}
	}
	if mem.desired == 0 {
		mem.desired = held // after a restart the tags say how many were wanted
	}
	mem.desired = min(max(mem.desired, r.Min), r.Max)
	in := scale.Input{Now: d.now, Min: r.Min, Max: r.Max, Count: mem.desired, Ready: ready, Past: mem.advice,
		Since: d.h.started, LastUp: mem.lastUp, LastDown: mem.lastDown}
	for _, s := range d.o.samples[r.Name] {
		if age := d.now.Sub(s.At); age <= d.config.MetricAge {
			in.Samples = append(in.Samples, s)
		}
	}
	var got scale.Decision
	if metric != "" && len(in.Samples) == 0 {
		got = in.Hold("%s is missing: hold at %d", metric, in.Count)
	} else {
		got = policy.Desired(in)
		keep := memoryOf(policy)
		mem.advice = slices.DeleteFunc(slices.Clone(mem.advice), func(a scale.Advice) bool { return d.now.Sub(a.At) > keep })
		mem.advice = append(mem.advice, scale.Advice{At: d.now, Desired: got.Raw})
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

// memoryOf says how far back a policy wants to see its own advice: an hour unless it says otherwise.
func memoryOf(p scale.Policy) time.Duration {
	if m, ok := p.(interface{ Memory() time.Duration }); ok {
		return m.Memory()
	}
	return time.Hour
}

// forget drops what no longer matters from the history, and keeps the machines as this pass left them. What is left of the
// farm is known for sure only when the lists have had the time to show what was created last.
func (d *decision) forget() {
	for _, machines := range d.byRole {
		for _, m := range machines {
			d.h.machines[m.id] = *m
		}
	}
	last := d.h.started
	if d.h.created.After(last) {
		last = d.h.created
	}
	d.plan.left = d.plan.left || len(d.h.machines) > 0 || d.blind() || d.now.Sub(last) < d.config.ListLag
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
	for s, mem := range d.h.slots {
		if mem.wanted = d.wanted[s]; !mem.wanted {
			mem.retry, mem.addr = backoff{}, netip.Addr{}
		}
		d.h.slots[s] = mem
	}
}

// blind reports whether a list that the end of the farm depends on could not be had. What the credentials may not list, and
// the spec does not want, the farm has never had.
func (d *decision) blind() bool {
	var wants struct{ volumes, addresses, balancers bool }
	for _, r := range d.spec.Roles {
		wants.volumes = wants.volumes || r.Volume != nil
		wants.addresses = wants.addresses || r.Address
		wants.balancers = wants.balancers || r.Balancer != nil
	}
	blind := func(err error, wanted bool) bool {
		return err != nil && (wanted || !errors.Is(err, provider.ErrAuth) && !errors.Is(err, errors.ErrUnsupported))
	}
	return slices.ContainsFunc(d.o.clouds, func(c cloud) bool {
		return c.instances.err != nil || blind(c.volumes.err, wants.volumes) || blind(c.addresses.err, wants.addresses) ||
			blind(c.balancers.err, wants.balancers)
	})
}
