package openstack_test

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/scalr-go/scalr/dnsreg"
	"github.com/scalr-go/scalr/farm"
	"github.com/scalr-go/scalr/internal/faultproxy"
	"github.com/scalr-go/scalr/internal/testenv"
	"github.com/scalr-go/scalr/provider"
)

// hosts kills host programs: each at the first of its requests that changes the cloud, whose reply is lost, until there have
// been enough of them. It counts what was made.
type hosts struct {
	mu     sync.Mutex
	left   int
	kill   context.CancelCauseFunc
	killed int
	made   map[string]int
}

var errKilled = errors.New("the host program was killed")

func changing(r faultproxy.Request) bool { return r.Method != http.MethodGet && r.Target != "identity" }

func (h *hosts) fault(r faultproxy.Request) faultproxy.Fault {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.kill == nil || !changing(r) {
		return faultproxy.Fault{}
	}
	h.killed++
	h.kill(errKilled)
	h.kill = nil
	return faultproxy.Lose
}

// count is a layer that notes what has been made.
func (h *hosts) count(next faultproxy.Handler) faultproxy.Handler {
	return func(ctx context.Context, r faultproxy.Request) (faultproxy.Response, error) {
		reply, err := next(ctx, r)
		path, _, _ := strings.Cut(r.Path, "?")
		if last := path[strings.LastIndexByte(path, '/')+1:]; changing(r) && r.Method == http.MethodPost && reply.Status < 300 {
			var body struct {
				Server struct{ Metadata map[string]string }
			}
			if last == "servers" && json.Unmarshal(r.Body, &body) == nil {
				last = body.Server.Metadata["scalr:size"] + " " + last
			}
			h.mu.Lock()
			h.made[last]++
			h.mu.Unlock()
		}
		return reply, err
	}
}

// next is a new host program, if there shall be another one.
func (h *hosts) next(ctx context.Context) (context.Context, bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.left == 0 {
		return ctx, false
	}
	h.left--
	ctx, h.kill = context.WithCancelCause(ctx)
	return ctx, true
}

// TestFarmWhoseHostsAreKilledAtEveryChange lets a program run a farm until the first change that it makes: that takes effect,
// its reply is lost, and the program is killed. The next one starts from what the cloud shows. In the end there must be what
// the spec says, made once; and nothing after the farm's end, which is interrupted likewise.
func TestFarmWhoseHostsAreKilledAtEveryChange(t *testing.T) {
	testenv.OpenStack(t)
	h := &hosts{made: map[string]int{}}
	p := faultproxy.New(t, faultproxy.Options{Targets: testenv.OpenStackServices(), Rewrite: true, Layers: []faultproxy.Layer{h.count}})
	p.SetFault(h.fault)
	cloud := behind(t, p)
	spec := farm.Spec{Name: "crash-" + strings.ToLower(rand.Text()[:8]), Zone: "shop.example.", TTL: time.Second, Roles: []farm.Role{
		{Name: "www", Serves: farm.Web, Image: "debian", Size: "small", Min: 1, Max: 1, Address: true, Balancer: &farm.Balancer{Protocol: "http", Port: 80}},
		{Name: "app", Image: "debian", Size: "huge", Fallback: []string{"small"}, Min: 1, Max: 1, Volume: &farm.Volume{SizeGB: 1}},
	}}
	config := farm.Config{Pools: []farm.Pool{{Name: "a", Provider: cloud, Placement: "alpha"}}, DNS: &dnsreg.Memory{Zones: []string{"shop.example."}},
		ListLag: time.Second, Backoff: time.Minute, Parallel: 1, CallTimeout: 2 * time.Minute}
	tags := map[string]string{farm.TagFarm: spec.Name}
	start := func() *farm.Farm {
		f, err := farm.New(spec, config)
		require.NoError(t, err)
		return f
	}

	h.left = 12
	f := start()
	require.NoError(t, settle(t, h, &f, start, func(ctx context.Context, f *farm.Farm) (bool, string) {
		plan, err := f.Reconcile(ctx)
		return err == nil && plan.Empty() && len(plan.Waits) == 0, fmt.Sprintf("%v\n%s", err, plan)
	}))
	t.Logf("killed %d hosts; made %v", h.killed, h.made)
	require.GreaterOrEqual(t, h.killed, 7)
	require.Positive(t, h.made["huge servers"], "each host that starts asks anew for what no host has room for")
	delete(h.made, "huge servers")
	require.Equal(t, map[string]int{"small servers": 2, "volumes": 1, "floatingips": 1, "loadbalancers": 1, "pools": 1,
		"healthmonitors": 1, "listeners": 1, "members": 1}, h.made, "each thing is made once")

	instances, err := cloud.Instances(t.Context(), tags)
	require.NoError(t, err)
	require.Len(t, instances, 2)
	at := map[string]provider.Instance{}
	for _, i := range instances {
		require.Equal(t, provider.Running, i.State)
		at[i.Tags[farm.TagRole]] = i
	}
	volumes, err := cloud.Volumes(t.Context(), tags)
	require.NoError(t, err)
	require.Len(t, volumes, 1)
	require.Equal(t, at["app"].ID, volumes[0].Instance)
	addresses, err := cloud.Addresses(t.Context(), tags)
	require.NoError(t, err)
	require.Len(t, addresses, 1)
	require.Equal(t, at["www"].ID, addresses[0].Instance)

	// The machines end: their successors have the volume and the address.
	for _, i := range instances {
		require.NoError(t, cloud.Terminate(t.Context(), i.ID))
	}
	config.MissingAfter = time.Second
	f = start()
	require.NoError(t, settle(t, h, &f, start, func(ctx context.Context, f *farm.Farm) (bool, string) {
		plan, err := f.Reconcile(ctx)
		v, _ := cloud.Volumes(ctx, tags)
		a, _ := cloud.Addresses(ctx, tags)
		ok := err == nil && plan.Empty() && len(plan.Waits) == 0 && len(v) == 1 && len(a) == 1 && v[0].ID == volumes[0].ID && a[0].ID == addresses[0].ID &&
			v[0].Instance != "" && v[0].Instance != volumes[0].Instance && a[0].Instance != "" && a[0].Instance != addresses[0].Instance
		return ok, fmt.Sprintf("%v\n%s\n%+v %+v", err, plan, v, a)
	}))

	h.left = 4
	require.NoError(t, settle(t, h, &f, start, func(ctx context.Context, f *farm.Farm) (bool, string) {
		err := f.Terminate(ctx, farm.TerminateOptions{DeleteVolumes: true})
		return err == nil, fmt.Sprint(err)
	}))
	instances, err = cloud.Instances(t.Context(), tags)
	require.NoError(t, err)
	volumes, err = cloud.Volumes(t.Context(), tags)
	require.NoError(t, err)
	addresses, err = cloud.Addresses(t.Context(), tags)
	require.NoError(t, err)
	balancers, err := cloud.Balancers(t.Context(), tags)
	require.NoError(t, err)
	instances = slices.DeleteFunc(instances, func(i provider.Instance) bool { return i.State.Gone() }) // that is listed for a while
	require.Equal(t, "[] [] [] []", fmt.Sprint(instances, volumes, addresses, balancers))
}

// settle makes passes until one is content, each host program after the other.
func settle(t *testing.T, h *hosts, f **farm.Farm, start func() *farm.Farm, pass func(context.Context, *farm.Farm) (bool, string)) error {
	saw := ""
	end := time.Now().Add(8 * time.Minute)
	ctx, mortal := h.next(t.Context())
	for quiet := 0; quiet < 2; {
		if time.Now().After(end) {
			return fmt.Errorf("no rest: %s", saw)
		}
		ok := false
		ok, saw = pass(ctx, *f)
		if quiet++; !ok {
			quiet = 0
		}
		if mortal && ctx.Err() != nil {
			*f, quiet = start(), 0
			ctx, mortal = h.next(t.Context())
		}
		select {
		case <-time.After(time.Second):
		case <-t.Context().Done():
			return t.Context().Err()
		}
	}
	return nil
}
