package farm

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/scalr-go/scalr/farm/scale"
	"github.com/scalr-go/scalr/provider"
	"github.com/scalr-go/scalr/provider/memcloud"
)

// dial is a metric that a test sets, and a policy that wants just that many machines.
func dial(spec *Spec, config *Config) *int {
	want := new(int)
	*want = spec.Roles[0].Min
	spec.Roles[0].Scale = &Scale{Custom: "dial"}
	config.Policies = map[string]scale.Policy{"dial": scale.Func(func(scale.Input) scale.Decision {
		return scale.Decision{Desired: *want, Raw: *want, Reason: "the test says so"}
	})}
	return want
}

// turns makes passes until done, or for most of them.
func turns(t require.TestingT, f *Farm, most int, done func() bool) {
	for range most {
		_, _ = f.Reconcile(context.Background())
		if done() {
			return
		}
		time.Sleep(2 * time.Second)
	}
	p, err := f.Plan(context.Background())
	require.Failf(t, "it has not come to that", "after %d passes: %v\n%s", most, err, p)
}

// Of machines that fail one after another a few are replaced at a time.
func TestReplaceIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cloud := testCloud(memcloud.Options{BootTime: 30 * time.Second})
		spec, config := web(10, 10), testConfig(cloud, testZone())
		spec.Roles[0].Health = &Health{Custom: "check"}
		spec.Roles[0].Replace = 2
		ill := map[string]bool{}
		config.Checks = map[string]func(context.Context, Server) error{"check": func(_ context.Context, s Server) error {
			if ill[s.ID] {
				return errors.New("out of memory")
			}
			return nil
		}}
		f, err := New(spec, config)
		require.NoError(t, err)
		require.NoError(t, passes(t.Context(), f, 100, 2))
		for _, s := range f.Servers("www")[:4] {
			ill[s.ID] = true
		}
		lowest, told := 10, false
		turns(t, f, 200, func() bool {
			p, _ := f.Plan(t.Context())
			running := 0
			for _, s := range f.Servers("www") {
				if s.State == provider.Running {
					running++
				}
			}
			lowest = min(lowest, running)
			told = told || strings.Contains(p.String(), "2 failed machines are being replaced, and at most 2 are at once")
			return p.Empty() && len(p.Waits) == 0 && !slices.ContainsFunc(world(cloud), func(id string) bool { return ill[id] })
		})
		require.Equal(t, 8, lowest)
		require.True(t, told)
	})
}

// regional refuses spot machines, and counts what is waited for.
type regional struct {
	*memcloud.Cloud
	noSpot bool
	waits  int
}

func (r *regional) Launch(ctx context.Context, l provider.Launch) (provider.Instance, error) {
	if r.noSpot && l.Spot {
		return provider.Instance{}, fmt.Errorf("no spot capacity: %w", provider.ErrCapacity)
	}
	return r.Cloud.Launch(ctx, l)
}

func (r *regional) Wait(context.Context) error {
	r.waits++
	return nil
}

// Where no pool has spot machines of any size, others are taken if the role says so; later ones are spot machines again.
func TestOnDemandInsteadOfSpot(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cloud := &regional{Cloud: testCloud(memcloud.Options{}), noSpot: true}
		spec, config := web(1, 3), testConfig(cloud, testZone())
		spec.Roles[0].Spot = true
		spec.Roles[0].Fallback = []string{"small"}
		want := dial(&spec, &config)
		f, err := New(spec, config)
		require.NoError(t, err)
		for range 10 {
			_, _ = f.Reconcile(t.Context())
			time.Sleep(2 * time.Second)
		}
		require.Empty(t, world(cloud.Cloud), "spot or nothing")

		spec.Roles[0].OnDemand = true
		f, err = New(spec, config)
		require.NoError(t, err)
		turns(t, f, 20, func() bool { return len(world(cloud.Cloud)) == 1 })
		require.False(t, cloud.World(map[string]string{TagFarm: "shop"}).Instances[0].Spot)
		cloud.noSpot = false
		*want = 3
		time.Sleep(time.Hour)
		require.NoError(t, passes(t.Context(), f, 50, 2))
		spot := 0
		for _, in := range cloud.World(map[string]string{TagFarm: "shop"}).Instances {
			if in.Spot {
				spot++
			}
		}
		require.Equal(t, 2, spot)
	})
}

// A machine that its cloud takes back has a successor before it goes, in another slot.
func TestDoomedMachineHasASuccessor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cloud := testCloud(memcloud.Options{BootTime: 20 * time.Second})
		spec, config := web(2, 3), testConfig(cloud, testZone())
		spec.Roles[0].Drain = 4 * time.Second
		doomed := map[string]string{}
		config.Doomed = func(context.Context) (map[string]string, error) { return doomed, nil }
		events := record(&config)
		f, err := New(spec, config)
		require.NoError(t, err)
		require.NoError(t, passes(t.Context(), f, 100, 2))
		going := f.Servers("www")[0].ID
		doomed[going] = "spot reclaim in 2 min"
		turns(t, f, 50, func() bool {
			require.Len(t, values(t, config, spec.Zone, "www.shop.example.", "A"), 2, "two serve at any time")
			return !slices.Contains(world(cloud), going)
		})
		require.NoError(t, passes(t.Context(), f, 100, 2))
		require.Len(t, world(cloud), 2)
		require.Contains(t, events.text(), "its cloud takes it back: spot reclaim in 2 min: a successor is launched")
	})
}

// A role that is to be spread is so after whatever has happened to its pools, never leaves its bounds, and comes to rest.
func TestSpread(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		rapid.SyncTest(rt, func(rt *rapid.T) {
			cloud := testCloud(memcloud.Options{BootTime: 10 * time.Second})
			spec, config := web(1, 8), testConfig(cloud, testZone())
			spec.Roles[0].Spread, spec.Roles[0].Drain = true, 2*time.Second
			want := dial(&spec, &config)
			f, err := New(spec, config)
			require.NoError(rt, err)
			for range rapid.IntRange(1, 3).Draw(rt, "rounds") {
				for _, pool := range []string{"a", "b"} {
					cloud.SetCapacity(pool, "", rapid.SampledFrom([]int{-1, -1, 0, 2}).Draw(rt, "capacity of "+pool))
				}
				*want = rapid.IntRange(1, 8).Draw(rt, "machines")
				for range 25 {
					_, _ = f.Reconcile(rt.Context())
					n := len(world(cloud))
					require.LessOrEqual(rt, n, 8)
					time.Sleep(2 * time.Second)
				}
			}
			cloud.SetCapacity("a", "", -1)
			cloud.SetCapacity("b", "", -1)
			time.Sleep(time.Hour) // the back-offs end
			require.NoError(rt, passes(rt.Context(), f, 300, 5))
			in := map[string]int{}
			for _, s := range f.Servers("www") {
				in[s.Pool]++
			}
			require.Equal(rt, *want, in["a"]+in["b"])
			require.LessOrEqual(rt, max(in["a"], in["b"])-min(in["a"], in["b"]), 1, "%v", in)
		})
	})
}

// While no other pool has room, the machines of a full one are left alone.
func TestSpreadDoesNotChurn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cloud := testCloud(memcloud.Options{BootTime: 10 * time.Second})
		spec, config := web(4, 8), testConfig(cloud, testZone())
		spec.Roles[0].Spread = true
		cloud.SetCapacity("b", "", 0)
		f, err := New(spec, config)
		require.NoError(t, err)
		turns(t, f, 50, func() bool { return len(values(t, config, spec.Zone, "www.shop.example.", "A")) == 4 })
		ids := world(cloud)
		tried := false
		for range 500 {
			p, _ := f.Reconcile(t.Context())
			tried = tried || len(p.Steps) > 0
			require.Equal(t, ids, world(cloud))
			time.Sleep(2 * time.Second)
		}
		require.True(t, tried)
	})
}

// Every call to a provider waits for the limit, and a limit that refuses fails what was to be done.
func TestLimitIsWaitedFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cloud := &regional{Cloud: testCloud(memcloud.Options{})}
		calls := 0
		cloud.SetFault(func(_ context.Context, c memcloud.Call) error {
			if !c.After {
				calls++
			}
			return nil
		})
		spec, config := testSpec(), testConfig(cloud, testZone())
		config.Limit = cloud
		f, err := New(spec, config)
		require.NoError(t, err)
		require.NoError(t, passes(t.Context(), f, 100, 2))
		require.Equal(t, calls, cloud.waits)
		require.NoError(t, f.Terminate(t.Context(), TerminateOptions{DeleteVolumes: true}))
		require.Equal(t, calls, cloud.waits)
	})
}
