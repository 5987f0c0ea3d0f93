package memcached

import (
	"bytes"
	"context"
	"errors"
	"math"
	"sync"
	"time"

	"github.com/bradfitz/gomemcache/memcache"

	"github.com/scalr-go/scalr/cache"
)

// version is the cache.Item.Version of what a server returned.
type version struct {
	*memcache.Item        // as it was returned
	node           *node  // by which server
	seen           uint64 // how many connections to it had been opened when it was asked
}

func item(it *memcache.Item, v *version) cache.Item {
	return cache.Item{Key: it.Key, Value: it.Value, Flags: it.Flags, Version: v}
}

// errOutOfStep: a server answered what it was not asked. The connection is unusable.
var errOutOfStep = errors.New("server answered for a key that it was not asked for")

// Get implements cache.Store.
func (c *Client) Get(ctx context.Context, key string) (got cache.Item, err error) {
	if err := cache.CheckKey(key); err != nil {
		return got, &cache.Error{Op: "Get", Err: err}
	}
	err = c.on(ctx, "Get", key, true, func(n *node, l *link) error {
		it, err := l.client.Get(key)
		switch {
		case err == nil && it.Key != key:
			l.Close()
			return errOutOfStep
		case err == nil:
			n.hits.Add(1)
			got = item(it, &version{it, n, l.seen})
		case errors.Is(err, memcache.ErrCacheMiss):
			n.misses.Add(1)
		}
		return err
	})
	return got, err
}

// GetMulti implements cache.Store. It asks all servers at once, each in one round trip.
func (c *Client) GetMulti(ctx context.Context, keys []string) (map[string]cache.Item, error) {
	b := batch{found: make(map[string]cache.Item, len(keys))}
	for len(keys) > 0 {
		keys = b.ask(ctx, c.ring.Load(), keys)
	}
	if b.failed != nil {
		return b.found, &cache.PartialError{Failed: b.failed}
	}
	return b.found, nil
}

// batch is the result of a GetMulti so far.
type batch struct {
	mu     sync.Mutex
	found  map[string]cache.Item
	failed map[string]error
}

// ask asks the servers of r for the keys and returns those whose server has left the set meanwhile.
func (b *batch) ask(ctx context.Context, r *ring, keys []string) (left []string) {
	byServer := make([][]string, len(r.slots))
	for _, key := range keys {
		err := cache.CheckKey(key)
		if err == nil && len(r.slots) == 0 {
			err = cache.ErrNoServers
		}
		if err != nil {
			b.fail([]string{key}, &cache.Error{Op: "GetMulti", Err: err})
			continue
		}
		i := r.index(key)
		byServer[i] = append(byServer[i], key)
	}
	one := func(n *node, keys []string) {
		if b.askServer(ctx, n, keys) == errDeparted {
			b.mu.Lock()
			defer b.mu.Unlock()
			left = append(left, keys...)
		}
	}
	var wg sync.WaitGroup
	last := -1 // is asked in this goroutine
	for i, keys := range byServer {
		if len(keys) == 0 {
			continue
		}
		if last >= 0 {
			n, keys := r.slots[last].node, byServer[last]
			wg.Go(func() { one(n, keys) })
		}
		last = i
	}
	if last >= 0 {
		one(r.slots[last].node, byServer[last])
	}
	wg.Wait()
	return left
}

func (b *batch) askServer(ctx context.Context, n *node, keys []string) error {
	err := n.do(ctx, "GetMulti", "", true, func(l *link) error {
		items, err := l.client.GetMulti(keys)
		versions := make([]version, 0, len(items)) // one allocation for all
		misses := uint64(0)
		b.mu.Lock()
		defer b.mu.Unlock()
		for _, key := range keys {
			it, ok := items[key]
			if !ok {
				if _, ok = b.found[key]; !ok {
					misses++
				}
				continue
			}
			delete(items, key) // keys may repeat
			versions = append(versions, version{it, n, l.seen})
			b.found[key] = item(it, &versions[len(versions)-1])
		}
		if len(items) > 0 && err == nil {
			l.Close()
			err = errOutOfStep
		}
		if err == nil {
			n.hits.Add(uint64(len(versions)))
			n.misses.Add(misses)
		}
		return err
	})
	if err != nil && err != errDeparted {
		b.fail(keys, err)
	}
	return err
}

// fail notes the failure for the keys, except for those that were read before it.
func (b *batch) fail(keys []string, err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.failed == nil {
		b.failed = map[string]error{}
	}
	for _, key := range keys {
		if _, ok := b.found[key]; !ok {
			b.failed[key] = err
		}
	}
}

// Set implements cache.Store.
func (c *Client) Set(ctx context.Context, item cache.Item) error {
	return c.write(ctx, "Set", item, func(_ *node, l *link, it *memcache.Item) error { return l.client.Set(it) })
}

// Add implements cache.Store.
func (c *Client) Add(ctx context.Context, item cache.Item) error {
	return c.write(ctx, "Add", item, func(_ *node, l *link, it *memcache.Item) error { return l.client.Add(it) })
}

// CompareAndSwap implements cache.Store.
func (c *Client) CompareAndSwap(ctx context.Context, item cache.Item) error {
	return c.write(ctx, "CompareAndSwap", item, func(n *node, l *link, it *memcache.Item) error {
		v, ok := item.Version.(*version)
		switch {
		case !ok || v.Key != item.Key:
			return memcache.ErrNotStored
		case v.node != n:
			return memcache.ErrCacheMiss // with the server that had it
		case l.born > v.seen:
			now, err := l.client.Get(item.Key)
			if err != nil {
				return err
			}
			if now.CasID != v.CasID || now.Flags != v.Flags || !bytes.Equal(now.Value, v.Value) {
				return memcache.ErrNotStored
			}
		}
		it.CasID = v.CasID
		return l.client.CompareAndSwap(it)
	})
}

func (c *Client) write(ctx context.Context, op string, item cache.Item, f func(*node, *link, *memcache.Item) error) error {
	if err := item.Check(); err != nil {
		return &cache.Error{Op: op, Err: err}
	}
	return c.on(ctx, op, item.Key, false, func(n *node, l *link) error {
		it := &memcache.Item{Key: item.Key, Value: item.Value, Flags: item.Flags, Expiration: expiration(item.TTL, time.Now())}
		return f(n, l, it)
	})
}

// Delete implements cache.Store.
func (c *Client) Delete(ctx context.Context, key string) error {
	if err := cache.CheckKey(key); err != nil {
		return &cache.Error{Op: "Delete", Err: err}
	}
	err := c.on(ctx, "Delete", key, true, func(_ *node, l *link) error { return l.client.Delete(key) })
	if err == cache.ErrMiss {
		return nil
	}
	return err
}

// expiration gives a TTL as memcached wants it: seconds from now, or a date if they are more than 30 days.
func expiration(ttl time.Duration, now time.Time) int32 {
	if ttl == 0 {
		return 0
	}
	const month = 30 * 24 * 60 * 60
	seconds := int64(ttl / time.Second)
	if ttl%time.Second > 0 {
		seconds++
	}
	seconds = max(seconds, 2)
	if seconds <= month {
		return int32(seconds)
	}
	if date := now.Unix() + seconds; date <= math.MaxInt32 {
		return int32(date)
	}
	return 0
}
