package ec2

import (
	"cmp"
	"context"
	"encoding/base64"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	elb "github.com/aws/aws-sdk-go-v2/service/elasticloadbalancingv2"
	"github.com/aws/aws-sdk-go-v2/service/elasticloadbalancingv2/types"

	"github.com/scalr-go/scalr/provider"
)

// front is what a load balancer's target group and listener are made from. Whether they speak HTTP its type says.
type front struct {
	port, target, drain int // drain in seconds
	health              string
}

func frontOf(s provider.BalancerSpec) front {
	return front{s.Port, cmp.Or(s.TargetPort, s.Port), int((s.Drain + time.Second - 1) / time.Second), s.HealthPath}
}

// String gives it as a tag: "80:8080:30:L2hlYWx0aA".
func (f front) String() string {
	return fmt.Sprintf("%d:%d:%d:%s", f.port, f.target, f.drain, base64.RawURLEncoding.EncodeToString([]byte(f.health)))
}

// readFront reads a tag; not ok if it is none.
func readFront(tag string) (f front, ok bool) {
	parts := strings.Split(tag, ":")
	if len(parts) != 4 {
		return f, false
	}
	health, err := base64.RawURLEncoding.DecodeString(parts[3])
	f.health = string(health)
	for i, n := range []*int{&f.port, &f.target, &f.drain} {
		if err == nil {
			*n, err = strconv.Atoi(parts[i])
		}
	}
	return f, err == nil
}

// join makes the target group and the listener of a load balancer, or finds them.
func (c *Cloud) join(ctx context.Context, b *types.LoadBalancer, f front, tags [][2]string) (group string, err error) {
	if group, err = c.targetGroup(ctx, b, f, tagged(tags)); err != nil {
		return "", err
	}
	_, err = c.elb.ModifyTargetGroupAttributes(ctx, &elb.ModifyTargetGroupAttributesInput{TargetGroupArn: aws.String(group),
		Attributes: []types.TargetGroupAttribute{{Key: aws.String("deregistration_delay.timeout_seconds"), Value: aws.String(strconv.Itoa(f.drain))}}})
	if err != nil {
		return "", err
	}
	protocol := types.ProtocolEnumTcp
	if b.Type == types.LoadBalancerTypeEnumApplication {
		protocol = types.ProtocolEnumHttp
	}
	_, err = c.elb.CreateListener(ctx, &elb.CreateListenerInput{LoadBalancerArn: b.LoadBalancerArn, Port: aws.Int32(int32(f.port)), Protocol: protocol,
		DefaultActions: []types.Action{{Type: types.ActionTypeEnumForward, TargetGroupArn: aws.String(group)}}})
	if err != nil && codeOf(err) != "DuplicateListener" {
		return "", err
	}
	return group, nil
}

// targetGroup makes the target group, or finds it.
func (c *Cloud) targetGroup(ctx context.Context, b *types.LoadBalancer, f front, tags []types.Tag) (string, error) {
	name := aws.ToString(b.LoadBalancerName)
	in := &elb.CreateTargetGroupInput{Name: aws.String(name), VpcId: b.VpcId, TargetType: types.TargetTypeEnumInstance, Port: aws.Int32(int32(f.target)),
		Protocol: types.ProtocolEnumTcp, HealthCheckProtocol: types.ProtocolEnumTcp, Tags: tags}
	if b.Type == types.LoadBalancerTypeEnumApplication {
		// An answer to a path below 500 is the nearest to a port that accepts a connection.
		in.Protocol, in.HealthCheckProtocol, in.HealthCheckPath = types.ProtocolEnumHttp, types.ProtocolEnumHttp, aws.String("/")
		in.Matcher = &types.Matcher{HttpCode: aws.String("200-499")}
	}
	if f.health != "" {
		in.HealthCheckProtocol, in.HealthCheckPath = types.ProtocolEnumHttp, aws.String(f.health)
		in.Matcher = &types.Matcher{HttpCode: aws.String("200-399")}
	}
	out, err := c.elb.CreateTargetGroup(ctx, in)
	if err == nil && len(out.TargetGroups) == 1 {
		return aws.ToString(out.TargetGroups[0].TargetGroupArn), nil
	}
	if err != nil && codeOf(err) != "DuplicateTargetGroupName" {
		return "", err
	}
	return c.groupNamed(ctx, name)
}

// groupNamed finds a target group by its name; the error is the API's own if there is none.
func (c *Cloud) groupNamed(ctx context.Context, name string) (string, error) {
	out, err := c.elb.DescribeTargetGroups(ctx, &elb.DescribeTargetGroupsInput{Names: []string{name}})
	if err != nil {
		return "", err
	}
	if len(out.TargetGroups) == 0 {
		return "", &types.TargetGroupNotFoundException{Message: aws.String("there is no target group named " + name)}
	}
	return aws.ToString(out.TargetGroups[0].TargetGroupArn), nil
}

// groupOf is the target group that the listener of a balancer leads to; "" if there is none.
func (c *Cloud) groupOf(ctx context.Context, balancer string) (string, error) {
	c.mu.Lock()
	group := c.groups[balancer]
	c.mu.Unlock()
	if group != "" {
		return group, nil
	}
	out, err := c.elb.DescribeListeners(ctx, &elb.DescribeListenersInput{LoadBalancerArn: aws.String(balancer)})
	if err != nil {
		return "", err
	}
	for _, l := range out.Listeners {
		for _, a := range l.DefaultActions {
			group = cmp.Or(group, aws.ToString(a.TargetGroupArn))
		}
	}
	c.keepGroup(balancer, group)
	return group, nil
}

func (c *Cloud) keepGroup(balancer, group string) {
	if group == "" {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.groups[balancer] = group
}

// whole gives the target group of a balancer, and makes what that lacks.
func (c *Cloud) whole(ctx context.Context, balancer string) (string, error) {
	group, err := c.groupOf(ctx, balancer)
	if err != nil || group != "" {
		return group, err
	}
	out, err := c.elb.DescribeLoadBalancers(ctx, &elb.DescribeLoadBalancersInput{LoadBalancerArns: []string{balancer}})
	if err != nil {
		return "", err
	}
	marks, err := c.balancerTags(ctx, []string{balancer})
	if err != nil {
		return "", err
	}
	l := marks[balancer]
	f, ok := readFront(l.front)
	if len(out.LoadBalancers) != 1 || !ok {
		return "", provider.Errorf("RegisterTarget", balancer, nil, "the balancer has no listener, and no tag %s to make it from", tagFront)
	}
	var tags [][2]string
	for _, t := range [][2]string{{TagToken, l.token}, {TagRequest, l.request}, {tagFront, l.front}, {tagName, l.name}} {
		if t[1] != "" {
			tags = append(tags, t)
		}
	}
	for _, k := range slices.Sorted(maps.Keys(l.tags)) {
		tags = append(tags, [2]string{k, l.tags[k]})
	}
	if group, err = c.join(ctx, &out.LoadBalancers[0], f, tags); err == nil {
		c.keepGroup(balancer, group)
	}
	return group, err
}

// RegisterTarget implements provider.Balancers. It completes a balancer whose making was broken off.
func (c *Cloud) RegisterTarget(ctx context.Context, balancer, instance string) error {
	const op = "RegisterTarget"
	if err := c.checkBalancer(ctx, op, balancer); err != nil {
		return err
	}
	group, err := c.whole(ctx, balancer)
	if err == nil {
		_, err = c.elb.RegisterTargets(ctx, &elb.RegisterTargetsInput{TargetGroupArn: aws.String(group), Targets: []types.TargetDescription{{Id: aws.String(instance)}}})
	}
	switch {
	case codeOf(err) == "InvalidTarget":
		i, why := c.usable(ctx, op, balancer, instance)
		if why != nil {
			return why
		}
		if s := state(i); s != provider.Running {
			return provider.Errorf(op, balancer, nil, "instance %s is %s, want it running", instance, s)
		}
	case isGone(err):
		return provider.Errorf(op, balancer, provider.ErrNotFound, "the balancer does not exist")
	}
	return c.fail(ctx, op, balancer, changes, err)
}

// DeregisterTarget implements provider.Balancers.
func (c *Cloud) DeregisterTarget(ctx context.Context, balancer, instance string) error {
	const op = "DeregisterTarget"
	if err := c.checkBalancer(ctx, op, balancer); err != nil {
		return err
	}
	group, err := c.groupOf(ctx, balancer)
	if err == nil && group != "" {
		_, err = c.elb.DeregisterTargets(ctx, &elb.DeregisterTargetsInput{TargetGroupArn: aws.String(group), Targets: []types.TargetDescription{{Id: aws.String(instance)}}})
	}
	if codeOf(err) == "InvalidTarget" || isGone(err) {
		return nil // it is not there
	}
	return c.fail(ctx, op, balancer, changes, err)
}

// target is how a target is seen; not ok if it is none any more.
func target(h types.TargetHealthDescription) (provider.Target, bool) {
	if h.Target == nil || h.TargetHealth == nil {
		return provider.Target{}, false
	}
	t := provider.Target{Instance: aws.ToString(h.Target.Id), State: provider.TargetUnhealthy, Reason: aws.ToString(h.TargetHealth.Description)}
	if t.Reason == "" {
		t.Reason = string(h.TargetHealth.Reason)
	}
	switch h.TargetHealth.State {
	case types.TargetHealthStateEnumHealthy:
		t.State, t.Reason = provider.TargetHealthy, ""
	case types.TargetHealthStateEnumInitial:
		t.State = provider.TargetInitial
	case types.TargetHealthStateEnumDraining:
		t.State = provider.TargetDraining
	case types.TargetHealthStateEnumUnused:
		switch h.TargetHealth.Reason {
		case types.TargetHealthReasonEnumNotRegistered:
			return provider.Target{}, false
		case types.TargetHealthReasonEnumNotInUse:
			t.State = provider.TargetInitial // the listener has not taken the group up yet
		}
	}
	return t, true
}
