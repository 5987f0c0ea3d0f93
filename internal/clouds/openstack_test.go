package clouds

import (
	"bytes"
	"context"
	"crypto/rand"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gophercloud/gophercloud/v2/openstack/config/clouds"
	"github.com/stretchr/testify/require"

	"github.com/scalr-go/scalr/farm"
	"github.com/scalr-go/scalr/internal/faultproxy"
	"github.com/scalr-go/scalr/internal/testenv"
	"github.com/scalr-go/scalr/provider"
	"github.com/scalr-go/scalr/provider/openstack"
)

// onOpenStack is the real OpenStack behind a proxy at which hosts are killed.
func onOpenStack(t *testing.T, h *hosts) subject {
	p := faultproxy.New(t, faultproxy.Options{Targets: testenv.OpenStackServices(), Rewrite: true,
		Layers: []faultproxy.Layer{h.layer, signedIn(), healthy}})
	p.SetFault(h.fault)
	auth, _, _, err := clouds.Parse(clouds.WithCloudName("scalr"))
	require.NoError(t, err)
	auth.IdentityEndpoint = p.URL("identity") + "/v3"
	return subject{
		proxy: p,
		cloud: func() provider.Provider {
			c, err := openstack.New(t.Context(), openstack.Options{Auth: &auth, Network: "private"})
			require.NoError(t, err)
			return c
		},
		config: func(p provider.Provider) farm.Config { return slow(onStack("here", "alpha", p)) },
	}
}

// signedIn gives all processes one token: of a new one each service asks Keystone first, which takes longer than all that the
// process does with it.
func signedIn() faultproxy.Layer {
	var mu sync.Mutex
	var reply *faultproxy.Response
	return func(next faultproxy.Handler) faultproxy.Handler {
		return func(ctx context.Context, r faultproxy.Request) (faultproxy.Response, error) {
			if r.Operation != "POST /v3/auth/tokens" {
				return next(ctx, r)
			}
			mu.Lock()
			defer mu.Unlock()
			if reply == nil {
				first, err := next(ctx, r)
				if err != nil || first.Status >= 300 {
					return first, err
				}
				reply = &first
			}
			return *reply, nil
		}
	}
}

// healthy lets a balancer's members answer their health checks: nothing boots there, and nobody checks.
func healthy(next faultproxy.Handler) faultproxy.Handler {
	return func(ctx context.Context, r faultproxy.Request) (faultproxy.Response, error) {
		reply, err := next(ctx, r)
		if r.Target == "balancer" {
			for _, is := range []string{"OFFLINE", "NO_MONITOR"} {
				reply.Body = bytes.ReplaceAll(reply.Body, []byte(`"operating_status": "`+is+`"`), []byte(`"operating_status": "ONLINE"`))
			}
		}
		return reply, err
	}
}

// slow is quick, one call after another, and each may take longer.
func slow(pools ...farm.Pool) farm.Config {
	c := quick(pools...)
	c.Parallel, c.CallTimeout = 1, 2*time.Minute
	return c
}

// own is a name of the test's own: the cloud is one for all tests, and keeps what a test has left that failed.
func own(name string) string { return name + "-" + strings.ToLower(rand.Text()[:8]) }

// onStack is a pool of it.
func onStack(name, placement string, p provider.Provider) farm.Pool {
	return farm.Pool{Name: name, Provider: p, Placement: placement, Images: map[string]string{"web": "debian", "app": "debian"}}
}

// TestHostsKilledAtEveryChangeOnOpenStack builds a farm, updates it, makes a twin of it and ends both, by programs that are killed at
// each of their changes, after its effect: there is what the specs say, and each thing is made once; in the end there is nothing.
func TestHostsKilledAtEveryChangeOnOpenStack(t *testing.T) {
	testenv.OpenStack(t)
	h := &hosts{}
	s := onOpenStack(t, h)
	cloud := s.cloud()
	config := func() farm.Config { return s.config(s.cloud()) }
	zone := config().DNS
	// become runs a farm of the spec to rest under hosts that are killed.
	become := func(spec farm.Spec) (killed int, made map[string]int) {
		t.Helper()
		killed, made = h.work(t, func(ctx context.Context) error {
			config := config()
			config.DNS = zone
			f, err := farm.New(spec, config)
			require.NoError(t, err)
			return rest(ctx, f)
		})
		require.NoError(t, look(t, cloud, spec.Name).settled(spec))
		return killed, made
	}
	end := func(spec farm.Spec) {
		t.Helper()
		killed, made := h.work(t, func(ctx context.Context) error {
			f, err := farm.New(spec, config())
			require.NoError(t, err)
			ctx, cancel := context.WithTimeout(ctx, patience)
			defer cancel()
			return f.Terminate(ctx, farm.TerminateOptions{DeleteVolumes: true})
		})
		require.GreaterOrEqual(t, killed, 4)
		require.Empty(t, made)
		require.True(t, look(t, cloud, spec.Name).empty(), "left over: %+v", look(t, cloud, spec.Name))
	}
	each := map[string]int{"small servers": 2, "volumes": 1, "floatingips": 1, "loadbalancers": 1, "pools": 1, "healthmonitors": 1,
		"listeners": 1, "members": 1}

	shop := some(own("crash"), 2)
	shop.Roles[1].Min, shop.Roles[1].Max = 1, 1
	shop.Roles[0].Size, shop.Roles[1].Size = "small", "small"
	killed, made := become(shop)
	require.GreaterOrEqual(t, killed, len(each))
	require.Equal(t, each, made, "each thing is made once")
	before := look(t, cloud, shop.Name)

	shop = update(t, shop)
	killed, made = become(shop)
	require.GreaterOrEqual(t, killed, 6)
	require.Equal(t, map[string]int{"small servers": 2, "members": 1}, made)
	after := look(t, cloud, shop.Name)
	updated(t, before, after, holding{})

	// The machines end, and a host has no room for one's successor: it is of another size. Both have the things of their indexes.
	for i := range shop.Roles {
		shop.Roles[i].Update = nil
	}
	shop.Roles[1].Size, shop.Roles[1].Fallback = "huge", []string{"small"}
	for _, ids := range after.Instances {
		require.NoError(t, cloud.Terminate(t.Context(), ids[0]))
	}
	f, err := farm.New(shop, config())
	require.NoError(t, err)
	h.made = map[string]int{}
	require.NoError(t, rest(t.Context(), f))
	require.Positive(t, h.made["huge servers"])
	before = look(t, cloud, shop.Name)
	updated(t, after, before, holding{})

	twin, warnings, err := shop.Clone(own("twin"), farm.CloneOptions{Zone: "qa.shop.example.",
		Roles: map[string]farm.CloneRole{"app": {Size: "small"}}})
	require.NoError(t, err)
	require.Empty(t, warnings)
	_, made = become(twin)
	require.Equal(t, each, made)
	end(twin)
	now := look(t, cloud, shop.Name)
	before.ended, now.ended = nil, nil // those are listed for a while only
	require.Equal(t, before, now, "the parent has what it had")
	end(shop)
}

// TestHostsKilledAtEveryChangeOfAMoveToOpenStack moves a farm from EC2 to OpenStack by programs that are killed at each of their
// changes, after its effect: what is there is made once, and here is nothing any more.
func TestHostsKilledAtEveryChangeOfAMoveToOpenStack(t *testing.T) {
	testenv.OpenStack(t)
	h := &hosts{}
	a := testenv.Moto(t, testenv.MotoOptions{Layers: []faultproxy.Layer{h.layer}})
	a.Proxy.SetFault(h.fault)
	amazon, stack := onEC2(t, a), onOpenStack(t, h)
	zone := quick().DNS
	start := func(spec farm.Spec) (f *farm.Farm, here, there provider.Provider) {
		here, there = amazon.cloud(), stack.cloud()
		pool := amazon.config(here).Pools[0]
		pool.Name = "here"
		config := slow(pool, onStack("there", "beta", there))
		config.DNS = zone
		f, err := farm.New(spec, config)
		require.NoError(t, err)
		return f, here, there
	}
	spec := some(own("crash"), 1)
	spec.Roles[0].Size = "small"
	f, here, there := start(spec)
	require.NoError(t, rest(t.Context(), f))
	require.NoError(t, look(t, here, spec.Name).settled(spec))
	require.True(t, look(t, there, spec.Name).empty())

	spec = move(t, spec)
	killed, made := h.work(t, func(ctx context.Context) error {
		f, here, there = start(spec)
		for {
			switch err := rest(ctx, f); {
			case err != nil:
				return err
			case look(t, here, spec.Name).empty():
				return nil
			case ctx.Err() != nil:
				return fmt.Errorf("still here: %w", context.Cause(ctx))
			}
		}
	})
	require.GreaterOrEqual(t, killed, 12)
	require.Equal(t, map[string]int{"small servers": 1, "floatingips": 1, "loadbalancers": 1, "pools": 1, "healthmonitors": 1,
		"listeners": 1, "members": 1}, made)
	moved(t, holding{}, look(t, here, spec.Name), look(t, there, spec.Name))

	end, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	require.NoError(t, f.Terminate(end, farm.TerminateOptions{}))
	require.True(t, look(t, there, spec.Name).empty(), "left over: %+v", look(t, there, spec.Name))
}

// TestTwinOfNowByKilledHostsOnOpenStack copies the volume of a database's only server.
func TestTwinOfNowByKilledHostsOnOpenStack(t *testing.T) {
	testenv.OpenStack(t)
	h := &hosts{}
	s := onOpenStack(t, h)
	twinOfNow(t, h, 1, [2]string{own("crash"), own("twin")}, s.cloud, s.config, "snapshots")
}
