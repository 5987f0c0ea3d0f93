package farm

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/scalr-go/scalr/farm/scale"
	"github.com/scalr-go/scalr/provider"
	"github.com/scalr-go/scalr/provider/memcloud"
)

// TestMoveUnderLoad moves a whole farm from one cloud to another while clients use it. The plan shows where the way back ends.
func TestMoveUnderLoad(t *testing.T) {
	for _, kind := range []string{"plain", "address", "balancer"} {
		t.Run(kind, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newTwoClouds(t, memcloud.Options{BootTime: 5 * time.Second, BootSpread: 5 * time.Second, ReadyTime: time.Second, TerminateTime: 2 * time.Second})
				spec := movingSpec()
				spec.Roles[1].Address, spec.Roles[1].Main = kind == "address", kind != "balancer"
				if kind == "balancer" {
					spec.Roles[1].Balancer = &Balancer{Protocol: "tcp", Port: 80}
				}
				w.run(t, spec, &host{})
				w.settle(t, spec, "a", time.Minute)
				ctx, cancel := context.WithCancel(t.Context())
				wait := w.use(ctx, spec)
				time.Sleep(5 * time.Second)

				moved, err := spec.Move(MoveOptions{Pools: []string{"b"}, Move: Move{Hold: true, DeleteVolumes: true}})
				require.NoError(t, err)
				w.run(t, moved, &host{})
				time.Sleep(time.Minute)
				require.Equal(t, 5, w.count("a"))
				require.Equal(t, 5, w.count("b"))
				p, err := w.farm.Plan(ctx)
				require.NoError(t, err)
				require.Empty(t, p.Steps, "%s", p)
				require.Contains(t, p.String(), "wait db: moves to pool b: 3 machines there serve, and the move is held")
				require.Contains(t, p.String(), "    next  switch-over: ")
				require.Contains(t, p.String(), "the point of no return: until here, naming a again takes it all back ----\n    next  end: 3 machines here end")

				moved.Roles[0].Move.Hold, moved.Roles[1].Move.Hold = false, false
				w.run(t, moved, &host{})
				w.settle(t, moved, "b", 2*time.Minute)
				time.Sleep(10 * time.Second)
				cancel()
				wait()
				w.check(t, "b")
				require.Contains(t, w.events.kinds(), string(MoveDone))
				require.Equal(t, 1, strings.Count(strings.Join(w.events.kinds(), " "), string(SwitchOver)))
				t.Logf("%d rows, %d answers kept, the longest pause of the writers %v", len(w.acked), w.answers, w.pause)
				require.Less(t, w.pause, 500*time.Millisecond)
				p, err = w.farm.Plan(t.Context())
				require.NoError(t, err)
				require.Empty(t, p.Moves)
				w.stop()
			})
		})
	}
}

// changing are the calls of a move that change something.
func changing(c memcloud.Call) bool {
	return !slices.Contains([]string{"Instances", "Volumes", "Addresses", "Balancers", "Snapshots"}, c.Method)
}

// TestMoveByHostsThatDieAtEachStep lets each program that moves web servers make one change and die after its effect: none takes back
// what another has done, so that the move comes to its end. (A change of primary is several, and is begun again.)
func TestMoveByHostsThatDieAtEachStep(t *testing.T) {
	for _, kind := range []string{"plain", "address", "balancer"} {
		t.Run(kind, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newTwoClouds(t, memcloud.Options{BootTime: 3 * time.Second, ReadyTime: time.Second, TerminateTime: time.Second})
				w.config.Parallel = 1 // what is changed at the same time dies with one host
				spec := movingSpec()
				spec.Roles = spec.Roles[1:]
				spec.Roles[0].After, spec.Roles[0].Address, spec.Roles[0].Main = nil, kind == "address", kind != "balancer"
				if kind == "balancer" {
					spec.Roles[0].Balancer = &Balancer{Protocol: "tcp", Port: 80}
				}
				w.run(t, spec, &host{})
				w.settle(t, spec, "a", time.Minute)
				moved, err := spec.Move(MoveOptions{Pools: []string{"b"}})
				require.NoError(t, err)
				ctx, cancel := context.WithCancel(t.Context())
				wait := w.use(ctx, spec)
				kills := 0
				for alive := false; !alive && kills < 80; {
					select {
					case <-w.run(t, moved, &host{kill: 1, after: true, steps: true}).Done():
						kills++
					case <-time.After(5 * time.Minute):
						alive = true
					}
				}
				cancel()
				wait()
				require.True(t, w.atHome(moved, "b"), "%d hosts were killed: %s", kills, w.events.text())
				w.check(t, "b")
				w.stop()
				t.Logf("killed %d hosts", kills)
				require.GreaterOrEqual(t, kills, 6)
			})
		})
	}
}

// TestMoveIsKilledAtEveryStep kills the host program at each call in turn that changes something: a cloud, the zone, the database;
// before its effect and after. Then the move is resumed by another program, or taken back: nothing is lost, doubled or left over,
// and every name leads to what serves at every instant.
func TestMoveIsKilledAtEveryStep(t *testing.T) {
	for _, back := range []bool{false, true} {
		for _, after := range []bool{false, true} {
			kills := 0
			for kill, done := 1, false; !done; kill++ {
				synctest.Test(t, func(t *testing.T) {
					w := newTwoClouds(t, memcloud.Options{BootTime: 3 * time.Second, ReadyTime: time.Second, TerminateTime: time.Second, ListLag: 500 * time.Millisecond})
					spec := movingSpec()
					w.run(t, spec, &host{})
					w.settle(t, spec, "a", time.Minute)
					moved, err := spec.Move(MoveOptions{Pools: []string{"b"}, Move: Move{DeleteVolumes: true}})
					require.NoError(t, err)
					home, err := spec.Move(MoveOptions{Pools: []string{"a"}, Move: Move{DeleteVolumes: true}})
					require.NoError(t, err)
					ctx, cancel := context.WithCancel(t.Context())
					wait := w.use(ctx, spec)

					killed := w.run(t, moved, &host{kill: kill, after: after, steps: true})
					select {
					case <-killed.Done():
						kills++
					case <-time.After(2 * time.Minute):
						done = true // it has fewer steps
					}
					pool, next := "b", moved
					if back {
						pool, next = "a", home
					}
					w.run(t, next, &host{})
					w.settle(t, next, pool, 5*time.Minute)
					cancel()
					wait()
					w.check(t, pool)
					w.stop()
				})
				if t.Failed() {
					t.Fatalf("killed at step %d, after its effect: %t, taken back: %t", kill, after, back)
				}
			}
			t.Logf("killed %d times, after the effect: %t, taken back: %t", kills, after, back)
			require.Greater(t, kills, 25)
		}
	}
}

// TestMovesConverge draws hosts that move the farm to and fro, are killed at any call and lose replies, and one that brings it to
// rest: whatever came before, no acknowledged row is lost, nothing is left over elsewhere, and the names were right all the while.
func TestMovesConverge(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		rapid.SyncTest(rt, func(rt *rapid.T) {
			seconds := func(most int, name string) time.Duration {
				return time.Duration(rapid.IntRange(0, most*1000).Draw(rt, name)) * time.Millisecond
			}
			w := newTwoClouds(rt, memcloud.Options{BootTime: seconds(8, "boot"), BootSpread: seconds(5, "spread"), ReadyTime: seconds(2, "ready"),
				TerminateTime: seconds(3, "terminate"), TerminatedLinger: seconds(20, "linger"), ListLag: seconds(1, "lag")})
			spec := movingSpec()
			spec.Roles[0].Min = rapid.IntRange(1, 3).Draw(rt, "databases")
			www := &spec.Roles[1]
			www.Address = rapid.Bool().Draw(rt, "address")
			if !www.Address && rapid.Bool().Draw(rt, "balancer") {
				www.Balancer, www.Main = &Balancer{Protocol: "tcp", Port: 80}, false
			}
			w.run(rt, spec, &host{})
			w.settle(rt, spec, "a", time.Minute)
			ctx, cancel := context.WithCancel(rt.Context())
			wait := w.use(ctx, spec)
			to := func(pool string) Spec {
				moved, err := spec.Move(MoveOptions{Pools: []string{pool}, Move: Move{DeleteVolumes: true}})
				require.NoError(rt, err)
				return moved
			}
			pools := rapid.SampledFrom([]string{"a", "b"})
			faults := []error{provider.ErrAmbiguous, provider.ErrThrottled, provider.ErrCapacity, errors.New("502 bad gateway")}
			for range rapid.IntRange(1, 4).Draw(rt, "hosts") {
				share := rapid.IntRange(0, 20).Draw(rt, "faults in a hundred")
				dice := rapid.Uint64().Draw(rt, "dice")
				h := &host{kill: rapid.IntRange(1, 60).Draw(rt, "kill"), after: rapid.Bool().Draw(rt, "after"), steps: true}
				h.lose = func(c memcloud.Call) error {
					n := hash(dice, c.Method, c.ID, fmt.Sprint(c.After), fmt.Sprint(time.Now().Unix()))
					if int(n%100) < share {
						return faults[int(n/100)%len(faults)]
					}
					return nil
				}
				killed := w.run(rt, to(pools.Draw(rt, "to")), h)
				select {
				case <-killed.Done():
				case <-time.After(seconds(60, "life")):
				}
			}
			pool := pools.Draw(rt, "rests in")
			w.run(rt, to(pool), &host{})
			w.settle(rt, spec, pool, 10*time.Minute)
			cancel()
			wait()
			w.check(rt, pool)
			w.stop()
		})
	})
}

func TestSpecMove(t *testing.T) {
	spec := movingSpec()
	moved, err := spec.Move(MoveOptions{Pools: []string{"b", "c"}, Roles: []string{"db"}, Move: Move{Hold: true}})
	require.NoError(t, err)
	require.Equal(t, []string{"b", "c"}, moved.Roles[0].Pools)
	require.Equal(t, &Move{Hold: true}, moved.Roles[0].Move)
	require.Equal(t, spec.Roles[1], moved.Roles[1], "the other role stays")
	require.Equal(t, movingSpec(), spec)
	moved.Roles[0].Pools[0], moved.Roles[0].Aliases[0] = "x", "x"
	require.Equal(t, movingSpec(), spec, "nothing is shared")

	data, err := json.Marshal(moved)
	require.NoError(t, err)
	require.Contains(t, string(data), `"move":{"hold":true}`)
	var back Spec
	require.NoError(t, json.Unmarshal(data, &back))
	require.Equal(t, moved, back)

	spec.Roles[1].Volume = &Volume{SizeGB: 1}
	_, err = spec.Move(MoveOptions{Roles: []string{"www", "cache"}})
	for _, want := range []string{
		`move of farm "shop":`,
		"options.Pools: is empty, want the pools to move to",
		`options.Roles: farm shop has no role "cache"`,
		"spec.roles[1] (www).move: the role has volumes, which cannot leave their pools, and is no database",
	} {
		require.ErrorContains(t, err, want)
	}
	// New says the same of a spec that somebody has written.
	spec.Roles[1].Move, spec.Roles[1].Pools = &Move{}, nil
	_, err = New(spec, testConfig(testCloud(memcloud.Options{}), testZone()))
	require.ErrorContains(t, err, "spec.roles[1] (www).move: the role has volumes")
	require.ErrorContains(t, err, "spec.roles[1] (www).pools: is empty, but move is set: want the pools to move to")
}

// TestMoveGoesOnlyWhereThereIsRoom: while the other pool has no room, the role stays as it is, and what fails is replaced
// where it was; the policy may make it larger.
func TestMoveGoesOnlyWhereThereIsRoom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cloud := testCloud(memcloud.Options{BootTime: 5 * time.Second})
		cloud.SetCapacity("b", "", 1)
		spec, config := web(3, 6), testConfig(cloud, testZone())
		size := 4
		spec.Roles[0].Pools, spec.Roles[0].Scale = []string{"a"}, &Scale{Custom: "mine"}
		config.Policies = map[string]scale.Policy{"mine": scale.Func(func(scale.Input) scale.Decision { return scale.Decision{Desired: size} })}
		f, err := New(spec, config)
		require.NoError(t, err)
		require.NoError(t, passes(t.Context(), f, 100, 2))
		in := func() map[string]int {
			n := map[string]int{}
			for _, x := range cloud.World(map[string]string{TagFarm: "shop"}).Instances {
				n[x.Tags[TagPool]]++
			}
			return n
		}
		require.Equal(t, map[string]int{"a": 4}, in())
		spec, err = spec.Move(MoveOptions{Pools: []string{"b"}})
		require.NoError(t, err)
		f, err = New(spec, config)
		require.NoError(t, err)
		rest := func() {
			for range 60 {
				_, _ = f.Reconcile(t.Context())
				time.Sleep(2 * time.Second)
			}
		}
		rest()
		require.Equal(t, map[string]int{"a": 4, "b": 1}, in())
		for _, s := range f.Servers("www") {
			if s.Pool == "a" && s.Index < 3 {
				require.NoError(t, cloud.Kill(s.ID, "gone"))
			}
		}
		rest()
		require.Equal(t, map[string]int{"a": 3, "b": 1}, in(), "as many as are wanted, where there is room")
		size = 6
		rest()
		require.Equal(t, map[string]int{"a": 5, "b": 1}, in())
		size = 3
		rest()
		require.Equal(t, map[string]int{"a": 5, "b": 1}, in(), "it shrinks when it has moved")
		cloud.SetCapacity("b", "", 100)
		rest()
		require.Equal(t, map[string]int{"b": 3}, in())
	})
}

// TestMoveOfADatabaseThatIsLost loses every member during a move: nobody begins anew without the data, which is on the volumes, and
// naming the old pool brings it back.
func TestMoveOfADatabaseThatIsLost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newTwoClouds(t, memcloud.Options{BootTime: 5 * time.Second, TerminatedLinger: time.Minute})
		spec := movingSpec()
		spec.Roles = spec.Roles[:1]
		w.run(t, spec, &host{})
		w.settle(t, spec, "a", time.Minute)
		moved, err := spec.Move(MoveOptions{Pools: []string{"b"}})
		require.NoError(t, err)
		w.run(t, moved, &host{})
		for w.count("b") == 0 {
			time.Sleep(10 * time.Millisecond)
		}
		for _, id := range world(w.clouds["a"]) {
			require.NoError(t, w.clouds["a"].Kill(id, "the region is gone"))
		}
		for range 2 {
			time.Sleep(5 * time.Minute)
			require.Empty(t, w.db.Writable(), "nobody begins anew")
			require.Len(t, w.clouds["a"].World(map[string]string{TagFarm: "shop"}).Volumes, 3)
			p, err := w.farm.Plan(t.Context())
			require.NoError(t, err)
			require.Empty(t, p.Moves)
			w.run(t, moved, &host{}) // nor does another run
		}
		back, err := spec.Move(MoveOptions{Pools: []string{"a"}})
		require.NoError(t, err)
		w.run(t, back, &host{})
		time.Sleep(time.Minute)
		require.Equal(t, 3, w.count("a"), "on their volumes")
		w.stop()
	})
}
