// Package zookeeper holds locks and claims runs on a ZooKeeper ensemble (3.6 or later). One session carries
// any number of locks and jobs.
//
// # Leases
//
// A session's events come too late to rely on: a server that is cut off from the others answers reads, and says nothing
// for seconds after the ensemble has given the lock to somebody else. So a lease is renewed by writes, which only a
// majority can acknowledge, and it ends half a session timeout after the last acknowledged one was sent, on the
// monotonic clock of this machine. That is before the session can expire: with a write each eighth of the timeout,
// and a server that passes on each half tick whom it heard of, the leader's knowledge is at most 1/8 of the timeout and half a
// tick older than the last write; a tick is at most half of the shortest timeout that servers grant by default. An
// eighth of the timeout is left for what was not thought of.
//
// So a leader that is lost is survived if another is elected within a third of the timeout. A server that acknowledges nothing for a
// sixth of it is left for another one, with the same session.
//
// # Nodes
//
//	<root>/locks/<name>/<guid>-<sequence>   ephemeral; the directory is a container, which goes when it is empty
//	<root>/runners/<guid>                   ephemeral
//	<root>/jobs/<job>                       the job's Control; its version is checked by every claim
//	<root>/jobs/<job>/runs/<instant>        the record of a run
//	<root>/jobs/<job>/slot                  while an exclusive run is active
//	<root>/open/<job>@<instant>             while a run has not ended
//
// Names are escaped as in URLs. A claim is one transaction, and one round trip: it checks that job has
// not been paused or pruned since, makes the record, and learns the token.
package zookeeper

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/go-zookeeper/zk"

	"github.com/scalr-go/scalr/cronlock"
)

// Options say which ensemble, and how.
type Options struct {
	// Servers are the addresses of the ensemble, as host:port; the port may be left out. Required.
	Servers []string
	// Timeout is that of the session: how long after the death of a holder its locks pass on. The servers may grant
	// another one, by default from 2 to 20 of their ticks. 0 is 10 seconds; at least 500 ms.
	Timeout time.Duration
	// Root is the node below which everything is kept. It is made if need be. Empty is /scalr.
	Root string
	// User and Password, if given, are the credentials of scheme "digest". Everything that is made is then for this user
	// alone. Without TLS they cross the network in clear.
	User, Password string
	// TLS, if not nil, encrypts the connections. Without a ServerName it is the host's.
	TLS *tls.Config
	// Dial opens connections. Nil is a net.Dialer.
	Dial func(ctx context.Context, network, address string) (net.Conn, error)
}

// Client is a session with an ensemble. It is a cronlock.Locker and a cronlock.Claimer; when the session expires a new one takes its
// place, and everything that was held is lost. It is safe for concurrent use.
//
// Calls wait through lost connections until their context ends. A node whose fate is unknown when a call returns is
// removed in the background, which Close ends.
type Client struct {
	conn    *zk.Conn
	root    string
	acl     []zk.ACL
	holder  []byte       // what lock nodes say of their holder, for people
	timeout atomic.Int64 // granted, in nanoseconds
	gauge   gauge
	granted chan struct{} // receives when there is a session
	wire    atomic.Pointer[wire]
	failure atomic.Pointer[error] // of the last connection that did not come about

	mu       sync.Mutex
	closed   bool
	group    sync.WaitGroup
	quit     context.Context // ends with Close
	stop     context.CancelFunc
	controls map[string]cronlock.Control // as last read, by job
	leases   map[*keeper]func()          // what ends the work of each
}

var (
	_ cronlock.Locker  = (*Client)(nil)
	_ cronlock.Claimer = (*Client)(nil)
)

var errClosed = errors.New("zookeeper: client is closed")

func (o Options) check() error {
	var errs []error
	if len(o.Servers) == 0 {
		errs = append(errs, errors.New("zookeeper: Options.Servers is empty, want addresses"))
	}
	if o.Timeout != 0 && o.Timeout < 500*time.Millisecond {
		errs = append(errs, fmt.Errorf("zookeeper: Options.Timeout is %s, want at least 500ms, or 0 for 10s", o.Timeout))
	}
	if o.Root != "" {
		if err := cronlock.CheckName(strings.TrimPrefix(o.Root, "/")); err != nil || o.Root[0] != '/' {
			errs = append(errs, fmt.Errorf("zookeeper: Options.Root is %q, want a path that begins with / and does not end with it", o.Root))
		}
	}
	if o.User == "" && o.Password != "" || strings.Contains(o.User, ":") {
		errs = append(errs, fmt.Errorf("zookeeper: Options.User is %q, want a name without ':' if there is a Password", o.User))
	}
	return errors.Join(errs...)
}

// Open opens a session, and waits for it until ctx ends; the error then says why the last attempt failed.
func Open(ctx context.Context, o Options) (*Client, error) {
	if err := o.check(); err != nil {
		return nil, err
	}
	if o.Timeout == 0 {
		o.Timeout = 10 * time.Second
	}
	if o.Root == "" {
		o.Root = "/scalr"
	}
	host, _ := os.Hostname()
	c := &Client{
		root: o.Root, acl: zk.WorldACL(zk.PermAll), holder: fmt.Appendf(nil, "%s %d", host, os.Getpid()),
		granted: make(chan struct{}, 1), controls: map[string]cronlock.Control{}, leases: map[*keeper]func(){},
	}
	c.quit, c.stop = context.WithCancel(context.Background())
	conn, _, err := zk.Connect(o.Servers, o.Timeout, zk.WithDialer(c.dialer(o)), zk.WithLogger(logger{c}), zk.WithLogInfo(true))
	if err != nil {
		return nil, fmt.Errorf("zookeeper: %w", err)
	}
	c.conn = conn
	if err := c.start(ctx, o); err != nil {
		c.Close()
		return nil, err
	}
	return c, nil
}

func (c *Client) start(ctx context.Context, o Options) error {
	select {
	case <-c.granted:
	case <-ctx.Done():
		err := fmt.Errorf("zookeeper: no session with %s: %w", strings.Join(o.Servers, ", "), context.Cause(ctx))
		if last := c.failure.Load(); last != nil {
			err = fmt.Errorf("%w; the last attempt: %w", err, *last)
		}
		return err
	}
	if o.User != "" {
		err := c.retry(ctx, func() error {
			_, err := do(ctx, c, func() (any, error) { return nil, c.conn.AddAuth("digest", []byte(o.User+":"+o.Password)) })
			return err
		})
		if err != nil {
			return fmt.Errorf("zookeeper: cannot authenticate as %s: %w", o.User, err)
		}
		c.acl = zk.AuthACL(zk.PermAll)
	}
	for _, dir := range []string{"/locks", "/runners", "/jobs", "/open"} {
		if err := c.ensure(ctx, c.root+dir); err != nil {
			return fmt.Errorf("zookeeper: cannot make %s%s: %w", c.root, dir, err)
		}
	}
	return nil
}

// Close ends the session: what is held is lost, its work's contexts end, and then it is free at once. It waits for what runs in the
// background, but not for work.
func (c *Client) Close() error {
	c.mu.Lock()
	c.closed = true
	for _, lose := range c.leases {
		lose()
	}
	c.mu.Unlock()
	c.conn.Close()
	c.stop()
	c.group.Wait()
	return nil
}

// Timeout is the session's, as the servers granted it.
func (c *Client) Timeout() time.Duration { return time.Duration(c.timeout.Load()) }

// logger learns the timeout that the servers granted, which the client library says nowhere else, and drops the rest.
type logger struct{ c *Client }

func (l logger) Printf(format string, args ...any) {
	if format != "authenticated: id=%d, timeout=%d" || len(args) != 2 {
		return
	}
	if ms, ok := args[1].(int32); ok {
		l.c.timeout.Store(int64(ms) * int64(time.Millisecond))
		select {
		case l.c.granted <- struct{}{}:
		default:
		}
	}
}

// background runs f, unless the client is closed.
func (c *Client) background(f func()) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return false
	}
	c.group.Go(f)
	return true
}

// do makes a call of the client library, which takes no context. If ctx ends before, the call goes on in the background,
// and its result is dropped.
func do[T any](ctx context.Context, c *Client, call func() (T, error)) (T, error) {
	type result struct {
		v   T
		err error
	}
	var zero T
	if ctx.Err() != nil {
		return zero, context.Cause(ctx)
	}
	done := make(chan result, 1)
	if !c.background(func() { v, err := call(); done <- result{v, err} }) {
		return zero, errClosed
	}
	select {
	case r := <-done:
		return r.v, r.err
	case <-ctx.Done():
		return zero, context.Cause(ctx)
	}
}

// passing reports whether an error says that the connection is in trouble. What was asked may have been done or not.
func passing(err error) bool {
	for _, e := range []error{zk.ErrConnectionClosed, zk.ErrNoServer, zk.ErrSessionExpired, zk.ErrSessionMoved, zk.ErrClosing} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

// retry repeats the call while the connection is in trouble.
func (c *Client) retry(ctx context.Context, call func() error) error {
	for {
		err := call()
		if !passing(err) {
			return err
		}
		if c.quit.Err() != nil {
			return errClosed
		}
		if sleep(ctx, 20*time.Millisecond) != nil {
			return context.Cause(ctx)
		}
	}
}

func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-t.C:
		return nil
	}
}

// ensure makes a node and those above it.
func (c *Client) ensure(ctx context.Context, path string) error {
	for i := 1; i <= len(path); i++ {
		if i < len(path) && path[i] != '/' {
			continue
		}
		err := c.retry(ctx, func() error {
			_, err := do(ctx, c, func() (string, error) { return c.conn.Create(path[:i], nil, zk.FlagPersistent, c.acl) })
			return err
		})
		if err != nil && !errors.Is(err, zk.ErrNodeExists) {
			return err
		}
	}
	return nil
}

// children lists a node, as new as any answer that this client has had.
func (c *Client) children(ctx context.Context, path string) (list []string, err error) {
	err = c.retry(ctx, func() error {
		list, err = do(ctx, c, func() ([]string, error) {
			l, _, err := c.conn.Children(path)
			return l, err
		})
		return err
	})
	return list, err
}

// node is a node's data and state.
type node struct {
	data []byte
	stat *zk.Stat
}

func (c *Client) get(ctx context.Context, path string) (n node, err error) {
	err = c.retry(ctx, func() error {
		n, err = do(ctx, c, func() (node, error) {
			data, stat, err := c.conn.Get(path)
			return node{data, stat}, err
		})
		return err
	})
	return n, err
}

func escape(name string) string { return url.PathEscape(name) }
