package zookeeper

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/go-zookeeper/zk"

	"github.com/scalr-go/scalr/cronlock"
)

// Hold implements cronlock.Locker. The order of waiters is that in which their nodes were made; a waiter whose session
// expires begins again at the end.
func (c *Client) Hold(ctx context.Context, name string, work func(context.Context, cronlock.Lease) error) error {
	return c.hold(ctx, name, true, work)
}

// TryHold implements cronlock.Locker.
func (c *Client) TryHold(ctx context.Context, name string, work func(context.Context, cronlock.Lease) error) error {
	return c.hold(ctx, name, false, work)
}

func (c *Client) hold(ctx context.Context, name string, wait bool, work func(context.Context, cronlock.Lease) error) error {
	if err := cronlock.CheckName(name); err != nil {
		return err
	}
	if work == nil {
		return fmt.Errorf("lock %s: work is nil, want a function", name)
	}
	dir := c.root + "/locks/" + escape(name)
	if !wait { // a look first, so that what will not wait is not in the way of others
		queue, err := c.queue(ctx, dir)
		if len(queue) > 0 { // as far as this server knows, which may be late
			if _, err = c.find(ctx, dir, ""); err == nil {
				queue, err = c.queue(ctx, dir)
			}
		}
		if err != nil && !errors.Is(err, zk.ErrNoNode) {
			return wrap(name, err)
		}
		if err == nil && len(queue) > 0 {
			return cronlock.ErrHeld
		}
	}
	guid, path := newGUID(), ""
	defer func() { c.leave(dir, guid, path) }()
	for {
		var err error
		if path, err = c.enqueue(ctx, dir, guid); err != nil {
			return wrap(name, err)
		}
		first, err := c.await(ctx, dir, path, wait)
		if err != nil {
			return wrap(name, err)
		}
		if !first {
			continue // the node is gone, and so is the session
		}
		err = c.keep(ctx, path, cronlock.Lease{Name: name}, work)
		if !errors.Is(err, errGone) {
			return err
		}
	}
}

// wrap says which lock an error is about, unless it is one that callers compare.
func wrap(name string, err error) error {
	if errors.Is(err, cronlock.ErrHeld) || !strings.HasPrefix(err.Error(), "zk:") {
		return err
	}
	return fmt.Errorf("lock %s: %w", name, err)
}

// Join implements cronlock.Claimer.
func (c *Client) Join(ctx context.Context, work func(context.Context, cronlock.Lease) error) error {
	if work == nil {
		return errors.New("runner: work is nil, want a function")
	}
	for {
		if err := c.join(ctx, work); !errors.Is(err, errGone) {
			return err
		}
	}
}

func (c *Client) join(ctx context.Context, work func(context.Context, cronlock.Lease) error) error {
	dir, guid := c.root+"/runners", newGUID()
	path := dir + "/" + guid
	defer c.leave(dir, guid, path)
	err := c.retry(ctx, func() error {
		_, err := do(ctx, c, func() (string, error) { return c.conn.Create(path, c.holder, zk.FlagEphemeral, c.acl) })
		return err
	})
	if err != nil && !errors.Is(err, zk.ErrNodeExists) { // by an earlier try, whose answer was lost
		return err
	}
	return c.keep(ctx, path, cronlock.Lease{Name: guid}, work)
}

// newGUID names a node so that its maker knows it again after a lost answer.
func newGUID() string { return strings.ToLower(rand.Text()) }

// enqueue makes the node of a waiter, unless an earlier try has made it.
func (c *Client) enqueue(ctx context.Context, dir, guid string) (string, error) {
	for {
		path, err := do(ctx, c, func() (string, error) {
			return c.conn.Create(dir+"/"+guid+"-", c.holder, zk.FlagEphemeralSequential, c.acl)
		})
		switch {
		case err == nil:
			return path, nil
		case errors.Is(err, zk.ErrNoNode): // or the servers have just removed it because it was empty
			err := c.retry(ctx, func() error {
				_, err := do(ctx, c, func() (string, error) { return c.conn.CreateContainer(dir, nil, zk.FlagContainer, c.acl) })
				return err
			})
			if errors.Is(err, zk.ErrNoNode) { // somebody removed the root
				err = c.ensure(ctx, c.root+"/locks")
			}
			if err != nil && !errors.Is(err, zk.ErrNodeExists) {
				return "", err
			}
		case errors.Is(err, zk.ErrNoServer): // it was never sent
			if err := c.pause(ctx); err != nil {
				return "", err
			}
		case passing(err):
			if err := c.pause(ctx); err != nil {
				return "", err
			}
			found, err := c.find(ctx, dir, guid)
			if err != nil && !errors.Is(err, zk.ErrNoNode) {
				return "", err
			}
			for _, name := range found {
				n, err := c.get(ctx, dir+"/"+name)
				if err == nil && n.stat.EphemeralOwner == c.conn.SessionID() {
					return dir + "/" + name, nil
				}
			}
			// What an expired session has left goes by itself, but later.
			for _, name := range found {
				if err := c.remove(ctx, dir+"/"+name); err != nil {
					return "", err
				}
			}
		default:
			return "", err
		}
	}
}

func (c *Client) pause(ctx context.Context) error {
	if c.quit.Err() != nil {
		return errClosed
	}
	return sleep(ctx, 20*time.Millisecond)
}

// find lists the nodes that bear the GUID. The server must first have caught up with the leader: a write that went through another server
// before a connection broke may not have reached this one.
func (c *Client) find(ctx context.Context, dir, guid string) (found []string, err error) {
	err = c.retry(ctx, func() error {
		_, err := do(ctx, c, func() (string, error) { return c.conn.Sync(dir) })
		return err
	})
	if err != nil {
		return nil, err
	}
	all, err := c.children(ctx, dir)
	for _, name := range all {
		if strings.HasPrefix(name, guid) {
			found = append(found, name)
		}
	}
	return found, err
}

// waiter is a node in a lock's directory.
type waiter struct {
	name     string
	sequence int64
}

// queue lists the waiters in their order. What does not look like one is not one.
func (c *Client) queue(ctx context.Context, dir string) (list []waiter, err error) {
	all, err := c.children(ctx, dir)
	for _, name := range all {
		if i := len(name) - 10; i > 1 && name[i-1] == '-' {
			if n, err := strconv.ParseInt(name[i:], 10, 64); err == nil {
				list = append(list, waiter{name, n})
			}
		}
	}
	slices.SortFunc(list, func(a, b waiter) int { return int(a.sequence - b.sequence) })
	return list, err
}

// await waits until the node is the first. It reports false if the node is gone.
func (c *Client) await(ctx context.Context, dir, path string, wait bool) (bool, error) {
	name := path[len(dir)+1:]
	for {
		queue, err := c.queue(ctx, dir)
		if errors.Is(err, zk.ErrNoNode) {
			return false, nil
		}
		if err != nil {
			return false, err
		}
		i := slices.IndexFunc(queue, func(w waiter) bool { return w.name == name })
		if i <= 0 {
			return i == 0, nil
		}
		if !wait {
			return false, cronlock.ErrHeld
		}
		// A watch cannot be taken back; it is on a node that exists, and goes with it.
		gone, err := do(ctx, c, func() (<-chan zk.Event, error) {
			_, _, ch, err := c.conn.GetW(dir + "/" + queue[i-1].name)
			return ch, err
		})
		switch {
		case errors.Is(err, zk.ErrNoNode):
			continue
		case passing(err):
			if err := c.pause(ctx); err != nil {
				return false, err
			}
			continue
		case err != nil:
			return false, err
		}
		select {
		case <-gone: // or the session is; the next turn sees
			if err := c.quit.Err(); err != nil {
				return false, errClosed
			}
		case <-ctx.Done():
			return false, context.Cause(ctx)
		}
	}
}

// errGone: the node was gone before the lease began.
var errGone = errors.New("zookeeper: node is gone")

// keep runs work while the node is this session's.
func (c *Client) keep(ctx context.Context, path string, lease cronlock.Lease, work func(context.Context, cronlock.Lease) error) (err error) {
	k := keeper{c: c, path: path}
	for first := true; first || passing(err); first = false {
		if !first {
			if err := c.pause(ctx); err != nil {
				return err
			}
		}
		err = k.renew(ctx)
	}
	if errors.Is(err, zk.ErrNoNode) {
		return errGone
	}
	if err != nil {
		return err
	}
	lease.Token, lease.Held = uint64(k.stat.Czxid), time.Now()

	workCtx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var lost atomic.Bool
	lose := func() {
		lost.Store(true)
		cancel(cronlock.ErrLost)
	}
	if !c.guard(&k, lose) {
		return errClosed
	}
	// Renewal goes on until work has returned, whatever becomes of ctx.
	stop, end := context.WithCancel(context.WithoutCancel(ctx))
	done := make(chan struct{})
	go func() {
		defer close(done)
		if !k.run(stop) {
			lose()
		}
	}()
	// Deferred, so that it is done also after a panic in work or a runtime.Goexit.
	defer func() {
		end()
		<-done
		c.unguard(&k)
		if lost.Load() && !errors.Is(err, cronlock.ErrLost) {
			err = errors.Join(cronlock.ErrLost, err)
		}
	}()
	return work(&leased{workCtx, &k, lose}, lease)
}

// leased is the context of work under a lease. After a standstill of the process, its Err knows that the lease has ended before the
// renewal comes to tell. It is a pointer: contexts are compared.
type leased struct {
	context.Context
	k    *keeper
	lose func()
}

func (l *leased) Err() error {
	if !time.Now().Before(*l.k.until.Load()) {
		l.lose()
	}
	return l.Context.Err()
}

// guard has Close end a lease's work, unless it has been called.
func (c *Client) guard(k *keeper, lose func()) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return false
	}
	c.leases[k] = lose
	return true
}

func (c *Client) unguard(k *keeper) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.leases, k)
}

// keeper renews a lease.
type keeper struct {
	c     *Client
	path  string
	stat  *zk.Stat                  // after the last acknowledged write
	until atomic.Pointer[time.Time] // when the lease ends unless it is renewed
}

// renew writes once. The lease is counted from when that was sent.
func (k *keeper) renew(ctx context.Context) error {
	sent := time.Now()
	stat, err := do(ctx, k.c, func() (*zk.Stat, error) { return k.c.conn.Set(k.path, k.c.holder, -1) })
	if err != nil {
		return err
	}
	if stat.EphemeralOwner != k.c.conn.SessionID() {
		return zk.ErrNoNode // of an earlier session, which the servers are about to remove
	}
	until := sent.Add(k.c.Timeout() / 2)
	k.stat = stat
	k.until.Store(&until)
	k.c.gauge.note(stat.Mtime, sent, time.Now())
	return nil
}

// run renews until stop ends, or the lease has: then it returns false.
func (k *keeper) run(stop context.Context) bool {
	for {
		if sleep(stop, min(k.c.Timeout()/8, time.Until(*k.until.Load()))) != nil {
			return true
		}
		ctx, cancel := context.WithDeadline(stop, *k.until.Load())
		silence := k.c.Timeout() / 6
		deaf := time.AfterFunc(silence, func() { k.c.hangUp(silence) })
		err := k.renew(ctx)
		for err != nil && !errors.Is(err, zk.ErrNoNode) && !errors.Is(err, errClosed) && sleep(ctx, 10*time.Millisecond) == nil {
			err = k.renew(ctx)
		}
		deaf.Stop()
		cancel()
		if stop.Err() != nil {
			return true
		}
		if err != nil || !time.Now().Before(*k.until.Load()) {
			return false
		}
	}
}

// leave removes the nodes that bear the GUID, of which path may be known. It waits a little for that to be confirmed; if it is not, it goes on in the
// background until it is, or the client is closed, which removes them too.
func (c *Client) leave(dir, guid, path string) {
	done := make(chan struct{})
	if !c.background(func() {
		defer close(done)
		if path != "" && c.conn.Delete(path, -1) == nil {
			return
		}
		for {
			found, err := c.find(c.quit, dir, guid)
			if errors.Is(err, zk.ErrNoNode) || err == nil && len(found) == 0 {
				return
			}
			for _, name := range found {
				_ = c.remove(c.quit, dir+"/"+name) // the next turn looks again
			}
			if c.pause(c.quit) != nil {
				return
			}
		}
	}) {
		return
	}
	patience := time.NewTimer(time.Second)
	defer patience.Stop()
	select {
	case <-done:
	case <-patience.C:
	}
}

// remove deletes a node, and does not mind if there is none.
func (c *Client) remove(ctx context.Context, path string) error {
	err := c.retry(ctx, func() error {
		_, err := do(ctx, c, func() (any, error) { return nil, c.conn.Delete(path, -1) })
		return err
	})
	if errors.Is(err, zk.ErrNoNode) {
		return nil
	}
	return err
}
