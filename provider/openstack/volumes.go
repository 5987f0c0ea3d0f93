package openstack

import (
	"cmp"
	"context"
	"encoding/json"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/gophercloud/gophercloud/v2/openstack/blockstorage/v3/volumes"
	"github.com/gophercloud/gophercloud/v2/openstack/compute/v2/volumeattach"

	"github.com/scalr-go/scalr/provider"
)

// cinderTime is a time as Cinder and Octavia write it: without a zone, in UTC.
type cinderTime struct{ time.Time }

// UnmarshalJSON implements json.Unmarshaler.
func (t *cinderTime) UnmarshalJSON(b []byte) error {
	var s string
	if err := json.Unmarshal(b, &s); err != nil || s == "" {
		return err
	}
	var err error
	if t.Time, err = time.Parse("2006-01-02T15:04:05.999999", strings.TrimSuffix(s, "Z")); err != nil {
		t.Time, err = time.Parse(time.RFC3339, s)
	}
	return err
}

// disk is what the driver reads of a volume.
type disk struct {
	ID, Name, Status string
	Size             int
	Type             string     `json:"volume_type"`
	Zone             string     `json:"availability_zone"`
	Created          cinderTime `json:"created_at"`
	Metadata         map[string]string
	Attachments      []struct {
		Server string `json:"server_id"`
		Device string
	}
}

func (d *disk) volume() provider.Volume {
	v := provider.Volume{ID: d.ID, Name: d.Name, SizeGB: d.Size, Type: d.Type, Placement: d.Zone, Created: d.Created.Time,
		Ready: d.Status == "available" || d.Status == "in-use" || d.Status == "attaching" || d.Status == "detaching" || d.Status == "reserved",
		Tags:  tagsIn(d.Metadata)}
	if len(d.Attachments) > 0 {
		v.Instance, v.Device = d.Attachments[0].Server, d.Attachments[0].Device
	}
	return v
}

// ending reports whether Cinder is deleting it.
func (d *disk) ending() bool { return d.Status == "deleting" }

// disks lists volumes by their metadata, the oldest first.
func (c *Cloud) disks(ctx context.Context, want map[string]string) ([]disk, error) {
	q := byMetadata(want)
	all, err := list[disk](ctx, c.volume, "volumes", q, "volumes", "detail")
	all = slices.DeleteFunc(all, func(d disk) bool { return d.ending() || !provider.Matches(d.Metadata, want) })
	slices.SortFunc(all, func(a, b disk) int { return cmp.Or(a.Created.Compare(b.Created.Time), strings.Compare(a.ID, b.ID)) })
	return all, err
}

func byMetadata(want map[string]string) url.Values {
	if len(want) == 0 {
		return nil
	}
	text, _ := json.Marshal(want)
	return url.Values{"metadata": {string(text)}}
}

// disk gives one volume.
func (c *Cloud) disk(ctx context.Context, id string) (*disk, error) {
	var body struct{ Volume disk }
	_, err := c.volume.Get(ctx, c.volume.ServiceURL("volumes", url.PathEscape(id)), &body, nil)
	return &body.Volume, err
}

// CreateVolume makes a volume.
func (c *Cloud) CreateVolume(ctx context.Context, s provider.VolumeSpec) (provider.Volume, error) {
	const op = "CreateVolume"
	if err := s.Check(); err != nil {
		return provider.Volume{}, err
	}
	if err := checkTags(op, s.Token, s.Tags); err != nil {
		return provider.Volume{}, err
	}
	if err := has(op, s.Token, "block-storage", c.volume); err != nil {
		return provider.Volume{}, err
	}
	d, err := once(ctx, c, thing[disk]{op: op, token: s.Token,
		find: func(ctx context.Context) ([]disk, error) { return c.disks(ctx, map[string]string{keyToken: s.Token}) },
		drop: func(ctx context.Context, d disk) error { return c.deleteVolume(ctx, d.ID) },
		post: func(ctx context.Context) error { return c.postVolume(ctx, s) },
	})
	if err == nil {
		err = sameSpec(op, d.ID, s, d.Metadata[keySpec])
	}
	if err != nil {
		return provider.Volume{}, err
	}
	return d.volume(), nil
}

func (c *Cloud) postVolume(ctx context.Context, s provider.VolumeSpec) error {
	const op = "CreateVolume"
	size := s.SizeGB
	if s.Snapshot != "" {
		from, err := c.copyOf(ctx, s.Snapshot)
		switch {
		case is(err, 404):
			return provider.Errorf(op, s.Token, provider.ErrNotFound, "Snapshot is %q, which does not exist", s.Snapshot)
		case err != nil:
			return definite(ctx, op, s.Token, err)
		case from.Status != "available":
			return provider.Errorf(op, s.Token, nil, "snapshot %s is not ready: %s", s.Snapshot, from.Status)
		case size != 0 && size < from.Size:
			return provider.Errorf(op, s.Token, provider.ErrInvalid, "SizeGB is %d, want at least the %d of %s", size, from.Size, s.Snapshot)
		}
		size = max(size, from.Size)
	}
	err := volumes.Create(ctx, c.volume, volumes.CreateOpts{Name: s.Name, Size: size, VolumeType: s.Type, AvailabilityZone: s.Placement,
		SnapshotID: s.Snapshot, Metadata: metadata(s.Tags, keyToken, s.Token, keySpec, signature(s))}, nil).Err
	err = failed(ctx, op, s.Token, err)
	if e, ok := err.(*provider.Error); ok && (e.Kind == provider.ErrInvalid || e.Kind == provider.ErrNotFound) {
		text := strings.ToLower(e.Err.Error())
		switch {
		case strings.Contains(text, "availability zone"):
			return provider.Errorf(op, s.Token, provider.ErrInvalid, "Placement is %q: %w", s.Placement, e.Err)
		case strings.Contains(text, "volume type"):
			return provider.Errorf(op, s.Token, provider.ErrInvalid, "Type is %q: %w", s.Type, e.Err)
		}
	}
	return err
}

// Volumes lists the volumes. One that waits for the end of its snapshots to be deleted is left out, and deleted if they are gone:
// whoever deleted the last of them has died before the volume was.
func (c *Cloud) Volumes(ctx context.Context, tags map[string]string) ([]provider.Volume, error) {
	const op = "Volumes"
	if err := has(op, "", "block-storage", c.volume); err != nil {
		return nil, err
	}
	all, err := c.disks(ctx, tags)
	if err != nil {
		return nil, fail(ctx, op, "", err)
	}
	found := make([]provider.Volume, 0, len(all))
	for i := range all {
		if all[i].Metadata[keyEnded] != "" {
			held, err := c.copies(ctx, url.Values{"volume_id": {all[i].ID}})
			if err != nil {
				return nil, fail(ctx, op, "", err)
			}
			if len(held) > 0 || ignore(volumes.Delete(ctx, c.volume, url.PathEscape(all[i].ID), nil).ExtractErr(), 404) == nil {
				continue
			}
		}
		found = append(found, all[i].volume())
	}
	slices.SortFunc(found, func(a, b provider.Volume) int { return strings.Compare(a.ID, b.ID) })
	return found, nil
}

// attachable fails if the volume cannot be given to a new server.
func (c *Cloud) attachable(ctx context.Context, op, id, volume string) error {
	d, err := c.disk(ctx, volume)
	switch {
	case is(err, 404) || err == nil && d.ending():
		return provider.Errorf(op, id, provider.ErrNotFound, "Volumes has %q, which does not exist", volume)
	case err != nil:
		return err
	case len(d.Attachments) > 0:
		return provider.Errorf(op, id, provider.ErrInvalid, "Volumes has %q, which %s has", volume, d.Attachments[0].Server)
	case d.Status != "available":
		return provider.Errorf(op, id, nil, "volume %s is not ready: %s", volume, d.Status)
	}
	return nil
}

// AttachVolume gives the volume to the server.
func (c *Cloud) AttachVolume(ctx context.Context, volume, instance string) error {
	const op = "AttachVolume"
	if err := has(op, volume, "block-storage", c.volume); err != nil {
		return err
	}
	unlock, err := c.locks.lock(ctx, "volume "+volume)
	if err != nil {
		return fail(ctx, op, volume, err)
	}
	defer unlock()
	asked := false
	err = poll(ctx, func() (bool, error) {
		d, err := c.disk(ctx, volume)
		switch {
		case is(err, 404) || err == nil && d.ending():
			return false, provider.Errorf(op, volume, provider.ErrNotFound, "there is no such volume")
		case err != nil:
			return false, err
		case len(d.Attachments) > 0 && d.Attachments[0].Server != instance:
			return false, provider.Errorf(op, volume, provider.ErrInvalid, "instance is %q, but %s has the volume", instance, d.Attachments[0].Server)
		case len(d.Attachments) > 0:
			return d.Status == "in-use", nil
		case d.Status == "attaching" || d.Status == "reserved" || d.Status == "detaching":
			return false, nil
		case d.Status != "available":
			return false, provider.Errorf(op, volume, nil, "the volume is not ready: %s", d.Status)
		case asked:
			return false, provider.Errorf(op, volume, nil, "server %s could not attach the volume", instance)
		}
		s, err := c.server(ctx, instance)
		switch {
		case is(err, 404) || err == nil && s.state().Gone():
			return false, provider.Errorf(op, volume, provider.ErrNotFound, "there is no instance %q, or it is terminated", instance)
		case err != nil:
			return false, err
		case s.state() != provider.Running && s.state() != provider.Stopped:
			return false, provider.Errorf(op, volume, nil, "instance %s does not run yet: %s", instance, s.state())
		}
		err = volumeattach.Create(ctx, c.compute, url.PathEscape(instance), volumeattach.CreateOpts{VolumeID: volume}).Err
		if err = failed(ctx, op, volume, err); err != nil {
			return false, err
		}
		asked = true
		return false, nil
	})
	return fail(ctx, op, volume, err)
}

// DetachVolume takes the volume from its server.
func (c *Cloud) DetachVolume(ctx context.Context, volume string) error {
	const op = "DetachVolume"
	if err := has(op, volume, "block-storage", c.volume); err != nil {
		return err
	}
	unlock, err := c.locks.lock(ctx, "volume "+volume)
	if err != nil {
		return fail(ctx, op, volume, err)
	}
	defer unlock()
	err = poll(ctx, func() (bool, error) {
		d, err := c.disk(ctx, volume)
		switch {
		case is(err, 404):
			return false, provider.Errorf(op, volume, provider.ErrNotFound, "there is no such volume")
		case err != nil:
			return false, err
		case d.Status == "in-use" && len(d.Attachments) > 0:
			err := volumeattach.Delete(ctx, c.compute, url.PathEscape(d.Attachments[0].Server), url.PathEscape(volume)).ExtractErr()
			if is(err, 404) || is(err, 409) { // the server is ending, or busy: it will give the volume back, or can be asked again
				err = nil
			}
			return false, err
		case d.Status == "detaching" || d.Status == "attaching" || d.Status == "reserved":
			return false, nil
		}
		return len(d.Attachments) == 0, nil
	})
	return failed(ctx, op, volume, err)
}

// DeleteVolume deletes the volume. One that snapshots depend on is deleted with the last of them, and not listed until then.
func (c *Cloud) DeleteVolume(ctx context.Context, volume string) error {
	const op = "DeleteVolume"
	if err := has(op, volume, "block-storage", c.volume); err != nil {
		return err
	}
	return failed(ctx, op, volume, c.deleteVolume(ctx, volume))
}

func (c *Cloud) deleteVolume(ctx context.Context, volume string) error {
	const op = "DeleteVolume"
	d, err := c.disk(ctx, volume)
	switch {
	case is(err, 404) || err == nil && d.ending():
		return nil
	case err != nil:
		return err
	case len(d.Attachments) > 0:
		return provider.Errorf(op, volume, provider.ErrInvalid, "%s has the volume: detach it first", d.Attachments[0].Server)
	case d.Status != "available" && !strings.HasPrefix(d.Status, "error"):
		return provider.Errorf(op, volume, nil, "the volume is busy: %s", d.Status)
	}
	marked := false
	return poll(ctx, func() (bool, error) {
		held, err := c.copies(ctx, url.Values{"volume_id": {volume}})
		switch {
		case err != nil:
			return false, err
		case len(held) == 0:
			return true, ignore(volumes.Delete(ctx, c.volume, url.PathEscape(volume), nil).ExtractErr(), 404)
		case !slices.ContainsFunc(held, func(x copied) bool { return x.Status != "deleting" }):
			return false, nil // whoever deletes them may not have seen the mark
		case marked:
			return true, nil // who deletes the last of them will see it
		}
		marked = true
		m := metadata(d.Metadata, keyEnded, time.Now().UTC().Format(time.RFC3339))
		return false, volumes.Update(ctx, c.volume, url.PathEscape(volume), volumes.UpdateOpts{Metadata: m}).Err
	})
}
