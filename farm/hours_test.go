package farm

import (
	"context"
	"encoding/json"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/scalr-go/scalr/provider/memcloud"
)

// runFarm runs a farm until stop is called, or it ends.
func runFarm(t *testing.T, spec Spec, config Config) (f *Farm, stop func() error) {
	t.Helper()
	f, err := New(spec, config)
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- f.Run(ctx) }()
	return f, func() error { cancel(); return <-done }
}

func TestHoursOfAFarm(t *testing.T) {
	synctest.Test(t, func(t *testing.T) { // it begins on a Saturday, at midnight
		cloud := testCloud(memcloud.Options{BootTime: 30 * time.Second, ListLag: 5 * time.Second, TerminateTime: 10 * time.Second,
			TerminatedLinger: time.Hour, ReadyTime: time.Minute})
		spec, config := storeSpec(2, nil), testConfig(cloud, testZone())
		spec.Zone, spec.Roles[0].Address = "shop.example.", true
		spec.Hours = &Hours{Open: "0 9 * * mon-fri", Close: "0 17 * * mon-fri"}
		spec.End = &End{At: time.Now().AddDate(0, 0, 9).Add(12 * time.Hour), TerminateOptions: TerminateOptions{DeleteVolumes: true, FinalSnapshot: true}}
		events := record(&config)
		others := foreign(cloud)
		check := kept(cloud, t.Errorf)
		cloud.SetFault(func(_ context.Context, c memcloud.Call) error { check(c); return nil })
		until := func(day, hour, minute int) {
			time.Sleep(time.Until(time.Date(2000, 1, day, hour, minute, 0, 0, time.UTC)))
		}
		w := func() memcloud.World { return cloud.World(map[string]string{TagFarm: "shop"}) }

		f, stop := runFarm(t, spec, config)
		until(3, 8, 59) // Monday
		require.Zero(t, w().Len(), "it is closed")
		_, err := f.Reconcile(t.Context())
		require.ErrorIs(t, err, ErrClosed)
		had := ""
		for day, name := range []string{"mon", "tue", "wed", "thu", "fri"} {
			until(3+day, 9, 10)
			require.Len(t, w().Instances, 2, name)
			for slot, data := range contents(t, cloud, "shop") {
				require.Equal(t, strings.TrimSuffix(slot+" "+had, " "), or(data, slot), "what the last closing has kept")
			}
			require.Equal(t, had == "", len(w().Snapshots) == 0)
			until(3+day, 16, 59)
			write(t, cloud, "shop", name)
			had = name
			p, err := f.Plan(t.Context())
			require.NoError(t, err)
			require.True(t, p.Empty())
			until(3+day, 17, 10)
			require.Equal(t, 2, w().Len(), "nothing but the snapshots: %+v", w())
			records, err := config.DNS.Records(t.Context(), "shop.example.")
			require.NoError(t, err)
			for _, r := range records {
				require.NotEqual(t, "A", string(r.Type))
			}
			for slot, list := range copiesIn(cloud, "shop") {
				require.Len(t, list, 1)
				require.Equal(t, slot+" "+name, cloud.Content(list[0].ID))
			}
			_, err = f.Reconcile(t.Context())
			require.ErrorIs(t, err, ErrClosed)
			if name == "wed" { // the program dies while the farm is closed, and begins again
				require.ErrorIs(t, stop(), context.Canceled)
				f, stop = runFarm(t, spec, config)
				time.Sleep(time.Hour)
				require.Equal(t, 2, w().Len(), "it is not launched before it opens")
			}
		}
		require.Equal(t, 5+2, strings.Count(strings.Join(events.kinds(), " "), string(Closed)), "once a day, and when it was found to be closed")
		require.Equal(t, 5, strings.Count(strings.Join(events.kinds(), " "), string(Opened)))
		until(10, 12, 10) // on Monday at noon it ends
		require.NoError(t, stop())
		require.Len(t, w().Snapshots, 2)
		require.Equal(t, 2, w().Len())
		require.Equal(t, others, foreign(cloud))
	})
}

// TestHostKilledWhileItClosesAndOpens kills the host program at each call that changes something, and at every second of the others, while
// the farm is put away and launched again.
func TestHostKilledWhileItClosesAndOpens(t *testing.T) {
	kills := 0
	for _, after := range []bool{false, true} {
		for _, steps := range []bool{true, false} {
			for kill, done := 1, false; !done; kill++ {
				synctest.Test(t, func(t *testing.T) {
					cloud := testCloud(memcloud.Options{BootTime: 3 * time.Second, ListLag: 5 * time.Second, TerminateTime: 2 * time.Second, ReadyTime: 5 * time.Second})
					others := foreign(cloud)
					spec, config := storeSpec(2, nil), testConfig(cloud, nil)
					spec.Hours = &Hours{Open: "0 * * * *", Close: "10 * * * *"}
					config.Interval = time.Minute
					_, stop := runFarm(t, spec, config)
					time.Sleep(9 * time.Minute)
					write(t, cloud, "shop", "first")
					time.Sleep(59 * time.Second)
					require.ErrorIs(t, stop(), context.Canceled)

					check := kept(cloud, t.Errorf)
					var killed atomic.Bool
					h := &host{kill: kill, after: after, steps: steps}
					if !steps {
						h.kill *= 2
					}
					_, stop = runFarm(t, spec, config)
					h.killed = func() { killed.Store(true) }
					cloud.SetFault(func(ctx context.Context, c memcloud.Call) error { check(c); return h.fault(ctx, c) })
					for range 56 * 60 { // until 01:06
						time.Sleep(time.Second)
						if killed.Swap(false) {
							kills++
							_ = stop()
							cloud.SetFault(func(_ context.Context, c memcloud.Call) error { check(c); return nil })
							_, stop = runFarm(t, spec, config)
						}
					}
					done = !h.dead.Load()
					cloud.SetFault(func(_ context.Context, c memcloud.Call) error { check(c); return nil })
					w := cloud.World(map[string]string{TagFarm: "shop"})
					require.Len(t, w.Instances, 2, "killed at call %d", kill)
					require.Len(t, w.Snapshots, 2, "killed at call %d", kill)
					require.Equal(t, map[string]string{"app-1": "app-1 first", "app-2": "app-2 first"}, contents(t, cloud, "shop"), "killed at call %d", kill)
					write(t, cloud, "shop", "second")
					time.Sleep(9 * time.Minute)
					w = cloud.World(map[string]string{TagFarm: "shop"})
					require.Equal(t, 2, w.Len(), "killed at call %d: %+v", kill, w)
					for slot, list := range copiesIn(cloud, "shop") {
						require.Len(t, list, 1)
						require.Equal(t, slot+" second", cloud.Content(list[0].ID), "killed at call %d", kill)
					}
					require.ErrorIs(t, stop(), context.Canceled)
					require.Equal(t, others, foreign(cloud))
				})
			}
		}
	}
	t.Logf("killed %d times", kills)
	require.Greater(t, kills, 30)
}

func TestHoursAreChecked(t *testing.T) {
	spec := storeSpec(1, nil)
	spec.Hours = &Hours{Open: "TZ=Europe/Paris 0 9 * * mon-fri", Close: "0 25 * * *"}
	_, err := New(spec, testConfig(testCloud(memcloud.Options{}), nil))
	require.ErrorContains(t, err, `spec.hours.close: "0 25 * * *": `)
	require.NotContains(t, err.Error(), "spec.hours.open")

	spec.Hours.Close = "TZ=Europe/Paris 0 17 * * mon-fri"
	data, err := json.Marshal(spec)
	require.NoError(t, err)
	var back Spec
	require.NoError(t, json.Unmarshal(data, &back))
	require.Equal(t, spec, back)

	cloud := testCloud(memcloud.Options{})
	_, err = New(spec, testConfig(&diskCloud{cloud, cloud}, nil))
	require.ErrorContains(t, err, "spec.hours")

	twin, _, err := spec.Clone("dev", CloneOptions{})
	require.NoError(t, err)
	require.Nil(t, twin.Hours, "the parent's are not the twin's")
	twin, _, err = spec.Clone("dev", CloneOptions{Hours: spec.Hours})
	require.NoError(t, err)
	require.Equal(t, spec.Hours, twin.Hours)
	require.NotSame(t, spec.Hours, twin.Hours)
	_, _, err = spec.Clone("dev", CloneOptions{Hours: &Hours{Open: "never", Close: "@daily"}})
	require.ErrorContains(t, err, `options.Hours.Open: "never"`)
}
