package farm

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"iter"
	"maps"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/scalr-go/scalr/dnsreg"
	"github.com/scalr-go/scalr/farm/scale"
	"github.com/scalr-go/scalr/provider"
	"github.com/scalr-go/scalr/replication"
)

// observation is the facts of one pass. What could not be had is an error beside the facts, never an empty list.
type observation struct {
	at       time.Time
	clouds   []cloud
	health   map[string]error  // by instance: nil if it passed; not there if it was not checked
	held     map[string]error  // by instance: what the hooks that hold it say; not there if they were not asked
	doomed   map[string]string // by instance: why its cloud takes it back
	sets     map[string]replication.Topology
	zone     []dnsreg.RRset
	zoneErr  error
	resolved map[string]*resolved      // by role
	samples  map[string][]scale.Sample // by role
	parents  map[string]*parent        // by role, where it is to be known which volume to copy
	errs     []error                   // what the caller should hear of
}

// cloud is one provider: the pools that share it, and what it holds of the farm.
type cloud struct {
	id        int // place of its first pool in Config.Pools
	provider  provider.Provider
	pools     []*Pool
	others    []string // the names of the pools of other clouds
	instances listing[provider.Instance]
	volumes   listing[provider.Volume]
	addresses listing[provider.Address]
	balancers listing[provider.Balancer]
	snapshots []snapshotsOf // nil if nobody has looked
}

// listing is a list or the reason why there is none.
type listing[T any] struct {
	items []T
	err   error
}

// clouds groups the pools by their provider.
func (c *Config) clouds() []cloud {
	var clouds []cloud
	for i := range c.Pools {
		p := &c.Pools[i]
		at := slices.IndexFunc(clouds, func(c cloud) bool { return c.provider == p.Provider })
		if at < 0 {
			at = len(clouds)
			clouds = append(clouds, cloud{id: i, provider: p.Provider})
		}
		clouds[at].pools = append(clouds[at].pools, p)
	}
	for i := range clouds {
		for j := range clouds {
			for _, p := range clouds[j].pools {
				if i != j {
					clouds[i].others = append(clouds[i].others, p.Name)
				}
			}
		}
	}
	return clouds
}

// observe gathers the facts. It makes one listing call for each kind of thing that the spec wants and provider; for the
// end of the farm, of each kind. Acting, it asks the hooks that hold machines too, of which it knows otherwise what they said last.
func (f *Farm) observe(ctx context.Context, end *TerminateOptions, acting bool) observation {
	whole := end != nil
	o := observation{clouds: f.config.clouds(), health: map[string]error{}, samples: map[string][]scale.Sample{}}
	var wants struct{ volumes, addresses, balancers bool }
	for i := range f.spec.Roles {
		r := &f.spec.Roles[i]
		wants.volumes = wants.volumes || r.Volume != nil
		wants.addresses = wants.addresses || r.Address
		wants.balancers = wants.balancers || r.Balancer != nil
	}
	// What an earlier spec made must be seen as well, for the end and until it has been put away.
	if whole || !f.history.tidy {
		wants.volumes, wants.addresses, wants.balancers = true, true, true
	}
	tags := map[string]string{TagFarm: f.spec.Name}
	seen := f.snapshotsToSee(end)
	g := f.group()
	for i := range o.clouds {
		c := &o.clouds[i]
		g.add(func() { c.instances = list(ctx, f, c, "instances", c.provider.Instances, tags) })
		if v, ok := provider.As[provider.Volumes](c.provider); ok && wants.volumes {
			g.add(func() { c.volumes = list(ctx, f, c, "volumes", v.Volumes, tags) })
		}
		if a, ok := provider.As[provider.Addresses](c.provider); ok && wants.addresses {
			g.add(func() { c.addresses = list(ctx, f, c, "addresses", a.Addresses, tags) })
		}
		if b, ok := provider.As[provider.Balancers](c.provider); ok && wants.balancers {
			g.add(func() { c.balancers = list(ctx, f, c, "balancers", b.Balancers, tags) })
		}
		if s, ok := provider.As[provider.Snapshots](c.provider); ok && seen != nil {
			c.snapshots = make([]snapshotsOf, len(seen))
			for k, farm := range seen {
				g.add(func() {
					c.snapshots[k] = snapshotsOf{farm, list(ctx, f, c, "snapshots", s.Snapshots, map[string]string{TagFarm: farm})}
				})
			}
		}
	}
	if !whole {
		f.askParents(ctx, g, &o)
	}
	g.wait()
	for _, p := range o.parents {
		o.errs = append(o.errs, p.errs()...)
	}
	for i := range o.clouds {
		c := &o.clouds[i]
		c.drop(f.spec.Name)
		o.errs = append(o.errs, c.instances.err, c.volumes.err, c.addresses.err, c.balancers.err)
		for k := range c.snapshots {
			o.errs = append(o.errs, c.snapshots[k].err)
		}
	}
	held := f.look(ctx, &o, whole)
	complete := !slices.ContainsFunc(o.clouds, func(c cloud) bool { return c.instances.err != nil })
	o.held = f.ask(ctx, held, complete, acting)
	if !whole {
		f.askNames(ctx, &o)
	}
	// Last of all: in the meantime a database may have changed its primary.
	o.sets, o.at = f.sets(), time.Now()
	o.errs = slices.DeleteFunc(o.errs, func(err error) bool { return err == nil })
	return o
}

// drop leaves out what bears the name of another cloud's pool: two providers may speak to one account. A provider that breaks
// its word to sort its list must not make machines look lost.
func (c *cloud) drop(farm string) {
	items := c.instances.items
	for i := 1; i < len(items); i++ {
		if items[i-1].ID < items[i].ID {
			continue
		}
		slices.SortFunc(items, func(a, b provider.Instance) int { return cmp.Compare(a.ID, b.ID) })
		c.instances.items = slices.CompactFunc(items, func(a, b provider.Instance) bool { return a.ID == b.ID })
		break
	}
	if len(c.others) == 0 {
		return
	}
	c.instances.items = slices.DeleteFunc(c.instances.items, func(i provider.Instance) bool { return c.foreign(i.Tags) })
	c.volumes.items = slices.DeleteFunc(c.volumes.items, func(v provider.Volume) bool { return c.foreign(v.Tags) })
	c.addresses.items = slices.DeleteFunc(c.addresses.items, func(a provider.Address) bool { return c.foreign(a.Tags) })
	c.balancers.items = slices.DeleteFunc(c.balancers.items, func(b provider.Balancer) bool { return c.foreign(b.Tags) })
	if own := c.snapshotsOf(farm); own != nil {
		own.items = slices.DeleteFunc(own.items, func(s provider.Snapshot) bool { return c.foreign(s.Tags) })
	}
}

func (c *cloud) foreign(tags map[string]string) bool { return slices.Contains(c.others, tags[TagPool]) }

// list makes one listing call within the call's time-out.
func list[T any](ctx context.Context, f *Farm, c *cloud, what string, call func(context.Context, map[string]string) ([]T, error), tags map[string]string) listing[T] {
	ctx, cancel := context.WithTimeout(ctx, f.config.CallTimeout)
	defer cancel()
	var items []T
	err := f.limit(ctx)
	if err == nil {
		items, err = call(ctx, tags)
	}
	if err != nil {
		err = fmt.Errorf("list %s of pool %s: %w", what, c.pools[0].Name, err)
	}
	return listing[T]{items, err}
}

// look checks the machines' health, reads the sensors and the zone, side by side and each within a time-out: a slow one
// delays nothing but itself. It gives the machines that hooks hold.
func (f *Farm) look(ctx context.Context, o *observation, ending bool) (held []asked) {
	var mu sync.Mutex
	g := f.group()
	servers := map[string][]Server{}
	for i := range o.clouds {
		c := &o.clouds[i]
		for in, m := range f.watched(c) {
			r := f.role(m.slot.role)
			server := Server{ID: in.ID, Name: m.slot.name(), Role: r.Name, Index: m.slot.index, Pool: m.pool, State: in.State,
				Ready: m.ready && m.warm.IsZero(), Private: in.Private, Public: publicOf(in.Private, in.Public), Port: r.Port}
			servers[r.Name] = append(servers[r.Name], server)
			switch {
			case ending:
			case !m.started && f.config.holds(HostStarting, r.Name):
				held = append(held, asked{HostStarting, server})
			case !m.stopping.IsZero() && f.config.holds(HostStopping, r.Name):
				held = append(held, asked{HostStopping, server})
			}
		}
	}
	if f.config.Doomed != nil && !ending {
		g.add(func() {
			ctx, cancel := context.WithTimeout(ctx, f.config.CallTimeout)
			defer cancel()
			doomed, err := f.config.Doomed(ctx)
			mu.Lock()
			defer mu.Unlock()
			o.doomed = doomed
			if err != nil {
				o.errs = append(o.errs, fmt.Errorf("which machines are doomed: %w", err))
			}
		})
	}
	for i := range f.spec.Roles {
		r := &f.spec.Roles[i]
		slices.SortFunc(servers[r.Name], func(a, b Server) int { return cmp.Or(a.Index-b.Index, cmp.Compare(a.ID, b.ID)) })
		if r.Health != nil && !ending {
			for _, s := range servers[r.Name] {
				g.add(func() {
					err := f.checkHealth(ctx, r, s)
					mu.Lock()
					defer mu.Unlock()
					o.health[s.ID] = err
				})
			}
		}
		metrics := r.metrics()
		if ending {
			metrics = nil
		}
		for _, metric := range metrics {
			ready := slices.DeleteFunc(slices.Clone(servers[r.Name]), func(s Server) bool { return !s.Ready })
			g.add(func() {
				ctx, cancel := context.WithTimeout(ctx, f.config.CallTimeout)
				defer cancel()
				samples, err := f.config.Sensors[metric].Read(ctx, r.Name, ready)
				samples = slices.Clone(samples)
				for i := range samples {
					samples[i].Metric = metric
				}
				mu.Lock()
				defer mu.Unlock()
				o.samples[r.Name] = append(o.samples[r.Name], samples...)
				if err != nil {
					o.errs = append(o.errs, fmt.Errorf("sensor %s of role %s: %w", metric, r.Name, err))
				}
			})
		}
	}
	if f.spec.Zone != "" {
		g.add(func() {
			zone, err := f.readZone(ctx)
			mu.Lock()
			defer mu.Unlock()
			o.zone, o.zoneErr = zone, err
			o.errs = append(o.errs, err)
		})
	}
	g.wait()
	return held
}

// watched gives the running instances of a cloud that somebody wants to hear of each pass (a check, a sensor, a hook), each with
// what the last pass has left of it.
func (f *Farm) watched(c *cloud) iter.Seq2[*provider.Instance, *machine] {
	return func(yield func(*provider.Instance, *machine) bool) {
		watched := map[string]bool{}
		for i := range f.spec.Roles {
			r := &f.spec.Roles[i]
			if r.Health != nil || r.Scale != nil || f.config.holds(HostStarting, r.Name) || f.config.holds(HostStopping, r.Name) {
				watched[r.Name] = true
			}
		}
		if len(watched) == 0 {
			return
		}
		at, _ := f.history.find(c.id, "")
		known := f.history.machines[at:]
		for i := range c.instances.items {
			in := &c.instances.items[i]
			for len(known) > 0 && known[0].cloud == c.id && known[0].id < in.ID {
				known = known[1:]
			}
			if in.State != provider.Running {
				continue
			}
			var m *machine
			if len(known) > 0 && known[0].cloud == c.id && known[0].id == in.ID {
				m = known[0]
			} else {
				m = c.machine(in)
			}
			if watched[m.slot.role] && !yield(in, m) {
				return
			}
		}
	}
}

// sets asks the database managers, which know without asking anybody.
func (f *Farm) sets() map[string]replication.Topology {
	sets := map[string]replication.Topology{}
	for name, m := range f.config.Databases {
		sets[name], _ = m.Topology()
	}
	return sets
}

func (f *Farm) readZone(ctx context.Context) ([]dnsreg.RRset, error) {
	ctx, cancel := context.WithTimeout(ctx, f.config.CallTimeout)
	defer cancel()
	records, err := f.config.DNS.Records(ctx, f.spec.Zone)
	if err != nil {
		return nil, fmt.Errorf("read zone %s: %w", f.spec.Zone, err)
	}
	return records, nil
}

// checkHealth makes one check; nil means that the server serves.
func (f *Farm) checkHealth(ctx context.Context, r *Role, s Server) error {
	ctx, cancel := context.WithTimeout(ctx, r.Health.Timeout)
	defer cancel()
	if r.Health.Custom != "" {
		return f.config.Checks[r.Health.Custom](ctx, s)
	}
	if !s.Private.IsValid() {
		return errors.New("has no address")
	}
	hostport := net.JoinHostPort(s.Private.String(), strconv.Itoa(s.Port))
	if r.Health.Path == "" {
		c, err := (&net.Dialer{}).DialContext(ctx, "tcp", hostport)
		if err != nil {
			return err
		}
		return c.Close()
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+hostport+r.Health.Path, nil)
	if err != nil {
		return err
	}
	// A connection for each check: a kept one could outlive the machine behind it and answer for it.
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	resp, err := client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode < 200 || resp.StatusCode > 399 {
		return fmt.Errorf("GET %s answered %s", r.Health.Path, resp.Status)
	}
	return nil
}

// group runs functions side by side, at most Config.Parallel at once.
type group struct {
	slots chan struct{}
	wg    sync.WaitGroup
}

func (f *Farm) group() *group { return &group{slots: make(chan struct{}, f.config.Parallel)} }

func (g *group) add(do func()) {
	g.slots <- struct{}{}
	g.wg.Go(func() {
		defer func() { <-g.slots }()
		do()
	})
}

func (g *group) wait() { g.wg.Wait() }

func publicOf(private, public netip.Addr) netip.Addr {
	if public.IsValid() {
		return public
	}
	return private
}

func sortedKeys[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }
