// Package memdb is a replicated database in memory: servers at addresses, ordered transactions, asynchronous or
// semi-synchronous replication, relay logs, crashes, hangs and partitions. It is a [replication.Engine] for tests and for
// trying things out, and passes replicationtest.
//
// A [Cluster] is the whole world: the servers, the network between them and the time that replication takes. It starts no
// goroutines. What has been replicated is worked out from the time that has passed whenever somebody looks, so a Cluster
// runs in real time and in the virtual time of testing/synctest alike.
//
// The model follows MariaDB where engines differ: a server that starts takes no writes until it is promoted and follows
// whom it followed; a killed source is noticed at once and a silent one when heartbeats fail; a promotion drops what was
// received and not applied (so drain first), and with [Options.RelayLogsLost] so does a restart.
package memdb

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/scalr-go/scalr/replication"
)

// The ends of the network that are no servers, for Cut and Heal.
const (
	Manager = "manager" // whoever calls the methods of replication.Engine
	Client  = "client"  // whoever calls Open, Write, Read and Rows
)

// Errors of the client's side.
var (
	// ErrReadOnly: the server takes no writes. The write has not happened.
	ErrReadOnly = errors.New("server is read-only")
	// ErrLost: the session ended while or before it was used. A write that was under way may have happened or not.
	ErrLost = errors.New("session lost")
)

// Options say how fast things are. The zero value is a network and disks without any delay.
type Options struct {
	// Latency is what every call to a server takes.
	Latency time.Duration
	// Delay is the time from a source's log to its replicas' logs.
	Delay time.Duration
	// Apply is the time that a replica takes to apply one transaction.
	Apply time.Duration
	// Heartbeat is how long a replica waits for a silent source before it does not count as heard. The default is 1 s.
	Heartbeat time.Duration
	// Copy is the time that a seed, an import, a backup or a restore takes.
	Copy time.Duration
	// RelayLogsLost makes a restart, and following another source, drop what was received and not applied, as MariaDB
	// does with GTIDs.
	RelayLogsLost bool
	// Hook, if not nil, is called before and after each call of an Engine method and may wait. An error before makes the
	// call fail without effect; an error afterwards is a reply that was lost: the call has had its effect and fails.
	Hook func(ctx context.Context, c Call) error
}

// Call is a call of an Engine method, for Options.Hook.
type Call struct {
	Op   string // "Observe", "Fence", "Drain", "Promote", "SetSemiSync", "Follow", "Seed", "Save", "Rewind", "Import", "Backup", "Restore", "Claim", "Record", "Recorded"
	Addr string // the member that it acts on
	Done bool   // false before the call, true after it
}

// Cluster is servers and the network between them. Its methods are safe for concurrent use.
type Cluster struct {
	options Options

	mu      sync.Mutex
	servers map[string]*server
	cuts    map[[2]string]bool
	born    int
	changed chan struct{} // closed and replaced whenever anything but time has changed
}

var (
	_ replication.Engine   = (*Cluster)(nil)
	_ replication.Importer = (*Cluster)(nil)
	_ replication.Adopter  = (*Cluster)(nil)
	_ replication.Rewinder = (*Cluster)(nil)
	_ replication.Backuper = (*Cluster)(nil)
	_ replication.Guard    = (*Cluster)(nil)
	_ replication.Recorder = (*Cluster)(nil)
)

// New makes a cluster without servers.
func New(options Options) *Cluster {
	if options.Heartbeat == 0 {
		options.Heartbeat = time.Second
	}
	return &Cluster{
		options: options,
		servers: map[string]*server{},
		cuts:    map[[2]string]bool{},
		changed: make(chan struct{}),
	}
}

// server is one server; the machine that it runs on is there while it is in Cluster.servers.
type server struct {
	addr    string
	name    string // its identity, new for each set of data
	up      bool
	hung    bool
	stalled bool
	denied  bool
	token   uint64 // it has been claimed with
	record  string // see replication.Recorder
	version string
	delay   time.Duration // as a replica
	started time.Time
	resumed time.Time // when it last began to run: started, or woken
	session int       // the sessions that are open bear this number

	log       []txn
	applied   int       // how many of log a reader may see
	appliedAt time.Time // when the last of them was applied
	acked     int       // as a primary: how many of log may be acknowledged
	deaf      bool      // as a primary: acknowledgements do not arrive
	data      map[string]string
	dataTo    int  // how many of log data holds
	filling   bool // an import is under way or has broken off
	imported  bool // an import is complete, and it has followed nobody since
	foreign   bool // it started on a copy of another cluster's volume, which nobody has adopted yet
	foreignAt replication.Position

	writable  bool
	semisync  bool
	source    string // Addr; empty if it follows none
	receiving bool   // it wants to receive
	hasAcked  bool
	trouble   string    // why it is not linked
	silent    bool      // the link broke without a word
	linked    time.Time // since when it is connected to its source; zero if it is not
	heard     time.Time // when it last heard its source, if it is not linked
}

// change runs f on the world as it is now, works out the links between servers anew, and wakes everybody who waits.
func (c *Cluster) change(f func(now time.Time)) {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := time.Now()
	c.advance(now)
	f(now)
	c.link(now)
	close(c.changed)
	c.changed = make(chan struct{})
}

// Start starts the server at addr: a new and empty one, or the one that crashed, with its data. A replica receives nothing until it is
// made to follow again, as a MariaDB with skip_slave_start. Nothing happens to one that runs.
func (c *Cluster) Start(addr string) {
	c.change(func(now time.Time) {
		s := c.servers[addr]
		if s == nil {
			s = &server{addr: addr, version: "memdb"}
			c.erase(s)
			c.servers[addr] = s
		}
		if s.up {
			return
		}
		s.up, s.hung, s.started, s.resumed = true, false, now, now
		s.receiving = false
		if c.options.RelayLogsLost {
			s.truncate(s.applied)
		}
		if s.source == "" {
			s.applied = len(s.log) // crash recovery keeps what the log holds
		}
	})
}

// StartCopy is Start of a new server on a snapshot of the volume that a server of a cluster, another one as a rule, has: locked,
// until it is adopted.
func (c *Cluster) StartCopy(addr string, of *Cluster, source string) {
	var log []txn
	of.with(source, func(s *server, _ time.Time) { log = append(log, s.log[:s.applied]...) })
	c.Start(addr)
	c.with(addr, func(s *server, now time.Time) {
		for _, x := range log {
			s.commit(x.key, x.value, now)
		}
		s.applied, s.acked = len(s.log), len(s.log)
		s.filling, s.foreign, s.foreignAt = true, true, position(log)
	})
}

// Crash ends the server's process at once. Its machine and its data stay, and its address refuses connections.
func (c *Cluster) Crash(addr string) {
	c.with(addr, func(s *server, now time.Time) {
		s.up, s.hung, s.stalled, s.writable, s.semisync, s.hasAcked = false, false, false, false, false, false
		s.session++
	})
}

// Remove takes the server's machine and its data away. Nothing answers at the address any more.
func (c *Cluster) Remove(addr string) {
	c.change(func(time.Time) {
		if s := c.servers[addr]; s != nil {
			s.up = false
			s.session++
			delete(c.servers, addr)
		}
	})
}

// Hang stops the server without ending it: it accepts connections and does not answer, until Resume.
func (c *Cluster) Hang(addr string) {
	c.with(addr, func(s *server, now time.Time) { s.hung = s.up })
}

// Resume lets a server that hangs or is stalled go on where it was.
func (c *Cluster) Resume(addr string) {
	c.with(addr, func(s *server, now time.Time) {
		if s.hung {
			s.hung, s.resumed = false, now
		}
		s.stalled = false
	})
}

// Stall keeps every commit of the server from ending, until Resume or a crash, as a full disk does: it answers reads and
// looks, and says that it is stalled if it is a primary; its replicas hear it.
func (c *Cluster) Stall(addr string) {
	c.with(addr, func(s *server, now time.Time) { s.stalled = s.up })
}

// Delay makes the server, as a replica, apply everything so much later than it could, until it is drained.
func (c *Cluster) Delay(addr string, d time.Duration) {
	c.with(addr, func(s *server, now time.Time) { s.delay = d })
}

// Upgrade gives the server's software another version; at first it is "memdb", which has no number.
func (c *Cluster) Upgrade(addr, version string) {
	c.with(addr, func(s *server, now time.Time) { s.version = version })
}

// LoseAcks loses the acknowledgements of the server's replicas, which have the transactions, until semi-synchronous
// replication is switched on anew. MariaDB loses one if its replica's connection breaks after the transaction has passed.
func (c *Cluster) LoseAcks(addr string) {
	c.with(addr, func(s *server, now time.Time) { s.deaf = true })
}

// Deny makes the server refuse the Engine's credentials, or accept them again.
func (c *Cluster) Deny(addr string, denied bool) {
	c.with(addr, func(s *server, now time.Time) { s.denied = denied })
}

// Inject commits a transaction on the server whatever its state, as somebody with too many privileges does.
func (c *Cluster) Inject(addr, key, value string) {
	c.with(addr, func(s *server, now time.Time) {
		s.commit(key, value, now)
		s.applied, s.acked = len(s.log), len(s.log)
	})
}

// Cut breaks the network between two ends without a word to either: addresses of servers, Manager or Client.
func (c *Cluster) Cut(a, b string) {
	c.change(func(time.Time) { c.cuts[pair(a, b)] = true })
}

// Heal mends the network between two ends.
func (c *Cluster) Heal(a, b string) {
	c.change(func(time.Time) { delete(c.cuts, pair(a, b)) })
}

func pair(a, b string) [2]string { return [2]string{min(a, b), max(a, b)} }

func (c *Cluster) with(addr string, f func(s *server, now time.Time)) {
	c.change(func(now time.Time) {
		if s := c.servers[addr]; s != nil {
			f(s, now)
		}
	})
}

// erase makes s a server without data.
func (c *Cluster) erase(s *server) {
	c.born++
	s.name = fmt.Sprintf("m%d", c.born)
	s.log, s.applied, s.acked, s.data, s.dataTo = nil, 0, 0, map[string]string{}, 0
	s.writable, s.semisync, s.source, s.receiving, s.hasAcked = false, false, "", false, false
	s.delay = 0
	s.filling, s.imported, s.foreign, s.foreignAt = false, false, false, ""
}

// enter passes the network from one end to a server and calls f there, holding the lock, when the server runs. F may say
// to come again at a time, or with the zero time at the next change, and is called again then.
func (c *Cluster) enter(ctx context.Context, from, addr string, f func(s *server, now time.Time) (again time.Time, done bool, err error)) error {
	if err := sleep(ctx, c.options.Latency); err != nil {
		return fmt.Errorf("%s: %w: %w", addr, replication.ErrUnreachable, err)
	}
	for {
		c.mu.Lock()
		now := time.Now()
		c.advance(now)
		s, changed := c.servers[addr], c.changed
		var again time.Time
		var done bool
		var err, silence error
		switch {
		case s == nil || c.cuts[pair(from, addr)]:
			silence = replication.ErrUnreachable
		case !s.up:
			done, err = true, replication.ErrRefused
		case s.hung:
			silence = replication.ErrHung
		case s.denied && from == Manager:
			done, err = true, replication.ErrAccess
		default:
			silence = replication.ErrHung
			again, done, err = f(s, now)
		}
		c.mu.Unlock()
		if done && err != nil {
			return fmt.Errorf("%s: %w", addr, err)
		}
		if done {
			return nil
		}
		if err := c.wait(ctx, changed, again); err != nil {
			return fmt.Errorf("%s: %w: %w", addr, silence, err)
		}
	}
}

// wait returns nil at the next change or, unless it is zero, at the given time.
func (c *Cluster) wait(ctx context.Context, changed <-chan struct{}, until time.Time) error {
	var timer <-chan time.Time
	if !until.IsZero() {
		t := time.NewTimer(time.Until(until))
		defer t.Stop()
		timer = t.C
	}
	select {
	case <-changed:
		return nil
	case <-timer:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

func sleep(ctx context.Context, d time.Duration) error {
	if err := ctx.Err(); err != nil {
		return context.Cause(ctx)
	}
	if d <= 0 {
		return nil
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// Writable is the addresses of the servers that take writes, sorted; those that hang are among them, since they take
// writes again when they go on.
func (c *Cluster) Writable() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	var addrs []string
	for addr, s := range c.servers {
		if s.up && s.writable {
			addrs = append(addrs, addr)
		}
	}
	slices.Sort(addrs)
	return addrs
}

// Addrs are the addresses of all servers, crashed ones too, sorted.
func (c *Cluster) Addrs() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	var addrs []string
	for addr := range c.servers {
		addrs = append(addrs, addr)
	}
	slices.Sort(addrs)
	return addrs
}
