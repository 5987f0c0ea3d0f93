package farm

import (
	"context"
	"slices"
	"strconv"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/scalr-go/scalr/provider"
	"github.com/scalr-go/scalr/provider/memcloud"
)

// kept fails the deletion of a volume whose data is not in a complete snapshot.
func kept(cloud *memcloud.Cloud, report func(string, ...any)) func(memcloud.Call) {
	return func(c memcloud.Call) {
		if c.Method != "DeleteVolume" || c.After {
			return
		}
		data := cloud.Content(c.ID)
		w := cloud.World(nil)
		there := slices.ContainsFunc(w.Volumes, func(v provider.Volume) bool { return v.ID == c.ID })
		if there && !slices.ContainsFunc(w.Snapshots, func(s provider.Snapshot) bool {
			return s.Volume == c.ID && s.Ready && cloud.Content(s.ID) == data
		}) {
			report("deletes volume %s, whose %q is in no complete snapshot", c.ID, data)
		}
	}
}

// TestHostKilledWhileItEndsWithFinalSnapshots kills the host program at each call of an end that keeps the data, and ends the
// farm again: no volume goes before its data is kept, each has one final snapshot in the end, and nothing else is left.
func TestHostKilledWhileItEndsWithFinalSnapshots(t *testing.T) {
	kills := 0
	for _, lag := range []time.Duration{0, 5 * time.Second} {
		for _, after := range []bool{false, true} {
			for kill, done := 1, false; !done; kill++ {
				synctest.Test(t, func(t *testing.T) {
					cloud := testCloud(memcloud.Options{BootTime: 3 * time.Second, ListLag: lag, TerminateTime: 2 * time.Second, ReadyTime: 5 * time.Second})
					others := foreign(cloud)
					spec, config := storeSpec(2, &Snapshots{Every: time.Hour, Keep: 2}), testConfig(cloud, nil)
					f, err := New(spec, config)
					require.NoError(t, err)
					work(t, f, 2*time.Minute, 5*time.Second)
					write(t, cloud, "shop", "last")
					options := TerminateOptions{DeleteVolumes: true, FinalSnapshot: true, DeleteSnapshots: true}

					check := kept(cloud, t.Errorf)
					ctx, cancel := context.WithCancel(t.Context())
					h := &host{kill: kill, after: after, killed: cancel}
					cloud.SetFault(func(ctx context.Context, c memcloud.Call) error { check(c); return h.fault(ctx, c) })
					if err = f.Terminate(ctx, options); err == nil {
						done = true
					} else {
						kills++
						cloud.SetFault(func(_ context.Context, c memcloud.Call) error { check(c); return nil })
						f, err = New(spec, config)
						require.NoError(t, err)
						require.NoError(t, f.Terminate(t.Context(), options), "killed at call %d", kill)
					}
					w := cloud.World(map[string]string{TagFarm: "shop"})
					require.Equal(t, 2, w.Len(), "killed at call %d: %+v", kill, w)
					for slot, list := range copiesIn(cloud, "shop") {
						require.Len(t, list, 1, slot)
						require.True(t, list[0].Ready)
						require.NotEmpty(t, list[0].Tags[TagFinal])
						require.Equal(t, slot+" last", cloud.Content(list[0].ID), "killed at call %d", kill)
					}
					require.Equal(t, others, foreign(cloud))
				})
			}
		}
	}
	t.Logf("killed %d times", kills)
	require.Greater(t, kills, 60)
}

// TestAFinalSnapshotIsOfTheLastData ends a farm by halves, lets it live on, and ends it.
func TestAFinalSnapshotIsOfTheLastData(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cloud := testCloud(memcloud.Options{ReadyTime: 20 * time.Second})
		spec, config := storeSpec(2, nil), testConfig(cloud, nil)
		f, err := New(spec, config)
		require.NoError(t, err)
		require.NoError(t, passes(t.Context(), f, 100, 2))
		write(t, cloud, "shop", "early")
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		require.Error(t, f.Terminate(ctx, TerminateOptions{DeleteVolumes: true, FinalSnapshot: true}))
		cancel()
		require.Len(t, cloud.World(map[string]string{TagFarm: "shop"}).Snapshots, 2)
		require.Len(t, cloud.World(map[string]string{TagFarm: "shop"}).Volumes, 2)
		f, err = New(spec, config)
		require.NoError(t, err)
		work(t, f, 2*time.Minute, 5*time.Second)
		write(t, cloud, "shop", "late")
		f, err = New(spec, config)
		require.NoError(t, err)
		require.NoError(t, f.Terminate(t.Context(), TerminateOptions{DeleteVolumes: true, FinalSnapshot: true}))
		w := cloud.World(map[string]string{TagFarm: "shop"})
		require.Equal(t, 2, w.Len())
		for _, s := range w.Snapshots {
			require.Equal(t, "app-"+s.Tags[TagIndex]+" late", cloud.Content(s.ID))
		}
	})
}

// TestAFailedFinalSnapshotKeepsTheVolume makes the cloud give up on it, twice.
func TestAFailedFinalSnapshotKeepsTheVolume(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cloud := testCloud(memcloud.Options{ReadyTime: 20 * time.Second})
		f, err := New(storeSpec(1, nil), testConfig(cloud, nil))
		require.NoError(t, err)
		require.NoError(t, passes(t.Context(), f, 100, 2))
		write(t, cloud, "shop", "data")
		check, failed := kept(cloud, t.Errorf), 0
		cloud.SetFault(func(_ context.Context, c memcloud.Call) error {
			check(c)
			for _, s := range cloud.World(map[string]string{TagFarm: "shop"}).Snapshots {
				if !s.Ready && !s.Failed && failed < 2 && c.Method == "Snapshots" {
					failed++
					require.NoError(t, cloud.FailSnapshot(s.ID, "disk full"))
				}
			}
			return nil
		})
		require.NoError(t, f.Terminate(t.Context(), TerminateOptions{DeleteVolumes: true, FinalSnapshot: true}))
		require.Equal(t, 2, failed)
		w := cloud.World(map[string]string{TagFarm: "shop"})
		require.Equal(t, 1, w.Len())
		require.Equal(t, "app-1 data", cloud.Content(w.Snapshots[0].ID))
	})
}

// TestTheEndCanBeReadFirst plans an end, and finds everything as it was.
func TestTheEndCanBeReadFirst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cloud := testCloud(memcloud.Options{ReadyTime: 5 * time.Second})
		f, err := New(storeSpec(1, &Snapshots{Every: time.Hour, Keep: 1}), testConfig(cloud, nil))
		require.NoError(t, err)
		work(t, f, 2*time.Minute, 5*time.Second)
		options := TerminateOptions{DeleteVolumes: true, FinalSnapshot: true, DeleteSnapshots: true}
		before := len(cloud.Changes())
		p, err := f.PlanTerminate(t.Context(), options)
		require.NoError(t, err)
		require.Contains(t, p.String(), "terminate-instance app-1")
		require.Len(t, cloud.Changes(), before)
		require.NoError(t, cloud.Kill(world(cloud)[0], "gone"))
		// Another program does not know yet what an earlier one may have launched a moment ago.
		f, err = New(storeSpec(1, &Snapshots{Every: time.Hour, Keep: 1}), testConfig(cloud, nil))
		require.NoError(t, err)
		p, err = f.PlanTerminate(t.Context(), options)
		require.NoError(t, err)
		v := volumesOf(t, cloud, "shop")["app-1"].ID
		require.Equal(t, "wait app-1: volume "+v+" gets its last snapshot when no machine can have it any more\n", p.String())
		require.Len(t, cloud.Changes(), before)
		require.NoError(t, f.Terminate(t.Context(), options))
	})
}

// TestWhatIsKeptStays ends farms with and without what may be kept.
func TestWhatIsKeptStays(t *testing.T) {
	for _, o := range []TerminateOptions{{}, {KeepAddresses: true}, {KeepNames: true}, {DeleteVolumes: true}} {
		synctest.Test(t, func(t *testing.T) {
			cloud, zone := testCloud(memcloud.Options{}), testZone()
			spec := testSpec()
			spec.Roles[1].Volume.Snapshots = &Snapshots{Every: time.Hour, Keep: 1}
			f, err := New(spec, testConfig(cloud, zone))
			require.NoError(t, err)
			work(t, f, 3*time.Minute, 2*time.Second)
			before, err := zone.Records(t.Context(), "shop.example.")
			require.NoError(t, err)
			addresses := cloud.World(map[string]string{TagFarm: "shop"}).Addresses
			require.NotEmpty(t, addresses)
			require.NoError(t, f.Terminate(t.Context(), o))
			w := cloud.World(map[string]string{TagFarm: "shop"})
			require.Empty(t, w.Instances)
			require.Empty(t, w.Balancers)
			require.Len(t, w.Snapshots, 2, "snapshots stay unless they are told to go")
			require.Equal(t, o.DeleteVolumes, len(w.Volumes) == 0)
			require.Equal(t, o.KeepAddresses, len(w.Addresses) == len(addresses))
			require.True(t, o.KeepAddresses || len(w.Addresses) == 0)
			after, err := zone.Records(t.Context(), "shop.example.")
			require.NoError(t, err)
			if o.KeepNames {
				require.Equal(t, before, after)
			} else {
				require.Less(t, len(after), len(before))
			}
		})
	}
}

// TestAFarmThatOthersDependOnStays is asked to end while another one is being filled from it, and to delete snapshots that others
// would be filled from again.
func TestAFarmThatOthersDependOnStays(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cloud := testCloud(memcloud.Options{ReadyTime: time.Minute})
		shop, err := New(storeSpec(1, &Snapshots{Every: time.Hour, Keep: 1}), testConfig(cloud, nil))
		require.NoError(t, err)
		work(t, shop, 5*time.Minute, 5*time.Second)
		other, err := New(twin(1, Source{Farm: "shop"}), testConfig(cloud, nil))
		require.NoError(t, err)
		work(t, other, 30*time.Second, 5*time.Second)
		require.False(t, volumesOf(t, cloud, "twin")["app-1"].Ready)

		before := len(cloud.Changes())
		err = shop.Terminate(t.Context(), TerminateOptions{})
		require.ErrorIs(t, err, ErrDependents)
		require.ErrorContains(t, err, "of twin/app-1 is being filled from a snapshot of it")
		p, err := shop.PlanTerminate(t.Context(), TerminateOptions{})
		require.ErrorIs(t, err, ErrDependents)
		require.Contains(t, p.String(), "terminate-instance app-1", "the plan that Force would take")
		require.Len(t, cloud.Changes(), before)
		_, err = shop.Reconcile(t.Context())
		require.NoError(t, err, "a farm that may not end goes on")

		work(t, other, 2*time.Minute, 5*time.Second)
		err = shop.Terminate(t.Context(), TerminateOptions{DeleteVolumes: true, DeleteSnapshots: true})
		require.ErrorIs(t, err, ErrDependents)
		require.ErrorContains(t, err, "of twin/app-1 came of a snapshot of it, which is to be deleted")
		require.NoError(t, shop.Terminate(t.Context(), TerminateOptions{DeleteVolumes: true}), "it needs the snapshots, not the farm")
		shop, err = New(storeSpec(1, nil), testConfig(cloud, nil))
		require.NoError(t, err)
		require.NoError(t, shop.Terminate(t.Context(), TerminateOptions{DeleteSnapshots: true, Force: true}))
		require.Zero(t, cloud.World(map[string]string{TagFarm: "shop"}).Len())
		require.NoError(t, other.Terminate(t.Context(), TerminateOptions{DeleteVolumes: true, DeleteSnapshots: true}))
	})
}

// TestAnEndInTheSpecWaitsForOthers lets the end of a farm come while another one is being filled from it.
func TestAnEndInTheSpecWaitsForOthers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cloud := testCloud(memcloud.Options{ReadyTime: 10 * time.Minute})
		spec := storeSpec(1, &Snapshots{Every: time.Hour, Keep: 1})
		spec.End = &End{At: time.Now().Add(30 * time.Minute), TerminateOptions: TerminateOptions{DeleteVolumes: true, DeleteSnapshots: true}}
		config := testConfig(cloud, nil)
		var events recorder
		config.Events = events.event
		shop, err := New(spec, config)
		require.NoError(t, err)
		done := make(chan error, 1)
		go func() { done <- shop.Run(t.Context()) }()
		time.Sleep(25 * time.Minute)
		other, err := New(twin(1, Source{Farm: "shop"}), testConfig(cloud, nil))
		require.NoError(t, err)
		work(t, other, time.Hour, 10*time.Second)
		require.NotEmpty(t, cloud.World(map[string]string{TagFarm: "shop"}).Instances)
		require.Contains(t, events.kinds(), string(PassFailed))
		require.NoError(t, other.Terminate(t.Context(), TerminateOptions{DeleteVolumes: true}))
		require.NoError(t, <-done)
		require.Zero(t, cloud.World(map[string]string{TagFarm: "shop"}).Len())
	})
}

// TestWhoDependsMustBeKnown fails the list that tells: the farm is as it was when the caller gives up.
func TestWhoDependsMustBeKnown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cloud := testCloud(memcloud.Options{})
		f, err := New(storeSpec(1, nil), testConfig(cloud, nil))
		require.NoError(t, err)
		require.NoError(t, passes(t.Context(), f, 100, 2))
		before := len(cloud.Changes())
		asked := 0
		cloud.SetFault(func(ctx context.Context, c memcloud.Call) error {
			if c.Method != "Volumes" {
				return nil
			}
			if asked++; asked > 3 { // the end cuts the last question off
				<-ctx.Done()
				return ctx.Err()
			}
			return provider.ErrAuth
		})
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		require.ErrorIs(t, f.Terminate(ctx, TerminateOptions{}), provider.ErrAuth)
		require.Len(t, cloud.Changes(), before)
	})
}

// TestAnEndThatWaitsIsToldOf: a volume that does not become ready is not deleted, and somebody hears of it.
func TestAnEndThatWaitsIsToldOf(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cloud := testCloud(memcloud.Options{ReadyTime: 100 * time.Hour})
		config := testConfig(cloud, nil)
		events := record(&config)
		f, err := New(storeSpec(1, nil), config)
		require.NoError(t, err)
		for range 20 {
			_, _ = f.Reconcile(t.Context())
			time.Sleep(5 * time.Second)
		}
		require.Len(t, cloud.World(map[string]string{TagFarm: "shop"}).Volumes, 1)
		ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
		defer cancel()
		require.ErrorContains(t, f.Terminate(ctx, TerminateOptions{DeleteVolumes: true, FinalSnapshot: true}), "it is not ready")
		require.Len(t, cloud.World(map[string]string{TagFarm: "shop"}).Volumes, 1)
		told := slices.DeleteFunc(events.kinds(), func(kind string) bool { return kind != string(PassFailed) })
		require.Len(t, told, 1, "once")
	})
}

// TestFinalSnapshotsOfTwoClouds ends a farm over two clouds that give their volumes the same IDs.
func TestFinalSnapshotsOfTwoClouds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := memcloud.New(memcloud.Options{}), memcloud.New(memcloud.Options{})
		spec, config := storeSpec(1, nil), testConfig(a, nil)
		config.Pools = []Pool{{Name: "a", Provider: a}, {Name: "b", Provider: b}}
		ids := map[string]bool{}
		for i, cloud := range []*memcloud.Cloud{a, b} {
			v, err := cloud.CreateVolume(t.Context(), provider.VolumeSpec{Token: "volume", Name: "v", SizeGB: 1,
				Tags: map[string]string{TagFarm: "shop", TagRole: "app", TagIndex: strconv.Itoa(i + 1), TagPool: config.Pools[i].Name}})
			require.NoError(t, err)
			ids[v.ID] = true
		}
		require.Len(t, ids, 1, "one ID")
		f, err := New(spec, config)
		require.NoError(t, err)
		require.NoError(t, f.Terminate(t.Context(), TerminateOptions{DeleteVolumes: true, FinalSnapshot: true}))
		for _, cloud := range []*memcloud.Cloud{a, b} {
			require.Empty(t, cloud.World(nil).Volumes)
			require.Len(t, cloud.World(nil).Snapshots, 1)
		}
	})
}

func TestFaultsOfTheEndAreNamed(t *testing.T) {
	cloud := memcloud.New(memcloud.Options{})
	f, err := New(storeSpec(1, nil), testConfig(cloud, nil))
	require.NoError(t, err)
	require.ErrorContains(t, f.Terminate(t.Context(), TerminateOptions{FinalSnapshot: true}), "options.FinalSnapshot: is set, but volumes are not to be deleted")
	bare := diskCloud{cloud, cloud}
	f, err = New(storeSpec(1, nil), testConfig(&bare, nil))
	require.NoError(t, err)
	_, err = f.PlanTerminate(t.Context(), TerminateOptions{FinalSnapshot: true, DeleteVolumes: true})
	require.ErrorContains(t, err, "options.FinalSnapshot: the provider of pool \"a\"")
	require.Empty(t, cloud.Calls())
}
