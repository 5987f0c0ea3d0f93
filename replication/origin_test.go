package replication_test

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/scalr-go/scalr/replication"
	"github.com/scalr-go/scalr/replication/memdb"
)

// newTwin makes a whole set with rows, and another one, of n empty servers, whose origin it is. The twin's Manager is not
// started. Nobody may serve in the twin who has not all of the rows, scrubbed.
func newTwin(t *testing.T, n int, c replication.Config) (parent, twin *world) {
	parent = newWorld(t, 0, slow, replication.Config{})
	for i := range 2 {
		m := replication.Member{ID: id(i + 1), Addr: fmt.Sprintf("10.1.0.%d:3306", i+1)}
		parent.db.Start(m.Addr)
		parent.members = append(parent.members, m)
	}
	parent.start()
	parent.whole()
	for i := range 10 {
		parent.write("db-1", fmt.Sprint(i))
	}
	parent.write("db-1", "secret")
	parent.settled()

	twin = newWorld(t, n, slow, c)
	twin.config.Name = "dev/db"
	twin.config.Origin = &replication.Origin{
		Engine: parent.db,
		Source: parent.manager().Source,
		Scrub: func(_ context.Context, m replication.Member) error {
			twin.db.Inject(m.Addr, "secret", "scrubbed")
			return nil
		},
	}
	return parent, twin
}

// onVolumes makes the first n servers of the twin ones that have started on snapshots of the volume of the parent's replica, and these
// the twin's only origin.
func (w *world) onVolumes(parent *world, n int) {
	o := w.config.Origin
	w.config.Origin = &replication.Origin{Volumes: true, Scrub: o.Scrub}
	for _, m := range w.members[:n] {
		w.db.Remove(m.Addr)
		w.db.StartCopy(m.Addr, parent.db, parent.members[1].Addr)
	}
}

// shows breaks a rule if the twin shows anything of a member that is not ready.
func (w *world) shows(t replication.Topology) {
	for _, x := range t.Members {
		if !x.Serves && t.Primary != x.Member.ID {
			continue
		}
		rows, err := w.db.Rows(w.ctx, x.Member.Addr)
		if err == nil && (len(rows) < 11 || rows["secret"] != "scrubbed") {
			w.tell("%s is %s, serves: %t, and has %v", x.Member.ID, x.Role, x.Serves, rows)
		}
	}
}

// filled waits until the twin is whole, and holds everything that it shows meanwhile to the rule.
func (w *world) filled() replication.Topology {
	w.t.Helper()
	top := w.until("the twin is whole", time.Minute, func(t replication.Topology) bool {
		w.shows(t)
		return whole(t)
	})
	require.Empty(w.t, w.broken)
	return top
}

func TestOrigin(t *testing.T) {
	for _, n := range []int{1, 3} {
		t.Run(fmt.Sprint(n), func(t *testing.T) {
			policies(t, func(t *testing.T, c replication.Config) {
				synctest.Test(t, func(t *testing.T) {
					parent, twin := newTwin(t, n, c)
					defer parent.stop()
					twin.start()
					defer twin.stop()
					top := twin.filled()
					require.Equal(t, "db-1", top.Primary)
					require.EqualValues(t, 1, top.Epoch)
					require.Nil(t, top.Verdict, "nothing was lost")
					require.Equal(t, "scrubbed", twin.rows("db-1")["secret"])
					require.Equal(t, "secret", parent.rows("db-1")["secret"])
					imported := twin.seen(replication.KindImported)
					require.Len(t, imported, 1)
					require.Equal(t, "10.1.0.2:3306", imported[0].Attrs["source"], "the primary was not spared")
					at, err := parent.db.Observe(t.Context(), parent.members[1])
					require.NoError(t, err)
					require.Equal(t, string(at.Applied), imported[0].Attrs["position"])

					// From now on they have nothing to do with each other.
					parent.write("db-1", "parent")
					twin.write("db-1", "twin")
					parent.settled()
					twin.settled()
					require.NotContains(t, twin.rows("db-1"), "parent")
					require.NotContains(t, parent.rows("db-1"), "twin")
					twin.db.Crash(addr(1))
					if n == 1 { // it has been a primary: that it takes writes again is a recovery
						time.Sleep(time.Second)
						twin.db.Start(addr(1))
						top = twin.settled()
						require.NotNil(t, top.Verdict)
						require.Equal(t, replication.LossNone, top.Verdict.Loss)
						require.Contains(t, twin.rows("db-1"), "twin")
						return
					}
					top = twin.primary("db-1")
					require.Contains(t, twin.rows(top.Primary), "twin")
					twin.db.Start(addr(1))
					twin.settled()
					require.Len(t, twin.seen(replication.KindImported), 1, "a set that has data is not filled")
				})
			})
		})
	}
}

// The Manager dies at each call in turn, before or after it has had its effect; the member that is concerned does; and
// everything does, as in a power cut. In the end the twin has everything, scrubbed, and nobody who had not served meanwhile.
func TestOriginKilledAtEveryCall(t *testing.T) {
	for name, kill := range map[string]func(w *world, call memdb.Call){
		"Manager": func(w *world, _ memdb.Call) { w.kill() },
		"Server": func(w *world, call memdb.Call) {
			w.db.Crash(call.Addr)
			time.AfterFunc(2*time.Second, func() { w.db.Start(call.Addr) })
		},
		"Everything": func(w *world, _ memdb.Call) {
			for _, m := range w.members {
				w.db.Crash(m.Addr)
				time.AfterFunc(2*time.Second, func() { w.db.Start(m.Addr) })
			}
			w.kill()
		},
	} {
		for origin, volumes := range map[string]bool{"Copy": false, "Volumes": true} {
			t.Run(name+"/"+origin, func(t *testing.T) {
				policies(t, func(t *testing.T, c replication.Config) {
					c.Patience = 3 * time.Second
					calls, again := 1, 0
					for ; ; calls++ {
						reached, imports := fillKilled(t, c, volumes, calls, kill)
						if imports > 1 {
							again++
						}
						if !reached {
							break
						}
					}
					require.Greater(t, calls, 10)
					t.Logf("killed at each of %d calls; the data was copied again %d times", calls-1, again)
				})
			})
		}
	}
}

func fillKilled(t *testing.T, c replication.Config, volumes bool, k int, kill func(*world, memdb.Call)) (reached bool, imports int64) {
	synctest.Test(t, func(t *testing.T) {
		parent, w := newTwin(t, 3, c)
		defer parent.stop()
		if volumes {
			w.onVolumes(parent, 3)
		}
		var calls, copies atomic.Int64
		w.hook = func(ctx context.Context, call memdb.Call) error {
			if call.Op == "Observe" {
				return nil
			}
			if (call.Op == "Import" || call.Op == "Adopt") && !call.Done {
				copies.Add(1)
			}
			if calls.Add(1) == int64(k) {
				kill(w, call)
				return context.Canceled
			}
			return nil
		}
		w.start()
		defer func() { w.stop() }()
		w.filled()
		time.Sleep(5 * time.Second) // until the last calls have been made, of members that have joined
		top := w.filled()
		reached, imports = calls.Load() >= int64(k), copies.Load()/2 // it begins and ends
		require.Equal(t, "scrubbed", w.rows(top.Primary)["secret"], "killed at call %d", k)
		require.Len(t, w.rows(top.Primary), 11)
		w.write(top.Primary, "afterwards")
		w.settled()
		require.NotContains(t, parent.rows("db-1"), "afterwards")
	})
	return reached, imports
}

// What stands in the way is told, and is tried again until it works.
func TestOriginInTrouble(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		parent, twin := newTwin(t, 2, replication.Config{Policy: replication.Durability})
		defer parent.stop()
		o := twin.config.Origin
		source, scrub := o.Source, o.Scrub
		var stage atomic.Int64
		o.Source = func(ctx context.Context) (replication.Member, error) {
			switch stage.Load() {
			case 0:
				return replication.Member{}, replication.ErrNoPrimary
			case 1:
				return twin.members[1], nil
			case 2:
				<-ctx.Done()
				return replication.Member{}, context.Cause(ctx)
			}
			return source(ctx)
		}
		o.Scrub = func(ctx context.Context, m replication.Member) error {
			if stage.Load() == 3 {
				return errors.New("half of it is left")
			}
			return scrub(ctx, m)
		}
		twin.start()
		defer twin.stop()
		for i, want := range []string{"finding a server to copy from: no primary", "Origin.Source named db-2 (10.0.0.2:3306), which is a member of this set",
			"finding a server to copy from: context deadline exceeded",
			"scrubbing the copy: half of it is left"} {
			stage.Store(int64(i))
			time.Sleep(time.Minute)
			top, _ := twin.manager().Topology()
			require.Empty(t, top.Primary)
			m, _ := top.Member("db-1")
			require.False(t, m.Serves)
			require.Contains(t, m.Error, want)
		}
		stage.Store(4)
		twin.filled()
		require.Len(t, twin.seen(replication.KindImported), 1)
	})
}

// A set that is meant to have three members is filled when all of them are there: one of them could have its data.
func TestOriginWaitsForAll(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		parent, twin := newTwin(t, 3, replication.Config{})
		defer parent.stop()
		require.NoError(t, twin.db.Promote(t.Context(), twin.members[2], false))
		require.NoError(t, twin.db.Write(t.Context(), addr(3), "own", "v"))
		twin.db.Crash(addr(3))
		twin.start()
		defer twin.stop()
		time.Sleep(time.Minute)
		top, _ := twin.manager().Topology()
		require.Empty(t, top.Primary)
		require.Empty(t, twin.seen(replication.KindImported))
		require.Contains(t, fmt.Sprint(top.Held), "a new set waits for all of its 3 members")
		twin.db.Start(addr(3))
		require.Equal(t, "db-3", twin.whole().Primary)
		require.Empty(t, twin.seen(replication.KindImported))
		require.Equal(t, map[string]string{"own": "v"}, twin.rows("db-1"))
	})
}

// A twin's first server has started again, nobody is left who knows it, and the other one is gone: under Availability it
// goes on alone when the others have been waited for.
func TestOriginGoesOnAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		parent, twin := newTwin(t, 2, replication.Config{})
		defer parent.stop()
		twin.start()
		twin.filled()
		twin.stop()
		twin.db.Remove(addr(2))
		twin.db.Crash(addr(1))
		twin.db.Start(addr(1))
		twin.start()
		defer twin.stop()
		time.Sleep(25 * time.Second)
		top, _ := twin.manager().Topology()
		require.Empty(t, top.Primary)
		time.Sleep(10 * time.Second)
		top, _ = twin.manager().Topology()
		require.Equal(t, "db-1", top.Primary)
		require.Equal(t, replication.LossAtLeast, top.Verdict.Loss)
		require.Len(t, twin.seen(replication.KindImported), 1)
	})
}

// What the members' volumes hold becomes the set's on one of those that hold it, however little it is preferred; another one is
// seeded, also one that holds it too.
func TestOriginOnVolumes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		parent, twin := newTwin(t, 3, replication.Config{})
		defer parent.stop()
		copying := twin.config.Origin
		twin.members[2].Prefer = 5
		twin.onVolumes(parent, 2)
		at, err := parent.db.Observe(t.Context(), parent.members[1])
		require.NoError(t, err)
		parent.write("db-1", "later")
		twin.start()
		require.Equal(t, "db-1", twin.filled().Primary)
		require.Equal(t, "scrubbed", twin.rows("db-1")["secret"])
		require.NotContains(t, twin.rows("db-1"), "later")
		imported := twin.seen(replication.KindImported)
		require.Len(t, imported, 1)
		require.Equal(t, map[string]string{"source": "volume", "position": string(at.Applied)}, imported[0].Attrs)
		twin.stop()

		// Without any, it waits; unless there is a server to copy from.
		for _, m := range twin.members {
			twin.db.Remove(m.Addr)
			twin.db.Start(m.Addr)
		}
		twin.start()
		time.Sleep(time.Minute)
		top, _ := twin.manager().Topology()
		require.Empty(t, top.Primary)
		require.Contains(t, fmt.Sprint(top.Held), "none of its members has the data of another set on its volume")
		twin.stop()
		twin.config.Origin.Engine, twin.config.Origin.Source = copying.Engine, copying.Source
		twin.start()
		defer twin.stop()
		require.Equal(t, "db-3", twin.filled().Primary)
		require.Contains(t, twin.rows("db-1"), "later")
	})
}

// A dry run says what would be done.
func TestOriginPlan(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		parent, twin := newTwin(t, 2, replication.Config{})
		defer parent.stop()
		asked := make(chan struct{})
		twin.config.Origin.Source = func(ctx context.Context) (replication.Member, error) {
			<-asked
			return replication.Member{}, replication.ErrNoPrimary
		}
		twin.start()
		time.Sleep(time.Second)
		plan := twin.manager().Plan()
		close(asked)
		twin.stop()
		var kinds []string
		for _, s := range plan.Steps {
			kinds = append(kinds, fmt.Sprintf("%d %s %s", s.Phase, s.Kind, s.Member))
		}
		require.Equal(t, []string{"1 import db-1", "2 promote db-1", "3 seed db-2", "4 follow db-2"}, kinds, "%v", plan)
	})
}

func TestOriginFaults(t *testing.T) {
	_, err := replication.New(replication.Config{Engine: memdb.New(memdb.Options{}), Origin: &replication.Origin{}})
	require.ErrorContains(t, err, "Config.Origin.Engine is nil")
	require.ErrorContains(t, err, "Config.Origin.Source is nil")
	db := memdb.New(memdb.Options{})
	_, err = replication.New(replication.Config{Engine: db, Origin: &replication.Origin{Engine: db}})
	require.ErrorContains(t, err, "Config.Origin.Engine is the set's own Engine")
	_, err = replication.New(replication.Config{Engine: struct{ replication.Engine }{db}, Origin: &replication.Origin{Volumes: true}})
	require.ErrorContains(t, err, "Config.Origin.Volumes is set, but the Engine (struct { replication.Engine }) cannot adopt")
	_, err = replication.New(replication.Config{Engine: db, Origin: &replication.Origin{Volumes: true, Engine: memdb.New(memdb.Options{})}})
	require.ErrorContains(t, err, "Config.Origin.Source is nil")
	require.NotContains(t, err.Error(), "Engine")
	for _, o := range []*replication.Origin{{Volumes: true}, {Volumes: true, Source: func(context.Context) (replication.Member, error) { return replication.Member{}, nil }}} {
		_, err = replication.New(replication.Config{Engine: db, Origin: o})
		require.NoError(t, err)
	}
	_, err = replication.New(replication.Config{Engine: struct{ replication.Engine }{db}, Origin: &replication.Origin{Engine: db}})
	require.ErrorContains(t, err, "Config.Origin is set, but the Engine (struct { replication.Engine }) cannot import")
}
