package farm

import (
	"cmp"
	"maps"
	"net/netip"
	"sort"
	"strconv"
	"strings"
	"time"

	"github.com/scalr-go/scalr/farm/scale"
	"github.com/scalr-go/scalr/provider"
)

// The tags on everything that a farm creates. They are the record: a host program that knows nothing finds its farm
// again by them.
const (
	TagFarm       = "scalr-farm"
	TagRole       = "scalr-role"
	TagIndex      = "scalr-index"
	TagGeneration = "scalr-generation"
	TagPool       = "scalr-pool"
	TagBuild      = "scalr-build"    // what an instance is made of: see Role.Update
	TagDue        = "scalr-due"      // of a snapshot by schedule: when it was due, as RFC 3339 has it
	TagFinal      = "scalr-final"    // of a snapshot that the end of its farm has taken: when that was
	TagPrimary    = "scalr-primary"  // of such a one: "true" if its machine was the primary of its database
	TagBorn       = "scalr-born"     // of such a one: when its volume was created
	TagFirst      = "scalr-first"    // of a snapshot that is a farm's first data (Source.Now): when it was taken
	TagSource     = "scalr-source"   // of a volume that was filled from a snapshot: the farm that had taken it; of a snapshot with TagFirst: the farm whose volume it is of
	TagNeeds      = "scalr-needs"    // of a database's instance: the farm that its set's first data comes from, see Spec.Parent; empty once the set has it
	TagSnapshot   = "scalr-snapshot" // of the same: the snapshot's ID
)

// slot is an index of a role. It owns the volume, the address and the names.
type slot struct {
	role  string
	index int
}

func (s slot) name() string { return s.role + "-" + strconv.Itoa(s.index) }

// slotOf reads the slot from tags; ok is false if they name none.
func slotOf(tags map[string]string) (s slot, ok bool) {
	index, err := strconv.Atoi(tags[TagIndex])
	return slot{tags[TagRole], index}, err == nil && index > 0 && tags[TagRole] != ""
}

// history is what a farm remembers from pass to pass. All of it can be lost: what matters is in the tags, and the rest
// only makes decisions steadier. It is a value: next gives a copy for the next pass to change.
type history struct {
	started  time.Time  // the first pass
	lastMade time.Time  // the last attempt to create something
	machines []*machine // sorted by cloud and ID; between passes one is replaced, never changed
	slots    slotTable
	offers   map[offer]backoff
	roles    map[string]roleMemory
	clouds   map[int]cloudMemory  // by place in Config.Pools of the cloud's first pool
	made     map[thing]made       // volumes, addresses, balancers that were created and may not be listed yet
	extras   map[string]time.Time // addresses and balancers that nobody wants: since when
	gone     map[string]time.Time // instances that are known to have ended: since when
	oldTTL   time.Time            // until when resolvers may have the farm's names by a longer TTL than the spec's
	tidy     bool                 // complete lists have shown no address and no balancer that nobody wants

	copies    map[series]copyMemory // snapshots that were taken or tried
	copiesAt  time.Time             // no snapshot is to be taken or deleted before
	restoring bool                  // an index lacks a volume that a snapshot may fill, or the snapshot that has filled them is to go
	copying   bool                  // it is to be known which volume to copy for that
}

// machine is an instance of the farm. What most decisions look at comes first, and so lies together.
type machine struct {
	id       string
	slot     slot
	place    int         // its place in memory among the others, in the order of slots; -1 if it has none yet
	at       *slotMemory // of its slot, in the pass under way
	state    provider.State
	build    string
	leaving  string    // why it is to go whatever the role's number, and is not taken back; empty if it may stay
	draining time.Time // since when it is on its way out; zero if it is not
	warm     time.Time // since when it waits in the warm pool; zero if it is in service
	missing  time.Time // since when complete lists lack it; zero while they have it
	ended    time.Time // when its end was accepted; lists may still show it as it was
	ready    bool      // it serves now
	listed   bool      // a list has shown it
	spot     bool      // it is interruptible
	started  bool      // hooks have let it serve
	updating bool      // it is leaving because it is outdated
	moving   bool      // it is leaving for the sake of balance, and may stay after all until it has a successor
	needs    bool      // it bears TagNeeds, and the farm has a parent
	parting  bool      // it is leaving because the role moves, and may stay after all
	cleared  time.Time // since when it is on its way out and the zone has it no more; zero before

	private  netip.Addr
	surplus  time.Time // since when no slot wants it; zero if one does
	stopping time.Time // since when hooks may hold it back from its end; zero before
	readyAt  time.Time // when it first served; zero before
	down     time.Time // since when it does not serve; zero while it does
	why      string    // why it does not serve
	failures int       // health checks that failed in a row

	generation int
	cloud      int
	pool       string
	size       string // in the provider's terms
	image      string // likewise
	reason     string
	public     netip.Addr
	launched   time.Time
	acked      time.Time // when this program's launch of it was accepted; zero if an earlier run has launched it
}

// find gives the place of a machine among the known ones, and whether it is there.
func (h *history) find(cloud int, id string) (int, bool) {
	return sort.Find(len(h.machines), func(i int) int {
		return cmp.Or(cmp.Compare(cloud, h.machines[i].cloud), cmp.Compare(id, h.machines[i].id))
	})
}

// slot gives what is known of a slot, for the caller to change.
func (h *history) slot(s slot) *slotMemory {
	return h.slots.role(s.role).slot(s.index)
}

// unlisted is when something may have been created last: lists show it after Config.ListLag. Before the first pass an earlier run
// of the program may have created it.
func (h history) unlisted() time.Time {
	if h.lastMade.After(h.started) {
		return h.lastMade
	}
	return h.started
}

// served reports whether the machine has served, or may have before this program began.
func (m *machine) served() bool { return m.acked.IsZero() || !m.readyAt.IsZero() }

// thing names a volume, an address or a balancer that a slot or a role is to have.
type thing struct {
	kind string
	slot slot   // of a balancer its role alone
	pool string // of a volume empty: a slot has one
}

// made is something that was created and is to turn up in a list. If it does not, its token belongs to something that is
// gone, and the next try takes another token.
type made struct {
	at    time.Time // when the cloud said that it was there, or may be; zero if a list has shown it since
	tries int       // how often it was tried without a known outcome: the same may be repeated some times
	offer offer     // where, and for a machine of which size
	try   int       // how many tokens have been found to be used up
	fresh string    // the ID of a volume that no machine has been seen to have

	snapshot string // what a volume is filled from
	source   string // the farm that took it
	sizeGB   int    // how large the volume is for that
}

// offer is a size in a pool.
type offer struct {
	pool, size string
	spot       bool
}

func (o offer) String() string {
	text := strings.TrimSpace(o.size + " in " + o.pool)
	if o.spot {
		text = "spot " + text
	}
	return text
}

// backoff says how long something is avoided.
type backoff struct {
	until    time.Time
	failures int
	reason   string
}

// after gives the back-off after one more failure. Failures of things that were tried side by side count once.
func (b backoff) after(now time.Time, first time.Duration, reason string) backoff {
	if b.until.After(now) {
		return b
	}
	b.failures++
	b.until = now.Add(first << min(b.failures-1, 4))
	b.reason = reason
	return b
}

type roleMemory struct {
	launched bool // its launch order has been kept: it has had machines
	desired  int  // what was decided last; 0 before
	lastUp   time.Time
	lastDown time.Time
	advice   []scale.Advice
	memory   any           // what the policy wants to keep
	boot     time.Duration // how long launches took of late until the machine served; 0 before the first
	outdated int           // machines of another build at the last pass
	proven   string        // a build of which a machine has served
	serving  int           // machines of the role's build that served at the last pass
	failed   int           // machines of the build that is proven that came to nothing since another one of it served
	bad      string        // a build that is given up: its first machine came to nothing, or several
	told     bool          // of that
	primary  string        // the member that was the primary last
	moving   bool          // it had machines to move at the last pass
	fronted  time.Time     // since when no name leads to the balancers in pools that it leaves; zero before
}

type cloudMemory struct {
	listed   bool      // a complete list has been seen
	distrust time.Time // since when its view is not believed; zero if it is
}

// next gives a copy to change, of all but the machines: a pass makes their list anew.
func (h history) next() history {
	h.slots = h.slots.next()
	h.offers = clone(h.offers)
	h.roles = clone(h.roles)
	h.clouds = clone(h.clouds)
	h.made = clone(h.made)
	h.extras = clone(h.extras)
	h.gone = clone(h.gone)
	h.copies, h.restoring, h.copying = maps.Clone(h.copies), false, false // nil of nil: most farms have no snapshots
	return h
}

// clone is maps.Clone that never gives nil.
func clone[K comparable, V any](m map[K]V) map[K]V {
	if m == nil {
		return map[K]V{}
	}
	return maps.Clone(m)
}
