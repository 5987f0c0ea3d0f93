package openstack_test

import (
	"context"
	"crypto/rand"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"github.com/gophercloud/gophercloud/v2/openstack/config/clouds"
	"github.com/stretchr/testify/require"

	"github.com/scalr-go/scalr/internal/faultproxy"
	"github.com/scalr-go/scalr/internal/testenv"
	"github.com/scalr-go/scalr/provider"
	"github.com/scalr-go/scalr/provider/openstack"
)

func TestWhatIsWrongIsNamed(t *testing.T) {
	testenv.OpenStack(t)
	_, err := openstack.New(t.Context(), openstack.Options{Cloud: "nowhere"})
	require.ErrorIs(t, err, provider.ErrInvalid)
	require.ErrorContains(t, err, `Cloud is "nowhere"`)

	_, err = openstack.New(t.Context(), openstack.Options{Cloud: "scalr", Region: "nowhere"})
	require.ErrorIs(t, err, provider.ErrInvalid)
	require.ErrorContains(t, err, `Region is "nowhere"`)

	auth, _, _, err := clouds.Parse(clouds.WithCloudName("scalr"))
	require.NoError(t, err)
	right := auth.Password
	auth.Password = "wrong-" + rand.Text()
	_, err = openstack.New(t.Context(), openstack.Options{Auth: &auth})
	require.ErrorIs(t, err, provider.ErrAuth)
	require.NotContains(t, fmt.Sprintf("%v %+v %#v", err, err, err), auth.Password)
	require.NotContains(t, fmt.Sprintf("%v %+v %#v", err, err, err), right)

	c := open(t, "scalr")
	launch := provider.Launch{Token: "t" + rand.Text(), Image: "debian", Size: "small", UserData: provider.Secret("#!/bin/sh")}
	for want, change := range map[string]func(*provider.Launch){
		`Image is "no-such-image", which does not exist`: func(l *provider.Launch) { l.Image = "no-such-image" },
		`Size is "no-such-size", want one of`:            func(l *provider.Launch) { l.Size = "no-such-size" },
		`Placement is "no-such-zone"`:                    func(l *provider.Launch) { l.Placement = "no-such-zone" },
		`Network is "no-such-network"`:                   func(l *provider.Launch) { l.Network = "no-such-network" },
		`KeyPair is "no-such-key"`:                       func(l *provider.Launch) { l.KeyPair = "no-such-key" },
		`SecurityGroups is ["no-such-group"]`:            func(l *provider.Launch) { l.SecurityGroups = []string{"no-such-group"} },
		"Spot is set":                                    func(l *provider.Launch) { l.Spot = true },
	} {
		l := launch
		change(&l)
		_, err := c.Launch(t.Context(), l)
		require.ErrorContains(t, err, want)
		require.True(t, isOneOf(err, provider.ErrInvalid, provider.ErrNotFound), "%v", err)
	}

	empty := open(t, "empty")
	_, err = empty.Launch(t.Context(), launch)
	require.ErrorIs(t, err, provider.ErrQuota)
	require.ErrorContains(t, err, "instances")
	_, err = empty.CreateVolume(t.Context(), provider.VolumeSpec{Token: launch.Token, SizeGB: 1})
	require.ErrorIs(t, err, provider.ErrQuota)
	require.ErrorContains(t, err, "volumes")
	_, err = empty.AllocateAddress(t.Context(), provider.AddressSpec{Token: launch.Token})
	require.ErrorIs(t, err, provider.ErrQuota)
	require.ErrorContains(t, err, "floatingip")
}

func isOneOf(err error, kinds ...error) bool {
	for _, k := range kinds {
		if e, ok := err.(*provider.Error); ok && e.Kind == k {
			return true
		}
	}
	return false
}

// TestAServerWithoutAPlaceIsNoCapacity asks for a size that no host has room for, and wants the server that fails for it to be
// deleted, so that the same launch can be made again.
func TestAServerWithoutAPlaceIsNoCapacity(t *testing.T) {
	testenv.OpenStack(t)
	c := open(t, "scalr")
	tags := map[string]string{"test": rand.Text()}
	l := provider.Launch{Token: "t" + rand.Text(), Image: "debian", Size: "huge", Tags: tags}
	for range 2 {
		_, err := c.Launch(t.Context(), l)
		require.ErrorIs(t, err, provider.ErrCapacity)
		require.ErrorContains(t, err, "No valid host")
		require.Eventually(t, func() bool {
			all, err := c.Instances(t.Context(), tags)
			return err == nil && len(all) == 0
		}, 2*time.Minute, 200*time.Millisecond)
	}
}

// TestAnAnswer503MayHaveMadeTheServer lets the creation take effect and answers 503, and wants the launch to find the server.
func TestAnAnswer503MayHaveMadeTheServer(t *testing.T) {
	testenv.OpenStack(t)
	var posts atomic.Int64
	unavailable := func(next faultproxy.Handler) faultproxy.Handler {
		return func(ctx context.Context, r faultproxy.Request) (faultproxy.Response, error) {
			reply, err := next(ctx, r)
			if r.Operation == "POST /v2.1/servers" && posts.Add(1) == 1 {
				reply.Status = 503
			}
			return reply, err
		}
	}
	p := faultproxy.New(t, faultproxy.Options{Targets: testenv.OpenStackServices(), Rewrite: true, Layers: []faultproxy.Layer{unavailable}})
	c := behind(t, p)
	tags := map[string]string{"test": rand.Text()}
	l := provider.Launch{Token: "t" + rand.Text(), Image: "debian", Size: "small", Tags: tags}
	i, err := c.Launch(t.Context(), l)
	require.NoError(t, err)
	defer func() { require.NoError(t, c.Terminate(context.WithoutCancel(t.Context()), i.ID)) }()
	again, err := c.Launch(t.Context(), l)
	require.NoError(t, err)
	require.Equal(t, i.ID, again.ID)
	require.EqualValues(t, 1, posts.Load())
	all, err := c.Instances(t.Context(), tags)
	require.NoError(t, err)
	require.Len(t, all, 1)
}
