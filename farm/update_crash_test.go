package farm

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/scalr-go/scalr/provider"
	"github.com/scalr-go/scalr/provider/memcloud"
)

// launches counts the machines of the farm that were ever launched.
func launches(c *memcloud.Cloud) (n int) {
	for _, x := range c.Changes() {
		if x.Method == "Launch" && x.Tags[TagFarm] == "shop" {
			n++
		}
	}
	return n
}

// images counts machines by their image.
func images(all []provider.Instance) map[string]int {
	n := map[string]int{}
	for _, in := range all {
		n[in.Image]++
	}
	return n
}

// A host that dies at any change of a rolling update, before or after its effect, leaves an update that another host ends: nothing
// is launched twice, nothing is given up, and what slots own is what they owned.
func TestUpdateIsKilledAtEachChange(t *testing.T) {
	for name, change := range map[string]func(*Role){
		"plain":    func(*Role) {},
		"surge":    func(r *Role) { r.Update.Surge = true },
		"owns":     func(r *Role) { r.Volume, r.Address = &Volume{SizeGB: 1}, true },
		"balancer": func(r *Role) { r.Balancer = &Balancer{Protocol: "tcp", Port: 80} },
	} {
		for _, lag := range []time.Duration{0, 2 * time.Second} {
			for _, after := range []bool{false, true} {
				t.Run(fmt.Sprint(name, ",", lag, ",", after), func(t *testing.T) {
					kills := 0
					for done := false; !done && !t.Failed(); {
						synctest.Test(t, func(t *testing.T) { done = !updateKilled(t, change, lag, kills+1, after) })
						kills++
					}
					require.Greater(t, kills, 6)
				})
			}
		}
	}
}

// updateKilled kills the host at a change of an update, and reports whether there was such a change.
func updateKilled(t *testing.T, change func(*Role), lag time.Duration, kill int, after bool) (killed bool) {
	cloud := testCloud(memcloud.Options{BootTime: 3 * time.Second, ListLag: lag, TerminateTime: 2 * time.Second, ReadyTime: time.Second})
	others := foreign(cloud)
	spec, config := web(3, 4), testConfig(cloud, testZone())
	role := &spec.Roles[0]
	role.Update, role.Drain = &Update{}, 2*time.Second
	change(role)
	f, err := New(spec, config)
	require.NoError(t, err)
	require.NoError(t, passes(t.Context(), f, 200, 2))
	before := cloud.World(map[string]string{TagFarm: "shop"})

	role.Image = "web-2"
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	h := &host{kill: kill, after: after, steps: true, killed: cancel}
	cloud.SetFault(h.fault)
	f, err = New(spec, config)
	require.NoError(t, err)
	killed = passes(ctx, f, 400, 2) != nil
	cloud.SetFault(nil)

	f, err = New(spec, config)
	require.NoError(t, err)
	require.NoError(t, passes(t.Context(), f, 600, 6), "killed at %d", kill)
	require.NoError(t, settled(cloud, spec), "killed at %d", kill)
	w := cloud.World(map[string]string{TagFarm: "shop"})
	require.Equal(t, map[string]int{"web-2": 3}, images(w.Instances))
	require.Len(t, w.Volumes, len(before.Volumes))
	for i := range w.Volumes {
		require.Equal(t, before.Volumes[i].ID, w.Volumes[i].ID)
	}
	require.Len(t, w.Addresses, len(before.Addresses))
	require.Equal(t, 6, launches(cloud), "killed at %d", kill)
	require.Equal(t, others, foreign(cloud))
	return killed
}

// A host that dies at any change of an update to a bad image leaves one that the next host takes back: one machine of those that
// served is replaced, or none if successors come first, each host tries one of the bad image, and nothing of it is left.
func TestBadUpdateIsKilledAtEachChange(t *testing.T) {
	for _, surge := range []bool{false, true} {
		for _, after := range []bool{false, true} {
			t.Run(fmt.Sprint(surge, ",", after), func(t *testing.T) {
				kills := 0
				for done := false; !done && !t.Failed(); {
					synctest.Test(t, func(t *testing.T) { done = !badUpdateKilled(t, surge, kills+1, after) })
					kills++
				}
				require.Greater(t, kills, 2)
			})
		}
	}
}

func badUpdateKilled(t *testing.T, surge bool, kill int, after bool) (killed bool) {
	r := newRolling(t, memcloud.Options{BootTime: 10 * time.Second, TerminateTime: time.Second})
	role, before := &r.spec.Roles[0], world(r.cloud)
	good := r.cloud.World(map[string]string{TagFarm: "shop"}).Instances[0].Tags[TagBuild]
	role.Image, role.Update = "broken-web", &Update{AtOnce: 3, Surge: surge}
	stay := len(before)
	if !surge {
		stay--
	}
	back := func() bool {
		kept := 0
		for _, id := range world(r.cloud) {
			if slices.Contains(before, id) {
				kept++
			}
		}
		require.GreaterOrEqual(t, kept, stay, "killed at %d", kill)
		return slices.Contains(r.events.kinds(), string(UpdateFailed)) && maps.Equal(r.images(), map[string]int{"web": 6}) &&
			maps.Equal(images(r.cloud.World(map[string]string{TagFarm: "shop"}).Instances), map[string]int{"web": 6})
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	h := &host{kill: kill, after: after, steps: true, killed: cancel}
	r.cloud.SetFault(h.fault)
	r.start(t)
	for end := time.Now().Add(time.Hour); ctx.Err() == nil && !back() && time.Now().Before(end); time.Sleep(5 * time.Second) {
		_, _ = r.farm.Reconcile(ctx)
	}
	killed = ctx.Err() != nil
	r.cloud.SetFault(nil)
	r.events = record(&r.config)
	r.start(t)
	turns(t, r.farm, 1000, back)
	for range 100 {
		p, err := r.farm.Reconcile(t.Context())
		require.NoError(t, err)
		require.True(t, p.Empty() && back(), "killed at %d: %s", kill, p)
		time.Sleep(5 * time.Second)
	}
	bad := 0
	for _, x := range r.cloud.Changes() {
		if x.Method == "Launch" && x.Tags[TagFarm] == "shop" && x.Tags[TagBuild] != good {
			bad++
		}
	}
	require.LessOrEqual(t, bad, 2, "killed at %d", kill)
	return killed
}

// The same with a database: at no kill is a row lost, or a third member missing in the end.
func TestDatabaseUpdateIsKilledAtEachChange(t *testing.T) {
	kills := 0
	for done := false; !done && !t.Failed(); {
		synctest.Test(t, func(t *testing.T) { done = !databaseUpdateKilled(t, kills+1, kills%2 == 1) })
		kills++
	}
	require.Greater(t, kills, 5)
}

func databaseUpdateKilled(t *testing.T, kill int, after bool) (killed bool) {
	spec := dbSpec(3)
	spec.Roles[0].Update, spec.Roles[0].Volume = &Update{}, &Volume{SizeGB: 1}
	s := newShopDB(t, spec, memcloud.Options{BootTime: 5 * time.Second, TerminateTime: time.Second})
	stop := s.run(t)
	time.Sleep(time.Minute)
	primary := func() string { return values(t, s.config, "shop.example.", "db.shop.example.", "A")[0] + ":3306" }
	require.NoError(t, s.db.Write(t.Context(), primary(), "row", "v"))
	stop()
	spec.Roles[0].Image = "mariadb-11"
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	h := &host{kill: kill, after: after, steps: true, killed: cancel}
	s.cloud.SetFault(h.fault)
	s.restart(t, spec)
	stop = s.run(t)
	select {
	case <-ctx.Done():
		killed = true
	case <-time.After(20 * time.Minute):
	}
	stop()
	s.cloud.SetFault(nil)
	s.restart(t, spec)
	defer s.run(t)()
	time.Sleep(20 * time.Minute)
	require.Equal(t, 3, s.ready(), "killed at %d", kill)
	w := s.cloud.World(map[string]string{TagFarm: "shop"})
	require.Equal(t, map[string]int{"mariadb-11": 3}, images(w.Instances))
	require.Len(t, w.Volumes, 3)
	rows, err := s.db.Rows(t.Context(), primary())
	require.NoError(t, err)
	require.Len(t, rows, 1)
	require.Equal(t, 6, launches(s.cloud), "killed at %d", kill)
	return killed
}

// An update of the size replaces all machines.
func TestUpdateOfSize(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRolling(t, memcloud.Options{BootTime: 10 * time.Second})
		r.spec.Roles[0].Update = &Update{AtOnce: 2}
		r.spec.Roles[0].Size = "large"
		before := world(r.cloud)
		r.start(t)
		require.NoError(t, passes(t.Context(), r.farm, 400, 2))
		for _, in := range r.cloud.World(map[string]string{TagFarm: "shop"}).Instances {
			require.Equal(t, "large", in.Size)
			require.NotContains(t, before, in.ID)
		}
	})
}
