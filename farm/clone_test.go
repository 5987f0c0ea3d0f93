package farm

import (
	"context"
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/scalr-go/scalr/cache"
	"github.com/scalr-go/scalr/dnsreg"
	"github.com/scalr-go/scalr/provider"
	"github.com/scalr-go/scalr/provider/memcloud"
	"github.com/scalr-go/scalr/replication"
	"github.com/scalr-go/scalr/replication/memdb"
)

func TestCloneIsTheParentWithANameOfItsOwn(t *testing.T) {
	parent := testSpec()
	parent.End = &End{At: time.Unix(1, 0)}
	before, err := json.Marshal(parent)
	require.NoError(t, err)
	twin, warnings, err := parent.Clone("dev", CloneOptions{Zone: "dev.example."})
	require.NoError(t, err)
	require.Empty(t, warnings)
	require.Equal(t, "dev", twin.Name)
	require.Equal(t, "dev.example.", twin.Zone)
	require.Nil(t, twin.End, "a twin does not end with its parent")
	require.Equal(t, parent.Roles, twin.Roles)

	// What is done to the twin's spec is not done to the parent's.
	for i := range twin.Roles {
		r := &twin.Roles[i]
		r.After, r.Aliases = append(r.After[:0], "x"), append(r.Aliases[:0], "x")
		if r.Volume != nil {
			r.Volume.SizeGB = 77
		}
	}
	after, err := json.Marshal(parent)
	require.NoError(t, err)
	require.Equal(t, string(before), string(after))
}

func TestCloneChangesRoles(t *testing.T) {
	parent := Spec{Name: "shop", Roles: []Role{
		{Name: "db", Serves: Database, Image: "mariadb", Size: "m5.xlarge", Fallback: []string{"m5a.xlarge"}, Pools: []string{"a"}, Min: 3, Max: 3},
		{Name: "www", Image: "web", Size: "m5.large", Min: 4, Max: 40, Warm: &Warm{Count: 2}, UserData: "u"},
		{Name: "batch", Image: "web", Size: "m5.large", Min: 0, Max: 10},
		{Name: "mc", Serves: Cache, Image: "mc", Min: 1, Max: 1},
	}}
	end := &End{At: time.Date(2026, 12, 1, 8, 0, 0, 0, time.UTC), TerminateOptions: TerminateOptions{DeleteVolumes: true}}
	arch := func(size string) string {
		if strings.Contains(size, "g.") {
			return "arm64"
		}
		return "amd64"
	}
	twin, warnings, err := parent.Clone("dev", CloneOptions{Scale: 0.1, Pools: []string{"b"}, End: end, Arch: arch, Roles: map[string]CloneRole{
		"db":    {Scale: 0.5, Size: "t4g.small", Fallback: []string{"t3.small", "t4g.large"}},
		"www":   {Size: "t4g.small", Image: "web-arm", UserData: "v"},
		"batch": {Pools: []string{"c", "b"}},
	}})
	require.NoError(t, err)
	require.Equal(t, Spec{Name: "dev", Parent: "shop", End: end, Roles: []Role{
		{Name: "db", Serves: Database, Image: "mariadb", Size: "t4g.small", Fallback: []string{"t3.small", "t4g.large"}, Pools: []string{"b"}, Min: 2, Max: 2},
		{Name: "www", Image: "web-arm", Size: "t4g.small", Min: 1, Max: 4, Warm: &Warm{Count: 1}, UserData: "v", Pools: []string{"b"}},
		{Name: "batch", Image: "web", Size: "m5.large", Min: 0, Max: 1, Pools: []string{"c", "b"}},
		{Name: "mc", Serves: Cache, Image: "mc", Min: 1, Max: 1, Pools: []string{"b"}},
	}}, twin)
	require.Equal(t, []string{
		"role db: size t4g.large is arm64 and the parent's m5.xlarge is amd64: image mariadb may not boot",
		"role db: size t4g.small is arm64 and the parent's m5.xlarge is amd64: image mariadb may not boot",
	}, warnings)
}

// What the parent has one of, the twin has one of, and it never has more of its least than of its most.
func TestCloneScales(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		r := Role{Name: "www", Min: rapid.IntRange(0, 300).Draw(t, "min")}
		r.Max = max(1, r.Min+rapid.IntRange(0, 300).Draw(t, "more"))
		by := rapid.Float64Range(1e-12, 3).Draw(t, "by")
		twin, _, err := Spec{Name: "shop", Roles: []Role{r}}.Clone("dev", CloneOptions{Scale: by})
		require.NoError(t, err)
		got := twin.Roles[0]
		require.True(t, got.Min <= got.Max && got.Max >= 1, "%+v", got)
		require.Equal(t, r.Min > 0, got.Min > 0)
		require.InDelta(t, float64(r.Max)*by, float64(got.Max), 1)
	})
}

func TestCloneReportsEveryFault(t *testing.T) {
	parent := Spec{Name: "shop", Zone: "shop.example.", Roles: []Role{
		{Name: "db", UserData: "host=db.Shop.Example"}, {Name: "www", Aliases: []string{"web"}, UserData: "host=www.dev.shop.example."}}}
	_, _, err := parent.Clone("shop", CloneOptions{Zone: "Shop.example.", Scale: -1, End: &End{}, Roles: map[string]CloneRole{
		"db": {Scale: 2000, Fallback: []string{"s"}}, "nobody": {}}})
	for _, want := range []string{
		`clone of farm "shop":`,
		`name: "shop" is the parent's own name`,
		`options.Zone: "Shop.example." is the parent's own zone`,
		`options.Scale: -1 is no factor`,
		`options.End.At: is missing`,
		`options.Roles["db"].Scale: 2000 is no factor`,
		`options.Roles["db"].Fallback: ["s"] is what to take instead of Size, which is empty`,
		`options.Roles["nobody"]: farm shop has no role of that name`,
		`options.Roles["db"].UserData: the user data names the parent's zone shop.example.`,
	} {
		require.ErrorContains(t, err, want)
	}
	for zone, want := range map[string]string{
		"":                          "options.Zone: is empty",
		"dev":                       `options.Zone: "dev" is not absolute`,
		"a_b.":                      `label "a_b" wants`,
		"www.shop.example.":         "the parent would have the name www.shop.example. too, for its role www",
		"db-replicas.shop.example.": "for its role db",
		"www-12.shop.example.":      "for its role www",
		"web.shop.example.":         "for its role www",
	} {
		_, _, err := parent.Clone("dev", CloneOptions{Zone: zone})
		require.ErrorContains(t, err, want, zone)
	}
	// The other way round: the parent's apex would be a name of the twin's.
	below := Spec{Name: "dev", Zone: "www.shop.example.", Roles: []Role{{Name: "www"}}}
	_, _, err = below.Clone("shop", CloneOptions{Zone: "shop.example."})
	require.ErrorContains(t, err, "the twin would have the name www.shop.example. too")
	_, _, err = Spec{Name: "a"}.Clone("Dev!", CloneOptions{Zone: "dev.example."})
	require.ErrorContains(t, err, `name: "Dev!" is no DNS label`)
	require.ErrorContains(t, err, "but the parent publishes no names")

	// A zone below the parent's that is none of its names is one like any other, and user data may name it.
	parent.Roles[0].UserData = ""
	for _, zone := range []string{"dev.shop.example.", "www.dev.shop.example.", "xwww.shop.example."} {
		parent.Roles[1].UserData = "host=www." + zone
		twin, _, err := parent.Clone("dev", CloneOptions{Zone: zone})
		require.NoError(t, err)
		require.Equal(t, zone, twin.Zone)
	}
}

// TestTwinsShareNothing runs a farm and its twin on one account and in one registrar, and ends the twin: the parent has
// what it had, and of the twin nothing is left.
func TestTwinsShareNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cloud := testCloud(memcloud.Options{})
		zones := &dnsreg.Memory{Zones: []string{"shop.example.", "dev.shop.example."}}
		parent := testSpec()
		parent.Roles = append(parent.Roles, Role{Name: "mc", Serves: Cache, Image: "mc", Min: 2, Max: 2})
		twin, warnings, err := parent.Clone("dev", CloneOptions{Zone: "dev.shop.example."})
		require.NoError(t, err)
		require.Contains(t, strings.Join(warnings, "\n"), "role mc: memcached asks nobody who he is")
		caches := func(f cache.Follower) Config {
			c := testConfig(cloud, zones)
			c.Caches = map[string]cache.Follower{"mc": f}
			return c
		}
		ours, own := new(fakeFollower), new(fakeFollower)
		first, err := New(parent, caches(ours))
		require.NoError(t, err)
		require.NoError(t, passes(t.Context(), first, 100, 2))
		tagged := func(farm string) memcloud.World { return cloud.World(map[string]string{TagFarm: farm}) }
		before := tagged("shop")
		names, err := zones.Records(t.Context(), parent.Zone)
		require.NoError(t, err)

		second, err := New(twin, caches(own))
		require.NoError(t, err)
		require.NoError(t, passes(t.Context(), second, 100, 2))
		require.Len(t, own.told, 2)
		require.Len(t, ours.told, 2)
		for _, s := range own.told {
			require.False(t, slices.ContainsFunc(ours.told, func(p cache.Server) bool { return p.Addr == s.Addr }), "%v is the parent's", s)
		}
		require.Len(t, tagged("dev").Instances, len(before.Instances))
		require.Len(t, tagged("dev").Volumes, len(before.Volumes))
		require.Len(t, tagged("dev").Addresses, len(before.Addresses))
		theirs, err := zones.Records(t.Context(), twin.Zone)
		require.NoError(t, err)
		addrs := map[string]bool{}
		for _, r := range names {
			for _, v := range r.Values {
				addrs[v] = r.Type == "A" || r.Type == "AAAA"
			}
		}
		for _, r := range theirs {
			require.True(t, strings.HasSuffix("."+r.Name, ".dev.shop.example."), r.Name)
			for _, v := range r.Values {
				require.False(t, addrs[v], "%s points to the parent's %s", r.Name, v)
			}
		}
		require.NoError(t, second.Terminate(t.Context(), TerminateOptions{DeleteVolumes: true}))
		require.NoError(t, passes(t.Context(), first, 5, 2))
		require.Equal(t, before, tagged("shop"))
		require.Empty(t, tagged("dev").Volumes)
		require.Empty(t, tagged("dev").Addresses)
		again, err := zones.Records(t.Context(), parent.Zone)
		require.NoError(t, err)
		require.Equal(t, names, again)
	})
}

// TestTwinWaitsForItsData clones a farm with a database. Until the twin's database has the parent's data, scrubbed, nobody
// serves, nothing has a name, and the web servers are not launched; the host program dies meanwhile. The data is copied, or is on the
// volumes from the beginning.
func TestTwinWaitsForItsData(t *testing.T) {
	t.Run("Copy", func(t *testing.T) { twinWaitsForItsData(t, false) })
	t.Run("Snapshots", func(t *testing.T) { twinWaitsForItsData(t, true) })
}

func twinWaitsForItsData(t *testing.T, snapshots bool) {
	synctest.Test(t, func(t *testing.T) {
		production := memdb.New(memdb.Options{})
		source := replication.Member{ID: "db-1", Addr: "production:3306"}
		production.Start(source.Addr)
		require.NoError(t, production.Promote(t.Context(), source, false))
		for _, key := range []string{"a", "secret"} {
			require.NoError(t, production.Write(t.Context(), source.Addr, key, "production"))
		}
		parent := dbSpec(3)
		parent.Name, parent.Zone = "production", "production.example."
		parent.Roles = append(parent.Roles, Role{Name: "www", Image: "web", Min: 6, Max: 6, After: []string{"db"}})
		parent.Roles[0].Volume = &Volume{SizeGB: 1, Snapshots: &Snapshots{Every: time.Hour, Keep: 2}}
		twin, _, err := parent.Clone("shop", CloneOptions{Zone: "shop.example.", Scale: 0.5, Snapshots: snapshots})
		require.NoError(t, err)

		s := newShopDB(t, twin, memcloud.Options{BootTime: 5 * time.Second})
		if snapshots {
			v, err := s.cloud.CreateVolume(t.Context(), provider.VolumeSpec{Token: "v", SizeGB: 1})
			require.NoError(t, err)
			_, err = s.cloud.CreateSnapshot(t.Context(), provider.SnapshotSpec{Token: "s", Volume: v.ID,
				Tags: map[string]string{TagFarm: "production", TagRole: "db", TagIndex: "1"}})
			require.NoError(t, err)
			s.start = func(addr string) { s.db.StartCopy(addr, production, source.Addr) }
		}
		fit := make(chan struct{})
		s.origin = &replication.Origin{
			Volumes: snapshots,
			Scrub: func(ctx context.Context, m replication.Member) error {
				select {
				case <-fit:
					s.db.Inject(m.Addr, "secret", "scrubbed")
					return nil
				case <-ctx.Done():
					return context.Cause(ctx)
				}
			},
		}
		if !snapshots {
			s.origin.Engine = production
			s.origin.Source = func(context.Context) (replication.Member, error) { return source, nil }
		}
		for range 3 {
			s.restart(t, twin)
			stop := s.run(t)
			time.Sleep(5 * time.Minute)
			require.Len(t, s.farm.Servers("db"), 2)
			require.Zero(t, s.ready())
			require.Empty(t, s.farm.Servers("www"))
			names, err := s.config.DNS.Records(t.Context(), "shop.example.")
			require.NoError(t, err)
			require.Empty(t, dnsreg.Owned("shop.example.", owner("shop"), names))
			stop()
			for _, v := range s.cloud.World(map[string]string{TagFarm: "shop"}).Volumes {
				require.Equal(t, snapshots, v.Tags[TagSource] == "production", "%+v", v)
			}
		}
		close(fit)
		s.restart(t, twin)
		defer s.run(t)()
		time.Sleep(time.Minute)
		require.Equal(t, 2, s.ready())
		require.Len(t, s.farm.Servers("www"), 3)
		addr := values(t, s.config, "shop.example.", "db.shop.example.", "A")[0] + ":3306"
		rows, err := s.db.Rows(t.Context(), addr)
		require.NoError(t, err)
		require.Equal(t, map[string]string{"a": "production", "secret": "scrubbed"}, rows)
		rows, err = production.Rows(t.Context(), source.Addr)
		require.NoError(t, err)
		require.Equal(t, map[string]string{"a": "production", "secret": "production"}, rows)
	})
}

// TestRunEndsAFarmWhoseTimeHasCome lets a farm live until its end; the program that runs it dies while it is being ended.
func TestRunEndsAFarmWhoseTimeHasCome(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cloud := testCloud(memcloud.Options{TerminateTime: time.Minute})
		spec, config := web(2, 2), testConfig(cloud, testZone())
		events := record(&config)
		spec.Roles[0].Volume = &Volume{SizeGB: 1}
		spec.End = &End{At: time.Now().Add(10 * time.Hour)}
		f, err := New(spec, config)
		require.NoError(t, err)
		done := make(chan error, 1)
		go func() { done <- f.Run(t.Context()) }()
		time.Sleep(9*time.Hour + 59*time.Minute)
		require.Len(t, world(cloud), 2)
		p, err := f.Plan(t.Context())
		require.NoError(t, err)
		require.Empty(t, p.Steps, "its time has not come")
		time.Sleep(time.Minute + time.Second)
		_, err = f.Reconcile(t.Context())
		require.ErrorIs(t, err, ErrEnded)
		require.NoError(t, <-done)
		require.Empty(t, world(cloud))
		require.Len(t, cloud.World(map[string]string{TagFarm: "shop"}).Volumes, 2, "the data stays unless the spec says otherwise")
		require.Contains(t, events.kinds(), string(Terminated))

		// Another program, after a crash, ends what is left: here, the volumes.
		spec.End.DeleteVolumes = true
		f, err = New(spec, config)
		require.NoError(t, err)
		p, err = f.Plan(t.Context())
		require.NoError(t, err)
		require.Contains(t, p.String(), "delete-volume")
		require.NoError(t, f.Run(t.Context()))
		require.Empty(t, cloud.World(map[string]string{TagFarm: "shop"}).Volumes)
	})
}

// TestATwinIsNotFilledFromSnapshots: what fills the parent's volumes is not the twin's, which would get it unscrubbed.
func TestATwinIsNotFilledFromSnapshots(t *testing.T) {
	parent := web(1, 1)
	for _, from := range []*Source{{}, {Farm: parent.Name}, {Farm: "old"}, {Role: "db"}} {
		parent.Roles[0].Volume = &Volume{SizeGB: 1, From: from, Snapshots: &Snapshots{Every: time.Hour, Keep: 2}}
		twin, warnings, err := parent.Clone("dev", CloneOptions{Zone: "dev.example."})
		require.NoError(t, err)
		require.Nil(t, twin.Roles[0].Volume.From)
		require.Equal(t, parent.Roles[0].Volume.Snapshots, twin.Roles[0].Volume.Snapshots)
		require.Len(t, warnings, 1)
		require.Contains(t, warnings[0], "Volume.From")
		require.Equal(t, from, parent.Roles[0].Volume.From)
	}
}

// Unless it is asked for, of databases.
func TestATwinOfSnapshots(t *testing.T) {
	parent := dbSpec(2)
	o := CloneOptions{Zone: "dev.example.", Snapshots: true}
	_, _, err := parent.Clone("dev", o)
	require.ErrorContains(t, err, "options.Snapshots: farm shop has no database on volumes")
	www := web(1, 1).Roles[0]
	www.Volume, www.Aliases = &Volume{SizeGB: 1}, nil
	parent.Roles = append(parent.Roles, www)
	parent.Roles[0].Volume = &Volume{SizeGB: 1, From: &Source{}}
	twin, warnings, err := parent.Clone("dev", o)
	require.NoError(t, err)
	require.Equal(t, &Source{Farm: "shop", Now: true}, twin.Roles[0].Volume.From)
	require.Nil(t, twin.Roles[1].Volume.From)
	require.Empty(t, warnings)
	parent.Roles[0].Volume.Snapshots = &Snapshots{Every: time.Hour, Keep: 2}
	twin, warnings, err = parent.Clone("dev", o)
	require.NoError(t, err)
	require.Equal(t, &Source{Farm: "shop"}, twin.Roles[0].Volume.From)
	require.Empty(t, warnings)
}

func TestUserDataThatLeadsToTheParent(t *testing.T) {
	for _, c := range []struct {
		text string
		want bool
	}{
		{"host=db.shop.example", true}, {"host=DB.Shop.Example.", true}, {"host=db-dev.shop.example", true}, {"x", false},
		{"host=db.dev.shop.example", false}, {"dev.shop.example", false}, {"a.dev.shop.example b.dev.shop.example.", false},
		{"a.dev.shop.example b.shop.example", true}, {"mydev.shop.example", true}, {"'dev.shop.example'", false},
	} {
		require.Equal(t, c.want, leadsTo(c.text, "shop.example.", "dev.shop.example."), c.text)
	}
	require.True(t, leadsTo("dev.shop.example", "shop.example.", "dev.example."))
	require.False(t, leadsTo("anything", "", "dev.example."))
}

// TestAFarmThatOthersDependOnIsKept lets a farm's time come while another farm depends on it: until that is over it is run like any
// other, and what fails is replaced.
func TestAFarmThatOthersDependOnIsKept(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cloud := testCloud(memcloud.Options{ReadyTime: time.Second})
		spec, config := web(1, 1), testConfig(cloud, testZone())
		events := record(&config)
		spec.Roles[0].Volume = &Volume{SizeGB: 1}
		spec.End = &End{At: time.Now().Add(10 * time.Minute), TerminateOptions: TerminateOptions{DeleteVolumes: true, DeleteSnapshots: true}}
		other, err := cloud.CreateVolume(t.Context(), provider.VolumeSpec{Token: "v", SizeGB: 1, Tags: map[string]string{TagFarm: "twin", TagRole: "www", TagIndex: "1", TagSource: "shop"}})
		require.NoError(t, err)
		f, err := New(spec, config)
		require.NoError(t, err)
		done := make(chan error, 1)
		go func() { done <- f.Run(t.Context()) }()
		time.Sleep(15 * time.Minute)
		before := world(cloud)
		require.Len(t, before, 1)
		require.NoError(t, cloud.Kill(before[0], "gone"))
		time.Sleep(10 * time.Minute)
		after := world(cloud)
		require.Len(t, after, 1)
		require.NotEqual(t, before, after)
		p, err := f.Plan(t.Context())
		require.NoError(t, err)
		require.Contains(t, p.String(), "terminate-instance", "what would be done if nobody depended on it")
		require.NoError(t, cloud.DeleteVolume(t.Context(), other.ID))
		require.NoError(t, <-done)
		require.Empty(t, world(cloud))
		require.Contains(t, events.kinds(), string(Terminated))
		_, err = f.Reconcile(t.Context())
		require.ErrorIs(t, err, ErrEnded)
	})
}

// TestAFarmIsKeptWhileATwinCopiesItsDatabase ends the parent at each stage of a twin whose data is copied over SQL, with the twin's program
// running, killed, and killed at its change of tags: while the twin has not all its data, the parent refuses, and names it.
func TestAFarmIsKeptWhileATwinCopiesItsDatabase(t *testing.T) {
	for _, lag := range []time.Duration{0, 5 * time.Second} {
		synctest.Test(t, func(t *testing.T) {
			production := memdb.New(memdb.Options{})
			source := replication.Member{ID: "db-1", Addr: "production:3306"}
			production.Start(source.Addr)
			require.NoError(t, production.Promote(t.Context(), source, false))
			require.NoError(t, production.Write(t.Context(), source.Addr, "a", "production"))
			parent := dbSpec(2)
			parent.Name, parent.Zone = "production", "production.example."
			spec, _, err := parent.Clone("shop", CloneOptions{Zone: "shop.example."})
			require.NoError(t, err)
			require.Equal(t, "production", spec.Parent)
			s := newShopDB(t, dbSpec(2), memcloud.Options{BootTime: 5 * time.Second, ListLag: lag})
			s.config.ListLag = 10 * time.Second
			fit := make(chan struct{})
			s.origin = &replication.Origin{Engine: production, Source: func(context.Context) (replication.Member, error) { return source, nil },
				Scrub: func(ctx context.Context, m replication.Member) error {
					select {
					case <-fit:
						return nil
					case <-ctx.Done():
						return context.Cause(ctx)
					}
				}}
			parents, err := New(Spec{Name: "production", Roles: []Role{{Name: "db", Image: "mariadb", Min: 1, Max: 1}}}, testConfig(s.cloud, nil))
			require.NoError(t, err)
			depends := func() error {
				_, err := parents.PlanTerminate(t.Context(), TerminateOptions{})
				return err
			}
			require.NoError(t, depends(), "there is no twin yet")
			s.restart(t, spec)
			stop := s.run(t)
			defer func() { stop() }()
			time.Sleep(time.Minute)
			for range 2 {
				for _, x := range s.farm.Servers("db") {
					require.ErrorIs(t, depends(), ErrDependents)
					require.ErrorContains(t, depends(), "shop/"+x.Name+" ("+x.ID+") gets its first data from it")
				}
				stop() // the program dies
				require.ErrorIs(t, parents.Terminate(t.Context(), TerminateOptions{}), ErrDependents)
				s.restart(t, spec)
				stop = s.run(t)
				time.Sleep(time.Minute)
			}
			died := make(chan struct{})
			s.cloud.SetFault(func(_ context.Context, c memcloud.Call) error {
				if c.Method != "TagInstance" {
					return nil
				}
				select {
				case <-died:
				default:
					close(died)
				}
				return errors.New("502 bad gateway")
			})
			close(fit)
			select {
			case <-died:
			case <-time.After(10 * time.Minute):
				t.Fatal("nobody is told that the twin has its data")
			}
			stop()
			require.ErrorIs(t, depends(), ErrDependents, "it has the data, and could not say so")
			s.cloud.SetFault(nil)
			s.restart(t, spec)
			stop = s.run(t)
			time.Sleep(2 * time.Minute)
			require.Equal(t, 2, s.ready())
			require.NoError(t, depends())
			p, err := s.farm.Plan(t.Context())
			require.NoError(t, err)
			require.Empty(t, p.Steps)
			require.NoError(t, parents.Terminate(t.Context(), TerminateOptions{}))

			// A machine that comes later needs nobody, once it is known.
			require.NoError(t, s.cloud.Kill(s.farm.Servers("db")[1].ID, "reclaimed"))
			time.Sleep(5 * time.Minute)
			require.Equal(t, 2, s.ready())
			require.NoError(t, depends())
		})
	}
}
