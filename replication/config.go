package replication

import (
	"errors"
	"fmt"
	"time"

	"github.com/scalr-go/scalr"
)

// Config says how a [Manager] watches over one set of members. The zero value of every field but Engine is useful.
type Config struct {
	// Name is the set's name, for events and for what is kept on its members (Recorder): "shop/db" is the role db of the farm shop.
	Name string
	// Engine speaks to the database servers. Required.
	Engine Engine
	// Policy is what to give up when the primary is lost. The default is Availability.
	Policy Policy
	// Unfenced says what to do if a lost primary can be neither reached nor stopped. The default follows the Policy.
	Unfenced Unfenced

	// Origin is where the set gets its first data from; nil lets it begin without data.
	Origin *Origin

	// Salvage is a directory for what a member has and the primary lacks, as an old primary may that has died. Such a member
	// cannot follow. Its transactions are saved there first, in a file for each, which only its owner may read; as long as that
	// fails the member stays as it is. Then they are taken back, if the Engine can, and all of the member's data is compared
	// with another one's; if that fails it is seeded anew. The events and the verdict name the file. It holds data of users.
	// Empty: nothing is saved, and the member is seeded anew. The Engine must be a Rewinder.
	Salvage string

	// Relays lets what the primary writes go to each other pool once: one replica there, the relay, follows the primary, and
	// the others follow it. Such a pool's replicas are a little further behind. While its relay does not work, they follow the
	// primary. One that applies with a delay follows the primary always, and so does a member that is to take over.
	Relays bool

	// Backups is when the set is copied to files, and how long these are kept; nil for never. The Engine must be a Backuper.
	Backups *Backups

	// Interval is the time between two looks at a member, and between a look that failed and the next one a quarter of
	// it, or a sixteenth if the connection was refused. The default is 200 ms.
	Interval time.Duration
	// Timeout bounds one look. The default is 500 ms.
	Timeout time.Duration
	// Misses is how many looks in a row must fail before a member is down. A killed server, whose address refuses
	// connections, is so within one interval and a sixteenth for each further look (225 ms with the defaults), a hung one
	// after as many time-outs (1.7 s). The default is 3.
	Misses int

	// MaxLag is how stale a replica may be and still serve reads, become the target of a switchover, or be the source of
	// a seed. One that has been staler serves reads again within half of it. The default is 10 s.
	MaxLag time.Duration
	// StepTimeout bounds a step that should be short (fence, promote, follow, semi-sync). Draining, seeding, importing
	// and backups take as long as they take, while the members concerned answer. The default is 10 s.
	StepTimeout time.Duration
	// StopTimeout bounds Member.Fence, which stops a machine. The default is 2 min.
	StopTimeout time.Duration
	// Patience is how long a Manager that knows of no primary waits for members that do not answer before it makes do
	// with the others, and how long the server of a member may be gone that is being seeded or gets the set's first data. The default is 30 s.
	Patience time.Duration

	// Recoveries is how many unplanned promotions there may be within Window; the next one waits until the window has
	// moved on. Those of earlier Managers count if the Engine is a Recorder. The defaults are 3 within 1 min.
	Recoveries int
	Window     time.Duration

	// Events receives what happens: see the Kind constants. Nil drops it. It is called within Run, which decides nothing until it
	// returns, so it should be quick. It may call the Manager's other methods, but a Switchover that it waits for waits for it, until
	// its context ends: leave that to another goroutine.
	Events func(scalr.Event)
}

// Unfenced says what to do if a lost primary can be neither reached nor stopped through its provider.
type Unfenced int

const (
	// UnfencedByPolicy waits under Durability and goes on under Availability.
	UnfencedByPolicy Unfenced = iota
	// UnfencedWait promotes nothing until the old primary answers, refuses connections or has been stopped.
	UnfencedWait
	// UnfencedGoOn promotes nevertheless, when a majority of the set and the Manager itself have lost sight of the old
	// primary. Until it answers again and is fenced, applications that still reach it may write to it. Under Durability
	// every replica is drained first, so that the old primary finds none to acknowledge a write.
	UnfencedGoOn
)

// check fills in the defaults and reports every fault by field.
func (c Config) check() (Config, error) {
	var faults []error
	fault := func(format string, args ...any) { faults = append(faults, fmt.Errorf("Config."+format, args...)) }
	if c.Engine == nil {
		fault("Engine is nil, want an engine such as memdb or mysql")
	}
	if c.Policy != Availability && c.Policy != Durability {
		fault("Policy is %d, want Availability or Durability", int(c.Policy))
	}
	if c.Unfenced < UnfencedByPolicy || c.Unfenced > UnfencedGoOn {
		fault("Unfenced is %d, want UnfencedByPolicy, UnfencedWait or UnfencedGoOn", int(c.Unfenced))
	}
	c.Origin.check(c.Engine, fault)
	c.checkSalvage(fault)
	c.Backups.check(&c, fault)
	for _, d := range []struct {
		name     string
		value    *time.Duration
		standard time.Duration
	}{
		{"Interval", &c.Interval, 200 * time.Millisecond},
		{"Timeout", &c.Timeout, 500 * time.Millisecond},
		{"MaxLag", &c.MaxLag, 10 * time.Second},
		{"StepTimeout", &c.StepTimeout, 10 * time.Second},
		{"StopTimeout", &c.StopTimeout, 2 * time.Minute},
		{"Patience", &c.Patience, 30 * time.Second},
		{"Window", &c.Window, time.Minute},
	} {
		switch {
		case *d.value == 0:
			*d.value = d.standard
		case *d.value < time.Millisecond:
			fault("%s is %v, want at least 1ms, or 0 for %v", d.name, *d.value, d.standard)
		}
	}
	for _, n := range []struct {
		name     string
		value    *int
		standard int
	}{{"Misses", &c.Misses, 3}, {"Recoveries", &c.Recoveries, 3}} {
		switch {
		case *n.value == 0:
			*n.value = n.standard
		case *n.value < 0:
			fault("%s is %d, want at least 1, or 0 for %d", n.name, *n.value, n.standard)
		}
	}
	if c.Unfenced == UnfencedByPolicy {
		c.Unfenced = UnfencedGoOn
		if c.Policy == Durability {
			c.Unfenced = UnfencedWait
		}
	}
	return c, errors.Join(faults...)
}
