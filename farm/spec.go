package farm

import (
	"slices"
	"time"

	"github.com/scalr-go/scalr/farm/scale"
)

// Spec says what a farm is. It is plain data: it survives a round trip through JSON, where durations are written as
// "20s" or "5m", and two specs are the same if reflect.DeepEqual says so. What it is made with stands in [Config].
type Spec struct {
	// Name is the farm's name and the owner of everything that it creates: a DNS label of at most 32 characters. Two
	// farms of one name that share a cloud account are one farm.
	Name string `json:"name"`
	// Zone is the DNS zone for the farm's names, absolute: "example.com.". Empty publishes no names. A name has at most 2000 addresses
	// of type A, or 1000 of type AAAA, and the plan says which name lacks some; long before that, a role does better with a Balancer.
	Zone string `json:"zone,omitempty"`
	// TTL is how long a resolver may keep the farm's names, in whole seconds; default 20 s.
	TTL time.Duration `json:"ttl,omitempty"`
	// Parent is the farm whose databases' servers are those of the Managers' Origins, if it is one; [Spec.Clone] sets it. Until the
	// databases have their first data, their machines bear its name in TagNeeds, so that it does not end before: see
	// [ErrDependents]. Where a provider is no Tagger, they do not.
	Parent string `json:"parent,omitempty"`
	// Roles are the farm's kinds of machine. They are launched in the order that Role.After says.
	Roles []Role `json:"roles"`
	// End is when the farm ends by itself; nil means never.
	End *End `json:"end,omitempty"`
	// Hours are when the farm runs; outside of them only snapshots of its volumes are kept. Nil means always.
	Hours *Hours `json:"hours,omitempty"`
}

// End is a farm's last moment: from then on [Farm.Run] terminates it as [Farm.Terminate] does, and returns nil when nothing
// is left; a Run that begins later does the same. While other farms depend on it, Run keeps the farm and tells of them. Reconcile,
// which leaves that to the caller, returns ErrEnded.
type End struct {
	At               time.Time `json:"at"`
	TerminateOptions           // what is to be left
}

// Service is what the machines of a role do for the farm.
type Service string

// The services. The farm knows how to look after each; a role that does anything else leaves it empty.
const (
	Web      Service = "web"      // answers requests of clients; its public addresses are published
	Database Service = "database" // members of a replicated set, looked after by a replication.Manager
	Cache    Service = "cache"    // servers of a cache, followed by a cache.Follower
)

// Role is machines of one kind.
type Role struct {
	// Name is the role's name: a DNS label of at most 20 characters.
	Name string `json:"name"`
	// Serves is what the role is for; empty for anything that the farm need not know.
	Serves Service `json:"serves,omitempty"`

	// Image is what the machines boot. A pool may translate it into its provider's own name.
	Image string `json:"image"`
	// Size is the machine type, likewise; empty takes the provider's default.
	Size string `json:"size,omitempty"`
	// Fallback are the sizes to take, in this order, where there is no capacity for Size.
	Fallback []string `json:"fallback,omitempty"`
	// Pools are the names of the pools to be in, in order of preference; empty means all, in the order of the Config.
	Pools []string `json:"pools,omitempty"`
	// UserData is handed to each machine at its first boot. It stands in the spec for everybody to read: secrets come
	// from Config.UserData.
	UserData string `json:"user_data,omitempty"`
	// Spot asks for interruptible machines.
	Spot bool `json:"spot,omitempty"`
	// OnDemand takes machines that are not interruptible where no pool has interruptible ones of any size.
	OnDemand bool `json:"on_demand,omitempty"`

	// Version is part of what a machine is made of, for changes that neither Image, Size nor UserData shows: of what
	// Config.UserData makes, or of what an image's name stands for.
	Version string `json:"version,omitempty"`
	// Update replaces machines that were made of another image, size, user data or version than the role has now. Without
	// it these stay, and only machines that are launched from now on are made of the new.
	Update *Update `json:"update,omitempty"`
	// Move takes machines that are in none of Pools to these. Without it they stay where they are, and only machines that are
	// launched from now on are in Pools.
	Move *Move `json:"move,omitempty"`

	// Min and Max bound the number of machines, 0 ≤ Min ≤ Max and Max ≥ 1. Without a Scale the role has Min.
	Min int `json:"min"`
	Max int `json:"max"`
	// Scale says how many there should be between Min and Max.
	Scale *Scale `json:"scale,omitempty"`

	// Shrink says which machines go first when the role shrinks. Those that are on their way out or do not serve go before
	// all others, and the primary of a database never goes.
	Shrink Order `json:"shrink,omitempty"`

	// Warm keeps machines beside those that serve, so that the role grows, and replaces what fails, without waiting for a
	// boot. They count beside Max. For web roles and such as serve nothing that the farm knows.
	Warm *Warm `json:"warm,omitempty"`

	// After are the roles that must have their Min serving before this one is launched for the first time.
	After []string `json:"after,omitempty"`
	// LaunchTimeout is how long a machine may take from its launch until it serves; then it is replaced. Default 10 min;
	// 40 min for a database, which may have to be seeded.
	LaunchTimeout time.Duration `json:"launch_timeout,omitempty"`
	// Drain is how long a machine that is to end is left running after its names are gone and its balancer has been
	// told. Default the spec's TTL; negative means none.
	Drain time.Duration `json:"drain,omitempty"`
	// StopTimeout is how long hooks may hold a machine that has been drained; default 5 min.
	StopTimeout time.Duration `json:"stop_timeout,omitempty"`
	// Replace is how many machines that served and have failed may be under replacement at once; default a tenth of the
	// role's machines, at least one. Of a database it is one.
	Replace int `json:"replace,omitempty"`
	// Spread puts each new machine into the pool that has fewest of the role, and moves machines, one at a time, while one
	// pool has two more than another that has room. Without it pools are filled in the order of preference. A machine with
	// a volume or an address of its own is not moved.
	Spread bool `json:"spread,omitempty"`

	// Port is where the service listens: default 80 for web, 3306 for a database, 11211 for a cache.
	Port int `json:"port,omitempty"`
	// Health says how to tell that a machine serves; nil means that it serves once it runs. The members of a database
	// are judged by their Manager instead.
	Health *Health `json:"health,omitempty"`
	// Volume is the disk that each index keeps while machines come and go.
	Volume *Volume `json:"volume,omitempty"`
	// Address gives each index a public address of its own that its machines inherit.
	Address bool `json:"address,omitempty"`
	// Balancer puts a balancer before the role's machines, one in each pool.
	Balancer *Balancer `json:"balancer,omitempty"`

	// Main publishes the role at the zone's apex. At most one role is main.
	Main bool `json:"main,omitempty"`
	// Aliases are further names in the zone for the role's service, relative to it: "db" for "db.example.com.". A
	// database's aliases name its primary.
	Aliases []string `json:"aliases,omitempty"`
}

// Scale is the policy of a role: exactly one of Target, Threshold, Step, Forecast, Schedule, MaxOf and Custom is set.
type Scale struct {
	Target    *scale.Target    `json:"target,omitempty"`
	Threshold *scale.Threshold `json:"threshold,omitempty"`
	Step      *scale.Step      `json:"step,omitempty"`
	Forecast  *scale.Forecast  `json:"forecast,omitempty"`
	Schedule  *scale.Schedule  `json:"schedule,omitempty"`
	// MaxOf are several policies, of which the one that wants most counts: see scale.MaxOf.
	MaxOf []Scale `json:"max_of,omitempty"`
	// Custom is the name of a policy in Config.Policies. Without a sample of Metric it is not asked.
	Custom string `json:"custom,omitempty"`
	// Metric is the sensor that a custom policy wants; the others name their own.
	Metric string `json:"metric,omitempty"`
	// Limit holds the policy back, whichever it is.
	Limit *scale.Limit `json:"limit,omitempty"`
}

// Health is a check that the farm makes of a machine at each pass.
type Health struct {
	// Path makes the check a GET of http://address:port/path that must answer 200 to 399; without it, the port must
	// accept a connection. With Custom, neither.
	Path string `json:"path,omitempty"`
	// Custom is the name of a check in Config.Checks.
	Custom string `json:"custom,omitempty"`
	// Timeout bounds one check; default 2 s.
	Timeout time.Duration `json:"timeout,omitempty"`
	// Failures is how many checks in a row must fail before a machine that has served is replaced; default 3. One is
	// enough to take its names away.
	Failures int `json:"failures,omitempty"`
}

// Update says how a role's machines are replaced when the role has changed. A machine is drained, let go by its hooks and
// ended, and its successor takes over its index with the volume, the address and the names. No further one is begun while
// any machine of the role does not serve. Of a database the replicas come first; then one of them takes over from the
// primary, by a planned switchover, and the old primary is replaced.
//
// If the first machine of what is new does not come to serve, or three in a row of the later ones do not, nothing more is replaced:
// what is launched from then on is made as Before says, until the spec changes. (A host program that starts again tries once more.)
type Update struct {
	// Before is what the role was made of until now. Without it, what takes the place of a machine that did not come to serve has
	// the image and the size that the others have, and the user data of the spec.
	Before *Made `json:"before,omitempty"`
	// AtOnce is how many machines are replaced at once; default 1. Of a database it is 1.
	AtOnce int `json:"at_once,omitempty"`
	// Share is the same as a share of the role's machines, 0 to 1; the larger of both counts.
	Share float64 `json:"share,omitempty"`
	// Surge launches the successor first, in an index of its own, where Max allows it: the role never has fewer machines that
	// serve. A machine with a volume or an address of its own is ended first all the same.
	Surge bool `json:"surge,omitempty"`
	// Pause begins no further machine.
	Pause bool `json:"pause,omitempty"`
}

// Warm is a role's pool of machines that have come up and wait.
type Warm struct {
	Count int `json:"count"`
	// Stopped switches them off while they wait: cheaper, and in service after a start instead of a boot. Needs a provider
	// with Power.
	Stopped bool `json:"stopped,omitempty"`
}

// Volume is the disk of an index. It is created with its first machine, stays when the role shrinks, and is deleted
// only by [Farm.Terminate], if told.
type Volume struct {
	SizeGB int    `json:"size_gb"`
	Type   string `json:"type,omitempty"` // in the provider's terms; empty takes its default
	// Snapshots copies the volumes on a schedule. Needs a provider with Snapshots.
	Snapshots *Snapshots `json:"snapshots,omitempty"`
	// From fills the volumes of indexes that have none from snapshots; nil leaves them empty, but for Spec.Hours. Needs a provider with Snapshots.
	From *Source `json:"from,omitempty"`
}

// Balancer is what stands before a role.
type Balancer struct {
	Protocol   string        `json:"protocol"`              // "http" or "tcp"
	Port       int           `json:"port"`                  // where clients connect
	HealthPath string        `json:"health_path,omitempty"` // for http: what the balancer asks for
	Drain      time.Duration `json:"drain,omitempty"`       // how long open connections may last; default the role's Drain
}

// Made is what a role's machines are made of, each as the [Role]'s field of the same name. With Config.UserData, the Version
// tells it which user data to make.
type Made struct {
	Image    string `json:"image"`
	Size     string `json:"size,omitempty"`
	UserData string `json:"user_data,omitempty"`
	Version  string `json:"version,omitempty"`
}

// warm is how many machines wait beside those that serve.
func (r *Role) warm() int {
	if r.Warm == nil {
		return 0
	}
	return r.Warm.Count
}

// detach gives a copy that shares nothing with s.
func (s Spec) detach() Spec {
	s.Roles, s.End, s.Hours = slices.Clone(s.Roles), copied(s.End), copied(s.Hours)
	for i := range s.Roles {
		r := &s.Roles[i]
		r.Fallback, r.Pools, r.After, r.Aliases = slices.Clone(r.Fallback), slices.Clone(r.Pools), slices.Clone(r.After), slices.Clone(r.Aliases)
		r.Health, r.Volume, r.Balancer, r.Scale = copied(r.Health), copied(r.Volume), copied(r.Balancer), r.Scale.clone()
		r.Warm, r.Update, r.Move = copied(r.Warm), copied(r.Update), copied(r.Move)
		if r.Update != nil {
			r.Update.Before = copied(r.Update.Before)
		}
		if r.Volume != nil {
			r.Volume.Snapshots, r.Volume.From = copied(r.Volume.Snapshots), copied(r.Volume.From)
		}
	}
	return s
}

func copied[T any](p *T) *T {
	if p == nil {
		return nil
	}
	return new(*p)
}

// withDefaults gives a copy with every default written out, for the farm's own use.
func (s Spec) withDefaults() Spec {
	s.TTL = or(s.TTL, 20*time.Second)
	roles := make([]Role, len(s.Roles))
	for i, r := range s.Roles {
		timeout, port := 10*time.Minute, 0
		switch r.Serves {
		case Web:
			port = 80
		case Database:
			timeout, port = 40*time.Minute, 3306
		case Cache:
			port = 11211
		}
		r.LaunchTimeout, r.Port = or(r.LaunchTimeout, timeout), or(r.Port, port)
		r.StopTimeout = or(r.StopTimeout, 5*time.Minute)
		r.Drain = max(or(r.Drain, s.TTL), 0)
		if r.Health != nil {
			h := *r.Health
			h.Timeout, h.Failures = or(h.Timeout, 2*time.Second), or(h.Failures, 3)
			r.Health = &h
		}
		if r.Balancer != nil {
			b := *r.Balancer
			b.Drain = or(b.Drain, r.Drain)
			r.Balancer = &b
		}
		if s.Hours != nil && r.Volume != nil && r.Volume.From == nil {
			v := *r.Volume
			v.From = &Source{}
			r.Volume = &v
		}
		roles[i] = r
	}
	s.Roles = roles
	return s
}

func or[T comparable](v, def T) T {
	var zero T
	if v == zero {
		return def
	}
	return v
}
