package clouds

import (
	"context"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/scalr-go/scalr"
	"github.com/scalr-go/scalr/farm"
	"github.com/scalr-go/scalr/farm/scale"
	"github.com/scalr-go/scalr/internal/testenv"
	"github.com/scalr-go/scalr/provider"
	"github.com/scalr-go/scalr/provider/local"
)

// Hooks run commands on real processes: one holds a machine until it has prepared it, one tells the others of each that comes, and
// one has the last word.
func TestHooksOnThisMachine(t *testing.T) {
	cloud := testenv.Cloud(t, map[string]local.Image{"web": {Command: func(local.Machine) local.Command { return local.Command{Args: []string{"sleep", "3600"}} }}})
	last := t.TempDir()
	script := func(s string) provider.Command { return provider.Command{Args: []string{"sh", "-c", s}} }
	config := quick(farm.Pool{Name: "local", Provider: cloud})
	config.Interval = 200 * time.Millisecond
	config.Hooks = []farm.Hook{
		{Name: "prepare", On: []scalr.Kind{farm.HostStarting}, Command: script("sleep 2; echo $SCALR_NAME > prepared")},
		{Name: "peers", On: []scalr.Kind{farm.HostUp}, Target: farm.TheRole, Command: script("test -e prepared && echo $SCALR_EVENT_INDEX >> peers")},
		{Name: "leave", On: []scalr.Kind{farm.HostStopping}, Command: script("cp prepared " + last + "/$SCALR_NAME")},
	}
	var want atomic.Int32
	want.Store(2)
	config.Policies = map[string]scale.Policy{"dial": scale.Func(func(scale.Input) scale.Decision { return scale.Decision{Desired: int(want.Load())} })}
	f, err := farm.New(farm.Spec{Name: "hooked", Roles: []farm.Role{{Name: "www", Image: "web", Min: 1, Max: 2, Drain: -1,
		Scale: &farm.Scale{Custom: "dial"}}}}, config)
	require.NoError(t, err)
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- f.Run(ctx) }()
	file := func(s farm.Server, name string) string {
		data, _ := os.ReadFile(filepath.Join(cloud.Dir(s.ID), name))
		return string(data)
	}
	await := func(what string, is func() bool) {
		require.Eventually(t, is, patience, 20*time.Millisecond, what)
	}
	await("both serve, and each was prepared before", func() bool {
		servers, ready := f.Servers("www"), 0
		for _, s := range servers {
			if s.Ready {
				ready++
				require.Equal(t, s.Name+"\n", file(s, "prepared"))
			}
		}
		return ready == 2
	})
	servers := f.Servers("www")
	await("each has heard of the one that came last", func() bool {
		return len(file(servers[0], "peers")) >= 2 && len(file(servers[1], "peers")) >= 2
	})
	want.Store(1)
	await("one is gone", func() bool { return len(f.Servers("www")) == 1 })
	data, err := os.ReadFile(filepath.Join(last, "www-2"))
	require.NoError(t, err)
	require.Equal(t, "www-2\n", string(data), "what its last hook has saved")
	stop()
	require.ErrorIs(t, <-done, context.Canceled)
	require.NoError(t, f.Terminate(t.Context(), farm.TerminateOptions{}))
}
