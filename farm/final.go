package farm

import (
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/scalr-go/scalr"
	"github.com/scalr-go/scalr/provider"
)

// endVolumes deletes the volumes of a farm that is to end, and before it, if told, takes a last snapshot of each.
func (d *decision) endVolumes() {
	if d.end == nil {
		return
	}
	there, known := map[string]bool{}, true // volumes, by finalOf
	for i := range d.o.clouds {
		c := &d.o.clouds[i]
		known = known && c.volumes.err == nil
		for i := range c.volumes.items {
			v := &c.volumes.items[i]
			there[finalOf(c, v.ID)] = true
			if !d.end.DeleteVolumes {
				continue
			}
			d.plan.left = true
			s, _ := slotOf(v.Tags)
			switch {
			case v.Instance != "" && d.machine(v.Instance) == nil:
				d.detach(v, s)
			case v.Instance != "":
			case d.end.FinalSnapshot && !d.final(c, v, s):
			default:
				d.step(Step{Action: DeleteVolume, Role: s.role, Index: s.index, Pool: c.poolNamed(v.Tags[TagPool]), Subject: v.ID, Reason: "the farm is to end, and its volumes with it"})
			}
		}
	}
	d.endSnapshots(there, known)
}

// finalOf names a volume among those of all clouds: two may have one ID.
func finalOf(c *cloud, volume string) string { return strconv.Itoa(c.id) + " " + volume }

// final reports whether the last snapshot of a volume is complete, and takes it. One of an earlier run does not count: since then
// the farm may have worked on. It is deleted when there is a newer one.
func (d *decision) final(c *cloud, v *provider.Volume, s slot) bool {
	l := c.snapshotsOf(d.spec.Name)
	switch {
	case l == nil || l.err != nil:
		d.wait(s.role, s.index, "volume %s is deleted when there is a snapshot of it: the snapshots of pool %s cannot be listed", v.ID, c.pools[0].Name)
		return false
	}
	key := series{slot: s, final: finalOf(c, v.ID)}
	mem := d.h.copies[key]
	defer func() { d.h.remember(key, mem) }()
	if !v.Ready {
		mem = d.blocked(mem, v, s, "it is not ready")
		return false
	}
	for i := range l.items {
		x := shot{&l.items[i], c}
		tried := mem.due != "" && x.Tags[TagFinal] == mem.due
		if x.Volume != v.ID || !tried {
			continue
		}
		mem = d.met(mem, x)
		switch {
		case x.Ready:
			return true
		case !x.Failed:
			d.plan.soon = true
			mem = d.blocked(mem, v, s, "snapshot "+x.ID+" is not complete")
			return false
		}
	}
	mem, ok := d.copying(s.role, key, mem, mem.due)
	if !ok {
		return false
	}
	// The list may be older than a machine that has got the volume since.
	busy := slices.ContainsFunc(d.byRole[s.role], func(m *machine) bool { return m.slot == s && m.ended.IsZero() && !m.state.Gone() })
	if left := d.config.ListLag - d.now.Sub(d.h.unlisted()); left > 0 || busy {
		d.plan.soon = true
		d.wait(s.role, s.index, "volume %s gets its last snapshot when no machine can have it any more", v.ID)
		return false
	}
	tags := tagsOf(d.spec.Name, s, c.poolNamed(v.Tags[TagPool]))
	tags[TagFinal], tags[TagGeneration] = d.now.UTC().Format(time.RFC3339Nano), strconv.Itoa(mem.try+1)
	tags[TagBorn] = v.Created.UTC().Format(time.RFC3339Nano)
	if set, ok := d.o.sets[s.role]; ok && set.Primary == s.name() {
		tags[TagPrimary] = "true"
	}
	d.step(Step{Action: CreateSnapshot, Role: s.role, Index: s.index, Pool: tags[TagPool], Volumes: []string{v.ID}, series: key, tags: tags,
		Reason: "of " + v.ID + ": the farm is to end, and its volumes with it"})
	return false
}

// blocked says why a volume cannot be deleted yet, and tells of it, once, when that lasts: the end of the farm may need a person, since
// data of which there is no copy is not deleted.
func (d *decision) blocked(mem copyMemory, v *provider.Volume, s slot, why string) copyMemory {
	d.wait(s.role, s.index, "volume %s is deleted when there is a snapshot of it: %s", v.ID, why)
	mem.blocked = or(mem.blocked, d.now)
	if lasted := d.now.Sub(mem.blocked); lasted >= d.config.Grace && !mem.blockTold {
		mem.blockTold = true
		d.events = append(d.events, scalr.Event{Time: d.now, Kind: PassFailed, Farm: d.spec.Name, Role: s.role, Index: s.index, Subject: v.ID,
			Message: "the farm is to end, and waits", Err: fmt.Sprintf("volume %s is deleted when there is a snapshot of it: for %v, %s", v.ID, lasted.Round(time.Second), why)})
	}
	return mem
}

// endSnapshots deletes the final snapshots that a newer one replaces, those that failed, those that first data came from and, if
// told, those of the schedules.
func (d *decision) endSnapshots(there map[string]bool, known bool) {
	all, _, _ := d.shots(d.spec.Name)
	slices.SortFunc(all, newestFirst)
	newest := map[string]bool{} // volumes whose last snapshot is complete
	put := map[slot]bool{}      // slots of which one is complete that will not be taken again
	for _, x := range all {
		s, _ := slotOf(x.Tags)
		volume := finalOf(x.cloud, x.Volume)
		switch {
		case x.Tags[TagFinal] != "":
			mem := d.h.copies[series{slot: s, final: finalOf(x.cloud, x.Volume)}]
			switch {
			case x.Failed:
				d.endSnapshot(x, "it has failed"+because(x.Reason))
			case newest[volume]:
				d.endSnapshot(x, "there is a newer one of the end of the farm")
			case d.spec.Hours != nil && put[s] && x.Ready && known && !there[volume]:
				d.endSnapshot(x, "there is one of a later closing")
			case x.Ready && (!there[volume] || mem.due == x.Tags[TagFinal]):
				newest[volume], put[s] = true, true
			}
		case x.Tags[TagFirst] != "" || x.Tags[TagDue] != "" && d.end.DeleteSnapshots:
			d.plan.left = true
			if d.end.DeleteVolumes && (len(there) > 0 || !known) {
				continue // their data is nowhere else yet
			}
			d.endSnapshot(x, "the farm is to end, and its snapshots with it")
		}
	}
}

func (d *decision) endSnapshot(x shot, why string) {
	d.plan.left = true
	s, _ := slotOf(x.Tags)
	d.drop(d.h.copies[series{slot: s, final: finalOf(x.cloud, x.Volume)}], series{slot: s, final: finalOf(x.cloud, x.Volume)}, x, why)
}
