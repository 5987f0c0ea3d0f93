package farm

import (
	"context"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/scalr-go/scalr/provider"
	"github.com/scalr-go/scalr/provider/memcloud"
	"github.com/scalr-go/scalr/replication"
)

// volumesOf gives the volumes of a farm by slot; there is one each.
func volumesOf(t *testing.T, cloud *memcloud.Cloud, farm string) map[string]provider.Volume {
	t.Helper()
	by := map[string]provider.Volume{}
	for _, v := range cloud.World(map[string]string{TagFarm: farm}).Volumes {
		name := v.Tags[TagRole] + "-" + v.Tags[TagIndex]
		require.NotContains(t, by, name, "two volumes")
		by[name] = v
	}
	return by
}

// write gives each volume of a farm a content that tells whose it is.
func write(t *testing.T, cloud *memcloud.Cloud, farm, what string) {
	t.Helper()
	for slot, v := range volumesOf(t, cloud, farm) {
		require.NoError(t, cloud.SetContent(v.ID, slot+" "+what))
	}
}

// contents is what is on the volumes of a farm, by slot.
func contents(t *testing.T, cloud *memcloud.Cloud, farm string) map[string]string {
	t.Helper()
	by := map[string]string{}
	for slot, v := range volumesOf(t, cloud, farm) {
		by[slot] = cloud.Content(v.ID)
	}
	return by
}

// twin is a farm whose volumes are filled from the shop's.
func twin(n int, from Source) Spec {
	spec := storeSpec(n, nil)
	spec.Name, spec.Roles[0].Volume.From = "twin", &from
	return spec
}

// TestALostVolumeIsRestored deletes a volume with its machine, as a failing zone does.
func TestALostVolumeIsRestored(t *testing.T) {
	for n := 1; n <= 2; n++ {
		synctest.Test(t, func(t *testing.T) {
			cloud := testCloud(memcloud.Options{ListLag: 2 * time.Second, ReadyTime: 5 * time.Second})
			spec := storeSpec(n, &Snapshots{Every: time.Hour, Keep: 2})
			spec.Roles[0].Volume.From = &Source{}
			f, err := New(spec, testConfig(cloud, nil))
			require.NoError(t, err)
			work(t, f, 10*time.Minute, 5*time.Second)
			write(t, cloud, "shop", "at noon")
			before := contents(t, cloud, "shop")
			work(t, f, 2*time.Hour, 10*time.Second)
			slot := fmt.Sprintf("app-%d", n)
			lost := volumesOf(t, cloud, "shop")[slot]
			require.NoError(t, cloud.Kill(lost.Instance, "fire"))
			require.NoError(t, cloud.DetachVolume(t.Context(), lost.ID))
			require.NoError(t, cloud.DeleteVolume(t.Context(), lost.ID))
			work(t, f, 5*time.Minute, 5*time.Second)
			require.Equal(t, before, contents(t, cloud, "shop"))
			require.Equal(t, slot+" at noon", before[slot])
			v := volumesOf(t, cloud, "shop")[slot]
			require.Equal(t, "shop", v.Tags[TagSource])
			require.NotEmpty(t, v.Instance)
			work(t, f, time.Hour, 10*time.Second)
			list := copiesIn(cloud, "shop")[slot]
			require.Equal(t, v.ID, list[len(list)-1].Volume, "it is copied again")
		})
	}
}

func TestAFarmIsRestoredFromAnother(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cloud := testCloud(memcloud.Options{ListLag: 2 * time.Second, ReadyTime: 5 * time.Second})
		shop, err := New(storeSpec(2, &Snapshots{Every: time.Hour, Keep: 2}), testConfig(cloud, nil))
		require.NoError(t, err)
		work(t, shop, time.Minute, 5*time.Second)
		write(t, cloud, "shop", "early")
		work(t, shop, time.Hour, 10*time.Second)
		write(t, cloud, "shop", "late") // after the last snapshot
		before := cloud.Calls()["Snapshots"]

		f, err := New(twin(3, Source{Farm: "shop"}), testConfig(cloud, nil))
		require.NoError(t, err)
		time.Sleep(15 * time.Second)
		p, err := f.Plan(t.Context())
		require.NoError(t, err)
		require.Contains(t, p.String(), "create-volume app-1 in a: slot app-1 wants a volume of 1 GB for its machine, with what shop/app-1 held at")
		p, err = f.Reconcile(t.Context())
		require.NoError(t, err)
		require.Contains(t, p.String(), "looks for a volume of an earlier run")
		require.NoError(t, passes(t.Context(), f, 100, 2))
		require.Equal(t, map[string]string{"twin/app-1": "app-1 early", "twin/app-2": "app-2 early", "twin/app-3": ""},
			func() map[string]string {
				by := map[string]string{}
				for slot, c := range contents(t, cloud, "twin") {
					by["twin/"+slot] = c
				}
				return by
			}(), "an index that the source never had is empty")
		v := volumesOf(t, cloud, "twin")["app-1"]
		require.Equal(t, map[string]string{TagFarm: "twin", TagRole: "app", TagIndex: "1", TagPool: "a", TagSource: "shop", TagSnapshot: v.Tags[TagSnapshot]}, v.Tags)
		require.NotContains(t, volumesOf(t, cloud, "twin")["app-3"].Tags, TagSource)
		// At rest nobody looks for snapshots.
		require.Less(t, cloud.Calls()["Snapshots"]-before, 40)
		before = cloud.Calls()["Snapshots"]
		work(t, f, 10*time.Minute, 10*time.Second)
		require.Equal(t, before, cloud.Calls()["Snapshots"])
	})
}

// TestWhatCannotBeRestoredIsNotReplacedByNothing has no snapshot of a source, or none of one index.
// A farm is restored as it was at a time; where there is nothing from before, it waits, and says so.
func TestAFarmIsRestoredAsOfATime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cloud := testCloud(memcloud.Options{ListLag: 2 * time.Second, ReadyTime: 5 * time.Second})
		begun := time.Now()
		shop, err := New(storeSpec(2, &Snapshots{Every: time.Hour, Keep: 5}), testConfig(cloud, nil))
		require.NoError(t, err)
		work(t, shop, time.Minute, 5*time.Second)
		for _, what := range []string{"first", "second", "third"} {
			write(t, cloud, "shop", what)
			work(t, shop, time.Hour, 10*time.Second)
		}
		f, err := New(twin(2, Source{Farm: "shop", Before: begun.Add(2*time.Hour - 10*time.Minute)}), testConfig(cloud, nil))
		require.NoError(t, err)
		require.NoError(t, passes(t.Context(), f, 100, 2))
		got := contents(t, cloud, "twin")
		require.Equal(t, map[string]string{"app-1": "app-1 first", "app-2": "app-2 first"}, got, copiesIn(cloud, "shop"))

		early := twin(2, Source{Farm: "shop", Before: begun})
		early.Name = "early"
		f, err = New(early, testConfig(cloud, nil))
		require.NoError(t, err)
		for range 50 {
			_, _ = f.Reconcile(t.Context())
			time.Sleep(2 * time.Second)
		}
		p, err := f.Plan(t.Context())
		require.NoError(t, err)
		require.Contains(t, p.String(), "which has no complete snapshot of index 1 from before 2000-01-01T00:00:00Z")
		require.Empty(t, contents(t, cloud, "early"))

		own := storeSpec(1, nil)
		own.Roles[0].Volume.From = &Source{Before: begun}
		_, err = New(own, testConfig(cloud, nil))
		require.ErrorContains(t, err, "spec.roles[0] (app).volume.from.before: is set, but the source is the role itself, want another farm or role")
	})
}

func TestWhatCannotBeRestoredIsNotReplacedByNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cloud := testCloud(memcloud.Options{})
		f, err := New(twin(2, Source{Farm: "shop"}), testConfig(cloud, nil))
		require.NoError(t, err)
		work(t, f, 2*time.Minute, 5*time.Second)
		p, err := f.Plan(t.Context())
		require.NoError(t, err)
		require.Contains(t, p.String(), "wait app-1: its volume is to be filled from shop/app, which has no complete snapshot\n")
		require.Empty(t, cloud.World(map[string]string{TagFarm: "twin"}).Volumes)

		v, err := cloud.CreateVolume(t.Context(), provider.VolumeSpec{Token: "v", SizeGB: 5})
		require.NoError(t, err)
		require.NoError(t, cloud.SetContent(v.ID, "by hand"))
		_, err = cloud.CreateSnapshot(t.Context(), provider.SnapshotSpec{Token: "s", Volume: v.ID, Tags: map[string]string{TagFarm: "shop", TagRole: "app", TagIndex: "2"}})
		require.NoError(t, err)
		work(t, f, time.Minute, 5*time.Second)
		p, err = f.Plan(t.Context())
		require.NoError(t, err)
		require.Contains(t, p.String(), "wait app-1: its volume is to be filled from shop/app, which has no complete snapshot of index 1\n")
		require.Equal(t, map[string]string{"app-2": "by hand"}, contents(t, cloud, "twin"))
		require.Equal(t, 5, volumesOf(t, cloud, "twin")["app-2"].SizeGB, "as large as the snapshot")
	})
}

// TestARoleIsRestoredWhereItsSnapshotsAre has two clouds, and snapshots in the second one.
func TestARoleIsRestoredWhereItsSnapshotsAre(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		first, second := memcloud.New(memcloud.Options{Seed: 1}), memcloud.New(memcloud.Options{Seed: 2})
		config := testConfig(first, nil)
		config.Pools = []Pool{{Name: "one", Provider: first}, {Name: "two", Provider: second}}
		v, err := second.CreateVolume(t.Context(), provider.VolumeSpec{Token: "v", SizeGB: 1})
		require.NoError(t, err)
		require.NoError(t, second.SetContent(v.ID, "data"))
		_, err = second.CreateSnapshot(t.Context(), provider.SnapshotSpec{Token: "s", Volume: v.ID, Tags: map[string]string{TagFarm: "shop", TagRole: "old", TagIndex: "1"}})
		require.NoError(t, err)
		f, err := New(twin(1, Source{Farm: "shop", Role: "old"}), config)
		require.NoError(t, err)
		require.NoError(t, passes(t.Context(), f, 100, 2))
		require.Equal(t, map[string]string{"app-1": "data"}, contents(t, second, "twin"))
		require.Empty(t, first.World(nil).Instances)

		spec := twin(1, Source{Farm: "shop", Role: "old"})
		spec.Name, spec.Roles[0].Pools = "other", []string{"one"}
		f, err = New(spec, config)
		require.NoError(t, err)
		work(t, f, time.Minute, 5*time.Second)
		p, err := f.Plan(t.Context())
		require.NoError(t, err)
		require.Contains(t, p.String(), "is in pool two, and the role may be in none that shares its provider")
	})
}

// TestARestoredVolumeStaysWhereItsSnapshotIs finds no room for the machine of a volume that was just filled, and room in another
// cloud: the volume is not given up, since it could not be filled there.
func TestARestoredVolumeStaysWhereItsSnapshotIs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		first, second := memcloud.New(memcloud.Options{}), memcloud.New(memcloud.Options{Seed: 2})
		config := testConfig(first, nil)
		config.Pools = []Pool{{Name: "near", Provider: first}, {Name: "far", Provider: second}}
		v, err := first.CreateVolume(t.Context(), provider.VolumeSpec{Token: "v", SizeGB: 1})
		require.NoError(t, err)
		_, err = first.CreateSnapshot(t.Context(), provider.SnapshotSpec{Token: "s", Volume: v.ID, Tags: map[string]string{TagFarm: "shop", TagRole: "app", TagIndex: "1"}})
		require.NoError(t, err)
		f, err := New(twin(1, Source{Farm: "shop"}), config)
		require.NoError(t, err)
		for len(volumesOf(t, first, "twin")) == 0 {
			work(t, f, time.Second, time.Second)
		}
		filled := volumesOf(t, first, "twin")
		f.history.offers[offer{pool: "near"}] = backoff{until: time.Now().Add(time.Minute), reason: "no capacity"}
		work(t, f, 50*time.Second, 10*time.Second)
		require.Equal(t, filled, volumesOf(t, first, "twin"))
		require.Empty(t, second.World(nil).Instances)
		work(t, f, time.Minute, 10*time.Second)
		require.Len(t, first.World(map[string]string{TagFarm: "twin"}).Instances, 1)
	})
}

// TestADatabaseIsRestoredFromOneSnapshot fills all members from the newest snapshot of the role, and from the last one of the primary
// after its end.
func TestADatabaseIsRestoredFromOneSnapshot(t *testing.T) {
	for _, primary := range []string{"db-1", "db-2", "db-3"} {
		synctest.Test(t, func(t *testing.T) {
			spec := dbSpec(3)
			spec.Roles[0].Volume = &Volume{SizeGB: 1, Snapshots: &Snapshots{Every: 10 * time.Minute, Keep: 2}}
			s := newShopDB(t, spec, memcloud.Options{BootTime: 5 * time.Second})
			stop := s.run(t)
			time.Sleep(2 * time.Minute)
			write(t, s.cloud, "shop", "early")
			time.Sleep(25 * time.Minute)
			if s.primary() != primary {
				require.NoError(t, s.manager.Switchover(t.Context(), primary))
			}
			time.Sleep(time.Minute)

			restored := func() map[string]string {
				spec := dbSpec(3)
				spec.Zone, spec.Roles[0].Aliases = "", nil
				spec.Name, spec.Roles[0].Volume = "twin", &Volume{SizeGB: 1, From: &Source{Farm: "shop"}}
				config := s.config
				manager, err := replication.New(replication.Config{Name: "twin/db", Engine: s.db})
				require.NoError(t, err)
				config.Databases = map[string]*replication.Manager{"db": manager}
				f, err := New(spec, config)
				require.NoError(t, err)
				for range 20 {
					_, _ = f.Reconcile(t.Context())
					time.Sleep(2 * time.Second)
				}
				defer func() { require.NoError(t, f.Terminate(t.Context(), TerminateOptions{DeleteVolumes: true})) }()
				return contents(t, s.cloud, "twin")
			}
			var newest provider.Snapshot
			for _, x := range s.cloud.World(map[string]string{TagFarm: "shop"}).Snapshots {
				if x.Created.After(newest.Created) {
					newest = x
				}
			}
			data := s.cloud.Content(newest.ID)
			require.Equal(t, "db-"+newest.Tags[TagIndex]+" early", data)
			require.Equal(t, map[string]string{"db-1": data, "db-2": data, "db-3": data}, restored())
			write(t, s.cloud, "shop", "late")
			stop()
			require.NoError(t, s.farm.Terminate(t.Context(), TerminateOptions{DeleteVolumes: true, FinalSnapshot: true}))
			data = primary + " late"
			require.Equal(t, map[string]string{"db-1": data, "db-2": data, "db-3": data}, restored(), "the primary's")
		})
	}
}

// TestAFinalSnapshotOfAnEarlierLifeIsOld: what the last end took is the newest, also where it did not know the primary.
func TestAFinalSnapshotOfAnEarlierLifeIsOld(t *testing.T) {
	begin := time.Date(2026, 1, 2, 3, 0, 0, 0, time.UTC)
	final := func(id string, day int, taken time.Duration, primary bool) provider.Snapshot {
		born := begin.AddDate(0, 0, day)
		x := provider.Snapshot{ID: id, Ready: true, Created: born.Add(taken), Tags: map[string]string{TagFarm: "shop", TagRole: "db", TagIndex: "1",
			TagFinal: born.Add(taken).Format(time.RFC3339Nano), TagBorn: born.Format(time.RFC3339Nano)}}
		if primary {
			x.Tags[TagPrimary] = "true"
		}
		return x
	}
	choose := func(items ...provider.Snapshot) string {
		d := &decision{o: observation{clouds: []cloud{{snapshots: []snapshotsOf{{"shop", listing[provider.Snapshot]{items: items}}}}}}}
		x, _, ok := d.newest(&Role{Name: "db", Serves: Database}, slot{"db", 1}, Source{Farm: "shop", Role: "db"})
		require.True(t, ok)
		return x.ID
	}
	require.Equal(t, "p", choose(final("r", 0, 2*time.Hour, false), final("p", 0, time.Hour, true)), "the primary's of the same end")
	require.Equal(t, "new", choose(final("old", 0, time.Hour, true), final("new", 7, time.Hour, false), final("other", 7, 30*time.Minute, false)))
}

// TestHostKilledWhileItRestores kills the host program at each call while a farm is restored, with newer snapshots coming up
// meanwhile, and starts it again: each index has one volume, filled.
func TestHostKilledWhileItRestores(t *testing.T) {
	kills := 0
	for _, lag := range []time.Duration{0, 5 * time.Second} {
		for _, after := range []bool{false, true} {
			for kill, done := 1, false; !done; kill++ {
				synctest.Test(t, func(t *testing.T) {
					cloud := testCloud(memcloud.Options{BootTime: 3 * time.Second, ListLag: lag, ReadyTime: time.Second})
					v, err := cloud.CreateVolume(t.Context(), provider.VolumeSpec{Token: "v", SizeGB: 1})
					require.NoError(t, err)
					time.Sleep(time.Second)
					shots := 0
					snap := func() {
						for index := 1; index <= 2; index++ {
							shots++
							require.NoError(t, cloud.SetContent(v.ID, fmt.Sprintf("data of %d", index)))
							_, err := cloud.CreateSnapshot(t.Context(), provider.SnapshotSpec{Token: fmt.Sprint("s", shots), Volume: v.ID,
								Tags: map[string]string{TagFarm: "shop", TagRole: "app", TagIndex: fmt.Sprint(index)}})
							require.NoError(t, err)
						}
					}
					snap()
					time.Sleep(10 * time.Second)
					others := foreign(cloud)
					spec, config := twin(2, Source{Farm: "shop"}), testConfig(cloud, nil)
					ctx, cancel := context.WithCancel(t.Context())
					h := &host{kill: kill, after: after, killed: cancel}
					cloud.SetFault(h.fault)
					f, err := New(spec, config)
					require.NoError(t, err)
					if err = passes(ctx, f, 100, 2); err == nil {
						done = true
					} else {
						kills++
					}
					cloud.SetFault(nil)
					snap() // a restarted program finds newer ones
					f, err = New(spec, config)
					require.NoError(t, err)
					require.NoError(t, passes(t.Context(), f, 100, 2), "killed at call %d", kill)
					require.Equal(t, map[string]string{"app-1": "data of 1", "app-2": "data of 2"}, contents(t, cloud, "twin"), "killed at call %d", kill)
					created := 0
					for _, c := range cloud.Changes() {
						if c.Method == "CreateVolume" && c.Tags[TagFarm] == "twin" {
							created++
						}
					}
					require.Equal(t, 2, created, "killed at call %d", kill)
					require.NoError(t, f.Terminate(t.Context(), TerminateOptions{DeleteVolumes: true}))
					require.Zero(t, cloud.World(map[string]string{TagFarm: "twin"}).Len())
					require.Equal(t, others, foreign(cloud))
				})
			}
		}
	}
	t.Logf("killed %d times", kills)
	require.Greater(t, kills, 40)
}

// TestALostReplyMeetsTheSameVolume loses replies of CreateVolume while there is always a newer snapshot.
func TestALostReplyMeetsTheSameVolume(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cloud := testCloud(memcloud.Options{ListLag: 5 * time.Second})
		v, err := cloud.CreateVolume(t.Context(), provider.VolumeSpec{Token: "v", SizeGB: 1})
		require.NoError(t, err)
		shots, lost := 0, 0
		snap := func() {
			shots++
			_, err := cloud.CreateSnapshot(t.Context(), provider.SnapshotSpec{Token: fmt.Sprint("s", shots), Volume: v.ID,
				Tags: map[string]string{TagFarm: "shop", TagRole: "app", TagIndex: "1"}})
			require.NoError(t, err)
		}
		snap()
		cloud.SetFault(func(_ context.Context, c memcloud.Call) error {
			if c.Method == "CreateVolume" && c.After && lost < 2 {
				lost++
				return provider.ErrAmbiguous
			}
			return nil
		})
		f, err := New(twin(1, Source{Farm: "shop"}), testConfig(cloud, nil))
		require.NoError(t, err)
		for range 40 {
			_, _ = f.Reconcile(t.Context())
			snap()
			time.Sleep(time.Second)
		}
		require.Equal(t, 2, lost)
		require.Len(t, volumesOf(t, cloud, "twin"), 1)
	})
}
