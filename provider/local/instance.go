package local

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"slices"
	"time"

	"github.com/scalr-go/scalr/provider"
)

// patience bounds what is cleaned up after the caller's context has ended.
const patience = 10 * time.Second

// Launch starts an instance. It prepares the machine and starts its program within the call. A launch that fails leaves
// nothing but its volumes. One that was interrupted by the death of its program is resumed by the same Launch again.
//
// It fails with ErrInvalid for an unknown image, for a volume that another instance has, and for what does not exist here
// (see the package), with ErrQuota beyond Options.Quota, and with ErrCapacity if no address is free.
func (c *Cloud) Launch(ctx context.Context, l provider.Launch) (provider.Instance, error) {
	const op = "Launch"
	if err := c.checkLaunch(l); err != nil {
		return provider.Instance{}, err
	}
	var r instance
	var unlock func()
	err := c.store.locked(ctx, func() error {
		all, err := list[instance](c.store, kindInstance)
		if err != nil {
			return err
		}
		if err := c.forget(all); err != nil {
			return err
		}
		i := slices.IndexFunc(all, func(r instance) bool { return r.Launch.Token == l.Token && !r.expired() })
		if i >= 0 {
			r = all[i]
			return sameLaunch(r, l)
		}
		r, unlock, err = c.intend(l, all)
		return err
	})
	if err != nil {
		return provider.Instance{}, fail(op, l.Token, err)
	}
	fresh := unlock != nil
	if !fresh { // the token's instance exists: nothing to do unless whoever launched it has died on the way
		var ok bool
		if unlock, ok = c.store.tryLock(r.ID); !ok {
			return c.show(ctx, r), nil
		}
		if r, err = get[instance](c.store, r.ID); err != nil {
			unlock()
			return provider.Instance{}, fail(op, l.Token, err)
		}
		if c.judge(ctx, r) != interrupted {
			unlock()
			return c.show(ctx, r), nil
		}
	}
	defer unlock()
	c.step("intended")
	if err := c.boot(ctx, op, &r, fresh); err != nil {
		return c.giveUp(ctx, r, err)
	}
	return c.show(ctx, r), nil
}

// checkLaunch reports what can be known to be wrong before anything is touched.
func (c *Cloud) checkLaunch(l provider.Launch) error {
	const op = "Launch"
	if err := l.Check(); err != nil {
		return err
	}
	bad := func(format string, args ...any) error {
		return provider.Errorf(op, l.Token, provider.ErrInvalid, format, args...)
	}
	if _, ok := c.opts.Images[l.Image]; !ok {
		return bad("Image is %q, want one of %q", l.Image, slices.Sorted(maps.Keys(c.opts.Images)))
	}
	switch {
	case l.Size != "" && len(c.opts.Sizes) > 0 && !slices.Contains(c.opts.Sizes, l.Size):
		return bad("Size is %q, want one of %q or none", l.Size, c.opts.Sizes)
	case l.Placement != "" && l.Placement != Placement:
		return bad("Placement is %q, want %q or none", l.Placement, Placement)
	case l.Network != "":
		return bad("Network is %q, want none: this provider has no networks", l.Network)
	case len(l.SecurityGroups) > 0:
		return bad("SecurityGroups is %q, want none: this provider filters no packets", l.SecurityGroups)
	case l.KeyPair != "":
		return bad("KeyPair is %q, want none: this provider installs no keys", l.KeyPair)
	case l.Spot:
		return bad("Spot is true, want false: this provider has no spot capacity")
	}
	return nil
}

// sameLaunch is ErrInvalid if the token was used for another launch.
func sameLaunch(r instance, l provider.Launch) error {
	was, is := r.Launch.Launch, l
	was.UserData, is.UserData = provider.Secret(r.UserSum), provider.Secret(userSum(r.ID, l.UserData))
	if field := provider.Differs(was, is); field != "" {
		return provider.Errorf("Launch", l.Token, provider.ErrInvalid, "Token was used for %s with another %s", r.ID, field)
	}
	return nil
}

// intend records that l is to be launched, and holds the lock of the new instance from before anybody can see it.
func (c *Cloud) intend(l provider.Launch, all []instance) (instance, func(), error) {
	const op = "Launch"
	living := 0
	for _, r := range all {
		if r.Phase != phaseTerminated {
			living++
		}
	}
	if c.opts.Quota > 0 && living >= c.opts.Quota {
		return instance{}, nil, provider.Errorf(op, l.Token, provider.ErrQuota,
			"there are %d instances, Options.Quota is %d", living, c.opts.Quota)
	}
	for _, id := range l.Volumes {
		v, err := get[volume](c.store, id)
		if errors.Is(err, fs.ErrNotExist) {
			return instance{}, nil, provider.Errorf(op, l.Token, provider.ErrNotFound, "Volumes has %q, which does not exist", id)
		}
		if err != nil {
			return instance{}, nil, err
		}
		if owner := ownerOf(id, all); owner != "" {
			return instance{}, nil, provider.Errorf(op, l.Token, provider.ErrInvalid, "Volumes has %q, which %s has", id, owner)
		}
		if !v.Ready {
			return instance{}, nil, provider.Errorf(op, l.Token, nil, "volume %s is not ready yet", id)
		}
	}
	addr, err := c.freeAddr(op, l.Token, all)
	if err != nil {
		return instance{}, nil, err
	}
	im := c.opts.Images[l.Image]
	r := instance{
		ID: newID(kindInstance), Launch: launch{Launch: l, UserData: l.UserData}, Addr: addr, Volumes: l.Volumes,
		Launched: time.Now(), Port: im.Port, Grace: im.Grace, Phase: phaseOn,
	}
	r.UserSum = userSum(r.ID, l.UserData)
	unlock, err := tryLockFile(c.store.file(r.ID, ".lock"))
	if err != nil {
		return instance{}, nil, err
	}
	if err := c.store.put(r); err != nil {
		unlock()
		return instance{}, nil, err
	}
	return r, unlock, nil
}

// giveUp takes back a launch that failed, whatever has become of the context. The caller holds the instance's lock.
func (c *Cloud) giveUp(ctx context.Context, r instance, cause error) (provider.Instance, error) {
	if err := ctx.Err(); err != nil && !errors.Is(cause, err) {
		cause = errors.Join(err, cause)
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), patience)
	defer cancel()
	if errors.Is(cause, errGone) { // somebody has terminated it, or switched it off, while it was being launched
		if now, err := get[instance](c.store, r.ID); err == nil {
			if now.Phase == phaseTerminating {
				if err := c.bury(ctx, r.ID); err != nil {
					return provider.Instance{}, fail("Launch", r.Launch.Token, err)
				}
				now.Phase = phaseTerminated
			}
			return c.show(ctx, now), nil
		}
	}
	err := killTree(ctx, instanceMark(r.ID))
	if err == nil {
		err = os.RemoveAll(c.Dir(r.ID))
	}
	if err == nil {
		err = c.store.locked(ctx, func() error { return c.store.remove(r.ID) })
	}
	if err != nil {
		cause = fmt.Errorf("%w (and %s is left: %w)", cause, r.ID, err)
	}
	return provider.Instance{}, fail("Launch", r.Launch.Token, cause)
}

// Instances lists the instances, terminated ones for an hour. It completes what a program that called Terminate or Stop did
// not live to complete.
func (c *Cloud) Instances(ctx context.Context, tags map[string]string) ([]provider.Instance, error) {
	const op = "Instances"
	if err := ctx.Err(); err != nil {
		return nil, fail(op, "", err)
	}
	all, err := list[instance](c.store, kindInstance)
	if err != nil {
		return nil, fail(op, "", err)
	}
	shown := []provider.Instance{}
	for _, r := range all {
		if r.expired() || !provider.Matches(r.tags(), tags) {
			continue
		}
		c.complete(ctx, &r)
		shown = append(shown, c.show(ctx, r))
	}
	if err := ctx.Err(); err != nil { // what could not be found out in time is not shown as something else
		return nil, fail(op, "", err)
	}
	return shown, nil
}

// complete does the rest of a Terminate or a Stop that nobody is at work on. What fails here is tried again at the next
// list, which shows the instance as before until then.
func (c *Cloud) complete(ctx context.Context, r *instance) {
	switch r.Phase {
	case phaseStopping:
		c.switchOff(ctx, r.ID)
	case phaseTerminating:
		unlock, ok := c.store.tryLock(r.ID)
		if !ok {
			return
		}
		defer unlock()
		if c.bury(ctx, r.ID) == nil {
			r.Phase = phaseTerminated
		}
	}
}

// Terminate kills every process of the instance and removes its directory. It returns when both are done: the error of a
// Terminate whose context ends before means that it was accepted and is to be repeated; Instances completes it as well.
func (c *Cloud) Terminate(ctx context.Context, id string) error {
	const op = "Terminate"
	if !isInstance(id) {
		return fail(op, id, ctx.Err())
	}
	return c.end(ctx, op, id)
}

// end terminates an instance, or deletes a balancer.
func (c *Cloud) end(ctx context.Context, op, id string) error {
	var r instance
	err := c.store.locked(ctx, func() (err error) {
		if r, err = get[instance](c.store, id); err != nil || r.Phase.gone() {
			return err
		}
		if r.Phase != phaseOn {
			r.Grace = 0
		}
		r.Phase = phaseTerminating
		return c.store.put(r)
	})
	if errors.Is(err, fs.ErrNotExist) || err == nil && r.Phase == phaseTerminated {
		return nil
	}
	if err != nil {
		return fail(op, id, err)
	}
	c.step("terminating")
	mark := instanceMark(id)
	if r.Grace > 0 {
		endTree(ctx, mark, r.Grace)
	}
	// Killing needs no lock: whoever is starting the instance sees its phase before the program runs.
	if err := killTree(ctx, mark); err != nil {
		return fail(op, id, err)
	}
	unlock, err := c.store.lock(ctx, id)
	if errors.Is(err, fs.ErrNotExist) { // its launch has failed meanwhile, and was taken back
		return nil
	}
	if err != nil {
		return fail(op, id, err)
	}
	defer unlock()
	return fail(op, id, c.bury(ctx, id))
}

// bury completes a termination. A balancer leaves no record. The caller holds the instance's lock.
func (c *Cloud) bury(ctx context.Context, id string) error {
	if err := killTree(ctx, instanceMark(id)); err != nil {
		return err
	}
	c.step("killed")
	if err := os.RemoveAll(c.Dir(id)); err != nil {
		return err
	}
	c.step("removed")
	return c.store.locked(ctx, func() error {
		r, err := get[instance](c.store, id)
		if errors.Is(err, fs.ErrNotExist) || r.Phase == phaseTerminated {
			return nil
		}
		if err != nil {
			return err
		}
		if r.Balancer != nil {
			return c.store.remove(id)
		}
		r.Phase, r.Ended, r.Volumes, r.Launch.UserData = phaseTerminated, time.Now(), nil, nil
		return c.store.put(r)
	})
}

// TagInstance implements provider.Tagger.
func (c *Cloud) TagInstance(ctx context.Context, id string, tags map[string]string) error {
	const op = "TagInstance"
	gone := provider.Errorf(op, id, provider.ErrNotFound, "there is no such instance, or it is terminated")
	if !isInstance(id) {
		return gone
	}
	err := c.store.locked(ctx, func() error {
		r, err := get[instance](c.store, id)
		if errors.Is(err, fs.ErrNotExist) || err == nil && r.Phase.gone() {
			return gone
		}
		if err != nil || provider.Matches(r.tags(), tags) {
			return err
		}
		r.Tags = maps.Clone(r.Tags)
		if r.Tags == nil {
			r.Tags = map[string]string{}
		}
		maps.Copy(r.Tags, tags)
		return c.store.put(r)
	})
	return fail(op, id, err)
}

// tags gives a copy of what the instance bears now.
func (r instance) tags() map[string]string {
	tags := maps.Clone(r.Launch.Tags)
	if tags == nil && r.Tags != nil {
		tags = map[string]string{}
	}
	maps.Copy(tags, r.Tags)
	return tags
}

func (r instance) expired() bool { return r.Phase == phaseTerminated && time.Since(r.Ended) > keep }

// forget drops the records of instances that were terminated long ago. The caller holds the lock of the store.
func (c *Cloud) forget(all []instance) error {
	for _, r := range all {
		if r.expired() {
			if err := c.store.remove(r.ID); err != nil {
				return err
			}
		}
	}
	return nil
}

// ownerOf is the instance that has the volume, or "".
func ownerOf(volume string, all []instance) string {
	for _, r := range all {
		if r.Phase != phaseTerminated && slices.Contains(r.Volumes, volume) {
			return r.ID
		}
	}
	return ""
}

// fail wraps err unless it is nil or wrapped already.
func fail(op, id string, err error) error {
	if err == nil {
		return nil
	}
	if _, ok := errors.AsType[*provider.Error](err); ok {
		return err
	}
	return &provider.Error{Op: op, ID: id, Err: err}
}
