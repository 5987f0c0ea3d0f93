package memcached

import (
	"context"
	"errors"
	"net"
	"sync"
	"time"

	"github.com/bradfitz/gomemcache/memcache"
)

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
