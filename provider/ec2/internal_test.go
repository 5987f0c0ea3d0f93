package ec2

import (
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	ec2types "github.com/aws/aws-sdk-go-v2/service/ec2/types"
	"github.com/aws/aws-sdk-go-v2/service/elasticloadbalancingv2/types"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/scalr-go/scalr/provider"
)

func TestKinds(t *testing.T) {
	for code, want := range map[string]error{
		"InsufficientInstanceCapacity": provider.ErrCapacity, "InsufficientFreeAddressesInSubnet": provider.ErrCapacity, "Unsupported": provider.ErrCapacity,
		"VcpuLimitExceeded": provider.ErrQuota, "AddressLimitExceeded": provider.ErrQuota, "VolumeLimitExceeded": provider.ErrQuota,
		"MaxSpotInstanceCountExceeded": provider.ErrQuota, "TooManyLoadBalancers": provider.ErrQuota,
		"RequestLimitExceeded": provider.ErrThrottled, "Throttling": provider.ErrThrottled, "TooManyRequestsException": provider.ErrThrottled,
		"AuthFailure": provider.ErrAuth, "InvalidClientTokenId": provider.ErrAuth, "ExpiredToken": provider.ErrAuth,
		"InvalidInstanceID.NotFound": provider.ErrNotFound, "LoadBalancerNotFound": provider.ErrNotFound, "InvalidAllocationID.NotFound": provider.ErrNotFound,
		"InvalidParameterValue": provider.ErrInvalid, "InvalidAMIID.Malformed": provider.ErrInvalid, "IdempotentParameterMismatch": provider.ErrInvalid,
		"VolumeInUse": provider.ErrInvalid, "MissingParameter": provider.ErrInvalid, "UnsupportedOperation": provider.ErrInvalid,
		"IncorrectInstanceState": nil, "InternalError": nil, "SomethingNew": nil, "": nil,
	} {
		require.Equal(t, want, kindOf(code), code)
	}
}

// A snapshot that EC2 gave up on never becomes ready, and says why.
func TestAFailedSnapshotSaysSo(t *testing.T) {
	for state, want := range map[ec2types.SnapshotState]provider.Snapshot{
		ec2types.SnapshotStatePending:   {},
		ec2types.SnapshotStateCompleted: {Ready: true},
		ec2types.SnapshotStateError:     {Failed: true, Reason: "Client.InternalError"},
	} {
		in := &ec2types.Snapshot{State: state}
		if want.Failed {
			in.StateMessage = aws.String("Client.InternalError")
		}
		got, _ := snapshot(in)
		got.Tags = nil
		require.Equal(t, want, got, string(state))
	}
}

// Two requests have one fingerprint if they are the same, and differ by a field that is named if not.
func TestFingerprint(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		word := rapid.SampledFrom([]string{"", "a", "b"})
		draw := func(name string) provider.Launch {
			return provider.Launch{Token: word.Draw(t, name), Name: word.Draw(t, name), Image: word.Draw(t, name), Size: word.Draw(t, name),
				Spot: rapid.Bool().Draw(t, name), Volumes: rapid.SliceOfN(word, 0, 2).Draw(t, name), UserData: provider.Secret(word.Draw(t, name)),
				Tags: rapid.MapOfN(word, word, 0, 2).Draw(t, name)}
		}
		a, b := draw("a"), draw("b")
		err := check("Launch", "x", labels{request: fingerprint(a)}, b)
		a.Token, a.UserData, b.Token, b.UserData = "", nil, "", nil
		if field := provider.Differs(a, b); field != "" {
			require.ErrorIs(t, err, provider.ErrInvalid)
			require.ErrorContains(t, err, field)
		} else {
			require.NoError(t, err)
		}
		require.LessOrEqual(t, len(fingerprint(a)), 256, "EC2's limit for a tag's value")
	})
}

// All fields of a launch together fit into a tag.
func TestFingerprintFits(t *testing.T) {
	l := provider.Launch{Name: "a", Image: "a", Size: "a", Placement: "a", Network: "a", SecurityGroups: []string{"a"}, KeyPair: "a", Spot: true,
		UserData: provider.Secret("a"), Volumes: []string{"a"}, Tags: map[string]string{"a": "a"}}
	require.LessOrEqual(t, len(fingerprint(l)), 256)
	require.NotContains(t, fingerprint(l), "UserData")
	b := provider.BalancerSpec{Name: "a", Protocol: "a", Port: 1, TargetPort: 1, HealthPath: "/", Drain: 1, Networks: []string{"a"}, Tags: l.Tags}
	require.LessOrEqual(t, len(fingerprint(b)), 256)
}

// Load balancers take tags of few characters; moto takes any.
func TestTagsOfABalancer(t *testing.T) {
	b := provider.BalancerSpec{Token: "a", Name: "shop web", Protocol: "http", Port: 80, TargetPort: 8080, HealthPath: "/health?all=1&x=~,;", Drain: time.Second,
		Networks: []string{"a"}, Tags: map[string]string{"scalr:farm": "shop"}}
	for _, tag := range append(mark("a", b.Name, b.Tags, b), [2]string{tagFront, frontOf(b).String()}) {
		require.Regexp(t, `^[\p{L}\p{Z}\p{N}_.:/=+\-@]{1,128}$`, tag[0])
		require.Regexp(t, `^[\p{L}\p{Z}\p{N}_.:/=+\-@]{0,255}$`, tag[1])
	}
	f, ok := readFront(frontOf(b).String())
	require.True(t, ok)
	require.Equal(t, frontOf(b), f)
	for _, bad := range []string{"", "80:80:1", "x:80:1:", "80:80:1:?"} {
		_, ok := readFront(bad)
		require.False(t, ok, bad)
	}
	require.NoError(t, check("CreateBalancer", "a", labels{request: strings.ReplaceAll(fingerprint(b), ":", ",")}, b))
}

// How ELBv2's states are seen; moto knows only healthy targets.
func TestTargets(t *testing.T) {
	for _, c := range []struct {
		state  types.TargetHealthStateEnum
		reason types.TargetHealthReasonEnum
		want   provider.TargetState
	}{
		{types.TargetHealthStateEnumHealthy, "", provider.TargetHealthy},
		{types.TargetHealthStateEnumInitial, types.TargetHealthReasonEnumInitialHealthChecking, provider.TargetInitial},
		{types.TargetHealthStateEnumUnhealthy, types.TargetHealthReasonEnumTimeout, provider.TargetUnhealthy},
		{types.TargetHealthStateEnumDraining, types.TargetHealthReasonEnumDeregistrationInProgress, provider.TargetDraining},
		{types.TargetHealthStateEnumUnused, types.TargetHealthReasonEnumInvalidState, provider.TargetUnhealthy},
		{types.TargetHealthStateEnumUnused, types.TargetHealthReasonEnumNotInUse, provider.TargetInitial},
		{types.TargetHealthStateEnumUnused, types.TargetHealthReasonEnumNotRegistered, ""},
		{types.TargetHealthStateEnumUnavailable, types.TargetHealthReasonEnumInternalError, provider.TargetUnhealthy},
	} {
		got, ok := target(types.TargetHealthDescription{Target: &types.TargetDescription{Id: aws.String("i-1")},
			TargetHealth: &types.TargetHealth{State: c.state, Reason: c.reason}})
		require.Equal(t, c.want != "", ok, c.state)
		require.Equal(t, c.want, got.State, "%s %s", c.state, c.reason)
		if got.State == provider.TargetUnhealthy {
			require.NotEmpty(t, got.Reason)
		}
	}
}

func TestFreeDevice(t *testing.T) {
	taken := map[string]bool{"/dev/xvda": true, "/dev/xvdf": true}
	require.Equal(t, "/dev/sdg", freeDevice(taken))
	n := 0
	for d := freeDevice(taken); d != ""; d = freeDevice(taken) {
		require.False(t, taken[d])
		taken[d] = true
		n++
	}
	require.Equal(t, 10+2*26, n)
}

func TestBalancerName(t *testing.T) {
	require.Regexp(t, `^scalr-[a-z2-7]{26}$`, balancerName("a"))
	require.NotEqual(t, balancerName("a"), balancerName("b"))
	require.Equal(t, "web", nameOf("arn:aws:elasticloadbalancing:eu-central-1:1:loadbalancer/net/web/0123"))
}
