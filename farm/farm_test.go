package farm

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/scalr-go/scalr"
	"github.com/scalr-go/scalr/cache"
	"github.com/scalr-go/scalr/cronlock"
	"github.com/scalr-go/scalr/dnsreg"
	"github.com/scalr-go/scalr/farm/scale"
	"github.com/scalr-go/scalr/provider"
	"github.com/scalr-go/scalr/provider/memcloud"
)

// recorder keeps the events of a farm.
type recorder struct {
	mu     sync.Mutex
	events []scalr.Event
}

func record(c *Config) *recorder {
	r := new(recorder)
	c.Events = r.event
	return r
}

func (r *recorder) event(e scalr.Event) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.events = append(r.events, e)
}

// kinds gives the kinds of what has happened.
func (r *recorder) kinds() (list []string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, e := range r.events {
		list = append(list, string(e.Kind))
	}
	return list
}

// text gives all of it as a person would read it.
func (r *recorder) text() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	var b strings.Builder
	for _, e := range r.events {
		fmt.Fprintln(&b, e, e.Attrs)
	}
	return b.String()
}

// values gives what a name holds.
func values(t *testing.T, c Config, zone, name, kind string) []string {
	t.Helper()
	records, err := c.DNS.Records(t.Context(), zone)
	require.NoError(t, err)
	for _, r := range records {
		if r.Name == name && r.Type == kind {
			return r.Values
		}
	}
	return nil
}

func web(min, max int) Spec {
	return Spec{Name: "shop", Zone: "shop.example.", TTL: time.Second, Roles: []Role{
		{Name: "www", Serves: Web, Image: "web", Min: min, Max: max, Main: true, Aliases: []string{"shop"}}}}
}

func TestNamesFollowTheMachines(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cloud := testCloud(memcloud.Options{BootTime: 10 * time.Second})
		spec, config := testSpec(), testConfig(cloud, testZone())
		spec.Roles[0].Balancer = nil
		f, err := New(spec, config)
		require.NoError(t, err)
		require.NoError(t, passes(t.Context(), f, 100, 2))
		servers := f.Servers("www")
		require.Len(t, servers, 2)
		var public, private []string
		for _, s := range servers {
			require.True(t, s.Ready)
			require.NotEqual(t, s.Public, s.Private)
			public, private = append(public, s.Public.String()), append(private, s.Private.String())
			require.Equal(t, []string{s.Public.String()}, values(t, config, spec.Zone, s.Name+".shop.example.", "A"))
		}
		slices.Sort(public)
		slices.Sort(private)
		require.Equal(t, public, values(t, config, spec.Zone, "www.shop.example.", "A"))
		require.Equal(t, public, values(t, config, spec.Zone, "shop.example.", "A"))
		require.Equal(t, private, values(t, config, spec.Zone, "int-www.shop.example.", "A"))

		// The index owns the address: its next machine has the same name at the same address.
		before := servers[0]
		require.NoError(t, cloud.Kill(before.ID, "reclaimed"))
		require.NoError(t, passes(t.Context(), f, 100, 20))
		after := f.Servers("www")[0]
		require.NotEqual(t, before.ID, after.ID)
		require.Equal(t, before.Public, after.Public)
		require.Equal(t, before.Index, after.Index)

		// While nobody serves, the names of the service keep what they have.
		for _, s := range f.Servers("www") {
			require.NoError(t, cloud.Fail(s.ID, "hardware"))
		}
		cloud.SetCapacity("", "", 0)
		for range 5 {
			_, _ = f.Reconcile(t.Context())
			time.Sleep(5 * time.Second)
		}
		require.Equal(t, public, values(t, config, spec.Zone, "www.shop.example.", "A"))
	})
}

func TestBalancerGetsTheMachines(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cloud := testCloud(memcloud.Options{BootTime: 10 * time.Second, ReadyTime: 5 * time.Second})
		spec, config := testSpec(), testConfig(cloud, testZone())
		spec.Roles[0].Scale = &Scale{Custom: "mine"}
		want := 3
		config.Policies = map[string]scale.Policy{"mine": scale.Func(func(scale.Input) scale.Decision { return scale.Decision{Desired: want} })}
		f, err := New(spec, config)
		require.NoError(t, err)
		require.NoError(t, passes(t.Context(), f, 100, 2))
		balancers := cloud.World(map[string]string{TagFarm: "shop"}).Balancers
		require.Len(t, balancers, 1)
		require.Len(t, balancers[0].Targets, 3)
		records, err := config.DNS.Records(t.Context(), spec.Zone)
		require.NoError(t, err)
		require.True(t, slices.ContainsFunc(records, func(r dnsreg.RRset) bool {
			return r.Name == "www.shop.example." && slices.ContainsFunc(r.Values, func(v string) bool { return strings.TrimSuffix(v, ".") == balancers[0].Host })
		}), "%v %v", records, balancers[0].Host)

		want = 2
		require.NoError(t, passes(t.Context(), f, 100, 2))
		require.Len(t, cloud.World(map[string]string{TagFarm: "shop"}).Balancers[0].Targets, 2)
		var order []string
		for _, c := range cloud.Changes() {
			if c.Method == "DeregisterTarget" || c.Method == "Terminate" {
				order = append(order, c.Method)
			}
		}
		require.Equal(t, []string{"DeregisterTarget", "Terminate"}, order)
	})
}

func TestAbsenceIsNotDeath(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cloud := testCloud(memcloud.Options{})
		blind := &blinder{Cloud: cloud}
		config := testConfig(blind, testZone())
		events := record(&config)
		f, err := New(web(10, 10), config)
		require.NoError(t, err)
		require.NoError(t, passes(t.Context(), f, 100, 2))
		ids := world(cloud)

		// A failed list is no empty list, and half a list is not believed, for a long time.
		for _, hide := range []func(int) bool{nil, func(i int) bool { return i%2 == 0 }, func(int) bool { return true }} {
			blind.hide, blind.err = hide, errors.New("503")
			if hide != nil {
				blind.err = nil
			}
			for range 60 {
				p, _ := f.Reconcile(t.Context())
				require.True(t, p.Empty(), "%s", p)
				time.Sleep(5 * time.Second)
			}
			blind.hide, blind.err = nil, nil
			_, err = f.Reconcile(t.Context())
			require.NoError(t, err)
			require.Equal(t, ids, world(cloud))
		}
		require.Contains(t, events.kinds(), string(ViewDistrusted))
		require.Contains(t, events.kinds(), string(ViewTrusted))

		// One machine that vanishes for good is replaced after a while, half of them after a longer while.
		blind.hide = func(i int) bool { return i == 0 }
		require.NoError(t, passes(t.Context(), f, 100, 2))
		require.Len(t, world(cloud), 11)
	})
}

// blinder hides instances from lists.
type blinder struct {
	*memcloud.Cloud
	hide func(i int) bool
	err  error
}

func (b *blinder) Instances(ctx context.Context, tags map[string]string) ([]provider.Instance, error) {
	list, err := b.Cloud.Instances(ctx, tags)
	if b.err != nil {
		return nil, b.err
	}
	kept := list[:0]
	for i, in := range list {
		if b.hide == nil || !b.hide(i) {
			kept = append(kept, in)
		}
	}
	return kept, err
}

func world(c *memcloud.Cloud) (ids []string) {
	for _, in := range c.World(map[string]string{TagFarm: "shop"}).Instances {
		ids = append(ids, in.ID)
	}
	return ids
}

func TestScalingFollowsTheMetric(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cloud := testCloud(memcloud.Options{BootTime: 20 * time.Second})
		spec, config := web(2, 10), testConfig(cloud, testZone())
		spec.Roles[0].Scale = &Scale{Target: &scale.Target{Metric: "rps", Value: 100, Total: true, Window: time.Minute}}
		load, missing := 150.0, false
		config.Sensors = map[string]Sensor{"rps": SensorFunc(func(context.Context, string, []Server) ([]scale.Sample, error) {
			if missing {
				return nil, errors.New("no answer")
			}
			return []scale.Sample{{Value: load, At: time.Now()}}, nil
		})}
		events := record(&config)
		f, err := New(spec, config)
		require.NoError(t, err)
		ready := func() int {
			n := 0
			for _, s := range f.Servers("www") {
				if s.Ready {
					n++
				}
			}
			return n
		}
		run := func(d time.Duration) {
			for end := time.Now().Add(d); time.Now().Before(end); time.Sleep(5 * time.Second) {
				_, _ = f.Reconcile(t.Context())
			}
		}
		run(2 * time.Minute)
		require.Equal(t, 2, ready())
		load = 750
		run(2 * time.Minute)
		require.Equal(t, 8, ready())
		missing = true // a metric that is missing is not zero
		run(10 * time.Minute)
		require.Equal(t, 8, ready())
		missing, load = false, 5000
		run(2 * time.Minute)
		require.Equal(t, 10, ready())
		load = 10
		run(5 * time.Minute)
		require.Equal(t, 2, ready())
		for _, k := range []scalr.Kind{ScaleUp, ScaleDown, HostUp, HostDown, PassFailed} {
			require.Contains(t, events.kinds(), string(k))
		}
		// What stays are the lowest slots.
		require.Equal(t, []string{"www-1", "www-2"}, []string{f.Servers("www")[0].Name, f.Servers("www")[1].Name})
	})
}

func TestFallbackAndReturn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cloud := testCloud(memcloud.Options{Capacity: map[memcloud.Offering]int{{Placement: "a", Size: "large"}: 1, {Placement: "b", Size: "large"}: 1}})
		spec, config := web(3, 5), testConfig(cloud, testZone())
		spec.Roles[0].Size, spec.Roles[0].Fallback = "large", []string{"small"}
		f, err := New(spec, config)
		require.NoError(t, err)
		require.NoError(t, passes(t.Context(), f, 100, 2))
		where := map[string]int{}
		for _, in := range cloud.World(map[string]string{TagFarm: "shop"}).Instances {
			where[in.Size+" in "+in.Placement]++
		}
		require.Equal(t, map[string]int{"large in a": 1, "large in b": 1, "small in a": 1}, where, "next placement, then next size")

		// The back-off ends: when there is room again, a new machine takes the first choice.
		cloud.SetCapacity("a", "large", 5)
		time.Sleep(2 * time.Minute)
		for _, in := range cloud.World(map[string]string{TagFarm: "shop"}).Instances {
			if in.Size == "small" {
				require.NoError(t, cloud.Fail(in.ID, "hardware"))
			}
		}
		require.NoError(t, passes(t.Context(), f, 100, 2))
		where = map[string]int{}
		for _, in := range cloud.World(map[string]string{TagFarm: "shop"}).Instances {
			where[in.Size+" in "+in.Placement]++
		}
		require.Equal(t, map[string]int{"large in a": 2, "large in b": 1}, where)
	})
}

func TestStuckMachineBlocksNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cloud := testCloud(memcloud.Options{BootTime: time.Second})
		spec, config := web(4, 4), testConfig(cloud, testZone())
		spec.Roles[0].Health = &Health{Custom: "check", Failures: 3}
		spec.Roles[0].LaunchTimeout = time.Minute
		stuck := ""
		config.Checks = map[string]func(context.Context, Server) error{"check": func(_ context.Context, s Server) error {
			if s.ID == stuck || stuck == "" {
				stuck = s.ID
				return errors.New("still installing")
			}
			return nil
		}}
		f, err := New(spec, config)
		require.NoError(t, err)
		for range 10 {
			_, _ = f.Reconcile(t.Context())
			time.Sleep(2 * time.Second)
		}
		require.Len(t, values(t, config, spec.Zone, "www.shop.example.", "A"), 3, "the others serve")
		require.NoError(t, passes(t.Context(), f, 100, 2))
		require.NotContains(t, world(cloud), stuck)

		// One that has served and fails its check is out of the names at once, and replaced after some failures.
		stuck = f.Servers("www")[2].ID
		_, _ = f.Reconcile(t.Context())
		require.Len(t, values(t, config, spec.Zone, "www.shop.example.", "A"), 3)
		require.Contains(t, world(cloud), stuck)
		require.NoError(t, passes(t.Context(), f, 100, 2))
		require.NotContains(t, world(cloud), stuck)
		require.Len(t, world(cloud), 4)
	})
}

func TestRunHoldsTheLease(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cloud, zone := testCloud(memcloud.Options{BootTime: time.Second}), testZone()
		var locker cronlock.Memory
		var mu sync.Mutex
		holders := []string{}
		start := func(name string) (*Farm, context.CancelFunc, chan error) {
			config := testConfig(cloud, zone)
			config.Locker = &locker
			config.Events = func(e scalr.Event) {
				mu.Lock()
				defer mu.Unlock()
				if e.Kind == LeaseHeld {
					holders = append(holders, name)
				}
			}
			f, err := New(web(3, 3), config)
			require.NoError(t, err)
			ctx, cancel := context.WithCancel(t.Context())
			done := make(chan error, 1)
			go func() { done <- f.Run(ctx) }()
			return f, cancel, done
		}
		held := func() []string {
			mu.Lock()
			defer mu.Unlock()
			return slices.Clone(holders)
		}
		_, stop, done := start("first")
		synctest.Wait()
		second, _, ended := start("second")
		time.Sleep(time.Minute)
		require.Len(t, world(cloud), 3)
		require.Equal(t, []string{"first"}, held())
		stop()
		require.ErrorIs(t, <-done, context.Canceled)
		time.Sleep(time.Minute)
		require.Equal(t, []string{"first", "second"}, held())
		require.Len(t, world(cloud), 3)
		require.ErrorContains(t, second.Run(t.Context()), "runs already")

		require.NoError(t, second.Terminate(t.Context(), TerminateOptions{}))
		require.NoError(t, <-ended)
		require.Empty(t, world(cloud))
		require.ErrorIs(t, second.Run(t.Context()), ErrEnded)
		_, err := second.Reconcile(t.Context())
		require.ErrorIs(t, err, ErrEnded)
	})
}

func TestCacheFollows(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cloud := testCloud(memcloud.Options{BootTime: time.Second})
		follower := new(followed)
		config := testConfig(cloud, nil)
		config.DNS = nil
		config.Caches = map[string]cache.Follower{"cache": follower}
		f, err := New(Spec{Name: "shop", Roles: []Role{{Name: "cache", Serves: Cache, Image: "memcached", Min: 3, Max: 3}}}, config)
		require.NoError(t, err)
		require.NoError(t, passes(t.Context(), f, 100, 2))
		before := follower.servers
		require.Len(t, before, 3)
		require.Equal(t, "cache-1", before[0].Slot)
		require.NoError(t, cloud.Fail(f.Servers("cache")[1].ID, "hardware"))
		_, err = f.Reconcile(t.Context())
		require.NoError(t, err)
		require.Equal(t, before, follower.servers, "a slot keeps its keys while its machine is replaced")
		require.NoError(t, passes(t.Context(), f, 100, 2))
		require.Len(t, follower.servers, 3)
		require.Equal(t, before[0], follower.servers[0])
		require.Equal(t, before[1].Slot, follower.servers[1].Slot)
		require.NotEqual(t, before[1].Addr, follower.servers[1].Addr)
	})
}

type followed struct{ servers []cache.Server }

func (f *followed) SetServers(s []cache.Server) error { f.servers = s; return nil }

// TestOneListingCallAPass counts the calls of a farm at rest.
func TestOneListingCallAPass(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cloud := testCloud(memcloud.Options{})
		f, err := New(web(50, 50), testConfig(cloud, testZone()))
		require.NoError(t, err)
		require.NoError(t, passes(t.Context(), f, 100, 2))
		before := cloud.Calls()
		_, err = f.Reconcile(t.Context())
		require.NoError(t, err)
		calls := 0
		for method, n := range cloud.Calls() {
			if n -= before[method]; n > 0 {
				calls += n
				require.Equal(t, "Instances", method)
			}
		}
		require.Equal(t, 1, calls, fmt.Sprint(cloud.Calls(), before))
	})
}

// TestSurplusIsKeptForAWhile puts a second machine into a slot, and one into a role that the spec does not have.
func TestSurplusIsKeptForAWhile(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cloud := testCloud(memcloud.Options{})
		config := testConfig(cloud, testZone())
		events := record(&config)
		f, err := New(web(2, 2), config)
		require.NoError(t, err)
		require.NoError(t, passes(t.Context(), f, 100, 2))
		for i, tags := range []map[string]string{
			{TagFarm: "shop", TagRole: "www", TagIndex: "2", TagPool: "a"},
			{TagFarm: "shop", TagRole: "old", TagIndex: "1", TagPool: "closed"},
			{TagFarm: "shop"},
		} {
			_, err := cloud.Launch(t.Context(), provider.Launch{Token: fmt.Sprint("x", i), Image: "i", Placement: "a", Tags: tags})
			require.NoError(t, err)
		}
		for range 10 {
			p, err := f.Reconcile(t.Context())
			require.NoError(t, err)
			require.True(t, p.Empty(), "%s", p)
			require.Len(t, world(cloud), 5)
			time.Sleep(config.Grace / 11)
		}
		require.Contains(t, events.kinds(), string(Quarantined))
		require.NoError(t, passes(t.Context(), f, 100, 2))
		require.Len(t, world(cloud), 2)
		require.Len(t, f.Servers(""), 2)
	})
}

// TestCommonCause lets all machines fail their check at once: they are not replaced, and keep their names.
func TestCommonCause(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cloud := testCloud(memcloud.Options{})
		spec, config := web(5, 5), testConfig(cloud, testZone())
		spec.Roles[0].Health = &Health{Custom: "check"}
		broken := false
		config.Checks = map[string]func(context.Context, Server) error{"check": func(context.Context, Server) error {
			if broken {
				return errors.New("the database is down")
			}
			return nil
		}}
		f, err := New(spec, config)
		require.NoError(t, err)
		require.NoError(t, passes(t.Context(), f, 100, 2))
		ids, names := world(cloud), values(t, config, spec.Zone, "www.shop.example.", "A")
		broken = true
		for range 20 {
			p, err := f.Reconcile(t.Context())
			require.NoError(t, err)
			require.True(t, p.Empty(), "%s", p)
			time.Sleep(5 * time.Second)
		}
		require.Equal(t, ids, world(cloud))
		require.Equal(t, names, values(t, config, spec.Zone, "www.shop.example.", "A"))
	})
}

// TestDrainComesBeforeTheEnd shrinks a role: first the name goes, and the machine stays for as long as resolvers may keep it.
func TestDrainComesBeforeTheEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cloud := testCloud(memcloud.Options{})
		spec, config := web(1, 3), testConfig(cloud, testZone())
		want := 3
		spec.Roles[0].Scale, spec.Roles[0].Drain = &Scale{Custom: "mine"}, 30*time.Second
		config.Policies = map[string]scale.Policy{"mine": scale.Func(func(scale.Input) scale.Decision { return scale.Decision{Desired: want} })}
		f, err := New(spec, config)
		require.NoError(t, err)
		require.NoError(t, passes(t.Context(), f, 100, 2))
		want = 1
		start := time.Now()
		for time.Since(start) < 29*time.Second {
			_, err := f.Reconcile(t.Context())
			require.NoError(t, err)
			require.Len(t, values(t, config, spec.Zone, "www.shop.example.", "A"), 1)
			require.Len(t, world(cloud), 3)
			time.Sleep(2 * time.Second)
		}
		want = 2 // one that is on its way out is taken back before a new one is launched
		require.NoError(t, passes(t.Context(), f, 100, 2))
		require.Len(t, world(cloud), 2)
		launches := 0
		for _, c := range cloud.Changes() {
			if c.Method == "Launch" && c.Tags[TagFarm] == "shop" {
				launches++
			}
		}
		require.Equal(t, 3, launches)
	})
}

// TestLostLeaseStopsThePass loses the lease in the middle of a launch: what was begun ends, and nothing more is done until
// another program has the lease.
func TestLostLeaseStopsThePass(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cloud := testCloud(memcloud.Options{BootTime: time.Second})
		var locker cronlock.Memory
		config := testConfig(cloud, testZone())
		config.Locker = &locker
		events := record(&config)
		var launches atomic.Int64
		cloud.SetFault(func(_ context.Context, c memcloud.Call) error {
			if c.Method == "Launch" && !c.After {
				if launches.Add(1) == 2 {
					locker.Expire("farm/shop")
				}
			}
			return nil
		})
		f, err := New(web(5, 5), config)
		require.NoError(t, err)
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- f.Run(ctx) }()
		time.Sleep(config.Interval + time.Second)
		synctest.Wait()
		require.LessOrEqual(t, launches.Load(), int64(2))
		require.Contains(t, events.kinds(), string(LeaseLost))
		time.Sleep(time.Minute)
		require.Len(t, world(cloud), 5)
		cancel()
		require.ErrorIs(t, <-done, context.Canceled)
	})
}

// TestRetryThatIsRefusedIsNoAnswer loses the reply of a launch and refuses its retry: the machine may be there all the same, so
// that no other pool is tried.
func TestRetryThatIsRefusedIsNoAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cloud := testCloud(memcloud.Options{ListLag: 8 * time.Second})
		calls := 0
		cloud.SetFault(func(_ context.Context, c memcloud.Call) error {
			if c.Method != "Launch" {
				return nil
			}
			if c.After && calls == 0 {
				calls++
				return errors.New("connection reset")
			}
			if !c.After && calls == 1 {
				calls++
				return provider.ErrCapacity
			}
			return nil
		})
		f, err := New(web(1, 1), testConfig(cloud, testZone()))
		require.NoError(t, err)
		require.NoError(t, passes(t.Context(), f, 100, 5))
		launches := 0
		for _, c := range cloud.Changes() {
			if c.Method == "Launch" && c.Tags[TagFarm] == "shop" {
				launches++
			}
		}
		require.Equal(t, 1, launches)
	})
}

// TestErrorsWithoutAReasonFallBack has a pool that answers every launch with a server error.
func TestErrorsWithoutAReasonFallBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		bad, good := testCloud(memcloud.Options{}), testCloud(memcloud.Options{})
		bad.SetFault(func(_ context.Context, c memcloud.Call) error {
			if c.Method == "Launch" && !c.After {
				return errors.New("500 internal server error")
			}
			return nil
		})
		config := testConfig(bad, testZone())
		config.Pools[1] = Pool{Name: "b", Provider: good, Placement: "b"}
		f, err := New(web(2, 2), config)
		require.NoError(t, err)
		require.NoError(t, passes(t.Context(), f, 100, 2))
		require.Len(t, world(good), 2)
		require.LessOrEqual(t, bad.Calls()["Launch"], 12)
	})
}

// TestStoppedMachineIsStarted switches machines off behind the farm's back.
func TestStoppedMachineIsStarted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cloud := testCloud(memcloud.Options{BootTime: time.Second})
		f, err := New(web(2, 2), testConfig(cloud, testZone()))
		require.NoError(t, err)
		require.NoError(t, passes(t.Context(), f, 100, 2))
		ids := world(cloud)
		require.NoError(t, cloud.Stop(t.Context(), ids[0]))
		require.NoError(t, passes(t.Context(), f, 100, 2))
		require.Equal(t, ids, world(cloud))
		require.Len(t, f.Servers("www"), 2)
	})
}

// TestForeignHolderKeepsTheVolume gives a slot's volume to a machine that is not the farm's: it is not torn off.
func TestForeignHolderKeepsTheVolume(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cloud := testCloud(memcloud.Options{})
		spec := web(1, 1)
		spec.Roles[0].Volume = &Volume{SizeGB: 1}
		f, err := New(spec, testConfig(cloud, testZone()))
		require.NoError(t, err)
		require.NoError(t, passes(t.Context(), f, 100, 2))
		rescue, err := cloud.Launch(t.Context(), provider.Launch{Token: "rescue", Image: "i", Placement: "a"})
		require.NoError(t, err)
		volume := cloud.World(map[string]string{TagFarm: "shop"}).Volumes[0].ID
		require.NoError(t, cloud.DetachVolume(t.Context(), volume))
		require.NoError(t, cloud.AttachVolume(t.Context(), volume, rescue.ID))
		for range 100 {
			_, err := f.Reconcile(t.Context())
			require.NoError(t, err)
			time.Sleep(5 * time.Second)
		}
		require.Equal(t, rescue.ID, cloud.World(map[string]string{TagFarm: "shop"}).Volumes[0].Instance)
	})
}

// TestEndDoesNotWaitForWhatItDoesNotNeed ends a farm whose sensor fails, and whose credentials may not list balancers.
func TestEndDoesNotWaitForWhatItDoesNotNeed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cloud := testCloud(memcloud.Options{})
		cloud.SetFault(func(_ context.Context, c memcloud.Call) error {
			if c.Method == "Balancers" {
				return provider.ErrAuth
			}
			return nil
		})
		spec, config := web(2, 3), testConfig(cloud, testZone())
		spec.Roles[0].Scale = &Scale{Target: &scale.Target{Metric: "cpu", Value: 1}}
		config.Sensors = map[string]Sensor{"cpu": SensorFunc(func(context.Context, string, []Server) ([]scale.Sample, error) {
			return nil, errors.New("no series")
		})}
		f, err := New(spec, config)
		require.NoError(t, err)
		_, _ = f.Reconcile(t.Context())
		ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
		defer cancel()
		require.NoError(t, f.Terminate(ctx, TerminateOptions{}))
		require.Empty(t, world(cloud))
	})
}

// TestChangedSpecLeavesNothingBehind drops an address and a balancer from a role that stays.
func TestChangedSpecLeavesNothingBehind(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cloud, zone := testCloud(memcloud.Options{}), testZone()
		f, err := New(testSpec(), testConfig(cloud, zone))
		require.NoError(t, err)
		require.NoError(t, passes(t.Context(), f, 100, 2))
		spec := testSpec()
		spec.Roles[0].Address, spec.Roles[0].Balancer = false, nil
		f, err = New(spec, testConfig(cloud, zone))
		require.NoError(t, err)
		for range 60 {
			_, err := f.Reconcile(t.Context())
			require.NoError(t, err)
			time.Sleep(2 * time.Second)
		}
		w := cloud.World(map[string]string{TagFarm: "shop"})
		require.Empty(t, w.Balancers)
		require.Empty(t, w.Addresses)
		require.Len(t, w.Instances, 4)
	})
}

// TestSuccessorInheritsTheAddress leaves the slots 2 and 3 of a role, and loses 3: its successor takes slot 3, though 1 is free.
func TestSuccessorInheritsTheAddress(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cloud := testCloud(memcloud.Options{})
		spec, config := web(2, 3), testConfig(cloud, testZone())
		want := 3
		spec.Roles[0].Address, spec.Roles[0].Scale = true, &Scale{Custom: "mine"}
		spec.Roles[0].Health = &Health{Custom: "check", Failures: 100}
		sick := ""
		config.Checks = map[string]func(context.Context, Server) error{"check": func(_ context.Context, s Server) error {
			if s.ID == sick {
				return errors.New("is sick")
			}
			return nil
		}}
		config.Policies = map[string]scale.Policy{"mine": scale.Func(func(scale.Input) scale.Decision { return scale.Decision{Desired: want} })}
		f, err := New(spec, config)
		require.NoError(t, err)
		require.NoError(t, passes(t.Context(), f, 100, 2))
		sick = f.Servers("www")[0].ID
		_, err = f.Reconcile(t.Context())
		require.NoError(t, err)
		want = 2
		require.NoError(t, passes(t.Context(), f, 100, 2))
		third := f.Servers("www")[1]
		require.Equal(t, "www-3", third.Name)
		require.NoError(t, cloud.Fail(third.ID, "hardware"))
		require.NoError(t, passes(t.Context(), f, 100, 2))
		require.Equal(t, "www-3", f.Servers("www")[1].Name)
		require.Equal(t, third.Public, f.Servers("www")[1].Public)
	})
}

// TestEndWaitsForTheLists ends a farm right after a program has died with a launch that no list shows yet.
func TestEndWaitsForTheLists(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cloud := testCloud(memcloud.Options{ListLag: 8 * time.Second})
		ctx, cancel := context.WithCancel(t.Context())
		h := &host{kill: 2, after: true, killed: cancel} // the call after the first listing is the launch
		spec, config := web(1, 1), testConfig(cloud, testZone())
		f, err := New(spec, config)
		require.NoError(t, err)
		_, err = f.Plan(t.Context())
		require.NoError(t, err)
		cloud.SetFault(func(ctx context.Context, c memcloud.Call) error {
			if c.Method != "Instances" && c.Method != "Launch" {
				return nil
			}
			return h.fault(ctx, c)
		})
		require.ErrorIs(t, passes(ctx, f, 3, 2), context.Canceled)
		cloud.SetFault(nil)
		require.Len(t, world(cloud), 1)
		f, err = New(spec, config)
		require.NoError(t, err)
		require.NoError(t, f.Terminate(t.Context(), TerminateOptions{}))
		require.Empty(t, world(cloud))
	})
}

// TestNothingIsEndedInADistrustedView hides half of the machines, and wants fewer of those that can be seen.
func TestNothingIsEndedInADistrustedView(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cloud := testCloud(memcloud.Options{})
		blind := &blinder{Cloud: cloud}
		spec, config := web(1, 10), testConfig(blind, testZone())
		want := 10
		spec.Roles[0].Scale = &Scale{Custom: "mine"}
		config.Policies = map[string]scale.Policy{"mine": scale.Func(func(scale.Input) scale.Decision { return scale.Decision{Desired: want} })}
		f, err := New(spec, config)
		require.NoError(t, err)
		require.NoError(t, passes(t.Context(), f, 100, 2))
		ids := world(cloud)
		blind.hide = func(i int) bool { return i%2 == 0 }
		want = 2
		for range 60 {
			_, err := f.Reconcile(t.Context())
			require.NoError(t, err)
			require.Equal(t, ids, world(cloud))
			time.Sleep(5 * time.Second)
		}
		blind.hide = nil
		require.NoError(t, passes(t.Context(), f, 100, 2))
		require.Len(t, world(cloud), 2)
	})
}
