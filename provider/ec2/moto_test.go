package ec2_test

import (
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	sdk "github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"
	elb "github.com/aws/aws-sdk-go-v2/service/elasticloadbalancingv2"
	"github.com/stretchr/testify/require"

	"github.com/scalr-go/scalr/internal/faultproxy"
	"github.com/scalr-go/scalr/internal/testenv"
	"github.com/scalr-go/scalr/provider"
	"github.com/scalr-go/scalr/provider/ec2"
)

// TestLaunchDetails looks with the SDK itself at what a launch asked for.
func TestLaunchDetails(t *testing.T) {
	a := testenv.Moto(t, testenv.MotoOptions{})
	ctx := t.Context()
	raw := sdk.NewFromConfig(*config(a.URL()))
	vpc, err := raw.CreateVpc(ctx, &sdk.CreateVpcInput{CidrBlock: aws.String("10.1.0.0/16")})
	require.NoError(t, err)
	subnet, err := raw.CreateSubnet(ctx, &sdk.CreateSubnetInput{VpcId: vpc.Vpc.VpcId, CidrBlock: aws.String("10.1.1.0/24"), AvailabilityZone: aws.String(region + "b")})
	require.NoError(t, err)
	group, err := raw.CreateSecurityGroup(ctx, &sdk.CreateSecurityGroupInput{VpcId: vpc.Vpc.VpcId, GroupName: aws.String("web"), Description: aws.String("web")})
	require.NoError(t, err)
	_, err = raw.CreateKeyPair(ctx, &sdk.CreateKeyPairInput{KeyName: aws.String("deploy")})
	require.NoError(t, err)

	cloud := newCloud(t, a.URL(), ec2.Options{ListLag: time.Second, Size: "t3.small", SecurityGroups: []string{"web"},
		Subnets: map[string]string{region + "b": aws.ToString(subnet.Subnet.SubnetId)}})
	l := provider.Launch{Token: "a", Name: "web-1", Image: testenv.MotoImage, KeyPair: "deploy", Spot: true, UserData: provider.Secret("one"),
		Tags: map[string]string{"scalr:farm": "shop"}}
	i, err := cloud.Launch(ctx, l)
	require.NoError(t, err)
	require.Equal(t, region+"b", i.Placement)
	require.True(t, i.Spot)
	out, err := raw.DescribeInstances(ctx, &sdk.DescribeInstancesInput{InstanceIds: []string{i.ID}})
	require.NoError(t, err)
	got := out.Reservations[0].Instances[0]
	require.Equal(t, subnet.Subnet.SubnetId, got.SubnetId)
	require.Equal(t, types.InstanceTypeT3Small, got.InstanceType)
	require.Equal(t, "deploy", aws.ToString(got.KeyName))
	require.Equal(t, types.HttpTokensStateRequired, got.MetadataOptions.HttpTokens)
	require.Len(t, got.SecurityGroups, 1)
	require.Equal(t, group.GroupId, got.SecurityGroups[0].GroupId)
	data, err := raw.DescribeInstanceAttribute(ctx, &sdk.DescribeInstanceAttributeInput{InstanceId: aws.String(i.ID), Attribute: types.InstanceAttributeNameUserData})
	require.NoError(t, err)
	require.Equal(t, "b25l", aws.ToString(data.UserData.Value))

	doomed, err := cloud.Doomed(ctx)
	require.NoError(t, err)
	require.Empty(t, doomed, "it is a spot machine that nobody takes back")

	l.UserData = provider.Secret("another secret")
	_, err = cloud.Launch(ctx, l)
	require.ErrorIs(t, err, provider.ErrInvalid)
	require.ErrorContains(t, err, "UserData")
	require.NotContains(t, err.Error(), "another secret")

	for field, change := range map[string]func(*provider.Launch){
		`Image is "ami-00000000000000000"`: func(l *provider.Launch) { l.Image = "ami-00000000000000000" },
		`SecurityGroups has "db"`:          func(l *provider.Launch) { l.SecurityGroups = []string{"db"} },
		`Network is "subnet-0"`:            func(l *provider.Launch) { l.Network = "subnet-0" },
		`Placement is "eu-central-1a"`:     func(l *provider.Launch) { l.Placement = region + "a" },
	} {
		l := l
		l.Token = "b"
		change(&l)
		_, err := cloud.Launch(ctx, l)
		require.ErrorContains(t, err, field)
	}

	// Volumes that are attached at once get names of their own.
	var ids []string
	for _, token := range []string{"v", "w", "x"} {
		v, err := cloud.CreateVolume(ctx, provider.VolumeSpec{Token: token, SizeGB: 1, Placement: i.Placement})
		require.NoError(t, err)
		ids = append(ids, v.ID)
	}
	var wg sync.WaitGroup
	for _, id := range ids {
		wg.Go(func() {
			if err := cloud.AttachVolume(ctx, id, i.ID); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	devices := map[string]bool{}
	volumes, err := cloud.Volumes(ctx, nil)
	require.NoError(t, err)
	for _, v := range volumes {
		if v.Instance == i.ID {
			devices[v.Device] = true
		}
	}
	require.Len(t, devices, 4, "with the root's")
}

// TestWrongCredentials asks a server that checks who asks.
func TestWrongCredentials(t *testing.T) {
	a := testenv.Moto(t, testenv.MotoOptions{Auth: true})
	cloud := newCloud(t, a.URL(), ec2.Options{})
	_, err := cloud.Instances(t.Context(), nil)
	require.ErrorIs(t, err, provider.ErrAuth)
	_, err = cloud.Launch(t.Context(), provider.Launch{Token: "a", Image: testenv.MotoImage})
	require.ErrorIs(t, err, provider.ErrAuth)
	require.ErrorContains(t, err, "AuthFailure")
	require.NotContains(t, err.Error(), "secret")
	_, err = cloud.Balancers(t.Context(), nil)
	require.ErrorIs(t, err, provider.ErrAuth)
	require.Equal(t, 3, a.Proxy.Count("", ""), "none of them was tried again")
}

// A balancer whose maker died at any of its parts is listed, and whole with its first target, whoever registers that.
func TestBalancerThatWasBrokenOff(t *testing.T) {
	a := testenv.Moto(t, testenv.MotoOptions{})
	ctx := t.Context()
	maker := newCloud(t, a.URL(), ec2.Options{})
	i, err := maker.Launch(ctx, provider.Launch{Token: "i", Image: testenv.MotoImage})
	require.NoError(t, err)
	for _, at := range []string{"CreateTargetGroup", "ModifyTargetGroupAttributes", "CreateListener"} {
		for _, spec := range []provider.BalancerSpec{
			{Token: "a" + at, Protocol: "http", Port: 80, TargetPort: 8080, HealthPath: "/health?all=1", Drain: 90 * time.Second, Name: "web", Tags: map[string]string{"for": at}},
			{Token: "b" + at, Protocol: "tcp", Port: 3306, Tags: map[string]string{"for": at}},
		} {
			dead := false // under the proxy's lock
			a.Proxy.SetFault(func(r faultproxy.Request) faultproxy.Fault {
				if dead = dead || r.Operation == at; dead {
					return faultproxy.Refuse
				}
				return faultproxy.Fault{}
			})
			_, err := maker.CreateBalancer(ctx, spec)
			require.Error(t, err)
			a.Proxy.SetFault(nil)
			cloud := newCloud(t, a.URL(), ec2.Options{})
			list, err := cloud.Balancers(ctx, spec.Tags)
			require.NoError(t, err)
			list = slices.DeleteFunc(list, func(b provider.Balancer) bool { return b.Port != spec.Port })
			require.Len(t, list, 1)
			b := list[0]
			require.True(t, b.Ready)
			require.Equal(t, spec.Name, b.Name)
			require.NoError(t, cloud.DeregisterTarget(ctx, b.ID, i.ID))
			require.NoError(t, cloud.RegisterTarget(ctx, b.ID, i.ID))
			list, err = cloud.Balancers(ctx, spec.Tags)
			require.NoError(t, err)
			list = slices.DeleteFunc(list, func(b provider.Balancer) bool { return b.Port != spec.Port })
			require.Equal(t, []provider.Target{{Instance: i.ID, State: provider.TargetHealthy}}, list[0].Targets)
			again, err := maker.CreateBalancer(ctx, spec)
			require.NoError(t, err)
			require.Equal(t, b.ID, again.ID)
			parts(t, a.URL(), b.ID, spec)
			require.NoError(t, cloud.DeleteBalancer(ctx, b.ID))
		}
	}
}

// parts looks with the SDK itself at what a balancer is made of.
func parts(t *testing.T, url, balancer string, spec provider.BalancerSpec) {
	t.Helper()
	raw := elb.NewFromConfig(*config(url))
	groups, err := raw.DescribeTargetGroups(t.Context(), &elb.DescribeTargetGroupsInput{LoadBalancerArn: aws.String(balancer)})
	require.NoError(t, err)
	require.Len(t, groups.TargetGroups, 1)
	g := groups.TargetGroups[0]
	target, drain, protocol := spec.TargetPort, "0", "TCP"
	if target == 0 {
		target = spec.Port
	}
	if spec.Protocol == "http" {
		drain, protocol = "90", "HTTP"
		require.Equal(t, spec.HealthPath, aws.ToString(g.HealthCheckPath))
	}
	require.EqualValues(t, target, aws.ToInt32(g.Port))
	require.EqualValues(t, protocol, g.Protocol)
	attributes, err := raw.DescribeTargetGroupAttributes(t.Context(), &elb.DescribeTargetGroupAttributesInput{TargetGroupArn: g.TargetGroupArn})
	require.NoError(t, err)
	shown := map[string]string{}
	for _, x := range attributes.Attributes {
		shown[aws.ToString(x.Key)] = aws.ToString(x.Value)
	}
	require.Equal(t, drain, shown["deregistration_delay.timeout_seconds"])
	listeners, err := raw.DescribeListeners(t.Context(), &elb.DescribeListenersInput{LoadBalancerArn: aws.String(balancer)})
	require.NoError(t, err)
	require.Len(t, listeners.Listeners, 1)
	require.EqualValues(t, spec.Port, aws.ToInt32(listeners.Listeners[0].Port))
	require.EqualValues(t, protocol, listeners.Listeners[0].Protocol)
	tags, err := raw.DescribeTags(t.Context(), &elb.DescribeTagsInput{ResourceArns: []string{balancer, aws.ToString(g.TargetGroupArn)}})
	require.NoError(t, err)
	require.Len(t, tags.TagDescriptions, 2)
	require.ElementsMatch(t, tags.TagDescriptions[0].Tags, tags.TagDescriptions[1].Tags)
}
