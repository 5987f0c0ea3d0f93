package farm

import (
	"context"
	"errors"
	"slices"
	"strconv"
	"time"

	"github.com/scalr-go/scalr/provider"
)

// snapshotsOf is the snapshots of one farm.
type snapshotsOf struct {
	farm string
	listing[provider.Snapshot]
}

// snapshotsOf gives what was seen of a farm's snapshots, or nil if nobody has looked.
func (c *cloud) snapshotsOf(farm string) *listing[provider.Snapshot] {
	for i := range c.snapshots {
		if c.snapshots[i].farm == farm {
			return &c.snapshots[i].listing
		}
	}
	return nil
}

// snapshotsToSee names the farms whose snapshots are to be seen: none while nothing can be due and no volume is missing.
func (f *Farm) snapshotsToSee(end *TerminateOptions) (farms []string) {
	own := end != nil
	for i := range f.spec.Roles {
		r := &f.spec.Roles[i]
		if r.Volume == nil || end != nil {
			continue
		}
		own = own || r.Volume.Snapshots != nil && !time.Now().Before(f.history.copiesAt)
		if r.Volume.From != nil && (f.history.started.IsZero() || f.history.restoring) {
			own = true
			if from, _ := r.source(f.spec.Name); !r.copiesNow() && from.Farm != f.spec.Name && !slices.Contains(farms, from.Farm) {
				farms = append(farms, from.Farm)
			}
		}
	}
	if own {
		farms = append(farms, f.spec.Name)
	}
	return farms
}

// copyMemory is what a farm remembers of a series of snapshots: what was tried and may not be listed yet.
type copyMemory struct {
	due     string    // what tells the snapshot that was tried last from others
	at      time.Time // when it was tried; zero once a list has shown it, or if there is none for sure
	id      string    // the snapshot that the cloud has last answered with
	told    time.Time // when the snapshot was taken whose outcome has been told of last
	try     int       // how many tries for it have come to nothing
	retry   backoff   // of taking one
	refused backoff   // of deleting one

	blocked   time.Time // since when the end of the farm waits for one; zero if it does not
	blockTold bool      // of that
}

// remember notes what is known of a series.
func (h *history) remember(key series, mem copyMemory) {
	if h.copies == nil {
		h.copies = map[series]copyMemory{}
	}
	h.copies[key] = mem
}

// met takes up a listed snapshot.
func (d *decision) met(mem copyMemory, x shot) copyMemory {
	tag := takenFor(x.Tags)
	generation, _ := strconv.Atoi(x.Tags[TagGeneration])
	tried := tag == mem.due && generation == mem.try+1
	if tried {
		mem.at = time.Time{}
	}
	switch {
	case !x.Created.After(mem.told):
	case x.Failed:
		if tag != mem.due {
			mem.due, mem.try = tag, 0
		}
		mem.told, mem.try = x.Created, max(mem.try, generation)
		mem.retry = mem.retry.after(d.now, d.config.Backoff, "the last snapshot has failed")
		d.tell(SnapshotFailed, x, "the cloud gave up on the snapshot%s", because(x.Reason))
	case x.Ready && (tried || x.ID == mem.id):
		mem.told, mem.try, mem.retry = x.Created, 0, backoff{}
		d.tell(SnapshotDone, x, "the snapshot is complete")
	}
	return mem
}

// copying asks whether a snapshot may be taken now: not while an earlier try may still turn up, and not during a back-off.
func (d *decision) copying(role string, key series, mem copyMemory, tag string) (copyMemory, bool) {
	switch {
	case mem.at.IsZero():
	case d.now.Sub(mem.at) < d.config.ListLag:
		d.wait(role, key.slot.index, "its snapshot is being taken")
		return mem, false
	default:
		mem.at, mem.try = time.Time{}, mem.try+1
		mem.retry = mem.retry.after(d.now, d.config.Backoff, "snapshots fail without a reason")
	}
	if mem.due != tag {
		mem.try = 0
	}
	if left := mem.retry.until.Sub(d.now); left > 0 {
		d.wait(role, key.slot.index, "%s: next try in %v", mem.retry.reason, left.Round(time.Second))
		return mem, false
	}
	return mem, true
}

// callSnapshot takes or deletes a snapshot. Its token comes of what is copied and of its tags, so that whoever asks for the same
// one meets it, in another run of the program as well.
func (f *Farm) callSnapshot(ctx context.Context, s *Step, pool *Pool) error {
	snapshots, _ := provider.As[provider.Snapshots](pool.Provider)
	if s.Action == DeleteSnapshot {
		err := snapshots.DeleteSnapshot(ctx, s.Subject)
		f.mu.Lock()
		defer f.mu.Unlock()
		mem := f.history.copies[s.series]
		if err != nil {
			mem.refused = mem.refused.after(time.Now(), f.config.Backoff, reasonOf(err))
		} else {
			mem.refused = backoff{}
		}
		f.history.remember(s.series, mem)
		return err
	}
	spec := provider.SnapshotSpec{Name: f.spec.Name + "-" + slot{s.Role, s.Index}.name(), Volume: s.Volumes[0], Tags: s.tags}
	spec.Token = token(spec)
	f.mu.Lock()
	mem := f.history.copies[s.series]
	mem.due, mem.at = takenFor(s.tags), time.Now()
	f.history.remember(s.series, mem)
	f.history.lastMade = mem.at
	f.mu.Unlock()
	got, err := snapshots.CreateSnapshot(ctx, spec)
	f.mu.Lock()
	defer f.mu.Unlock()
	mem = f.history.copies[s.series]
	switch {
	case err == nil:
		mem.id, s.Subject = got.ID, got.ID
	case definite(err):
		mem.at, mem.retry = time.Time{}, mem.retry.after(time.Now(), f.config.Backoff, reasonOf(err))
		if e, ok := errors.AsType[*provider.Error](err); ok && e.RetryAfter > f.config.Backoff {
			mem.retry.until = time.Now().Add(e.RetryAfter)
		}
	}
	f.history.remember(s.series, mem)
	return err
}

// takenFor tells a snapshot from others of its series.
func takenFor(tags map[string]string) string {
	return or(tags[TagFinal], or(tags[TagFirst], tags[TagDue]))
}

// ownTags leaves of a snapshot's tags those that it was created with: somebody may have added some.
func ownTags(tags map[string]string) map[string]string {
	own := map[string]string{}
	for _, key := range []string{TagFarm, TagRole, TagIndex, TagPool, TagDue, TagGeneration, TagFinal, TagPrimary, TagBorn, TagFirst, TagSource} {
		if v, ok := tags[key]; ok {
			own[key] = v
		}
	}
	return own
}
