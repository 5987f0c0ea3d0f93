package farm

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/scalr-go/scalr/provider"
	"github.com/scalr-go/scalr/provider/memcloud"
	"github.com/scalr-go/scalr/replication"
	"github.com/scalr-go/scalr/replication/memdb"
)

// pair is a twin, called shop, whose data is on a snapshot that is made for it, and its parent: a database of two servers with volumes
// and no schedule.
type pair struct {
	*shopDB
	spec    Spec
	volumes map[string]string                                   // the parent's, by the name of their machine
	source  func(context.Context) (replication.Member, error)   // the Origin's
	scrubs  func(context.Context, replication.Member) (e error) // likewise
}

func newPair(t require.TestingT, o memcloud.Options) *pair {
	production := memdb.New(memdb.Options{})
	db := replication.Member{ID: "db-1", Addr: "production:3306"}
	production.Start(db.Addr)
	require.NoError(t, production.Promote(context.Background(), db, false))
	for _, key := range []string{"a", "secret"} {
		require.NoError(t, production.Write(context.Background(), db.Addr, key, "production"))
	}
	parent := dbSpec(2)
	parent.Name, parent.Zone = "production", "production.example."
	parent.Roles[0].Volume = &Volume{SizeGB: 1}
	spec, warnings, err := parent.Clone("shop", CloneOptions{Zone: "shop.example.", Snapshots: true})
	require.NoError(t, err)
	require.Empty(t, warnings)

	p := &pair{spec: spec, volumes: map[string]string{}}
	p.shopDB = makeShopDB(o)
	p.start = func(addr string) { p.db.StartCopy(addr, production, db.Addr) }
	for i := 1; i <= 2; i++ {
		v, err := p.cloud.CreateVolume(context.Background(), provider.VolumeSpec{Token: fmt.Sprint("production", i), SizeGB: 1,
			Tags: map[string]string{TagFarm: "production", TagRole: "db", TagIndex: fmt.Sprint(i), TagPool: "theirs"}})
		require.NoError(t, err)
		p.volumes[fmt.Sprint("db-", i)] = v.ID
	}
	time.Sleep(o.ReadyTime + o.ListLag)
	for i := 1; i <= 2; i++ {
		require.NoError(t, p.cloud.SetContent(p.volumes[fmt.Sprint("db-", i)], fmt.Sprint("of db-", i)))
	}
	p.source = func(context.Context) (replication.Member, error) { return replication.Member{ID: "db-2"}, nil }
	p.scrubs = func(_ context.Context, m replication.Member) error {
		p.db.Inject(m.Addr, "secret", "scrubbed")
		return nil
	}
	p.origin = &replication.Origin{Volumes: true,
		Source: func(ctx context.Context) (replication.Member, error) { return p.source(ctx) },
		Scrub:  func(ctx context.Context, m replication.Member) error { return p.scrubs(ctx, m) }}
	return p
}

// made gives the snapshots that have been taken for the twin: by ID, the volumes they are of.
func (p *pair) made() map[string]string {
	made := map[string]string{}
	for _, x := range p.cloud.World(map[string]string{TagFarm: "shop"}).Snapshots {
		if x.Tags[TagFirst] != "" {
			made[x.ID] = x.Volume
		}
	}
	return made
}

// taken counts all that have ever been.
func (p *pair) taken() (n int) {
	for _, c := range p.cloud.Changes() {
		if c.Method == "CreateSnapshot" && c.Tags[TagFarm] == "shop" {
			n++
		}
	}
	return n
}

// whole reports what is wrong with a twin that serves, and has no more than it needs.
func (p *pair) whole() error {
	if n := p.ready(); n != 2 || p.primary() == "" {
		return fmt.Errorf("%d members serve, primary %q", n, p.primary())
	}
	if made := p.made(); len(made) > 0 {
		return fmt.Errorf("there are still snapshots of %v", slices.Collect(maps.Values(made)))
	}
	from := map[string]bool{}
	volumes := p.cloud.World(map[string]string{TagFarm: "shop"}).Volumes
	for _, v := range volumes {
		from[v.Tags[TagSnapshot]] = true
		if got := p.cloud.Content(v.ID); got != "of db-2" {
			return fmt.Errorf("volume %s has what is %q", v.ID, got)
		}
	}
	if len(volumes) != 2 || len(from) != 1 {
		return fmt.Errorf("%d volumes of %d snapshots", len(volumes), len(from))
	}
	for _, x := range p.farm.Servers("db") {
		rows, err := p.db.Rows(context.Background(), x.Private.String()+":3306")
		if err != nil || !maps.Equal(rows, map[string]string{"a": "production", "secret": "scrubbed"}) {
			return fmt.Errorf("%s has %v: %w", x.Name, rows, err)
		}
	}
	return nil
}

// await waits until the twin is whole, and says why if it does not become so.
func (p *pair) await() (err error) {
	for range 360 {
		if err = p.whole(); err == nil {
			return nil
		}
		time.Sleep(5 * time.Second)
	}
	return err
}

// TestHostKilledWhileItMakesATwinOfNow kills the host program at each change in turn while it copies its parent's volume, fills its own from
// that and deletes the copy, and starts it again: there is one copy, of the replica, and in the end none.
func TestHostKilledWhileItMakesATwinOfNow(t *testing.T) {
	kills := 0
	for _, lag := range []time.Duration{0, 5 * time.Second} {
		for _, after := range []bool{false, true} {
			for kill, done := 1, false; !done; kill++ {
				synctest.Test(t, func(t *testing.T) {
					p := newPair(t, memcloud.Options{BootTime: 3 * time.Second, ListLag: lag, ReadyTime: 10 * time.Second})
					p.config.ListLag = 10 * time.Second
					others := foreign(p.cloud)
					h := &host{kill: kill, after: after, steps: true}
					h.killed = func() {}
					p.cloud.SetFault(h.fault)
					p.restart(t, p.spec)
					stop := p.run(t)
					for !h.dead.Load() && !done {
						time.Sleep(time.Second)
						done = p.whole() == nil
					}
					stop()
					if !done {
						kills++
					}
					p.cloud.SetFault(nil)
					p.restart(t, p.spec)
					stop = p.run(t)
					require.NoError(t, p.await(), "killed at change %d", kill)
					require.Equal(t, 1, p.taken(), "killed at change %d", kill)
					stop()
					require.NoError(t, p.farm.Terminate(t.Context(), TerminateOptions{DeleteVolumes: true}))
					require.Zero(t, p.cloud.World(map[string]string{TagFarm: "shop"}).Len())
					require.Equal(t, others, foreign(p.cloud))
				})
			}
		}
	}
	t.Logf("killed %d times", kills)
	require.Greater(t, kills, 20)
}

// TestHostKilledWhileItEndsATwinOfNow ends a twin at each stage of its making, by a host program that is killed at each change of the end, and
// by another one: whatever was there of the copy of its parent's volume, nothing is left.
func TestHostKilledWhileItEndsATwinOfNow(t *testing.T) {
	kills := 0
	for _, stage := range []func(memcloud.World) bool{
		func(w memcloud.World) bool { return len(w.Snapshots) == 1 },
		func(w memcloud.World) bool { return len(w.Volumes) == 2 },
	} {
		for _, o := range []TerminateOptions{{}, {DeleteVolumes: true}} {
			for kill, done := 1, false; !done; kill++ {
				synctest.Test(t, func(t *testing.T) {
					p := newPair(t, memcloud.Options{BootTime: 3 * time.Second, ListLag: time.Second, ReadyTime: 10 * time.Second})
					p.config.ListLag = 10 * time.Second
					p.scrubs = func(context.Context, replication.Member) error { return errors.New("not yet") }
					p.restart(t, p.spec)
					others := foreign(p.cloud)
					stop := p.run(t)
					for !stage(p.cloud.World(map[string]string{TagFarm: "shop"})) {
						time.Sleep(100 * time.Millisecond)
					}
					stop()
					volumes := len(p.cloud.World(map[string]string{TagFarm: "shop"}).Volumes)
					require.Len(t, p.made(), 1)
					ctx, cancel := context.WithCancel(t.Context())
					defer cancel()
					p.cloud.SetFault((&host{kill: (kill + 1) / 2, after: kill%2 == 0, steps: true, killed: cancel}).fault)
					if err := p.farm.Terminate(ctx, o); err == nil {
						done = true
					} else {
						kills++
					}
					p.cloud.SetFault(nil)
					p.restart(t, p.spec)
					require.NoError(t, p.farm.Terminate(t.Context(), o))
					w := p.cloud.World(map[string]string{TagFarm: "shop"})
					require.Empty(t, w.Snapshots, "killed at change %d", kill/2)
					require.Len(t, w.Volumes, map[bool]int{false: volumes}[o.DeleteVolumes])
					require.Equal(t, others, foreign(p.cloud))
				})
			}
		}
	}
	t.Logf("killed %d times", kills)
	require.Greater(t, kills, 30)
}

// TestAFarmIsKeptWhileATwinCopiesItsVolume ends the parent at each stage of a twin's making: while the copy of its volume is not complete, which
// the twin's program need not live to see, it refuses, and names the twin; afterwards the twin needs it no more.
func TestAFarmIsKeptWhileATwinCopiesItsVolume(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPair(t, memcloud.Options{BootTime: 3 * time.Second, ReadyTime: 10 * time.Second})
		p.restart(t, p.spec)
		parent, err := New(Spec{Name: "production", Roles: []Role{{Name: "db", Image: "mariadb", Min: 2, Max: 2, Volume: &Volume{SizeGB: 1}}}},
			testConfig(p.cloud, nil))
		require.NoError(t, err)
		_, err = parent.PlanTerminate(t.Context(), TerminateOptions{})
		require.NoError(t, err, "there is no twin yet")
		stop := p.run(t)
		for len(p.made()) == 0 {
			time.Sleep(100 * time.Millisecond)
		}
		stop() // the twin's program dies
		before := foreign(p.cloud)
		for id := range p.made() {
			for _, o := range []TerminateOptions{{}, {DeleteVolumes: true}} {
				err = parent.Terminate(t.Context(), o)
				require.ErrorIs(t, err, ErrDependents)
				require.ErrorContains(t, err, "snapshot "+id+", of volume "+p.volumes["db-2"]+" of it, is to be the first data of shop/db and is not complete")
			}
			require.NoError(t, p.cloud.FailSnapshot(id, "disk full"))
		}
		require.ErrorIs(t, parent.Terminate(t.Context(), TerminateOptions{}), ErrDependents, "another one will be taken")
		require.Equal(t, before, foreign(p.cloud))
		p.restart(t, p.spec)
		stop = p.run(t)
		ready := func() bool {
			for _, x := range p.cloud.World(map[string]string{TagFarm: "shop"}).Snapshots {
				if x.Ready {
					return true
				}
			}
			return false
		}
		for !ready() {
			time.Sleep(100 * time.Millisecond)
		}
		require.NotEqual(t, 2, p.ready())
		require.NoError(t, parent.Terminate(t.Context(), TerminateOptions{DeleteVolumes: true}))
		require.Zero(t, p.cloud.World(map[string]string{TagFarm: "production"}).Len())
		require.NoError(t, p.await())
		stop()
	})
}

// TestATwinOfNowConverges draws faults of every kind, copies that fail, and hosts that are killed: when the faults end there is a twin of one
// copy of the replica, and no copy.
func TestATwinOfNowConverges(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		rapid.SyncTest(rt, func(rt *rapid.T) {
			seconds := func(most int, name string) time.Duration {
				return time.Duration(rapid.IntRange(0, most*1000).Draw(rt, name)) * time.Millisecond
			}
			p := newPair(rt, memcloud.Options{BootTime: seconds(10, "boot"), ListLag: seconds(8, "lag"), ReadyTime: seconds(30, "ready"),
				Seed: rapid.Uint64().Draw(rt, "seed")})
			p.config.ListLag = 10 * time.Second
			others := foreign(p.cloud)
			faults := []error{provider.ErrAmbiguous, provider.ErrThrottled, provider.ErrQuota, errors.New("502 bad gateway")}
			working := p.source
			for range rapid.IntRange(1, 2).Draw(rt, "hosts") {
				share, dice := rapid.IntRange(0, 40).Draw(rt, "faults in a hundred"), rapid.Uint64().Draw(rt, "dice")
				chance := func(parts ...string) int {
					return int(hash(dice, append(parts, fmt.Sprint(time.Now().Unix()))...) % 100)
				}
				h := &host{kill: rapid.IntRange(1, 200).Draw(rt, "kill"), after: rapid.Bool().Draw(rt, "after")}
				h.lose = func(c memcloud.Call) error {
					if n := chance(c.Method, c.ID, fmt.Sprint(c.After)); n < share {
						return faults[n%len(faults)]
					}
					return nil
				}
				p.source = func(ctx context.Context) (replication.Member, error) {
					if chance("source") < share {
						return replication.Member{}, replication.ErrNoPrimary
					}
					return working(ctx)
				}
				h.killed = func() {}
				p.cloud.SetFault(h.fault)
				p.restart(rt, p.spec)
				stop := p.run(rt)
				for end := time.Now().Add(90 * time.Second); time.Now().Before(end) && !h.dead.Load(); time.Sleep(time.Second) {
					for id := range p.made() {
						if chance("fail", id) < share/8 {
							_ = p.cloud.FailSnapshot(id, "disk full")
						}
					}
				}
				stop()
			}
			p.cloud.SetFault(nil)
			p.source = working
			p.restart(rt, p.spec)
			stop := p.run(rt)
			err := p.await()
			stop()
			if err != nil {
				rt.Fatal(err)
			}
			if now := foreign(p.cloud); now != others {
				rt.Fatalf("what is not the farm's was touched: %s, was %s", now, others)
			}
		})
	})
}

// TestATwinOfNowWaitsForItsSource has no server to copy, then one without a volume, one whose volume is with another machine, and at last one
// to copy; meanwhile nothing is copied, and nothing launched.
func TestATwinOfNowWaitsForItsSource(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPair(t, memcloud.Options{})
		p.restart(t, p.spec)
		var server replication.Member
		why := replication.ErrNoPrimary
		p.source = func(context.Context) (replication.Member, error) { return server, why }
		saw := func(want string) {
			t.Helper()
			var plan Plan
			for range 10 {
				plan, _ = p.farm.Reconcile(t.Context())
				time.Sleep(2 * time.Second)
			}
			require.Contains(t, plan.String(), want)
			require.Contains(t, plan.String(), "wait db-1: its volume is to be filled from a snapshot of production/db, which is made for that")
			require.Zero(t, p.taken())
			require.Zero(t, p.cloud.World(map[string]string{TagFarm: "shop"}).Len())
		}
		saw("finding the server of production/db to copy: no primary")
		server, why = replication.Member{ID: "db-3"}, nil
		saw("db-3 is to be copied, and no volume of production/db is its")
		server = replication.Member{ID: "db-2", Machine: "i-other"}
		saw("db-2 is to be copied, and no volume of production/db is its")
		server.Machine = ""
		stop := p.run(t)
		require.NoError(t, p.await())
		stop()

		// An index that comes later begins with nothing, and no copy is made for it.
		p.spec.Roles[0].Min, p.spec.Roles[0].Max = 3, 3
		p.start = p.db.Start
		p.restart(t, p.spec)
		stop = p.run(t)
		time.Sleep(3 * time.Minute)
		require.Equal(t, 3, p.ready())
		require.Equal(t, 1, p.taken())
		stop()
	})
}

func TestNowWantsASource(t *testing.T) {
	db := memdb.New(memdb.Options{})
	source := func(context.Context) (replication.Member, error) { return replication.Member{}, nil }
	for want, c := range map[string]struct {
		serves Service
		from   Source
		origin *replication.Origin
	}{
		"from.now: is set, but the role is no database":                                {"", Source{Farm: "production", Now: true}, nil},
		`from.now: is set, but from.farm is "", want another farm`:                     {Database, Source{Now: true}, nil},
		`from.now: is set, but from.farm is "shop", want another farm`:                 {Database, Source{Farm: "shop", Now: true}, nil},
		`from.now: is set, but the Origin of config.Databases["db"] has not both`:      {Database, Source{Farm: "production", Now: true}, &replication.Origin{Volumes: true}},
		`from.now: is set, but the Origin of config.Databases["db"] has not both Volu`: {Database, Source{Farm: "production", Now: true}, &replication.Origin{Engine: memdb.New(memdb.Options{}), Source: source}},
		"": {Database, Source{Farm: "production", Now: true}, &replication.Origin{Volumes: true, Source: source}},
	} {
		manager, err := replication.New(replication.Config{Name: "shop/db", Engine: db, Origin: c.origin})
		require.NoError(t, err)
		config := testConfig(testCloud(memcloud.Options{}), testZone())
		if c.serves == Database {
			config.Databases = map[string]*replication.Manager{"db": manager}
		}
		spec := Spec{Name: "shop", Roles: []Role{{Name: "db", Serves: c.serves, Image: "db", Min: 1, Max: 1, Volume: &Volume{SizeGB: 1, From: &c.from}}}}
		if _, err = New(spec, config); want == "" {
			require.NoError(t, err)
		} else {
			require.ErrorContains(t, err, want)
		}
	}
}
