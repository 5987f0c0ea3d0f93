package ec2

import (
	"context"
	"maps"
	"slices"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"

	"github.com/scalr-go/scalr/provider"
)

// Stop implements provider.Power. The operating system is not asked. A spot instance cannot be stopped: ErrInvalid.
func (c *Cloud) Stop(ctx context.Context, id string) error {
	const op = "Stop"
	if err := ended(ctx, op, id); err != nil {
		return err
	}
	_, err := c.ec2.StopInstances(ctx, &ec2.StopInstancesInput{InstanceIds: []string{id}, Force: aws.Bool(true), SkipOsShutdown: aws.Bool(true)})
	// An instance that ends, or has just begun, refuses; what it does next is seen below.
	if err != nil && !isGone(err) && codeOf(err) != "IncorrectInstanceState" {
		return c.fail(ctx, op, id, changes, err)
	}
	refused := err
	err = until(ctx, func() (bool, error) {
		i, err := c.look(ctx, id)
		if err != nil {
			return false, err
		}
		if i == nil {
			if _, young := c.memory.young(id); young {
				return false, c.missing(op, id, id)
			}
			return true, nil
		}
		switch i.State.Name {
		case types.InstanceStateNameStopped, types.InstanceStateNameTerminated:
			return true, nil
		case types.InstanceStateNamePending, types.InstanceStateNameRunning:
			return false, refused
		}
		return false, nil
	})
	return c.fail(ctx, op, id, changes, err)
}

// TagInstance implements provider.Tagger.
func (c *Cloud) TagInstance(ctx context.Context, id string, tags map[string]string) error {
	const op = "TagInstance"
	if err := ended(ctx, op, id); err != nil {
		return err
	}
	if err := checkTags(op, id, tags); err != nil {
		return err
	}
	i, err := c.look(ctx, id)
	switch {
	case err != nil:
		return c.fail(ctx, op, id, reads, err)
	case i == nil:
		return c.missing(op, id, id)
	case state(i) == provider.Terminated:
		return provider.Errorf(op, id, provider.ErrNotFound, "the instance is terminated")
	case provider.Matches(read(i.Tags).tags, tags):
		return nil
	}
	in := &ec2.CreateTagsInput{Resources: []string{id}}
	for _, k := range slices.Sorted(maps.Keys(tags)) {
		in.Tags = append(in.Tags, types.Tag{Key: aws.String(k), Value: aws.String(tags[k])})
	}
	_, err = c.ec2.CreateTags(ctx, in)
	if isGone(err) {
		return c.missing(op, id, id)
	}
	return c.fail(ctx, op, id, changes, err)
}

// Start implements provider.Power.
func (c *Cloud) Start(ctx context.Context, id string) error {
	const op = "Start"
	if err := ended(ctx, op, id); err != nil {
		return err
	}
	_, err := c.ec2.StartInstances(ctx, &ec2.StartInstancesInput{InstanceIds: []string{id}})
	return c.refused(ctx, op, id, err)
}

// Reboot implements provider.Power. EC2 forces it where the operating system does not answer for some minutes.
func (c *Cloud) Reboot(ctx context.Context, id string) error {
	const op = "Reboot"
	if err := ended(ctx, op, id); err != nil {
		return err
	}
	_, err := c.ec2.RebootInstances(ctx, &ec2.RebootInstancesInput{InstanceIds: []string{id}})
	return c.refused(ctx, op, id, err)
}

// refused is the error of a call that an instance may have refused because of its state: for good if it is gone.
func (c *Cloud) refused(ctx context.Context, op, id string, err error) error {
	switch code := codeOf(err); {
	case isGone(err):
		return c.missing(op, id, id)
	case code == "IncorrectInstanceState", code == "IncorrectState", code == "InvalidInstanceID":
		if _, why := c.usable(ctx, op, id, id); why != nil {
			return why
		}
		return &provider.Error{Op: op, ID: id, Err: err}
	}
	return c.fail(ctx, op, id, changes, err)
}
