package farm

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/require"

	"github.com/scalr-go/scalr"
	"github.com/scalr-go/scalr/provider"
	"github.com/scalr-go/scalr/provider/memcloud"
)

// Commands run on one machine, on a role and on the farm: before a machine serves, at an event, by hand.
func TestRunCommand(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		ran := map[string][]string{} // by the command, on which servers
		prepared := false
		cloud := testCloud(memcloud.Options{Command: func(_ context.Context, i provider.Instance, c provider.Command) (provider.CommandResult, error) {
			mu.Lock()
			defer mu.Unlock()
			at := slices.IndexFunc(c.Env, func(s string) bool { return strings.HasPrefix(s, "SCALR_NAME=") })
			name := strings.TrimPrefix(c.Env[at], "SCALR_NAME=")
			ran[c.Args[0]] = append(ran[c.Args[0]], name)
			switch {
			case c.Args[0] == "prepare" && !prepared:
				return provider.CommandResult{Exit: 1, Output: []byte("not yet")}, nil
			case c.Args[0] == "fail" && name == "www-2":
				return provider.CommandResult{Exit: 3, Output: []byte(strings.Repeat("x", 1000) + "no space left")}, nil
			}
			return provider.CommandResult{Output: []byte(c.Args[0] + " on " + name)}, nil
		}})
		spec, config := web(2, 2), testConfig(cloud, testZone())
		var f *Farm
		run := func(ctx context.Context, program string, servers ...Server) error {
			_, err := f.RunCommand(ctx, provider.Command{Args: []string{program}}, servers...)
			return err
		}
		config.Hooks = []Hook{
			{Name: "prepare", On: []scalr.Kind{HostStarting}, Role: "www", Command: provider.Command{Args: []string{"prepare"}}},
			{Name: "reload", On: []scalr.Kind{HostDown}, Target: TheRole, Do: func(ctx context.Context, _ scalr.Event, servers []Server) error {
				return run(ctx, "reload", servers...)
			}},
		}
		f, err := New(spec, config)
		require.NoError(t, err)
		for range 10 {
			_, _ = f.Reconcile(t.Context())
		}
		p, err := f.Plan(t.Context())
		require.NoError(t, err)
		require.Contains(t, p.String(), "not yet")
		prepared = true
		require.NoError(t, passes(t.Context(), f, 100, 2))

		results, err := f.RunCommand(t.Context(), provider.Command{Args: []string{"fail"}, Env: []string{"TOKEN=secret"}}, f.Servers("")...)
		require.ErrorContains(t, err, "www-2 (")
		require.ErrorContains(t, err, `"fail" ended with status 3`)
		require.ErrorContains(t, err, "no space left")
		require.NotContains(t, err.Error(), "secret")
		require.Less(t, len(err.Error()), 400)
		require.Equal(t, "fail on www-1", string(results["www-1"].Output))
		require.Equal(t, 3, results["www-2"].Exit)

		_, err = f.RunCommand(t.Context(), provider.Command{Args: []string{"streams"}, Stdin: strings.NewReader("x")}, f.Servers("")...)
		require.ErrorContains(t, err, "the command's Stdin is set, and there are 2 servers")
		require.NotContains(t, ran, "streams")
		_, err = f.RunCommand(t.Context(), provider.Command{Args: []string{"streams"}, Stdin: strings.NewReader("x")}, f.Servers("")[0])
		require.NoError(t, err)

		cloud.Kill(f.Servers("www")[0].ID, "power")
		require.NoError(t, passes(t.Context(), f, 100, 2))
		require.Contains(t, ran["reload"], "www-2", "at the event")

		_, err = f.RunCommand(t.Context(), provider.Command{Args: []string{"true"}}, Server{ID: "i-1", Name: "www-9", Pool: "nowhere"})
		require.ErrorContains(t, err, `www-9 (i-1): its pool "nowhere" is none of config.Pools`)
		config.Pools[0].Provider, config.Hooks = bare{cloud}, nil
		f, err = New(spec, config)
		require.NoError(t, err)
		_, err = f.RunCommand(t.Context(), provider.Command{Args: []string{"true"}}, Server{ID: "i-1", Name: "www-1", Pool: config.Pools[0].Name})
		require.ErrorIs(t, err, errors.ErrUnsupported)
	})
}
