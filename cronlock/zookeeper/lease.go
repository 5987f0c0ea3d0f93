package zookeeper

import (
	"context"
	"errors"
	"sync/atomic"
	"time"

	"github.com/go-zookeeper/zk"

	"github.com/scalr-go/scalr/cronlock"
)

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
