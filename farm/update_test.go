package farm

import (
	"context"
	"errors"
	"maps"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/scalr-go/scalr/provider/memcloud"
)

// rolling is a farm of six web servers that are updated by changing the spec.
type rolling struct {
	cloud  *memcloud.Cloud
	spec   Spec
	config Config
	events *recorder
	farm   *Farm
}

func newRolling(t require.TestingT, o memcloud.Options) *rolling {
	r := &rolling{cloud: testCloud(o), spec: web(6, 8)}
	r.config = testConfig(r.cloud, testZone())
	r.events = record(&r.config)
	r.spec.Roles[0].Update = &Update{}
	r.spec.Roles[0].Health = &Health{Custom: "check"}
	r.spec.Roles[0].LaunchTimeout, r.spec.Roles[0].Drain = time.Minute, 2*time.Second
	r.config.Checks = map[string]func(context.Context, Server) error{"check": func(_ context.Context, s Server) error {
		for _, in := range r.cloud.World(nil).Instances {
			if in.ID == s.ID && strings.HasPrefix(in.Image, "broken") {
				return errors.New("exec format error")
			}
		}
		return nil
	}}
	r.start(t)
	require.NoError(t, passes(context.Background(), r.farm, 200, 2))
	return r
}

// start is another run of the host program, perhaps with another spec.
func (r *rolling) start(t require.TestingT) {
	var err error
	r.farm, err = New(r.spec, r.config)
	require.NoError(t, err)
}

// images counts the machines that serve, by image.
func (r *rolling) images() map[string]int {
	images := map[string]int{}
	for _, s := range r.farm.Servers("www") {
		for _, in := range r.cloud.World(nil).Instances {
			if in.ID == s.ID && s.Ready {
				images[in.Image]++
			}
		}
	}
	return images
}

// roll makes passes until all serve with the image, and gives the lowest number that served.
func (r *rolling) roll(t require.TestingT, image string) int {
	lowest := 100
	turns(t, r.farm, 1000, func() bool {
		images, n := r.images(), 0
		for _, k := range images {
			n += k
		}
		lowest = min(lowest, n)
		return maps.Equal(images, map[string]int{image: 6}) && len(world(r.cloud)) == 6
	})
	require.NoError(t, passes(context.Background(), r.farm, 100, 2))
	return lowest
}

// Machines stay as they are until the role says how to update them; then a few at a time, each successor with what the
// index owns.
func TestRollingUpdate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRolling(t, memcloud.Options{BootTime: 10 * time.Second})
		role := &r.spec.Roles[0]
		role.Update, role.Image = nil, "web-2"
		r.start(t)
		require.NoError(t, passes(t.Context(), r.farm, 100, 5))
		require.Equal(t, map[string]int{"web": 6}, r.images())

		role.Update = &Update{Pause: true, AtOnce: 2}
		r.start(t)
		for range 10 {
			p, err := r.farm.Reconcile(t.Context())
			require.NoError(t, err)
			require.True(t, p.Empty())
			require.Contains(t, p.String(), "wait www: 6 machines are outdated, and the update is paused")
		}
		role.Update.Pause = false
		r.start(t)
		require.Equal(t, 4, r.roll(t, "web-2"))
		require.Contains(t, r.events.kinds(), string(UpdateDone))
		for i, s := range r.farm.Servers("www") {
			require.Equal(t, i+1, s.Index)
		}

		// The whole at once would be six, but for the first, which must prove itself.
		role.Update, role.Version = &Update{Share: 1}, "2"
		r.start(t)
		before := world(r.cloud)
		require.Equal(t, 1, r.roll(t, "web-2"))
		for _, id := range world(r.cloud) {
			require.NotContains(t, before, id)
		}

		role.Update, role.Image = &Update{Surge: true, AtOnce: 2}, "web-3"
		r.start(t)
		require.Equal(t, 6, r.roll(t, "web-3"), "no fewer than all serve at any time")
	})
}

// What the index owns goes over to the successor.
func TestUpdateKeepsVolumeAndAddress(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRolling(t, memcloud.Options{BootTime: 10 * time.Second})
		require.NoError(t, r.farm.Terminate(t.Context(), TerminateOptions{}))
		role := &r.spec.Roles[0]
		role.Volume, role.Address, role.Update = &Volume{SizeGB: 1}, true, &Update{AtOnce: 3, Surge: true}
		r.start(t)
		require.NoError(t, passes(t.Context(), r.farm, 200, 2))
		owns := func() map[string]string {
			w := r.cloud.World(map[string]string{TagFarm: "shop"})
			of := map[string]string{}
			for _, s := range r.farm.Servers("www") {
				for _, v := range w.Volumes {
					if v.Instance == s.ID {
						of[s.Name] += v.ID + " "
					}
				}
				of[s.Name] += s.Public.String()
			}
			return of
		}
		before := owns()
		require.Len(t, before, 6)
		role.Image = "web-2"
		r.start(t)
		r.roll(t, "web-2")
		require.Equal(t, before, owns())
	})
}

// A bad image ends at its first machine, and the role has all its machines of the old one again.
func TestBadUpdateIsRolledBack(t *testing.T) {
	for _, image := range []string{"broken-web", "no-such-image"} {
		t.Run(image, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newRolling(t, memcloud.Options{BootTime: 10 * time.Second, Images: []string{"web", "web-2", "broken-web"}})
				role := &r.spec.Roles[0]
				role.Image, role.Update = image, &Update{AtOnce: 3}
				before := world(r.cloud)
				r.start(t)
				turns(t, r.farm, 1000, func() bool {
					kept := 0
					for _, id := range world(r.cloud) {
						if slices.Contains(before, id) {
							kept++
						}
					}
					require.GreaterOrEqual(t, kept, 5)
					return slices.Contains(r.events.kinds(), string(UpdateFailed)) && maps.Equal(r.images(), map[string]int{"web": 6})
				})
				for range 300 {
					p, err := r.farm.Reconcile(t.Context())
					require.NoError(t, err)
					require.True(t, p.Empty(), "%s", p)
					require.Contains(t, p.String(), "wait www: 6 machines are outdated and stay so")
					time.Sleep(10 * time.Second)
				}
				// The next image is another matter.
				role.Image = "web-2"
				r.start(t)
				r.roll(t, "web-2")
			})
		})
	}
}

// A bad machine that ends by itself is the only one of its image, and the one that takes its place waits for nothing: it is the
// image that was bad, not the place.
func TestBadUpdateThatEndsByItself(t *testing.T) {
	for name, end := range map[string]func(*memcloud.Cloud, string, string) error{"failed": (*memcloud.Cloud).Fail, "terminated": (*memcloud.Cloud).Kill} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newRolling(t, memcloud.Options{BootTime: 10 * time.Second})
				r.config.Backoff = time.Hour
				role := &r.spec.Roles[0]
				role.Image, role.Update = "broken-web", &Update{AtOnce: 3}
				r.start(t)
				bad, began := map[string]bool{}, time.Now()
				turns(t, r.farm, 100, func() bool {
					for _, in := range r.cloud.World(map[string]string{TagFarm: "shop"}).Instances {
						if in.Image == "broken-web" && !bad[in.ID] {
							bad[in.ID] = true
							require.NoError(t, end(r.cloud, in.ID, "exec format error"))
						}
					}
					return len(bad) > 0 && maps.Equal(r.images(), map[string]int{"web": 6})
				})
				require.Len(t, bad, 1)
				require.Less(t, time.Since(began), time.Minute)
				require.Contains(t, r.events.kinds(), string(UpdateFailed))
			})
		})
	}
}

// An update whose later machines come to nothing is given up too: what serves of it stays, the others go on with what they had.
func TestUpdateThatTurnsBad(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRolling(t, memcloud.Options{BootTime: 10 * time.Second})
		role := &r.spec.Roles[0]
		role.Image, role.Update = "web-2", &Update{AtOnce: 1}
		r.start(t)
		good, bad, began := "", map[string]bool{}, time.Now()
		turns(t, r.farm, 2000, func() bool {
			for _, in := range r.cloud.World(map[string]string{TagFarm: "shop"}).Instances {
				switch {
				case in.Image != "web-2" || in.ID == good || bad[in.ID]:
				case good == "":
					good = in.ID
				default:
					bad[in.ID] = true
					require.NoError(t, r.cloud.Fail(in.ID, "no space left"))
				}
			}
			return slices.Contains(r.events.kinds(), string(UpdateFailed)) && maps.Equal(r.images(), map[string]int{"web": 5, "web-2": 1})
		})
		require.Len(t, bad, forgiven)
		t.Log(time.Since(began))
		require.Contains(t, r.events.text(), "3 machines of what is new, one after another, did not come to serve")
		for range 100 {
			_, err := r.farm.Reconcile(t.Context())
			require.NoError(t, err)
			time.Sleep(10 * time.Second)
		}
		require.Equal(t, map[string]int{"web": 5, "web-2": 1}, r.images())
		role.Image = "web-3"
		r.start(t)
		r.roll(t, "web-3")
	})
}

// A role's only machine is replaced too, although its names stay while nobody else serves.
func TestUpdateOfTheOnlyMachine(t *testing.T) {
	for name, change := range map[string]func(*Role){
		"alone":           func(*Role) {},
		"surging in vain": func(r *Role) { r.Update.Surge = true },
		"with an address": func(r *Role) { r.Address = true },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				cloud := testCloud(memcloud.Options{BootTime: 10 * time.Second})
				spec, config := web(1, 1), testConfig(cloud, testZone())
				spec.Roles[0].Update = &Update{}
				change(&spec.Roles[0])
				f, err := New(spec, config)
				require.NoError(t, err)
				require.NoError(t, passes(t.Context(), f, 100, 2))
				before := world(cloud)
				spec.Roles[0].Version = "2"
				f, err = New(spec, config)
				require.NoError(t, err)
				require.NoError(t, passes(t.Context(), f, 200, 2))
				require.Len(t, world(cloud), 1)
				require.NotEqual(t, before, world(cloud))
			})
		})
	}
}

// While none of them serves, as when the host program's own network is down, no more go than may go at once.
func TestUpdateWhileNobodyServes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRolling(t, memcloud.Options{BootTime: 10 * time.Second})
		check := r.config.Checks["check"]
		sick := true
		r.config.Checks["check"] = func(ctx context.Context, s Server) error {
			if sick {
				return errors.New("no route to host")
			}
			return check(ctx, s)
		}
		r.spec.Roles[0].Image, r.spec.Roles[0].Update = "web-2", &Update{AtOnce: 2}
		before := world(r.cloud)
		r.start(t)
		for _, want := range []int{6, 5} { // a moment, and long enough to be believed: of what is new none has served yet
			for range 2 {
				_, _ = r.farm.Reconcile(t.Context())
				time.Sleep(2 * time.Second)
			}
			kept := 0
			for _, id := range world(r.cloud) {
				if slices.Contains(before, id) {
					kept++
				}
			}
			require.Equal(t, want, kept)
		}
		sick = false
		r.roll(t, "web-2")
	})
}

// A host program that is killed at any pass of an update goes on with it, and never lets more than its share go.
func TestUpdateIsResumed(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		rapid.SyncTest(rt, func(rt *rapid.T) {
			r := newRolling(rt, memcloud.Options{BootTime: 5 * time.Second})
			role := &r.spec.Roles[0]
			role.Update.AtOnce = rapid.IntRange(1, 3).Draw(rt, "at once")
			role.Update.Surge = rapid.Bool().Draw(rt, "surge")
			role.Image = "web-2"
			r.start(rt)
			for range rapid.IntRange(0, 6).Draw(rt, "kills") {
				for range rapid.IntRange(1, 15).Draw(rt, "passes") {
					_, _ = r.farm.Reconcile(rt.Context())
					running := 0
					for _, s := range r.farm.Servers("www") {
						if s.State == "running" {
							running++
						}
					}
					require.GreaterOrEqual(rt, running, 6-role.Update.AtOnce)
					time.Sleep(2 * time.Second)
				}
				r.start(rt)
			}
			r.roll(rt, "web-2")
		})
	})
}

// Of a database the replicas are replaced first, then one of them takes over, then the old primary is replaced: no row is
// lost, and there is a primary all the while.
func TestUpdateOfADatabase(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		spec := dbSpec(3)
		spec.Roles[0].Update = &Update{}
		s := newShopDB(t, spec, memcloud.Options{BootTime: 5 * time.Second})
		stop := s.run(t)
		time.Sleep(time.Minute)
		require.Equal(t, "db-1", s.primary())
		write := func(key string) {
			addr := values(t, s.config, "shop.example.", "db.shop.example.", "A")[0] + ":3306"
			require.NoError(t, s.db.Write(t.Context(), addr, key, "v"))
		}
		write("before")
		stop()
		spec.Roles[0].Image = "mariadb-11"
		old := world(s.cloud)
		s.restart(t, spec)
		defer s.run(t)()
		var order []string
		for range 600 {
			time.Sleep(time.Second)
			for _, id := range old {
				if !slices.Contains(world(s.cloud), id) && !slices.Contains(order, id) {
					order = append(order, id)
				}
			}
		}
		require.Len(t, order, 3)
		require.Equal(t, 3, s.ready())
		require.NotEqual(t, "db-1", s.primary(), "a replica has taken over")
		require.Equal(t, 1, strings.Count(strings.Join(s.events.kinds(), " "), string(SwitchOver)))
		write("after")
		addr := values(t, s.config, "shop.example.", "db.shop.example.", "A")[0] + ":3306"
		rows, err := s.db.Rows(t.Context(), addr)
		require.NoError(t, err)
		require.Len(t, rows, 2)
		for _, x := range s.farm.Servers("db") {
			require.NotContains(t, old, x.ID)
		}
	})
}
