package farm

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/scalr-go/scalr"
	"github.com/scalr-go/scalr/provider"
)

// Snapshots is when the volumes of a role are copied, and how long the copies are kept.
//
// Each index's volume is copied on its own. Of a database role one volume is copied each time: that of a replica, or the
// primary's where no replica serves. A volume is copied while the machine that has it serves, so that what is broken does not
// push out what was well.
//
// A snapshot is what a disk would hold if its machine had lost its power at that instant: what the machine had not written yet is
// not in it, and what starts from it recovers as after a crash, which databases and journalling file systems do. (The clouds'
// snapshots are of one instant. provider/local stops the machine's processes while it copies, and copies within the call:
// Config.CallTimeout must be long enough for that, and under replication.Durability writers wait as long if there is no other replica.)
//
// Where a database has no volumes, replication.Config.Backups copies it to files.
//
// The tags of the snapshots are the record of what was copied when. No snapshot is touched that the schedule has not made: not one
// that a person has taken, and none of another farm. What a role that is not in the spec any more had copied stays.
type Snapshots struct {
	// Every is the time from one snapshot to the next, longer than Config.ListLag. The first one is taken as soon as there is a
	// volume, and one that was missed as soon as it can be.
	Every time.Duration `json:"every"`
	// Keep is how many complete snapshots are kept of each index, or of a database; 0 means that their number is no limit.
	Keep int `json:"keep,omitempty"`
	// MaxAge is how old a snapshot may become; 0 means that its age is no limit. At least one of Keep and MaxAge is set. The
	// newest complete snapshot stays however old it is.
	MaxAge time.Duration `json:"max_age,omitempty"`
}

// schedule gives the role's snapshots, or nil.
func (r *Role) schedule() *Snapshots {
	if r.Volume == nil {
		return nil
	}
	return r.Volume.Snapshots
}

// snapshots checks what a role says of snapshots.
func (f *faults) snapshots(at string, r *Role, spec *Spec, c *Config) {
	if r.Volume == nil {
		return
	}
	if s := r.Volume.Snapshots; s != nil {
		if lag := or(c.ListLag, 30*time.Second); s.Every <= lag {
			f.add(at+".snapshots.every", "%v, want more than the %v of config.ListLag", s.Every, lag)
		}
		if s.Keep < 0 {
			f.add(at+".snapshots.keep", "%d is negative", s.Keep)
		}
		if s.MaxAge < 0 {
			f.add(at+".snapshots.max_age", "%v is negative", s.MaxAge)
		}
		if s.Keep == 0 && s.MaxAge == 0 {
			f.add(at+".snapshots", "has neither keep nor max_age, want at least one: the snapshots would add up for ever")
		}
	}
	if s := r.Volume.From; s != nil && s.Farm != "" {
		f.label(at+".from.farm", s.Farm, 32)
	}
	if s := r.Volume.From; s != nil && s.Role != "" {
		f.label(at+".from.role", s.Role, 20)
	}
	if s := r.Volume.From; s != nil && !s.Before.IsZero() {
		if _, other := r.source(spec.Name); !other {
			f.add(at+".from.before", "is set, but the source is the role itself, want another farm or role")
		}
		if s.Now {
			f.add(at+".from.before", "is set, and now is too, want one of them")
		}
	}
	if !r.copiesNow() {
		return
	}
	if r.Serves != Database {
		f.add(at+".from.now", "is set, but the role is no database")
	}
	if from := r.Volume.From.Farm; from == "" || from == spec.Name {
		f.add(at+".from.now", "is set, but from.farm is %q, want another farm", from)
	}
	if m := c.Databases[r.Name]; m != nil && (!m.Origin().Volumes || m.Origin().Source == nil) {
		f.add(at+".from.now", "is set, but the Origin of config.Databases[%q] has not both Volumes and a Source, which says whose volume to copy", r.Name)
	}
}

// series names snapshots that follow one another: of the volume of a slot, of a database role as a whole (with index 0), those
// that the end of the farm takes of a volume, or the tries to take the one that is a role's first data.
type series struct {
	slot  slot
	final string // the volume, as finalOf names it
	first bool
}

func seriesOf(r *Role, s slot) series {
	if r.Serves == Database {
		s.index = 0
	}
	return series{slot: s}
}

// shot is a snapshot and the cloud that has it.
type shot struct {
	*provider.Snapshot
	cloud *cloud
}

// shots gives the snapshots of a farm that all clouds show, or says why they are not known. Not asked: nobody has looked.
func (d *decision) shots(farm string) (found []shot, asked bool, why string) {
	for i := range d.o.clouds {
		c := &d.o.clouds[i]
		l := c.snapshotsOf(farm)
		if l == nil {
			continue
		}
		asked = true
		if l.err != nil {
			why = fmt.Sprintf("the snapshots of pool %s cannot be listed", c.pools[0].Name)
		}
		for i := range l.items {
			found = append(found, shot{&l.items[i], c})
		}
	}
	return found, asked, why
}

// newestFirst orders snapshots.
func newestFirst(a, b shot) int { return cmp.Or(b.Created.Compare(a.Created), cmp.Compare(a.ID, b.ID)) }

// backups copies the volumes whose time has come, and deletes the copies whose time is over.
func (d *decision) backups() {
	if d.end != nil || !slices.ContainsFunc(d.spec.Roles, func(r Role) bool { return r.schedule() != nil }) {
		return
	}
	all, asked, why := d.shots(d.spec.Name)
	if asked {
		d.h.copiesAt = d.now.Add(24 * time.Hour) // when to look again, unless something brings it forward
	}
	for i := range d.spec.Roles {
		r := &d.spec.Roles[i]
		if r.schedule() == nil {
			continue
		}
		of := map[series][]shot{}
		for s := range d.belongings.volumes {
			if s.role == r.Name {
				of[seriesOf(r, s)] = nil
			}
		}
		if !asked {
			for key := range of {
				if _, known := d.h.copies[key]; !known {
					d.h.copiesAt = time.Time{} // a volume that nobody has thought of yet
				}
			}
			continue
		}
		if why != "" {
			d.wait(r.Name, 0, "%s: takes and deletes none", why)
			d.again(d.now)
			continue
		}
		for _, x := range all {
			if s, ok := slotOf(x.Tags); ok && s.role == r.Name && x.Tags[TagDue] != "" {
				of[seriesOf(r, s)] = append(of[seriesOf(r, s)], x)
			}
		}
		keys := make([]series, 0, len(of))
		for key := range of {
			keys = append(keys, key)
		}
		slices.SortFunc(keys, func(a, b series) int { return a.slot.index - b.slot.index })
		for _, key := range keys {
			d.backup(r, key, of[key])
		}
	}
}

// again says when the snapshots must be looked at again.
func (d *decision) again(at time.Time) {
	if at.Before(d.h.copiesAt) {
		d.h.copiesAt = at
	}
}

// backup decides for one series.
func (d *decision) backup(r *Role, key series, shots []shot) {
	slices.SortFunc(shots, newestFirst)
	mem := d.h.copies[key]
	var complete []shot
	var newest, pending shot
	for _, x := range shots {
		mem = d.met(mem, x)
		switch {
		case x.Failed:
			d.drop(mem, key, x, "it has failed"+because(x.Reason))
			d.again(d.now)
			continue
		case x.Ready:
			complete = append(complete, x)
		case pending.Snapshot == nil:
			pending = x
		}
		if newest.Snapshot == nil {
			newest = x
		}
	}
	d.rotate(r.schedule(), mem, key, complete)
	if pending.Snapshot != nil {
		d.again(d.now)
		d.complete(key, mem, pending)
	}
	due, ok := d.due(r, key, newest)
	switch {
	case !ok && !mem.refused.until.After(d.now):
		delete(d.h.copies, key) // it has no volume: when it gets one again, somebody is to look at once
		return
	case !ok:
	case d.now.Before(due):
		d.again(due)
	case pending.Snapshot != nil:
		d.wait(r.Name, key.slot.index, "a snapshot has been due since %s: %s is still under way", clock(due), pending.ID)
	default:
		d.again(d.now)
		mem = d.take(r, key, mem, due, newest)
	}
	d.h.remember(key, mem)
}

// complete asks for a snapshot that is under way again, if it is not known what became of the call that began it.
func (d *decision) complete(key series, mem copyMemory, x shot) {
	if x.ID == mem.id || mem.retry.until.After(d.now) {
		return
	}
	s, _ := slotOf(x.Tags)
	d.step(Step{Action: CreateSnapshot, Role: s.role, Index: s.index, Pool: x.cloud.poolNamed(x.Tags[TagPool]),
		Subject: x.ID, Volumes: []string{x.Volume}, series: key, tags: ownTags(x.Tags),
		Reason: "what became of the call that began it is not known: asks for the same again, so that it is completed"})
}

// due says when the next snapshot of a series is to be taken.
func (d *decision) due(r *Role, key series, newest shot) (at time.Time, ok bool) {
	if found := d.belongings.volumes[key.slot]; len(found) > 0 {
		at, ok = found[0].Created, true
	}
	if r.Serves == Database {
		for s, found := range d.belongings.volumes {
			if s.role == r.Name && (!ok || found[0].Created.Before(at)) {
				at, ok = found[0].Created, true
			}
		}
	}
	if newest.Snapshot != nil {
		at = newest.Created.Add(r.schedule().Every)
	}
	return at, ok
}

// rotate deletes the complete snapshots, sorted from the newest on, that are too many or too old.
func (d *decision) rotate(s *Snapshots, mem copyMemory, key series, complete []shot) {
	for i, x := range complete {
		switch age := d.now.Sub(x.Created); {
		case i == 0:
		case s.Keep > 0 && i >= s.Keep:
			d.drop(mem, key, x, fmt.Sprintf("there are %d newer ones, and %d are kept", i, s.Keep))
		case s.MaxAge > 0 && age >= s.MaxAge:
			d.drop(mem, key, x, fmt.Sprintf("it is %v old, and is kept for %v", age.Round(time.Second), s.MaxAge))
		case s.MaxAge > 0:
			d.again(x.Created.Add(s.MaxAge))
		}
	}
}

// take takes a snapshot that is due, or says why not now.
func (d *decision) take(r *Role, key series, mem copyMemory, due time.Time, newest shot) copyMemory {
	tag := due.UTC().Format(time.RFC3339)
	mem, ok := d.copying(r.Name, key, mem, tag)
	if !ok {
		return mem
	}
	v, why := d.subject(r, key, newest)
	if v == nil {
		d.wait(r.Name, key.slot.index, "a snapshot has been due since %s: %s", clock(due), why)
		return mem
	}
	if left := d.config.ListLag - d.now.Sub(d.h.started); left > 0 {
		// An earlier run may have taken it just now.
		d.wait(r.Name, key.slot.index, "a snapshot has been due since %s: looks for one of an earlier run for %v more", clock(due), left)
		return mem
	}
	s, _ := slotOf(v.Tags)
	reason := fmt.Sprintf("of %s: the volume has none yet", v.ID)
	if newest.Snapshot != nil {
		reason = fmt.Sprintf("of %s: the last one is of %s, and there is one every %v", v.ID, clock(newest.Created), r.schedule().Every)
	}
	if mem.try > 0 {
		reason += fmt.Sprintf(" (try %d)", mem.try+1)
	}
	tags := tagsOf(d.spec.Name, s, d.cloudHaving(v).poolNamed(v.Tags[TagPool]))
	tags[TagDue], tags[TagGeneration] = tag, strconv.Itoa(mem.try+1)
	d.step(Step{Action: CreateSnapshot, Role: r.Name, Index: s.index, Pool: tags[TagPool], Volumes: []string{v.ID}, Reason: reason, series: key, tags: tags})
	return mem
}

// subject gives the volume to copy: that of the slot, or of a database that of a replica, of the one that was copied last if it
// can be.
func (d *decision) subject(r *Role, key series, newest shot) (v *provider.Volume, why string) {
	if r.Serves == Database && d.o.sets[r.Name].Primary == "" {
		return nil, "the database has no primary"
	}
	var machines []*machine
	if r.Serves == Database {
		machines = d.byRole[r.Name]
	} else if mem := d.h.slots.get(key.slot); mem != nil && mem.holder != nil {
		machines = []*machine{mem.holder}
	}
	var primary *provider.Volume
	for _, m := range machines {
		found := d.belongings.volumes[m.slot]
		if m.at.holder != m || !m.ready || len(found) == 0 || found[0].Instance != m.id || !found[0].Ready {
			continue
		}
		switch c := d.cloudHaving(found[0]); {
		case c == nil || c.snapshotsOf(d.spec.Name) == nil:
			why = fmt.Sprintf("the provider of volume %s has no snapshots", found[0].ID)
		case d.primary(m):
			primary = found[0]
		case v == nil || newest.Snapshot != nil && newest.Volume == found[0].ID:
			v = found[0]
		}
	}
	if v == nil {
		v = primary
	}
	return v, or(why, "no machine that has its volume serves")
}

// cloudHaving gives the cloud whose list shows the volume.
func (d *decision) cloudHaving(v *provider.Volume) *cloud {
	for i := range d.o.clouds {
		c := &d.o.clouds[i]
		for j := range c.volumes.items {
			if &c.volumes.items[j] == v {
				return c
			}
		}
	}
	return nil
}

// drop deletes a snapshot, unless the cloud has refused that a moment ago.
func (d *decision) drop(mem copyMemory, key series, x shot, why string) {
	if mem.refused.until.After(d.now) {
		d.again(mem.refused.until)
		return
	}
	d.again(d.now)
	s, _ := slotOf(x.Tags)
	d.step(Step{Action: DeleteSnapshot, Role: s.role, Index: s.index, Pool: x.cloud.poolNamed(x.Tags[TagPool]), Subject: x.ID, Reason: why, series: key})
}

// tell tells of a snapshot.
func (d *decision) tell(kind scalr.Kind, x shot, format string, args ...any) {
	s, _ := slotOf(x.Tags)
	d.events = append(d.events, scalr.Event{Time: d.now, Kind: kind, Farm: d.spec.Name, Role: s.role, Index: s.index, Subject: x.ID,
		Message: fmt.Sprintf(format, args...), Attrs: map[string]string{"volume": x.Volume}})
}

func clock(t time.Time) string { return t.UTC().Format(time.RFC3339) }
