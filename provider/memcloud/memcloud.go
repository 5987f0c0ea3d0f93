// Package memcloud is a cloud in memory, to unit-test infrastructure logic against: it has the delays, the stale lists,
// the limits and the faults that clouds have, and it can be looked into.
//
//	cloud := memcloud.New(memcloud.Options{BootTime: time.Minute, ListLag: 5 * time.Second})
//
// A [Cloud] is a provider.Provider with all capabilities. Its time is package time's: in a testing/synctest bubble an
// hour of it takes microseconds, outside it is real. It starts no goroutine; what it does by itself (an instance that
// comes up, a list that catches up) is worked out from timestamps when somebody asks.
//
// # Faults
//
// Options.Fault sees every call twice, before and after it takes effect, and can fail it, lose its reply, delay it, or
// panic to end the program under test at that very point. Beside that the test changes the world: [Cloud.Kill],
// [Cloud.Fail], [Cloud.FailSnapshot], [Cloud.Hang], [Cloud.SetCapacity], [Cloud.SetQuota], [Cloud.SetTargetHealth], [Cloud.AddRequests]. These methods are not
// calls of the cloud's API: they have no latency, no lag, no fault, and count nowhere.
//
// # Inspection
//
// [Cloud.World] is everything that exists now, whoever made it; [Cloud.Changes] is the log of every change that calls
// have made; [Cloud.Calls] counts the calls. A test that must show that nothing is left over, or that nothing foreign
// was touched, compares these.
//
// # Where it is strict
//
// An instance has addresses only while the machine exists; volumes and addresses can be given to an instance only once
// it runs (or by Launch.Volumes); a snapshot, an image or a volume that is not Ready cannot be used. IDs do not sort in
// the order of creation.
package memcloud

import (
	"context"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/scalr-go/scalr/provider"
)

// Options is what a cloud is like. The zero value is a cloud without delays, limits and faults.
type Options struct {
	// BootTime is how long an instance is Pending. BootSpread adds up to as much again, fixed for each token.
	BootTime   time.Duration
	BootSpread time.Duration
	// ReadyTime is how long a new volume, snapshot, image or balancer is not Ready, and a new target is TargetInitial.
	ReadyTime time.Duration
	// TerminateTime is how long an instance is Terminating. It keeps its address and volumes, and counts against quota
	// and capacity, until then. TerminatedLinger is how long it is listed after that.
	TerminateTime    time.Duration
	TerminatedLinger time.Duration
	// ListLag is how far lists are behind: what was created is missing and what has changed is shown as it was.
	ListLag time.Duration
	// Latency is how long each call takes: one half before it takes effect, one half after. A context that ends within
	// that time leaves a changing call with ErrAmbiguous, since no client could tell on which side it was.
	Latency time.Duration

	// Placements, Sizes and Images are the names that exist. Nil takes any name. An empty Launch.Placement takes the
	// first placement with capacity ("a" where any name is taken), an empty Launch.Size the first size. What else a launch
	// asks for (Network, SecurityGroups, KeyPair, Spot) is taken as it is.
	Placements []string
	Sizes      []string
	Images     []string
	// LateVolumes leaves attaching Launch.Volumes to the caller, as EC2 does.
	LateVolumes bool

	// Quota is how much may exist at a time, Capacity how many instances there is room for.
	Quota    Quota
	Capacity map[Offering]int
	// Throttle is how many calls are taken.
	Throttle Throttle

	// Private and Public are what addresses are taken from. Zero means 10.0.0.0/8 and 198.18.0.0/15 (RFC 2544).
	Private netip.Prefix
	Public  netip.Prefix
	// Seed varies IDs and the spread of boot times. The same seed and tokens give the same ones.
	Seed uint64

	// Fault, if not nil, is called before and after every call takes effect: see [Fault].
	Fault Fault
	// OnState, if not nil, is told of every state that an instance enters, so that a test can attach behaviour: start a
	// server when the machine runs, stop it when it does not. Since the cloud works lazily, it is told by the first call
	// (or method that changes the world) that comes after, and before that call returns: whoever sees an instance Running
	// or Stopped can rely on it. It is never called concurrently, and in the order of time. It must not call the API,
	// which would wait for it; the methods that change the world are fine.
	OnState func(provider.Instance)
	// Command runs the commands of RunCommand. Nil fails them with errors.ErrUnsupported.
	Command func(context.Context, provider.Instance, provider.Command) (provider.CommandResult, error)
}

// Quota is how many of each kind may exist at a time. 0 means no limit, a negative number none at all.
type Quota struct {
	Instances, Volumes, Snapshots, Addresses, Balancers, Images int
}

// Offering is a size at a placement. An empty field stands for all sizes or placements together.
type Offering struct {
	Placement, Size string
}

// Throttle is a token bucket over all calls: PerSecond is how fast it fills, Burst how much it holds (at least 1). The
// zero value does not throttle.
type Throttle struct {
	PerSecond float64
	Burst     int
}

// Cloud is a cloud in memory. It is safe for concurrent use.
type Cloud struct {
	opts Options

	mu       sync.Mutex
	fault    Fault
	quota    Quota
	capacity map[Offering]int
	calls    map[string]int
	seq      int
	changes  []Change
	bucket   bucket

	instances kind[provider.Launch, provider.Instance]
	volumes   kind[provider.VolumeSpec, provider.Volume]
	snapshots kind[provider.SnapshotSpec, provider.Snapshot]
	addresses kind[provider.AddressSpec, provider.Address]
	balancers kind[provider.BalancerSpec, provider.Balancer]
	images    kind[provider.ImageSpec, provider.Image]

	machines map[string]*machine  // by instance
	alive    map[Offering]int     // instances that are not Terminated
	content  map[string]string    // volume or snapshot -> what is on it
	targets  map[string][]*target // by balancer
	requests map[string]uint64    // by balancer
	private  pool
	public   pool
	agenda   agenda
	order    int // of the agenda's latest entry
	foreign  int // how often CreateForeign was called

	notices    []provider.Instance
	delivering chan struct{} // closed when the call that delivers notices is done; nil while none does
}

// The interfaces of a cloud with everything.
var (
	_ provider.Provider  = (*Cloud)(nil)
	_ provider.Volumes   = (*Cloud)(nil)
	_ provider.Snapshots = (*Cloud)(nil)
	_ provider.Addresses = (*Cloud)(nil)
	_ provider.Balancers = (*Cloud)(nil)
	_ provider.Traffic   = (*Cloud)(nil)
	_ provider.Images    = (*Cloud)(nil)
	_ provider.Power     = (*Cloud)(nil)
	_ provider.Tagger    = (*Cloud)(nil)
	_ provider.Commands  = (*Cloud)(nil)
)

// New makes a cloud. It panics if an option makes no sense, and says which.
func New(o Options) *Cloud {
	if o.Private == (netip.Prefix{}) {
		o.Private = netip.MustParsePrefix("10.0.0.0/8")
	}
	if o.Public == (netip.Prefix{}) {
		o.Public = netip.MustParsePrefix("198.18.0.0/15")
	}
	if err := o.check(); err != nil {
		panic(err.Error())
	}
	c := &Cloud{
		opts:     o,
		fault:    o.Fault,
		quota:    o.Quota,
		capacity: maps.Clone(o.Capacity),
		calls:    map[string]int{},
		alive:    map[Offering]int{},
		private:  pool{prefix: o.Private},
		public:   pool{prefix: o.Public},
		machines: map[string]*machine{},
		content:  map[string]string{},
		targets:  map[string][]*target{},
		requests: map[string]uint64{},
		bucket:   bucket{Throttle: o.Throttle},
	}
	if c.capacity == nil {
		c.capacity = map[Offering]int{}
	}
	c.instances.init(c, "Launch", "i-")
	c.volumes.init(c, "CreateVolume", "vol-")
	c.snapshots.init(c, "CreateSnapshot", "snap-")
	c.addresses.init(c, "AllocateAddress", "eip-")
	c.balancers.init(c, "CreateBalancer", "lb-")
	c.images.init(c, "CreateImage", "img-")
	return c
}

func (o Options) check() error {
	for _, d := range []struct {
		name string
		d    time.Duration
	}{
		{"BootTime", o.BootTime}, {"BootSpread", o.BootSpread}, {"ReadyTime", o.ReadyTime}, {"ListLag", o.ListLag},
		{"TerminateTime", o.TerminateTime}, {"TerminatedLinger", o.TerminatedLinger}, {"Latency", o.Latency},
	} {
		if d.d < 0 {
			return fmt.Errorf("memcloud: Options.%s is %s, want at least 0", d.name, d.d)
		}
	}
	if o.Throttle.PerSecond < 0 || o.Throttle.Burst < 0 || o.Throttle.PerSecond == 0 && o.Throttle.Burst > 0 {
		return fmt.Errorf("memcloud: Options.Throttle is %+v, want a positive PerSecond with a Burst, or neither", o.Throttle)
	}
	for _, p := range []struct {
		name string
		p    netip.Prefix
	}{{"Private", o.Private}, {"Public", o.Public}} {
		if !p.p.IsValid() || p.p.Bits() > p.p.Addr().BitLen()-2 {
			return fmt.Errorf("memcloud: Options.%s is %s, want a network of at least four addresses", p.name, p.p)
		}
	}
	for _, n := range []struct {
		name  string
		names []string
	}{{"Placements", o.Placements}, {"Sizes", o.Sizes}, {"Images", o.Images}} {
		if n.names != nil && (len(n.names) == 0 || slices.Contains(n.names, "")) {
			return fmt.Errorf("memcloud: Options.%s is %q, want nil or names", n.name, n.names)
		}
	}
	return nil
}
