package openstack

import (
	"cmp"
	"context"
	"net/url"
	"slices"
	"strings"

	"github.com/gophercloud/gophercloud/v2/openstack/blockstorage/v3/snapshots"

	"github.com/scalr-go/scalr/provider"
)

// copied is what the driver reads of a snapshot.
type copied struct {
	ID, Name, Status string
	Size             int
	Volume           string     `json:"volume_id"`
	Created          cinderTime `json:"created_at"`
	Metadata         map[string]string
}

func (s *copied) snapshot() provider.Snapshot {
	x := provider.Snapshot{ID: s.ID, Name: s.Name, Volume: s.Volume, SizeGB: s.Size, Created: s.Created.Time,
		Ready: s.Status == "available", Tags: tagsIn(s.Metadata)}
	if x.Failed = strings.HasPrefix(s.Status, "error"); x.Failed {
		x.Reason = s.Status // Cinder says no more
	}
	return x
}

// copies lists snapshots, the oldest first.
func (c *Cloud) copies(ctx context.Context, q url.Values) ([]copied, error) {
	all, err := list[copied](ctx, c.volume, "snapshots", q, "snapshots", "detail")
	slices.SortFunc(all, func(a, b copied) int { return cmp.Or(a.Created.Compare(b.Created.Time), strings.Compare(a.ID, b.ID)) })
	return all, err
}

// copiesOf lists snapshots by their metadata, without those that are being deleted.
func (c *Cloud) copiesOf(ctx context.Context, want map[string]string) ([]copied, error) {
	all, err := c.copies(ctx, byMetadata(want))
	return slices.DeleteFunc(all, func(s copied) bool { return s.Status == "deleting" || !provider.Matches(s.Metadata, want) }), err
}

// copyOf gives one snapshot.
func (c *Cloud) copyOf(ctx context.Context, id string) (*copied, error) {
	var body struct{ Snapshot copied }
	_, err := c.volume.Get(ctx, c.volume.ServiceURL("snapshots", url.PathEscape(id)), &body, nil)
	return &body.Snapshot, err
}

// CreateSnapshot takes a snapshot of a volume, also of one that a server has: then it is as after a loss of power.
func (c *Cloud) CreateSnapshot(ctx context.Context, s provider.SnapshotSpec) (provider.Snapshot, error) {
	const op = "CreateSnapshot"
	if err := s.Check(); err != nil {
		return provider.Snapshot{}, err
	}
	if err := checkTags(op, s.Token, s.Tags); err != nil {
		return provider.Snapshot{}, err
	}
	if err := has(op, s.Token, "block-storage", c.volume); err != nil {
		return provider.Snapshot{}, err
	}
	x, err := once(ctx, c, thing[copied]{op: op, token: s.Token,
		find: func(ctx context.Context) ([]copied, error) {
			return c.copiesOf(ctx, map[string]string{keyToken: s.Token})
		},
		drop: func(ctx context.Context, x copied) error { return c.deleteSnapshot(ctx, x.ID) },
		post: func(ctx context.Context) error {
			d, err := c.disk(ctx, s.Volume)
			switch {
			case is(err, 404) || err == nil && (d.ending() || d.Metadata[keyEnded] != ""):
				return provider.Errorf(op, s.Token, provider.ErrNotFound, "Volume is %q, which does not exist", s.Volume)
			case err != nil:
				return definite(ctx, op, s.Token, err)
			case !d.volumeIdle():
				return provider.Errorf(op, s.Token, nil, "volume %s is busy: %s", s.Volume, d.Status)
			}
			return snapshots.Create(ctx, c.volume, snapshots.CreateOpts{VolumeID: s.Volume, Name: s.Name, Force: true,
				Metadata: metadata(s.Tags, keyToken, s.Token, keySpec, signature(s))}).Err
		},
	})
	if err == nil {
		err = sameSpec(op, x.ID, s, x.Metadata[keySpec])
	}
	if err != nil {
		return provider.Snapshot{}, err
	}
	return x.snapshot(), nil
}

func (d *disk) volumeIdle() bool { return d.Status == "available" || d.Status == "in-use" }

// Snapshots lists the snapshots.
func (c *Cloud) Snapshots(ctx context.Context, tags map[string]string) ([]provider.Snapshot, error) {
	const op = "Snapshots"
	if err := has(op, "", "block-storage", c.volume); err != nil {
		return nil, err
	}
	all, err := c.copiesOf(ctx, tags)
	if err != nil {
		return nil, fail(ctx, op, "", err)
	}
	found := make([]provider.Snapshot, 0, len(all))
	for i := range all {
		found = append(found, all[i].snapshot())
	}
	slices.SortFunc(found, func(a, b provider.Snapshot) int { return strings.Compare(a.ID, b.ID) })
	return found, nil
}

// DeleteSnapshot deletes the snapshot and, with the last one of a volume that was to be deleted, the volume.
func (c *Cloud) DeleteSnapshot(ctx context.Context, id string) error {
	const op = "DeleteSnapshot"
	if err := has(op, id, "block-storage", c.volume); err != nil {
		return err
	}
	return failed(ctx, op, id, c.deleteSnapshot(ctx, id))
}

func (c *Cloud) deleteSnapshot(ctx context.Context, id string) error {
	x, err := c.copyOf(ctx, id)
	if is(err, 404) {
		return nil
	}
	if err != nil {
		return err
	}
	if x.Status != "deleting" {
		err = snapshots.Delete(ctx, c.volume, url.PathEscape(id)).ExtractErr()
		if err != nil && !is(err, 404) {
			return err
		}
	}
	d, err := c.disk(ctx, x.Volume)
	if is(err, 404) || err == nil && d.Metadata[keyEnded] == "" {
		return nil
	}
	if err != nil {
		return err
	}
	err = poll(ctx, func() (bool, error) {
		x, err := c.copyOf(ctx, id)
		if err == nil && strings.HasPrefix(x.Status, "error") {
			return false, provider.Errorf("DeleteSnapshot", id, nil, "the snapshot could not be deleted: %s", x.Status)
		}
		return is(err, 404), ignore(err, 404)
	})
	if err != nil {
		return err
	}
	return c.deleteVolume(ctx, x.Volume)
}

// ignore is nil for an answer of that status.
func ignore(err error, status int) error {
	if is(err, status) {
		return nil
	}
	return err
}
