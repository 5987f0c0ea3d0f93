package memcloud

import (
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/scalr-go/scalr/provider"
)

// World is everything that exists: no Terminated instances, but Failed ones.
type World struct {
	Instances []provider.Instance
	Volumes   []provider.Volume
	Snapshots []provider.Snapshot
	Addresses []provider.Address
	Balancers []provider.Balancer
	Images    []provider.Image
}

// Len is how many things there are.
func (w World) Len() int {
	return len(w.Instances) + len(w.Volumes) + len(w.Snapshots) + len(w.Addresses) + len(w.Balancers) + len(w.Images)
}

// World looks at what exists of the things that bear all of the tags; nil tags look at everything. It shows the present,
// whatever lists show.
func (c *Cloud) World(tags map[string]string) World {
	var w World
	c.world(func(now time.Time) error {
		w.Instances = slices.DeleteFunc(c.instances.list(now, tags), func(i provider.Instance) bool { return i.State == provider.Terminated })
		w.Volumes = c.volumes.list(now, tags)
		w.Snapshots = c.snapshots.list(now, tags)
		w.Addresses = c.addresses.list(now, tags)
		w.Balancers = c.balancers.list(now, tags)
		for i := range w.Balancers {
			w.Balancers[i].Targets = c.targetsAt(w.Balancers[i].ID, now, now)
		}
		w.Images = c.images.list(now, tags)
		return nil
	})
	for i := range w.Instances {
		w.Instances[i].Tags = maps.Clone(w.Instances[i].Tags)
	}
	for i := range w.Volumes {
		w.Volumes[i].Tags = maps.Clone(w.Volumes[i].Tags)
	}
	for i := range w.Snapshots {
		w.Snapshots[i].Tags = maps.Clone(w.Snapshots[i].Tags)
	}
	for i := range w.Addresses {
		w.Addresses[i].Tags = maps.Clone(w.Addresses[i].Tags)
	}
	for i := range w.Balancers {
		w.Balancers[i].Tags = maps.Clone(w.Balancers[i].Tags)
	}
	for i := range w.Images {
		w.Images[i].Tags = maps.Clone(w.Images[i].Tags)
	}
	return w
}

// Changes is every change that calls have made since the cloud was made, in order.
func (c *Cloud) Changes() []Change {
	c.mu.Lock()
	defer c.mu.Unlock()
	list := slices.Clone(c.changes)
	for i := range list {
		list[i].Tags = maps.Clone(list[i].Tags)
	}
	return list
}

// Calls counts the calls by method, whether they succeeded or not.
func (c *Cloud) Calls() map[string]int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return maps.Clone(c.calls)
}

// SetFault replaces Options.Fault, for the calls that begin from now on. Nil takes it away.
func (c *Cloud) SetFault(f Fault) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.fault = f
}

// SetQuota replaces Options.Quota. What exists stays.
func (c *Cloud) SetQuota(q Quota) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.quota = q
}

// SetCapacity sets how many instances of a size there is room for at a placement; a negative number takes the limit away.
// An empty placement or size stands for all of them together. What runs stays.
func (c *Cloud) SetCapacity(placement, size string, n int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if o := (Offering{placement, size}); n < 0 {
		delete(c.capacity, o)
	} else {
		c.capacity[o] = n
	}
}

// Kill ends an instance by itself, at once, as a crash or a spot reclaim does. The reason is shown with it.
func (c *Cloud) Kill(id, reason string) error {
	return c.instance("Kill", id, func(now time.Time, m *machine) { c.terminate(now, m, reason, 0) },
		provider.Pending, provider.Running, provider.Stopped, provider.Failed, provider.Terminating)
}

// Fail makes the cloud give up on an instance that has not ended: it is Failed, and holds what it has until it is
// terminated.
func (c *Cloud) Fail(id, reason string) error {
	return c.instance("Fail", id, func(now time.Time, m *machine) { c.turn(now, m, provider.Failed, reason) },
		provider.Pending, provider.Running, provider.Stopped)
}

// FailSnapshot makes the cloud give up on a snapshot that is not Ready yet: it is Failed until it is deleted.
func (c *Cloud) FailSnapshot(id, reason string) error {
	return c.world(func(now time.Time) error {
		x, s := c.snapshots.get(now, id)
		switch {
		case x == nil:
			return provider.Errorf("FailSnapshot", id, provider.ErrNotFound, "the snapshot does not exist")
		case s.Ready:
			return provider.Errorf("FailSnapshot", id, provider.ErrInvalid, "the snapshot is ready, want one whose copy is under way")
		}
		s.Failed, s.Reason = true, reason
		x.become(now, c.opts.ListLag, *s)
		return nil
	})
}

// Hang makes a Running instance do nothing any more: commands on it never end and balancers find it unhealthy, but it is
// listed as Running. A reboot, or a stop and start, brings it back.
func (c *Cloud) Hang(id string) error {
	return c.instance("Hang", id, func(_ time.Time, m *machine) { m.hung = true }, provider.Running)
}

// instance does something to an instance that is in one of the states.
func (c *Cloud) instance(op, id string, f func(now time.Time, m *machine), states ...provider.State) error {
	return c.world(func(now time.Time) error {
		x, i := c.instances.get(now, id)
		if x == nil {
			return provider.Errorf(op, id, provider.ErrNotFound, "the instance does not exist")
		}
		if !slices.Contains(states, i.State) {
			return provider.Errorf(op, id, provider.ErrInvalid, "the instance is %s, want one of %s", i.State, states)
		}
		f(now, c.machines[id])
		return nil
	})
}

// SetTargetHealth makes a balancer see a target so, whatever the instance does; an empty state leaves it to the instance
// again.
func (c *Cloud) SetTargetHealth(balancer, instance string, state provider.TargetState, reason string) error {
	return c.world(func(now time.Time) error {
		t := c.registered(balancer, instance)
		if x, _ := c.balancers.get(now, balancer); x == nil || t == nil {
			return provider.Errorf("SetTargetHealth", balancer, provider.ErrNotFound, "instance %s is not a target", instance)
		}
		t.state, t.reason = state, reason
		return nil
	})
}

// AddRequests lets a balancer take so many requests more.
func (c *Cloud) AddRequests(balancer string, n uint64) error {
	return c.world(func(now time.Time) error {
		if x, _ := c.balancers.get(now, balancer); x == nil {
			return provider.Errorf("AddRequests", balancer, provider.ErrNotFound, "the balancer does not exist")
		}
		c.requests[balancer] += n
		return nil
	})
}

// Content is what is on a volume or a snapshot, as one string: empty on an empty volume. A snapshot has what was on the
// volume, and a volume made from it has that too. SetContent writes it. Commands do not see it, Options.Command may.
func (c *Cloud) Content(id string) string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.content[id]
}

// SetContent writes what is on a volume: see Content.
func (c *Cloud) SetContent(volume, content string) error {
	return c.world(func(now time.Time) error {
		if x, _ := c.volumes.get(now, volume); x == nil {
			return provider.Errorf("SetContent", volume, provider.ErrNotFound, "the volume does not exist")
		}
		c.content[volume] = content
		return nil
	})
}

// CreateForeign makes one thing of each kind that somebody else has had for long, with the given tags or none: an
// instance with a volume and an address, a snapshot, an image, and a balancer with the instance behind it. Limits do not
// hinder it, but what it makes counts. A program under test must leave it as it is: compare World before and after.
func (c *Cloud) CreateForeign(tags map[string]string) {
	c.world(func(now time.Time) error {
		c.foreign++
		token := fmt.Sprintf("foreign %d", c.foreign) // with a space, which no caller's token has
		placement := "a"
		if c.opts.Placements != nil {
			placement = c.opts.Placements[0]
		}
		var since time.Time
		i := c.instances.add(token, provider.Launch{}, tags)
		m := &machine{x: i, noticed: provider.Running}
		m.private, _ = c.private.take()
		m.public, _ = c.public.take()
		c.machines[i.id] = m
		c.alive[Offering{Placement: placement}]++
		i.become(since, 0, provider.Instance{ID: i.id, State: provider.Running, Image: "foreign", Placement: placement,
			Private: m.private, Public: m.public, Tags: i.tags})
		v := c.volumes.add(token, provider.VolumeSpec{}, tags)
		v.become(since, 0, provider.Volume{ID: v.id, SizeGB: 1, Placement: placement, Ready: true, Tags: v.tags})
		c.attach(since, v, m)
		s := c.snapshots.add(token, provider.SnapshotSpec{}, tags)
		s.become(since, 0, provider.Snapshot{ID: s.id, Volume: v.id, SizeGB: 1, Ready: true, Tags: s.tags})
		addr, _ := c.public.take()
		a := c.addresses.add(token, provider.AddressSpec{}, tags)
		a.become(since, 0, provider.Address{ID: a.id, Addr: addr, Tags: a.tags})
		c.associate(since, a, m)
		host, _ := c.public.take()
		b := c.balancers.add(token, provider.BalancerSpec{}, tags)
		b.become(since, 0, provider.Balancer{ID: b.id, Host: host.String(), Port: 80, Ready: true, Tags: b.tags})
		c.targets[b.id] = []*target{{instance: i.id}}
		g := c.images.add(token, provider.ImageSpec{}, tags)
		g.become(since, 0, provider.Image{ID: g.id, Ready: true, Tags: g.tags})
		return nil
	})
}

// world does something that is no call.
func (c *Cloud) world(f func(now time.Time) error) error {
	err := c.locked(f)
	if c.opts.OnState != nil {
		c.deliverNow()
	}
	return err
}
