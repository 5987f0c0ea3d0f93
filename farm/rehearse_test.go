package farm

import (
	"context"
	"errors"
	"math/rand/v2"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/scalr-go/scalr/farm/scale"
	"github.com/scalr-go/scalr/provider"
	"github.com/scalr-go/scalr/provider/memcloud"
)

// A rehearsal that is told what a farm has seen and done plans what the farm has planned, pass by pass, while machines boot
// slowly, die, and find no capacity.
func TestRehearsalPlansWhatTheFarmPlans(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cloud := testCloud(memcloud.Options{BootTime: 90 * time.Second})
		cloud.SetCapacity("a", "", 3)
		load := 100.0
		spec := Spec{Name: "shop", Roles: []Role{
			{Name: "base", Image: "base", Min: 1, Max: 1},
			{Name: "www", Image: "web", Min: 2, Max: 9, After: []string{"base"}, Scale: &Scale{Target: &scale.Target{Metric: "load", Value: 50}}},
		}}
		config := testConfig(cloud, nil)
		config.Sensors = map[string]Sensor{"load": SensorFunc(func(_ context.Context, _ string, servers []Server) ([]scale.Sample, error) {
			var samples []scale.Sample
			for _, s := range servers {
				samples = append(samples, scale.Sample{Instance: s.ID, Value: load / float64(len(servers)), At: time.Now()})
			}
			return samples, nil
		})}
		f, err := New(spec, config)
		require.NoError(t, err)
		r, err := NewRehearsal(spec, config)
		require.NoError(t, err)
		chance := rand.New(rand.NewPCG(1, 2))
		launches, failures, ends := 0, 0, 0
		for range 400 {
			load = max(20, load+60*(chance.Float64()-0.5))
			if up := cloud.World(map[string]string{TagFarm: "shop"}).Instances; chance.IntN(20) == 0 && len(up) > 0 {
				cloud.Kill(up[chance.IntN(len(up))].ID, "spot reclaim")
			}
			seen, err := cloud.Instances(t.Context(), map[string]string{TagFarm: "shop"})
			require.NoError(t, err)
			done, err := f.Reconcile(t.Context())
			require.True(t, err == nil || errors.Is(err, provider.ErrCapacity), "%v", err)
			planned, _ := r.Pass(Facts{Time: time.Now(), Instances: seen, Samples: f.last.samples})
			require.Len(t, planned.Steps, len(done.Steps), "%s\n%s", done, planned)
			now, err := cloud.Instances(t.Context(), map[string]string{TagFarm: "shop"})
			require.NoError(t, err)
			for i, s := range done.Steps {
				in := provider.Instance{}
				want := s
				want.Err, want.err = "", nil
				if s.Action == LaunchInstance {
					want.Subject = ""
					launches++
					if at := slices.IndexFunc(now, func(in provider.Instance) bool { return in.ID == s.Subject }); at >= 0 {
						in = now[at]
						require.Equal(t, in.Tags, r.Tags(s))
					}
				}
				if s.Action == TerminateInstance {
					ends++
				}
				if s.err != nil {
					failures++
				}
				require.Equal(t, want, planned.Steps[i])
				r.Did(planned.Steps[i], in, s.err, time.Now())
			}
			require.Equal(t, done.Desired, planned.Desired)
			require.Equal(t, done.Waits, planned.Waits)
			time.Sleep(20 * time.Second)
		}
		require.Greater(t, launches, 20)
		require.Greater(t, ends, 10)
		require.Positive(t, failures)
	})
}

func TestRehearsalRefusesWhatItCannotRehearse(t *testing.T) {
	spec, config := testSpec(), testConfig(memcloud.New(memcloud.Options{}), testZone())
	_, err := NewRehearsal(spec, config)
	require.ErrorContains(t, err, "spec.zone: is \"shop.example.\", want none")
	require.ErrorContains(t, err, "spec.roles[0] (www): has a volume, an address, a balancer, a health check or a database")
	require.ErrorContains(t, err, "spec.roles[1] (app): has a volume")
}
