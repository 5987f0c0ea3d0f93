package local

import (
	"cmp"
	"context"
	"errors"
	"io/fs"
	"maps"
	"os"
	"slices"
	"time"

	"github.com/scalr-go/scalr/provider"
)

// CreateSnapshot copies the volume's directory and returns when the copy is complete.
//
// The copy is as of one instant: if an instance has the volume, its processes are stopped (SIGSTOP) while the copy is made
// and go on afterwards, so that the snapshot is what the disk of a machine that lost its power would hold. A database
// recovers from it. Where the file system shares blocks between files (Btrfs, XFS), that takes no longer than it takes to
// list the files; elsewhere the processes stand still for as long as it takes to copy the data. Should this program die
// meanwhile, the processes go on by themselves.
func (c *Cloud) CreateSnapshot(ctx context.Context, s provider.SnapshotSpec) (provider.Snapshot, error) {
	const op = "CreateSnapshot"
	if err := s.Check(); err != nil {
		return provider.Snapshot{}, err
	}
	var n snapshot
	err := c.store.locked(ctx, func() error {
		all, err := list[snapshot](c.store, kindSnapshot)
		if err != nil {
			return err
		}
		if i := slices.IndexFunc(all, func(n snapshot) bool { return n.Spec.Token == s.Token }); i >= 0 {
			n = all[i]
			if field := provider.Differs(n.Spec, s); field != "" {
				return provider.Errorf(op, s.Token, provider.ErrInvalid, "Token was used for %s with another %s", n.ID, field)
			}
			return nil
		}
		v, err := get[volume](c.store, s.Volume)
		if errors.Is(err, fs.ErrNotExist) {
			return provider.Errorf(op, s.Token, provider.ErrNotFound, "Volume is %q, which does not exist", s.Volume)
		}
		if err != nil {
			return err
		}
		if !v.Ready {
			return provider.Errorf(op, s.Token, nil, "volume %s is not ready yet", s.Volume)
		}
		n = snapshot{ID: newID(kindSnapshot), Spec: s, SizeGB: v.SizeGB, Created: time.Now()}
		return c.store.put(n)
	})
	if err == nil && !n.Ready {
		err = c.take(ctx, &n)
	}
	if err != nil {
		return provider.Snapshot{}, fail(op, s.Token, err)
	}
	return showSnapshot(n), nil
}

// take completes a snapshot. If that fails, the snapshot is taken back.
func (c *Cloud) take(ctx context.Context, n *snapshot) error {
	unlock, err := c.store.lock(ctx, n.ID)
	if err != nil {
		return err
	}
	defer unlock()
	now, err := get[snapshot](c.store, n.ID)
	if err != nil {
		return err
	}
	if now.Ready {
		*n = now
		return nil
	}
	path := c.Dir(n.ID)
	if err = os.RemoveAll(path); err == nil {
		n.Created, err = c.copyStill(ctx, n.Spec.Volume, path)
	}
	if err == nil {
		err = syncTree(ctx, path)
	}
	if err == nil {
		n.Ready = true
		err = c.store.locked(ctx, func() error { return c.store.put(*n) })
	}
	if err == nil {
		return nil
	}
	return c.takeBack(ctx, n.ID, err)
}

// copyStill copies the volume while nothing changes it, and says of which instant the copy is.
func (c *Cloud) copyStill(ctx context.Context, vol, path string) (at time.Time, err error) {
	owner, unlock, err := c.hold(ctx, vol)
	if err != nil {
		return at, err
	}
	defer unlock()
	if owner != "" {
		thaw, err := freeze(ctx, instanceMark(owner))
		if err != nil {
			return at, err
		}
		defer thaw()
	}
	at = time.Now()
	c.step("frozen")
	return at, copyTree(ctx, c.Dir(vol), path)
}

// hold keeps the volume from changing hands and, if no instance has it, from being deleted; if one has, that one from being
// started.
func (c *Cloud) hold(ctx context.Context, vol string) (owner string, unlock func(), err error) {
	find := func() (string, error) {
		if _, err := get[volume](c.store, vol); err != nil {
			return "", err
		}
		all, err := list[instance](c.store, kindInstance)
		return ownerOf(vol, all), err
	}
	for {
		owner, err := find()
		if err != nil {
			return "", nil, err
		}
		unlock, err := c.store.lock(ctx, cmp.Or(owner, vol))
		if errors.Is(err, fs.ErrNotExist) {
			continue // the owner is gone, or the volume is
		}
		if err != nil {
			return "", nil, err
		}
		if now, err := find(); err == nil && now == owner {
			return owner, unlock, nil
		}
		unlock() // it has changed hands meanwhile
	}
}

// Snapshots lists the snapshots.
func (c *Cloud) Snapshots(ctx context.Context, tags map[string]string) ([]provider.Snapshot, error) {
	const op = "Snapshots"
	if err := ctx.Err(); err != nil {
		return nil, fail(op, "", err)
	}
	all, err := list[snapshot](c.store, kindSnapshot)
	if err != nil {
		return nil, fail(op, "", err)
	}
	shown := []provider.Snapshot{}
	for _, n := range all {
		if provider.Matches(n.Spec.Tags, tags) {
			shown = append(shown, showSnapshot(n))
		}
	}
	return shown, nil
}

func showSnapshot(n snapshot) provider.Snapshot {
	return provider.Snapshot{
		ID: n.ID, Name: n.Spec.Name, Volume: n.Spec.Volume, SizeGB: n.SizeGB, Ready: n.Ready, Created: n.Created,
		Tags: maps.Clone(n.Spec.Tags),
	}
}

// DeleteSnapshot removes the snapshot's directory.
func (c *Cloud) DeleteSnapshot(ctx context.Context, id string) error {
	const op = "DeleteSnapshot"
	if err := ctx.Err(); err != nil {
		return fail(op, id, err)
	}
	if !(snapshot{}).is(id) {
		return nil
	}
	unlock, err := c.store.lock(ctx, id)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fail(op, id, err)
	}
	defer unlock()
	err = c.store.locked(ctx, func() error {
		n, err := get[snapshot](c.store, id)
		if err != nil {
			return err
		}
		n.Ready = false // so that nobody takes a snapshot that is half removed
		return c.store.put(n)
	})
	if err == nil {
		err = os.RemoveAll(c.Dir(id))
	}
	if err == nil {
		err = c.store.locked(ctx, func() error { return c.store.remove(id) })
	}
	return fail(op, id, err)
}
