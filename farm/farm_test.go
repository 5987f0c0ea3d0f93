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
