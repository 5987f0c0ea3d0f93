package memcached

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"
	"time"

	"github.com/bradfitz/gomemcache/memcache"

	"github.com/scalr-go/scalr/cache"
)

// pool is the transport on gomemcache: each call has a connection for itself.
type pool struct {
	node *node

	mu    sync.Mutex
	born  uint64  // how many connections were opened
	links []*link // unused ones; the one that was used last is the last
}

// version is the cache.Item.Version of what came over gomemcache.
type version struct {
	*memcache.Item        // as it was returned
	pool           *pool  // by which server
	seen           uint64 // how many connections to it had been opened when it was asked
	at             int64  // when it was asked, in nanoseconds of Unix time
}

// carry implements transport.
func (p *pool) carry(ctx context.Context, c *call) {
	l, err := p.acquire(ctx)
	if err != nil {
		c.ioErr = err
		return
	}
	c.reused = l.reused
	err = l.run(ctx, func(l *link) error { return p.ask(l, c) })
	p.release(l)
	c.ioErr = l.ioErr
	if c.ioErr == nil {
		c.err = answer(err)
	}
}

// ask makes the call over a connection.
func (p *pool) ask(l *link, c *call) error {
	c.at = time.Now().UnixNano()
	switch c.kind {
	case get, lease:
		it, err := l.client.Get(c.key)
		if err == nil && it.Key != c.key {
			l.Close()
			return errProtocol
		}
		if err == nil {
			c.found = append(c.found, item(it, &version{it, p, l.seen, c.at}))
		}
		return err
	case multi:
		items, err := l.client.GetMulti(c.keys)
		versions := make([]version, 0, len(items)) // one allocation for all
		for _, key := range c.keys {
			if it, ok := items[key]; ok {
				delete(items, key) // keys may repeat
				versions = append(versions, version{it, p, l.seen, c.at})
				c.found = append(c.found, item(it, &versions[len(versions)-1]))
			}
		}
		if len(items) > 0 && err == nil {
			l.Close()
			return errProtocol
		}
		return err
	case remove:
		return l.client.Delete(c.key)
	}
	it := &memcache.Item{
		Key: c.key, Value: c.item.Value, Flags: c.item.Flags, Expiration: expiration(c.item.TTL, time.Now()),
	}
	switch c.kind {
	case set:
		return l.client.Set(it)
	case add:
		return l.client.Add(it)
	}
	v, ok := c.version.(*version)
	switch {
	case !ok || v.Key != c.key:
		return memcache.ErrNotStored
	case v.pool != p:
		return memcache.ErrCacheMiss // with the server that had it
	case l.born > v.seen:
		now, err := l.client.Get(c.key)
		if err != nil {
			return err
		}
		if now.CasID != v.CasID || now.Flags != v.Flags || !bytes.Equal(now.Value, v.Value) {
			return memcache.ErrNotStored
		}
	}
	it.CasID = v.CasID
	return l.client.CompareAndSwap(it)
}

func item(it *memcache.Item, v *version) cache.Item {
	return cache.Item{Key: it.Key, Value: it.Value, Flags: it.Flags, Version: v}
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
func (p *pool) acquire(ctx context.Context) (*link, error) {
	p.mu.Lock()
	if last := len(p.links) - 1; last >= 0 {
		l := p.links[last]
		p.links = p.links[:last]
		l.seen = p.born
		p.mu.Unlock()
		if time.Since(l.idle) < maxIdleTime {
			return l, nil
		}
		l.Close()
		p.closeIdle() // the others are older
	} else {
		p.mu.Unlock()
	}
	ctx, cancel := context.WithTimeout(ctx, p.node.opts.Timeout)
	defer cancel()
	conn, err := p.node.dial(ctx)
	if err != nil {
		return nil, err
	}
	l := newLink(conn, p.node.opts.Timeout)
	p.mu.Lock()
	defer p.mu.Unlock()
	p.born++
	l.born, l.seen = p.born, p.born
	return l, nil
}

// release takes back a connection after a call.
func (p *pool) release(l *link) {
	if l.isClosed() {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.node.departed.Load() || len(p.links) >= p.node.opts.Connections || l.ioErr != nil {
		l.Close()
		return
	}
	l.idle = time.Now()
	p.links = append(p.links, l)
	if oldest := p.links[0]; l.idle.Sub(oldest.idle) >= maxIdleTime {
		p.links = p.links[1:]
		oldest.Close()
	}
}

// closeIdle implements transport.
func (p *pool) closeIdle() {
	p.mu.Lock()
	links := p.links
	p.links = nil
	p.mu.Unlock()
	for _, l := range links {
		l.Close()
	}
}

// idle implements transport.
func (p *pool) idle() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.links)
}

// link is one connection with a gomemcache client of its own. Gomemcache's calls take no context and do not say which
// connection they use; since the client of a link can use no other connection than this one, the end of a context can
// interrupt just the call that it belongs to, and it is known what happened to the connection.
type link struct {
	net.Conn
	client *memcache.Client
	born   uint64    // which connection to its server it is, counted from 1
	seen   uint64    // how many connections to the server there were when the current call began
	idle   time.Time // since when it is unused
	reused bool      // it has carried a call before
	ioErr  error     // the first failure of the connection itself

	mu      sync.Mutex
	aborted bool // the context of a call has ended during the call, or just after it
	closed  bool
}

// place is the only server that a link's client knows: its own.
type place struct{}

func (place) Network() string                     { return "tcp" }
func (place) String() string                      { return "memcached" }
func (place) PickServer(string) (net.Addr, error) { return place{}, nil }
func (place) Each(f func(net.Addr) error) error   { return f(place{}) }

var errClosed = errors.New("connection is closed")

func newLink(conn net.Conn, timeout time.Duration) *link {
	l := &link{Conn: conn}
	l.client = memcache.NewFromSelector(place{})
	l.client.Timeout = timeout
	l.client.MaxIdleConns = 1
	taken := false
	l.client.DialContext = func(context.Context, string, string) (net.Conn, error) {
		if taken {
			return nil, errClosed
		}
		taken = true
		return l, nil
	}
	return l
}

// run makes one call over the link, bounded by the context.
func (l *link) run(ctx context.Context, f func(*link) error) error {
	stop := func() bool { return true }
	if ctx.Done() != nil {
		stop = context.AfterFunc(ctx, l.abort)
	}
	err := f(l)
	if !stop() {
		l.Close() // abort may come at any time now, and must not meet the next call
	}
	l.reused = true
	return err
}

// abort interrupts the current call.
func (l *link) abort() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.aborted = true
	l.Conn.SetDeadline(time.Unix(1, 0))
}

// SetDeadline is called by gomemcache before each step.
func (l *link) SetDeadline(t time.Time) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.aborted {
		return nil
	}
	return l.Conn.SetDeadline(t)
}

func (l *link) Read(b []byte) (int, error) {
	n, err := l.Conn.Read(b)
	if err != nil && l.ioErr == nil {
		l.ioErr = err
	}
	return n, err
}

func (l *link) Write(b []byte) (int, error) {
	n, err := l.Conn.Write(b)
	if err != nil && l.ioErr == nil {
		l.ioErr = err
	}
	return n, err
}

// Close is called by gomemcache too, after any failure that is not an answer.
func (l *link) Close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return nil
	}
	l.closed = true
	return l.Conn.Close()
}

func (l *link) isClosed() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.closed
}
