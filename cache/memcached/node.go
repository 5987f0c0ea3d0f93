package memcached

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/bradfitz/gomemcache/memcache"

	"github.com/scalr-go/scalr/cache"
)

// node is one server of the set, with its connections. A server at another address, or in another slot, is another node.
type node struct {
	server cache.Server
	opts   *Options
	tls    *tls.Config

	hits, misses, errors atomic.Uint64

	mu       sync.Mutex
	departed bool
	born     uint64  // how many connections were opened
	idle     []*link // the one that was used last is the last
	breaker  breaker
}

// maxIdleTime is how long a connection is kept unused: less than what firewalls commonly allow.
const maxIdleTime = time.Minute

// errDeparted: the node has left the set before a connection was had. The call goes by the new set.
var errDeparted = errors.New("server has left the set")

func newNode(s cache.Server, opts *Options) *node {
	n := &node{server: s, opts: opts, tls: opts.TLS}
	if n.tls != nil && n.tls.ServerName == "" {
		n.tls = n.tls.Clone()
		n.tls.ServerName, _, _ = net.SplitHostPort(s.Addr)
	}
	return n
}

// do makes one call over a connection to the server. It returns the sentinel errors of package cache as they are, and
// any failure as a *cache.Error. With again, a call that met a dead idle connection is made once more.
func (n *node) do(ctx context.Context, op, key string, again bool, f func(*link) error) error {
	if ctx.Err() != nil {
		return n.failure(op, key, context.Cause(ctx))
	}
	n.mu.Lock()
	ok, trial := n.breaker.enter(time.Now())
	cause := n.breaker.cause
	n.mu.Unlock()
	if !ok {
		n.errors.Add(1)
		return n.failure(op, key, fmt.Errorf("%w: %v", cache.ErrDown, cause))
	}
	for {
		reused, err, ioErr := n.try(ctx, f)
		o := judge(ctx, ioErr, reused)
		n.mu.Lock()
		n.breaker.leave(time.Now(), trial, o, ioErr)
		n.mu.Unlock()
		if ioErr == errDeparted {
			return errDeparted
		}
		if o == failed || o == stale {
			n.closeIdle() // the others are as dead
		}
		switch {
		case o == stale && again:
			again = false
			continue
		case o == answered:
			if err = answer(err); err == nil || err == cache.ErrMiss || err == cache.ErrNotStored {
				return err
			}
		case o == hurried, o == abandoned:
			return n.failure(op, key, context.Cause(ctx))
		case isTimeout(ioErr):
			err = fmt.Errorf("no answer within %v: %w", n.opts.Timeout, ioErr)
		}
		n.errors.Add(1)
		return n.failure(op, key, err)
	}
}

func (n *node) failure(op, key string, err error) error {
	return &cache.Error{Op: op, Key: key, Server: n.server, Err: err}
}

// try makes one call. IoErr is the failure of the connection, if that is what err is about.
func (n *node) try(ctx context.Context, f func(*link) error) (reused bool, err, ioErr error) {
	l, err := n.acquire(ctx)
	if err != nil {
		return false, err, err
	}
	reused = l.reused
	err = l.run(ctx, f)
	n.release(l)
	return reused, err, l.ioErr
}

// judge says what the end of a call means for its server.
func judge(ctx context.Context, ioErr error, reused bool) outcome {
	switch {
	case ioErr == nil:
		return answered
	case ioErr == errDeparted, errors.Is(ctx.Err(), context.Canceled):
		return abandoned
	case ctx.Err() != nil:
		return hurried
	case !isTimeout(ioErr) && reused:
		return stale
	default:
		return failed
	}
}

func isTimeout(err error) bool {
	ne, ok := errors.AsType[net.Error](err)
	return ok && ne.Timeout()
}

// answer gives what the server said as an error of package cache.
func answer(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, memcache.ErrCacheMiss):
		return cache.ErrMiss
	case errors.Is(err, memcache.ErrNotStored), errors.Is(err, memcache.ErrCASConflict):
		return cache.ErrNotStored
	case strings.Contains(err.Error(), "object too large for cache"):
		return fmt.Errorf("%w: %w", cache.ErrTooLarge, err)
	default:
		return err
	}
}

// acquire gives an unused connection, or a new one.
func (n *node) acquire(ctx context.Context) (*link, error) {
	n.mu.Lock()
	if n.departed {
		n.mu.Unlock()
		return nil, errDeparted
	}
	if last := len(n.idle) - 1; last >= 0 {
		l := n.idle[last]
		n.idle = n.idle[:last]
		l.seen = n.born
		n.mu.Unlock()
		if time.Since(l.idle) < maxIdleTime {
			return l, nil
		}
		l.Close()
		n.closeIdle() // the others are older
		n.mu.Lock()
	}
	n.mu.Unlock()

	conn, err := n.dial(ctx)
	if err != nil {
		return nil, err
	}
	l := newLink(conn, n.opts.Timeout)
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.departed {
		l.Close()
		return nil, errDeparted
	}
	n.born++
	l.born, l.seen = n.born, n.born
	return l, nil
}

func (n *node) dial(ctx context.Context) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, n.opts.Timeout)
	defer cancel()
	conn, err := n.opts.DialContext(ctx, "tcp", n.server.Addr)
	if err != nil || n.tls == nil {
		return conn, err
	}
	secure := tls.Client(conn, n.tls)
	if err := secure.HandshakeContext(ctx); err != nil {
		conn.Close()
		return nil, err
	}
	return secure, nil
}

// release takes back a connection after a call.
func (n *node) release(l *link) {
	if l.isClosed() {
		return
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.departed || len(n.idle) >= n.opts.MaxIdle || l.ioErr != nil {
		l.Close()
		return
	}
	l.idle = time.Now()
	n.idle = append(n.idle, l)
	if oldest := n.idle[0]; l.idle.Sub(oldest.idle) >= maxIdleTime {
		n.idle = n.idle[1:]
		oldest.Close()
	}
}

func (n *node) closeIdle() {
	n.mu.Lock()
	idle := n.idle
	n.idle = nil
	n.mu.Unlock()
	for _, l := range idle {
		l.Close()
	}
}

// depart closes the connections, those in use when they are released, and refuses further calls.
func (n *node) depart() {
	n.mu.Lock()
	n.departed = true
	n.mu.Unlock()
	n.closeIdle()
}

func (n *node) snapshot() ServerStats {
	n.mu.Lock()
	defer n.mu.Unlock()
	return ServerStats{
		Server: n.server, Hits: n.hits.Load(), Misses: n.misses.Load(), Errors: n.errors.Load(), Idle: len(n.idle), Down: n.breaker.open,
	}
}
