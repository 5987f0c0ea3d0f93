package ec2

import (
	"context"
	"encoding/base64"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"

	"github.com/scalr-go/scalr/provider"
)

// mostUserData is EC2's limit, before base64.
const mostUserData = 16384

// Launch implements provider.Provider. The token is EC2's client token.
func (c *Cloud) Launch(ctx context.Context, l provider.Launch) (provider.Instance, error) {
	const op = "Launch"
	if err := c.checkLaunch(l); err != nil {
		return provider.Instance{}, err
	}
	if err := ended(ctx, op, l.Token); err != nil {
		return provider.Instance{}, err
	}
	t, release, err := c.memory.hold(ctx, op, l.Token)
	if err != nil {
		return provider.Instance{}, &provider.Error{Op: op, ID: l.Token, Err: err}
	}
	defer release()
	placement, there, err := c.placement(ctx, l)
	if err != nil || there != nil {
		return c.met(ctx, l, there, err)
	}
	in, err := c.runInput(ctx, l, placement)
	if err != nil {
		return provider.Instance{}, err
	}
	repeated := !t.doubtful.IsZero()
	t.doubtful = time.Now() // the token has been used
	out, err := c.ec2.RunInstances(ctx, in)
	switch code := codeOf(err); code {
	case "IdempotentParameterMismatch", "IdempotentInstanceTerminated":
		// It may be so young that it is not shown yet.
		lookErr := c.within(ctx, func() (bool, error) {
			there, err = c.tokenHolder(ctx, l.Token)
			return there != nil, err
		})
		if lookErr == nil && there != nil && code == "IdempotentParameterMismatch" {
			_, was := instance(there)
			return provider.Instance{}, mismatch(op, l.Token, was, l)
		}
		if lookErr != nil || there != nil {
			return c.met(ctx, l, there, lookErr)
		}
		return provider.Instance{}, invalid(op, l.Token, "Token was used for another launch, of an instance that is listed no more: %s", code)
	}
	if err != nil {
		return provider.Instance{}, c.launchFailed(ctx, l, placement, err)
	}
	if len(out.Instances) == 0 {
		return provider.Instance{}, provider.Errorf(op, l.Token, provider.ErrAmbiguous, "EC2 answered without an instance")
	}
	i := &out.Instances[0]
	c.memory.note(aws.ToString(i.InstanceId))
	// To a token that was used before, EC2 may answer with the instance as it was then.
	if repeated || time.Since(aws.ToTime(i.LaunchTime)) > 10*time.Second {
		now, err := c.look(ctx, aws.ToString(i.InstanceId))
		if err != nil {
			return provider.Instance{}, c.fail(ctx, op, l.Token, reads, err)
		}
		if now != nil {
			i = now
		}
	}
	return c.met(ctx, l, i, nil)
}

// checkLaunch finds what is wrong with a launch without asking.
func (c *Cloud) checkLaunch(l provider.Launch) error {
	const op = "Launch"
	if err := l.Check(); err != nil {
		return err
	}
	if err := checkTags(op, l.Token, l.Tags); err != nil {
		return err
	}
	if len(l.UserData) > mostUserData {
		return invalid(op, l.Token, "UserData has %d bytes, want at most %d", len(l.UserData), mostUserData)
	}
	if _, known := c.opts.Subnets[l.Placement]; len(c.opts.Subnets) > 0 && l.Placement != "" && l.Network == "" && !known {
		return invalid(op, l.Token, "Placement is %q, want one that Options.Subnets has: %q", l.Placement, slices.Sorted(maps.Keys(c.opts.Subnets)))
	}
	return nil
}

// met is the result of a launch that has met an instance.
func (c *Cloud) met(ctx context.Context, l provider.Launch, i *types.Instance, err error) (provider.Instance, error) {
	if err != nil {
		return provider.Instance{}, c.fail(ctx, "Launch", l.Token, reads, err)
	}
	x, there := instance(i)
	return x, check("Launch", l.Token, there, l)
}

// tokenHolder finds the instance of a token, nil if there is none.
func (c *Cloud) tokenHolder(ctx context.Context, token string) (*types.Instance, error) {
	list, err := c.byToken(ctx, token)
	if err != nil || len(list) == 0 {
		return nil, err
	}
	return list[0], nil
}

// placement is the zone of a launch, which its volumes may decide. If an instance has the volumes because an earlier call
// with the token launched it, that one is the answer.
func (c *Cloud) placement(ctx context.Context, l provider.Launch) (zone string, there *types.Instance, err error) {
	const op = "Launch"
	zone = l.Placement
	if len(l.Volumes) == 0 {
		return zone, nil, nil
	}
	known := map[string]*types.Volume{}
	err = c.describeVolumes(ctx, []types.Filter{filter("volume-id", l.Volumes...)}, func(v *types.Volume) { known[aws.ToString(v.VolumeId)] = v })
	if err != nil {
		return "", nil, err
	}
	for n, id := range l.Volumes {
		v := known[id]
		if v == nil {
			e := c.missing(op, l.Token, id).(*provider.Error)
			e.Err = fmt.Errorf("%s: %w", fmt.Sprintf("Volumes[%d]", n), e.Err)
			return "", nil, e
		}
		if at := aws.ToString(v.AvailabilityZone); zone == "" {
			zone = at
		} else if zone != at {
			return "", nil, invalid(op, l.Token, "Volumes[%d] is %s in placement %q, want placement %q", n, id, at, zone)
		}
		if len(v.Attachments) == 0 {
			continue
		}
		if there, err = c.tokenHolder(ctx, l.Token); err != nil || there != nil {
			return zone, there, err
		}
		return "", nil, invalid(op, l.Token, "Volumes[%d] is %s, which %s has", n, id, aws.ToString(v.Attachments[0].InstanceId))
	}
	return zone, nil, nil
}

// runInput is the request. It is the same for the same launch, or EC2 would find that it does not match its token.
func (c *Cloud) runInput(ctx context.Context, l provider.Launch, zone string) (*ec2.RunInstancesInput, error) {
	in := &ec2.RunInstancesInput{
		ClientToken: aws.String(l.Token), MinCount: aws.Int32(1), MaxCount: aws.Int32(1), ImageId: aws.String(l.Image),
		InstanceType: types.InstanceType(c.opts.Size),
		MetadataOptions: &types.InstanceMetadataOptionsRequest{
			HttpTokens: types.HttpTokensStateRequired, HttpEndpoint: types.InstanceMetadataEndpointStateEnabled,
		},
		TagSpecifications: specification(types.ResourceTypeInstance, mark(l.Token, l.Name, l.Tags, l)),
	}
	if l.Size != "" {
		in.InstanceType = types.InstanceType(l.Size)
	}
	subnet := l.Network
	if subnet == "" && len(c.opts.Subnets) > 0 {
		if zone == "" {
			zone = slices.Min(slices.Collect(maps.Keys(c.opts.Subnets)))
		}
		subnet = c.opts.Subnets[zone]
	}
	if zone != "" {
		in.Placement = &types.Placement{AvailabilityZone: aws.String(zone)}
	}
	if subnet != "" {
		in.SubnetId = aws.String(subnet)
	}
	groups := l.SecurityGroups
	if len(groups) == 0 {
		groups = c.opts.SecurityGroups
	}
	ids, err := c.groupIDs(ctx, l.Token, groups, subnet)
	if err != nil {
		return nil, err
	}
	in.SecurityGroupIds = ids
	if l.KeyPair != "" {
		in.KeyName = aws.String(l.KeyPair)
	}
	if len(l.UserData) > 0 {
		in.UserData = aws.String(base64.StdEncoding.EncodeToString(l.UserData))
	}
	if p := c.opts.InstanceProfile; p != "" {
		in.IamInstanceProfile = &types.IamInstanceProfileSpecification{Name: aws.String(p)}
	}
	if l.Spot {
		in.InstanceMarketOptions = &types.InstanceMarketOptionsRequest{MarketType: types.MarketTypeSpot, SpotOptions: &types.SpotMarketOptions{
			SpotInstanceType: types.SpotInstanceTypeOneTime, InstanceInterruptionBehavior: types.InstanceInterruptionBehaviorTerminate,
		}}
	}
	return in, nil
}

// groupIDs are the IDs of security groups. Names are looked up in the subnet's VPC, or in the default one: EC2 takes names
// in the latter only.
func (c *Cloud) groupIDs(ctx context.Context, token string, groups []string, subnet string) ([]string, error) {
	const op = "Launch"
	var ids, names []string
	for _, g := range groups {
		if strings.HasPrefix(g, "sg-") {
			ids = append(ids, g)
		} else {
			names = append(names, g)
		}
	}
	if len(names) == 0 {
		return ids, nil
	}
	vpc, err := c.vpc(ctx, token, subnet)
	if err != nil {
		return nil, err
	}
	found := map[string]string{}
	pages := ec2.NewDescribeSecurityGroupsPaginator(c.ec2, &ec2.DescribeSecurityGroupsInput{Filters: []types.Filter{
		filter("vpc-id", vpc), filter("group-name", names...)}})
	for pages.HasMorePages() {
		p, err := pages.NextPage(ctx)
		if err != nil {
			return nil, c.fail(ctx, op, token, reads, err)
		}
		for _, g := range p.SecurityGroups {
			found[aws.ToString(g.GroupName)] = aws.ToString(g.GroupId)
		}
	}
	for _, n := range names {
		if found[n] == "" {
			return nil, invalid(op, token, "SecurityGroups has %q, which VPC %s has not", n, vpc)
		}
		ids = append(ids, found[n])
	}
	return ids, nil
}

// vpc is the VPC of a subnet; of none, the default one.
func (c *Cloud) vpc(ctx context.Context, token, subnet string) (string, error) {
	const op = "Launch"
	by := filter("default-for-az", "true")
	if subnet != "" {
		by = filter("subnet-id", subnet)
	}
	out, err := c.ec2.DescribeSubnets(ctx, &ec2.DescribeSubnetsInput{Filters: []types.Filter{by}})
	switch {
	case err != nil:
		return "", c.fail(ctx, op, token, reads, err)
	case len(out.Subnets) > 0:
		return aws.ToString(out.Subnets[0].VpcId), nil
	case subnet != "":
		return "", invalid(op, token, "Network is %q, which is no subnet", subnet)
	}
	return "", invalid(op, token, "Network is empty, and the account has no default VPC")
}

// launchFailed names the field that EC2 refuses.
func (c *Cloud) launchFailed(ctx context.Context, l provider.Launch, zone string, err error) error {
	failed := c.fail(ctx, "Launch", l.Token, changes, err).(*provider.Error)
	code := codeOf(err)
	if kind := failed.Kind; kind != provider.ErrInvalid && kind != provider.ErrNotFound && kind != provider.ErrCapacity {
		return failed
	}
	size := l.Size
	if size == "" {
		size = c.opts.Size
	}
	field := ""
	switch text := strings.ToLower(failed.Err.Error()); {
	case failed.Kind == provider.ErrCapacity:
		field = fmt.Sprintf("Size %q at placement %q", size, zone)
	case strings.HasPrefix(code, "InvalidAMI"):
		field = "Image is " + quoted(l.Image)
	case strings.HasPrefix(code, "InvalidKeyPair"):
		field = "KeyPair is " + quoted(l.KeyPair)
	case strings.HasPrefix(code, "InvalidSubnet"):
		field = "Network is " + quoted(l.Network)
	case strings.HasPrefix(code, "InvalidGroup"), strings.HasPrefix(code, "InvalidSecurityGroup"):
		field = fmt.Sprintf("SecurityGroups is %q", l.SecurityGroups)
	case strings.HasPrefix(code, "InvalidUserData"):
		field = "UserData"
	case strings.Contains(text, "availability zone"):
		field = "Placement is " + quoted(zone)
	case strings.Contains(text, "instancetype"), strings.Contains(text, "instance type"):
		failed.Kind = provider.ErrInvalid // there is no later: types are the same for everybody
		field = "Size is " + quoted(size)
	case strings.Contains(text, "iaminstanceprofile"):
		field = "Options.InstanceProfile is " + quoted(c.opts.InstanceProfile)
	default:
		return failed
	}
	failed.Err = fmt.Errorf("%s: %w", field, failed.Err)
	return failed
}
