package main

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/scalr-go/scalr"
	"github.com/scalr-go/scalr/cronlock"
	"github.com/scalr-go/scalr/cronlock/zookeeper"
	"github.com/scalr-go/scalr/farm"
	"github.com/scalr-go/scalr/internal/testenv"
	"github.com/scalr-go/scalr/provider/memcloud"
	"github.com/scalr-go/scalr/replication"
	"github.com/scalr-go/scalr/replication/memdb"
)

// host is one of the programs that could lead. It can be cut off from the ensemble.
type host struct {
	*zookeeper.Client
	gate string
}

func newHost(t *testing.T, e *testenv.Ensemble) host {
	gate := filepath.Join(t.TempDir(), "gate")
	c, err := zookeeper.Open(t.Context(), zookeeper.Options{Servers: e.Addrs(), Timeout: 3 * time.Second, Root: "/leaders", Dial: config{Gate: gate}.dial})
	require.NoError(t, err)
	t.Cleanup(func() { c.Close() })
	return host{c, gate}
}

func (h host) cut(t *testing.T)  { require.NoError(t, os.WriteFile(h.gate, nil, 0o600)) }
func (h host) heal(t *testing.T) { require.NoError(t, os.Remove(h.gate)) }

// eventually waits for what must come.
func eventually(t *testing.T, what string, cond func() bool) {
	t.Helper()
	for began := time.Now(); !cond(); time.Sleep(10 * time.Millisecond) {
		require.Less(t, time.Since(began), time.Minute, "waited in vain until %s", what)
	}
}

// Of two programs one manages the database, under a lease of the ensemble. When it is cut off, its Manager has ended before the other one's
// begins; that one finds the database as it is, and recovers it.
func TestManagerUnderLease(t *testing.T) {
	e := testenv.ZooKeeper(t, 3)
	db := memdb.New(memdb.Options{})
	members := []replication.Member{{ID: "db-1", Addr: "a:1"}, {ID: "db-2", Addr: "b:1"}, {ID: "db-3", Addr: "c:1"}}
	for _, m := range members {
		db.Start(m.Addr)
	}
	ctx, stop := context.WithCancel(t.Context())
	var running, both atomic.Int32
	var group sync.WaitGroup
	leads := make([]atomic.Bool, 2)
	manage := func(n int, h host) *replication.Manager {
		m, err := replication.New(replication.Config{Name: "shop/db", Engine: db})
		require.NoError(t, err)
		m.SetMembers(members, len(members))
		group.Go(func() {
			for ctx.Err() == nil {
				_ = h.Hold(ctx, "replication/shop/db", func(ctx context.Context, _ cronlock.Lease) error {
					if running.Add(1) > 1 {
						both.Add(1)
					}
					leads[n].Store(true)
					defer running.Add(-1)
					defer leads[n].Store(false)
					return m.Run(ctx)
				})
			}
		})
		return m
	}
	defer group.Wait()
	defer stop()
	primary := func(m *replication.Manager) string {
		topology, _ := m.Topology()
		return topology.Primary
	}
	a, b := newHost(t, e), newHost(t, e)
	first := manage(0, a)
	eventually(t, "the first finds a primary", func() bool { return primary(first) != "" })
	second := manage(1, b)
	old := primary(first)
	a.cut(t)
	eventually(t, "the second leads", func() bool { return leads[1].Load() })
	require.False(t, leads[0].Load())
	eventually(t, "the second finds the same primary", func() bool { return primary(second) == old })
	for _, m := range members {
		if m.ID == old {
			db.Crash(m.Addr)
		}
	}
	eventually(t, "the second recovers", func() bool { return primary(second) != old && primary(second) != "" })
	a.heal(t)
	require.NoError(t, b.Close())
	eventually(t, "the first leads again", func() bool { return leads[0].Load() && primary(first) == primary(second) })
	require.Zero(t, both.Load(), "two Managers at once")
}

// Of two programs one runs the farm. When it is cut off the other one does, and nothing is launched twice.
func TestFarmUnderLease(t *testing.T) {
	e := testenv.ZooKeeper(t, 3)
	cloud := memcloud.New(memcloud.Options{BootTime: 50 * time.Millisecond})
	spec := farm.Spec{Name: "shop", Roles: []farm.Role{{Name: "www", Serves: farm.Web, Image: "web", Min: 3, Max: 3}}}
	ctx, stop := context.WithCancel(t.Context())
	var group sync.WaitGroup
	run := func(h host) (f *farm.Farm, held, lost *atomic.Int32) {
		held, lost = new(atomic.Int32), new(atomic.Int32)
		f, err := farm.New(spec, farm.Config{
			Pools: []farm.Pool{{Name: "memory", Provider: cloud}}, Locker: h, Interval: 200 * time.Millisecond, ListLag: time.Millisecond,
			MissingAfter: time.Millisecond,
			Events: func(e scalr.Event) {
				switch e.Kind {
				case farm.LeaseHeld:
					held.Add(1)
				case farm.LeaseLost:
					lost.Add(1)
				}
			},
		})
		require.NoError(t, err)
		group.Go(func() { _ = f.Run(ctx) })
		return f, held, lost
	}
	defer group.Wait()
	defer stop()
	machines := func() int {
		list, err := cloud.Instances(ctx, nil)
		require.NoError(t, err)
		return len(list)
	}
	a, b := newHost(t, e), newHost(t, e)
	_, held1, lost1 := run(a)
	eventually(t, "the first holds the lease", func() bool { return held1.Load() == 1 })
	second, held2, _ := run(b)
	eventually(t, "the farm is there", func() bool { return machines() == 3 })
	require.Zero(t, held2.Load())
	a.cut(t)
	eventually(t, "the second holds the lease", func() bool { return held2.Load() == 1 })
	eventually(t, "the first says that it has lost it", func() bool { return lost1.Load() == 1 })
	list, err := cloud.Instances(ctx, nil)
	require.NoError(t, err)
	require.NoError(t, cloud.Terminate(ctx, list[0].ID))
	eventually(t, "the second replaces a machine", func() bool {
		servers := second.Servers("www")
		return len(servers) == 3 && !slices.ContainsFunc(servers, func(s farm.Server) bool { return s.ID == list[0].ID })
	})
	a.heal(t)
	launches := 0
	for _, c := range cloud.Changes() {
		if c.Method == "Launch" {
			launches++
		}
	}
	require.Equal(t, 4, launches, "three machines, and one for that which was ended")
}
