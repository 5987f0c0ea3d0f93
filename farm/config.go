package farm

import (
	"context"
	"net/netip"
	"slices"
	"time"

	"github.com/scalr-go/scalr"
	"github.com/scalr-go/scalr/cache"
	"github.com/scalr-go/scalr/cronlock"
	"github.com/scalr-go/scalr/dnsreg"
	"github.com/scalr-go/scalr/farm/scale"
	"github.com/scalr-go/scalr/provider"
	"github.com/scalr-go/scalr/replication"
)

// Config says with what a farm is made. Only Pools is required; the rest is required by what the spec asks for, and the
// zero value of each figure is its default.
type Config struct {
	// Pools are where machines can be, in the order of preference of roles that name none.
	Pools []Pool
	// DNS publishes the farm's names. Required if the spec has a zone.
	DNS dnsreg.Registrar
	// NameServers ask the zone's name servers, all of them. With them a machine that leaves is drained from when none gives out its
	// address any more; without, from when DNS says that the zone has it no more. An error counts as if it were still given out.
	NameServers []NameServer
	// Locker makes sure that of several host programs one runs the farm: [Farm.Run] holds the lock "farm/<name>". Nil
	// means that the caller makes sure.
	Locker cronlock.Locker
	// Databases are the managers of the database roles, by role. The farm tells each who its members are, and runs it. A manager is of
	// one farm until that has been terminated, as is a follower: New refuses those of another.
	Databases map[string]*replication.Manager
	// Caches follow the servers of the cache roles, by role.
	Caches map[string]cache.Follower
	// Sensors read the metrics that policies name, by metric.
	Sensors map[string]Sensor
	// Policies are the custom policies that roles name.
	Policies map[string]scale.Policy
	// Checks are the custom health checks that roles name. A check returns nil if the server serves.
	Checks map[string]func(context.Context, Server) error
	// Hooks are what is done when something happens, and what machines wait for before they serve and before they end.
	Hooks []Hook
	// Doomed tells which machines their cloud has announced to take back, by instance ID, and why: spot machines mostly. It
	// is asked at each pass. The farm launches a successor at once and takes the machine out of service when that serves.
	// (*ec2.Cloud).Doomed is one.
	Doomed func(context.Context) (map[string]string, error)
	// Limit, if set, is waited for before each call to a provider, so that several farms, or all that a program does with
	// an account, stay within one rate. A *rate.Limiter of golang.org/x/time/rate is one.
	Limit interface{ Wait(context.Context) error }
	// UserData makes the user data of a machine, secrets included, in place of Role.UserData. It must give the same bytes
	// for the same machine each time: a retried launch is recognised by them.
	UserData func(Machine) ([]byte, error)
	// Events is told what happens, one event after another. A pass waits for it, so it must return soon, and must not call Plan,
	// Reconcile or Terminate, which would wait for the pass.
	Events func(scalr.Event)

	// Interval is the time between two passes of Run; default 10 s. Run wakes earlier after a pass that changed
	// something and when a database changes its primary.
	Interval time.Duration
	// CallTimeout bounds each call to a provider, a registrar or a sensor; default 30 s.
	CallTimeout time.Duration
	// Parallel is how many calls are made at once; default 8.
	Parallel int
	// ListLag is how long after a creation a provider's lists may still miss the thing; default 30 s. Terminate waits for
	// it before it believes that nothing is left, and a farm creates its first volumes only when it has run for so long.
	// Tests with a cloud that has no lag set it to a millisecond.
	ListLag time.Duration
	// Grace is how long a machine with the farm's tags that no slot wants is kept before it is ended; default 5 min.
	Grace time.Duration
	// MissingAfter is how long a machine must be absent from complete lists before it counts as gone; default 2 min, and
	// never less than ListLag. A machine that is listed as terminated or failed is replaced at once.
	MissingAfter time.Duration
	// ShrinkLimit is the share of a provider's machines that may vanish from one list to the next, at least 3 of them,
	// before the farm distrusts the view and ends and replaces nothing there; default 0.4.
	ShrinkLimit float64
	// ShrinkPatience is how long such a view must last before it is believed; default 15 min.
	ShrinkPatience time.Duration
	// MetricAge is how old a sample may be; older ones are missing. Default 3 min.
	MetricAge time.Duration
	// Backoff is how long an offer (a size in a pool) is avoided after it had no capacity, and a slot after its machine
	// failed to come up. It doubles with each failure in a row up to 16 times; default 1 min.
	Backoff time.Duration
}

// Pool is a resource pool: one provider at one placement.
type Pool struct {
	// Name is what roles and plans call it: a DNS label.
	Name string
	// Provider is the cloud. Pools that share one are listed by one call.
	Provider provider.Provider
	// Placement, Network, SecurityGroups and KeyPair are handed to each launch.
	Placement      string
	Network        string
	SecurityGroups []string
	KeyPair        string
	// Images and Sizes translate the spec's names into the provider's. A name that is not there is taken as it is; of an image
	// that a pool of another provider has here, the plan of a launch says so.
	Images map[string]string
	Sizes  map[string]string
	// Prices let plans say what the farm costs; nil where that is not wanted.
	Prices *Prices
}

// Machine is what is about to be launched, for Config.UserData.
type Machine struct {
	Farm, Role, Name, Pool string
	Index                  int
	// Version is Role.Version, or that of Update.Before if the update is taken back.
	Version string
}

// Server is a machine of the farm as the last pass saw it.
type Server struct {
	ID      string // the instance's ID at its provider
	Name    string // "<role>-<index>"
	Role    string
	Index   int
	Pool    string
	State   provider.State
	Ready   bool // it serves
	Warm    bool // it waits in the warm pool
	Primary bool // it is the primary of its database role
	Private netip.Addr
	Public  netip.Addr // the private one where it has no other
	Port    int
}

// Sensor reads one metric of a role. Samples that cannot be had are left out: a sensor never fills in a value. An error
// beside samples reports what is missing.
type Sensor interface {
	Read(ctx context.Context, role string, servers []Server) ([]scale.Sample, error)
}

// SensorFunc is a function as a [Sensor].
type SensorFunc func(ctx context.Context, role string, servers []Server) ([]scale.Sample, error)

// Read calls f.
func (f SensorFunc) Read(ctx context.Context, role string, servers []Server) ([]scale.Sample, error) {
	return f(ctx, role, servers)
}

func (c Config) withDefaults() Config {
	c.Interval = or(c.Interval, 10*time.Second)
	c.CallTimeout = or(c.CallTimeout, 30*time.Second)
	c.Parallel = or(c.Parallel, 8)
	c.ListLag = or(c.ListLag, 30*time.Second)
	c.Grace = or(c.Grace, 5*time.Minute)
	c.MissingAfter = max(or(c.MissingAfter, 2*time.Minute), c.ListLag)
	c.ShrinkLimit = or(c.ShrinkLimit, 0.4)
	c.ShrinkPatience = or(c.ShrinkPatience, 15*time.Minute)
	c.MetricAge = or(c.MetricAge, 3*time.Minute)
	c.Backoff = or(c.Backoff, time.Minute)
	return c
}

// cloud gives the place in Pools of the first pool that shares the provider of p.
func (c *Config) cloud(p *Pool) int {
	return slices.IndexFunc(c.Pools, func(q Pool) bool { return q.Provider == p.Provider })
}

// pool gives the pool of that name, or nil.
func (c *Config) pool(name string) *Pool {
	for i := range c.Pools {
		if c.Pools[i].Name == name {
			return &c.Pools[i]
		}
	}
	return nil
}
