package farm

import (
	"context"
	"fmt"
	"strconv"
	"time"

	"github.com/scalr-go/scalr/provider"
	"github.com/scalr-go/scalr/replication"
)

// parent is what was seen of the farm that the first data of a database is copied from.
type parent struct {
	server  replication.Member // whose volume is to be copied
	err     error              // why that is not known
	volumes []listing[provider.Volume]
}

// askParents asks which volumes are to be copied, where that is to be known, and lists those of the parents in each cloud.
func (f *Farm) askParents(ctx context.Context, g *group, o *observation) {
	o.parents = map[string]*parent{}
	for i := range f.spec.Roles {
		r := &f.spec.Roles[i]
		if !r.copiesNow() || !f.history.copying {
			continue
		}
		from, _ := r.source(f.spec.Name)
		p := &parent{volumes: make([]listing[provider.Volume], len(o.clouds))}
		o.parents[r.Name] = p
		g.add(func() {
			ctx, cancel := context.WithTimeout(ctx, f.config.CallTimeout)
			defer cancel()
			if p.server, p.err = f.config.Databases[r.Name].Origin().Source(ctx); p.err != nil {
				p.err = fmt.Errorf("role %s: finding the server of %s/%s to copy: %w", r.Name, from.Farm, from.Role, p.err)
			}
		})
		for k := range o.clouds {
			if v, ok := provider.As[provider.Volumes](o.clouds[k].provider); ok {
				g.add(func() {
					p.volumes[k] = list(ctx, f, &o.clouds[k], "volumes", v.Volumes, map[string]string{TagFarm: from.Farm, TagRole: from.Role})
				})
			}
		}
	}
}

func (p *parent) errs() []error {
	errs := []error{p.err}
	for _, l := range p.volumes {
		errs = append(errs, l.err)
	}
	return errs
}

// copiesNow reports whether the role's first data is in a snapshot that is made for it.
func (r *Role) copiesNow() bool { return r.Volume != nil && r.Volume.From != nil && r.Volume.From.Now }

// first reports whether a role that has no snapshot of its own may have an empty volume: it is not the first one. Without any, a
// snapshot is to be made.
func (d *decision) first(r *Role, s slot, from Source) (ok bool) {
	for at := range d.belongings.volumes {
		if at.role == r.Name {
			return true
		}
	}
	d.wait(r.Name, s.index, "its volume is to be filled from a snapshot of %s/%s, which is made for that", from.Farm, from.Role)
	if d.lacks == nil {
		d.lacks = map[string]bool{}
	}
	d.lacks[r.Name] = true
	return false
}

// firsts takes the snapshots that first data comes from, and deletes those that have served.
func (d *decision) firsts() {
	all, asked, why := d.shots(d.spec.Name)
	if d.end != nil || !asked || why != "" {
		return
	}
	for i := range d.spec.Roles {
		r := &d.spec.Roles[i]
		if !r.copiesNow() {
			continue
		}
		key := series{slot: slot{role: r.Name}, first: true}
		mem := d.h.copies[key]
		var pending shot
		for _, x := range all {
			if s, ok := slotOf(x.Tags); !ok || s.role != r.Name || x.Tags[TagFirst] == "" {
				continue
			}
			d.h.restoring = true // until a list shows it no more
			mem = d.met(mem, x)
			switch {
			case x.Failed:
				d.drop(mem, key, x, "it has failed"+because(x.Reason))
			case d.filled(r):
				d.drop(mem, key, x, "the database has the data, and each of its machines a volume")
			case !x.Ready:
				pending = x
			}
		}
		switch {
		case !d.lacks[r.Name]:
		case pending.Snapshot == nil:
			mem = d.takeFirst(r, key, mem)
		default:
			d.plan.soon = true
			d.complete(key, mem, pending)
		}
		d.h.remember(key, mem)
	}
}

// filled reports whether nothing more of the role's is to be filled with its first data.
func (d *decision) filled(r *Role) bool {
	for mem := range d.h.slots.of(r.Name) {
		if found := d.belongings.volumes[mem.slot]; mem.wants && (len(found) == 0 || !found[0].Ready) {
			return false
		}
	}
	return d.o.sets[r.Name].Primary != ""
}

// takeFirst takes the snapshot of a parent's volume.
func (d *decision) takeFirst(r *Role, key series, mem copyMemory) copyMemory {
	mem, ok := d.copying(r.Name, key, mem, mem.due)
	if !ok {
		return mem
	}
	if left := d.config.ListLag - d.now.Sub(d.h.started); left > 0 {
		d.plan.soon = true
		d.wait(r.Name, 0, "looks for a snapshot of an earlier run for %v more", left)
		return mem
	}
	d.h.copying = true
	from, _ := r.source(d.spec.Name)
	p := d.o.parents[r.Name]
	if p == nil {
		d.plan.soon = true
		d.wait(r.Name, 0, "asks which volume of %s/%s to copy", from.Farm, from.Role)
		return mem
	}
	v, c, why := d.parentVolume(r, from, p)
	if v == nil {
		d.wait(r.Name, 0, "%s", why)
		return mem
	}
	at, _ := slotOf(v.Tags)
	tags := tagsOf(d.spec.Name, slot{r.Name, at.index}, c.poolNamed(v.Tags[TagPool]))
	tags[TagFirst], tags[TagGeneration], tags[TagSource] = d.now.UTC().Format(time.RFC3339Nano), strconv.Itoa(mem.try+1), from.Farm
	d.step(Step{Action: CreateSnapshot, Role: r.Name, Index: at.index, Pool: tags[TagPool], Volumes: []string{v.ID}, series: key, tags: tags,
		Reason: fmt.Sprintf("of %s, which is %s's of farm %s: the role's first data", v.ID, p.server.ID, from.Farm)})
	return mem
}

// parentVolume gives the volume of the server that is to be copied, and its cloud, or says why there is none.
func (d *decision) parentVolume(r *Role, from Source, p *parent) (*provider.Volume, *cloud, string) {
	if p.err != nil {
		return nil, nil, p.err.Error()
	}
	why := fmt.Sprintf("%s is to be copied, and no volume of %s/%s is its", p.server.ID, from.Farm, from.Role)
	for i := range p.volumes {
		c, l := &d.o.clouds[i], &p.volumes[i]
		if l.err != nil {
			why = l.err.Error()
			continue
		}
		for j := range l.items {
			v := &l.items[j]
			switch s, ok := slotOf(v.Tags); {
			case !ok || s.name() != p.server.ID || p.server.Machine != "" && v.Instance != p.server.Machine:
			case d.within(r, c) == nil:
				why = fmt.Sprintf("volume %s of %s is to be copied, and the role may be in no pool that shares its provider with pool %s", v.ID, p.server.ID, c.pools[0].Name)
			case !v.Ready:
				why = fmt.Sprintf("volume %s of %s is to be copied, and is not ready", v.ID, p.server.ID)
			default:
				return v, c, ""
			}
		}
	}
	return nil, nil, why
}
