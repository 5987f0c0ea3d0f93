package farm

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/scalr-go/scalr/farm/scale"
	"github.com/scalr-go/scalr/provider/memcloud"
)

// A launch says what it is for: a machine that was lost, or a role that grows.
func TestALaunchSaysWhy(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cloud := testCloud(memcloud.Options{BootTime: 5 * time.Second})
		spec, config := web(1, 3), testConfig(cloud, testZone())
		spec.Roles[0].Scale = &Scale{Custom: "mine"}
		want := 1
		config.Policies = map[string]scale.Policy{"mine": scale.Func(func(scale.Input) scale.Decision {
			return scale.Decision{Desired: want, Reason: "somebody said so"}
		})}
		events := record(&config)
		f, err := New(spec, config)
		require.NoError(t, err)
		work(t, f, time.Minute, 2*time.Second)
		require.NoError(t, cloud.Kill(world(cloud)[0], "spot reclaim"))
		work(t, f, time.Minute, 2*time.Second)
		want = 2
		work(t, f, time.Minute, 2*time.Second)
		require.Contains(t, events.text(), "slot www-1 is empty; the role is to have 1: ")
		require.Contains(t, events.text(), "slot www-1 is empty: its last machine is gone; the role is to have 1: ")
		require.Contains(t, events.text(), "slot www-2 is empty; the role is to have 2: somebody said so")
	})
}
