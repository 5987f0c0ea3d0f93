package memcloud_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/scalr-go/scalr/provider"
	"github.com/scalr-go/scalr/provider/memcloud"
)

func TestKillFailHang(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := memcloud.New(memcloud.Options{TerminateTime: time.Minute, TerminatedLinger: time.Hour, Quota: memcloud.Quota{Instances: 2},
			Command: func(context.Context, provider.Instance, provider.Command) (provider.CommandResult, error) {
				return provider.CommandResult{Output: []byte("up")}, nil
			}})
		killed := launch(t, c, "1")
		require.NoError(t, c.Kill(killed.ID, "spot reclaim"))
		require.Equal(t, provider.Terminated, list(t, c)[0].State, "what dies by itself takes no time for it")
		require.Equal(t, "spot reclaim", list(t, c)[0].Reason)
		require.ErrorIs(t, c.Kill(killed.ID, "again"), provider.ErrInvalid)
		require.ErrorIs(t, c.Kill("i-unknown", "again"), provider.ErrNotFound)

		failed := launch(t, c, "2")
		require.NoError(t, c.Fail(failed.ID, "no host"))
		hung := launch(t, c, "3")
		_, err := try(t, c, provider.Launch{Token: "4"})
		require.ErrorIs(t, err, provider.ErrQuota, "a failed instance holds quota")
		require.NoError(t, c.Stop(t.Context(), failed.ID), "a failed machine does not run")
		require.ErrorIs(t, c.Start(t.Context(), failed.ID), provider.ErrInvalid)
		require.ErrorIs(t, c.Reboot(t.Context(), failed.ID), provider.ErrInvalid)
		for _, i := range list(t, c) {
			if i.ID == failed.ID {
				require.Equal(t, provider.Failed, i.State)
				require.Equal(t, "no host", i.Reason)
			}
		}

		b, err := c.CreateBalancer(t.Context(), provider.BalancerSpec{Token: "b", Protocol: "tcp", Port: 80})
		require.NoError(t, err)
		require.NoError(t, c.RegisterTarget(t.Context(), b.ID, hung.ID))
		for _, revive := range []func() error{
			func() error { return c.Reboot(t.Context(), hung.ID) },
			func() error { return errors.Join(c.Stop(t.Context(), hung.ID), c.Start(t.Context(), hung.ID)) },
		} {
			require.NoError(t, c.Hang(hung.ID))
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			_, err = c.RunCommand(ctx, hung.ID, provider.Command{Args: []string{"uptime"}})
			cancel()
			require.ErrorIs(t, err, context.DeadlineExceeded)
			require.Equal(t, provider.TargetUnhealthy, c.World(nil).Balancers[0].Targets[0].State)
			require.NoError(t, revive())
			r, err := c.RunCommand(t.Context(), hung.ID, provider.Command{Args: []string{"uptime"}})
			require.NoError(t, err)
			require.Equal(t, "up", string(r.Output))
			require.Equal(t, provider.TargetHealthy, c.World(nil).Balancers[0].Targets[0].State)
		}
	})
}

func TestTargets(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := memcloud.New(memcloud.Options{ReadyTime: 10 * time.Second, ListLag: time.Second})
		i := launch(t, c, "1")
		b, err := c.CreateBalancer(t.Context(), provider.BalancerSpec{Token: "b", Protocol: "http", Port: 80, Drain: time.Minute})
		require.NoError(t, err)
		time.Sleep(time.Second)
		require.NoError(t, c.RegisterTarget(t.Context(), b.ID, i.ID))
		state := func() provider.Target {
			l, err := c.Balancers(t.Context(), nil)
			require.NoError(t, err)
			if len(l) == 0 || len(l[0].Targets) == 0 {
				return provider.Target{}
			}
			require.Len(t, l[0].Targets, 1)
			return l[0].Targets[0]
		}
		require.Zero(t, state(), "lists lag behind")
		time.Sleep(time.Second)
		require.Equal(t, provider.TargetInitial, state().State)
		time.Sleep(10 * time.Second)
		require.Equal(t, provider.TargetHealthy, state().State)
		require.NoError(t, c.SetTargetHealth(b.ID, i.ID, provider.TargetUnhealthy, "503"))
		require.Equal(t, provider.Target{Instance: i.ID, State: provider.TargetUnhealthy, Reason: "503"}, state())
		require.NoError(t, c.SetTargetHealth(b.ID, i.ID, "", ""))
		require.NoError(t, c.Stop(t.Context(), i.ID))
		time.Sleep(time.Second)
		require.Equal(t, provider.Target{Instance: i.ID, State: provider.TargetUnhealthy, Reason: "instance is stopped"}, state())
		require.NoError(t, c.Start(t.Context(), i.ID))

		require.NoError(t, c.DeregisterTarget(t.Context(), b.ID, i.ID))
		time.Sleep(time.Second)
		require.Equal(t, provider.TargetDraining, state().State)
		require.ErrorIs(t, c.SetTargetHealth(b.ID, i.ID, "", ""), provider.ErrNotFound)
		require.NoError(t, c.RegisterTarget(t.Context(), b.ID, i.ID), "a draining target can be registered again")
		time.Sleep(time.Second)
		require.Equal(t, provider.TargetInitial, state().State)
		require.NoError(t, c.DeregisterTarget(t.Context(), b.ID, i.ID))
		time.Sleep(time.Minute)
		require.Equal(t, provider.TargetDraining, state().State)
		time.Sleep(time.Second)
		require.Zero(t, state())
	})
}

func TestContentFollowsSnapshots(t *testing.T) {
	c := memcloud.New(memcloud.Options{})
	v, err := c.CreateVolume(t.Context(), provider.VolumeSpec{Token: "v", SizeGB: 2})
	require.NoError(t, err)
	require.NoError(t, c.SetContent(v.ID, "orders up to 1"))
	s, err := c.CreateSnapshot(t.Context(), provider.SnapshotSpec{Token: "s", Volume: v.ID})
	require.NoError(t, err)
	require.NoError(t, c.SetContent(v.ID, "orders up to 2"))
	_, err = c.CreateVolume(t.Context(), provider.VolumeSpec{Token: "small", SizeGB: 1, Snapshot: s.ID})
	require.ErrorIs(t, err, provider.ErrInvalid)
	require.ErrorContains(t, err, "SizeGB is 1, want at least the 2")
	twin, err := c.CreateVolume(t.Context(), provider.VolumeSpec{Token: "w", Snapshot: s.ID})
	require.NoError(t, err)
	require.Equal(t, "orders up to 1", c.Content(twin.ID))
	require.Equal(t, "orders up to 1", c.Content(s.ID))
	require.Equal(t, "orders up to 2", c.Content(v.ID))
	require.ErrorIs(t, c.SetContent("vol-unknown", ""), provider.ErrNotFound)
	require.NoError(t, c.DeleteSnapshot(t.Context(), s.ID))
	require.NoError(t, c.DeleteVolume(t.Context(), v.ID))
	require.Empty(t, c.Content(s.ID)+c.Content(v.ID))
	require.Equal(t, "orders up to 1", c.Content(twin.ID))
}

func TestAFailedSnapshotIsOfNoUse(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := memcloud.New(memcloud.Options{ReadyTime: time.Minute})
		v, err := c.CreateVolume(t.Context(), provider.VolumeSpec{Token: "v", SizeGB: 1})
		require.NoError(t, err)
		time.Sleep(time.Minute)
		s, err := c.CreateSnapshot(t.Context(), provider.SnapshotSpec{Token: "s", Volume: v.ID})
		require.NoError(t, err)
		require.NoError(t, c.FailSnapshot(s.ID, "disk full"))
		time.Sleep(time.Hour)
		list, err := c.Snapshots(t.Context(), nil)
		require.NoError(t, err)
		require.Len(t, list, 1)
		require.True(t, list[0].Failed && !list[0].Ready, "%+v", list[0])
		require.Equal(t, "disk full", list[0].Reason)
		_, err = c.CreateVolume(t.Context(), provider.VolumeSpec{Token: "w", Snapshot: s.ID})
		require.Error(t, err)
		require.NoError(t, c.DeleteSnapshot(t.Context(), s.ID))
		require.ErrorIs(t, c.FailSnapshot(s.ID, ""), provider.ErrNotFound)
		s, err = c.CreateSnapshot(t.Context(), provider.SnapshotSpec{Token: "s", Volume: v.ID})
		require.NoError(t, err)
		time.Sleep(time.Minute)
		require.ErrorIs(t, c.FailSnapshot(s.ID, ""), provider.ErrInvalid)
	})
}

func TestForeignThingsAreSeenAndLeft(t *testing.T) {
	c := memcloud.New(memcloud.Options{ListLag: time.Minute, Quota: memcloud.Quota{Instances: 2}, Placements: []string{"b"}})
	c.CreateForeign(nil)
	c.CreateForeign(map[string]string{"owner": "somebody else"})
	before := c.World(nil)
	require.Equal(t, 12, before.Len())
	require.Equal(t, 6, c.World(map[string]string{"owner": "somebody else"}).Len())
	require.Equal(t, before.Instances, listAll(t, c), "foreign things have been there for long")
	require.Equal(t, before.Instances[0].Public, addressOf(before, before.Instances[0].ID))
	require.Equal(t, "b", before.Volumes[0].Placement)
	require.Empty(t, c.Changes())
	_, err := try(t, c, provider.Launch{Token: "1"})
	require.ErrorIs(t, err, provider.ErrQuota, "foreign things count")

	// They can be ended like any other, and that is seen.
	require.NoError(t, c.Terminate(t.Context(), before.Instances[0].ID))
	require.NotEqual(t, before, c.World(nil))
	require.True(t, c.Changes()[0].Destructive())
	before.Instances[1].Tags["scribbled"] = "x"
	require.NotContains(t, c.World(nil).Instances[0].Tags, "scribbled")
}

func addressOf(w memcloud.World, instance string) any {
	for _, a := range w.Addresses {
		if a.Instance == instance {
			return a.Addr
		}
	}
	return nil
}

func TestWhatIsNotReadyCannotBeUsed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := memcloud.New(memcloud.Options{BootTime: time.Minute, ReadyTime: 5 * time.Minute})
		temporary := func(err error) {
			t.Helper()
			require.Error(t, err)
			for _, k := range []error{provider.ErrInvalid, provider.ErrNotFound, provider.ErrAmbiguous, provider.ErrCapacity} {
				require.NotErrorIs(t, err, k, "what passes by itself has no kind")
			}
		}
		i := launch(t, c, "1")
		v, err := c.CreateVolume(t.Context(), provider.VolumeSpec{Token: "v", SizeGB: 1})
		require.NoError(t, err)
		a, err := c.AllocateAddress(t.Context(), provider.AddressSpec{Token: "a"})
		require.NoError(t, err)
		temporary(c.AttachVolume(t.Context(), v.ID, i.ID))
		temporary(c.AssociateAddress(t.Context(), a.ID, i.ID))
		temporary(c.Reboot(t.Context(), i.ID))
		_, err = c.RunCommand(t.Context(), i.ID, provider.Command{Args: []string{"true"}})
		require.ErrorIs(t, err, errors.ErrUnsupported)
		_, err = c.CreateImage(t.Context(), provider.ImageSpec{Token: "g", Instance: i.ID})
		temporary(err)
		time.Sleep(time.Minute)
		temporary(c.AttachVolume(t.Context(), v.ID, i.ID))
		_, err = try(t, c, provider.Launch{Token: "2", Volumes: []string{v.ID}})
		temporary(err)
		_, err = c.CreateSnapshot(t.Context(), provider.SnapshotSpec{Token: "s", Volume: v.ID})
		temporary(err)
		g, err := c.CreateImage(t.Context(), provider.ImageSpec{Token: "g", Instance: i.ID})
		require.NoError(t, err)
		_, err = c.Launch(t.Context(), provider.Launch{Token: "3", Image: g.ID})
		temporary(err)
		time.Sleep(5 * time.Minute)
		s, err := c.CreateSnapshot(t.Context(), provider.SnapshotSpec{Token: "s", Volume: v.ID})
		require.NoError(t, err)
		_, err = c.CreateVolume(t.Context(), provider.VolumeSpec{Token: "w", Snapshot: s.ID})
		temporary(err)
		_, err = c.Launch(t.Context(), provider.Launch{Token: "3", Image: g.ID})
		require.NoError(t, err)
	})
}

func TestWhatIsTerminatingStillEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := memcloud.New(memcloud.Options{TerminateTime: time.Minute, TerminatedLinger: time.Hour})
		i := launch(t, c, "1")
		a, err := c.AllocateAddress(t.Context(), provider.AddressSpec{Token: "a"})
		require.NoError(t, err)
		require.NoError(t, c.AssociateAddress(t.Context(), a.ID, i.ID))
		require.NoError(t, c.Terminate(t.Context(), i.ID))
		require.ErrorIs(t, c.AssociateAddress(t.Context(), a.ID, i.ID), provider.ErrInvalid)
		require.Equal(t, a.Addr, list(t, c)[0].Public)
		require.NoError(t, c.DisassociateAddress(t.Context(), a.ID))
		require.NotEqual(t, a.Addr, list(t, c)[0].Public)
		time.Sleep(time.Minute)
		require.Equal(t, provider.Terminated, list(t, c)[0].State)
		require.False(t, list(t, c)[0].Public.IsValid())
		none, err := c.Instances(t.Context(), map[string]string{"": ""})
		require.NoError(t, err)
		require.Empty(t, none)
	})
}

func TestVolumesAtLaunch(t *testing.T) {
	for _, late := range []bool{false, true} {
		c := memcloud.New(memcloud.Options{LateVolumes: late, Placements: []string{"a", "b"}})
		v, err := c.CreateVolume(t.Context(), provider.VolumeSpec{Token: "v", SizeGB: 1, Placement: "b"})
		require.NoError(t, err)
		i, err := try(t, c, provider.Launch{Token: "1", Volumes: []string{v.ID}})
		require.NoError(t, err)
		require.Equal(t, "b", i.Placement, "a volume decides on the placement")
		require.Equal(t, map[bool]string{false: i.ID, true: ""}[late], c.World(nil).Volumes[0].Instance)
		if !late {
			_, err = try(t, c, provider.Launch{Token: "2", Volumes: []string{v.ID}})
			require.ErrorIs(t, err, provider.ErrInvalid)
			require.ErrorContains(t, err, "Volumes[0] is "+v.ID+", which "+i.ID+" has")
		}
		_, err = try(t, c, provider.Launch{Token: "3", Volumes: []string{"vol-unknown"}})
		require.ErrorIs(t, err, provider.ErrNotFound)
	}
}

func TestAStoppedBootNeverRuns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := memcloud.New(memcloud.Options{BootTime: time.Minute})
		i := launch(t, c, "1")
		require.NoError(t, c.Stop(t.Context(), i.ID))
		time.Sleep(time.Hour)
		require.Equal(t, provider.Stopped, list(t, c)[0].State)
		require.NoError(t, c.Start(t.Context(), i.ID))
		require.Equal(t, provider.Pending, list(t, c)[0].State)
		time.Sleep(time.Minute)
		require.Equal(t, provider.Running, list(t, c)[0].State)
		require.True(t, list(t, c)[0].Private.IsValid())
	})
}
