package memcached

import (
	"context"
	"fmt"
	"maps"
	"math"
	"sync"
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
	left   []string // whose server has left the set meanwhile

	ring    *ring
	standIn bool // stand-ins are asked; nobody stands in for them
}

// askStandIns asks for keys whose server is down.
func (b *batch) askStandIns(ctx context.Context, keys []string) {
	byNode := map[*node][]string{}
	for _, key := range keys {
		n := b.ring.standIn(key)
		byNode[n] = append(byNode[n], key)
	}
	other := batch{found: map[string]cache.Item{}, ring: b.ring, standIn: true}
	for n, keys := range byNode {
		other.askServer(ctx, n, keys)
	}
	b.mu.Lock()
	maps.Copy(b.found, other.found)
	b.left = append(b.left, other.left...)
	b.mu.Unlock()
	for key, err := range other.failed {
		b.fail([]string{key}, err)
	}
}

// maxKeys is how many keys a server is asked for at once.
const maxKeys = 1000

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
		if byServer[i] == nil {
			byServer[i] = make([]string, 0, min(len(keys), 2*len(keys)/len(r.slots)+4))
		}
		byServer[i] = append(byServer[i], key)
	}
	b.left, b.ring = nil, r
	var wg sync.WaitGroup
	last := -1 // is asked in this goroutine
	for i, keys := range byServer {
		if len(keys) == 0 {
			continue
		}
		if last >= 0 {
			n, keys := r.slots[last].node, byServer[last]
			wg.Go(func() { b.askServer(ctx, n, keys) })
		}
		last = i
	}
	if last >= 0 {
		b.askServer(ctx, r.slots[last].node, byServer[last])
	}
	wg.Wait()
	return b.left
}

func (b *batch) askServer(ctx context.Context, n *node, keys []string) {
	for len(keys) > 0 {
		some := keys[:min(len(keys), maxKeys)]
		keys = keys[len(some):]
		b.askOnce(ctx, n, some)
	}
}

func (b *batch) askOnce(ctx context.Context, n *node, keys []string) {
	a := n.calls.make(multi, "")
	defer a.free()
	a.keys = keys
	err := n.do(ctx, "GetMulti", a)
	if err != nil && !b.standIn && n.isDown() && ctx.Err() == nil && len(b.ring.slots) > 1 {
		b.askStandIns(ctx, keys)
		return
	}
	if a.state == abandoned {
		b.fail(keys, err)
		return
	}
	b.mu.Lock()
	before := len(b.found)
	for _, it := range a.found {
		b.found[it.Key] = it
	}
	found := len(b.found) - before
	if err == errDeparted {
		b.left = append(b.left, keys...)
	}
	b.mu.Unlock()
	switch {
	case err == errDeparted:
	case err != nil:
		b.fail(keys, err)
	default:
		n.hits.Add(uint64(found))
		n.misses.Add(uint64(max(0, len(keys)-len(a.found))))
	}
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
