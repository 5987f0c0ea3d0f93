// Package memcached is a cache.Store on a set of memcached servers, on top of github.com/bradfitz/gomemcache.
//
// # Which server has a key
//
// Each key is owned by one slot, by rendezvous hashing (Thaler and Ravishankar, 1998): of all slots, the one whose name
// hashes highest together with the key. So a server that replaces another one in its slot moves no key, a new slot takes
// its share of keys from all others, and a slot that goes leaves its keys to all others; no other key moves. All processes
// with the same slots agree, whatever the order in which they list them and wherever the servers are. The hash is
// FNV-1a, mixed with the slot's by the finalizer of SplitMix64, and will not change.
//
// # Transports
//
// Where the server speaks the meta protocol, as memcached 1.6 does, each connection carries the calls of many callers at once:
// one of them writes the requests of all who have come in one piece and reads the answers. To an older server, and with
// Options.TextProtocol, calls go over github.com/bradfitz/gomemcache.
//
// # Failure
//
// A call is bounded by its context, whose end interrupts the connection that the call uses, and at each step by
// Options.Timeout. A server that does not answer in time, or takes no connection, is not asked for half a second, then one
// call tries it again, and so on with pauses that double up to five seconds. So a server that hangs costs a caller one Timeout,
// and nobody anything after that but those who try it. Three calls in a row that end at deadlines of their own count as one that
// was not answered in time.
//
// While a server is down, the second choice of rendezvous hashing stands in for it, and keeps each item for no longer than
// Options.Settle. Delete goes to both. It succeeds if the owner has answered, whether or not the stand-in has; while the owner
// is down it fails, with cache.ErrDown, since an owner that hangs may come back with what it had.
//
// Get, GetMulti and Delete are tried once more where an idle connection turns out to be dead, as after a restart of the
// server. The other calls are not, since they could then take effect twice.
//
// # Change of servers
//
// For six times Options.Settle after SetServers, a load of a key that has moved asks the previous owner first, if that is still a
// member, and Delete goes there, too. Within Settle after the change, what is stored under keys that have moved ends with Settle;
// and so does, after that, what is stored under a lease that was taken within it.
//
// # The bound
//
// After a Delete that has returned nil, no Get returns an older value for longer than Settle, if all processes learn of a change
// of servers within Settle of each other. Mostly the bound is zero: Settle matters where a process that sees the owner down
// uses a stand-in that the Delete could not reach, or where one does not know yet who has the key. There an item ends Settle after
// its lease was taken, however long the load took. Three cases have the TTL of the value as their bound, with Of.Stale: a machine
// that left the set, or one that lost keys to a new member, and that has them again later with what it had; a value within Settle of
// its end whose renewal (Of.Ahead, Of.Stale) fails; and Of.Set: one that has failed may take effect later all the same, when what
// was sent comes through a network that held it.
//
// # Versions
//
// Memcached's CAS IDs count from 1 in each server process, so that one from before a restart can match by chance after it.
// CompareAndSwap therefore uses a connection that is older than the version, which can only lead to the same process; if
// none is at hand it first reads the item over the connection that it will use, and compares it as a whole. A version of a
// server that has left the set matches nothing.
//
// # TTL
//
// Memcached keeps time in whole seconds that tick, so that a TTL of n seconds ends between n-1 and n seconds later. TTLs
// are rounded up to whole seconds and to no less than two. A TTL above 30 days becomes a date, by this machine's clock; one
// beyond January 2038 is none.
package memcached

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/scalr-go/scalr/cache"
)

// Options configure a Client. The zero value is a client without servers.
type Options struct {
	// Servers are the servers to begin with: see Client.SetServers.
	Servers []cache.Server
	// Timeout bounds the opening of a connection and each wait for a server to take or give the next bytes; 0 means 250 ms.
	Timeout time.Duration
	// Connections is how many connections there are to each server, at most; 0 means 4. Each carries the calls of many callers
	// at once. Over gomemcache, where each call needs one for itself, it is how many unused ones are kept; 0 means 16 there. One
	// that was unused for a minute is not used again.
	Connections int
	// TextProtocol makes all calls over gomemcache, in the text protocol. They go so anyway to a server that does not speak the
	// meta protocol, as those before memcached 1.6 do not.
	TextProtocol bool
	// Settle is how long it may take until all processes agree about the servers: about their set after SetServers, and about
	// which are down. It bounds how long a stand-in, or a new owner of a key just after a change, keeps an item, and so how
	// long a value may be returned after a Delete that did not reach it; 0 means 10 seconds, and less than 3 seconds means 3, since
	// memcached keeps time in seconds. See the package doc.
	Settle time.Duration
	// TLS makes every connection a TLS connection. An empty ServerName takes the host of each server's Addr. Nil means
	// plain TCP.
	TLS *tls.Config
	// DialContext opens connections; nil means that of a net.Dialer. TLS comes on top.
	DialContext func(ctx context.Context, network, addr string) (net.Conn, error)
}

// Client is a cache.Store on a set of memcached servers. It is safe for concurrent use.
type Client struct {
	opts Options
	mu   sync.Mutex // serialises SetServers
	ring atomic.Pointer[ring]

	change atomic.Pointer[change] // the latest; nil if there was none
	calls  calls
}

var (
	_ cache.Store    = (*Client)(nil)
	_ cache.Leaser   = (*Client)(nil)
	_ cache.HandOver = (*Client)(nil)
	_ cache.Follower = (*Client)(nil)
)

// New makes a client. It opens no connection.
func New(opts Options) (*Client, error) {
	if opts.Timeout < 0 {
		return nil, fmt.Errorf("%w: Options.Timeout is %v, want 0 or more", cache.ErrInvalid, opts.Timeout)
	}
	if opts.Connections < 0 {
		return nil, fmt.Errorf("%w: Options.Connections is %d, want 0 or more", cache.ErrInvalid, opts.Connections)
	}
	if opts.Settle < 0 {
		return nil, fmt.Errorf("%w: Options.Settle is %v, want 0 or more", cache.ErrInvalid, opts.Settle)
	}
	if opts.Settle == 0 {
		opts.Settle = 10 * time.Second
	}
	opts.Settle = max(opts.Settle, 3*time.Second)
	if opts.Timeout == 0 {
		opts.Timeout = 250 * time.Millisecond
	}
	if opts.Connections == 0 {
		opts.Connections = 4
		if opts.TextProtocol {
			opts.Connections = 16
		}
	}
	if opts.DialContext == nil {
		opts.DialContext = new(net.Dialer).DialContext
	}
	c := &Client{opts: opts}
	c.ring.Store(&ring{})
	if err := c.SetServers(opts.Servers); err != nil {
		return nil, err
	}
	return c, nil
}

// SetServers implements cache.Follower. Each server has a slot and an address of its own, in any order. A server that
// stays keeps its connections; those to one that left are closed, the ones in use when their calls have returned. It
// opens no connection.
func (c *Client) SetServers(servers []cache.Server) error {
	if err := checkServers(servers); err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	old := c.ring.Load()
	next := newRing(servers, func(s cache.Server) *node {
		for _, slot := range old.slots {
			if slot.node.server == s {
				return slot.node
			}
		}
		return newNode(s, &c.opts, &c.calls)
	})
	if len(old.slots) > 0 && len(next.slots) > 0 {
		c.change.Store(&change{old, time.Now()})
	}
	c.ring.Store(next)
	for _, slot := range old.slots {
		if !next.has(slot.node) {
			slot.node.depart()
		}
	}
	return nil
}

func checkServers(servers []cache.Server) error {
	slots, addrs := map[string]bool{}, map[string]string{}
	for i, s := range servers {
		if s.Slot == "" {
			return fmt.Errorf("%w: Servers[%d].Slot is empty, want the stable name of the server's place", cache.ErrInvalid, i)
		}
		if slots[s.Slot] {
			return fmt.Errorf("%w: Servers[%d].Slot is %q, which is there already", cache.ErrInvalid, i, s.Slot)
		}
		if host, port, err := net.SplitHostPort(s.Addr); err != nil || host == "" || port == "" {
			return fmt.Errorf("%w: Servers[%d].Addr is %q, want host:port", cache.ErrInvalid, i, s.Addr)
		}
		if other, ok := addrs[s.Addr]; ok {
			return fmt.Errorf("%w: Servers[%d].Addr is %q, which is that of slot %s", cache.ErrInvalid, i, s.Addr, other)
		}
		slots[s.Slot], addrs[s.Addr] = true, s.Slot
	}
	return nil
}

// Close removes all servers and so closes all connections; calls then fail with cache.ErrNoServers. SetServers makes the
// client usable again.
func (c *Client) Close() error { return c.SetServers(nil) }

// ServerStats is what a client has seen of a server since the server joined the set.
type ServerStats struct {
	Server cache.Server
	Hits   uint64 // keys that were found
	Misses uint64 // keys that were not
	Errors uint64 // calls that failed, those included that were refused because the server is down
	Idle   int    // unused connections now
	Down   bool   // the server is not asked at the moment, because it failed
	// Took says how long calls to the server took, each from its beginning to its answer or its failure. Those whose caller has
	// cancelled are not counted, nor those that were refused because the server is down.
	Took cache.Latencies
}

// Stats gives a snapshot for each server, sorted by slot.
func (c *Client) Stats() []ServerStats {
	var stats []ServerStats
	for _, slot := range c.ring.Load().slots {
		stats = append(stats, slot.node.snapshot())
	}
	return stats
}

// Owner gives the server that has a key; ok is false if the set is empty.
func (c *Client) Owner(key string) (s cache.Server, ok bool) {
	if n := c.ring.Load().pick(key); n != nil {
		return n.server, true
	}
	return s, false
}
