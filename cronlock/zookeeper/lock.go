package zookeeper

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
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

// catchUp waits until the server has heard of all that the leader had accepted: what it tells may be old otherwise (ZooKeeper's sync).
func (c *Client) catchUp(ctx context.Context, path string) error {
	return c.retry(ctx, func() error {
		_, err := do(ctx, c, func() (string, error) { return c.conn.Sync(path) })
		return err
	})
}

func (c *Client) pause(ctx context.Context) error {
	if c.quit.Err() != nil {
		return errClosed
	}
	return sleep(ctx, 20*time.Millisecond)
}

// find lists the nodes that bear the GUID. A write that went through another server before a connection broke may not have reached this
// one.
func (c *Client) find(ctx context.Context, dir, guid string) (found []string, err error) {
	if err := c.catchUp(ctx, dir); err != nil {
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
