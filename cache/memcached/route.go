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

// moving reports whether the key moved so shortly before the time that some processes may not have known of it then.
func (c *Client) moving(key string, at time.Time) bool {
	ch := c.change.Load()
	return ch != nil && at.Sub(ch.at) < c.opts.Settle && ch.from.pick(key) != c.ring.Load().pick(key)
}

// cap bounds a TTL where not every process may know who has the key.
func (c *Client) cap(ttl time.Duration) time.Duration {
	if ttl == 0 {
		return c.opts.Settle
	}
	return min(ttl, c.opts.Settle)
}

// on makes a call about one key to the server that has the key or, if that is down, to the one that stands in.
func (c *Client) on(ctx context.Context, op string, a *call) error {
	if a.kind == swap {
		return c.swap(ctx, op, a)
	}
	for {
		r := c.ring.Load()
		n := r.pick(a.key)
		if n == nil {
			return &cache.Error{Op: op, Key: a.key, Err: cache.ErrNoServers}
		}
		ttl, leaseTTL := a.item.TTL, a.ttl
		if c.moving(a.key, time.Now()) {
			a.item.TTL, a.ttl = c.cap(ttl), c.cap(leaseTTL)
		}
		standIn := r.standIn(a.key)
		err := n.ask(ctx, op, a)
		if err != nil && err != errDeparted && standIn != nil && a.state != abandoned && ctx.Err() == nil && n.isDown() {
			a.reset()
			a.item.TTL, a.ttl = c.cap(ttl), c.cap(leaseTTL)
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

// swap makes a swap where its version is from. What is stored may be as old as that: where a Delete since may not have come
// there, it ends Settle after the version was seen.
func (c *Client) swap(ctx context.Context, op string, a *call) error {
	ttl := a.item.TTL
	for {
		r := c.ring.Load()
		n := r.pick(a.key)
		if n == nil {
			return &cache.Error{Op: op, Key: a.key, Err: cache.ErrNoServers}
		}
		from, at := origin(a.version)
		standIn := r.standIn(a.key)
		gutter := standIn != nil && from == standIn
		if gutter {
			n = standIn
		}
		a.item.TTL = ttl
		if gutter || c.moving(a.key, at) {
			left := c.opts.Settle - time.Since(at)
			if left < minTTL {
				return cache.ErrMiss // as if it had ended already
			}
			if a.item.TTL = c.cap(ttl); left < a.item.TTL {
				a.item.TTL = left.Truncate(time.Second) // not rounded up
			}
		}
		err := n.ask(ctx, op, a)
		if err == errDeparted {
			a.reset()
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

// origin gives the server that a version came from, and a time when what it stands for was there, or was not there yet.
func origin(v any) (*node, time.Time) {
	switch v := v.(type) {
	case *casOf:
		return v.conn.lane.node, time.Unix(0, v.at)
	case *version:
		return v.pool.node, time.Unix(0, v.at)
	}
	return nil, time.Time{}
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
