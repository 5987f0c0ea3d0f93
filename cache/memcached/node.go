package memcached

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/scalr-go/scalr/cache"
)

// node is one server of the set, with its connections. A server at another address, or in another slot, is another node.
type node struct {
	server cache.Server
	opts   *Options
	tls    *tls.Config
	calls  *calls

	hits, misses, errors atomic.Uint64
	took                 cache.Histogram
	departed             atomic.Bool
	transport            atomic.Pointer[transport]

	uneasy  atomic.Bool // the breaker has something to say
	mu      sync.Mutex
	breaker breaker
}

// maxIdleTime is how long a connection is kept unused: less than what firewalls commonly allow.
const maxIdleTime = time.Minute

// errDeparted: the node has left the set before a connection was had. The call goes by the new set.
var errDeparted = errors.New("server has left the set")

func newNode(s cache.Server, opts *Options, calls *calls) *node {
	n := &node{server: s, opts: opts, tls: opts.TLS, calls: calls}
	if n.tls != nil && n.tls.ServerName == "" {
		n.tls = n.tls.Clone()
		n.tls.ServerName, _, _ = net.SplitHostPort(s.Addr)
	}
	if opts.TextProtocol {
		n.use(&pool{node: n})
	} else {
		n.use(newLanes(n, opts.Connections))
	}
	return n
}

func (n *node) use(t transport) { n.transport.Store(&t) }

// do makes one call to the server. It returns the sentinel errors of package cache as they are, and any failure as a
// *cache.Error. A call that only reads or removes and that met a dead idle connection is made once more.
func (n *node) do(ctx context.Context, op string, c *call) error {
	trial := false
	if c.begun == nil {
		if ctx.Err() != nil {
			return n.failure(op, c.key, context.Cause(ctx))
		}
		var err error
		if trial, err = n.enter(); err != nil {
			n.errors.Add(1)
			return n.failure(op, c.key, err)
		}
	}
	start := c.since
	if c.begun == nil {
		start = time.Now()
	}
	again := c.kind <= multi || c.kind == remove
	for {
		t := *n.transport.Load()
		if c.begun != nil {
			c.begun.resume(ctx, c)
		} else {
			t.carry(ctx, c)
		}
		if c.ioErr == errNoMeta {
			n.use(&pool{node: n})
			c.reset()
			continue
		}
		o := judge(ctx, c)
		n.leave(trial, o, c.ioErr)
		if c.ioErr == errDeparted {
			return errDeparted
		}
		if o == failed || o == stale {
			t.closeIdle() // the others are as dead
		}
		if o == stale && again {
			again = false
			c.reset()
			continue
		}
		if o != abandons {
			n.took.Add(time.Since(start))
		}
		err := c.ioErr
		switch {
		case o == answered:
			if err = c.err; err == nil || err == cache.ErrMiss || err == cache.ErrNotStored {
				return err
			}
		case o == hurried, o == abandons:
			return n.failure(op, c.key, context.Cause(ctx))
		case isTimeout(err):
			err = fmt.Errorf("no answer within %v: %w", n.opts.Timeout, err)
		}
		n.errors.Add(1)
		return n.failure(op, c.key, err)
	}
}

// enter asks the breaker, where it has anything to say.
func (n *node) enter() (trial bool, err error) {
	if !n.uneasy.Load() {
		return false, nil
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	ok, trial := n.breaker.enter(time.Now())
	if !ok {
		err = fmt.Errorf("%w: %v", cache.ErrDown, n.breaker.cause)
	}
	return trial, err
}

// leave tells the breaker, where it wants to know.
func (n *node) leave(trial bool, o outcome, cause error) {
	if o == answered && !trial && !n.uneasy.Load() {
		return
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.breaker.leave(time.Now(), trial, o, cause)
	n.uneasy.Store(n.breaker.open || n.breaker.hurried > 0 || n.breaker.trying)
}

func (n *node) failure(op, key string, err error) error {
	return &cache.Error{Op: op, Key: key, Server: n.server, Err: err}
}

// judge says what the end of a call means for its server.
func judge(ctx context.Context, c *call) outcome {
	switch {
	case c.ioErr == nil:
		return answered
	case c.ioErr == errDeparted, errors.Is(ctx.Err(), context.Canceled):
		return abandons
	case ctx.Err() != nil:
		return hurried
	case !isTimeout(c.ioErr) && c.reused:
		return stale
	default:
		return failed
	}
}

func isTimeout(err error) bool {
	ne, ok := errors.AsType[net.Error](err)
	return ok && ne.Timeout()
}

// dial opens a connection.
func (n *node) dial(ctx context.Context) (net.Conn, error) {
	if n.departed.Load() {
		return nil, errDeparted
	}
	conn, err := n.opts.DialContext(ctx, "tcp", n.server.Addr)
	if err == nil && n.tls != nil {
		secure := tls.Client(conn, n.tls)
		if err = secure.HandshakeContext(ctx); err != nil {
			conn.Close()
		}
		conn = secure
	}
	if err == nil && n.departed.Load() {
		conn.Close()
		err = errDeparted
	}
	if err != nil {
		return nil, err
	}
	return conn, nil
}

// depart closes the connections, those in use when they are released, and refuses further calls.
func (n *node) depart() {
	n.departed.Store(true)
	(*n.transport.Load()).closeIdle()
}

func (n *node) snapshot() ServerStats {
	n.mu.Lock()
	down := n.breaker.open
	n.mu.Unlock()
	return ServerStats{
		Server: n.server, Hits: n.hits.Load(), Misses: n.misses.Load(), Errors: n.errors.Load(),
		Idle: (*n.transport.Load()).idle(), Down: down, Took: n.took.Latencies(),
	}
}
