package memcached

import (
	"context"
	"fmt"
	"math"
	"time"

	"github.com/scalr-go/scalr/cache"
)

// Get implements cache.Store.
func (c *Client) Get(ctx context.Context, key string) (cache.Item, error) {
	if err := cache.CheckKey(key); err != nil {
		return cache.Item{}, &cache.Error{Op: "Get", Err: err}
	}
	a := c.calls.make(get, key)
	defer a.free()
	if err := c.on(ctx, "Get", a); err != nil {
		return cache.Item{}, err
	}
	return a.found[0], nil
}

// Lease implements cache.Leaser.
func (c *Client) Lease(ctx context.Context, key string, ttl time.Duration) (got cache.Item, won bool, err error) {
	if err := (cache.Item{Key: key, TTL: ttl}).Check(); err != nil {
		return got, false, &cache.Error{Op: "Lease", Err: err}
	}
	a := c.calls.make(lease, key)
	defer a.free()
	a.ttl = ttl
	if err := c.on(ctx, "Lease", a); err != nil {
		return got, false, err
	}
	return a.found[0], a.won, nil
}

// Set implements cache.Store.
func (c *Client) Set(ctx context.Context, item cache.Item) error {
	if n := c.previous(item.Key); n != nil {
		// What it has would come back if this were evicted.
		if err := n.remove(ctx, "Set", item.Key); err != nil && err != errDeparted {
			return err
		}
	}
	return c.write(ctx, "Set", set, item)
}

// Add implements cache.Store.
func (c *Client) Add(ctx context.Context, item cache.Item) error {
	return c.write(ctx, "Add", add, item)
}

// CompareAndSwap implements cache.Store.
func (c *Client) CompareAndSwap(ctx context.Context, item cache.Item) error {
	return c.write(ctx, "CompareAndSwap", swap, item)
}

// itemOverhead is what memcached adds to a key and a value: its struct, the CAS ID, the flags, and ends of key and value.
const itemOverhead = 48 + 8 + 4 + 3

func (c *Client) write(ctx context.Context, op string, k kind, item cache.Item) error {
	if err := item.Check(); err != nil {
		return &cache.Error{Op: op, Err: err}
	}
	if n := len(item.Key) + len(item.Value) + itemOverhead; n > cache.MaxValue {
		// Memcached would remove what is there before it says so.
		err := fmt.Errorf("%w: with its key and %d bytes of overhead the item has %d bytes, want at most %d",
			cache.ErrTooLarge, itemOverhead, n, cache.MaxValue)
		return &cache.Error{Op: op, Key: item.Key, Err: err}
	}
	a := c.calls.make(k, item.Key)
	defer a.free()
	a.item, a.version = item, item.Version
	return c.on(ctx, op, a)
}

// Delete implements cache.Store.
func (c *Client) Delete(ctx context.Context, key string) error {
	if err := cache.CheckKey(key); err != nil {
		return &cache.Error{Op: "Delete", Err: err}
	}
	return c.remove(ctx, "Delete", key)
}

// minTTL is the least TTL: one of a second may be over at once.
const minTTL = 2 * time.Second

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
	seconds = max(seconds, int64(minTTL/time.Second))
	if seconds <= month {
		return int32(seconds)
	}
	if date := now.Unix() + seconds; date <= math.MaxInt32 {
		return int32(date)
	}
	return 0
}
