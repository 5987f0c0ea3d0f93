package clouds

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/scalr-go/scalr/farm"
	"github.com/scalr-go/scalr/internal/testenv"
	"github.com/scalr-go/scalr/provider"
)

// store is a farm whose role has volumes.
func store(name string, v farm.Volume) farm.Spec {
	v.SizeGB = 1
	return farm.Spec{Name: name, Roles: []farm.Role{{Name: "app", Image: "app", Min: 2, Max: 2, Volume: &v}}}
}

// copies gives the snapshots of a farm by slot.
func copies(t *testing.T, p provider.Provider, name string) map[string][]provider.Snapshot {
	t.Helper()
	s, _ := provider.As[provider.Snapshots](p)
	list, err := s.Snapshots(t.Context(), map[string]string{farm.TagFarm: name})
	require.NoError(t, err)
	by := map[string][]provider.Snapshot{}
	for _, x := range list {
		slot := x.Tags[farm.TagRole] + "-" + x.Tags[farm.TagIndex]
		by[slot] = append(by[slot], x)
	}
	return by
}

// TestSnapshotsOnEC2 takes snapshots by schedule, ends the farm with final ones and restores another one from these. The program is
// killed on the way at some requests, with every fifth reply to a change lost besides: nothing is leaked, nothing doubled.
func TestSnapshotsOnEC2(t *testing.T) {
	s := onEC2(t, testenv.Moto(t, testenv.MotoOptions{}))
	kills := 0
	// kill runs work under a host that is killed at its n-th request, and again under one that is not.
	kill := func(n int, after bool, spec farm.Spec, work func(context.Context, *farm.Farm) error) {
		t.Helper()
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		s.proxy.SetFault((&host{kill: n, after: after, lose: 5, killed: cancel}).fault)
		f, err := farm.New(spec, s.config(s.cloud()))
		require.NoError(t, err)
		_ = work(ctx, f)
		if ctx.Err() != nil {
			kills++
		}
		s.proxy.SetFault((&host{lose: 5}).fault)
		f, err = farm.New(spec, s.config(s.cloud()))
		require.NoError(t, err)
		ctx, cancel = context.WithTimeout(t.Context(), patience)
		defer cancel()
		require.NoError(t, work(ctx, f), "killed at request %d, after its effect: %v", n, after)
		s.proxy.SetFault(nil)
	}
	cloud := s.cloud()
	for i, n := range []int{22, 30, 38, 46} {
		name := fmt.Sprintf("shop%d", i)
		daily := store(name, farm.Volume{Snapshots: &farm.Snapshots{Every: 24 * time.Hour, Keep: 1}})
		kill(n, i%2 == 0, daily, rest)
		by := copies(t, cloud, name)
		require.Len(t, by, 2, "killed at request %d", n)
		for slot, list := range by {
			require.Len(t, list, 1, "slot %s, killed at request %d", slot, n)
			require.True(t, list[0].Ready)
		}

		kill(8+6*i, i%2 == 0, daily, func(ctx context.Context, f *farm.Farm) error {
			return f.Terminate(ctx, farm.TerminateOptions{DeleteVolumes: true, FinalSnapshot: true, DeleteSnapshots: true})
		})
		require.True(t, look(t, cloud, name).empty())
		finals := map[string]string{}
		for slot, list := range copies(t, cloud, name) {
			require.Len(t, list, 1, "slot %s", slot)
			require.NotEmpty(t, list[0].Tags[farm.TagFinal])
			finals[slot] = list[0].ID
		}
		require.Len(t, finals, 2)

		twin := store("twin-of-"+name, farm.Volume{From: &farm.Source{Farm: name}})
		kill(10+5*i, i%2 == 1, twin, rest)
		v, _ := provider.As[provider.Volumes](cloud)
		volumes, err := v.Volumes(t.Context(), map[string]string{farm.TagFarm: twin.Name})
		require.NoError(t, err)
		require.Len(t, volumes, 2)
		for _, v := range volumes {
			require.Equal(t, finals["app-"+v.Tags[farm.TagIndex]], v.Tags[farm.TagSnapshot])
			require.NotEmpty(t, v.Instance)
		}
		f, err := farm.New(twin, s.config(cloud))
		require.NoError(t, err)
		require.NoError(t, f.Terminate(t.Context(), farm.TerminateOptions{DeleteVolumes: true}))
		require.True(t, look(t, cloud, twin.Name).empty())
	}
	t.Logf("killed %d times", kills)
	require.Greater(t, kills, 8)
}

// TestRotationOnEC2 waits until a schedule of seconds has replaced snapshots.
func TestRotationOnEC2(t *testing.T) {
	s := onEC2(t, testenv.Moto(t, testenv.MotoOptions{}))
	cloud := s.cloud()
	spec := store("shop", farm.Volume{Snapshots: &farm.Snapshots{Every: 2 * time.Second, Keep: 2}})
	f, err := farm.New(spec, s.config(cloud))
	require.NoError(t, err)
	seen := map[string]bool{}
	require.Eventually(t, func() bool {
		_, err := f.Reconcile(t.Context())
		require.NoError(t, err)
		for slot, list := range copies(t, cloud, "shop") {
			require.LessOrEqual(t, len(list), 3, slot)
			for _, x := range list {
				seen[x.ID] = true
			}
		}
		return len(seen) >= 8
	}, patience, 50*time.Millisecond)
	require.NoError(t, f.Terminate(t.Context(), farm.TerminateOptions{DeleteVolumes: true, DeleteSnapshots: true}))
	require.Empty(t, copies(t, cloud, "shop"))
	require.True(t, look(t, cloud, "shop").empty())
}
