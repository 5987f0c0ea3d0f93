package farm

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/scalr-go/scalr/dnsreg"
	"github.com/scalr-go/scalr/provider"
	"github.com/scalr-go/scalr/provider/memcloud"
)

var errKilled = errors.New("the host program was killed")

// host is a program that runs a farm until it is killed: at its kill-th call of the cloud, before the call takes effect or
// after.
type host struct {
	kill   int
	after  bool
	steps  bool                      // only calls that change something count
	lose   func(memcloud.Call) error // a reply that is lost, or a call that fails, by itself
	calls  atomic.Int64
	killed context.CancelFunc
	dead   atomic.Bool
}

// fault is the cloud's hook for calls of this host.
func (h *host) fault(_ context.Context, c memcloud.Call) error {
	if h.dead.Load() {
		return errKilled
	}
	if h.steps && !changing(c) {
		return nil
	}
	if c.After == h.after && int(h.calls.Add(1)) == h.kill {
		h.dead.Store(true)
		h.killed()
		return errKilled
	}
	if h.lose != nil {
		return h.lose(c)
	}
	return nil
}

// testSpec wants everything that an index can own, in an order of launch.
func testSpec() Spec {
	return Spec{Name: "shop", Zone: "shop.example.", TTL: time.Second, Roles: []Role{
		{Name: "www", Serves: Web, Image: "web", Min: 2, Max: 3, After: []string{"app"}, Address: true, Main: true,
			Balancer: &Balancer{Protocol: "http", Port: 80}},
		{Name: "app", Image: "app", Min: 2, Max: 2, Volume: &Volume{SizeGB: 1}},
	}}
}

func testConfig(cloud provider.Provider, zone dnsreg.Registrar) Config {
	return Config{Pools: []Pool{{Name: "a", Provider: cloud, Placement: "a"}, {Name: "b", Provider: cloud, Placement: "b"}},
		DNS: zone, ListLag: 10 * time.Second, Grace: time.Minute, MissingAfter: 30 * time.Second, Backoff: 5 * time.Second,
		Parallel: 1}
}

func testZone() *dnsreg.Memory { return &dnsreg.Memory{Zones: []string{"shop.example."}} }

func testCloud(o memcloud.Options) *memcloud.Cloud {
	o.Placements = []string{"a", "b"}
	c := memcloud.New(o)
	c.CreateForeign(nil)
	c.CreateForeign(map[string]string{TagFarm: "other", TagRole: "www", TagIndex: "1"})
	return c
}

// passes makes passes until so many in a row have nothing to do, or reports the plan of the last one.
func passes(ctx context.Context, f *Farm, most, rest int) error {
	quiet := 0
	var p Plan
	var err error
	for range most {
		p, err = f.Reconcile(ctx)
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if quiet++; err != nil || !p.Empty() || len(p.Waits) > 0 {
			quiet = 0
		}
		if quiet == rest {
			return nil
		}
		time.Sleep(2 * time.Second)
	}
	return fmt.Errorf("no rest after %d passes: %v\n%s", most, err, p)
}

// settled reports what is wrong with the world of a farm at rest.
func settled(cloud *memcloud.Cloud, spec Spec) error {
	w := cloud.World(map[string]string{TagFarm: spec.Name})
	seen := map[string]int{}
	count := func(kind string, tags map[string]string) { seen[kind+" "+tags[TagRole]+"-"+tags[TagIndex]]++ }
	for _, in := range w.Instances {
		count("instance", in.Tags)
	}
	for _, v := range w.Volumes {
		count("volume", v.Tags)
		if v.Instance == "" {
			return fmt.Errorf("volume %s of slot %s-%s is with nobody", v.ID, v.Tags[TagRole], v.Tags[TagIndex])
		}
	}
	for _, a := range w.Addresses {
		count("address", a.Tags)
		if a.Instance == "" {
			return fmt.Errorf("address %s of slot %s-%s is with nobody", a.ID, a.Tags[TagRole], a.Tags[TagIndex])
		}
	}
	for k, n := range seen {
		if n != 1 {
			return fmt.Errorf("there are %d of %s", n, k)
		}
	}
	for _, r := range spec.Roles {
		instances, volumes, addresses := 0, 0, 0
		for k := range seen {
			switch kind, slot, _ := strings.Cut(k, " "); {
			case !strings.HasPrefix(slot, r.Name+"-"):
			case kind == "instance":
				instances++
			case kind == "volume":
				volumes++
			case kind == "address":
				addresses++
			}
		}
		if instances < r.Min || instances > r.Max {
			return fmt.Errorf("role %s has %d machines, want %d to %d", r.Name, instances, r.Min, r.Max)
		}
		if r.Volume != nil && volumes != instances || r.Address && addresses != instances {
			return fmt.Errorf("role %s has %d machines, %d volumes, %d addresses", r.Name, instances, volumes, addresses)
		}
	}
	return nil
}

// foreign is everything that is not the farm's.
func foreign(cloud *memcloud.Cloud) string {
	var b strings.Builder
	w := cloud.World(nil)
	for _, in := range w.Instances {
		if in.Tags[TagFarm] != "shop" {
			fmt.Fprintln(&b, in.ID, in.State, in.Tags)
		}
	}
	for _, v := range w.Volumes {
		if v.Tags[TagFarm] != "shop" {
			fmt.Fprintln(&b, v.ID, v.Instance, v.Tags)
		}
	}
	for _, a := range w.Addresses {
		if a.Tags[TagFarm] != "shop" {
			fmt.Fprintln(&b, a.ID, a.Instance, a.Tags)
		}
	}
	for _, s := range w.Snapshots {
		if s.Tags[TagFarm] != "shop" {
			fmt.Fprintln(&b, s.ID, s.Ready, s.Tags)
		}
	}
	for _, x := range w.Balancers {
		if x.Tags[TagFarm] != "shop" {
			fmt.Fprintln(&b, x.ID, x.Targets, x.Tags)
		}
	}
	return b.String()
}

// TestHostKilledAtEveryCall kills the host program at each call of the cloud in turn, before and after its effect, starts
// it again, and wants to find exactly what the spec says: nothing lost, nothing doubled at any time, nothing foreign
// touched; and nothing at all after the end.
func TestHostKilledAtEveryCall(t *testing.T) {
	kills := 0
	for _, lag := range []time.Duration{0, 5 * time.Second} {
		for _, after := range []bool{false, true} {
			for kill, done := 1, false; !done; kill++ {
				synctest.Test(t, func(t *testing.T) {
					cloud := testCloud(memcloud.Options{BootTime: 3 * time.Second, ListLag: lag, TerminateTime: 2 * time.Second, ReadyTime: time.Second})
					zone := testZone()
					others := foreign(cloud)
					spec := testSpec()

					first := &host{kill: kill, after: after}
					ctx, cancel := context.WithCancel(t.Context())
					first.killed = cancel
					cloud.SetFault(first.fault)
					f, err := New(spec, testConfig(cloud, zone))
					require.NoError(t, err)
					err = passes(ctx, f, 100, 2)
					if err == nil {
						done = true // it needs fewer calls than that
					} else {
						require.ErrorIs(t, err, context.Canceled)
						kills++
					}

					cloud.SetFault(nil)
					f, err = New(spec, testConfig(cloud, zone))
					require.NoError(t, err)
					require.NoError(t, passes(t.Context(), f, 100, 2), "killed at call %d", kill)
					require.NoError(t, settled(cloud, spec), "killed at call %d", kill)
					created := map[string]int{}
					for _, c := range cloud.Changes() {
						switch c.Method {
						case "Launch", "CreateVolume", "AllocateAddress", "CreateBalancer":
							if c.Tags[TagFarm] == "shop" {
								created[c.Method+" "+c.Tags[TagRole]+"-"+c.Tags[TagIndex]]++
							}
						}
					}
					for what, n := range created {
						require.Equal(t, 1, n, "%s, killed at call %d", what, kill)
					}
					require.NoError(t, f.Terminate(t.Context(), TerminateOptions{DeleteVolumes: true}))
					require.Zero(t, cloud.World(map[string]string{TagFarm: "shop"}).Len(), "left over, killed at call %d", kill)
					require.Equal(t, others, foreign(cloud))
				})
			}
		}
	}
	t.Logf("killed %d times", kills)
	require.Greater(t, kills, 60)
}

// TestHostKilledWhileEnding does the same with Terminate.
func TestHostKilledWhileEnding(t *testing.T) {
	kills := 0
	for _, after := range []bool{false, true} {
		for kill, done := 1, false; !done; kill++ {
			synctest.Test(t, func(t *testing.T) {
				cloud := testCloud(memcloud.Options{BootTime: 3 * time.Second, ListLag: 5 * time.Second, TerminateTime: 2 * time.Second})
				zone := testZone()
				others := foreign(cloud)
				f, err := New(testSpec(), testConfig(cloud, zone))
				require.NoError(t, err)
				require.NoError(t, passes(t.Context(), f, 100, 2))

				h := &host{kill: kill, after: after}
				ctx, cancel := context.WithCancel(t.Context())
				h.killed = cancel
				cloud.SetFault(h.fault)
				if err = f.Terminate(ctx, TerminateOptions{DeleteVolumes: true}); err == nil {
					done = true
				} else {
					kills++
					cloud.SetFault(nil)
					f, err = New(testSpec(), testConfig(cloud, zone))
					require.NoError(t, err)
					require.NoError(t, f.Terminate(t.Context(), TerminateOptions{DeleteVolumes: true}))
				}
				require.Zero(t, cloud.World(map[string]string{TagFarm: "shop"}).Len(), "left over, killed at call %d", kill)
				require.Equal(t, others, foreign(cloud))
				records, err := zone.Records(t.Context(), "shop.example.")
				require.NoError(t, err)
				for _, r := range records {
					require.Contains(t, []string{"SOA", "NS"}, r.Type)
				}
			})
		}
	}
	require.Greater(t, kills, 20)
}

// TestFarmConverges draws a cloud with every kind of fault, and hosts that are killed at any call, and wants the farm to
// come to rest as its spec says, with nothing foreign touched.
func TestFarmConverges(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		rapid.SyncTest(rt, func(rt *rapid.T) {
			seconds := func(most int, name string) time.Duration {
				return time.Duration(rapid.IntRange(0, most*1000).Draw(rt, name)) * time.Millisecond
			}
			cloud := testCloud(memcloud.Options{BootTime: seconds(20, "boot"), BootSpread: seconds(10, "spread"),
				ListLag: seconds(8, "lag"), TerminateTime: seconds(10, "terminate"), ReadyTime: seconds(5, "ready"),
				TerminatedLinger: seconds(60, "linger"), Latency: seconds(1, "latency"),
				LateVolumes: rapid.Bool().Draw(rt, "late volumes"), Seed: rapid.Uint64().Draw(rt, "seed")})
			zone := testZone()
			others := foreign(cloud)
			spec := testSpec()
			spec.Roles[0].Min = rapid.IntRange(0, 3).Draw(rt, "min")
			config := testConfig(cloud, zone)
			config.Parallel = rapid.IntRange(1, 4).Draw(rt, "parallel")
			faults := []error{provider.ErrAmbiguous, provider.ErrThrottled, provider.ErrCapacity, provider.ErrQuota, provider.ErrAuth, errors.New("502 bad gateway")}
			for range rapid.IntRange(0, 4).Draw(rt, "hosts") {
				share := rapid.IntRange(0, 40).Draw(rt, "faults in a hundred")
				dice := rapid.Uint64().Draw(rt, "dice")
				h := &host{kill: rapid.IntRange(1, 60).Draw(rt, "kill"), after: rapid.Bool().Draw(rt, "after")}
				h.lose = func(c memcloud.Call) error {
					// Calls side by side come in any order: what becomes of one depends on what it is.
					n := hash(dice, c.Method, c.ID, fmt.Sprint(c.After), fmt.Sprint(time.Now().Unix()))
					if int(n%100) < share {
						return faults[int(n/100)%len(faults)]
					}
					return nil
				}
				ctx, cancel := context.WithTimeout(rt.Context(), 5*time.Minute)
				h.killed = cancel
				cloud.SetFault(h.fault)
				if rapid.Bool().Draw(rt, "no capacity in a") {
					cloud.SetCapacity("a", "", 0)
				} else {
					cloud.SetCapacity("a", "", 100)
				}
				f, err := New(spec, config)
				if err != nil {
					rt.Fatal(err)
				}
				_ = passes(ctx, f, 50, 2)
				cancel()
				if list := cloud.World(map[string]string{TagFarm: "shop"}).Instances; len(list) > 0 && rapid.Bool().Draw(rt, "lose one") {
					victim := list[rapid.IntRange(0, len(list)-1).Draw(rt, "victim")].ID
					if rapid.Bool().Draw(rt, "fails") {
						_ = cloud.Fail(victim, "hardware")
					} else {
						_ = cloud.Kill(victim, "reclaimed")
					}
				}
			}
			cloud.SetFault(nil)
			cloud.SetCapacity("a", "", 100)
			f, err := New(spec, config)
			if err != nil {
				rt.Fatal(err)
			}
			if err := passes(rt.Context(), f, 900, 6); err != nil {
				rt.Fatal(err)
			}
			if err := settled(cloud, spec); err != nil {
				rt.Fatal(err)
			}
			if now := foreign(cloud); now != others {
				rt.Fatalf("what is not the farm's was touched: %s, was %s", now, others)
			}
			if err := f.Terminate(rt.Context(), TerminateOptions{DeleteVolumes: true}); err != nil {
				rt.Fatal(err)
			}
			if n := cloud.World(map[string]string{TagFarm: "shop"}).Len(); n != 0 {
				rt.Fatalf("%d things are left over", n)
			}
		})
	})
}

func hash(seed uint64, parts ...string) uint64 {
	h := seed ^ 14695981039346656037
	for _, c := range []byte(strings.Join(parts, "|")) {
		h = (h ^ uint64(c)) * 1099511628211
	}
	return h ^ h>>29
}
