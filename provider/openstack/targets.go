package openstack

import (
	"context"
	"net/url"
	"slices"
	"strconv"
	"time"

	"github.com/gophercloud/gophercloud/v2/openstack/loadbalancer/v2/pools"

	"github.com/scalr-go/scalr/provider"
)

// member is what the driver reads of a pool's member. Its name is the server's ID.
type member struct {
	ID, Name string
	Address  string
	Weight   int
	Status   string   `json:"operating_status"`
	Strings  []string `json:"tags"`
}

// until is when a member that drains has done so; zero if it does not drain.
func (m *member) until() time.Time {
	b := balanced{Strings: m.Strings}
	if n := b.number(memberUntil); n > 0 && m.Weight == 0 {
		return time.Unix(int64(n), 0)
	}
	return time.Time{}
}

// target shows the member; not if it has drained.
func (m *member) target(now time.Time) (provider.Target, bool) {
	t := provider.Target{Instance: m.Name, State: provider.TargetUnhealthy, Reason: "Octavia says " + m.Status}
	switch until := m.until(); {
	case !until.IsZero():
		return provider.Target{Instance: m.Name, State: provider.TargetDraining}, now.Before(until)
	case m.Status == "ONLINE":
		t.State, t.Reason = provider.TargetHealthy, ""
	case m.Status == "NO_MONITOR" || m.Status == "": // not checked yet: every pool has a monitor
		t.State, t.Reason = provider.TargetInitial, ""
	}
	return t, true
}

func (c *Cloud) members(ctx context.Context, pool string) ([]member, error) {
	return list[member](ctx, c.balancer, "members", nil, "lbaas", "pools", url.PathEscape(pool), "members")
}

// RegisterTarget adds the server, or ends its draining.
func (c *Cloud) RegisterTarget(ctx context.Context, balancer, instance string) error {
	const op = "RegisterTarget"
	return c.target(ctx, op, balancer, instance, func(b balanced, all []member, mine *member) (bool, error) {
		pool := b.Pools[0].ID
		switch {
		case mine == nil:
			s, err := c.server(ctx, instance)
			if is(err, 404) || err == nil && s.state().Gone() {
				return false, provider.Errorf(op, balancer, provider.ErrNotFound, "there is no instance %q, or it is terminated", instance)
			}
			if err != nil {
				return false, err
			}
			private := s.instance().Private
			if !private.IsValid() {
				return false, provider.Errorf(op, balancer, nil, "instance %s has no address yet", instance)
			}
			if i := slices.IndexFunc(all, func(m member) bool { return m.Address == private.String() }); i >= 0 {
				// Its server has ended, and this one has got its address.
				return false, ignore(pools.DeleteMember(ctx, c.balancer, pool, all[i].ID).ExtractErr(), 404)
			}
			err = pools.CreateMember(ctx, c.balancer, pool, pools.CreateMemberOpts{Name: instance, Address: private.String(),
				ProtocolPort: b.number(balancerTarget)}).Err
			return err == nil, err
		case mine.Weight == 0:
			weight := 1
			err := pools.UpdateMember(ctx, c.balancer, pool, mine.ID, pools.UpdateMemberOpts{Weight: &weight, Tags: []string{memberUntil + "=0"}}).Err
			return err == nil, err
		}
		return true, nil
	})
}

// DeregisterTarget gives the member the weight 0. It is listed as draining for the balancer's time, and deleted by the next
// change of the balancer's targets after that.
func (c *Cloud) DeregisterTarget(ctx context.Context, balancer, instance string) error {
	return c.target(ctx, "DeregisterTarget", balancer, instance, func(b balanced, all []member, mine *member) (bool, error) {
		pool, drain := b.Pools[0].ID, b.number(balancerDrain)
		switch {
		case mine == nil || !mine.until().IsZero():
			return true, nil
		case drain == 0:
			err := pools.DeleteMember(ctx, c.balancer, pool, mine.ID).ExtractErr()
			return err == nil, ignore(err, 404)
		}
		weight, until := 0, time.Now().Add(time.Duration(drain)*time.Second).Unix()+1
		err := pools.UpdateMember(ctx, c.balancer, pool, mine.ID, pools.UpdateMemberOpts{Weight: &weight,
			Tags: []string{memberUntil + "=" + strconv.FormatInt(until, 10)}}).Err
		return err == nil, err
	})
}

// target changes the targets of a balancer, one change after another: first what has drained goes.
func (c *Cloud) target(ctx context.Context, op, balancer, instance string, do func(b balanced, all []member, mine *member) (bool, error)) error {
	if err := has(op, balancer, "load-balancer", c.balancer); err != nil {
		return err
	}
	unlock, err := c.locks.lock(ctx, "balancer "+balancer)
	if err != nil {
		return fail(ctx, op, balancer, err)
	}
	defer unlock()
	err = c.change(ctx, op, balancer, false, func(b balanced) (bool, error) {
		if whole, err := c.complete(ctx, b); !whole {
			return false, err
		}
		all, err := c.members(ctx, b.Pools[0].ID)
		if err != nil {
			return false, err
		}
		for _, m := range all {
			if until := m.until(); m.Name != instance && !until.IsZero() && time.Now().After(until) {
				return false, ignore(pools.DeleteMember(ctx, c.balancer, b.Pools[0].ID, m.ID).ExtractErr(), 404)
			}
		}
		i := slices.IndexFunc(all, func(m member) bool { return m.Name == instance })
		if i < 0 {
			return do(b, all, nil)
		}
		return do(b, all, &all[i])
	})
	return failed(ctx, op, balancer, err)
}
