// Quickstart runs a whole farm with nothing installed: a web role, a replicated database and a cache on a cloud in memory,
// with names that a real name server on a loopback address answers for. Half a day of the 1998 World Cup's load is replayed
// over it in some seconds; meanwhile the database's primary is killed, and a web server dies.
//
//	go run ./examples/quickstart         for a person
//	go run ./examples/quickstart -json   one JSON object a line, the last of them the summary
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"time"

	"github.com/scalr-go/scalr/cache"
	"github.com/scalr-go/scalr/dnsreg/nameserver"
	"github.com/scalr-go/scalr/examples/show"
	"github.com/scalr-go/scalr/examples/worldcup"
	"github.com/scalr-go/scalr/farm"
	"github.com/scalr-go/scalr/farm/scale"
	"github.com/scalr-go/scalr/provider"
	"github.com/scalr-go/scalr/provider/memcloud"
	"github.com/scalr-go/scalr/replication"
	"github.com/scalr-go/scalr/replication/memdb"
)

const (
	zone     = "shop.example."
	length   = 9 * time.Second // of the replay
	capacity = 20000           // requests a minute that one web server is meant to take
)

// spec is what there should be. It is plain data, and could as well come from a JSON file.
var spec = farm.Spec{Name: "shop", Zone: zone, TTL: time.Second, Roles: []farm.Role{
	{Name: "db", Serves: farm.Database, Image: "mariadb", Min: 3, Max: 3, Volume: &farm.Volume{SizeGB: 10}},
	{Name: "cache", Serves: farm.Cache, Image: "memcached", Min: 2, Max: 2},
	{Name: "www", Serves: farm.Web, Image: "web", Min: 2, Max: 12, After: []string{"db", "cache"}, Main: true, Address: true,
		Scale: &farm.Scale{Target: &scale.Target{Metric: "requests", Value: capacity, Total: true, Window: time.Second}}},
}}

func main() {
	asJSON := flag.Bool("json", false, "print JSON lines")
	flag.Parse()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if err := run(ctx, show.New(os.Stdout, *asJSON)); err != nil {
		fmt.Fprintln(os.Stderr, "quickstart:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, out *show.Show) error {
	// A database in memory: it has a server wherever the cloud has a machine of the role db.
	database := memdb.New(memdb.Options{Delay: 5 * time.Millisecond})
	servers := map[string]string{} // by instance
	cloud := memcloud.New(memcloud.Options{
		BootTime: 300 * time.Millisecond, TerminatedLinger: time.Second,
		OnState: func(in provider.Instance) {
			switch {
			case in.Tags[farm.TagRole] != "db":
			case in.State == provider.Running:
				servers[in.ID] = in.Private.String() + ":3306"
				database.Start(servers[in.ID])
			default:
				database.Crash(servers[in.ID])
			}
		},
	})
	manager, err := replication.New(replication.Config{Name: "shop/db", Engine: database, Policy: replication.Durability, Events: out.Event})
	if err != nil {
		return err
	}
	names, err := nameserver.New(nameserver.Options{Zones: []nameserver.Zone{{Name: zone}}})
	if err != nil {
		return err
	}
	replay := &worldcup.Replay{Load: worldcup.Day(), Length: length}
	shop, err := farm.New(spec, farm.Config{
		Pools:     []farm.Pool{{Name: "memory", Provider: cloud}},
		DNS:       names,
		Databases: map[string]*replication.Manager{"db": manager},
		Caches:    map[string]cache.Follower{"cache": followed{out}},
		Sensors:   map[string]farm.Sensor{"requests": requests(replay)},
		Events:    out.Event,
		Interval:  100 * time.Millisecond, ListLag: time.Millisecond, MissingAfter: 100 * time.Millisecond,
	})
	if err != nil {
		return err
	}

	ctx, stop := context.WithCancel(ctx)
	defer stop()
	running := start(ctx, names.Run, shop.Run)
	defer running.Wait()
	defer stop()

	out.Say("The farm launches: the database and the cache first, then the web servers.")
	if err := until(ctx, func() bool { return serve(shop, "db") == 3 && serve(shop, "www") == 2 }); err != nil {
		return fmt.Errorf("the farm did not come up: %w", err)
	}
	out.Say("Half a day of load is replayed in %v. A program writes to db.%s all the while.", length, zone)
	app := newApp(database, names.Addr())
	writing := start(ctx, app.write)
	defer writing.Wait()

	replay.Begin()
	killed, died := false, false
	for tick := time.NewTicker(100 * time.Millisecond); !replay.Over(); <-tick.C {
		out.Load(replay.Now(), shop.Servers("www"))
		switch passed := replay.Passed(); {
		case !killed && passed > length*3/10:
			killed = true
			topology, _ := manager.Topology()
			old := topology.Primary
			out.Say("The machine of %s, the database's primary, is killed.", old)
			app.killed(time.Now())
			if err := cloud.Kill(machine(shop, "db", old), "killed by the example"); err != nil {
				return err
			}
		case !died && passed > length*6/10:
			died = true
			out.Say("A web server dies.")
			if err := cloud.Fail(shop.Servers("www")[0].ID, "hardware error"); err != nil {
				return err
			}
		}
	}
	if err := until(ctx, func() bool { return serve(shop, "www") <= 3 && serve(shop, "db") == 3 }); err != nil {
		return fmt.Errorf("the farm did not come to rest: %w", err)
	}

	app.stop()
	writing.Wait()
	out.Say("The farm is terminated, its volumes with it.")
	if err := shop.Terminate(ctx, farm.TerminateOptions{DeleteVolumes: true}); err != nil {
		return err
	}
	failover, acked, lost := app.result()
	ups, downs, left := out.Count(farm.ScaleUp), out.Count(farm.ScaleDown), cloud.World(nil).Len()
	out.Line(map[string]any{"summary": true, "failover_ms": failover.Milliseconds(), "acked": acked, "lost": lost,
		"scale_ups": ups, "scale_downs": downs, "left_over": left},
		fmt.Sprintf("The database was back after %d ms, %d of %d acknowledged rows are lost, www grew %d times and shrank %d times, "+
			"%d things are left over.", failover.Milliseconds(), lost, acked, ups, downs, left))
	return nil
}

// requests is the farm's sensor: one sample for the role as a whole, as a balancer would give it.
func requests(r *worldcup.Replay) farm.Sensor {
	return farm.SensorFunc(func(context.Context, string, []farm.Server) ([]scale.Sample, error) {
		return []scale.Sample{{Value: r.Now(), At: time.Now()}}, nil
	})
}

// followed stands where a real program has its cache client: the farm hands it the servers.
type followed struct{ out *show.Show }

func (f followed) SetServers(servers []cache.Server) error {
	f.out.Line(map[string]any{"cache": servers}, fmt.Sprintf("the cache's servers are %v", servers))
	return nil
}

// serve counts the machines of a role that serve.
func serve(f *farm.Farm, role string) (n int) {
	for _, s := range f.Servers(role) {
		if s.Ready {
			n++
		}
	}
	return n
}

// machine gives the instance of a slot.
func machine(f *farm.Farm, role, name string) string {
	for _, s := range f.Servers(role) {
		if s.Name == name {
			return s.ID
		}
	}
	return ""
}
