package farm

import (
	"context"
	"errors"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/scalr-go/scalr/provider"
	"github.com/scalr-go/scalr/provider/memcloud"
)

// A role with a warm pool grows at once, and so does it replace what fails; the pool is filled behind it.
func TestWarmPool(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cloud := testCloud(memcloud.Options{BootTime: 5 * time.Minute})
		spec, config := web(2, 4), testConfig(cloud, testZone())
		spec.Roles[0].Warm = &Warm{Count: 1}
		spec.Roles[0].Balancer = &Balancer{Protocol: "http", Port: 80}
		spec.Roles[0].Health = &Health{Custom: "check"}
		want := dial(&spec, &config)
		ill := ""
		config.Checks = map[string]func(context.Context, Server) error{"check": func(_ context.Context, s Server) error {
			if s.ID == ill {
				return errors.New("out of memory")
			}
			return nil
		}}
		f, err := New(spec, config)
		require.NoError(t, err)
		serving := func() (ids []string) {
			for _, s := range f.Servers("www") {
				require.False(t, s.Ready && s.Warm)
				if s.Ready {
					ids = append(ids, s.ID)
				}
			}
			return ids
		}
		require.NoError(t, passes(t.Context(), f, 500, 2))
		require.Len(t, world(cloud), 3)
		require.Len(t, serving(), 2)
		require.Len(t, cloud.World(map[string]string{TagFarm: "shop"}).Balancers[0].Targets, 2)

		*want = 3
		since := time.Now()
		turns(t, f, 5, func() bool { return len(serving()) == 3 })
		require.Less(t, time.Since(since), time.Minute)
		require.NoError(t, passes(t.Context(), f, 500, 2))
		require.Len(t, world(cloud), 4, "the pool is filled again")

		ill = serving()[1]
		turns(t, f, 5, func() bool { return len(serving()) == 3 && !slices.Contains(serving(), ill) })
		turns(t, f, 500, func() bool { return !slices.Contains(world(cloud), ill) })
		require.NoError(t, passes(t.Context(), f, 500, 2))
		require.Len(t, world(cloud), 4)
		require.Len(t, serving(), 3)

		*want = 1
		require.Error(t, passes(t.Context(), f, 1, 1))
		*want = 2
		require.NoError(t, passes(t.Context(), f, 500, 2))
		require.Len(t, world(cloud), 3)
		require.Len(t, serving(), 2)
		require.NoError(t, f.Terminate(t.Context(), TerminateOptions{}))
		require.Empty(t, world(cloud))
	})
}

// A warm pool whose machines are switched off: whatever the role is asked for, it has that many in service and the others
// off, and a program that starts again leaves them so.
func TestWarmPoolSwitchedOff(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		rapid.SyncTest(rt, func(rt *rapid.T) {
			cloud := testCloud(memcloud.Options{BootTime: time.Minute})
			spec, config := web(0, 4), testConfig(cloud, testZone())
			spec.Roles[0].Warm = &Warm{Count: rapid.IntRange(1, 3).Draw(rt, "warm"), Stopped: true}
			spec.Roles[0].LaunchTimeout = 2 * time.Minute
			want := dial(&spec, &config)
			f, err := New(spec, config)
			require.NoError(rt, err)
			for range rapid.IntRange(1, 4).Draw(rt, "rounds") {
				*want = rapid.IntRange(0, 4).Draw(rt, "machines")
				require.NoError(rt, passes(rt.Context(), f, 500, 3))
				in := map[provider.State]int{provider.Running: 0}
				for _, i := range cloud.World(map[string]string{TagFarm: "shop"}).Instances {
					in[i.State]++
				}
				require.Equal(rt, map[provider.State]int{provider.Running: *want, provider.Stopped: spec.Roles[0].Warm.Count}, in)
				if rapid.Bool().Draw(rt, "start again") {
					f, err = New(spec, config)
					require.NoError(rt, err)
				}
				time.Sleep(rapid.SampledFrom([]time.Duration{0, time.Hour}).Draw(rt, "rest"))
			}
		})
	})
}
