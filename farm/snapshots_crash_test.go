package farm

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/scalr-go/scalr/provider"
	"github.com/scalr-go/scalr/provider/memcloud"
)

// guard fails the deletion of a complete snapshot that has no newer one, and of what the schedule has not made.
func guard(cloud *memcloud.Cloud, report func(string, ...any)) func(memcloud.Call) {
	return func(c memcloud.Call) {
		if c.Method != "DeleteSnapshot" || c.After {
			return
		}
		w := cloud.World(nil).Snapshots
		at := slices.IndexFunc(w, func(s provider.Snapshot) bool { return s.ID == c.ID })
		if at < 0 {
			return
		}
		gone := w[at]
		if gone.Tags[TagFarm] != "shop" || gone.Tags[TagDue] == "" {
			report("deletes %+v, which the schedule has not made", gone)
		}
		if gone.Ready && !slices.ContainsFunc(w, func(s provider.Snapshot) bool {
			return s.Ready && s.Tags[TagDue] != "" && s.Tags[TagIndex] == gone.Tags[TagIndex] && s.Created.After(gone.Created)
		}) {
			report("deletes %+v, which is the newest complete one", gone)
		}
	}
}

// TestHostKilledWhileItCopies kills the host program at each call in turn while it takes, awaits and rotates snapshots, and starts
// it again: each period has one, none is doubled, none forgotten.
func TestHostKilledWhileItCopies(t *testing.T) {
	kills := 0
	const every = 4 * time.Minute
	for _, lag := range []time.Duration{0, 8 * time.Second} {
		for _, after := range []bool{false, true} {
			for kill, done := 1, false; !done; kill++ {
				synctest.Test(t, func(t *testing.T) {
					cloud := testCloud(memcloud.Options{BootTime: 3 * time.Second, ListLag: lag, ReadyTime: 30 * time.Second})
					others := foreign(cloud)
					check := guard(cloud, t.Errorf)
					spec, config := storeSpec(2, &Snapshots{Every: every, Keep: 1}), testConfig(cloud, nil)
					f, err := New(spec, config)
					require.NoError(t, err)
					work(t, f, 3*time.Minute, 10*time.Second)

					ctx, cancel := context.WithCancel(t.Context())
					h := &host{kill: kill, after: after, killed: cancel}
					cloud.SetFault(func(ctx context.Context, c memcloud.Call) error {
						check(c)
						// A steady farm's listings are no news; what may be lost is with snapshots.
						if c.Method != "Snapshots" && c.Method != "CreateSnapshot" && c.Method != "DeleteSnapshot" && !h.dead.Load() {
							return nil
						}
						return h.fault(ctx, c)
					})
					done = true
					for range 60 {
						if _, err := f.Reconcile(ctx); ctx.Err() != nil {
							require.Error(t, err)
							done = false
							kills++
							break
						}
						time.Sleep(10 * time.Second)
					}
					cloud.SetFault(func(_ context.Context, c memcloud.Call) error { check(c); return nil })
					f, err = New(spec, config)
					require.NoError(t, err)
					work(t, f, 14*time.Minute, 10*time.Second)
					taken := map[string][]memcloud.Change{}
					for _, c := range cloud.Changes() {
						if c.Method == "CreateSnapshot" {
							taken[c.Tags[TagIndex]] = append(taken[c.Tags[TagIndex]], c)
						}
					}
					require.Len(t, taken, 2)
					for slot, list := range taken {
						for i := range list[1:] {
							apart := list[i+1].Time.Sub(list[i].Time)
							require.True(t, apart >= every && apart <= every+config.ListLag+30*time.Second, "slot %s: %v after the last, killed at call %d", slot, apart, kill)
						}
						require.GreaterOrEqual(t, time.Since(list[0].Time), 14*time.Minute)
						require.LessOrEqual(t, time.Since(list[len(list)-1].Time), every+10*time.Second)
					}
					for slot, list := range copiesIn(cloud, "shop") {
						complete := 0
						for _, s := range list {
							if s.Ready {
								complete++
							}
						}
						require.Equal(t, 1, complete, "%s, killed at call %d", slot, kill)
						require.LessOrEqual(t, len(list), 2)
					}
					require.Equal(t, others, foreign(cloud))
				})
			}
		}
	}
	t.Logf("killed %d times", kills)
	require.Greater(t, kills, 60)
}

// TestSnapshotsConverge draws faults of every kind, failing snapshots, machines that die and hosts that are killed: no complete
// snapshot goes before there is a newer one, and when the faults end there are as many as should be, and none too early.
func TestSnapshotsConverge(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		rapid.SyncTest(rt, func(rt *rapid.T) {
			seconds := func(most int, name string) time.Duration {
				return time.Duration(rapid.IntRange(0, most*1000).Draw(rt, name)) * time.Millisecond
			}
			cloud := testCloud(memcloud.Options{BootTime: seconds(20, "boot"), ListLag: seconds(8, "lag"), ReadyTime: seconds(90, "ready"),
				Latency: seconds(1, "latency"), Seed: rapid.Uint64().Draw(rt, "seed")})
			others := foreign(cloud)
			every := 5*time.Minute + seconds(300, "every")
			keep := rapid.IntRange(0, 3).Draw(rt, "keep")
			s := &Snapshots{Every: every, Keep: keep}
			if keep == 0 || rapid.Bool().Draw(rt, "by age as well") {
				s.MaxAge = every + seconds(1200, "age")
			}
			spec, config := storeSpec(2, s), testConfig(cloud, nil)
			check := guard(cloud, rt.Fatalf)
			faults := []error{provider.ErrAmbiguous, provider.ErrThrottled, provider.ErrQuota, provider.ErrAuth, errors.New("502 bad gateway")}
			for range rapid.IntRange(0, 4).Draw(rt, "hosts") {
				share, dice := rapid.IntRange(0, 40).Draw(rt, "faults in a hundred"), rapid.Uint64().Draw(rt, "dice")
				h := &host{kill: rapid.IntRange(1, 400).Draw(rt, "kill"), after: rapid.Bool().Draw(rt, "after")}
				h.lose = func(c memcloud.Call) error {
					n := hash(dice, c.Method, c.ID, fmt.Sprint(c.After), fmt.Sprint(time.Now().Unix()))
					if int(n%100) < share {
						return faults[int(n/100)%len(faults)]
					}
					return nil
				}
				ctx, cancel := context.WithTimeout(rt.Context(), 40*time.Minute)
				h.killed = cancel
				cloud.SetFault(func(ctx context.Context, c memcloud.Call) error { check(c); return h.fault(ctx, c) })
				f, err := New(spec, config)
				if err != nil {
					rt.Fatal(err)
				}
				for n := 0; ctx.Err() == nil; n++ {
					_, _ = f.Reconcile(ctx)
					for _, list := range copiesIn(cloud, "shop") {
						if last := list[len(list)-1]; !last.Ready && !last.Failed && hash(dice, last.ID)%4 == 0 {
							_ = cloud.FailSnapshot(last.ID, "disk full")
						}
					}
					if hash(dice, fmt.Sprint(n))%50 == 0 {
						if list := world(cloud); len(list) > 0 {
							_ = cloud.Kill(list[0], "reclaimed")
						}
					}
					time.Sleep(10 * time.Second)
				}
				cancel()
			}
			cloud.SetFault(func(_ context.Context, c memcloud.Call) error { check(c); return nil })
			f, err := New(spec, config)
			if err != nil {
				rt.Fatal(err)
			}
			for end := time.Now().Add(2*every + s.MaxAge + 20*time.Minute); time.Now().Before(end); time.Sleep(10 * time.Second) {
				_, _ = f.Reconcile(rt.Context())
			}
			by := copiesIn(cloud, "shop")
			if len(by) != 2 {
				rt.Fatalf("%d volumes have snapshots, want 2", len(by))
			}
			for slot, list := range by {
				complete := 0
				for i, x := range list {
					switch {
					case x.Failed:
						rt.Fatalf("%s: %+v has failed and is there", slot, x)
					case x.Ready:
						complete++
					}
					if i > 0 && x.Created.Sub(list[i-1].Created) < every {
						rt.Fatalf("%s: %v after the last one, want %v", slot, x.Created.Sub(list[i-1].Created), every)
					}
					if s.MaxAge > 0 && i < len(list)-2 && time.Since(x.Created) > s.MaxAge+time.Minute {
						rt.Fatalf("%s: %v old", slot, time.Since(x.Created))
					}
				}
				newest := list[len(list)-1]
				if complete < 1 || s.Keep > 0 && complete > s.Keep && time.Since(newest.Created) > 3*time.Minute || time.Since(newest.Created) > every+30*time.Second {
					rt.Fatalf("%s: %d complete ones, the newest %v old", slot, complete, time.Since(newest.Created))
				}
			}
			if now := foreign(cloud); now != others {
				rt.Fatalf("what is not the farm's was touched: %s, was %s", now, others)
			}
		})
	})
}
