package memcached

import (
	"context"
	"errors"
	"time"

	"github.com/scalr-go/scalr/cache"
)

// handOff is for how many times Settle after a change of servers the previous owners of keys are asked.
const handOff = 6

// change is the latest change of servers.
type change struct {
	from *ring
	at   time.Time
}

// previous gives the server that had the key before the latest change, for as long as that matters; nil if it has left, or has
// the key still.
func (c *Client) previous(key string) *node {
	ch := c.change.Load()
	if ch == nil || time.Since(ch.at) >= handOff*c.opts.Settle {
		return nil
	}
	before := ch.from.pick(key)
	if before == nil || before.departed.Load() || before == c.ring.Load().pick(key) {
		return nil
	}
	return before
}

// cap bounds a TTL where not every process may know who has the key.
func (c *Client) cap(ttl time.Duration, standIn bool, key string) time.Duration {
	if !standIn {
		ch := c.change.Load()
		if ch == nil || time.Since(ch.at) >= c.opts.Settle || ch.from.pick(key) == c.ring.Load().pick(key) {
			return ttl
		}
	}
	if ttl == 0 {
		return c.opts.Settle
	}
	return min(ttl, c.opts.Settle)
}

// on makes a call about one key to the server that has the key or, if that is down, to the one that stands in.
func (c *Client) on(ctx context.Context, op string, a *call) error {
	for {
		r := c.ring.Load()
		n := r.pick(a.key)
		if n == nil {
			return &cache.Error{Op: op, Key: a.key, Err: cache.ErrNoServers}
		}
		ttl, leaseTTL := a.item.TTL, a.ttl
		a.item.TTL = c.cap(ttl, false, a.key)
		standIn := r.standIn(a.key)
		if a.kind == swap && standIn != nil && standIn.gave(a.version) {
			// It is stored where the lease is.
			n, standIn = standIn, nil
			a.item.TTL = c.cap(ttl, true, a.key)
		}
		err := n.ask(ctx, op, a)
		if err != nil && err != errDeparted && standIn != nil && a.kind != swap && a.state != abandoned && ctx.Err() == nil && n.isDown() {
			a.reset()
			a.item.TTL, a.ttl = c.cap(ttl, true, a.key), c.cap(leaseTTL, true, a.key)
			err = standIn.ask(ctx, op, a)
		}
		if err == errDeparted {
			a.reset()
			a.item.TTL, a.ttl = ttl, leaseTTL
			continue
		}
		return err
	}
}

// remove removes an item wherever it may be: first from the server that had the key before, since a load that has a lease may
// be about to copy it from there, and then from the one that has it, which decides, and from its stand-in, where items end soon.
func (c *Client) remove(ctx context.Context, op, key string) error {
	for {
		if n := c.previous(key); n != nil {
			if err := n.remove(ctx, op, key); err != nil && err != errDeparted {
				return err
			}
		}
		r := c.ring.Load()
		n := r.pick(key)
		if n == nil {
			return &cache.Error{Op: op, Key: key, Err: cache.ErrNoServers}
		}
		standIn := r.standIn(key)
		done := make(chan struct{})
		if standIn == nil {
			close(done)
		} else {
			go func() {
				defer close(done)
				_ = standIn.remove(ctx, op, key)
			}()
		}
		err := n.remove(ctx, op, key)
		<-done
		if err != errDeparted {
			return err
		}
	}
}

func (n *node) remove(ctx context.Context, op, key string) error {
	a := n.calls.make(remove, key)
	defer a.free()
	err := n.do(ctx, op, a)
	if err == cache.ErrMiss {
		return nil
	}
	return err
}

// ask makes a call and counts what it finds.
func (n *node) ask(ctx context.Context, op string, a *call) error {
	err := n.do(ctx, op, a)
	if a.kind == get || a.kind == lease {
		switch {
		case err == nil && !a.won:
			n.hits.Add(1)
		case err == nil, err == cache.ErrMiss:
			n.misses.Add(1)
		}
	}
	return err
}

// gave reports whether a version came from the server.
func (n *node) gave(v any) bool {
	switch v := v.(type) {
	case *casOf:
		return v.conn.lane.node == n
	case *version:
		return v.pool.node == n
	}
	return false
}

func (n *node) isDown() bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.breaker.open
}

// GetPrevious implements cache.HandOver.
func (c *Client) GetPrevious(ctx context.Context, key string) (cache.Item, error) {
	n := c.previous(key)
	if n == nil {
		return cache.Item{}, cache.ErrMiss
	}
	a := c.calls.make(get, key)
	defer a.free()
	if err := n.ask(ctx, "GetPrevious", a); err != nil {
		if errors.Is(err, errDeparted) {
			err = cache.ErrMiss
		}
		return cache.Item{}, err
	}
	item := a.found[0]
	item.Version = nil
	return item, nil
}
