// Package replication owns the topology of a database: one primary that is written to, replicas that follow it. A
// [Manager] configures a fresh set, seeds members that have no data, detects a primary that is dead, promotes a replica,
// points the others to it, takes the old primary back as a replica, and says what was lost.
//
// # Decisions are data
//
// The Manager looks at every member, a pure function turns what is known into a [Plan] of typed steps with a reason each,
// and the [Engine] (memdb, mysql) makes the steps happen. The same function serves [Manager.Plan] and [Manager.PlanLoss],
// which show what would be done and do nothing. The servers' own state says what is to be done: a Manager may die at any
// instruction, and the next one finishes its work. What no server knows of itself the members keep for the next one ([Recorder]):
// what a recovery that is under way costs, the last verdict and what may correct it, when the latest recoveries were. Where several hosts could run it, each does so under a lease ([Manager.RunUnder]):
// whoever was overtaken without noticing, since its process stood still, is refused by the members ([Guard]).
//
// # Where the data comes from
//
// A new set begins without data, with a copy of another set's (over the network, or by snapshots of volumes), or from a backup: see [Origin]. Nobody serves before that is complete. A replica
// without data is seeded from a member that has it ([Engine.Seed]). One that starts on a disk with an older state of the set's, a
// snapshot's, follows from there.
//
// # Backups
//
// A set is copied to files on a schedule, from a replica, and what is too old or too many is removed: see [Backups]. A backup
// is proven by restoring it where it harms nobody: [RestoreBackup] into a server of its own, or farm.Drill with a database
// whose Origin it is.
//
// # When a primary is lost
//
// A primary is lost when several looks in a row have failed ([Config.Misses]) and no replica receives from it any more. As
// long as one does, it is the Manager's own network that is in doubt, and nothing is done, unless the primary says itself that
// its commits do not end ([ErrStalled]). A Manager that sees no replica never acts.
//
// No transaction is written to find that out: on a primary that dies with it, it would be one too many, for which the old primary
// had to be seeded anew. The commits of applications are the probe; where there are none, an engine may write what no replica gets
// (mysql does with MariaDB).
//
// Before another member is promoted the old primary is fenced: by [Engine.Fence] where it answers, by [Member.Fence], which
// stops its machine, where it does not. One whose address refuses connections does not run, and takes no writes when it
// starts again; it needs no fencing, which makes the usual crash quick to recover from. [Config.Unfenced] says what to do
// where neither works. Then the replica that has received most applies all of it, is promoted, and the others follow it. The
// old primary is taken back as a replica when it returns. What it alone has is counted and reported first, and saved if there
// is a [Config.Salvage]; then it is taken back, or the member is seeded anew. Data that has nothing in common with the set's is never overwritten: the member is quarantined.
//
// # Shapes
//
// Every replica follows the primary itself, or with [Config.Relays] a replica in its own pool that does; one that follows
// anybody else is pointed to the primary. A set may span pools: each
// has a member that can become the primary, one of them takes writes, and another pool takes over when its pool disappears,
// if the old primary can be stopped or Config.Unfenced says to go on. The Manager's own place decides between two halves.
//
// # Downtime or loss
//
// The trade-off is the caller's, as a [Policy]. [Availability] promotes the most advanced replica that can be reached and
// reports what is missing. [Durability] lets the primary acknowledge a transaction only when a replica has it too
// (semi-synchronous replication), and refuses to promote where an acknowledged transaction could be missing: then the set
// has no primary until a member that may have it is back. When no replica is left, the primary waits. A set that is meant
// to be one server has nobody to wait for, and is as durable as its disk. Every recovery ends in a [Verdict],
// also when its Manager dies: the next one tells it.
//
// Durability rests on one acknowledgement for each transaction. It survives the loss of any one server, and any number of
// crashes that leave the data.
package replication

import (
	"context"
	"errors"
	"time"
)

// Member is one database server.
type Member struct {
	// ID is the member's stable name: a machine that replaces another one in its slot takes over the ID ("db-1").
	ID string `json:"id"`
	// Addr is host:port.
	Addr string `json:"addr"`
	// Machine is the instance that it runs on now, in its provider's words. It changes when the machine is replaced: the
	// same ID with another Machine or Addr is another server.
	Machine string `json:"machine,omitempty"`
	// Pool is where it is; among equals, promotion prefers the pool of the old primary.
	Pool string `json:"pool,omitempty"`
	// Prefer says who is promoted among members that have the same transactions: the one with the highest number. It is
	// above all else but the data. Among equals, one that applies with a delay comes last, and one whose software is older
	// before the others, who can follow it.
	//
	// A member below 0, a replica for reports, is the primary only while nobody else can be: if it is promoted because it
	// alone has all transactions, it hands over by a switchover as soon as a member that is not below 0 has them too. A set
	// whose members are all below 0 stays as it is.
	//
	// No number means never: whoever alone has what was acknowledged is promoted. A server that must not be the primary for a moment
	// is left out of the set. It follows a member on its own, without acknowledging (semi-synchronous replication off), since under
	// Durability what it acknowledged would count as being on a member; and nobody seeds it or points it to another primary.
	Prefer int `json:"prefer,omitempty"`
	// Delay makes it apply what it receives so much later than it could, as a replica, in whole seconds: what is deleted by
	// mistake is still there. It has that delay whenever it is made to follow, also when it has been seeded anew. 0 leaves it the
	// one that its server is set to, if any. A change of a delay that its server has takes effect when it is made to follow
	// again. If it is promoted, it applies all at once; with a Prefer below 0 it hands over when it can, and has its delay again.
	Delay time.Duration `json:"delay,omitempty"`
	// Fence stops the machine through its provider and returns nil only when the machine does nothing any more. It is
	// called for a primary that cannot be reached, before another one is promoted. Nil where there is no such means.
	Fence func(context.Context) error `json:"-"`
	// Token is the fencing token under which the Engine is asked to do something: see [Guard]. The Manager sets it; 0 is none.
	Token uint64 `json:"-"`
}

// Position is how far a member's data goes, in the engine's notation (a GTID set). Empty means no data. Positions are
// compared by Engine.Compare only.
type Position string

// Order is how two positions relate.
type Order int

// The relations of a position to another one.
const (
	Equal    Order = iota // the same transactions
	Behind                // the first lacks transactions of the second
	Ahead                 // the first has transactions that the second lacks
	Diverged              // each has transactions that the other lacks
)

// Status is what a member says of itself: facts, without judgement.
type Status struct {
	Server   string        // the server's own identity (server_id or UUID), distinct for each member
	Version  string        // of the software, as "10.11.6-MariaDB": what follows the first two numbers is not compared
	Empty    bool          // it holds no data of users: it may be seeded, or become the primary of a fresh set
	Foreign  bool          // it is Empty and locked, and holds the whole data of another set: see Adopter
	Imported bool          // its data came by Importer.Import, Adopter.Adopt or Backuper.Restore, completely, and it has followed nobody since
	Writable bool          // it takes writes
	Source   string        // Addr of the member that it follows, also when drained or stopped; empty if it follows none
	Receives bool          // it is connected to its source and hears it: a source that lets heartbeats fail is not heard
	Applies  bool          // it applies what it has received
	Received Position      // what it has, applied or not
	Applied  Position      // what a reader sees
	Lag      time.Duration // how far what it applies is behind its source; meaningful if it Applies
	Delay    time.Duration // how much later than it could it is set to apply what it receives
	Error    string        // why it does not receive or apply, in the server's words
	SemiSync bool          // as a primary: every acknowledged transaction is on a replica too, now, and Applied is not older than that
	Waiters  int           // as a primary: how many replicas acknowledge
	Unacked  int           // as a primary: how many commits wait for an acknowledgement
	Acked    bool          // as a replica: its source has asked it to acknowledge transactions, and it has, since it started; false where it is not known
	Uptime   time.Duration // how long the server process has run, rounded down; 0 where it is not known
}

// Observation is one look at a member.
type Observation struct {
	Member Member
	At     time.Time // when the answer came, or the failure was known
	Status Status    // meaningful if Err is nil
	Err    error     // ErrUnreachable, ErrHung, ErrAccess or another one
}

// Errors that callers branch on.
var (
	// ErrUnreachable: nothing answers at the member's address (refused, no route, no reply to a connection).
	ErrUnreachable = errors.New("unreachable")
	// ErrRefused is ErrUnreachable by a positive answer: the machine is there and nobody listens, so the server process
	// does not run. It is acted on without fencing, since a server that starts again takes no writes by itself.
	ErrRefused error = refused{}
	// ErrHung: the server takes connections or has one, and does not answer in time.
	ErrHung = errors.New("does not answer in time")
	// ErrStalled is ErrHung by the server's own word: it takes writes, and their commits do not end (a full disk, storage that
	// does not return). Its replicas go on hearing it, which is no sign that it works. A replica says what it has, stalled or not.
	ErrStalled error = stalled{}
	// ErrAccess: the credentials are wrong or lack a privilege. The message says which.
	ErrAccess = errors.New("access denied")
	// ErrDiverged: the member has transactions that its new primary lacks, so it cannot follow as it is.
	ErrDiverged = errors.New("diverged")
	// ErrUnsafe: the policy refuses a promotion, since an acknowledged transaction could be missing or two members could
	// be writable.
	ErrUnsafe = errors.New("refused as unsafe")
	// ErrNoPrimary: there is no primary now.
	ErrNoPrimary = errors.New("no primary")
)

type refused struct{}

func (refused) Error() string        { return "connection refused" }
func (refused) Is(target error) bool { return target == ErrUnreachable }

type stalled struct{}

func (stalled) Error() string        { return "answers, and its commits do not end" }
func (stalled) Is(target error) bool { return target == ErrHung }

// Engine is what a database software can do. Each method acts on one member, is idempotent, is bounded by its context, and
// leaves the member as it was or as it shall be when it fails. Implementations pass replicationtest.Run and are safe for
// concurrent use; the Manager never runs two changing methods on one member at once.
//
// The servers' own state says what is to be done: a Manager that starts anew learns from Observe who takes writes, who follows
// whom and how far everybody is. So a server that starts again, by itself or after a crash, takes no writes until it is
// promoted, and says whom it followed. It goes on following at the latest when it is told to: an engine whose replicas
// would lose what they have received by going on at once leaves them stopped, so that Drain finds it.
type Engine interface {
	// Observe asks the member for its status, in as few round trips as it can.
	Observe(ctx context.Context, m Member) (Status, error)

	// Compare says how a relates to b. It is pure.
	Compare(a, b Position) Order

	// Count says how many transactions a has that b lacks, and whether that is exact; otherwise it is at least so many.
	// It is pure.
	Count(a, b Position) (n uint64, exact bool)

	// Fence makes the member refuse writes and ends the sessions of applications, as far as it can be reached. ErrUnsafe if it
	// refuses them and some, of an account that nothing stops, may still get through: then only stopping the machine holds.
	Fence(ctx context.Context, m Member) error

	// Drain makes the member stop receiving and apply all that it has received, and returns its position then. Received
	// transactions are never dropped, whatever state the member was in. A Status.Delay ends with it.
	Drain(ctx context.Context, m Member) (Position, error)

	// Promote makes a drained (or empty) member a writable primary that follows nobody. With semisync, writes are
	// acknowledged when a replica has them too, and wait for ever for one; without, they never wait. If it breaks off, the
	// member is still a replica or already writable: what it follows is the last thing that it forgets.
	Promote(ctx context.Context, m Member, semisync bool) error

	// SetSemiSync switches semi-synchronous acknowledgement on a primary on or off. Where it is on already, switching it on
	// ends the commits that have long waited, unacknowledged: a primary may wait for ever for an acknowledgement that was
	// lost with a connection.
	SetSemiSync(ctx context.Context, m Member, on bool) error

	// Follow makes the member a read-only replica of the primary, whatever it was before, and returns when it has told
	// the member so; whether it receives is seen by Observe. An empty primary may be followed before it is promoted. A
	// member with a Member.Delay gets that one, whatever it has not applied yet; another one keeps its Status.Delay.
	// ErrDiverged if the member has transactions that the primary lacks and that the engine cannot take back.
	Follow(ctx context.Context, m, primary Member) error

	// Seed replaces the data of the member by a consistent copy of the source's and returns the position of the copy;
	// Follow comes next. The source is only read. The member's own transactions are lost: the planner says why it may.
	// While it is under way, and after it has broken off, the member is Empty and follows nobody. Its server may be started
	// again by it. Seed fails by itself when a server has ended that it does not start again.
	Seed(ctx context.Context, m, source Member, progress func(Progress)) (Position, error)

	// Close ends the connections that the engine holds to the member.
	Close(m Member) error
}

// Watcher is what an [Engine] may have besides. Without it the Manager notices at its next look that a server has died.
type Watcher interface {
	// Watch connects to the member and returns when that connection breaks, as it does at once when the server process
	// dies. It changes nothing, and what it returns is no look: the Manager looks itself then.
	Watch(ctx context.Context, m Member) error
}

// Quiescer is what an [Engine] may have besides. Without it a switchover cuts off the transactions that are open when the old
// primary is fenced: they have had no effect, and their callers are told so.
type Quiescer interface {
	// Quiesce returns when no application has a transaction open on the member that has locked or written anything, or at the
	// latest when the context ends. Applications have been told by then to begin no new ones. It changes nothing.
	Quiesce(ctx context.Context, m Member) error
}

// Progress says how far a long step is.
type Progress struct {
	Done  int64  `json:"done"`           // in Unit
	Total int64  `json:"total"`          // in Unit; 0 where it is not known
	Unit  string `json:"unit"`           // "rows", "bytes"
	What  string `json:"what,omitempty"` // what is under way: a table, a file
}

// Policy is what to give up when the primary is lost.
type Policy int

const (
	// Availability promotes the most advanced replica that can be reached, and reports what is lost.
	Availability Policy = iota
	// Durability loses no acknowledged transaction: writes wait for a replica, and nothing is promoted that could lack
	// one.
	Durability
)

// String gives the policy's name, as flags and specs spell it.
func (p Policy) String() string {
	if p == Durability {
		return "durability"
	}
	return "availability"
}
