package ec2

import (
	"cmp"
	"context"
	"slices"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"

	"github.com/scalr-go/scalr/provider"
)

// oldAddress is an address and the request that made it.
type oldAddress struct {
	provider.Address
	labels labels
}

// AllocateAddress implements provider.Addresses. EC2 has no client token for it: see the package's doc. Network is the ID
// of a pool of addresses that the account has brought along.
func (c *Cloud) AllocateAddress(ctx context.Context, s provider.AddressSpec) (provider.Address, error) {
	const op = "AllocateAddress"
	if err := s.Check(); err != nil {
		return provider.Address{}, err
	}
	if err := checkTags(op, s.Token, s.Tags); err != nil {
		return provider.Address{}, err
	}
	if err := ended(ctx, op, s.Token); err != nil {
		return provider.Address{}, err
	}
	find := func() (list []oldAddress, err error) {
		err = c.describeAddresses(ctx, filters(map[string]string{TagToken: s.Token}), func(a *types.Address) {
			if p, l := elastic(a); l.token == s.Token {
				list = append(list, oldAddress{p, l})
			}
		})
		slices.SortFunc(list, func(a, b oldAddress) int { return cmp.Compare(a.ID, b.ID) })
		return list, c.fail(ctx, op, s.Token, reads, err)
	}
	x, err := create(ctx, c, op, s.Token, func(x oldAddress) string { return x.ID }, find, func() (oldAddress, error) {
		list := mark(s.Token, s.Name, s.Tags, s)
		in := &ec2.AllocateAddressInput{Domain: types.DomainTypeVpc, TagSpecifications: specification(types.ResourceTypeElasticIp, list)}
		if s.Network != "" {
			in.PublicIpv4Pool = aws.String(s.Network)
		}
		out, err := c.ec2.AllocateAddress(ctx, in, once)
		if err != nil {
			return oldAddress{}, c.fail(ctx, op, s.Token, changes, err)
		}
		// The reply shows no tags.
		p, l := elastic(&types.Address{AllocationId: out.AllocationId, PublicIp: out.PublicIp, Tags: in.TagSpecifications[0].Tags})
		return oldAddress{p, l}, nil
	})
	if err != nil {
		return provider.Address{}, err
	}
	x.Tags = copied(x.Tags)
	return x.Address, check(op, s.Token, x.labels, s)
}

// Addresses implements provider.Addresses, in one call: EC2 does not page them.
func (c *Cloud) Addresses(ctx context.Context, tags map[string]string) ([]provider.Address, error) {
	const op = "Addresses"
	if err := ended(ctx, op, ""); err != nil {
		return nil, err
	}
	var list []provider.Address
	err := c.describeAddresses(ctx, filters(tags), func(a *types.Address) {
		if x, _ := elastic(a); provider.Matches(x.Tags, tags) {
			list = append(list, x)
		}
	})
	if err != nil {
		return nil, c.fail(ctx, op, "", reads, err)
	}
	slices.SortFunc(list, func(a, b provider.Address) int { return cmp.Compare(a.ID, b.ID) })
	return list, nil
}

func (c *Cloud) describeAddresses(ctx context.Context, f []types.Filter, see func(*types.Address)) error {
	out, err := c.ec2.DescribeAddresses(ctx, &ec2.DescribeAddressesInput{Filters: f})
	if err != nil {
		return err
	}
	for i := range out.Addresses {
		see(&out.Addresses[i])
	}
	return nil
}

// lookAddress finds one address, nil if there is none.
func (c *Cloud) lookAddress(ctx context.Context, id string) (found *types.Address, err error) {
	err = c.describeAddresses(ctx, []types.Filter{filter("allocation-id", id)}, func(a *types.Address) { found = a })
	return found, err
}

func elastic(a *types.Address) (provider.Address, labels) {
	l := read(a.Tags)
	return provider.Address{ID: aws.ToString(a.AllocationId), Addr: address(a.PublicIp), Instance: aws.ToString(a.InstanceId), Tags: l.tags}, l
}

// AssociateAddress implements provider.Addresses.
func (c *Cloud) AssociateAddress(ctx context.Context, id, instance string) error {
	const op = "AssociateAddress"
	if err := ended(ctx, op, id); err != nil {
		return err
	}
	_, err := c.ec2.AssociateAddress(ctx, &ec2.AssociateAddressInput{AllocationId: aws.String(id), InstanceId: aws.String(instance),
		AllowReassociation: aws.Bool(true)})
	switch code := codeOf(err); {
	case code == "InvalidAllocationID.NotFound", code == "InvalidAddress.NotFound", code == "InvalidAddressID.NotFound":
		return c.missing(op, id, id)
	case isGone(err), code == "IncorrectInstanceState", code == "InvalidInstanceID":
		// It is gone, or has not booted yet.
		if _, why := c.usable(ctx, op, id, instance); why != nil {
			return why
		}
		return &provider.Error{Op: op, ID: id, Err: err}
	}
	return c.fail(ctx, op, id, changes, err)
}

// DisassociateAddress implements provider.Addresses.
func (c *Cloud) DisassociateAddress(ctx context.Context, id string) error {
	const op = "DisassociateAddress"
	if err := ended(ctx, op, id); err != nil {
		return err
	}
	a, err := c.lookAddress(ctx, id)
	switch {
	case err != nil:
		return c.fail(ctx, op, id, reads, err)
	case a == nil:
		return c.missing(op, id, id)
	}
	return c.disassociate(ctx, op, id, a)
}

func (c *Cloud) disassociate(ctx context.Context, op, id string, a *types.Address) error {
	if aws.ToString(a.AssociationId) == "" {
		return nil
	}
	_, err := c.ec2.DisassociateAddress(ctx, &ec2.DisassociateAddressInput{AssociationId: a.AssociationId})
	if isGone(err) {
		return nil
	}
	return c.fail(ctx, op, id, changes, err)
}

// ReleaseAddress implements provider.Addresses.
func (c *Cloud) ReleaseAddress(ctx context.Context, id string) error {
	const op = "ReleaseAddress"
	if err := ended(ctx, op, id); err != nil {
		return err
	}
	a, err := c.lookAddress(ctx, id)
	if err != nil {
		return c.fail(ctx, op, id, reads, err)
	}
	if a != nil {
		if err := c.disassociate(ctx, op, id, a); err != nil {
			return err
		}
	}
	_, err = c.ec2.ReleaseAddress(ctx, &ec2.ReleaseAddressInput{AllocationId: aws.String(id)})
	if isGone(err) {
		if _, young := c.memory.young(id); young {
			return c.missing(op, id, id)
		}
		return nil
	}
	if err == nil {
		c.memory.forget(id)
	}
	return c.fail(ctx, op, id, changes, err)
}
