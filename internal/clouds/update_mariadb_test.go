package clouds

import (
	"context"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/scalr-go/scalr/farm"
	"github.com/scalr-go/scalr/provider/local"
)

// Three databases get another image while an application writes and reads, by hosts of which each dies at a step at which none has
// died before, before its effect or after. No acknowledged row is lost, no read fails, the names are right as in a move; each slot keeps
// its volume, and one machine has been launched for each.
func TestUpdateWithMariaDB(t *testing.T) {
	m := onMariaDB(t)
	c := &crossing{t: t, clouds: map[string]*local.Cloud{"a": m.cloud}}
	spec := c.begin(3)
	defer func() { c.stop() }()
	// held is who and what is in each slot.
	held := func() (machines, volumes map[string]string) {
		machines, volumes = map[string]string{}, map[string]string{}
		tags := map[string]string{farm.TagFarm: "shop"}
		instances, err := m.cloud.Instances(t.Context(), tags)
		require.NoError(t, err)
		for _, i := range instances {
			if !i.State.Gone() {
				machines[slotOf(i.Tags)] = i.ID
			}
		}
		list, err := m.cloud.Volumes(t.Context(), tags)
		require.NoError(t, err)
		for _, v := range list {
			volumes[slotOf(v.Tags)] = v.ID
		}
		return machines, volumes
	}
	old, disks := held()
	require.Equal(t, 3, c.note.launches())
	primary := c.primary()
	ctx, cancel := context.WithCancel(t.Context())
	wait := c.use(ctx)
	defer wait()
	defer cancel()

	spec.Roles = slices.Clone(spec.Roles)
	spec.Roles[0].Image, spec.Roles[0].Update = "mariadb-2", &farm.Update{}
	c.become(spec, "a", c.fresh("update"))
	cancel()
	wait()
	t.Log("died at: ", strings.Join(slices.Sorted(maps.Keys(c.died)), "; "))
	require.Greater(t, len(c.died), 20)
	c.run(spec, nil) // one that lives
	c.settle("a")
	c.check()
	require.NotEqual(t, primary.Index, c.primary().Index, "another one has taken over")
	require.Equal(t, 6, c.note.launches())
	machines, volumes := held()
	require.Equal(t, disks, volumes)
	for slot, id := range machines {
		require.NotEqual(t, old[slot], id)
	}
	c.stop()
	require.NoError(t, c.farm.Terminate(t.Context(), farm.TerminateOptions{DeleteVolumes: true}))
	require.True(t, left(t, m.cloud, "shop"))
}
