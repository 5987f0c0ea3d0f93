package farm

import (
	"math"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/scalr-go/scalr/provider/memcloud"
)

func TestCost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cloud := testCloud(memcloud.Options{BootTime: 20 * time.Second})
		spec, config := web(2, 4), testConfig(cloud, testZone())
		spec.Roles[0].Size, spec.Roles[0].Volume, spec.Roles[0].Address = "small", &Volume{SizeGB: 10}, true
		config.Pools[0].Prices = &Prices{Sizes: map[string]float64{"small": 0.5}, VolumeGB: 0.01, Address: 0.02}
		f, err := New(spec, config)
		require.NoError(t, err)
		plan, err := f.Plan(t.Context())
		require.NoError(t, err)
		require.Zero(t, plan.Cost.Now)
		require.InDelta(t, 1.24, plan.Cost.Whole.Hour, 1e-9, "of what is not launched yet")
		require.Contains(t, plan.String(), "; 1.24 an hour, 29.76 a day in all\n")
		for range 20 {
			plan, err = f.Reconcile(t.Context())
			require.NoError(t, err)
			time.Sleep(10 * time.Second)
		}
		require.InDelta(t, 2*(0.5+0.1+0.02), plan.Cost.Now.Hour, 1e-9)
		require.Equal(t, plan.Cost.Now, plan.Cost.Then)
		require.InDelta(t, 24*1.24, plan.Cost.Roles["www"].Now.Day(), 1e-9)
		require.Equal(t, "www: 1.24 an hour, 29.76 a day\nall: 1.24 an hour, 29.76 a day\n", plan.Cost.String())

		grown := spec
		grown.Roles = append([]Role(nil), spec.Roles...)
		grown.Roles[0].Min = 3
		config.Pools[0].Prices.Sizes = nil
		g, err := New(grown, config)
		require.NoError(t, err)
		for range 10 { // after a restart it looks first
			if plan, err = g.Plan(t.Context()); err == nil && plan.Cost.Then != plan.Cost.Now {
				break
			}
			_, err = g.Reconcile(t.Context())
			require.NoError(t, err)
			time.Sleep(10 * time.Second)
		}
		require.Greater(t, plan.Cost.Then.Hour, plan.Cost.Now.Hour)
		require.Equal(t, 2, plan.Cost.Now.Unpriced)
		require.Contains(t, plan.Cost.String(), "and 2 machines without a price; then")
	})
	spec, config := web(2, 4), testConfig(testCloud(memcloud.Options{}), testZone())
	config.Pools[0].Prices = &Prices{Sizes: map[string]float64{"small": -1}, VolumeGB: math.NaN()}
	_, err := New(spec, config)
	require.ErrorContains(t, err, `config.Pools[0].Prices.Sizes["small"]: -1 is no price`)
	require.ErrorContains(t, err, `Prices.VolumeGB: NaN is no price`)
}

// Balancers cost something too, and what is to end costs nothing in all.
func TestCostOfBalancers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		spec, config := web(1, 1), testConfig(testCloud(memcloud.Options{}), testZone())
		r := &spec.Roles[0]
		r.Volume, r.Balancer = &Volume{SizeGB: 10}, &Balancer{Protocol: "tcp", Port: 80}
		config.Pools[0].Prices = &Prices{Sizes: map[string]float64{"": 1}, VolumeGB: 0.01, Balancer: 0.25}
		f, err := New(spec, config)
		require.NoError(t, err)
		var p Plan
		for range 20 {
			p, err = f.Reconcile(t.Context())
			require.NoError(t, err)
			time.Sleep(time.Minute)
		}
		want := 1 + 0.1 + 0.25
		require.InDelta(t, want, p.Cost.Now.Hour, 1e-9)
		require.InDelta(t, want, p.Cost.Whole.Hour, 1e-9)
		end, err := f.PlanTerminate(t.Context(), TerminateOptions{DeleteVolumes: true})
		require.NoError(t, err)
		require.Less(t, end.Cost.Then.Hour, want)
		require.Zero(t, end.Cost.Whole)
	})
}

// An interruptible machine costs what others do where nothing else is known.
func TestSpotPrice(t *testing.T) {
	p := &Prices{Sizes: map[string]float64{"a": 2, "b": 3}, Spot: map[string]float64{"a": 1}}
	for _, c := range []struct {
		size string
		spot bool
		want float64
		ok   bool
	}{{"a", false, 2, true}, {"a", true, 1, true}, {"b", true, 3, true}, {"c", true, 0, false}} {
		got, ok := p.size(c.size, c.spot)
		require.Equal(t, c.want, got)
		require.Equal(t, c.ok, ok)
	}
}
