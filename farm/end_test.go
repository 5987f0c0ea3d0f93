package farm

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/scalr-go/scalr/farm/scale"
	"github.com/scalr-go/scalr/provider"
	"github.com/scalr-go/scalr/provider/memcloud"
)

// TestEndDoesNotWaitForWhatItDoesNotNeed ends a farm whose sensor fails, and whose credentials may not list balancers.
func TestEndDoesNotWaitForWhatItDoesNotNeed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cloud := testCloud(memcloud.Options{})
		cloud.SetFault(func(_ context.Context, c memcloud.Call) error {
			if c.Method == "Balancers" {
				return provider.ErrAuth
			}
			return nil
		})
		spec, config := web(2, 3), testConfig(cloud, testZone())
		spec.Roles[0].Scale = &Scale{Target: &scale.Target{Metric: "cpu", Value: 1}}
		config.Sensors = map[string]Sensor{"cpu": SensorFunc(func(context.Context, string, []Server) ([]scale.Sample, error) {
			return nil, errors.New("no series")
		})}
		f, err := New(spec, config)
		require.NoError(t, err)
		_, _ = f.Reconcile(t.Context())
		ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
		defer cancel()
		require.NoError(t, f.Terminate(ctx, TerminateOptions{}))
		require.Empty(t, world(cloud))
	})
}

// TestChangedSpecLeavesNothingBehind drops an address and a balancer from a role that stays.
func TestChangedSpecLeavesNothingBehind(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cloud, zone := testCloud(memcloud.Options{}), testZone()
		f, err := New(testSpec(), testConfig(cloud, zone))
		require.NoError(t, err)
		require.NoError(t, passes(t.Context(), f, 100, 2))
		spec := testSpec()
		spec.Roles[0].Address, spec.Roles[0].Balancer = false, nil
		f, err = New(spec, testConfig(cloud, zone))
		require.NoError(t, err)
		for range 60 {
			_, err := f.Reconcile(t.Context())
			require.NoError(t, err)
			time.Sleep(2 * time.Second)
		}
		w := cloud.World(map[string]string{TagFarm: "shop"})
		require.Empty(t, w.Balancers)
		require.Empty(t, w.Addresses)
		require.Len(t, w.Instances, 4)
	})
}

// TestEndWaitsForTheLists ends a farm right after a program has died with a launch that no list shows yet.
func TestEndWaitsForTheLists(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cloud := testCloud(memcloud.Options{ListLag: 8 * time.Second})
		ctx, cancel := context.WithCancel(t.Context())
		h := &host{kill: 2, after: true, killed: cancel} // the call after the first listing is the launch
		spec, config := web(1, 1), testConfig(cloud, testZone())
		f, err := New(spec, config)
		require.NoError(t, err)
		_, err = f.Plan(t.Context())
		require.NoError(t, err)
		cloud.SetFault(func(ctx context.Context, c memcloud.Call) error {
			if c.Method != "Instances" && c.Method != "Launch" {
				return nil
			}
			return h.fault(ctx, c)
		})
		require.ErrorIs(t, passes(ctx, f, 3, 2), context.Canceled)
		cloud.SetFault(nil)
		require.Len(t, world(cloud), 1)
		f, err = New(spec, config)
		require.NoError(t, err)
		require.NoError(t, f.Terminate(t.Context(), TerminateOptions{}))
		require.Empty(t, world(cloud))
	})
}
