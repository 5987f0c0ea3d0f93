package ec2

import (
	"cmp"
	"context"
	"net/netip"
	"slices"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"

	"github.com/scalr-go/scalr/provider"
)

// page is how many things a page of a list has at most; EC2 takes 1000.
const page = 1000

// Instances implements provider.Provider: one DescribeInstances for each thousand instances.
func (c *Cloud) Instances(ctx context.Context, tags map[string]string) ([]provider.Instance, error) {
	const op = "Instances"
	if err := ended(ctx, op, ""); err != nil {
		return nil, err
	}
	var list []provider.Instance
	err := c.describe(ctx, filters(tags), func(i *types.Instance) {
		if x, _ := instance(i); provider.Matches(x.Tags, tags) {
			list = append(list, x)
		}
	})
	if err != nil {
		return nil, c.fail(ctx, op, "", reads, err)
	}
	slices.SortFunc(list, func(a, b provider.Instance) int { return cmp.Compare(a.ID, b.ID) })
	return list, nil
}

// describe shows what matches the filters. IDs are given by a filter, too: one that is unknown would fail a list of IDs.
func (c *Cloud) describe(ctx context.Context, f []types.Filter, see func(*types.Instance)) error {
	pages := ec2.NewDescribeInstancesPaginator(c.ec2, &ec2.DescribeInstancesInput{Filters: f, MaxResults: aws.Int32(page)})
	for pages.HasMorePages() {
		p, err := pages.NextPage(ctx)
		if err != nil {
			return err
		}
		for _, r := range p.Reservations {
			for i := range r.Instances {
				see(&r.Instances[i])
			}
		}
	}
	return nil
}

// look finds one instance, nil if EC2 does not show it.
func (c *Cloud) look(ctx context.Context, id string) (found *types.Instance, err error) {
	err = c.describe(ctx, []types.Filter{filter("instance-id", id)}, func(i *types.Instance) { found = i })
	return found, err
}

// usable finds an instance for an operation with it, or says why it cannot be used. An instance that is on its way may be
// used later: that is an error of no kind.
func (c *Cloud) usable(ctx context.Context, op, id, instance string) (*types.Instance, error) {
	i, err := c.look(ctx, instance)
	if err != nil {
		return nil, c.fail(ctx, op, id, reads, err)
	}
	if i == nil {
		return nil, c.missing(op, id, instance)
	}
	if s := state(i); s.Gone() {
		return nil, invalid(op, id, "instance %s is %s, want it running", instance, s)
	}
	return i, nil
}

// Terminate implements provider.Provider.
func (c *Cloud) Terminate(ctx context.Context, id string) error {
	const op = "Terminate"
	if err := ended(ctx, op, id); err != nil {
		return err
	}
	_, err := c.ec2.TerminateInstances(ctx, &ec2.TerminateInstancesInput{InstanceIds: []string{id}})
	if isGone(err) {
		if _, young := c.memory.young(id); young {
			return c.missing(op, id, id)
		}
		return nil
	}
	return c.fail(ctx, op, id, changes, err)
}

// state is where an instance is in its life.
func state(i *types.Instance) provider.State {
	if i.State == nil {
		return provider.Pending
	}
	switch i.State.Name {
	case types.InstanceStateNameRunning:
		return provider.Running
	case types.InstanceStateNameStopping, types.InstanceStateNameStopped:
		return provider.Stopped
	case types.InstanceStateNameShuttingDown:
		return provider.Terminating
	case types.InstanceStateNameTerminated:
		return provider.Terminated
	}
	return provider.Pending
}

// instance is what EC2 lists in the terms of package provider.
func instance(i *types.Instance) (provider.Instance, labels) {
	l := read(i.Tags)
	x := provider.Instance{
		ID: aws.ToString(i.InstanceId), Name: l.name, State: state(i), Image: aws.ToString(i.ImageId), Size: string(i.InstanceType),
		Private: address(i.PrivateIpAddress), Public: address(i.PublicIpAddress), Launched: aws.ToTime(i.LaunchTime),
		Spot: i.InstanceLifecycle == types.InstanceLifecycleTypeSpot, Tags: l.tags,
	}
	if i.Placement != nil {
		x.Placement = aws.ToString(i.Placement.AvailabilityZone)
	}
	if x.State != provider.Running && x.State != provider.Pending {
		x.Reason = aws.ToString(i.StateTransitionReason)
		if r := i.StateReason; r != nil && aws.ToString(r.Message) != "" {
			x.Reason = aws.ToString(r.Message)
		}
	}
	return x, l
}

func address(s *string) netip.Addr {
	a, _ := netip.ParseAddr(aws.ToString(s))
	return a
}

// byToken finds the instances that were launched with a token, those that run first, then the oldest.
func (c *Cloud) byToken(ctx context.Context, token string) (list []*types.Instance, err error) {
	err = c.describe(ctx, filters(map[string]string{TagToken: token}), func(i *types.Instance) {
		if read(i.Tags).token == token {
			list = append(list, i)
		}
	})
	slices.SortFunc(list, func(a, b *types.Instance) int {
		gone := func(i *types.Instance) int {
			if state(i).Gone() {
				return 1
			}
			return 0
		}
		return cmp.Or(gone(a)-gone(b), aws.ToTime(a.LaunchTime).Compare(aws.ToTime(b.LaunchTime)), cmp.Compare(*a.InstanceId, *b.InstanceId))
	})
	return list, err
}
