package farm

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/scalr-go/scalr/provider"
)

// launch puts a machine into a slot, or says why not now.
func (d *decision) launch(r *Role, s slot) {
	mem := d.h.slot(s)
	if !d.h.roles[r.Name].launched && mem.open == nil {
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
	if mem.open != nil && mem.open.times >= 3 {
		d.wait(r.Name, s.index, "%d launches in pool %s have failed without a reason: waits for lists to show what became of them", mem.open.times, mem.open.offer.pool)
		return
	}
	if d.fresh(r, s) {
		return
	}
	disk, ok := d.disk(r, s)
	if !ok {
		return
	}
	var from shot
	if disk == nil {
		if from, ok = d.restore(r, s); !ok {
			return
		}
		var why string
		if r, why = d.whereCan(r, from); why != "" {
			d.wait(s.role, s.index, "%s", why)
			return
		}
	}
	r, image, build := d.made(r)
	o, reason := d.offer(r, s, disk)
	if o.pool == "" {
		d.wait(r.Name, s.index, "%s", reason)
		d.moveVolume(r, s, disk)
		return
	}
	if r.Volume != nil && disk == nil {
		d.createVolume(r, s, o, from)
		return
	}
	step := Step{Action: LaunchInstance, Role: r.Name, Index: s.index, Pool: o.pool, Size: o.size, Spot: o.spot,
		Image: or(d.config.pool(o.pool).Images[image], image), Generation: mem.generation + 1, Build: build, Reason: reason}
	if mem.open != nil {
		step.Generation, step.Image, step.Build = mem.generation, mem.open.image, mem.open.build
		step.Reason = "the outcome of the last try is not known: the same again"
	}
	step.Reason += d.config.asItIs(image, o.pool)
	if disk != nil {
		step.Volumes = []string{disk.ID}
	}
	d.step(step)
}

// asItIs says that a pool has no name of its own for an image although a pool of another provider has one: there it may not exist.
func (c *Config) asItIs(image, pool string) string {
	p := c.pool(pool)
	if _, ok := p.Images[image]; ok {
		return ""
	}
	for i := range c.Pools {
		if q := &c.Pools[i]; q.Provider != p.Provider && q.Images[image] != "" {
			return fmt.Sprintf("; image %q is taken as it is called, since Images of pool %s does not name it, as that of pool %s does", image, p.Name, q.Name)
		}
	}
	return ""
}

// offer chooses the pool and the size for a machine: the next pool of the same provider, then the next size, then the
// next provider; all of these for a spot machine before any other.
func (d *decision) offer(r *Role, s slot, disk *provider.Volume) (offer, string) {
	mem := d.h.slot(s)
	pools := d.config.poolsOf(r)
	if mv := d.moves[r.Name]; mv != nil && mv.short > 0 && !r.owns() {
		pools = append(pools, mv.pools...) // rather where it should not be than nowhere
	}
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
	if mem.open != nil {
		if !slices.ContainsFunc(pools, func(p *Pool) bool { return p.Name == mem.open.offer.pool }) {
			return offer{}, fmt.Sprintf("a launch in pool %s may have taken effect, and the pool cannot be listed", mem.open.offer.pool)
		}
		return mem.open.offer, "the outcome of the last try is not known"
	}
	if r.Spread {
		d.emptiestFirst(r, pools)
	}
	for _, o := range d.offers(r, pools) {
		if b := d.h.offers[o]; b.until.After(d.now) {
			skipped = append(skipped, fmt.Sprintf("%s: %s until %s", o, b.reason, b.until.UTC().Format("15:04:05")))
			continue
		}
		if mv := d.moves[r.Name]; mv != nil && slices.ContainsFunc(mv.pools, func(p *Pool) bool { return p.Name == o.pool }) {
			mv.short--
		}
		reason := fmt.Sprintf("slot %s is empty", mem.name)
		if mem.generation > 0 {
			reason += ": its last machine is gone"
		}
		if want := d.plan.Desired[r.Name]; r.Scale != nil {
			reason += fmt.Sprintf("; the role is to have %d: %s", want.Count, want.Reason)
		}
		if len(skipped) > 0 {
			reason += " (not " + strings.Join(skipped, "; ") + ")"
		}
		return o, reason
	}
	return offer{}, strings.Join(skipped, "; ")
}

// offers lists what may be launched for the role, in order of preference.
func (d *decision) offers(r *Role, pools []*Pool) []offer {
	var offers []offer
	for _, spot := range []bool{true, false} {
		if spot && !r.Spot || !spot && r.Spot && !r.OnDemand {
			continue
		}
		for left := slices.Clone(pools); len(left) > 0; {
			first := left[0].Provider
			for _, size := range append([]string{r.Size}, r.Fallback...) {
				for _, p := range left {
					if p.Provider == first {
						offers = append(offers, offer{p.Name, or(p.Sizes[size], size), spot})
					}
				}
			}
			left = slices.DeleteFunc(left, func(p *Pool) bool { return p.Provider == first })
		}
	}
	return offers
}

// emptiestFirst sorts pools by how many machines of the role they have or are about to get.
func (d *decision) emptiestFirst(r *Role, pools []*Pool) {
	in := map[string]int{}
	for _, m := range d.byRole[r.Name] {
		if m.at.holder == m && m.leaving == "" {
			in[m.pool]++
		}
	}
	for _, s := range d.plan.Steps {
		if s.Action == LaunchInstance && s.Role == r.Name {
			in[s.Pool]++
		}
	}
	slices.SortStableFunc(pools, func(a, b *Pool) int { return in[a.Name] - in[b.Name] })
}
