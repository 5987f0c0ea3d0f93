package local

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"slices"
	"syscall"
	"time"

	"github.com/scalr-go/scalr/provider"
)

// volumesDir holds, in a machine's directory, one symbolic link for each of its volumes, named after the volume.
const volumesDir = "volumes"

// CreateVolume makes an empty directory, or a copy of a snapshot's, and returns when it is complete. A disk that is full is
// ErrCapacity. Of a volume that has been deleted, the token is forgotten.
func (c *Cloud) CreateVolume(ctx context.Context, s provider.VolumeSpec) (provider.Volume, error) {
	const op = "CreateVolume"
	if err := s.Check(); err != nil {
		return provider.Volume{}, err
	}
	if s.Placement != "" && s.Placement != Placement {
		return provider.Volume{}, provider.Errorf(op, s.Token, provider.ErrInvalid, "Placement is %q, want %q or none", s.Placement, Placement)
	}
	var v volume
	err := c.store.locked(ctx, func() error {
		all, err := list[volume](c.store, kindVolume)
		if err != nil {
			return err
		}
		if i := slices.IndexFunc(all, func(v volume) bool { return v.Spec.Token == s.Token }); i >= 0 {
			v = all[i]
			if field := provider.Differs(v.Spec, s); field != "" {
				return provider.Errorf(op, s.Token, provider.ErrInvalid, "Token was used for %s with another %s", v.ID, field)
			}
			return nil
		}
		v = volume{ID: newID(kindVolume), Spec: s, SizeGB: s.SizeGB, Created: time.Now()}
		if s.Snapshot != "" {
			from, err := get[snapshot](c.store, s.Snapshot)
			if errors.Is(err, fs.ErrNotExist) {
				return provider.Errorf(op, s.Token, provider.ErrNotFound, "Snapshot is %q, which does not exist", s.Snapshot)
			}
			if err != nil {
				return err
			}
			if !from.Ready {
				return provider.Errorf(op, s.Token, nil, "snapshot %s is not ready yet", s.Snapshot)
			}
			if s.SizeGB != 0 && s.SizeGB < from.SizeGB {
				return provider.Errorf(op, s.Token, provider.ErrInvalid, "SizeGB is %d, want at least the %d of %s", s.SizeGB, from.SizeGB, from.ID)
			}
			v.SizeGB = max(s.SizeGB, from.SizeGB)
		}
		return c.store.put(v)
	})
	if err == nil && !v.Ready {
		err = c.fill(ctx, &v)
	}
	if err != nil {
		return provider.Volume{}, fail(op, s.Token, err)
	}
	all, err := list[instance](c.store, kindInstance)
	return c.showVolume(v, all), fail(op, s.Token, err)
}

// fill completes a volume. If that fails, the volume is taken back.
func (c *Cloud) fill(ctx context.Context, v *volume) error {
	unlock, err := c.store.lock(ctx, v.ID)
	if err != nil {
		return err
	}
	defer unlock()
	return c.filled(ctx, v)
}

// filled is fill for who holds the volume's lock.
func (c *Cloud) filled(ctx context.Context, v *volume) error {
	now, err := get[volume](c.store, v.ID) // another caller may have completed it while this one waited
	if err != nil {
		return err
	}
	if now.Doomed {
		return cmp.Or(c.unmake(ctx, v.ID), fmt.Errorf("volume %s was being deleted", v.ID))
	}
	if now.Ready {
		*v = now
		return nil
	}
	path := c.Dir(v.ID)
	if err = os.RemoveAll(path); err == nil {
		if v.Spec.Snapshot == "" {
			err = os.Mkdir(path, 0o700)
		} else {
			err = c.copyFrom(ctx, v.Spec.Snapshot, path)
		}
	}
	if err == nil {
		c.step("filled")
		v.Ready = true
		err = c.store.locked(ctx, func() error { return c.store.put(*v) })
	}
	if err == nil {
		return nil
	}
	return c.takeBack(ctx, v.ID, err)
}

// copyFrom copies the snapshot while nobody deletes it.
func (c *Cloud) copyFrom(ctx context.Context, id, path string) error {
	unlock, err := c.store.lock(ctx, id)
	if err != nil {
		return err
	}
	defer unlock()
	if _, err := get[snapshot](c.store, id); err != nil {
		return err
	}
	if err := copyTree(ctx, c.Dir(id), path); err != nil {
		return err
	}
	return syncTree(ctx, path)
}

// takeBack removes a volume or a snapshot that could not be completed. The caller holds its lock.
func (c *Cloud) takeBack(ctx context.Context, id string, cause error) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), patience)
	defer cancel()
	err := os.RemoveAll(c.Dir(id))
	if err == nil {
		err = c.store.locked(ctx, func() error { return c.store.remove(id) })
	}
	if errors.Is(cause, syscall.ENOSPC) {
		cause = &provider.Error{Op: "copy", ID: id, Kind: provider.ErrCapacity, Err: cause}
	}
	return errors.Join(cause, err)
}

// completeVolume does the rest of a CreateVolume or a DeleteVolume that nobody is at work on, and reports whether there is a volume.
// Whoever finds it in a list and waits for it has not got its token.
func (c *Cloud) completeVolume(ctx context.Context, v *volume) bool {
	if v.Ready {
		return true
	}
	if unlock, ok := c.store.tryLock(v.ID); ok {
		defer unlock()
		_ = c.filled(ctx, v)
	}
	return c.store.has(v.ID)
}

// Volumes lists the volumes. The Device of a volume is its directory. It completes what a program that called CreateVolume or
// DeleteVolume did not live to complete; a volume of which that fails is taken back, for CreateVolume to make it anew.
func (c *Cloud) Volumes(ctx context.Context, tags map[string]string) ([]provider.Volume, error) {
	const op = "Volumes"
	if err := ctx.Err(); err != nil {
		return nil, fail(op, "", err)
	}
	all, err := list[volume](c.store, kindVolume)
	if err != nil {
		return nil, fail(op, "", err)
	}
	instances, err := list[instance](c.store, kindInstance)
	if err != nil {
		return nil, fail(op, "", err)
	}
	shown := []provider.Volume{}
	for _, v := range all {
		if provider.Matches(v.Spec.Tags, tags) && c.completeVolume(ctx, &v) {
			shown = append(shown, c.showVolume(v, instances))
		}
	}
	return shown, nil
}

func (c *Cloud) showVolume(v volume, all []instance) provider.Volume {
	return provider.Volume{
		ID: v.ID, Name: v.Spec.Name, SizeGB: v.SizeGB, Type: v.Spec.Type, Placement: Placement, Instance: ownerOf(v.ID, all),
		Device: c.Dir(v.ID), Ready: v.Ready, Created: v.Created, Tags: maps.Clone(v.Spec.Tags),
	}
}

// AttachVolume adds the volume to those of the instance. A running program finds it as volumes/<ID> in its directory; the
// image is told of it at the next start.
func (c *Cloud) AttachVolume(ctx context.Context, vol, inst string) error {
	const op = "AttachVolume"
	if !(volume{}).is(vol) {
		return provider.Errorf(op, vol, provider.ErrNotFound, "there is no such volume")
	}
	if !isInstance(inst) {
		return provider.Errorf(op, vol, provider.ErrNotFound, "there is no instance %q, or it is terminated", inst)
	}
	unlock, err := c.store.lock(ctx, inst)
	if errors.Is(err, fs.ErrNotExist) {
		return provider.Errorf(op, vol, provider.ErrNotFound, "there is no instance %q, or it is terminated", inst)
	}
	if err != nil {
		return fail(op, vol, err)
	}
	defer unlock()
	free, err := c.store.lock(ctx, vol) // a snapshot of the free volume ends first
	if errors.Is(err, fs.ErrNotExist) {
		return provider.Errorf(op, vol, provider.ErrNotFound, "there is no such volume")
	}
	if err != nil {
		return fail(op, vol, err)
	}
	defer free()
	var r instance
	err = c.store.locked(ctx, func() error {
		v, err := get[volume](c.store, vol)
		if err != nil {
			return err
		}
		all, err := list[instance](c.store, kindInstance)
		if err != nil {
			return err
		}
		i := slices.IndexFunc(all, func(r instance) bool { return r.ID == inst })
		if i < 0 || all[i].Phase.gone() {
			return provider.Errorf(op, vol, provider.ErrNotFound, "there is no instance %q, or it is terminated", inst)
		}
		r = all[i]
		switch owner := ownerOf(vol, all); {
		case owner == inst:
			return nil
		case owner != "":
			return provider.Errorf(op, vol, provider.ErrInvalid, "instance is %q, but %s has the volume", inst, owner)
		case !v.Ready:
			return provider.Errorf(op, vol, nil, "the volume is not ready yet")
		}
		r.Volumes = append(r.Volumes, vol)
		return c.store.put(r)
	})
	if err == nil && r.Prepared {
		err = c.link(r)
	}
	return fail(op, vol, err)
}

// DetachVolume takes the volume from its instance. It fails while a process of the instance has files of the volume open,
// as a file system that is in use cannot be unmounted: stop the instance first.
func (c *Cloud) DetachVolume(ctx context.Context, vol string) error {
	const op = "DetachVolume"
	v, err := get[volume](c.store, vol)
	if errors.Is(err, fs.ErrNotExist) {
		return provider.Errorf(op, vol, provider.ErrNotFound, "there is no such volume")
	}
	if err != nil {
		return fail(op, vol, err)
	}
	all, err := list[instance](c.store, kindInstance)
	if err != nil {
		return fail(op, vol, err)
	}
	owner := ownerOf(v.ID, all)
	if owner == "" {
		return nil
	}
	unlock, err := c.store.lock(ctx, owner)
	if err != nil {
		return fail(op, vol, err)
	}
	defer unlock()
	user, err := userOf(instanceMark(owner), c.Dir(vol))
	if err != nil {
		return fail(op, vol, err)
	}
	if user != "" {
		return provider.Errorf(op, vol, nil, "%s of %s has files of it open: stop the instance first", user, owner)
	}
	var r instance
	err = c.store.locked(ctx, func() (err error) {
		if r, err = get[instance](c.store, owner); err != nil {
			return err
		}
		r.Volumes = slices.DeleteFunc(r.Volumes, func(id string) bool { return id == vol })
		return c.store.put(r)
	})
	if err == nil && r.Prepared && r.Phase != phaseTerminated {
		err = c.link(r)
	}
	if errors.Is(err, fs.ErrNotExist) {
		err = nil // the instance is gone meanwhile
	}
	return fail(op, vol, err)
}

// unmake removes a volume that nobody has, for who holds its lock.
func (c *Cloud) unmake(ctx context.Context, vol string) error {
	if err := os.RemoveAll(c.Dir(vol)); err != nil {
		return err
	}
	return c.store.locked(ctx, func() error { return c.store.remove(vol) })
}

// DeleteVolume removes the volume's directory.
func (c *Cloud) DeleteVolume(ctx context.Context, vol string) error {
	const op = "DeleteVolume"
	if err := ctx.Err(); err != nil {
		return fail(op, vol, err)
	}
	if !(volume{}).is(vol) {
		return nil
	}
	unlock, err := c.store.lock(ctx, vol)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fail(op, vol, err)
	}
	defer unlock()
	err = c.store.locked(ctx, func() error {
		v, err := get[volume](c.store, vol)
		if err != nil {
			return err
		}
		all, err := list[instance](c.store, kindInstance)
		if err != nil {
			return err
		}
		if owner := ownerOf(vol, all); owner != "" {
			return provider.Errorf(op, vol, provider.ErrInvalid, "%s has the volume: detach it first", owner)
		}
		v.Ready, v.Doomed = false, true // so that nobody takes a volume that is half removed
		return c.store.put(v)
	})
	c.step("deleting")
	if err == nil {
		err = c.unmake(ctx, vol)
	}
	return fail(op, vol, err)
}
