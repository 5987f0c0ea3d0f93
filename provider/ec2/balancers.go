package ec2

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/base32"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	ec2types "github.com/aws/aws-sdk-go-v2/service/ec2/types"
	elb "github.com/aws/aws-sdk-go-v2/service/elasticloadbalancingv2"
	"github.com/aws/aws-sdk-go-v2/service/elasticloadbalancingv2/types"

	"github.com/scalr-go/scalr/provider"
)

// A balancer is three things to AWS: the load balancer, a target group of the same name, and a listener that joins them.
// The load balancer comes first and goes last, so that whoever dies in between leaves something that is listed. It bears all that the
// others are made from: the first RegisterTarget makes what is missing.

// mostDrain is how long a target group may drain at most.
const mostDrain = time.Hour

// balancerName is the name of a token's load balancer and target group, at most 32 characters.
func balancerName(token string) string {
	sum := sha256.Sum256([]byte(token))
	return "scalr-" + strings.ToLower(base32.StdEncoding.WithPadding(base32.NoPadding).EncodeToString(sum[:])[:26])
}

// nameOf is the name in an ARN: …:loadbalancer/app/NAME/0123456789abcdef.
func nameOf(arn string) string {
	parts := strings.Split(arn, "/")
	if len(parts) < 4 {
		return ""
	}
	return parts[2]
}

// CreateBalancer implements provider.Balancers. It is idempotent by the load balancer's name. Drain is rounded up to seconds,
// and is at most an hour. HealthPath has at most some 170 bytes, since a tag keeps it. Without Networks it stands in Options.Subnets, or in the default subnets of all zones.
func (c *Cloud) CreateBalancer(ctx context.Context, s provider.BalancerSpec) (provider.Balancer, error) {
	const op = "CreateBalancer"
	if err := s.Check(); err != nil {
		return provider.Balancer{}, err
	}
	if err := checkTags(op, s.Token, s.Tags); err != nil {
		return provider.Balancer{}, err
	}
	if s.Drain > mostDrain {
		return provider.Balancer{}, invalid(op, s.Token, "Drain is %s, want at most %s", s.Drain, mostDrain)
	}
	if len(frontOf(s).String()) > 255 {
		return provider.Balancer{}, invalid(op, s.Token, "HealthPath has %d bytes, want fewer: it is kept in a tag", len(s.HealthPath))
	}
	if err := ended(ctx, op, s.Token); err != nil {
		return provider.Balancer{}, err
	}
	_, release, err := c.memory.hold(ctx, op, s.Token)
	if err != nil {
		return provider.Balancer{}, &provider.Error{Op: op, ID: s.Token, Err: err}
	}
	defer release()
	b, err := c.createBalancer(ctx, s)
	return b, c.fail(ctx, op, s.Token, changes, err)
}

func (c *Cloud) createBalancer(ctx context.Context, s provider.BalancerSpec) (provider.Balancer, error) {
	name := balancerName(s.Token)
	list := append(mark(s.Token, s.Name, s.Tags, s), [2]string{tagFront, frontOf(s).String()})
	made, err := c.loadBalancer(ctx, s, name, tagged(list))
	if err != nil {
		return provider.Balancer{}, err
	}
	arn := aws.ToString(made.LoadBalancerArn)
	// It may have been there before, and then another request's.
	marks, err := c.balancerTags(ctx, []string{arn})
	if err != nil {
		return provider.Balancer{}, err
	}
	if err := check("CreateBalancer", s.Token, marks[arn], s); err != nil {
		return provider.Balancer{}, err
	}
	if _, err := c.join(ctx, made, frontOf(s), list); err != nil {
		return provider.Balancer{}, err
	}
	return provider.Balancer{ID: arn, Name: s.Name, Host: aws.ToString(made.DNSName), Port: s.Port, Ready: active(made), Tags: copied(s.Tags)}, nil
}

func tagged(list [][2]string) (tags []types.Tag) {
	for _, t := range list {
		tags = append(tags, types.Tag{Key: aws.String(t[0]), Value: aws.String(t[1])})
	}
	return tags
}

func active(b *types.LoadBalancer) bool {
	return b.State != nil && b.State.Code == types.LoadBalancerStateEnumActive
}

// loadBalancer makes the load balancer, or finds it.
func (c *Cloud) loadBalancer(ctx context.Context, s provider.BalancerSpec, name string, tags []types.Tag) (*types.LoadBalancer, error) {
	in := &elb.CreateLoadBalancerInput{Name: aws.String(name), Type: types.LoadBalancerTypeEnumNetwork, Tags: tags, Subnets: slices.Clone(s.Networks),
		SecurityGroups: c.opts.BalancerSecurityGroups}
	if s.Protocol == "http" {
		in.Type = types.LoadBalancerTypeEnumApplication
	}
	if len(in.Subnets) == 0 {
		in.Subnets = slices.Sorted(maps.Values(c.opts.Subnets))
	}
	if len(in.Subnets) == 0 {
		out, err := c.ec2.DescribeSubnets(ctx, &ec2.DescribeSubnetsInput{Filters: []ec2types.Filter{filter("default-for-az", "true")}})
		if err != nil {
			return nil, err
		}
		for _, n := range out.Subnets {
			in.Subnets = append(in.Subnets, aws.ToString(n.SubnetId))
		}
		slices.Sort(in.Subnets)
	}
	if len(in.Subnets) == 0 {
		return nil, invalid("CreateBalancer", s.Token, "Networks is empty, and the account has no default subnets")
	}
	out, err := c.elb.CreateLoadBalancer(ctx, in)
	if err == nil && len(out.LoadBalancers) == 1 {
		return &out.LoadBalancers[0], nil
	}
	if err != nil && codeOf(err) != "DuplicateLoadBalancerName" {
		return nil, err
	}
	there, err := c.elb.DescribeLoadBalancers(ctx, &elb.DescribeLoadBalancersInput{Names: []string{name}})
	if err != nil {
		return nil, err
	}
	if len(there.LoadBalancers) == 0 {
		return nil, provider.Errorf("CreateBalancer", s.Token, nil, "there is a load balancer named %s, which is not shown yet", name)
	}
	return &there.LoadBalancers[0], nil
}

// balancerTags reads the tags of load balancers, twenty a call.
func (c *Cloud) balancerTags(ctx context.Context, arns []string) (map[string]labels, error) {
	all := map[string]labels{}
	for some := range slices.Chunk(arns, 20) {
		out, err := c.elb.DescribeTags(ctx, &elb.DescribeTagsInput{ResourceArns: some})
		if err != nil {
			return nil, err
		}
		for _, d := range out.TagDescriptions {
			l := labels{tags: map[string]string{}}
			for _, t := range d.Tags {
				l.add(aws.ToString(t.Key), aws.ToString(t.Value))
			}
			all[aws.ToString(d.ResourceArn)] = l
		}
	}
	return all, nil
}

// Balancers implements provider.Balancers. AWS filters load balancers by nothing: all of the region are listed, 400 a
// call, and their tags, twenty a call; what bears the tags costs two calls more.
func (c *Cloud) Balancers(ctx context.Context, tags map[string]string) ([]provider.Balancer, error) {
	const op = "Balancers"
	if err := ended(ctx, op, ""); err != nil {
		return nil, err
	}
	list, err := c.balancers(ctx, tags)
	// One that is deleted while it is read makes the list incomplete: that is an error of no kind.
	if err != nil && isGone(err) {
		return nil, &provider.Error{Op: op, Err: err}
	}
	return list, c.fail(ctx, op, "", reads, err)
}

func (c *Cloud) balancers(ctx context.Context, tags map[string]string) ([]provider.Balancer, error) {
	var all []types.LoadBalancer
	pages := elb.NewDescribeLoadBalancersPaginator(c.elb, &elb.DescribeLoadBalancersInput{PageSize: aws.Int32(400)})
	for pages.HasMorePages() {
		p, err := pages.NextPage(ctx)
		if err != nil {
			return nil, err
		}
		for _, b := range p.LoadBalancers {
			if b.Type != types.LoadBalancerTypeEnumGateway {
				all = append(all, b)
			}
		}
	}
	var arns []string
	for _, b := range all {
		arns = append(arns, aws.ToString(b.LoadBalancerArn))
	}
	marks, err := c.balancerTags(ctx, arns)
	if err != nil {
		return nil, err
	}
	var list []provider.Balancer
	for i := range all {
		b := &all[i]
		arn := aws.ToString(b.LoadBalancerArn)
		l, ok := marks[arn]
		if !ok || !provider.Matches(l.tags, tags) {
			continue
		}
		x := provider.Balancer{ID: arn, Name: l.name, Host: aws.ToString(b.DNSName), Tags: l.tags}
		if f, ok := readFront(l.front); ok {
			x.Port, x.Ready = f.port, active(b)
		}
		if err := c.show(ctx, &x, active(b)); err != nil {
			return nil, err
		}
		list = append(list, x)
	}
	slices.SortFunc(list, func(a, b provider.Balancer) int { return cmp.Compare(a.ID, b.ID) })
	return list, nil
}

// show adds the listener's port and the targets.
func (c *Cloud) show(ctx context.Context, b *provider.Balancer, active bool) error {
	out, err := c.elb.DescribeListeners(ctx, &elb.DescribeListenersInput{LoadBalancerArn: aws.String(b.ID)})
	if err != nil {
		return err
	}
	if len(out.Listeners) == 0 || len(out.Listeners[0].DefaultActions) == 0 {
		return nil // it is being made, or has been left so, or is being deleted
	}
	listener := out.Listeners[0]
	b.Port, b.Ready = int(aws.ToInt32(listener.Port)), active
	group := listener.DefaultActions[0].TargetGroupArn
	if group == nil {
		return nil // somebody else's, with rules of another kind
	}
	health, err := c.elb.DescribeTargetHealth(ctx, &elb.DescribeTargetHealthInput{TargetGroupArn: group})
	if err != nil {
		return err
	}
	for _, h := range health.TargetHealthDescriptions {
		if t, ok := target(h); ok {
			b.Targets = append(b.Targets, t)
		}
	}
	slices.SortFunc(b.Targets, func(a, b provider.Target) int { return cmp.Compare(a.Instance, b.Instance) })
	return nil
}

// checkBalancer checks the ID of a balancer, and the context.
func (c *Cloud) checkBalancer(ctx context.Context, op, balancer string) error {
	if nameOf(balancer) == "" {
		return invalid(op, balancer, "the balancer is %q, want the ARN of a load balancer", balancer)
	}
	return ended(ctx, op, balancer)
}

// DeleteBalancer implements provider.Balancers.
func (c *Cloud) DeleteBalancer(ctx context.Context, id string) error {
	const op = "DeleteBalancer"
	if err := c.checkBalancer(ctx, op, id); err != nil {
		return err
	}
	return c.fail(ctx, op, id, changes, c.deleteBalancer(ctx, id))
}

func (c *Cloud) deleteBalancer(ctx context.Context, id string) error {
	out, err := c.elb.DescribeListeners(ctx, &elb.DescribeListenersInput{LoadBalancerArn: aws.String(id)})
	if err != nil && !isGone(err) {
		return err
	}
	if err == nil {
		for _, l := range out.Listeners {
			if _, err := c.elb.DeleteListener(ctx, &elb.DeleteListenerInput{ListenerArn: l.ListenerArn}); err != nil && !isGone(err) {
				return err
			}
		}
	}
	group, err := c.groupNamed(ctx, nameOf(id))
	if err != nil && !isGone(err) {
		return err
	}
	if err == nil {
		// The group is in use for a moment after its listener has gone.
		err = until(ctx, func() (bool, error) {
			_, err := c.elb.DeleteTargetGroup(ctx, &elb.DeleteTargetGroupInput{TargetGroupArn: aws.String(group)})
			if codeOf(err) == "ResourceInUse" {
				return false, nil
			}
			return err == nil || isGone(err), err
		})
		if err != nil && !isGone(err) {
			return err
		}
	}
	c.mu.Lock()
	delete(c.groups, id)
	c.mu.Unlock()
	if _, err := c.elb.DeleteLoadBalancer(ctx, &elb.DeleteLoadBalancerInput{LoadBalancerArn: aws.String(id)}); err != nil && !isGone(err) {
		return err
	}
	return nil
}
