package farm

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/scalr-go/scalr/dnsreg"
	"github.com/scalr-go/scalr/provider"
	"github.com/scalr-go/scalr/provider/memcloud"
	"github.com/scalr-go/scalr/replication"
	"github.com/scalr-go/scalr/replication/memdb"
)

// twoClouds is a farm with pools in two clouds that have nothing in common, and its clients: some write to its database, and some
// keep the answers of its zone for as long as these may be kept, and hold the farm to every one of them.
type twoClouds struct {
	clouds map[string]*memcloud.Cloud // by pool
	db     *memdb.Cluster
	zone   *dnsreg.Memory
	behind time.Duration // how far the name servers are behind the zone
	host   *host         // that runs the farm now
	config Config
	events recorder
	farm   *Farm
	stop   func() // ends the run under way

	mu      sync.Mutex
	addrs   map[string]string // the database's server on each machine
	acked   map[string]bool   // rows
	pause   time.Duration     // the longest between two acknowledged writes
	past    []past
	wrong   []string // names that led to what did not serve
	answers int
}

// bubble is a test in a bubble of synctest.
type bubble interface {
	require.TestingT
	Context() context.Context
}

func newTwoClouds(t require.TestingT, o memcloud.Options) *twoClouds {
	w := &twoClouds{clouds: map[string]*memcloud.Cloud{}, db: memdb.New(memdb.Options{Delay: 2 * time.Millisecond}), zone: testZone(),
		addrs: map[string]string{}, acked: map[string]bool{}, stop: func() {}, host: &host{}}
	o.OnState = func(in provider.Instance) {
		w.mu.Lock()
		defer w.mu.Unlock()
		switch {
		case in.Tags[TagRole] != "db":
		case in.State == provider.Running:
			w.addrs[in.ID] = in.Private.String() + ":3306"
			w.db.Start(w.addrs[in.ID])
		default:
			w.db.Crash(w.addrs[in.ID])
		}
	}
	for i, pool := range []string{"a", "b"} {
		o.Seed = uint64(i + 1)
		o.Private = netip.MustParsePrefix(fmt.Sprintf("10.%d.0.0/16", i+1))
		o.Public = netip.MustParsePrefix(fmt.Sprintf("198.%d.0.0/16", 18+i))
		w.clouds[pool] = memcloud.New(o)
		w.clouds[pool].CreateForeign(map[string]string{TagFarm: "other", TagRole: "www", TagIndex: "1"})
	}
	w.config = Config{Pools: []Pool{{Name: "a", Provider: w.clouds["a"]}, {Name: "b", Provider: w.clouds["b"]}}, DNS: stepping{w.zone, w},
		ListLag: time.Second, Grace: 20 * time.Second, MissingAfter: 20 * time.Second, Backoff: 2 * time.Second, Interval: 2 * time.Second, Parallel: 2}
	w.config.Events = w.events.event
	// A list that is behind shows machines that have just been ended.
	w.config.Checks = map[string]func(context.Context, Server) error{"answers": func(_ context.Context, s Server) error {
		if !w.serving()[s.Private.String()] {
			return errors.New("no route to host")
		}
		return nil
	}}
	return w
}

type past struct {
	at      time.Time
	records []dnsreg.RRset
}

// movingSpec has a database and web servers in pool a.
func movingSpec() Spec {
	return Spec{Name: "shop", Zone: "shop.example.", TTL: 2 * time.Second, Roles: []Role{
		{Name: "db", Serves: Database, Image: "mariadb", Min: 3, Max: 3, Pools: []string{"a"}, Aliases: []string{"sql"}, Volume: &Volume{SizeGB: 1}},
		{Name: "www", Serves: Web, Image: "web", Min: 2, Max: 2, Pools: []string{"a"}, After: []string{"db"}, Main: true,
			Health: &Health{Custom: "answers"}},
	}}
}

// run runs the farm by a host program that is killed as h says.
func (w *twoClouds) run(t bubble, spec Spec, h *host) (killed context.Context) {
	w.stop()
	w.host = h
	ctx, cancel := context.WithCancel(t.Context())
	h.killed = cancel
	for _, c := range w.clouds {
		c.SetFault(h.fault)
	}
	if slices.ContainsFunc(spec.Roles, func(r Role) bool { return r.Serves == Database }) {
		m, err := replication.New(replication.Config{Name: "shop/db", Engine: engine{w.db, w}, Policy: replication.Durability})
		require.NoError(t, err)
		w.config.Databases = map[string]*replication.Manager{"db": m}
	}
	f, err := New(spec, w.config)
	require.NoError(t, err)
	w.farm = f
	done := make(chan struct{})
	go func() { defer close(done); _ = f.Run(ctx) }()
	w.stop = func() { cancel(); <-done }
	return ctx
}

// use makes clients use the farm until the context ends.
func (w *twoClouds) use(ctx context.Context, spec Spec) (wait func()) {
	var wg sync.WaitGroup
	wg.Go(func() { w.resolve(ctx, spec.TTL) })
	time.Sleep(time.Millisecond)
	if spec.Roles[0].Serves == Database {
		wg.Go(func() { w.write(ctx) })
	}
	return wg.Wait
}

// write writes a row after another to whoever is the primary by the zone. A writer that has an old answer is refused and tries
// again.
func (w *twoClouds) write(ctx context.Context) {
	last := time.Now()
	for i := 0; ctx.Err() == nil; i++ {
		row := fmt.Sprint(i)
		bounded, cancel := context.WithTimeout(ctx, time.Second)
		err := errors.New("no address")
		for _, addr := range w.lookup("sql.shop.example.") {
			err = w.db.Write(bounded, addr+":3306", row, "v")
		}
		cancel()
		w.mu.Lock()
		if err == nil {
			w.acked[row] = true
			w.pause = max(w.pause, time.Since(last))
			last = time.Now()
		}
		w.mu.Unlock()
		time.Sleep(100 * time.Millisecond)
	}
}

func (w *twoClouds) lookup(name string) []string {
	set, _ := w.ask(context.Background(), name, "A")
	return set.Values
}

// ask is a name server.
func (w *twoClouds) ask(ctx context.Context, name, typ string) (dnsreg.RRset, error) {
	records, err := w.records(ctx)
	for _, r := range records {
		if r.Name == name && r.Type == typ {
			return r, err
		}
	}
	return dnsreg.RRset{}, err
}

// records gives the zone as the name servers have it.
func (w *twoClouds) records(ctx context.Context) ([]dnsreg.RRset, error) {
	w.mu.Lock()
	behind := w.behind
	w.mu.Unlock()
	if behind == 0 {
		return w.zone.Records(ctx, "shop.example.")
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	for len(w.past) > 1 && time.Since(w.past[1].at) >= w.behind {
		w.past = w.past[1:]
	}
	return w.past[0].records, nil
}

// resolve takes the whole zone ten times a second, and holds every answer against the clouds for as long as its TTL allows.
func (w *twoClouds) resolve(ctx context.Context, ttl time.Duration) {
	until := map[[2]string]time.Time{} // by name and value
	for ; ctx.Err() == nil; time.Sleep(100 * time.Millisecond) {
		now := time.Now()
		zone, _ := w.zone.Records(ctx, "shop.example.")
		w.mu.Lock()
		w.past = append(w.past, past{now, zone})
		w.mu.Unlock()
		records, _ := w.records(ctx)
		for _, r := range records {
			for _, v := range r.Values {
				if r.Type == "A" || r.Type == "CNAME" {
					until[[2]string{r.Name, strings.TrimSuffix(v, ".")}] = now.Add(max(r.TTL, ttl))
				}
			}
		}
		serving := w.serving()
		w.mu.Lock()
		for key, end := range until {
			switch w.answers++; {
			case !now.Before(end):
				delete(until, key)
			case !serving[key[1]] && len(w.wrong) < 10:
				w.wrong = append(w.wrong, fmt.Sprintf("%v: %s leads to %s until %v", now, key[0], key[1], end))
			}
		}
		w.mu.Unlock()
	}
}

// serving gives the addresses and hosts that answer now.
func (w *twoClouds) serving() map[string]bool {
	serving := map[string]bool{}
	for _, c := range w.clouds {
		world := c.World(map[string]string{TagFarm: "shop"})
		running := map[string]bool{}
		for _, in := range world.Instances {
			if running[in.ID] = in.State == provider.Running; running[in.ID] {
				serving[in.Private.String()], serving[in.Public.String()] = true, true
			}
		}
		for _, a := range world.Addresses {
			if running[a.Instance] {
				serving[a.Addr.String()] = true
			}
		}
		for _, b := range world.Balancers {
			for _, x := range b.Targets {
				if b.Ready && x.State == provider.TargetHealthy && running[x.Instance] {
					serving[b.Host] = true
				}
			}
		}
	}
	return serving
}

// count gives how many machines of the farm a pool has.
func (w *twoClouds) count(pool string) int { return len(world(w.clouds[pool])) }

// atHome reports whether all machines are in the pool, and the farm has no more to do.
func (w *twoClouds) atHome(spec Spec, pool string) bool {
	n := 0
	for _, r := range spec.Roles {
		n += r.Min
	}
	ready := 0
	for _, s := range w.farm.Servers("") {
		if s.Ready && s.Pool == pool {
			ready++
		}
	}
	for other := range w.clouds {
		if other != pool && w.clouds[other].World(map[string]string{TagFarm: "shop"}).Len() > 0 {
			return false
		}
	}
	return ready == n && w.count(pool) == n
}

// settle waits until the farm is at home, for the time given at most.
func (w *twoClouds) settle(t bubble, spec Spec, pool string, most time.Duration) {
	for deadline := time.Now().Add(most); !w.atHome(spec, pool); time.Sleep(100 * time.Millisecond) {
		if time.Now().After(deadline) {
			p, err := w.farm.Plan(context.Background())
			require.Failf(t, "it has not come to that", "a has %d machines and b %d: %v\n%s%s", w.count("a"), w.count("b"), err, p, w.events.text())
		}
	}
}

// check holds what the clients have seen against what should be.
func (w *twoClouds) check(t require.TestingT, pool string) {
	primary := w.lookup("sql.shop.example.")
	w.mu.Lock()
	defer w.mu.Unlock()
	require.Empty(t, w.wrong, "names at every instant: %s", w.events.text())
	require.NotZero(t, w.answers)
	if w.config.Databases == nil {
		return
	}
	require.Len(t, primary, 1)
	rows, err := w.db.Rows(context.Background(), primary[0]+":3306")
	require.NoError(t, err)
	require.NotEmpty(t, w.acked)
	for row := range w.acked {
		require.Contains(t, rows, row, "an acknowledged row is lost")
	}
	require.Len(t, w.clouds[pool].World(map[string]string{TagFarm: "shop"}).Volumes, w.farm.Spec().Roles[0].Min)
}

// stepping is the zone, whose changes are steps at which the host program may be killed.
type stepping struct {
	*dnsreg.Memory
	w *twoClouds
}

func (s stepping) Apply(ctx context.Context, zone string, changes []dnsreg.Change) error {
	return s.w.step(ctx, "Apply", func() error { return s.Memory.Apply(ctx, zone, changes) })
}

// engine is the same for the database.
type engine struct {
	*memdb.Cluster
	w *twoClouds
}

func (e engine) Fence(ctx context.Context, m replication.Member) error {
	return e.w.step(ctx, "Fence", func() error { return e.Cluster.Fence(ctx, m) })
}

func (e engine) Promote(ctx context.Context, m replication.Member, semisync bool) error {
	return e.w.step(ctx, "Promote", func() error { return e.Cluster.Promote(ctx, m, semisync) })
}

func (e engine) Follow(ctx context.Context, m, primary replication.Member) error {
	return e.w.step(ctx, "Follow", func() error { return e.Cluster.Follow(ctx, m, primary) })
}

func (e engine) Seed(ctx context.Context, m, source replication.Member, progress func(replication.Progress)) (at replication.Position, err error) {
	return at, e.w.step(ctx, "Seed", func() error { at, err = e.Cluster.Seed(ctx, m, source, progress); return err })
}

func (w *twoClouds) step(ctx context.Context, method string, do func() error) error {
	h := w.host
	if err := h.fault(ctx, memcloud.Call{Method: method}); err != nil {
		return err
	}
	if err := do(); err != nil {
		return err
	}
	return h.fault(ctx, memcloud.Call{Method: method, After: true})
}
