package memcloud

import (
	"context"
	"maps"
	"slices"
	"time"

	"github.com/scalr-go/scalr/provider"
)

// Launch implements provider.Provider.
func (c *Cloud) Launch(ctx context.Context, l provider.Launch) (provider.Instance, error) {
	var i provider.Instance
	err := c.call(ctx, Call{Method: "Launch", ID: l.Token}, func(now time.Time) (err error) {
		i, err = c.launch(now, l, true)
		return err
	})
	if err != nil {
		return provider.Instance{}, err
	}
	i.Tags = maps.Clone(i.Tags)
	return i, nil
}

// Instances implements provider.Provider.
func (c *Cloud) Instances(ctx context.Context, tags map[string]string) ([]provider.Instance, error) {
	var list []provider.Instance
	err := c.call(ctx, Call{Method: "Instances"}, func(now time.Time) error {
		list = c.instances.list(now.Add(-c.opts.ListLag), tags)
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

// Terminate implements provider.Provider.
func (c *Cloud) Terminate(ctx context.Context, id string) error {
	return c.call(ctx, Call{Method: "Terminate", ID: id}, func(now time.Time) error {
		x, i := c.instances.get(now, id)
		if x == nil || i.State.Gone() {
			return nil
		}
		c.change(now, id, x.tags)
		c.terminate(now, c.machines[id], "terminated by a call", c.opts.TerminateTime)
		return nil
	})
}

// TagInstance implements provider.Tagger.
func (c *Cloud) TagInstance(ctx context.Context, id string, tags map[string]string) error {
	return c.call(ctx, Call{Method: "TagInstance", ID: id}, func(now time.Time) error {
		x, i := c.instances.get(now, id)
		if x == nil || i.State == provider.Terminated {
			return provider.Errorf("TagInstance", id, provider.ErrNotFound, "the instance does not exist")
		}
		if provider.Matches(x.tags, tags) {
			return nil
		}
		c.instances.retag(x, tags)
		x.amend(now, c.opts.ListLag, func(i *provider.Instance) { i.Tags = x.tags })
		c.change(now, id, x.tags)
		return nil
	})
}

// launch does what Launch does. Limits do not hold where they are not enforced.
func (c *Cloud) launch(now time.Time, l provider.Launch, enforce bool) (provider.Instance, error) {
	if err := l.Check(); err != nil {
		return provider.Instance{}, err
	}
	if x, err := c.instances.repeat(l.Token, l); err != nil {
		return provider.Instance{}, err
	} else if x != nil {
		return c.latest(now, x), nil
	}
	size, placement, err := c.offering(now, l, enforce)
	if err != nil {
		return provider.Instance{}, err
	}
	private, ok := c.private.take()
	if !ok {
		return provider.Instance{}, provider.Errorf("Launch", l.Token, provider.ErrCapacity, "%s has no free address", c.private.prefix)
	}
	public, ok := c.public.take()
	if !ok {
		c.private.free(private)
		return provider.Instance{}, provider.Errorf("Launch", l.Token, provider.ErrCapacity, "%s has no free address", c.public.prefix)
	}

	l.Volumes, l.Tags, l.UserData = slices.Clone(l.Volumes), maps.Clone(l.Tags), slices.Clone(l.UserData)
	l.SecurityGroups = slices.Clone(l.SecurityGroups)
	x := c.instances.add(l.Token, l, l.Tags)
	m := &machine{x: x, private: private, public: public}
	c.machines[x.id] = m
	c.alive[Offering{placement, size}]++
	x.become(now, 0, provider.Instance{ID: x.id, Name: l.Name, State: provider.Pending, Image: l.Image, Size: size,
		Placement: placement, Launched: now, Spot: l.Spot, Tags: x.tags})
	c.due(now, m)
	c.boot(now, m)
	if !c.opts.LateVolumes {
		for _, v := range l.Volumes {
			c.attach(now, c.volumes.byID[v], m)
		}
	}
	c.change(now, x.id, x.tags)
	return *x.at(now), nil
}

// offering picks the size and placement of a launch, or says why there is none.
func (c *Cloud) offering(now time.Time, l provider.Launch, enforce bool) (size, placement string, err error) {
	bad := func(format string, args ...any) (string, string, error) {
		return "", "", provider.Errorf("Launch", l.Token, provider.ErrInvalid, format, args...)
	}
	if x, made := c.images.byID[l.Image]; made {
		if i := x.at(now); i == nil {
			return bad("Image is %q, which was deleted", l.Image)
		} else if !i.Ready {
			return "", "", provider.Errorf("Launch", l.Token, nil, "Image %s is not ready", l.Image)
		}
	} else if c.opts.Images != nil && !slices.Contains(c.opts.Images, l.Image) {
		return bad("Image is %q, want one of %q", l.Image, c.opts.Images)
	}
	size = l.Size
	if c.opts.Sizes != nil {
		if size == "" {
			size = c.opts.Sizes[0]
		} else if !slices.Contains(c.opts.Sizes, size) {
			return bad("Size is %q, want one of %q", size, c.opts.Sizes)
		}
	}
	placements := c.opts.Placements
	if l.Placement != "" {
		if placements != nil && !slices.Contains(placements, l.Placement) {
			return bad("Placement is %q, want one of %q", l.Placement, placements)
		}
		placements = []string{l.Placement}
	}
	for n, id := range l.Volumes {
		_, v := c.volumes.get(now, id)
		switch {
		case v == nil:
			return "", "", provider.Errorf("Launch", l.Token, provider.ErrNotFound, "Volumes[%d] is %q, which does not exist", n, id)
		case v.Instance != "":
			return bad("Volumes[%d] is %s, which %s has", n, id, v.Instance)
		case !v.Ready:
			return "", "", provider.Errorf("Launch", l.Token, nil, "Volumes[%d] is %s, which is not ready", n, id)
		case l.Placement == "" && n == 0:
			placements = []string{v.Placement}
		case placements[0] != v.Placement:
			return bad("Volumes[%d] is %s in placement %q, want placement %q", n, id, v.Placement, placements[0])
		}
	}
	if placements == nil {
		placements = []string{"a"}
	}
	if !enforce {
		return size, placements[0], nil
	}
	if err := over("Launch", l.Token, "instances", c.quota.Instances, c.instances.count); err != nil {
		return "", "", err
	}
	for _, p := range placements {
		if c.room(Offering{p, size}) {
			return size, p, nil
		}
	}
	return "", "", provider.Errorf("Launch", l.Token, provider.ErrCapacity, "no room for size %q at placement %q", size, placements)
}

// room reports whether one more instance fits.
func (c *Cloud) room(o Offering) bool {
	for _, limit := range []Offering{o, {Placement: o.Placement}, {Size: o.Size}, {}} {
		most, ok := c.capacity[limit]
		if !ok {
			continue
		}
		n := 0
		for have, count := range c.alive {
			if (limit.Placement == "" || limit.Placement == have.Placement) && (limit.Size == "" || limit.Size == have.Size) {
				n += count
			}
		}
		if n >= most {
			return false
		}
	}
	return true
}

// over fails a create call where the quota is used up.
func over(op, token, what string, quota, have int) error {
	if quota == 0 || have < quota {
		return nil
	}
	return provider.Errorf(op, token, provider.ErrQuota, "the account has %d %s of %d", have, what, max(quota, 0))
}
