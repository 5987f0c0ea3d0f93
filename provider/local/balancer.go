package local

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"path/filepath"
	"slices"
	"time"

	"github.com/scalr-go/scalr/provider"
)

// CreateBalancer starts a balancer (see the package), and returns when it takes connections. It is ErrCapacity if no address
// is free, and errors.ErrUnsupported if HAProxy is not installed or too old. A port below 1024 takes what the system asks
// for it. Of a balancer that has been deleted, the token is forgotten.
func (c *Cloud) CreateBalancer(ctx context.Context, s provider.BalancerSpec) (provider.Balancer, error) {
	const op = "CreateBalancer"
	if err := c.checkBalancer(s); err != nil {
		return provider.Balancer{}, err
	}
	if _, err := c.findHAProxy(); err != nil {
		return provider.Balancer{}, fail(op, s.Token, err)
	}
	var r instance
	var unlock func()
	err := c.store.locked(ctx, func() error {
		all, err := list[instance](c.store, kindBalancer)
		if err != nil {
			return err
		}
		i := slices.IndexFunc(all, func(r instance) bool { return r.Balancer.Spec.Token == s.Token && !r.Phase.gone() })
		if i < 0 {
			r, unlock, err = c.intendBalancer(op, s)
			return err
		}
		r = all[i]
		if field := provider.Differs(r.Balancer.Spec, s); field != "" {
			return provider.Errorf(op, s.Token, provider.ErrInvalid, "Token was used for %s with another %s", r.ID, field)
		}
		return nil
	})
	if err != nil {
		return provider.Balancer{}, fail(op, s.Token, err)
	}
	fresh := unlock != nil
	if !fresh {
		var ok bool
		if unlock, ok = c.store.tryLock(r.ID); !ok { // somebody is at work on it
			return showBalancer(r, c.look(ctx, r)), nil
		}
		if r, err = get[instance](c.store, r.ID); errors.Is(err, fs.ErrNotExist) || err == nil && r.Phase.gone() {
			err = errGone
		}
		if err != nil {
			unlock()
			return provider.Balancer{}, fail(op, s.Token, err)
		}
	}
	defer unlock()
	c.step("intended")
	if err := c.serve(ctx, op, &r, fresh); err != nil {
		if fresh {
			clean, cancel := context.WithTimeout(context.WithoutCancel(ctx), patience)
			defer cancel()
			if e := c.bury(clean, r.ID); e != nil {
				err = fmt.Errorf("%w (and %s is left: %w)", err, r.ID, e)
			}
		}
		return provider.Balancer{}, fail(op, s.Token, err)
	}
	view := c.align(ctx, &r)
	return showBalancer(r, view), fail(op, s.Token, view.err)
}

// intendBalancer records that a balancer is to be, and holds its lock from before anybody can see it. The caller holds the
// lock of the store.
func (c *Cloud) intendBalancer(op string, s provider.BalancerSpec) (instance, func(), error) {
	all, err := list[instance](c.store, kindInstance)
	if err != nil {
		return instance{}, nil, err
	}
	addr, err := c.freeAddr(op, s.Token, all)
	if err != nil {
		return instance{}, nil, err
	}
	r := instance{
		ID: newID(kindBalancer), Launch: launch{Launch: provider.Launch{Name: s.Name, Image: "haproxy"}}, Addr: addr,
		Launched: time.Now(), Phase: phaseOn, Balancer: &balancer{Spec: s},
	}
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

// Balancers lists the balancers. It starts those again whose process has died, and completes what a program did not live to
// complete, the end of draining included. A balancer that cannot be started is not Ready, and its output.log says why.
func (c *Cloud) Balancers(ctx context.Context, tags map[string]string) ([]provider.Balancer, error) {
	const op = "Balancers"
	if err := ctx.Err(); err != nil {
		return nil, fail(op, "", err)
	}
	all, err := list[instance](c.store, kindBalancer)
	if err != nil {
		return nil, fail(op, "", err)
	}
	shown := []provider.Balancer{}
	for _, r := range all {
		if !provider.Matches(r.Balancer.Spec.Tags, tags) {
			continue
		}
		if b, ok := c.tend(ctx, r); ok {
			shown = append(shown, b)
		}
	}
	if err := ctx.Err(); err != nil { // what could not be found out in time is not shown as something else
		return nil, fail(op, "", err)
	}
	return shown, nil
}

// tend gives a balancer as the interface has it, having done what there is to do on it, unless somebody else is at it.
func (c *Cloud) tend(ctx context.Context, r instance) (b provider.Balancer, ok bool) {
	if r.Phase.gone() {
		c.complete(ctx, &r)
		return b, false
	}
	unlock, ok := c.store.tryLock(r.ID)
	if !ok {
		return showBalancer(r, c.look(ctx, r)), c.store.has(r.ID)
	}
	defer unlock()
	now, err := get[instance](c.store, r.ID)
	if err != nil || now.Phase.gone() {
		return b, false
	}
	view := view{err: c.revive(ctx, "Balancers", &now, false)}
	if view.err == nil {
		view = c.align(ctx, &now)
	}
	return showBalancer(now, view), true
}

// Requests asks HAProxy for its count of requests, or connections with tcp; its health checks are none. It begins anew when
// HAProxy does.
func (c *Cloud) Requests(ctx context.Context, id string) (uint64, error) {
	const op = "Requests"
	if !isBalancer(id) {
		return 0, noBalancer(op, id)
	}
	r, err := get[instance](c.store, id)
	if errors.Is(err, fs.ErrNotExist) || err == nil && r.Phase.gone() {
		return 0, noBalancer(op, id)
	}
	var n uint64
	if err == nil {
		n, err = c.admin(id).taken(ctx, r.Balancer.Spec.Protocol)
	}
	return n, fail(op, id, err)
}

// RegisterTarget puts the instance behind the balancer: HAProxy is told of it while it runs. It gets its first connection once
// a health check has succeeded.
func (c *Cloud) RegisterTarget(ctx context.Context, id, inst string) error {
	const op = "RegisterTarget"
	if !isBalancer(id) || !c.store.has(id) {
		return noBalancer(op, id)
	}
	i, err := get[instance](c.store, inst)
	if errors.Is(err, fs.ErrNotExist) || !isInstance(inst) {
		return provider.Errorf(op, id, provider.ErrNotFound, "instance %q does not exist", inst)
	}
	if err != nil {
		return fail(op, id, err)
	}
	switch shown := c.show(ctx, i); shown.State {
	case provider.Running, provider.Stopped:
	case provider.Pending:
		return provider.Errorf(op, id, nil, "instance %s is %s, want it running or stopped", inst, shown.State)
	default:
		return provider.Errorf(op, id, provider.ErrInvalid, "instance %s is %s, want it running or stopped", inst, shown.State)
	}
	return c.retarget(ctx, op, id, "registered", func(b *balancer) {
		at := b.find(inst)
		if at < 0 {
			b.Targets = append(b.Targets, target{Instance: inst, Addr: i.Addr})
		} else {
			b.Targets[at].Draining, b.Targets[at].Until = false, time.Time{}
		}
	})
}

// DeregisterTarget returns when HAProxy gives the instance no new connection. Those that are open when the balancer's Drain
// time has passed are cut by the next call that concerns the balancer, a list for one.
func (c *Cloud) DeregisterTarget(ctx context.Context, id, inst string) error {
	return c.retarget(ctx, "DeregisterTarget", id, "deregistered", func(b *balancer) {
		if at := b.find(inst); at >= 0 && !b.Targets[at].Draining {
			b.Targets[at].Draining, b.Targets[at].Until = true, time.Now().Add(b.Spec.Drain)
		}
	})
}

// retarget changes the targets in the record first, and then HAProxy's.
func (c *Cloud) retarget(ctx context.Context, op, id, step string, change func(*balancer)) error {
	if !isBalancer(id) {
		return noBalancer(op, id)
	}
	unlock, err := c.store.lock(ctx, id)
	if errors.Is(err, fs.ErrNotExist) {
		return noBalancer(op, id)
	}
	if err != nil {
		return fail(op, id, err)
	}
	defer unlock()
	r, err := c.edit(ctx, id, change)
	if errors.Is(err, errGone) || errors.Is(err, fs.ErrNotExist) {
		return noBalancer(op, id)
	}
	if err != nil {
		return fail(op, id, err)
	}
	c.step(step)
	if err := c.serve(ctx, op, &r, false); err != nil {
		return fail(op, id, err)
	}
	return fail(op, id, c.align(ctx, &r).err)
}

func noBalancer(op, id string) error {
	return provider.Errorf(op, id, provider.ErrNotFound, "there is no such balancer")
}

// edit changes the record of a balancer that is not being deleted.
func (c *Cloud) edit(ctx context.Context, id string, change func(*balancer)) (r instance, err error) {
	err = c.store.locked(ctx, func() error {
		if r, err = get[instance](c.store, id); err != nil {
			return err
		}
		if r.Phase.gone() {
			return errGone
		}
		before := slices.Clone(r.Balancer.Targets)
		if change(r.Balancer); slices.Equal(before, r.Balancer.Targets) {
			return nil
		}
		return c.store.put(r)
	})
	return r, err
}

// DeleteBalancer kills the balancer's process and removes its directory, as Terminate does with an instance. Connections
// that are open are cut.
func (c *Cloud) DeleteBalancer(ctx context.Context, id string) error {
	const op = "DeleteBalancer"
	if !isBalancer(id) {
		return fail(op, id, ctx.Err())
	}
	return c.end(ctx, op, id)
}

// revive starts the balancer's process unless it runs. The caller holds the balancer's lock.
func (c *Cloud) revive(ctx context.Context, op string, r *instance, fresh bool) error {
	if !fresh {
		if c.judge(ctx, *r) == up {
			return nil
		}
		if err := ctx.Err(); err != nil {
			return err // it may run all the same
		}
	}
	return c.boot(ctx, op, r, fresh)
}

// serve is revive, and waits until HAProxy answers.
func (c *Cloud) serve(ctx context.Context, op string, r *instance, fresh bool) error {
	if err := c.revive(ctx, op, r, fresh); err != nil {
		return err
	}
	wait, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	for {
		_, err := c.admin(r.ID).servers(wait)
		if err == nil {
			return c.admin(r.ID).checkVersion(wait)
		}
		if c.judge(wait, *r) == ended {
			return fmt.Errorf("HAProxy did not start: %s: %s", c.reason(*r), alerts(filepath.Join(c.Dir(r.ID), outputFile)))
		}
		if e := sleep(wait, 5*time.Millisecond); e != nil {
			return errors.Join(e, err)
		}
	}
}

// view is what HAProxy and the records of instances show of a balancer's targets.
type view struct {
	servers map[string]server
	off     map[string]string // why instances do not run that are switched off
	err     error             // HAProxy does not answer
}

// look only looks.
func (c *Cloud) look(ctx context.Context, r instance) (v view) {
	v.off = map[string]string{}
	for _, t := range r.Balancer.Targets {
		i, err := get[instance](c.store, t.Instance)
		switch {
		case errors.Is(err, fs.ErrNotExist) || err == nil && i.Phase.gone():
			v.off[t.Instance] = terminated
		case err == nil && i.Phase != phaseOn:
			v.off[t.Instance] = "the instance is stopped"
		}
	}
	v.servers, v.err = c.admin(r.ID).servers(ctx)
	return v
}

const terminated = "the instance is terminated"

// align makes HAProxy's servers the targets, and forgets the targets that have been drained and those whose instances are
// gone. The caller holds the balancer's lock.
func (c *Cloud) align(ctx context.Context, r *instance) view {
	for range 100 {
		v := c.look(ctx, *r)
		if v.err != nil {
			return v
		}
		now := time.Now()
		over := func(t target) bool {
			s, known := v.servers[t.Instance]
			return v.off[t.Instance] == terminated || t.ended(s, known, now)
		}
		if slices.ContainsFunc(r.Balancer.Targets, over) {
			edited, err := c.edit(ctx, r.ID, func(b *balancer) { b.Targets = slices.DeleteFunc(b.Targets, over) })
			if err != nil {
				v.err = err
				return v
			}
			*r = edited
			c.step("dropped")
		}
		commands := r.Balancer.commands(v.servers)
		if len(commands) == 0 {
			return v
		}
		var wait time.Duration
		for _, command := range commands {
			err := c.admin(r.ID).tell(ctx, command)
			if isRemoval(command) && err != nil {
				wait = 5 * time.Millisecond // its connections have been told to end, and are about to
			} else if err != nil {
				v.err = err
				return v
			}
			c.step("told")
		}
		if err := sleep(ctx, wait); err != nil {
			v.err = err
			return v
		}
	}
	// What is left are servers that get no connections any more, and that the next one to look removes.
	return c.look(ctx, *r)
}

// showBalancer gives r as the interface has it.
func showBalancer(r instance, v view) provider.Balancer {
	b := provider.Balancer{
		ID: r.ID, Name: r.Balancer.Spec.Name, Host: r.Addr.String(), Port: r.Balancer.Spec.Port, Ready: v.err == nil,
		Tags: maps.Clone(r.Balancer.Spec.Tags),
	}
	for _, t := range r.Balancer.Targets {
		shown := provider.Target{Instance: t.Instance, State: provider.TargetInitial}
		s := v.servers[t.Instance]
		switch {
		case t.Draining:
			shown.State = provider.TargetDraining
		case v.err != nil:
			shown.State, shown.Reason = provider.TargetUnhealthy, "the balancer does not run"
		case v.off[t.Instance] != "":
			shown.State, shown.Reason = provider.TargetUnhealthy, v.off[t.Instance]
		case s.up && s.checked:
			shown.State = provider.TargetHealthy
		case s.checked:
			shown.State, shown.Reason = provider.TargetUnhealthy, s.reason
		}
		b.Targets = append(b.Targets, shown)
	}
	slices.SortFunc(b.Targets, func(a, b provider.Target) int { return cmp.Compare(a.Instance, b.Instance) })
	return b
}
