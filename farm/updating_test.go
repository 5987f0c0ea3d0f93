package farm

import (
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/scalr-go/scalr/provider/memcloud"
)

// A plan says how an update goes on before anything is done, and how far it is.
func TestPlanOfAnUpdate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRolling(t, memcloud.Options{BootTime: 10 * time.Second})
		role := &r.spec.Roles[0]
		plan := func() Plan {
			p, err := r.farm.Plan(t.Context())
			require.NoError(t, err)
			return p
		}
		require.Empty(t, plan().Updates)
		before := world(r.cloud)
		role.Image, role.Update = "web-2", &Update{AtOnce: 2}
		r.start(t)
		require.Contains(t, plan().String(), strings.Join([]string{
			"update www: 0 of 6 machines are made of what the role has now",
			"    now     www-1",
			"    next    www-2, www-3, www-4, www-5, www-6",
			"    2 at a time, each drained, ended and followed by a successor in its place; the first one alone; if that does not come to serve, the role goes on with what it had",
		}, "\n"))
		require.Equal(t, before, world(r.cloud))
		turns(t, r.farm, 100, func() bool { u := plan().Updates; return len(u) == 1 && u[0].Done == 1 && len(u[0].Now) == 2 })
		require.Contains(t, plan().String(), strings.Join([]string{
			"update www: 1 of 6 machines are made of what the role has now",
			"    now     www-2, www-3",
			"    next    www-4, www-5, www-6",
			"    2 at a time, each drained, ended and followed by a successor in its place\n",
		}, "\n"))
		role.Update = &Update{Surge: true, Share: 0.5, Pause: true, Before: &Made{Image: "web"}}
		r.start(t)
		turns(t, r.farm, 100, func() bool {
			return len(world(r.cloud)) == 6 && len(plan().Updates) == 1 && plan().Updates[0].Now == nil && plan().Empty()
		})
		p := plan()
		require.Contains(t, p.String(), "    paused  www-")
		require.Contains(t, p.String(), "    3 at a time, each when a successor serves\n")
		require.Empty(t, p.Updates[0].Now)
		role.Update.Pause = false
		r.start(t)
		r.roll(t, "web-2")
		require.Empty(t, plan().Updates)
	})
}

// The primary of a database comes last.
func TestPlanOfAnUpdateOfADatabase(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		spec := dbSpec(3)
		spec.Roles[0].Update = &Update{Before: &Made{Image: "mariadb"}}
		s := newShopDB(t, spec, memcloud.Options{BootTime: 5 * time.Second})
		stop := s.run(t)
		time.Sleep(time.Minute)
		stop()
		spec.Roles[0].Image = "mariadb-2"
		s.restart(t, spec)
		defer s.run(t)()
		var u Updating
		for u.Machines < 3 || len(u.Now) == 0 {
			time.Sleep(100 * time.Millisecond)
			p, err := s.farm.Plan(t.Context())
			require.NoError(t, err)
			if len(p.Updates) > 0 && s.primary() == "db-1" {
				u = p.Updates[0]
			}
		}
		require.Equal(t, "db-1", append(u.Now, u.Next...)[2], "%+v", u)
		require.Contains(t, u.String(), "one at a time; a replica takes over from the primary, which is the last one; if that does not come to serve, the role goes on with what it had")
	})
}

// A plan says when the farm closes, opens and ends, and what is left of it then.
func TestPlanOfHoursAndEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) { // it begins on a Saturday, at midnight
		spec, config := storeSpec(1, nil), testConfig(testCloud(memcloud.Options{}), testZone())
		due := func() string {
			f, err := New(spec, config)
			require.NoError(t, err)
			p, err := f.Plan(t.Context())
			require.NoError(t, err)
			var all []string
			for _, d := range p.Due {
				require.Contains(t, p.String(), d.String()+"\n")
				all = append(all, d.String())
			}
			return strings.Join(all, "\n")
		}
		require.Empty(t, due())
		spec.Hours = &Hours{Open: "0 9 * * mon-fri", Close: "0 17 * * mon-fri"}
		require.Equal(t, "at 2000-01-03T09:00:00Z: the farm opens: it is launched, with its volumes from the snapshots that are kept", due())
		spec.End = &End{At: time.Date(2000, 1, 4, 8, 0, 0, 0, time.UTC), TerminateOptions: TerminateOptions{DeleteVolumes: true, FinalSnapshot: true, DeleteSnapshots: true}}
		time.Sleep(time.Until(time.Date(2000, 1, 3, 10, 0, 0, 0, time.UTC)))
		require.Equal(t, "at 2000-01-03T17:00:00Z: the farm closes: all is ended, and a last snapshot of each volume is kept\n"+
			"at 2000-01-04T08:00:00Z: the farm ends: it keeps a last snapshot of each volume", due())
		time.Sleep(10 * time.Hour)
		spec.End.TerminateOptions = TerminateOptions{DeleteVolumes: true, DeleteSnapshots: true}
		require.Equal(t, "at 2000-01-04T08:00:00Z: the farm ends: nothing is kept", due(), "it does not open before")
		spec.End.TerminateOptions, spec.Hours = TerminateOptions{KeepNames: true, KeepAddresses: true}, nil
		require.Equal(t, "at 2000-01-04T08:00:00Z: the farm ends: it keeps its volumes, the snapshots by schedule, its addresses, its names", due())
	})
}
