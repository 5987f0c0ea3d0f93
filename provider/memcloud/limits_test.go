package memcloud_test

import (
	"context"
	"errors"
	"net/netip"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/scalr-go/scalr/provider"
	"github.com/scalr-go/scalr/provider/memcloud"
)

func try(t *testing.T, c *memcloud.Cloud, l provider.Launch) (provider.Instance, error) {
	t.Helper()
	l.Image = "debian"
	return c.Launch(t.Context(), l)
}

func TestCapacityIsByPlacementAndSize(t *testing.T) {
	c := memcloud.New(memcloud.Options{
		Placements: []string{"a", "b"}, Sizes: []string{"small", "large"},
		Capacity: map[memcloud.Offering]int{{Placement: "a", Size: "large"}: 1, {Size: "large"}: 2},
	})
	i, err := try(t, c, provider.Launch{Token: "1", Size: "large", Placement: "a"})
	require.NoError(t, err)
	_, err = try(t, c, provider.Launch{Token: "2", Size: "large", Placement: "a"})
	require.ErrorIs(t, err, provider.ErrCapacity)
	require.ErrorContains(t, err, `no room for size "large" at placement ["a"]`)
	j, err := try(t, c, provider.Launch{Token: "3", Size: "large"})
	require.NoError(t, err)
	require.Equal(t, "b", j.Placement, "the cloud takes the first placement with room")
	_, err = try(t, c, provider.Launch{Token: "4", Size: "large", Placement: "b"})
	require.ErrorIs(t, err, provider.ErrCapacity, "both placements together have room for two")
	k, err := try(t, c, provider.Launch{Token: "5", Placement: "a"})
	require.NoError(t, err)
	require.Equal(t, "small", k.Size, "no size is the first size")

	require.NoError(t, c.Terminate(t.Context(), i.ID))
	_, err = try(t, c, provider.Launch{Token: "2", Size: "large", Placement: "a"})
	require.NoError(t, err, "a token whose launch was refused is free")

	c.SetCapacity("", "", 0)
	_, err = try(t, c, provider.Launch{Token: "6", Size: "small"})
	require.ErrorIs(t, err, provider.ErrCapacity)
	c.SetCapacity("", "", -1)
	_, err = try(t, c, provider.Launch{Token: "6", Size: "small"})
	require.NoError(t, err)
}

func TestWhatTerminatesHoldsQuota(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := memcloud.New(memcloud.Options{TerminateTime: time.Minute, Quota: memcloud.Quota{Instances: 1, Volumes: -1}})
		i := launch(t, c, "1")
		_, err := try(t, c, provider.Launch{Token: "2"})
		require.ErrorIs(t, err, provider.ErrQuota)
		require.ErrorContains(t, err, "the account has 1 instances of 1")
		require.NoError(t, c.Terminate(t.Context(), i.ID))
		time.Sleep(time.Minute - time.Nanosecond)
		_, err = try(t, c, provider.Launch{Token: "2"})
		require.ErrorIs(t, err, provider.ErrQuota)
		time.Sleep(time.Nanosecond)
		_, err = try(t, c, provider.Launch{Token: "2"})
		require.NoError(t, err)

		_, err = c.CreateVolume(t.Context(), provider.VolumeSpec{Token: "v", SizeGB: 1})
		require.ErrorIs(t, err, provider.ErrQuota, "a negative quota is none at all")
		c.SetQuota(memcloud.Quota{})
		v, err := c.CreateVolume(t.Context(), provider.VolumeSpec{Token: "v", SizeGB: 1})
		require.NoError(t, err)
		one := memcloud.Quota{Instances: 1, Volumes: 1, Snapshots: -1, Addresses: -1, Balancers: -1, Images: -1}
		c.SetQuota(one)
		for name, create := range map[string]func() error{
			"volume": func() error {
				_, err := c.CreateVolume(t.Context(), provider.VolumeSpec{Token: "w", SizeGB: 1})
				return err
			},
			"snapshot": func() error {
				_, err := c.CreateSnapshot(t.Context(), provider.SnapshotSpec{Token: "w", Volume: v.ID})
				return err
			},
			"address": func() error { _, err := c.AllocateAddress(t.Context(), provider.AddressSpec{Token: "w"}); return err },
			"balancer": func() error {
				_, err := c.CreateBalancer(t.Context(), provider.BalancerSpec{Token: "w", Protocol: "tcp", Port: 80})
				return err
			},
			"image": func() error {
				_, err := c.CreateImage(t.Context(), provider.ImageSpec{Token: "w", Instance: listAll(t, c)[0].ID})
				return err
			},
		} {
			require.ErrorIs(t, create(), provider.ErrQuota, name)
		}
		require.NoError(t, c.DeleteVolume(t.Context(), v.ID))
		_, err = c.CreateVolume(t.Context(), provider.VolumeSpec{Token: "w", SizeGB: 1})
		require.NoError(t, err, "what was deleted gives its quota back")
	})
}

func listAll(t *testing.T, c *memcloud.Cloud) []provider.Instance {
	l, err := c.Instances(t.Context(), nil)
	require.NoError(t, err)
	return l
}

func TestThrottle(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := memcloud.New(memcloud.Options{Throttle: memcloud.Throttle{PerSecond: 2, Burst: 3}})
		for range 3 {
			listAll(t, c)
		}
		err := c.Terminate(t.Context(), "i-1")
		require.ErrorIs(t, err, provider.ErrThrottled)
		e, ok := errors.AsType[*provider.Error](err)
		require.True(t, ok)
		require.Equal(t, 500*time.Millisecond, e.RetryAfter)
		time.Sleep(e.RetryAfter)
		listAll(t, c)
		_, err = c.Instances(t.Context(), nil)
		require.ErrorIs(t, err, provider.ErrThrottled, "the bucket gives one call each half second")
		time.Sleep(time.Hour)
		for range 3 {
			listAll(t, c)
		}
		_, err = c.Instances(t.Context(), nil)
		require.ErrorIs(t, err, provider.ErrThrottled, "the bucket holds no more than its burst")
		require.Equal(t, map[string]int{"Instances": 9, "Terminate": 1}, c.Calls())
	})
}

func TestAddressesRunOutAndComeBack(t *testing.T) {
	small := netip.MustParsePrefix("10.9.0.0/30")
	for _, o := range []memcloud.Options{{Private: small}, {Public: small}} {
		c := memcloud.New(o)
		two := launch(t, c, "2")
		launch(t, c, "1")
		launch(t, c, "3")
		_, err := try(t, c, provider.Launch{Token: "4"})
		require.ErrorIs(t, err, provider.ErrCapacity)
		require.ErrorContains(t, err, "10.9.0.0/30 has no free address")
		if o.Public == small {
			_, err = c.AllocateAddress(t.Context(), provider.AddressSpec{Token: "a"})
			require.ErrorIs(t, err, provider.ErrCapacity)
			_, err = c.CreateBalancer(t.Context(), provider.BalancerSpec{Token: "b", Protocol: "tcp", Port: 80})
			require.ErrorIs(t, err, provider.ErrCapacity)
		}
		require.NoError(t, c.Terminate(t.Context(), two.ID))
		again := launch(t, c, "4")
		require.Equal(t, two.Private == again.Private, o.Private == small)
		require.Equal(t, two.Public == again.Public, o.Public == small)
		require.Equal(t, 3, c.World(nil).Len())
	}
}

func TestBootTimesAreSpreadTheSameWayEachTime(t *testing.T) {
	boots := func(seed uint64) (all []time.Duration) {
		synctest.Test(t, func(t *testing.T) {
			c := memcloud.New(memcloud.Options{BootTime: time.Minute, BootSpread: time.Minute, Seed: seed})
			begin := time.Now()
			var wg sync.WaitGroup
			all = make([]time.Duration, 20)
			for n := range all {
				wg.Go(func() {
					i := launch(t, c, string(rune('a'+n)))
					for i.State != provider.Running {
						time.Sleep(time.Second)
						i = launch(t, c, string(rune('a'+n)))
					}
					all[n] = time.Since(begin)
				})
			}
			wg.Wait()
		})
		return all
	}
	first := boots(1)
	require.Equal(t, first, boots(1))
	require.NotEqual(t, first, boots(2))
	seen := map[time.Duration]bool{}
	for _, d := range first {
		require.True(t, d >= time.Minute && d <= 2*time.Minute, "%s", d)
		seen[d] = true
	}
	require.Greater(t, len(seen), 10)
}

func TestBadOptionsAreNamed(t *testing.T) {
	for want, o := range map[string]memcloud.Options{
		"memcloud: Options.BootTime is -1ns, want at least 0":                                                     {BootTime: -1},
		"memcloud: Options.Latency is -1ns, want at least 0":                                                      {Latency: -1},
		"memcloud: Options.Private is 10.0.0.0/31, want a network of at least four addresses":                     {Private: netip.MustParsePrefix("10.0.0.0/31")},
		`memcloud: Options.Sizes is [], want nil or names`:                                                        {Sizes: []string{}},
		`memcloud: Options.Images is ["debian" ""], want nil or names`:                                            {Images: []string{"debian", ""}},
		"memcloud: Options.Throttle is {PerSecond:0 Burst:3}, want a positive PerSecond with a Burst, or neither": {Throttle: memcloud.Throttle{Burst: 3}},
	} {
		require.PanicsWithValue(t, want, func() { memcloud.New(o) })
	}
}

func TestLatencyIsBoundedByTheContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := memcloud.New(memcloud.Options{Latency: 2 * time.Second})
		begin := time.Now()
		launch(t, c, "1")
		require.Equal(t, 2*time.Second, time.Since(begin))
		for wait, took := range map[time.Duration]int{900 * time.Millisecond: 0, 1100 * time.Millisecond: 1} {
			before := len(c.World(nil).Instances)
			ctx, cancel := context.WithTimeout(t.Context(), wait)
			begin := time.Now()
			_, err := c.Launch(ctx, provider.Launch{Token: wait.String()[:1] + "x", Image: "debian"})
			cancel()
			require.Equal(t, wait, time.Since(begin))
			require.ErrorIs(t, err, provider.ErrAmbiguous)
			require.ErrorIs(t, err, context.DeadlineExceeded)
			require.Len(t, c.World(nil).Instances, before+took)

			ctx, cancel = context.WithTimeoutCause(t.Context(), wait, errors.New("lease lost"))
			_, err = c.Instances(ctx, nil)
			cancel()
			require.NotErrorIs(t, err, provider.ErrAmbiguous, "a list changes nothing")
			require.ErrorIs(t, err, context.DeadlineExceeded)
			require.ErrorContains(t, err, "lease lost")
		}
	})
}
