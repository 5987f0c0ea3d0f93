//go:build linux

package local_test

import (
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/scalr-go/scalr/internal/testenv"
	"github.com/scalr-go/scalr/provider"
	"github.com/scalr-go/scalr/provider/local"
)

// Wherever whoever creates a balancer dies, the token meets the one that was intended, and a list starts it.
func TestBalancerIsCompletedAfterACrash(t *testing.T) {
	testenv.Need(t, "haproxy")
	for n, step := range []string{"intended", "prepared", "spawned", "marked", "recorded", "started"} {
		t.Run(step, func(t *testing.T) {
			c, dir := crashCloud(t)
			dies(t, dir, "CreateBalancer", "", step)
			var id string
			if n%2 == 0 {
				until(t, "it takes connections", func() bool {
					all, err := c.Balancers(t.Context(), httpSpec.Tags)
					require.NoError(t, err)
					require.Len(t, all, 1, "what was intended is seen")
					id = all[0].ID
					return all[0].Ready
				})
			}
			b, err := c.CreateBalancer(t.Context(), httpSpec)
			require.NoError(t, err)
			assert.True(t, b.Ready)
			if n%2 == 0 {
				assert.Equal(t, id, b.ID)
			}
			all, err := c.Balancers(t.Context(), nil)
			require.NoError(t, err)
			assert.Len(t, all, 1)
			assert.Len(t, haproxies(b.ID), 1)
			require.NoError(t, c.DeleteBalancer(t.Context(), b.ID))
			balancerGone(t, c, b.ID)
		})
	}
}

// haproxies are a balancer's processes but for its supervisor, whatever the provider believes.
func haproxies(id string) (pids []string) {
	for _, p := range testenv.Processes(id) {
		if strings.HasSuffix(p, " (haproxy)") {
			pids = append(pids, p)
		}
	}
	return pids
}

func balancerGone(t *testing.T, c *local.Cloud, id string) {
	t.Helper()
	assert.Empty(t, testenv.Processes(id))
	assert.NoDirExists(t, c.Dir(id))
	left, err := filepath.Glob(filepath.Join(filepath.Dir(c.Dir(id)), "state", id+"*"))
	require.NoError(t, err)
	assert.Empty(t, left)
}

func TestCrashOfWhoDeletesABalancer(t *testing.T) {
	for _, step := range []string{"terminating", "killed", "removed"} {
		t.Run(step, func(t *testing.T) {
			c, dir := crashCloud(t)
			b := balance(t, c, httpSpec)
			dies(t, dir, "DeleteBalancer", b.ID, step)
			all, err := c.Balancers(t.Context(), nil)
			require.NoError(t, err)
			assert.Empty(t, all)
			balancerGone(t, c, b.ID) // a list completes it
		})
	}
}

// Whoever changes the targets may die at each command to HAProxy.
func TestCrashOfWhoChangesTargets(t *testing.T) {
	c := cloud(t, webImage())
	dir := filepath.Dir(c.Dir("x"))
	b := balance(t, c, httpSpec)
	i := untilState(t, c, launch(t, c, "t").ID, provider.Running)
	for _, step := range []string{"registered", "told", "told 2", "told 3", "told 4", "told 5"} {
		dies(t, dir, "RegisterTarget", b.ID, step, "OTHER="+i.ID)
		untilTarget(t, c, b.ID, i.ID, provider.TargetHealthy)
		assert.Equal(t, i.ID, get(t, site(b, "/")), "it serves after %s", step)
		require.NoError(t, c.DeregisterTarget(t.Context(), b.ID, i.ID))
		untilTarget(t, c, b.ID, i.ID, "")
	}
	// Drained, and then dropped: "told" is that it is to drain, then to be maintained, then to be gone.
	for _, step := range []string{"deregistered", "told", "dropped", "told 2", "told 3"} {
		require.NoError(t, c.RegisterTarget(t.Context(), b.ID, i.ID))
		untilTarget(t, c, b.ID, i.ID, provider.TargetHealthy)
		dies(t, dir, "DeregisterTarget", b.ID, step, "OTHER="+i.ID)
		untilTarget(t, c, b.ID, i.ID, "")
		require.Empty(t, servers(t, c, b.ID), "HAProxy has no server after %s", step)
	}
}

// Several callers, with two clouds in one directory, change the targets of one balancer at once. In the end HAProxy has those
// that the list shows.
func TestTargetsAtOnce(t *testing.T) {
	c := cloud(t, webImage())
	b := balance(t, c, httpSpec)
	another := newCloud(t, local.Options{Dir: filepath.Dir(c.Dir("x"))})
	var ids []string
	for _, token := range []string{"one", "two", "three"} {
		ids = append(ids, untilState(t, c, launch(t, c, token).ID, provider.Running).ID)
	}
	errs := make(chan error)
	for _, id := range ids {
		for n, by := range []*local.Cloud{c, another} {
			go func() {
				for range 3 {
					if err := by.RegisterTarget(t.Context(), b.ID, id); err != nil {
						errs <- err
						return
					}
					if _, err := by.Balancers(t.Context(), nil); err != nil {
						errs <- err
						return
					}
					if n == 0 {
						if err := by.DeregisterTarget(t.Context(), b.ID, id); err != nil {
							errs <- err
							return
						}
					}
				}
				errs <- nil
			}()
		}
	}
	for range 2 * len(ids) {
		require.NoError(t, <-errs)
	}
	require.NoError(t, c.RegisterTarget(t.Context(), b.ID, ids[0]))
	require.NoError(t, c.DeregisterTarget(t.Context(), b.ID, ids[1]))
	untilTarget(t, c, b.ID, ids[0], provider.TargetHealthy)
	untilTarget(t, c, b.ID, ids[1], "")
	var shown []string
	for _, x := range seen(t, another, b.ID).Targets {
		shown = append(shown, x.Instance)
	}
	assert.ElementsMatch(t, shown, servers(t, c, b.ID))
}

// servers are the names of the servers that HAProxy has.
func servers(t *testing.T, c *local.Cloud, b string) (names []string) {
	names, err := c.Servers(t.Context(), b)
	require.NoError(t, err)
	return names
}
