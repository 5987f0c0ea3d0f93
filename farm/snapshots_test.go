package farm

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/scalr-go/scalr/provider"
	"github.com/scalr-go/scalr/provider/memcloud"
)

// storeSpec is a farm with a role that has volumes, copied as the schedule says.
func storeSpec(n int, s *Snapshots) Spec {
	return Spec{Name: "shop", Roles: []Role{{Name: "app", Image: "app", Min: n, Max: n, Volume: &Volume{SizeGB: 1, Snapshots: s}}}}
}

// copiesIn gives the snapshots of a farm in the cloud, the oldest first, by slot.
func copiesIn(cloud *memcloud.Cloud, farm string) map[string][]provider.Snapshot {
	by := map[string][]provider.Snapshot{}
	for _, s := range cloud.World(map[string]string{TagFarm: farm}).Snapshots {
		name := s.Tags[TagRole] + "-" + s.Tags[TagIndex]
		by[name] = append(by[name], s)
	}
	for _, list := range by {
		slices.SortFunc(list, func(a, b provider.Snapshot) int { return a.Created.Compare(b.Created) })
	}
	return by
}

// work makes passes for a time.
func work(t *testing.T, f *Farm, d, every time.Duration) {
	t.Helper()
	for end := time.Now().Add(d); time.Now().Before(end); time.Sleep(every) {
		_, err := f.Reconcile(t.Context())
		require.NoError(t, err)
	}
}

func TestVolumesAreCopiedOnSchedule(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cloud := testCloud(memcloud.Options{BootTime: 3 * time.Second, ReadyTime: time.Minute, ListLag: 5 * time.Second})
		f, err := New(storeSpec(2, &Snapshots{Every: time.Hour, Keep: 3}), testConfig(cloud, nil))
		require.NoError(t, err)
		work(t, f, 5*time.Minute, 10*time.Second)
		volume := cloud.World(map[string]string{TagFarm: "shop"}).Volumes[0].ID
		// A person takes one of a volume of the farm, with the farm's tags.
		byHand, err := cloud.CreateSnapshot(t.Context(), provider.SnapshotSpec{Token: "by-hand", Volume: volume, Tags: map[string]string{TagFarm: "shop", TagRole: "app", TagIndex: "1"}})
		require.NoError(t, err)
		others := foreign(cloud)
		check := guard(cloud, t.Errorf)
		cloud.SetFault(func(_ context.Context, c memcloud.Call) error { check(c); return nil })
		work(t, f, 10*time.Hour, 10*time.Second)

		taken := map[string][]time.Time{}
		for _, c := range cloud.Changes() {
			if c.Method == "CreateSnapshot" && c.Tags[TagDue] != "" {
				taken[c.Tags[TagRole]+"-"+c.Tags[TagIndex]] = append(taken[c.Tags[TagRole]+"-"+c.Tags[TagIndex]], c.Time)
			}
		}
		require.Len(t, taken, 2)
		for slot, times := range taken {
			require.GreaterOrEqual(t, len(times), 10, slot)
			for i := range times[1:] {
				require.InDelta(t, time.Hour, times[i+1].Sub(times[i]), float64(10*time.Second), slot)
			}
		}
		for slot, list := range copiesIn(cloud, "shop") {
			require.Equal(t, slot == "app-1", slices.ContainsFunc(list, func(s provider.Snapshot) bool { return s.ID == byHand.ID }))
			list = slices.DeleteFunc(list, func(s provider.Snapshot) bool { return s.ID == byHand.ID })
			require.Len(t, list, 3, slot)
			require.WithinDuration(t, time.Now(), list[2].Created, time.Hour+10*time.Second)
		}
		require.Equal(t, others, foreign(cloud))
	})
}

// TestSnapshotsAreLookedAtOnlyWhenOneMayBeDue counts the listings of a farm at rest.
func TestSnapshotsAreLookedAtOnlyWhenOneMayBeDue(t *testing.T) {
	for _, s := range []*Snapshots{nil, {Every: 6 * time.Hour, Keep: 2}} {
		synctest.Test(t, func(t *testing.T) {
			cloud := testCloud(memcloud.Options{})
			f, err := New(storeSpec(2, s), testConfig(cloud, nil))
			require.NoError(t, err)
			work(t, f, time.Hour, 10*time.Second)
			before := cloud.Calls()
			work(t, f, 4*time.Hour, 10*time.Second)
			after := cloud.Calls()
			require.Greater(t, after["Volumes"], before["Volumes"]+1000)
			require.Equal(t, before["Snapshots"], after["Snapshots"])
			if s == nil {
				require.Zero(t, after["Snapshots"])
			}
		})
	}
}

// TestTheNewestSnapshotStays lets a role have no machine and no volume for long: nothing is copied, and what is too old goes but for the
// newest.
func TestTheNewestSnapshotStays(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cloud := testCloud(memcloud.Options{})
		f, err := New(storeSpec(1, &Snapshots{Every: time.Hour, MaxAge: 3*time.Hour + time.Minute}), testConfig(cloud, nil))
		require.NoError(t, err)
		work(t, f, 6*time.Hour, time.Minute)
		list := copiesIn(cloud, "shop")["app-1"]
		require.Len(t, list, 3, "those of the last three hours and one minute")
		cloud.SetQuota(memcloud.Quota{Instances: -1, Volumes: -1})
		require.NoError(t, cloud.Kill(world(cloud)[0], "gone"))
		require.NoError(t, cloud.DeleteVolume(t.Context(), list[0].Volume))
		for range 1000 {
			_, _ = f.Reconcile(t.Context())
			time.Sleep(time.Minute)
		}
		require.Equal(t, list[2:], copiesIn(cloud, "shop")["app-1"])
		cloud.SetQuota(memcloud.Quota{})
		for range 100 {
			_, _ = f.Reconcile(t.Context())
			time.Sleep(time.Minute)
		}
		require.WithinDuration(t, time.Now(), copiesIn(cloud, "shop")["app-1"][0].Created, 2*time.Hour, "one that was missed is made good")
	})
}

// TestAFailedSnapshotIsTakenAgain makes the cloud give up on several in a row.
func TestAFailedSnapshotIsTakenAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cloud := testCloud(memcloud.Options{ReadyTime: time.Minute, ListLag: 5 * time.Second})
		var events recorder
		config := testConfig(cloud, nil)
		config.Events, config.Backoff = events.event, time.Minute
		f, err := New(storeSpec(1, &Snapshots{Every: 24 * time.Hour, Keep: 1}), config)
		require.NoError(t, err)
		failed := 0
		var times []time.Time
		for range 600 {
			_, err := f.Reconcile(t.Context())
			require.NoError(t, err)
			for _, s := range copiesIn(cloud, "shop")["app-1"] {
				if !s.Ready && !s.Failed && failed < 4 && time.Since(s.Created) > 20*time.Second {
					failed++
					times = append(times, s.Created)
					require.NoError(t, cloud.FailSnapshot(s.ID, "disk full"))
				}
			}
			time.Sleep(10 * time.Second)
		}
		list := copiesIn(cloud, "shop")["app-1"]
		require.Len(t, list, 1)
		require.True(t, list[0].Ready)
		require.Equal(t, "5", list[0].Tags[TagGeneration])
		times = append(times, list[0].Created)
		for i := range times[1:] {
			require.GreaterOrEqual(t, times[i+1].Sub(times[i]), time.Minute<<i, "a back-off that doubles: %v", times)
		}
		told := map[string]int{}
		for _, k := range events.kinds() {
			told[k]++
		}
		require.Equal(t, 4, told[string(SnapshotFailed)])
		require.Equal(t, 1, told[string(SnapshotDone)])
	})
}

// TestASnapshotThatIsRefusedWaits has no quota for snapshots: the farm tries with a back-off, and launches all the same.
func TestASnapshotThatIsRefusedWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cloud := testCloud(memcloud.Options{Quota: memcloud.Quota{Snapshots: -1}})
		f, err := New(storeSpec(1, &Snapshots{Every: time.Hour, Keep: 1}), testConfig(cloud, nil))
		require.NoError(t, err)
		for range 360 {
			_, _ = f.Reconcile(t.Context())
			time.Sleep(10 * time.Second)
		}
		require.Less(t, cloud.Calls()["CreateSnapshot"], 60)
		require.NoError(t, cloud.Kill(world(cloud)[0], "gone"))
		for range 6 {
			_, _ = f.Reconcile(t.Context())
			time.Sleep(10 * time.Second)
		}
		require.Len(t, world(cloud), 1, "what has no quota for snapshots may be launched")
		cloud.SetQuota(memcloud.Quota{})
		work(t, f, 10*time.Minute, 10*time.Second)
		require.Len(t, copiesIn(cloud, "shop")["app-1"], 1)
	})
}

// needy is a cloud whose snapshots are completed only by another call for the same, as provider/local's are when the program that
// took them was killed.
type needy struct {
	*memcloud.Cloud
	asked map[string]int
}

func (n *needy) Unwrap() provider.Provider { return n.Cloud }

func (n *needy) CreateSnapshot(ctx context.Context, s provider.SnapshotSpec) (provider.Snapshot, error) {
	n.asked[s.Token]++
	got, err := n.Cloud.CreateSnapshot(ctx, s)
	got.Ready = got.Ready && n.asked[s.Token] > 1
	return got, err
}

func (n *needy) Snapshots(ctx context.Context, tags map[string]string) ([]provider.Snapshot, error) {
	list, err := n.Cloud.Snapshots(ctx, tags)
	for i := range list {
		list[i].Ready = list[i].Ready && n.asked[token(provider.SnapshotSpec{Name: list[i].Name, Volume: list[i].Volume, Tags: list[i].Tags})] > 1
	}
	return list, err
}

func TestAHalfTakenSnapshotIsCompleted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cloud := &needy{testCloud(memcloud.Options{}), map[string]int{}}
		spec, config := storeSpec(1, &Snapshots{Every: time.Hour, Keep: 1}), testConfig(cloud, nil)
		f, err := New(spec, config)
		require.NoError(t, err)
		work(t, f, 90*time.Second, 10*time.Second)
		require.Len(t, copiesIn(cloud.Cloud, "shop")["app-1"], 1)
		f, err = New(spec, config)
		require.NoError(t, err)
		p, err := f.Plan(t.Context())
		require.NoError(t, err)
		require.Len(t, p.Steps, 1)
		require.Contains(t, p.String(), "asks for the same again, so that it is completed")
		work(t, f, 30*time.Minute, 10*time.Second)
		require.Len(t, cloud.asked, 1, "the same one")
		list, err := cloud.Snapshots(t.Context(), map[string]string{TagFarm: "shop"})
		require.NoError(t, err)
		require.Len(t, list, 1)
		require.True(t, list[0].Ready)
	})
}

func TestADatabaseIsCopiedFromAReplica(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		spec := dbSpec(3)
		spec.Roles[0].Volume = &Volume{SizeGB: 1, Snapshots: &Snapshots{Every: 10 * time.Minute, Keep: 2}}
		s := newShopDB(t, spec, memcloud.Options{BootTime: 5 * time.Second})
		stop := s.run(t)
		time.Sleep(25 * time.Minute)
		require.Equal(t, "db-1", s.primary())
		count := func() (list []string) {
			for _, x := range s.cloud.Changes() {
				if x.Method == "CreateSnapshot" {
					list = append(list, x.Tags[TagIndex])
				}
			}
			return list
		}
		first := count()
		require.Len(t, first, 3, "one volume each time")
		require.NotEqual(t, "1", first[0], "it is no primary's")
		require.Equal(t, []string{first[0], first[0], first[0]}, first, "the same one")
		require.NoError(t, s.manager.Switchover(t.Context(), "db-"+first[0]))
		time.Sleep(10 * time.Minute)
		require.Len(t, count(), 4)
		require.NotEqual(t, first[0], count()[3])
		require.Len(t, s.cloud.World(map[string]string{TagFarm: "shop"}).Snapshots, 2, "the members' snapshots are counted together")
		stop()

		alone := newShopDB(t, func() Spec {
			spec := dbSpec(1)
			spec.Roles[0].Volume = &Volume{SizeGB: 1, Snapshots: &Snapshots{Every: 10 * time.Minute, Keep: 2}}
			return spec
		}(), memcloud.Options{BootTime: 5 * time.Second})
		defer alone.run(t)()
		time.Sleep(5 * time.Minute)
		require.Len(t, alone.cloud.World(map[string]string{TagFarm: "shop"}).Snapshots, 1, "without a replica it is the primary")
	})
}

// diskCloud is a cloud that has machines and volumes.
type diskCloud struct {
	provider.Provider
	disks
}

type disks interface{ provider.Volumes }

func TestFaultsOfSnapshotsAreNamed(t *testing.T) {
	cloud := memcloud.New(memcloud.Options{})
	bare := diskCloud{cloud, cloud}
	for _, c := range []struct {
		volume Volume
		config Config
		want   string
	}{
		{Volume{SizeGB: 1, Snapshots: &Snapshots{Keep: 1}}, testConfig(cloud, nil), "volume.snapshots.every: 0s, want more than the 10s of config.ListLag"},
		{Volume{SizeGB: 1, Snapshots: &Snapshots{Every: time.Hour}}, testConfig(cloud, nil), "volume.snapshots: has neither keep nor max_age"},
		{Volume{SizeGB: 1, Snapshots: &Snapshots{Every: time.Hour, Keep: -1}}, testConfig(cloud, nil), "volume.snapshots.keep: -1 is negative"},
		{Volume{SizeGB: 1, Snapshots: &Snapshots{Every: time.Hour, MaxAge: -1}}, testConfig(cloud, nil), "volume.snapshots.max_age: -1ns is negative"},
		{Volume{SizeGB: 1, Snapshots: &Snapshots{Every: time.Hour, Keep: 1}}, testConfig(&bare, nil), "volume.snapshots: the provider of pool \"a\""},
		{Volume{SizeGB: 1, From: &Source{}}, testConfig(&bare, nil), "volume.from: the provider of pool \"a\""},
		{Volume{SizeGB: 1, From: &Source{Farm: "Shop"}}, testConfig(cloud, nil), "volume.from.farm: \"Shop\" is no DNS label"},
		{Volume{SizeGB: 1, From: &Source{Role: "a_b"}}, testConfig(cloud, nil), "volume.from.role: \"a_b\" is no DNS label"},
	} {
		spec := storeSpec(1, nil)
		spec.Roles[0].Volume = &c.volume
		_, err := New(spec, c.config)
		require.ErrorContains(t, err, "spec.roles[0] (app)."+c.want)
	}
	require.Zero(t, len(cloud.Calls()))
}

// TestDecideOfSnapshotsIsPure gives the same plan for the same facts, whatever the order of the list.
func TestDecideOfSnapshotsIsPure(t *testing.T) {
	spec := storeSpec(1, &Snapshots{Every: time.Hour, Keep: 2}).withDefaults()
	config := Config{Pools: []Pool{{Name: "a", Provider: memcloud.New(memcloud.Options{})}}}.withDefaults()
	now := time.Date(2026, 5, 1, 12, 0, 0, 0, time.UTC)
	o := observation{at: now, clouds: config.clouds()}
	tags := tagsOf("shop", slot{"app", 1}, "a")
	o.clouds[0].instances.items = []provider.Instance{{ID: "i", State: provider.Running, Launched: now.Add(-24 * time.Hour), Tags: tags}}
	o.clouds[0].volumes.items = []provider.Volume{{ID: "v", Ready: true, Instance: "i", Created: now.Add(-24 * time.Hour), Tags: tags}}
	var shots []provider.Snapshot
	for i := range 5 {
		s := provider.Snapshot{ID: fmt.Sprintf("s%d", i), Volume: "v", Ready: true, Created: now.Add(time.Duration(i-6) * time.Hour), Tags: tagsOf("shop", slot{"app", 1}, "a")}
		s.Tags[TagDue] = clock(s.Created)
		shots = append(shots, s)
	}
	rapid.Check(t, func(t *rapid.T) {
		o.clouds[0].snapshots = []snapshotsOf{{"shop", listing[provider.Snapshot]{items: rapid.Permutation(shots).Draw(t, "order")}}}
		p, _, _ := decide(spec, &config, nil, o, history{started: now.Add(-time.Hour)})
		slices.SortFunc(p.Steps, func(a, b Step) int { return cmp.Or(cmp.Compare(a.Action, b.Action), cmp.Compare(a.Subject, b.Subject)) })
		want := "create-snapshot app-1 in a: of v: the last one is of 2026-05-01T10:00:00Z, and there is one every 1h0m0s\n" +
			"delete-snapshot app-1 s0 in a: there are 4 newer ones, and 2 are kept\n" +
			"delete-snapshot app-1 s1 in a: there are 3 newer ones, and 2 are kept\n" +
			"delete-snapshot app-1 s2 in a: there are 2 newer ones, and 2 are kept\n"
		if got := p.String(); got != want {
			t.Fatalf("got\n%s\nwant\n%s", got, want)
		}
	})
}
