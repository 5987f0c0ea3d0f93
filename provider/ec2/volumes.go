package ec2

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"

	"github.com/scalr-go/scalr/provider"
)

// CreateVolume implements provider.Volumes. The token is EC2's client token. An empty Placement is the first zone of the
// region, in the order of their names.
func (c *Cloud) CreateVolume(ctx context.Context, s provider.VolumeSpec) (provider.Volume, error) {
	const op = "CreateVolume"
	if err := s.Check(); err != nil {
		return provider.Volume{}, err
	}
	if err := checkTags(op, s.Token, s.Tags); err != nil {
		return provider.Volume{}, err
	}
	if err := ended(ctx, op, s.Token); err != nil {
		return provider.Volume{}, err
	}
	zone := s.Placement
	if zone == "" {
		var err error
		if zone, err = c.firstZone(ctx); err != nil {
			return provider.Volume{}, c.fail(ctx, op, s.Token, reads, err)
		}
	}
	in := &ec2.CreateVolumeInput{ClientToken: aws.String(s.Token), AvailabilityZone: aws.String(zone), Encrypted: aws.Bool(true),
		VolumeType: types.VolumeTypeGp3, TagSpecifications: specification(types.ResourceTypeVolume, mark(s.Token, s.Name, s.Tags, s))}
	if s.Type != "" {
		in.VolumeType = types.VolumeType(s.Type)
	}
	if s.SizeGB > 0 {
		in.Size = aws.Int32(int32(min(s.SizeGB, 1<<30)))
	}
	if s.Snapshot != "" {
		in.SnapshotId = aws.String(s.Snapshot)
	}
	out, err := c.ec2.CreateVolume(ctx, in)
	if codeOf(err) == "IdempotentParameterMismatch" {
		return provider.Volume{}, c.volumeMismatch(ctx, s)
	}
	if err != nil {
		return provider.Volume{}, c.volumeFailed(ctx, s, zone, err)
	}
	c.memory.note(aws.ToString(out.VolumeId))
	v, there := volume(&types.Volume{VolumeId: out.VolumeId, Size: out.Size, VolumeType: out.VolumeType, AvailabilityZone: out.AvailabilityZone,
		State: out.State, Attachments: out.Attachments, CreateTime: out.CreateTime, Tags: out.Tags})
	return v, check(op, s.Token, there, s)
}

// volumeMismatch says what differs from the request that came with the token before.
func (c *Cloud) volumeMismatch(ctx context.Context, s provider.VolumeSpec) error {
	const op = "CreateVolume"
	var found []labels
	err := c.within(ctx, func() (bool, error) { // it may be so young that it is not shown yet
		err := c.describeVolumes(ctx, filters(map[string]string{TagToken: s.Token}), func(v *types.Volume) { found = append(found, read(v.Tags)) })
		return len(found) > 0, err
	})
	if err != nil {
		return c.fail(ctx, op, s.Token, reads, err)
	}
	if len(found) == 0 {
		return invalid(op, s.Token, "Token was used for another request, for a volume that is listed no more")
	}
	return mismatch(op, s.Token, found[0], s)
}

func (c *Cloud) volumeFailed(ctx context.Context, s provider.VolumeSpec, zone string, err error) error {
	failed := c.fail(ctx, "CreateVolume", s.Token, changes, err).(*provider.Error)
	field := ""
	switch code, text := codeOf(err), strings.ToLower(failed.Err.Error()); {
	case failed.Kind != provider.ErrInvalid && failed.Kind != provider.ErrNotFound:
		return failed
	case strings.HasPrefix(code, "InvalidSnapshot"):
		field = "Snapshot is " + quoted(s.Snapshot)
	case strings.HasPrefix(code, "InvalidZone"), strings.Contains(text, "zone"):
		field = "Placement is " + quoted(zone)
	case strings.Contains(text, "volumetype"), strings.Contains(text, "volume type"):
		field = "Type is " + quoted(s.Type)
	case strings.Contains(text, "size"):
		field = fmt.Sprintf("SizeGB is %d", s.SizeGB)
	default:
		return failed
	}
	failed.Err = fmt.Errorf("%s: %w", field, failed.Err)
	return failed
}

// firstZone is the placement of what says none.
func (c *Cloud) firstZone(ctx context.Context) (string, error) {
	out, err := c.ec2.DescribeAvailabilityZones(ctx, &ec2.DescribeAvailabilityZonesInput{Filters: []types.Filter{
		filter("zone-type", "availability-zone"), filter("state", "available")}})
	if err != nil {
		return "", err
	}
	var zones []string
	for _, z := range out.AvailabilityZones {
		zones = append(zones, aws.ToString(z.ZoneName))
	}
	if len(zones) == 0 {
		return "", fmt.Errorf("region %s shows no availability zone", c.opts.Region)
	}
	return slices.Min(zones), nil
}

// Volumes implements provider.Volumes.
func (c *Cloud) Volumes(ctx context.Context, tags map[string]string) ([]provider.Volume, error) {
	const op = "Volumes"
	if err := ended(ctx, op, ""); err != nil {
		return nil, err
	}
	var list []provider.Volume
	err := c.describeVolumes(ctx, filters(tags), func(v *types.Volume) {
		if x, _ := volume(v); provider.Matches(x.Tags, tags) {
			list = append(list, x)
		}
	})
	if err != nil {
		return nil, c.fail(ctx, op, "", reads, err)
	}
	slices.SortFunc(list, func(a, b provider.Volume) int { return cmp.Compare(a.ID, b.ID) })
	return list, nil
}

// describeVolumes shows what matches the filters and is not being deleted.
func (c *Cloud) describeVolumes(ctx context.Context, f []types.Filter, see func(*types.Volume)) error {
	pages := ec2.NewDescribeVolumesPaginator(c.ec2, &ec2.DescribeVolumesInput{Filters: f, MaxResults: aws.Int32(page)})
	for pages.HasMorePages() {
		p, err := pages.NextPage(ctx)
		if err != nil {
			return err
		}
		for i := range p.Volumes {
			if v := &p.Volumes[i]; v.State != types.VolumeStateDeleting && v.State != types.VolumeStateDeleted {
				see(v)
			}
		}
	}
	return nil
}

func (c *Cloud) lookVolume(ctx context.Context, op, id string) (found *types.Volume, err error) {
	err = c.describeVolumes(ctx, []types.Filter{filter("volume-id", id)}, func(v *types.Volume) { found = v })
	if err != nil {
		return nil, c.fail(ctx, op, id, reads, err)
	}
	if found == nil {
		return nil, c.missing(op, id, id)
	}
	return found, nil
}

func volume(v *types.Volume) (provider.Volume, labels) {
	l := read(v.Tags)
	x := provider.Volume{ID: aws.ToString(v.VolumeId), Name: l.name, SizeGB: int(aws.ToInt32(v.Size)), Type: string(v.VolumeType),
		Placement: aws.ToString(v.AvailabilityZone), Created: aws.ToTime(v.CreateTime), Tags: l.tags,
		Ready: v.State == types.VolumeStateAvailable || v.State == types.VolumeStateInUse}
	if len(v.Attachments) > 0 {
		x.Instance, x.Device = aws.ToString(v.Attachments[0].InstanceId), aws.ToString(v.Attachments[0].Device)
	}
	return x, l
}

// AttachVolume implements provider.Volumes.
func (c *Cloud) AttachVolume(ctx context.Context, id, instance string) error {
	const op = "AttachVolume"
	if err := ended(ctx, op, id); err != nil {
		return err
	}
	v, err := c.lookVolume(ctx, op, id)
	if err != nil {
		return err
	}
	if len(v.Attachments) > 0 && aws.ToString(v.Attachments[0].InstanceId) == instance {
		return c.untilAttached(ctx, op, id, instance)
	}
	i, err := c.usable(ctx, op, id, instance)
	switch {
	case err != nil:
		return err
	case len(v.Attachments) > 0:
		return invalid(op, id, "instance %s has the volume, want it free", aws.ToString(v.Attachments[0].InstanceId))
	case v.State != types.VolumeStateAvailable:
		return provider.Errorf(op, id, nil, "the volume is %s, want it available", v.State)
	case i.Placement != nil && aws.ToString(i.Placement.AvailabilityZone) != aws.ToString(v.AvailabilityZone):
		return invalid(op, id, "instance %s is in placement %q, want the volume's, %q", instance,
			aws.ToString(i.Placement.AvailabilityZone), aws.ToString(v.AvailabilityZone))
	case state(i) == provider.Pending:
		return provider.Errorf(op, id, nil, "instance %s does not run yet", instance)
	}
	taken := map[string]bool{}
	for _, m := range i.BlockDeviceMappings {
		taken[aws.ToString(m.DeviceName)] = true
	}
	for {
		device := freeDevice(taken)
		if device == "" {
			return provider.Errorf(op, id, provider.ErrQuota, "instance %s has as many volumes as there are names for", instance)
		}
		_, err = c.ec2.AttachVolume(ctx, &ec2.AttachVolumeInput{VolumeId: aws.String(id), InstanceId: aws.String(instance), Device: aws.String(device)})
		// Another call may have given the name to another volume in the meantime.
		if err != nil && codeOf(err) == "InvalidParameterValue" && strings.Contains(err.Error(), "in use") {
			taken[device] = true
			continue
		}
		break
	}
	// The reply to an earlier attempt may have been lost.
	if code := codeOf(err); err == nil || code == "VolumeInUse" {
		return c.untilAttached(ctx, op, id, instance)
	}
	if isGone(err) {
		return c.missing(op, id, instance)
	}
	return c.fail(ctx, op, id, changes, err)
}

// freeDevice is a device name that EC2 recommends for volumes, "" if all are taken.
func freeDevice(taken map[string]bool) string {
	for x := 'f'; x <= 'p'; x++ {
		if d := "/dev/sd" + string(x); !taken[d] && !taken["/dev/xvd"+string(x)] {
			return d
		}
	}
	for _, first := range "bc" {
		for x := 'a'; x <= 'z'; x++ {
			if d := "/dev/xvd" + string(first) + string(x); !taken[d] {
				return d
			}
		}
	}
	return ""
}

// untilAttached waits until the instance has the volume.
func (c *Cloud) untilAttached(ctx context.Context, op, id, instance string) error {
	err := until(ctx, func() (bool, error) {
		v, err := c.lookVolume(ctx, op, id)
		if err != nil || len(v.Attachments) == 0 {
			return false, err
		}
		a := v.Attachments[0]
		if got := aws.ToString(a.InstanceId); got != instance {
			return false, invalid(op, id, "instance %s has the volume, want it free", got)
		}
		return a.State == types.VolumeAttachmentStateAttached, nil
	})
	return c.fail(ctx, op, id, changes, err)
}

// DetachVolume implements provider.Volumes.
func (c *Cloud) DetachVolume(ctx context.Context, id string) error {
	const op = "DetachVolume"
	if err := ended(ctx, op, id); err != nil {
		return err
	}
	asked := false
	err := until(ctx, func() (bool, error) {
		v, err := c.lookVolume(ctx, op, id)
		if err != nil {
			return false, err
		}
		if len(v.Attachments) == 0 {
			return v.State != types.VolumeStateInUse, nil
		}
		if !asked && v.Attachments[0].State != types.VolumeAttachmentStateDetaching {
			_, err = c.ec2.DetachVolume(ctx, &ec2.DetachVolumeInput{VolumeId: aws.String(id), InstanceId: v.Attachments[0].InstanceId})
			// IncorrectState: it has been detached meanwhile, which the next look shows.
			if err != nil && codeOf(err) != "IncorrectState" && !isGone(err) {
				return false, err
			}
			asked = true
		}
		return false, nil
	})
	return c.fail(ctx, op, id, changes, err)
}

// DeleteVolume implements provider.Volumes.
func (c *Cloud) DeleteVolume(ctx context.Context, id string) error {
	const op = "DeleteVolume"
	if err := ended(ctx, op, id); err != nil {
		return err
	}
	_, err := c.ec2.DeleteVolume(ctx, &ec2.DeleteVolumeInput{VolumeId: aws.String(id)})
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
