package memcloud

import (
	"container/heap"
	"net/netip"
	"slices"
	"time"

	"github.com/scalr-go/scalr/provider"
)

// machine is what an instance has beside what lists show of it.
type machine struct {
	x       *thing[provider.Launch, provider.Instance]
	private netip.Addr
	public  netip.Addr
	volumes []string
	hung    bool
	noticed provider.State // the last state that was acted upon
}

// latest is what an instance is now, or was last.
func (c *Cloud) latest(now time.Time, x *thing[provider.Launch, provider.Instance]) provider.Instance {
	if i := x.at(now); i != nil {
		return *i
	}
	return x.line[len(x.line)-1].v
}

// boot makes an instance run when it has booted.
func (c *Cloud) boot(now time.Time, m *machine) {
	d := c.opts.BootTime
	if s := c.opts.BootSpread; s > 0 {
		d += time.Duration(hash(c.opts.Seed, "boot", m.x.token) % uint64(s))
	}
	i := *m.x.at(now)
	i.State, i.Reason = provider.Running, ""
	if !i.Private.IsValid() {
		i.Private, i.Public = m.private, m.public
	}
	m.x.later(now.Add(d), i)
	c.due(now.Add(d), m)
}

// turn gives an instance another state from now on.
func (c *Cloud) turn(now time.Time, m *machine, s provider.State, reason string) {
	i := *m.x.at(now)
	i.State, i.Reason = s, reason
	m.x.become(now, c.opts.ListLag, i)
	c.due(now, m)
}

// terminate begins the end of an instance, which takes the time d.
func (c *Cloud) terminate(now time.Time, m *machine, reason string, d time.Duration) {
	c.turn(now, m, provider.Terminating, reason)
	i := *m.x.at(now)
	i.State, i.Private, i.Public = provider.Terminated, netip.Addr{}, netip.Addr{}
	m.x.later(now.Add(d), i)
	c.due(now.Add(d), m)
	m.x.gone = now.Add(d + c.opts.TerminatedLinger)
}

// due notes that an instance changes at a time.
func (c *Cloud) due(t time.Time, m *machine) {
	c.order++
	heap.Push(&c.agenda, entry{t, c.order, m})
}

// settle does what was to happen by itself until now.
func (c *Cloud) settle(now time.Time) {
	for len(c.agenda) > 0 && !c.agenda[0].at.After(now) {
		e := heap.Pop(&c.agenda).(entry)
		i := c.latest(e.at, e.m.x)
		if i.State == e.m.noticed {
			continue
		}
		e.m.noticed = i.State
		if i.State == provider.Terminated {
			c.release(e.at, e.m, i)
		}
		if c.opts.OnState != nil {
			c.notices = append(c.notices, i)
		}
	}
}

// release gives back what an instance held that is Terminated now.
func (c *Cloud) release(now time.Time, m *machine, i provider.Instance) {
	c.instances.count--
	if o := (Offering{i.Placement, i.Size}); c.alive[o] > 1 {
		c.alive[o]--
	} else {
		delete(c.alive, o)
	}
	for _, id := range slices.Clone(m.volumes) {
		c.detach(now, c.volumes.byID[id])
	}
	for _, a := range c.addresses.all() {
		if v := a.at(now); v != nil && v.Instance == i.ID {
			a.amend(now, c.opts.ListLag, func(v *provider.Address) { v.Instance = "" })
		}
	}
	c.private.free(m.private)
	c.public.free(m.public)
	m.hung = false
}

// usable finds an instance that can be given something: one that runs or is stopped.
func (c *Cloud) usable(now time.Time, op, id, instance string) (*machine, error) {
	x, i := c.instances.get(now, instance)
	switch {
	case x == nil:
		return nil, provider.Errorf(op, id, provider.ErrNotFound, "instance %s does not exist", instance)
	case i.State == provider.Pending:
		return nil, provider.Errorf(op, id, nil, "instance %s is %s, want it running or stopped", instance, i.State)
	case i.State != provider.Running && i.State != provider.Stopped:
		return nil, provider.Errorf(op, id, provider.ErrInvalid, "instance %s is %s, want it running or stopped", instance, i.State)
	}
	return c.machines[instance], nil
}
