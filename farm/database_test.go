package farm

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/scalr-go/scalr/cronlock"
	"github.com/scalr-go/scalr/farm/scale"
	"github.com/scalr-go/scalr/provider"
	"github.com/scalr-go/scalr/provider/memcloud"
	"github.com/scalr-go/scalr/replication"
	"github.com/scalr-go/scalr/replication/memdb"
)

// shopDB is a farm with a database: memdb has a server wherever the cloud has a machine.
type shopDB struct {
	cloud   *memcloud.Cloud
	db      *memdb.Cluster
	manager *replication.Manager
	origin  *replication.Origin // of the database's first data
	start   func(addr string)   // starts a server; a new one as a rule
	config  Config
	farm    *Farm
	events  recorder
}

func newShopDB(t *testing.T, spec Spec, o memcloud.Options) *shopDB {
	s := makeShopDB(o)
	s.restart(t, spec)
	return s
}

// makeShopDB is newShopDB before the first run of the host program.
func makeShopDB(o memcloud.Options) *shopDB {
	s := &shopDB{db: memdb.New(memdb.Options{Delay: 5 * time.Millisecond})}
	s.start = s.db.Start
	servers := map[string]string{}
	o.OnState = func(in provider.Instance) {
		switch {
		case in.Tags[TagRole] != "db" || in.Tags[TagFarm] != "shop":
		case in.State == provider.Running:
			servers[in.ID] = in.Private.String() + ":3306"
			s.start(servers[in.ID])
		default:
			s.db.Crash(servers[in.ID])
		}
	}
	s.cloud = testCloud(o)
	s.config = testConfig(s.cloud, testZone())
	s.config.Interval, s.config.ListLag = 2*time.Second, time.Second
	s.config.Events = s.events.event
	return s
}

// restart is another run of the host program.
func (s *shopDB) restart(t require.TestingT, spec Spec) {
	var err error
	s.manager, err = replication.New(replication.Config{Name: "shop/db", Engine: s.db, Policy: replication.Durability, Origin: s.origin})
	require.NoError(t, err)
	s.config.Databases = map[string]*replication.Manager{"db": s.manager}
	s.farm, err = New(spec, s.config)
	require.NoError(t, err)
}

func dbSpec(n int) Spec {
	return Spec{Name: "shop", Zone: "shop.example.", TTL: time.Second, Roles: []Role{
		{Name: "db", Serves: Database, Image: "mariadb", Min: n, Max: n, Aliases: []string{"sql"}}}}
}

func (s *shopDB) run(t interface{ Context() context.Context }) (stop func()) {
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { defer close(done); _ = s.farm.Run(ctx) }()
	return func() { cancel(); <-done }
}

func (s *shopDB) primary() string {
	topology, _ := s.manager.Topology()
	return topology.Primary
}

func (s *shopDB) ready() (n int) {
	for _, x := range s.farm.Servers("db") {
		if x.Ready {
			n++
		}
	}
	return n
}

func TestDatabaseLivesThroughTheLossOfItsPrimary(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newShopDB(t, dbSpec(3), memcloud.Options{BootTime: 5 * time.Second})
		defer s.run(t)()
		time.Sleep(time.Minute)
		require.Equal(t, 3, s.ready())
		require.Equal(t, "db-1", s.primary())
		old := s.farm.Servers("db")[0]
		require.True(t, old.Primary)
		for _, name := range []string{"db", "sql", "db-primary"} {
			require.Equal(t, []string{old.Private.String()}, values(t, s.config, "shop.example.", name+".shop.example.", "A"), name)
		}
		require.Len(t, values(t, s.config, "shop.example.", "db-replicas.shop.example.", "A"), 2)
		require.Len(t, values(t, s.config, "shop.example.", "int-db.shop.example.", "A"), 3)
		addr := func() string {
			return values(t, s.config, "shop.example.", "db.shop.example.", "A")[0] + ":3306"
		}
		for i := range 100 {
			require.NoError(t, s.db.Write(t.Context(), addr(), fmt.Sprint(i), "v"))
		}
		before := addr()
		require.NoError(t, s.cloud.Fail(old.ID, "kernel panic"))
		for start := time.Now(); addr() == before; time.Sleep(10 * time.Millisecond) {
			require.Less(t, time.Since(start), 10*time.Second)
		}
		require.NoError(t, s.db.Write(t.Context(), addr(), "after", "v"))
		time.Sleep(time.Minute)
		require.Equal(t, 3, s.ready())
		require.NotEqual(t, old.ID, s.farm.Servers("db")[0].ID)
		rows, err := s.db.Rows(t.Context(), addr())
		require.NoError(t, err)
		require.Len(t, rows, 101, "no acknowledged row is lost")
	})
}

func TestHostProgramRestartsWhileThePrimaryIsDead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newShopDB(t, dbSpec(3), memcloud.Options{BootTime: 5 * time.Second})
		stop := s.run(t)
		time.Sleep(time.Minute)
		stop()
		require.NoError(t, s.cloud.Fail(s.farm.Servers("db")[0].ID, "kernel panic"))
		s.restart(t, dbSpec(3))
		defer s.run(t)()
		time.Sleep(3 * time.Minute)
		require.Equal(t, 3, s.ready())
		require.NotEmpty(t, s.primary())
		require.Len(t, world(s.cloud), 3)
	})
}

// TestShrinkingSparesThePrimary makes the highest slot the primary and shrinks the role.
func TestShrinkingSparesThePrimary(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		spec := dbSpec(1)
		var want atomic.Int64
		want.Store(3)
		spec.Roles[0].Max, spec.Roles[0].Scale = 3, &Scale{Custom: "mine"}
		s := newShopDB(t, dbSpec(3), memcloud.Options{BootTime: 5 * time.Second})
		s.config.Policies = map[string]scale.Policy{"mine": scale.Func(func(scale.Input) scale.Decision { return scale.Decision{Desired: int(want.Load())} })}
		s.restart(t, spec)
		defer s.run(t)()
		time.Sleep(time.Minute)
		require.Equal(t, 3, s.ready())
		require.NoError(t, s.manager.Switchover(t.Context(), "db-3"))
		primary := s.farm.Servers("db")[2].ID
		want.Store(1)
		time.Sleep(time.Minute)
		require.Equal(t, []string{primary}, world(s.cloud))
		require.Equal(t, "db-3", s.primary())
		require.Contains(t, s.events.kinds(), string(ScaleDown))
		require.Equal(t, 1, strings.Count(s.events.text(), "db-3 is the primary now, and db-1 was"), s.events.text())
	})
}

// TestUnreachablePrimaryIsSwitchedOff hangs the primary: it is stopped through its provider before another one is promoted.
func TestUnreachablePrimaryIsSwitchedOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newShopDB(t, dbSpec(3), memcloud.Options{BootTime: 5 * time.Second})
		defer s.run(t)()
		time.Sleep(time.Minute)
		old := s.farm.Servers("db")[0]
		require.NoError(t, s.db.Write(t.Context(), old.Private.String()+":3306", "a", "row"))
		s.db.Hang(old.Private.String() + ":3306")
		time.Sleep(2 * time.Minute)
		require.NotEqual(t, "db-1", s.primary())
		require.Equal(t, 3, s.ready())
		require.Contains(t, world(s.cloud), old.ID, "what was switched off is started again when it can do no harm")
		stopped := slices.ContainsFunc(s.cloud.Changes(), func(c memcloud.Change) bool { return c.Method == "Stop" && c.ID == old.ID })
		require.True(t, stopped)
	})
}

// TestHostKilledAtEveryCallWithADatabase kills the host program at each call of the cloud in turn while it replaces a dead
// primary, and starts it again: the set is whole in the end, and no acknowledged row is lost.
func TestHostKilledAtEveryCallWithADatabase(t *testing.T) {
	kills := 0
	for _, after := range []bool{false, true} {
		for kill, done := 1, false; !done && kill <= 30; kill++ {
			synctest.Test(t, func(t *testing.T) {
				spec := dbSpec(3)
				spec.Roles[0].Volume = &Volume{SizeGB: 1}
				s := newShopDB(t, spec, memcloud.Options{BootTime: 3 * time.Second, TerminateTime: time.Second, TerminatedLinger: time.Minute})
				stop := s.run(t)
				time.Sleep(30 * time.Second)
				require.Equal(t, 3, s.ready())
				old := s.farm.Servers("db")[0]
				require.NoError(t, s.db.Write(t.Context(), old.Private.String()+":3306", "row", "v"))

				ctx, cancel := context.WithCancel(t.Context())
				h := &host{kill: kill, after: after, killed: cancel}
				s.cloud.SetFault(h.fault)
				require.NoError(t, s.cloud.Fail(old.ID, "hardware"))
				select {
				case <-ctx.Done():
					kills++
				case <-time.After(10 * time.Second):
					done = true // a farm at rest lists seldom
				}
				cancel()
				stop()
				s.cloud.SetFault(nil)
				s.restart(t, spec)
				defer s.run(t)()
				time.Sleep(time.Minute)
				require.Equal(t, 3, s.ready(), "killed at call %d", kill)
				require.Len(t, world(s.cloud), 3)
				require.Len(t, s.cloud.World(map[string]string{TagFarm: "shop"}).Volumes, 3)
				primary := values(t, s.config, "shop.example.", "db.shop.example.", "A")[0] + ":3306"
				rows, err := s.db.Rows(t.Context(), primary)
				require.NoError(t, err)
				require.Len(t, rows, 1, "killed at call %d", kill)
			})
		}
	}
	require.Greater(t, kills, 10)
	t.Logf("killed %d times", kills)
}

// TestDatabaseThatTheManagerCannotReadIsKept denies the manager every member, for longer than a launch may take: none of them
// is ended.
func TestDatabaseThatTheManagerCannotReadIsKept(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		spec := dbSpec(3)
		spec.Roles[0].LaunchTimeout = time.Minute
		s := newShopDB(t, spec, memcloud.Options{BootTime: 3 * time.Second})
		stop := s.run(t)
		time.Sleep(20 * time.Second)
		servers := s.farm.Servers("db")
		require.NoError(t, s.db.Write(t.Context(), servers[0].Private.String()+":3306", "row", "v"))
		stop()
		for _, x := range servers {
			s.db.Deny(x.Private.String()+":3306", true)
		}
		s.restart(t, spec)
		defer s.run(t)()
		before := world(s.cloud)
		time.Sleep(5 * time.Minute)
		require.Equal(t, before, world(s.cloud))
	})
}

// The lease's fencing token reaches the servers: whoever had the lease before changes them no more.
func TestDatabaseIsClaimedUnderTheLease(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newShopDB(t, dbSpec(2), memcloud.Options{})
		var locker cronlock.Memory
		require.NoError(t, locker.Hold(t.Context(), "farm/other", func(context.Context, cronlock.Lease) error { return nil }))
		s.config.Locker = &locker
		s.restart(t, dbSpec(2))
		defer s.run(t)()
		time.Sleep(time.Minute)
		require.Equal(t, 2, s.ready())
		for _, server := range s.farm.Servers("db") {
			m := replication.Member{Addr: server.Private.String() + ":3306", Token: 1} // the other lease's
			require.ErrorIs(t, s.db.Fence(t.Context(), m), replication.ErrOvertaken)
		}
	})
}

func TestNewWarnsOfDataThatIsNotKept(t *testing.T) {
	var events recorder
	config := testConfig(testCloud(memcloud.Options{}), testZone())
	config.Events = events.event
	manager, err := replication.New(replication.Config{Name: "shop/db", Engine: memdb.New(memdb.Options{}),
		Backups: &replication.Backups{Dir: "/backups", Every: time.Hour, Keep: 7}})
	require.NoError(t, err)
	config.Databases = map[string]*replication.Manager{"db": manager}
	for volume, want := range map[*Volume]int{nil: 2, {SizeGB: 10}: 0} {
		events.events = nil
		spec := dbSpec(2)
		spec.Roles[0].Volume = volume
		spec.Hours = &Hours{Open: "0 9 * * 1-5", Close: "0 17 * * 1-5"}
		spec.End = &End{At: time.Now().Add(time.Hour), TerminateOptions: TerminateOptions{DeleteVolumes: true, FinalSnapshot: true}}
		_, err = New(spec, config)
		require.NoError(t, err)
		require.Len(t, events.events, want)
		if want > 0 {
			require.Contains(t, events.events[0].Message, "it is gone whenever the farm closes")
			require.Contains(t, events.events[1].Message, "keeps no snapshot of it")
		}
	}
}

func TestNewWarnsOfDataAtRisk(t *testing.T) {
	for _, c := range []struct {
		min     int
		backups *replication.Backups
		volume  *Volume
		want    string
	}{
		{min: 1, want: "its data is on its machines' own disks, which go with them: it wants a replica (Min is 1) and backups (replication.Config.Backups), or a Volume"},
		{min: 2, want: "its data is on its machines' own disks, which go with them: it wants backups (replication.Config.Backups), or a Volume"},
		{min: 1, backups: &replication.Backups{Dir: "/backups", Every: time.Hour, Keep: 7}, want: "its data is on its machines' own disks, which go with them: it wants a replica (Min is 1), or a Volume"},
		{min: 2, backups: &replication.Backups{Dir: "/backups", Every: time.Hour, Keep: 7}},
		{min: 1, volume: &Volume{SizeGB: 10}},
	} {
		var events recorder
		config := testConfig(testCloud(memcloud.Options{}), testZone())
		config.Events = events.event
		manager, err := replication.New(replication.Config{Name: "shop/db", Engine: memdb.New(memdb.Options{}), Backups: c.backups})
		require.NoError(t, err)
		config.Databases = map[string]*replication.Manager{"db": manager}
		spec := dbSpec(c.min)
		spec.Roles[0].Volume = c.volume
		_, err = New(spec, config)
		require.NoError(t, err)
		var told []string
		for _, e := range events.events {
			require.Equal(t, DataAtRisk, e.Kind)
			told = append(told, e.Message)
		}
		if c.want == "" {
			require.Empty(t, told)
		} else {
			require.Equal(t, []string{c.want}, told)
		}
	}
}
