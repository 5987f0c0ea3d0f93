package memcloud

import (
	"context"
	"maps"
	"time"

	"github.com/scalr-go/scalr/provider"
)

type address = thing[provider.AddressSpec, provider.Address]

// AllocateAddress implements provider.Addresses. A token whose address was released makes a new one.
func (c *Cloud) AllocateAddress(ctx context.Context, s provider.AddressSpec) (provider.Address, error) {
	var a provider.Address
	err := c.call(ctx, Call{Method: "AllocateAddress", ID: s.Token}, func(now time.Time) (err error) {
		a, err = c.allocateAddress(now, s, true)
		return err
	})
	if err != nil {
		return provider.Address{}, err
	}
	a.Tags = maps.Clone(a.Tags)
	return a, nil
}

func (c *Cloud) allocateAddress(now time.Time, s provider.AddressSpec, enforce bool) (provider.Address, error) {
	if err := s.Check(); err != nil {
		return provider.Address{}, err
	}
	if x, err := c.addresses.repeat(s.Token, s); err != nil {
		return provider.Address{}, err
	} else if x != nil {
		return *x.at(now), nil
	}
	if err := over("AllocateAddress", s.Token, "addresses", c.quota.Addresses, c.addresses.count); err != nil && enforce {
		return provider.Address{}, err
	}
	addr, ok := c.public.take()
	if !ok {
		return provider.Address{}, provider.Errorf("AllocateAddress", s.Token, provider.ErrCapacity, "%s has no free address", c.public.prefix)
	}
	s.Tags = maps.Clone(s.Tags)
	x := c.addresses.add(s.Token, s, s.Tags)
	x.become(now, 0, provider.Address{ID: x.id, Addr: addr, Tags: x.tags})
	c.change(now, x.id, x.tags)
	return *x.at(now), nil
}

// Addresses implements provider.Addresses.
func (c *Cloud) Addresses(ctx context.Context, tags map[string]string) ([]provider.Address, error) {
	var list []provider.Address
	err := c.call(ctx, Call{Method: "Addresses"}, func(now time.Time) error {
		list = c.addresses.list(now.Add(-c.opts.ListLag), tags)
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

// AssociateAddress implements provider.Addresses.
func (c *Cloud) AssociateAddress(ctx context.Context, id, instance string) error {
	return c.call(ctx, Call{Method: "AssociateAddress", ID: id, Target: instance}, func(now time.Time) error {
		x, a := c.addresses.get(now, id)
		if x == nil {
			return provider.Errorf("AssociateAddress", id, provider.ErrNotFound, "the address does not exist")
		}
		m, err := c.usable(now, "AssociateAddress", id, instance)
		if err != nil {
			return err
		}
		if a.Instance == instance {
			return nil
		}
		c.disassociate(now, x)
		// An instance shows one public address: an earlier one yields.
		for _, other := range c.addresses.all() {
			if v := other.at(now); v != nil && v.Instance == instance {
				c.disassociate(now, other)
			}
		}
		c.associate(now, x, m)
		c.change(now, id, x.tags)
		return nil
	})
}

// DisassociateAddress implements provider.Addresses.
func (c *Cloud) DisassociateAddress(ctx context.Context, id string) error {
	return c.call(ctx, Call{Method: "DisassociateAddress", ID: id}, func(now time.Time) error {
		x, a := c.addresses.get(now, id)
		if x == nil {
			return provider.Errorf("DisassociateAddress", id, provider.ErrNotFound, "the address does not exist")
		}
		if a.Instance != "" {
			c.disassociate(now, x)
			c.change(now, id, x.tags)
		}
		return nil
	})
}

// ReleaseAddress implements provider.Addresses.
func (c *Cloud) ReleaseAddress(ctx context.Context, id string) error {
	return c.call(ctx, Call{Method: "ReleaseAddress", ID: id}, func(now time.Time) error {
		x, a := c.addresses.get(now, id)
		if x == nil {
			return nil
		}
		c.disassociate(now, x)
		c.addresses.remove(now, x)
		c.public.free(a.Addr)
		c.change(now, id, x.tags)
		return nil
	})
}

// associate gives a free address to an instance.
func (c *Cloud) associate(now time.Time, x *address, m *machine) {
	addr := x.at(now).Addr
	x.amend(now, c.opts.ListLag, func(a *provider.Address) { a.Instance = m.x.id })
	m.x.amend(now, c.opts.ListLag, func(i *provider.Instance) { i.Public = addr })
}

// disassociate takes an address from the instance that has it, if one has, which shows its own public address again.
func (c *Cloud) disassociate(now time.Time, x *address) {
	a := *x.at(now)
	if a.Instance == "" {
		return
	}
	x.amend(now, c.opts.ListLag, func(a *provider.Address) { a.Instance = "" })
	m := c.machines[a.Instance]
	m.x.amend(now, c.opts.ListLag, func(i *provider.Instance) {
		if i.Public == a.Addr {
			i.Public = m.public
		}
	})
}
