package memcloud_test

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/scalr-go/scalr/provider"
	"github.com/scalr-go/scalr/provider/memcloud"
	"github.com/stretchr/testify/require"
)

var mine = map[string]string{"farm": "shop"}

func launch(t *testing.T, c *memcloud.Cloud, token string) provider.Instance {
	t.Helper()
	i, err := c.Launch(t.Context(), provider.Launch{Token: token, Image: "debian", Tags: mine})
	require.NoError(t, err)
	return i
}

func list(t *testing.T, c *memcloud.Cloud) []provider.Instance {
	t.Helper()
	l, err := c.Instances(t.Context(), mine)
	require.NoError(t, err)
	return l
}

func TestAnInstancesLife(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var states []provider.State
		c := memcloud.New(memcloud.Options{BootTime: time.Minute, ListLag: 10 * time.Second, TerminateTime: 30 * time.Second,
			TerminatedLinger: time.Hour, OnState: func(i provider.Instance) { states = append(states, i.State) }})
		i := launch(t, c, "web-1")
		require.Equal(t, provider.Pending, i.State)
		require.False(t, i.Private.IsValid(), "a pending instance has no address")
		require.Empty(t, list(t, c), "lists lag behind")
		time.Sleep(10 * time.Second)
		require.Equal(t, provider.Pending, list(t, c)[0].State)
		time.Sleep(time.Minute)
		require.Equal(t, provider.Running, list(t, c)[0].State)
		require.Equal(t, "10.0.0.1", list(t, c)[0].Private.String())

		require.NoError(t, c.Terminate(t.Context(), i.ID))
		require.Equal(t, provider.Running, list(t, c)[0].State, "lists lag behind")
		time.Sleep(10 * time.Second)
		require.Equal(t, provider.Terminating, list(t, c)[0].State)
		time.Sleep(30 * time.Second)
		require.Equal(t, provider.Terminated, list(t, c)[0].State)
		time.Sleep(time.Hour)
		require.Empty(t, list(t, c))
		again := launch(t, c, "web-1")
		require.Equal(t, i.ID, again.ID)
		require.Equal(t, provider.Terminated, again.State, "a token never starts a second instance")
		require.Equal(t, []provider.State{provider.Pending, provider.Running, provider.Terminating, provider.Terminated}, states)
	})
}

func TestAFaultHookMayPanicAtEitherSide(t *testing.T) {
	for _, after := range []bool{false, true} {
		c := memcloud.New(memcloud.Options{Fault: func(_ context.Context, call memcloud.Call) error {
			if call.Method == "Launch" && call.After == after {
				panic("the host dies")
			}
			return nil
		}})
		require.Panics(t, func() { launch(t, c, "web-1") })
		require.Len(t, list(t, c), map[bool]int{false: 0, true: 1}[after])
	}
}
