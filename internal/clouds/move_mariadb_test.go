package clouds

import (
	"context"
	"database/sql"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	driver "github.com/go-sql-driver/mysql"
	"github.com/stretchr/testify/require"

	"github.com/scalr-go/scalr/dnsreg"
	"github.com/scalr-go/scalr/farm"
	"github.com/scalr-go/scalr/internal/testenv"
	"github.com/scalr-go/scalr/provider"
	"github.com/scalr-go/scalr/provider/local"
	"github.com/scalr-go/scalr/replication"
	"github.com/scalr-go/scalr/replication/mysql"
	"github.com/scalr-go/scalr/replication/pool"
)

// crossing is a farm whose database changes its machines on this machine, or moves between two clouds on it, the host programs that run it
// one after another, and its clients, which know nothing but its zone.
type crossing struct {
	t      *testing.T
	clouds map[string]*local.Cloud
	zone   *dnsreg.Memory
	note   notes
	died   map[string]bool // hosts, by way and step
	spec   farm.Spec       // the latest
	farm   *farm.Farm
	stop   func() // ends the run under way

	mu      sync.Mutex
	acked   []int
	reads   int
	failed  []string // reads
	refused int      // writes
	wrong   []string // names that led to what they should not lead to
	names   int      // that were followed
	behind  int      // to a server that had been the primary until then
}

// A database moves from one cloud to another while an application writes and reads, by host programs that are killed: first it is taken back
// from several steps before the point of no return, and then it goes, by hosts of which each dies at a step at which none has died
// before, before its effect or after; so do those that take it back. No acknowledged row is lost, no read fails, each name leads
// to a server that works for as long as the answer may be kept, that of the primary to the one that takes writes unless it has just been
// changed; and in the end there is nothing where it was. With CLOUD_LONG
// set, it is taken back from more steps, and hosts die at each on the way back.
func TestMoveWithMariaDB(t *testing.T) {
	m := onMariaDB(t)
	c := &crossing{t: t, clouds: map[string]*local.Cloud{"a": m.cloud, "b": testenv.Cloud(t, m.images)}}
	spec := c.begin(2)
	to := func(pool string) farm.Spec {
		moved, err := spec.Move(farm.MoveOptions{Pools: []string{pool}, Move: farm.Move{DeleteVolumes: true}})
		require.NoError(t, err)
		return moved
	}
	defer func() { c.stop() }()
	ctx, cancel := context.WithCancel(t.Context())
	wait := c.use(ctx)
	defer wait()
	defer cancel()

	long := os.Getenv("CLOUD_LONG") != ""
	back := c.fresh("back")
	if !long {
		back = c.fresh("back", "by kind")
	}
	began := time.Now()
	points := []string{"Launch ", "Fence ", "Promote "}
	if long {
		points = append(points, "AttachVolume ", "Seed ", "Follow ", "Drain ", "Apply db db-primary ")
	}
	for _, point := range points {
		killed := c.run(to("b"), func(step string, after bool) bool { return after && strings.HasPrefix(step, point) })
		select {
		case <-killed.Done():
		case <-time.After(patience):
			c.explain("no host has come to " + point)
		}
		c.become(to("a"), "a", back)
		t.Logf("%v: taken back from %s, %d hosts have died", time.Since(began), point, len(c.died))
		require.True(t, left(t, c.clouds["b"], "shop"))
	}
	c.become(to("b"), "b", c.fresh("there"))
	t.Logf("%v: it has moved, %d hosts have died", time.Since(began), len(c.died))
	require.True(t, left(t, c.clouds["a"], "shop"))
	cancel()
	wait()
	t.Log("died at: ", strings.Join(slices.Sorted(maps.Keys(c.died)), "; "))
	require.Greater(t, len(c.died), 30)
	c.run(to("b"), nil) // one that lives
	c.settle("b")
	c.check()
	c.stop()
	require.NoError(t, c.farm.Terminate(t.Context(), farm.TerminateOptions{DeleteVolumes: true}))
	require.True(t, left(t, c.clouds["b"], "shop"))
}

// begin makes a farm with n databases in pool a, and what the application needs in them.
func (c *crossing) begin(n int) farm.Spec {
	t := c.t
	c.zone, c.stop, c.died = &dnsreg.Memory{Zones: []string{"shop.example."}}, func() {}, map[string]bool{}
	spec := databases("shop", n, farm.Volume{})
	spec.Zone, spec.TTL, spec.Roles[0].Pools = "shop.example.", time.Second, []string{"a"}
	c.run(spec, nil)
	c.settle("a")
	db, err := open(c.primary())
	require.NoError(t, err)
	defer db.Close()
	for _, q := range []string{"CREATE DATABASE shop", "CREATE TABLE shop.orders (id INT PRIMARY KEY)", "INSERT INTO shop.orders VALUES (0)",
		"CREATE USER app@'%' IDENTIFIED BY 'app-secret'", "GRANT SELECT, INSERT ON shop.* TO app@'%'"} {
		_, err := db.ExecContext(t.Context(), q)
		require.NoError(t, err)
	}
	require.Eventually(t, func() bool {
		for _, s := range c.farm.Servers("db") {
			if n, _ := rows(t.Context(), s); n != 1 {
				return false
			}
		}
		return true
	}, patience, 20*time.Millisecond)
	return spec
}

// fresh dies at a step, or at a kind of step, at which no host has died that went this way, every other time after the effect.
func (c *crossing) fresh(way string, byKind ...string) func(string, bool) bool {
	return func(step string, after bool) bool {
		key := way + " " + step
		if kind, _, _ := strings.Cut(step, " "); len(byKind) > 0 {
			key = way + " " + kind
		}
		if c.died[key] || after != (len(c.died)%2 == 0) {
			return false
		}
		c.died[key] = true
		return true
	}
}

// run runs the farm by a new host program.
func (c *crossing) run(spec farm.Spec, dies func(string, bool) bool) (killed context.Context) {
	c.stop()
	c.spec = spec
	ctx, cancel := context.WithCancel(c.t.Context())
	killed, kill := context.WithCancel(context.Background())
	h := &mortal{dies: dies, note: &c.note, kill: func() { cancel(); kill() }}
	engine, err := mysql.New(mysql.Config{User: "scalr", Password: "secret", ReplicationUser: "replica", ReplicationPassword: "secret2"})
	require.NoError(c.t, err)
	manager, err := replication.New(replication.Config{Name: "shop/db", Engine: engineOf{engine, h}, Policy: replication.Durability})
	require.NoError(c.t, err)
	var pools []farm.Pool
	for _, name := range slices.Sorted(maps.Keys(c.clouds)) {
		pools = append(pools, farm.Pool{Name: name, Provider: &cloudOf{c.clouds[name], h}})
	}
	config := quick(pools...)
	config.Databases, config.Interval, config.DNS = map[string]*replication.Manager{"db": manager}, 100*time.Millisecond, zoneOf{c.zone, h}
	config.ListLag = time.Millisecond
	f, err := farm.New(spec, config)
	require.NoError(c.t, err)
	c.farm = f
	done := make(chan struct{})
	go func() { defer close(done); _ = f.Run(ctx) }()
	c.stop = func() { cancel(); <-done; kill() }
	return killed
}

// become lets hosts work until one has come to rest in the pool.
func (c *crossing) become(spec farm.Spec, pool string, dies func(string, bool) bool) {
	c.t.Helper()
	for {
		killed := c.run(spec, dies)
		for end := time.Now().Add(patience); killed.Err() == nil; time.Sleep(20 * time.Millisecond) {
			if c.atHome(pool) {
				return
			}
			if time.Now().After(end) {
				c.explain("it has not come to rest in " + pool)
			}
		}
	}
}

func (c *crossing) settle(pool string) {
	c.t.Helper()
	require.Eventually(c.t, func() bool { return c.atHome(pool) }, patience, 20*time.Millisecond)
}

func (c *crossing) explain(what string) {
	c.t.Helper()
	p, err := c.farm.Plan(c.t.Context())
	require.FailNow(c.t, what, "%v\n%s", err, p)
}

// atHome reports whether the farm is in the pool, whole, with its names, and nothing of it anywhere else.
func (c *crossing) atHome(pool string) bool {
	ready, all := 0, c.spec.Roles[0].Min
	for _, s := range c.farm.Servers("db") {
		if s.Ready && s.Pool == pool {
			ready++
		}
	}
	tags := map[string]string{farm.TagFarm: "shop"}
	for name, cloud := range c.clouds {
		instances, err := cloud.Instances(c.t.Context(), tags)
		require.NoError(c.t, err)
		volumes, err := cloud.Volumes(c.t.Context(), tags)
		require.NoError(c.t, err)
		instances = slices.DeleteFunc(instances, func(i provider.Instance) bool { return i.State.Gone() })
		if want := map[bool]int{true: all}[name == pool]; len(instances) != want || len(volumes) != want {
			return false
		}
		for _, i := range instances {
			if i.Image != c.spec.Roles[0].Image {
				return false
			}
		}
	}
	primary := c.primary()
	return ready == all && primary.ID != "" && slices.Equal(c.lookup("db-primary"), []string{primary.Private.String()}) &&
		len(c.lookup("db-replicas")) == all-1
}

func (c *crossing) primary() (primary farm.Server) {
	for _, s := range c.farm.Servers("db") {
		if s.Primary {
			primary = s
		}
	}
	return primary
}

func (c *crossing) lookup(name string) []string {
	records, _ := c.zone.Records(context.Background(), "shop.example.")
	for _, r := range records {
		if r.Name == name+".shop.example." && r.Type == "A" {
			return r.Values
		}
	}
	return nil
}

// use makes clients use the database until the context ends.
func (c *crossing) use(ctx context.Context) (wait func()) {
	config := driver.NewConfig()
	config.User, config.Passwd = "app", "app-secret"
	client, err := mysql.NewClient(config)
	require.NoError(c.t, err)
	db, err := pool.Open(pool.Config{Driver: client, Addrs: []string{"db-primary:3306", "db-replicas:3306"},
		LookupHost: func(_ context.Context, host string) ([]string, error) { return c.lookup(host), nil }})
	require.NoError(c.t, err)
	var all sync.WaitGroup
	for first := 1; first <= 2; first++ {
		all.Go(func() {
			for row := first; ctx.Err() == nil; row += 2 {
				_, err := db.Writer.ExecContext(context.WithoutCancel(ctx), "INSERT INTO shop.orders VALUES (?)", row)
				c.mu.Lock()
				if err == nil {
					c.acked = append(c.acked, row)
				} else {
					c.refused++
				}
				c.mu.Unlock()
				time.Sleep(2 * time.Millisecond)
			}
		})
		all.Go(func() {
			for ctx.Err() == nil {
				var n int
				err := db.Reader.QueryRowContext(context.WithoutCancel(ctx), "SELECT COUNT(*) FROM shop.orders WHERE id = 0").Scan(&n)
				c.mu.Lock()
				if c.reads++; err != nil || n != 1 {
					c.failed = append(c.failed, fmt.Sprintf("%d rows: %v", n, err))
				}
				c.mu.Unlock()
				time.Sleep(5 * time.Millisecond)
			}
		})
	}
	all.Go(func() { c.follow(ctx) })
	return sync.OnceFunc(func() {
		all.Wait()
		db.Close() // some of its servers have ended
	})
}

// follow follows every name of the zone over and over, for as long as its answer may be kept, and asks whoever is there.
func (c *crossing) follow(ctx context.Context) {
	until := map[[2]string]time.Time{} // by name and address
	for ctx.Err() == nil {
		now := time.Now()
		records, _ := c.zone.Records(ctx, "shop.example.")
		for _, r := range records {
			for _, v := range r.Values {
				if r.Type == "A" {
					until[[2]string{r.Name, v}] = now.Add(r.TTL)
				}
			}
		}
		asked := map[string]error{}
		for key, end := range until {
			addr := key[1]
			if _, ok := asked[addr]; !ok {
				_, asked[addr] = c.ask(ctx, addr)
			}
			switch {
			case !time.Now().Before(end):
				delete(until, key)
			case asked[addr] != nil && ctx.Err() == nil:
				c.blame("%s leads to %s for %v more, and there is: %v", key[0], addr, time.Until(end), asked[addr])
			}
			c.mu.Lock()
			c.names++
			c.mu.Unlock()
		}
		c.followPrimary(ctx)
		time.Sleep(20 * time.Millisecond)
	}
}

// followPrimary holds the primary's name against what hosts have done: it leads to the server that was promoted last, or still to another
// one, which takes no writes.
func (c *crossing) followPrimary(ctx context.Context) {
	want, number, calm := c.note.see()
	found := c.lookup("db-primary")
	if len(found) != 1 {
		c.blame("the primary's name has the addresses %q", found)
		return
	}
	writable, err := c.ask(ctx, found[0])
	if _, again, _ := c.note.see(); !calm || again != number || err != nil {
		return
	}
	named := found[0]+":3306" == want
	switch {
	case named != writable:
		c.blame("the primary's name leads to %s, which takes writes: %t; the primary is %s", found[0], writable, want)
	case !named:
		c.mu.Lock()
		c.behind++
		c.mu.Unlock()
	}
}

// ask asks a server whether it takes writes.
func (c *crossing) ask(ctx context.Context, addr string) (writable bool, err error) {
	config := driver.NewConfig()
	config.User, config.Passwd, config.Net, config.Addr, config.Logger = "scalr", "secret", "tcp", addr+":3306", &driver.NopLogger{}
	connector, err := driver.NewConnector(config)
	if err != nil {
		return false, err
	}
	db := sql.OpenDB(connector)
	defer db.Close()
	return writable, db.QueryRowContext(ctx, "SELECT NOT @@read_only FROM shop.orders WHERE id = 0").Scan(&writable)
}

func (c *crossing) blame(format string, args ...any) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.wrong = append(c.wrong, time.Now().Format("15:04:05.000 ")+fmt.Sprintf(format, args...))
}

// check holds what the clients have seen against what should be.
func (c *crossing) check() {
	t := c.t
	c.mu.Lock()
	defer c.mu.Unlock()
	t.Logf("%d rows were acknowledged and %d refused, %d reads, %d names followed, %d of them to one that had been the primary", len(c.acked), c.refused, c.reads, c.names, c.behind)
	require.NotEmpty(t, c.acked)
	require.NotZero(t, c.reads)
	require.Empty(t, c.failed, "no read fails")
	require.Empty(t, c.wrong, "the names are right")
	for _, s := range c.farm.Servers("db") {
		db, err := open(s)
		require.NoError(t, err)
		defer db.Close()
		have := func() (map[int]bool, error) {
			rows, err := db.QueryContext(t.Context(), "SELECT id FROM shop.orders")
			if err != nil {
				return nil, err
			}
			defer rows.Close()
			ids := map[int]bool{}
			for rows.Next() {
				var id int
				if err := rows.Scan(&id); err != nil {
					return nil, err
				}
				ids[id] = true
			}
			return ids, rows.Err()
		}
		require.Eventually(t, func() bool { // a replica may be behind
			ids, err := have()
			return err == nil && (s.Primary || len(ids) > len(c.acked))
		}, patience, 50*time.Millisecond)
		ids, err := have()
		require.NoError(t, err)
		for _, id := range c.acked {
			require.True(t, ids[id], "row %d, which was acknowledged, is lost on %s", id, s.Name)
		}
	}
}
