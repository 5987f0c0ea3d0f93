package farm

import (
	"fmt"
	"slices"
	"time"

	"github.com/scalr-go/scalr/provider"
)

// Source says whose snapshots fill the volume of an index that has none: because the farm or the role is new, or because the volume
// was lost. The newest complete snapshot is taken, whoever took it, as long as it bears the tags of farm, role and index.
//
// The index's own snapshots come before those of another farm or role, so that a restored farm that loses a volume goes back to its
// own data: whoever begins anew from the source under a name that has snapshots deletes these first.
//
// Index n is filled from index n of the source. The members of a database are all filled from one snapshot, the newest of any of
// them; of those that [TerminateOptions.FinalSnapshot] has taken it is the primary's, if it was known.
//
// So a replica that is added to a database role with [Snapshots] and with itself as the source begins with the data of the newest one, and
// follows the primary from there: nothing is copied over SQL, and nobody's disk is read for it but the snapshot's.
//
// Of another farm or role there must be a snapshot: while there is none, or none of an index although there are of higher ones, no
// volume is created, and the plan says so. An index that is higher than all of which the source has snapshots gets an empty
// volume, and so does one of the role itself that has no snapshot.
//
// A snapshot can be used in the pools that share its provider, and so the machine is launched there.
type Source struct {
	Farm string `json:"farm,omitempty"` // default this farm
	Role string `json:"role,omitempty"` // default the role of the same name
	// Now fills the first volumes of a database from a snapshot that the farm makes for that, of a volume of Farm as it is now: that of
	// the server which the Source of the Manager's Origin names. It bears this farm's tags, and is deleted when the database has a
	// primary and each of its machines a volume, or with the farm. An index that comes later without a snapshot of the farm's own has an
	// empty volume. Only of another farm, and with an Origin that has Volumes and a Source.
	Now bool `json:"now,omitempty"`
	// Before takes the newest snapshot that was begun before then. Only of another farm or role: what a farm has lost it fills from its
	// newest.
	Before time.Time `json:"before,omitzero"`
}

// source gives the farm and the role that fill the role's new volumes, and whether they are others than the role itself.
func (r *Role) source(farm string) (from Source, other bool) {
	own := Source{Farm: farm, Role: r.Name}
	from = Source{Farm: or(r.Volume.From.Farm, own.Farm), Role: or(r.Volume.From.Role, own.Role)}
	other = from != own
	from.Before = r.Volume.From.Before
	return from, other
}

// restore chooses the snapshot that fills the slot's new volume; one of nothing leaves it empty. Not ok means that none may be
// created now.
func (d *decision) restore(r *Role, s slot) (x shot, ok bool) {
	if r.Volume == nil || r.Volume.From == nil {
		return shot{}, true
	}
	d.h.restoring = true
	from, other := r.source(d.spec.Name)
	if x, _, ok = d.newest(r, s, Source{Farm: d.spec.Name, Role: r.Name}); !ok || x.Snapshot != nil || !other {
		return x, ok
	}
	if r.Volume.From.Now {
		return shot{}, d.first(r, s, from)
	}
	x, highest, ok := d.newest(r, s, from)
	switch {
	case !ok || x.Snapshot != nil:
		return x, ok
	case highest == 0:
		d.wait(r.Name, s.index, "its volume is to be filled from %s/%s, which has no complete snapshot%s", from.Farm, from.Role, from.before())
		return shot{}, false
	case s.index <= highest:
		d.wait(r.Name, s.index, "its volume is to be filled from %s/%s, which has no complete snapshot of index %d%s", from.Farm, from.Role, s.index, from.before())
		return shot{}, false
	}
	return shot{}, true
}

func (s Source) before() string {
	if s.Before.IsZero() {
		return ""
	}
	return " from before " + clock(s.Before)
}

// newest finds the newest complete snapshot of a source for a slot, and the highest index of which the source has any, whenever it was
// taken.
func (d *decision) newest(r *Role, s slot, from Source) (x shot, highest int, ok bool) {
	all, asked, why := d.shots(from.Farm)
	if !asked {
		d.plan.soon = true
		why = fmt.Sprintf("looks for snapshots of %s/%s", from.Farm, from.Role)
	}
	if why != "" {
		d.wait(r.Name, s.index, "its volume is to be filled from a snapshot: %s", why)
		return shot{}, 0, false
	}
	var found []shot
	for _, x := range all {
		at, ok := slotOf(x.Tags)
		if !ok || at.role != from.Role || !x.Ready {
			continue
		}
		highest = max(highest, at.index)
		if at.index == s.index || r.Serves == Database {
			if !from.Before.IsZero() && !x.Created.Before(from.Before) {
				continue
			}
			found = append(found, x)
		}
	}
	if len(found) == 0 {
		return shot{}, highest, true
	}
	slices.SortFunc(found, newestFirst)
	if r.Serves == Database {
		var born time.Time
		for _, x := range found {
			if x.Tags[TagFinal] == "" || !x.Created.After(born) {
				break // what comes now is older than what the last end left
			}
			if x.Tags[TagPrimary] != "" {
				return x, highest, true
			}
			if at, err := time.Parse(time.RFC3339Nano, x.Tags[TagBorn]); err == nil && at.After(born) {
				born = at
			}
		}
	}
	return found[0], highest, true
}

// whereCan gives the role with the pools that can use the snapshot, or says why there are none.
func (d *decision) whereCan(r *Role, x shot) (*Role, string) {
	if x.Snapshot == nil {
		return r, ""
	}
	if r = d.within(r, x.cloud); r == nil {
		return nil, fmt.Sprintf("snapshot %s is in pool %s, and the role may be in none that shares its provider", x.ID, x.cloud.pools[0].Name)
	}
	return r, ""
}

// within gives the role with the pools of one provider, or nil if it may be in none of them.
func (d *decision) within(r *Role, c *cloud) *Role {
	with := *r
	with.Pools = nil
	for _, p := range d.config.poolsOf(r) {
		if slices.Contains(c.pools, p) {
			with.Pools = append(with.Pools, p.Name)
		}
	}
	if with.Pools == nil {
		return nil
	}
	return &with
}

// from makes a step fill its volume from a snapshot, if there is one.
func (s *Step) from(x shot, sizeGB int) {
	if x.Snapshot == nil {
		return
	}
	s.Snapshot, s.source, s.SizeGB = x.ID, x.Tags[TagFarm], max(sizeGB, x.SizeGB)
	s.Reason += fmt.Sprintf(", with what %s/%s-%s held at %s", or(x.Tags[TagSource], x.Tags[TagFarm]), x.Tags[TagRole], x.Tags[TagIndex], clock(x.Created))
	if x.SizeGB > sizeGB {
		s.Reason += fmt.Sprintf(" (which takes %d GB)", x.SizeGB)
	}
}

// again makes a step fill its volume from what the last try chose: another request would be another volume.
func (s *Step) again(m made) {
	if m.snapshot != "" {
		s.Snapshot, s.source, s.SizeGB = m.snapshot, m.source, m.sizeGB
		s.Reason += ", from snapshot " + m.snapshot
	}
}

// fill gives the volume of a spec what it is to be filled from.
func (s *Step) fill(v *provider.VolumeSpec) {
	if s.Snapshot != "" {
		v.Snapshot, v.SizeGB = s.Snapshot, s.SizeGB
		v.Tags[TagSource], v.Tags[TagSnapshot] = s.source, s.Snapshot
	}
}
