package farm

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/scalr-go/scalr/cache"
	"github.com/scalr-go/scalr/dnsreg"
	"github.com/scalr-go/scalr/replication"
)

// Action is what a step does.
type Action string

// The actions, in the order in which a pass does them: what makes room and what makes things comes before what connects
// them, names follow, and what ends things is last.
const (
	CreateVolume        Action = "create-volume"
	AllocateAddress     Action = "allocate-address"
	CreateBalancer      Action = "create-balancer"
	DetachVolume        Action = "detach-volume"
	LaunchInstance      Action = "launch-instance"
	StartInstance       Action = "start-instance"
	AttachVolume        Action = "attach-volume"
	AssociateAddress    Action = "associate-address"
	RegisterTarget      Action = "register-target"
	TagInstance         Action = "tag-instance"
	ChangeNames         Action = "change-names"
	DeregisterTarget    Action = "deregister-target"
	SwitchOver          Action = "switch-over"
	StopInstance        Action = "stop-instance"
	TerminateInstance   Action = "terminate-instance"
	DisassociateAddress Action = "disassociate-address"
	ReleaseAddress      Action = "release-address"
	DeleteBalancer      Action = "delete-balancer"
	DeleteVolume        Action = "delete-volume"
	CreateSnapshot      Action = "create-snapshot"
	DeleteSnapshot      Action = "delete-snapshot"
)

// phases are the actions that may run side by side; each phase waits for the one before.
var phases = [][]Action{
	{CreateVolume, AllocateAddress, CreateBalancer, DetachVolume},
	{LaunchInstance, StartInstance},
	{AttachVolume, AssociateAddress, RegisterTarget, TagInstance},
	{ChangeNames, DeregisterTarget},
	{SwitchOver, StopInstance, TerminateInstance, DisassociateAddress},
	{ReleaseAddress, DeleteBalancer, DeleteVolume, CreateSnapshot, DeleteSnapshot},
}

// Step is one thing to do, with the reason for it.
type Step struct {
	Action Action `json:"action"`
	Role   string `json:"role,omitempty"`
	Index  int    `json:"index,omitempty"`
	Pool   string `json:"pool,omitempty"`
	// Subject is the ID of what the step acts on (an instance, a volume, an address, a balancer, a snapshot); empty for what is
	// yet to be created.
	Subject string `json:"subject,omitempty"`
	// Instance is the ID of the instance that the subject is connected to or parted from.
	Instance string `json:"instance,omitempty"`
	// Image, Size, Spot, Generation, Build and Volumes are what a launch takes. Volumes is also the one that a snapshot is
	// taken of.
	Image      string   `json:"image,omitempty"`
	Size       string   `json:"size,omitempty"`
	Spot       bool     `json:"spot,omitempty"`
	Generation int      `json:"generation,omitempty"`
	Build      string   `json:"build,omitempty"`
	Volumes    []string `json:"volumes,omitempty"`
	// Snapshot is what a volume is filled from, and SizeGB how large it is for that.
	Snapshot string `json:"snapshot,omitempty"`
	SizeGB   int    `json:"size_gb,omitempty"`
	// Changes are the changes of names; once the step has been done, those that were made.
	Changes []dnsreg.Change `json:"changes,omitempty"`
	// NoReturn marks what cannot be taken back any more by moving a role back: see [Move].
	NoReturn bool `json:"no_return,omitempty"`
	// Reason says why, in words.
	Reason string `json:"reason"`
	// Err says why the step failed, after it was tried.
	Err string `json:"error,omitempty"`

	err    error
	source string            // the farm that took the Snapshot
	series series            // of a snapshot
	tags   map[string]string // likewise, those to create it with
}

func (s *Step) offer() offer { return offer{s.Pool, s.Size, s.Spot} }

// String gives the step as one line.
func (s Step) String() string {
	var b strings.Builder
	b.WriteString(string(s.Action))
	if s.Role != "" {
		fmt.Fprintf(&b, " %s", s.Role)
		if s.Index > 0 {
			fmt.Fprintf(&b, "-%d", s.Index)
		}
	}
	for _, part := range []string{s.Subject, s.Instance, s.Size} {
		if part != "" {
			b.WriteString(" " + part)
		}
	}
	if s.Pool != "" {
		b.WriteString(" in " + s.Pool)
	}
	b.WriteString(": " + s.Reason)
	if s.NoReturn {
		b.WriteString(" (the point of no return)")
	}
	if s.Err != "" {
		b.WriteString(" (failed: " + s.Err + ")")
	}
	for _, c := range s.Changes {
		for line := range strings.SplitSeq(strings.TrimRight(c.String(), "\n"), "\n") {
			b.WriteString("\n    " + line)
		}
	}
	return b.String()
}

// Wait is something that is not done now, and why.
type Wait struct {
	Role   string `json:"role,omitempty"`
	Index  int    `json:"index,omitempty"`
	Reason string `json:"reason"`
}

// Plan is what one pass decided. It holds no secrets.
type Plan struct {
	Time  time.Time `json:"time"`
	Steps []Step    `json:"steps"`
	// Waits are what the farm would do but for a reason: a launch order, a back-off, a view that is not to be trusted.
	Waits []Wait `json:"waits,omitempty"`
	// Desired is how many machines each role should have, and why.
	Desired map[string]Desired `json:"desired"`
	// Moves are the roles that move, and how far they are.
	Moves []Moving `json:"moves,omitempty"`
	// Updates are the roles that are updated, and how far they are.
	Updates []Updating `json:"updates,omitempty"`
	// Due is when the farm's hours and its end come next. Of a pass it is empty: [Farm.Plan] says it.
	Due []Due `json:"due,omitempty"`
	// Cost is what the farm costs, if a pool has Prices.
	Cost *Cost `json:"cost,omitempty"`

	members map[string][]replication.Member // of each database role; Fence is not set
	missing map[string]int                  // members of each database role that have its data and are not there
	ended   map[string][]string             // machines of each database role that do nothing any more, says their provider
	caches  map[string][]cache.Server       // of each cache role
	servers roster                          // the machines that hold slots
	want    []dnsreg.RRset                  // the farm's records, for ChangeNames
	left    bool                            // something of the farm exists or may exist
	soon    bool                            // something is under way that another pass may find done
}

// Desired is how many machines a role should have.
type Desired struct {
	Count  int    `json:"count"`
	Reason string `json:"reason"`
}

// Empty reports whether there is nothing to do.
func (p Plan) Empty() bool { return len(p.Steps) == 0 }

// String gives the plan as lines for a person: each step, then what waits, what is under way, and what it costs.
func (p Plan) String() string {
	var b strings.Builder
	for _, s := range p.Steps {
		fmt.Fprintln(&b, s)
	}
	for _, w := range p.Waits {
		name := w.Role
		if w.Index > 0 {
			name += fmt.Sprintf("-%d", w.Index)
		}
		fmt.Fprintln(&b, strings.TrimSpace("wait "+name)+": "+w.Reason)
	}
	for _, m := range p.Moves {
		b.WriteString(m.String())
	}
	for _, u := range p.Updates {
		b.WriteString(u.String())
	}
	for _, due := range p.Due {
		fmt.Fprintln(&b, due)
	}
	if b.Len() == 0 {
		b.WriteString("nothing to do\n")
	}
	if p.Cost != nil {
		b.WriteString("cost of " + strings.ReplaceAll(strings.TrimSpace(p.Cost.String()), "\n", "\ncost of ") + "\n")
	}
	return b.String()
}

// ends reports whether the plan ends the instance.
func (p *Plan) ends(instance string) bool {
	return slices.ContainsFunc(p.Steps, func(s Step) bool { return s.Action == TerminateInstance && s.Subject == instance })
}

// sort puts the steps into the order of their actions, within it in the order of roles and indices.
func (p *Plan) sort() {
	order := map[Action]int{}
	for _, phase := range phases {
		for _, a := range phase {
			order[a] = len(order)
		}
	}
	slices.SortStableFunc(p.Steps, func(a, b Step) int { return order[a.Action] - order[b.Action] })
}
