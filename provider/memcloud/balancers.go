package memcloud

import (
	"cmp"
	"context"
	"maps"
	"net/netip"
	"slices"
	"time"

	"github.com/scalr-go/scalr/provider"
)

// target is an instance behind a balancer, from when to when.
type target struct {
	instance string
	since    time.Time
	draining time.Time // zero while it is registered
	until    time.Time // when draining ends
	state    provider.TargetState
	reason   string // with a state that SetTargetHealth has set
}

// CreateBalancer implements provider.Balancers. A token whose balancer was deleted makes a new one.
func (c *Cloud) CreateBalancer(ctx context.Context, s provider.BalancerSpec) (provider.Balancer, error) {
	var b provider.Balancer
	err := c.call(ctx, Call{Method: "CreateBalancer", ID: s.Token}, func(now time.Time) (err error) {
		b, err = c.createBalancer(now, s, true)
		return err
	})
	if err != nil {
		return provider.Balancer{}, err
	}
	b.Tags = maps.Clone(b.Tags)
	return b, nil
}

func (c *Cloud) createBalancer(now time.Time, s provider.BalancerSpec, enforce bool) (provider.Balancer, error) {
	if err := s.Check(); err != nil {
		return provider.Balancer{}, err
	}
	if x, err := c.balancers.repeat(s.Token, s); err != nil {
		return provider.Balancer{}, err
	} else if x != nil {
		b := *x.at(now)
		b.Targets = c.targetsAt(b.ID, now, now)
		return b, nil
	}
	if err := over("CreateBalancer", s.Token, "balancers", c.quota.Balancers, c.balancers.count); err != nil && enforce {
		return provider.Balancer{}, err
	}
	addr, ok := c.public.take()
	if !ok {
		return provider.Balancer{}, provider.Errorf("CreateBalancer", s.Token, provider.ErrCapacity, "%s has no free address", c.public.prefix)
	}
	s.Tags, s.Networks = maps.Clone(s.Tags), slices.Clone(s.Networks)
	x := c.balancers.add(s.Token, s, s.Tags)
	b := provider.Balancer{ID: x.id, Name: s.Name, Host: addr.String(), Port: s.Port, Tags: x.tags}
	x.become(now, 0, b)
	b.Ready = true
	x.later(now.Add(c.opts.ReadyTime), b)
	c.change(now, x.id, x.tags)
	return *x.at(now), nil
}

// Balancers implements provider.Balancers.
func (c *Cloud) Balancers(ctx context.Context, tags map[string]string) ([]provider.Balancer, error) {
	var list []provider.Balancer
	err := c.call(ctx, Call{Method: "Balancers"}, func(now time.Time) error {
		at := now.Add(-c.opts.ListLag)
		list = c.balancers.list(at, tags)
		for i := range list {
			list[i].Targets = c.targetsAt(list[i].ID, at, now)
		}
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

// RegisterTarget implements provider.Balancers.
func (c *Cloud) RegisterTarget(ctx context.Context, id, instance string) error {
	return c.call(ctx, Call{Method: "RegisterTarget", ID: id, Target: instance}, func(now time.Time) error {
		x, _ := c.balancers.get(now, id)
		if x == nil {
			return provider.Errorf("RegisterTarget", id, provider.ErrNotFound, "the balancer does not exist")
		}
		if _, err := c.usable(now, "RegisterTarget", id, instance); err != nil {
			return err
		}
		if c.registered(id, instance) != nil {
			return nil
		}
		for _, t := range c.targets[id] {
			if t.instance == instance && t.until.After(now) {
				t.until = now
			}
		}
		c.targets[id] = append(c.targets[id], &target{instance: instance, since: now})
		c.change(now, id, x.tags)
		return nil
	})
}

// DeregisterTarget implements provider.Balancers.
func (c *Cloud) DeregisterTarget(ctx context.Context, id, instance string) error {
	return c.call(ctx, Call{Method: "DeregisterTarget", ID: id, Target: instance}, func(now time.Time) error {
		x, _ := c.balancers.get(now, id)
		if x == nil {
			return provider.Errorf("DeregisterTarget", id, provider.ErrNotFound, "the balancer does not exist")
		}
		if t := c.registered(id, instance); t != nil {
			t.draining, t.until = now, now.Add(x.spec.Drain)
			c.change(now, id, x.tags)
		}
		return nil
	})
}

// Requests implements provider.Traffic. A balancer has taken what AddRequests has added.
func (c *Cloud) Requests(ctx context.Context, id string) (n uint64, err error) {
	err = c.call(ctx, Call{Method: "Requests", ID: id}, func(now time.Time) error {
		if x, _ := c.balancers.get(now, id); x == nil {
			return provider.Errorf("Requests", id, provider.ErrNotFound, "the balancer does not exist")
		}
		n = c.requests[id]
		return nil
	})
	return n, err
}

// DeleteBalancer implements provider.Balancers.
func (c *Cloud) DeleteBalancer(ctx context.Context, id string) error {
	return c.call(ctx, Call{Method: "DeleteBalancer", ID: id}, func(now time.Time) error {
		x, b := c.balancers.get(now, id)
		if x == nil {
			return nil
		}
		c.balancers.remove(now, x)
		delete(c.requests, id)
		c.public.free(netip.MustParseAddr(b.Host))
		c.change(now, id, x.tags)
		return nil
	})
}

// registered finds a target that is not draining.
func (c *Cloud) registered(balancer, instance string) *target {
	for _, t := range c.targets[balancer] {
		if t.instance == instance && t.draining.IsZero() {
			return t
		}
	}
	return nil
}

// targetsAt is what a balancer's targets were at a time, and forgets the ones that no list will show again.
func (c *Cloud) targetsAt(balancer string, at, now time.Time) []provider.Target {
	oldest := now.Add(-c.opts.ListLag)
	var list []provider.Target
	keep := c.targets[balancer][:0]
	for _, t := range c.targets[balancer] {
		i := c.latest(at, c.machines[t.instance].x)
		ended := func(at time.Time) bool {
			return !t.draining.IsZero() && !t.until.After(at) ||
				c.latest(at, c.machines[t.instance].x).State == provider.Terminated
		}
		if !ended(oldest) {
			keep = append(keep, t)
		}
		if t.since.After(at) || ended(at) {
			continue
		}
		shown := provider.Target{Instance: t.instance, State: provider.TargetHealthy}
		switch {
		case !t.draining.IsZero() && !t.draining.After(at):
			shown.State = provider.TargetDraining
		case t.state != "":
			shown.State, shown.Reason = t.state, t.reason
		case i.State != provider.Running:
			shown.State, shown.Reason = provider.TargetUnhealthy, "instance is "+string(i.State)
		case c.machines[t.instance].hung:
			shown.State, shown.Reason = provider.TargetUnhealthy, "no answer"
		case at.Before(t.since.Add(c.opts.ReadyTime)):
			shown.State = provider.TargetInitial
		}
		list = append(list, shown)
	}
	clear(c.targets[balancer][len(keep):])
	c.targets[balancer] = keep
	slices.SortFunc(list, func(a, b provider.Target) int { return cmp.Compare(a.Instance, b.Instance) })
	return list
}
