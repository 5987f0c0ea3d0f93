package farm

import (
	"context"
	"errors"
	"os"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/scalr-go/scalr/provider"
	"github.com/scalr-go/scalr/provider/memcloud"
	"github.com/scalr-go/scalr/replication"
	"github.com/scalr-go/scalr/replication/memdb"
)

// backedUp gives a cloud with a shop whose volumes have been copied, and a drill of it that wants to find what was copied.
func backedUp(t *testing.T) (*memcloud.Cloud, Drill) {
	cloud := testCloud(memcloud.Options{BootTime: 20 * time.Second, ReadyTime: 5 * time.Second, ListLag: 2 * time.Second})
	shop, err := New(storeSpec(2, &Snapshots{Every: time.Hour, Keep: 2}), testConfig(cloud, nil))
	require.NoError(t, err)
	work(t, shop, 10*time.Minute, 5*time.Second)
	write(t, cloud, "shop", "orders")
	work(t, shop, time.Hour, 10*time.Second)
	spec := storeSpec(2, nil)
	spec.Name, spec.Roles[0].Volume.From = "drill-shop", &Source{Farm: "shop"}
	return cloud, Drill{Spec: spec, Config: testConfig(cloud, nil), Timeout: 30 * time.Minute, Check: func(_ context.Context, f *Farm) error {
		for _, s := range f.Servers("app") {
			for _, v := range cloud.World(map[string]string{TagFarm: "drill-shop"}).Volumes {
				if v.Instance == s.ID && cloud.Content(v.ID) != s.Name+" orders" {
					return errors.New("orders are missing on " + s.Name)
				}
			}
		}
		return nil
	}}
}

func TestADrillProvesABackup(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cloud, d := backedUp(t)
		before := cloud.World(map[string]string{TagFarm: "shop"})
		report, err := d.Run(t.Context())
		require.NoError(t, err)
		require.Equal(t, "drill-shop", report.Farm)
		require.Len(t, report.Restored, 2)
		for i, r := range report.Restored {
			require.Equal(t, Restored{"app", i + 1, "shop", r.Snapshot, r.Taken}, r)
			list := copiesIn(cloud, "shop")["app-"+string(rune('1'+i))]
			require.Equal(t, list[len(list)-1].ID, r.Snapshot)
			require.Equal(t, list[len(list)-1].Created, r.Taken)
		}
		require.Greater(t, report.Serving, 20*time.Second)
		require.Less(t, report.Serving, 5*time.Minute)
		require.Zero(t, cloud.World(map[string]string{TagFarm: "drill-shop"}).Len(), "nothing is left of it")
		require.Equal(t, before, cloud.World(map[string]string{TagFarm: "shop"}), "the shop is as it was")
	})
}

// TestADrillFindsABadBackup has a snapshot with other data, then none, then machines that do not come up.
func TestADrillFindsABadBackup(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cloud, d := backedUp(t)
		v := volumesOf(t, cloud, "shop")["app-2"]
		require.NoError(t, cloud.SetContent(v.ID, "garbage"))
		_, err := cloud.CreateSnapshot(t.Context(), provider.SnapshotSpec{Token: "s", Volume: v.ID, Tags: map[string]string{TagFarm: "shop", TagRole: "app", TagIndex: "2"}})
		require.NoError(t, err)
		time.Sleep(time.Minute)
		report, err := d.Run(t.Context())
		require.ErrorContains(t, err, "the check was not passed: orders are missing on app-2")
		require.Len(t, report.Restored, 2)
		require.Zero(t, cloud.World(map[string]string{TagFarm: "drill-shop"}).Len())

		d.Spec.Roles[0].Volume.From = &Source{Farm: "unknown"}
		_, err = d.Run(t.Context())
		require.ErrorContains(t, err, "the farm did not come to serve: 0 of 2 machines of role app serve")
		require.Zero(t, cloud.World(map[string]string{TagFarm: "drill-shop"}).Len())

		d.Spec.Roles[0].Volume.From = &Source{Farm: "shop"}
		ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
		defer cancel()
		_, err = d.Run(ctx)
		require.ErrorIs(t, err, context.DeadlineExceeded)
		require.Zero(t, cloud.World(map[string]string{TagFarm: "drill-shop"}).Len(), "it is ended when the caller gives up as well")
	})
}

// TestHostKilledDuringADrill kills the host program at some calls of a drill and makes it again: nothing is left.
func TestHostKilledDuringADrill(t *testing.T) {
	kills := 0
	for _, after := range []bool{false, true} {
		for kill, done := 1, false; !done; kill += 3 {
			synctest.Test(t, func(t *testing.T) {
				cloud, d := backedUp(t)
				before := cloud.World(map[string]string{TagFarm: "shop"})
				h := &host{kill: kill, after: after, killed: func() {}}
				cloud.SetFault(h.fault)
				short := d
				short.Timeout = time.Minute // its end cannot come: the cloud refuses a dead program
				_, err := short.Run(t.Context())
				if err == nil {
					done = true
				} else {
					kills++
				}
				cloud.SetFault(nil)
				report, err := d.Run(t.Context())
				require.NoError(t, err, "killed at call %d", kill)
				require.Len(t, report.Restored, 2)
				require.Zero(t, cloud.World(map[string]string{TagFarm: "drill-shop"}).Len(), "killed at call %d", kill)
				require.Equal(t, before, cloud.World(map[string]string{TagFarm: "shop"}))
			})
		}
	}
	t.Logf("killed %d times", kills)
	require.Greater(t, kills, 20)
}

func TestFaultsOfADrillAreNamed(t *testing.T) {
	cloud := memcloud.New(memcloud.Options{})
	spec := storeSpec(1, nil)
	_, err := Drill{Spec: spec, Config: testConfig(cloud, nil), Timeout: -1}.Run(t.Context())
	require.ErrorContains(t, err, `drill.Spec.Name: "shop", want a name that begins with "drill-"`)
	require.ErrorContains(t, err, "drill.Spec.Roles: no role with machines has a volume from another farm")
	require.ErrorContains(t, err, "drill.Check: is nil")
	require.ErrorContains(t, err, "drill.Timeout: -1ns is negative")
	require.Empty(t, cloud.Calls())
}

// TestADrillProvesABackupFile has a database that is copied to files by its manager: a farm of its own is filled from the newest.
func TestADrillProvesABackupFile(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		shop := memdb.New(memdb.Options{})
		m := replication.Member{ID: "db-1", Addr: "shop:3306"}
		shop.Start(m.Addr)
		manager, err := replication.New(replication.Config{Name: "shop/db", Engine: shop,
			Backups: &replication.Backups{Dir: dir, Every: time.Hour, Keep: 2}})
		require.NoError(t, err)
		manager.SetMembers([]replication.Member{m}, 1)
		running, stop := context.WithCancel(t.Context())
		ended := make(chan error)
		go func() { ended <- manager.Run(running) }()
		time.Sleep(time.Minute)
		require.NoError(t, shop.Write(t.Context(), m.Addr, "orders", "7"))
		time.Sleep(time.Minute)
		stop()
		<-ended

		spec := dbSpec(2)
		spec.Name, spec.Zone = "drill-shop", ""
		spec.Roles[0].Aliases, spec.TTL = nil, 0
		db := memdb.New(memdb.Options{})
		addrs := map[string]string{}
		cloud := testCloud(memcloud.Options{BootTime: 5 * time.Second, OnState: func(in provider.Instance) {
			if in.State == provider.Running {
				addrs[in.ID] = in.Private.String() + ":3306"
				db.Start(addrs[in.ID])
			} else {
				db.Crash(addrs[in.ID])
			}
		}})
		drill := func(name string) Drill {
			config := testConfig(cloud, nil)
			own, err := replication.New(replication.Config{Name: "drill-shop/db", Engine: db, Origin: &replication.Origin{
				Backup: func(context.Context) (string, error) { return replication.LatestBackup(dir, name) },
			}})
			require.NoError(t, err)
			config.Databases = map[string]*replication.Manager{"db": own}
			return Drill{Spec: spec, Config: config, Timeout: 10 * time.Minute, Check: func(ctx context.Context, f *Farm) error {
				for _, s := range f.Servers("db") {
					if rows, err := db.Rows(ctx, s.Private.String()+":3306"); err != nil || rows["orders"] != "7" {
						return errors.New("orders are missing on " + s.Name)
					}
				}
				return nil
			}}
		}
		report, err := drill("shop/db").Run(t.Context())
		require.NoError(t, err)
		latest, err := replication.LatestBackup(dir, "shop/db")
		require.NoError(t, err)
		require.Len(t, report.Restored, 1)
		require.Equal(t, Restored{Role: "db", Source: "shop/db", Snapshot: latest, Taken: report.Restored[0].Taken}, report.Restored[0])
		require.WithinDuration(t, time.Now(), report.Restored[0].Taken, time.Hour)
		require.Zero(t, cloud.World(map[string]string{TagFarm: "drill-shop"}).Len(), "nothing is left of it")

		text, err := os.ReadFile(latest)
		require.NoError(t, err)
		require.NoError(t, os.WriteFile(latest, text[:len(text)-1], 0o600))
		_, err = drill("shop/db").Run(t.Context())
		require.ErrorContains(t, err, "the farm did not come to serve: 0 of 2 machines of role db serve, db-1: import failed: the backup "+latest+": it is no whole backup")
		require.Zero(t, cloud.World(map[string]string{TagFarm: "drill-shop"}).Len(), "nothing is left of it")
	})
}
