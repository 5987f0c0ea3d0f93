package farm

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/scalr-go/scalr/farm/scale"
	"github.com/scalr-go/scalr/provider"
	"github.com/scalr-go/scalr/provider/memcloud"
)

func TestAbsenceIsNotDeath(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cloud := testCloud(memcloud.Options{})
		blind := &blinder{Cloud: cloud}
		config := testConfig(blind, testZone())
		events := record(&config)
		f, err := New(web(10, 10), config)
		require.NoError(t, err)
		require.NoError(t, passes(t.Context(), f, 100, 2))
		ids := world(cloud)

		// A failed list is no empty list, and half a list is not believed, for a long time.
		for _, hide := range []func(int) bool{nil, func(i int) bool { return i%2 == 0 }, func(int) bool { return true }} {
			blind.hide, blind.err = hide, errors.New("503")
			if hide != nil {
				blind.err = nil
			}
			for range 60 {
				p, _ := f.Reconcile(t.Context())
				require.True(t, p.Empty(), "%s", p)
				time.Sleep(5 * time.Second)
			}
			blind.hide, blind.err = nil, nil
			_, err = f.Reconcile(t.Context())
			require.NoError(t, err)
			require.Equal(t, ids, world(cloud))
		}
		require.Contains(t, events.kinds(), string(ViewDistrusted))
		require.Contains(t, events.kinds(), string(ViewTrusted))

		// One machine that vanishes for good is replaced after a while, half of them after a longer while.
		blind.hide = func(i int) bool { return i == 0 }
		require.NoError(t, passes(t.Context(), f, 100, 2))
		require.Len(t, world(cloud), 11)
	})
}

func TestStuckMachineBlocksNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cloud := testCloud(memcloud.Options{BootTime: time.Second})
		spec, config := web(4, 4), testConfig(cloud, testZone())
		spec.Roles[0].Health = &Health{Custom: "check", Failures: 3}
		spec.Roles[0].LaunchTimeout = time.Minute
		stuck := ""
		config.Checks = map[string]func(context.Context, Server) error{"check": func(_ context.Context, s Server) error {
			if s.ID == stuck || stuck == "" {
				stuck = s.ID
				return errors.New("still installing")
			}
			return nil
		}}
		f, err := New(spec, config)
		require.NoError(t, err)
		for range 10 {
			_, _ = f.Reconcile(t.Context())
			time.Sleep(2 * time.Second)
		}
		require.Len(t, values(t, config, spec.Zone, "www.shop.example.", "A"), 3, "the others serve")
		require.NoError(t, passes(t.Context(), f, 100, 2))
		require.NotContains(t, world(cloud), stuck)

		// One that has served and fails its check is out of the names at once, and replaced after some failures.
		stuck = f.Servers("www")[2].ID
		_, _ = f.Reconcile(t.Context())
		require.Len(t, values(t, config, spec.Zone, "www.shop.example.", "A"), 3)
		require.Contains(t, world(cloud), stuck)
		require.NoError(t, passes(t.Context(), f, 100, 2))
		require.NotContains(t, world(cloud), stuck)
		require.Len(t, world(cloud), 4)
	})
}

// TestSurplusIsKeptForAWhile puts a second machine into a slot, and one into a role that the spec does not have.
func TestSurplusIsKeptForAWhile(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cloud := testCloud(memcloud.Options{})
		config := testConfig(cloud, testZone())
		events := record(&config)
		f, err := New(web(2, 2), config)
		require.NoError(t, err)
		require.NoError(t, passes(t.Context(), f, 100, 2))
		for i, tags := range []map[string]string{
			{TagFarm: "shop", TagRole: "www", TagIndex: "2", TagPool: "a"},
			{TagFarm: "shop", TagRole: "old", TagIndex: "1", TagPool: "closed"},
			{TagFarm: "shop"},
		} {
			_, err := cloud.Launch(t.Context(), provider.Launch{Token: fmt.Sprint("x", i), Image: "i", Placement: "a", Tags: tags})
			require.NoError(t, err)
		}
		for range 10 {
			p, err := f.Reconcile(t.Context())
			require.NoError(t, err)
			require.True(t, p.Empty(), "%s", p)
			require.Len(t, world(cloud), 5)
			time.Sleep(config.Grace / 11)
		}
		require.Contains(t, events.kinds(), string(Quarantined))
		require.NoError(t, passes(t.Context(), f, 100, 2))
		require.Len(t, world(cloud), 2)
		require.Len(t, f.Servers(""), 2)
	})
}

// TestCommonCause lets all machines fail their check at once: they are not replaced, and keep their names.
func TestCommonCause(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cloud := testCloud(memcloud.Options{})
		spec, config := web(5, 5), testConfig(cloud, testZone())
		spec.Roles[0].Health = &Health{Custom: "check"}
		broken := false
		config.Checks = map[string]func(context.Context, Server) error{"check": func(context.Context, Server) error {
			if broken {
				return errors.New("the database is down")
			}
			return nil
		}}
		f, err := New(spec, config)
		require.NoError(t, err)
		require.NoError(t, passes(t.Context(), f, 100, 2))
		ids, names := world(cloud), values(t, config, spec.Zone, "www.shop.example.", "A")
		broken = true
		for range 20 {
			p, err := f.Reconcile(t.Context())
			require.NoError(t, err)
			require.True(t, p.Empty(), "%s", p)
			time.Sleep(5 * time.Second)
		}
		require.Equal(t, ids, world(cloud))
		require.Equal(t, names, values(t, config, spec.Zone, "www.shop.example.", "A"))
	})
}

// TestStoppedMachineIsStarted switches machines off behind the farm's back.
func TestStoppedMachineIsStarted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cloud := testCloud(memcloud.Options{BootTime: time.Second})
		f, err := New(web(2, 2), testConfig(cloud, testZone()))
		require.NoError(t, err)
		require.NoError(t, passes(t.Context(), f, 100, 2))
		ids := world(cloud)
		require.NoError(t, cloud.Stop(t.Context(), ids[0]))
		require.NoError(t, passes(t.Context(), f, 100, 2))
		require.Equal(t, ids, world(cloud))
		require.Len(t, f.Servers("www"), 2)
	})
}

// TestForeignHolderKeepsTheVolume gives a slot's volume to a machine that is not the farm's: it is not torn off.
func TestForeignHolderKeepsTheVolume(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cloud := testCloud(memcloud.Options{})
		spec := web(1, 1)
		spec.Roles[0].Volume = &Volume{SizeGB: 1}
		f, err := New(spec, testConfig(cloud, testZone()))
		require.NoError(t, err)
		require.NoError(t, passes(t.Context(), f, 100, 2))
		rescue, err := cloud.Launch(t.Context(), provider.Launch{Token: "rescue", Image: "i", Placement: "a"})
		require.NoError(t, err)
		volume := cloud.World(map[string]string{TagFarm: "shop"}).Volumes[0].ID
		require.NoError(t, cloud.DetachVolume(t.Context(), volume))
		require.NoError(t, cloud.AttachVolume(t.Context(), volume, rescue.ID))
		for range 100 {
			_, err := f.Reconcile(t.Context())
			require.NoError(t, err)
			time.Sleep(5 * time.Second)
		}
		require.Equal(t, rescue.ID, cloud.World(map[string]string{TagFarm: "shop"}).Volumes[0].Instance)
	})
}

// TestNothingIsEndedInADistrustedView hides half of the machines, and wants fewer of those that can be seen.
func TestNothingIsEndedInADistrustedView(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cloud := testCloud(memcloud.Options{})
		blind := &blinder{Cloud: cloud}
		spec, config := web(1, 10), testConfig(blind, testZone())
		want := 10
		spec.Roles[0].Scale = &Scale{Custom: "mine"}
		config.Policies = map[string]scale.Policy{"mine": scale.Func(func(scale.Input) scale.Decision { return scale.Decision{Desired: want} })}
		f, err := New(spec, config)
		require.NoError(t, err)
		require.NoError(t, passes(t.Context(), f, 100, 2))
		ids := world(cloud)
		blind.hide = func(i int) bool { return i%2 == 0 }
		want = 2
		for range 60 {
			_, err := f.Reconcile(t.Context())
			require.NoError(t, err)
			require.Equal(t, ids, world(cloud))
			time.Sleep(5 * time.Second)
		}
		blind.hide = nil
		require.NoError(t, passes(t.Context(), f, 100, 2))
		require.Len(t, world(cloud), 2)
	})
}
