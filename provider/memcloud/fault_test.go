package memcloud_test

import (
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/scalr-go/scalr/provider"
	"github.com/scalr-go/scalr/provider/memcloud"
)

func TestTheHookSeesEveryCallTwice(t *testing.T) {
	var seen []memcloud.Call
	c := memcloud.New(memcloud.Options{Fault: func(_ context.Context, call memcloud.Call) error {
		seen = append(seen, call)
		return nil
	}})
	i := launch(t, c, "1")
	v, err := c.CreateVolume(t.Context(), provider.VolumeSpec{Token: "v", SizeGB: 1})
	require.NoError(t, err)
	require.NoError(t, c.AttachVolume(t.Context(), v.ID, i.ID))
	bad := c.DeleteVolume(t.Context(), v.ID)
	list(t, c)
	require.Equal(t, []memcloud.Call{
		{Seq: 1, Method: "Launch", ID: "1"}, {Seq: 1, Method: "Launch", ID: "1", After: true},
		{Seq: 2, Method: "CreateVolume", ID: "v"}, {Seq: 2, Method: "CreateVolume", ID: "v", After: true},
		{Seq: 3, Method: "AttachVolume", ID: v.ID, Target: i.ID}, {Seq: 3, Method: "AttachVolume", ID: v.ID, Target: i.ID, After: true},
		{Seq: 4, Method: "DeleteVolume", ID: v.ID}, {Seq: 4, Method: "DeleteVolume", ID: v.ID, After: true, Err: bad},
		{Seq: 5, Method: "Instances"}, {Seq: 5, Method: "Instances", After: true},
	}, seen)
}

func TestAFaultBeforeFailsTheCall(t *testing.T) {
	own := errors.New("connection refused")
	for _, c := range []struct{ give, kind error }{
		{provider.ErrCapacity, provider.ErrCapacity}, {provider.ErrQuota, provider.ErrQuota}, {provider.ErrAuth, provider.ErrAuth},
		{provider.ErrAmbiguous, provider.ErrAmbiguous}, {own, own},
		{&provider.Error{Kind: provider.ErrThrottled, RetryAfter: time.Minute}, provider.ErrThrottled},
	} {
		cloud := memcloud.New(memcloud.Options{})
		cloud.SetFault(func(_ context.Context, call memcloud.Call) error {
			require.False(t, call.After, "a call that did not take effect has no after")
			return c.give
		})
		_, err := try(t, cloud, provider.Launch{Token: "1"})
		require.ErrorIs(t, err, c.kind)
		e, ok := errors.AsType[*provider.Error](err)
		require.True(t, ok)
		require.Equal(t, "Launch", e.Op)
		require.Equal(t, "1", e.ID)
		require.Equal(t, errors.Is(c.kind, provider.ErrThrottled), e.RetryAfter == time.Minute)
		require.Zero(t, cloud.World(nil).Len())
		require.Equal(t, map[string]int{"Launch": 1}, cloud.Calls())
		cloud.SetFault(nil)
		launch(t, cloud, "1")
	}
}

func TestAFaultAfterLosesTheReply(t *testing.T) {
	lost := errors.New("connection reset")
	c := memcloud.New(memcloud.Options{Fault: func(_ context.Context, call memcloud.Call) error {
		if call.After {
			return lost
		}
		return nil
	}})
	_, err := try(t, c, provider.Launch{Token: "1"})
	require.ErrorIs(t, err, provider.ErrAmbiguous)
	require.ErrorIs(t, err, lost)
	_, err = c.Instances(t.Context(), nil)
	require.NotErrorIs(t, err, provider.ErrAmbiguous)
	require.ErrorIs(t, err, lost)
	c.SetFault(nil)
	require.Len(t, c.World(nil).Instances, 1)
	require.Equal(t, c.World(nil).Instances[0].ID, launch2(t, c, "1").ID)
}

func launch2(t *testing.T, c *memcloud.Cloud, token string) provider.Instance {
	i, err := try(t, c, provider.Launch{Token: token})
	require.NoError(t, err)
	return i
}

func TestAHookMayCancelWaitAndCallTheCloud(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		var c *memcloud.Cloud
		c = memcloud.New(memcloud.Options{Fault: func(ctx context.Context, call memcloud.Call) error {
			if call.Method != "Launch" || call.After {
				return nil
			}
			c.Instances(ctx, nil) // no lock is held
			time.Sleep(time.Second)
			cancel()
			return nil
		}})
		begin := time.Now()
		_, err := c.Launch(ctx, provider.Launch{Token: "1", Image: "debian"})
		require.Equal(t, time.Second, time.Since(begin))
		require.ErrorIs(t, err, context.Canceled)
		require.ErrorIs(t, err, provider.ErrAmbiguous)
		require.Zero(t, c.World(nil).Len())
	})
}

func TestChangesAreWhatTookEffect(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := memcloud.New(memcloud.Options{})
		i := launch(t, c, "1")
		launch(t, c, "1") // changes nothing
		v, err := c.CreateVolume(t.Context(), provider.VolumeSpec{Token: "v", SizeGB: 1})
		require.NoError(t, err)
		require.NoError(t, c.AttachVolume(t.Context(), v.ID, i.ID))
		require.NoError(t, c.AttachVolume(t.Context(), v.ID, i.ID))
		require.Error(t, c.DeleteVolume(t.Context(), v.ID))
		require.NoError(t, c.Terminate(t.Context(), i.ID))
		require.NoError(t, c.Terminate(t.Context(), i.ID))
		now := time.Now()
		changes := c.Changes()
		require.Equal(t, []memcloud.Change{
			{Seq: 1, Time: now, Method: "Launch", ID: i.ID, Tags: mine},
			{Seq: 3, Time: now, Method: "CreateVolume", ID: v.ID},
			{Seq: 4, Time: now, Method: "AttachVolume", ID: v.ID, Target: i.ID},
			{Seq: 7, Time: now, Method: "Terminate", ID: i.ID, Tags: mine},
		}, changes)
		for n, destructive := range []bool{false, false, false, true} {
			require.Equal(t, destructive, changes[n].Destructive())
		}
	})
}

func TestOnStateComesBeforeTheCallReturns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		state := map[string]provider.State{}
		var busy bool
		var c *memcloud.Cloud
		c = memcloud.New(memcloud.Options{BootTime: time.Minute, OnState: func(i provider.Instance) {
			mu.Lock()
			require.False(t, busy, "OnState is never called concurrently")
			busy = true
			mu.Unlock()
			time.Sleep(time.Second) // a server takes a moment to start
			i.Tags["scribbled"] = "x"
			if i.State == provider.Running && state[i.ID] == provider.Pending && i.Name == "doomed" {
				require.NoError(t, c.Kill(i.ID, "dies at boot"))
			}
			mu.Lock()
			defer mu.Unlock()
			state[i.ID], busy = i.State, false
		}})
		var wg sync.WaitGroup
		for n := range 5 {
			wg.Go(func() {
				i := launch(t, c, string(rune('a'+n)))
				mu.Lock()
				assert.Equal(t, provider.Pending, state[i.ID])
				mu.Unlock()
			})
		}
		wg.Wait()
		doomed, err := c.Launch(t.Context(), provider.Launch{Token: "doomed", Name: "doomed", Image: "debian", Tags: mine})
		require.NoError(t, err)
		time.Sleep(2 * time.Minute)
		for range 5 { // whoever sees an instance Running can rely on it, also while another call delivers
			wg.Go(func() {
				for _, i := range list(t, c) {
					assert.NotContains(t, i.Tags, "scribbled")
					mu.Lock()
					assert.Equal(t, i.State == provider.Running, state[i.ID] == provider.Running || i.ID == doomed.ID)
					mu.Unlock()
				}
			})
		}
		wg.Wait()
		require.Equal(t, provider.Terminated, state[doomed.ID])
		i := list(t, c)[0]
		require.NoError(t, c.Stop(t.Context(), i.ID))
		require.Equal(t, provider.Stopped, state[i.ID])
		require.NoError(t, c.Kill(i.ID, "crash"))
		require.Equal(t, provider.Terminated, state[i.ID])

		// A call that waits for a delivery is bounded by its context.
		go launch(t, c, "slow")
		synctest.Wait()
		ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
		defer cancel()
		_, err = c.Instances(ctx, nil)
		require.ErrorIs(t, err, context.DeadlineExceeded)
		time.Sleep(time.Minute)
	})
}

func TestAPanicInOnStateLeavesTheCloudUsable(t *testing.T) {
	dead := false
	c := memcloud.New(memcloud.Options{OnState: func(provider.Instance) {
		if !dead {
			dead = true
			panic("the host dies")
		}
	}})
	require.Panics(t, func() { launch(t, c, "1") })
	require.Len(t, list(t, c), 1)
	launch(t, c, "2")
}
