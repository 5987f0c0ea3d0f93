package memcloud

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/scalr-go/scalr/provider"
)

type volume = thing[provider.VolumeSpec, provider.Volume]

// CreateVolume implements provider.Volumes. A token whose volume was deleted makes a new one.
func (c *Cloud) CreateVolume(ctx context.Context, s provider.VolumeSpec) (provider.Volume, error) {
	var v provider.Volume
	err := c.call(ctx, Call{Method: "CreateVolume", ID: s.Token}, func(now time.Time) (err error) {
		v, err = c.createVolume(now, s, true)
		return err
	})
	if err != nil {
		return provider.Volume{}, err
	}
	v.Tags = maps.Clone(v.Tags)
	return v, nil
}

func (c *Cloud) createVolume(now time.Time, s provider.VolumeSpec, enforce bool) (provider.Volume, error) {
	if err := s.Check(); err != nil {
		return provider.Volume{}, err
	}
	if x, err := c.volumes.repeat(s.Token, s); err != nil {
		return provider.Volume{}, err
	} else if x != nil {
		return *x.at(now), nil
	}
	size, placement := s.SizeGB, s.Placement
	if s.Snapshot != "" {
		_, snap := c.snapshots.get(now, s.Snapshot)
		switch {
		case snap == nil:
			return provider.Volume{}, provider.Errorf("CreateVolume", s.Token, provider.ErrNotFound, "Snapshot %q does not exist", s.Snapshot)
		case !snap.Ready:
			return provider.Volume{}, provider.Errorf("CreateVolume", s.Token, nil, "Snapshot %s is not ready", s.Snapshot)
		case size != 0 && size < snap.SizeGB:
			return provider.Volume{}, provider.Errorf("CreateVolume", s.Token, provider.ErrInvalid,
				"SizeGB is %d, want at least the %d of Snapshot %s", size, snap.SizeGB, s.Snapshot)
		}
		size = max(size, snap.SizeGB)
	}
	if all := c.opts.Placements; placement == "" {
		placement = "a"
		if all != nil {
			placement = all[0]
		}
	} else if all != nil && !slices.Contains(all, placement) {
		return provider.Volume{}, provider.Errorf("CreateVolume", s.Token, provider.ErrInvalid, "Placement is %q, want one of %q", placement, all)
	}
	if err := over("CreateVolume", s.Token, "volumes", c.quota.Volumes, c.volumes.count); err != nil && enforce {
		return provider.Volume{}, err
	}
	s.Tags = maps.Clone(s.Tags)
	x := c.volumes.add(s.Token, s, s.Tags)
	v := provider.Volume{ID: x.id, Name: s.Name, SizeGB: size, Type: s.Type, Placement: placement, Created: now, Tags: x.tags}
	x.become(now, 0, v)
	v.Ready = true
	x.later(now.Add(c.opts.ReadyTime), v)
	if content, ok := c.content[s.Snapshot]; ok {
		c.content[x.id] = content
	}
	c.change(now, x.id, x.tags)
	return *x.at(now), nil
}

// Volumes implements provider.Volumes.
func (c *Cloud) Volumes(ctx context.Context, tags map[string]string) ([]provider.Volume, error) {
	var list []provider.Volume
	err := c.call(ctx, Call{Method: "Volumes"}, func(now time.Time) error {
		list = c.volumes.list(now.Add(-c.opts.ListLag), tags)
		return nil
	})
	if err != nil {
		return nil, err
	}
	for i := range list {
		list[i].Tags = maps.Clone(list[i].Tags)
	}
	return list, nil
}

// AttachVolume implements provider.Volumes.
func (c *Cloud) AttachVolume(ctx context.Context, id, instance string) error {
	return c.call(ctx, Call{Method: "AttachVolume", ID: id, Target: instance}, func(now time.Time) error {
		x, v := c.volumes.get(now, id)
		if x == nil {
			return provider.Errorf("AttachVolume", id, provider.ErrNotFound, "the volume does not exist")
		}
		m, err := c.usable(now, "AttachVolume", id, instance)
		switch {
		case err != nil:
			return err
		case v.Instance == instance:
			return nil
		case v.Instance != "":
			return provider.Errorf("AttachVolume", id, provider.ErrInvalid, "instance %s has the volume, want it free", v.Instance)
		case !v.Ready:
			return provider.Errorf("AttachVolume", id, nil, "the volume is not ready")
		}
		if p := m.x.at(now).Placement; p != v.Placement {
			return provider.Errorf("AttachVolume", id, provider.ErrInvalid, "instance %s is in placement %q, want the volume's, %q", instance, p, v.Placement)
		}
		c.attach(now, x, m)
		c.change(now, id, x.tags)
		return nil
	})
}

// DetachVolume implements provider.Volumes.
func (c *Cloud) DetachVolume(ctx context.Context, id string) error {
	return c.call(ctx, Call{Method: "DetachVolume", ID: id}, func(now time.Time) error {
		x, v := c.volumes.get(now, id)
		if x == nil {
			return provider.Errorf("DetachVolume", id, provider.ErrNotFound, "the volume does not exist")
		}
		if v.Instance != "" {
			c.detach(now, x)
			c.change(now, id, x.tags)
		}
		return nil
	})
}

// DeleteVolume implements provider.Volumes.
func (c *Cloud) DeleteVolume(ctx context.Context, id string) error {
	return c.call(ctx, Call{Method: "DeleteVolume", ID: id}, func(now time.Time) error {
		x, v := c.volumes.get(now, id)
		if x == nil {
			return nil
		}
		if v.Instance != "" {
			return provider.Errorf("DeleteVolume", id, provider.ErrInvalid, "instance %s has the volume, want it free", v.Instance)
		}
		c.volumes.remove(now, x)
		delete(c.content, id)
		c.change(now, id, x.tags)
		return nil
	})
}

// attach gives a free volume to an instance.
func (c *Cloud) attach(now time.Time, x *volume, m *machine) {
	m.volumes = append(m.volumes, x.id)
	device := fmt.Sprintf("/dev/disk/by-id/%s", x.id)
	x.amend(now, c.opts.ListLag, func(v *provider.Volume) { v.Instance, v.Device = m.x.id, device })
}

// detach takes a volume from the instance that has it.
func (c *Cloud) detach(now time.Time, x *volume) {
	m := c.machines[x.at(now).Instance]
	m.volumes = slices.DeleteFunc(m.volumes, func(id string) bool { return id == x.id })
	x.amend(now, c.opts.ListLag, func(v *provider.Volume) { v.Instance, v.Device = "", "" })
}

// CreateSnapshot implements provider.Snapshots.
func (c *Cloud) CreateSnapshot(ctx context.Context, s provider.SnapshotSpec) (provider.Snapshot, error) {
	var snap provider.Snapshot
	err := c.call(ctx, Call{Method: "CreateSnapshot", ID: s.Token}, func(now time.Time) (err error) {
		snap, err = c.createSnapshot(now, s, true)
		return err
	})
	if err != nil {
		return provider.Snapshot{}, err
	}
	snap.Tags = maps.Clone(snap.Tags)
	return snap, nil
}

func (c *Cloud) createSnapshot(now time.Time, s provider.SnapshotSpec, enforce bool) (provider.Snapshot, error) {
	if err := s.Check(); err != nil {
		return provider.Snapshot{}, err
	}
	if x, err := c.snapshots.repeat(s.Token, s); err != nil {
		return provider.Snapshot{}, err
	} else if x != nil {
		return *x.at(now), nil
	}
	_, v := c.volumes.get(now, s.Volume)
	if v == nil {
		return provider.Snapshot{}, provider.Errorf("CreateSnapshot", s.Token, provider.ErrNotFound, "Volume %q does not exist", s.Volume)
	}
	if !v.Ready {
		return provider.Snapshot{}, provider.Errorf("CreateSnapshot", s.Token, nil, "Volume %s is not ready", s.Volume)
	}
	if err := over("CreateSnapshot", s.Token, "snapshots", c.quota.Snapshots, c.snapshots.count); err != nil && enforce {
		return provider.Snapshot{}, err
	}
	s.Tags = maps.Clone(s.Tags)
	x := c.snapshots.add(s.Token, s, s.Tags)
	snap := provider.Snapshot{ID: x.id, Name: s.Name, Volume: s.Volume, SizeGB: v.SizeGB, Created: now, Tags: x.tags}
	x.become(now, 0, snap)
	snap.Ready = true
	x.later(now.Add(c.opts.ReadyTime), snap)
	if content, ok := c.content[s.Volume]; ok {
		c.content[x.id] = content
	}
	c.change(now, x.id, x.tags)
	return *x.at(now), nil
}

// Snapshots implements provider.Snapshots.
func (c *Cloud) Snapshots(ctx context.Context, tags map[string]string) ([]provider.Snapshot, error) {
	var list []provider.Snapshot
	err := c.call(ctx, Call{Method: "Snapshots"}, func(now time.Time) error {
		list = c.snapshots.list(now.Add(-c.opts.ListLag), tags)
		return nil
	})
	if err != nil {
		return nil, err
	}
	for i := range list {
		list[i].Tags = maps.Clone(list[i].Tags)
	}
	return list, nil
}

// DeleteSnapshot implements provider.Snapshots.
func (c *Cloud) DeleteSnapshot(ctx context.Context, id string) error {
	return c.call(ctx, Call{Method: "DeleteSnapshot", ID: id}, func(now time.Time) error {
		if x, _ := c.snapshots.get(now, id); x != nil {
			c.snapshots.remove(now, x)
			delete(c.content, id)
			c.change(now, id, x.tags)
		}
		return nil
	})
}
