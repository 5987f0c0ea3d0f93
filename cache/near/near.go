// Package near keeps values in the process, in front of a cache.Of: a hit costs no round trip and no decoding, and allocates
// nothing. It is bounded by a number of values, and evicts those that are the least likely to be asked for again (W-TinyLFU,
// by github.com/maypok86/otter/v2).
//
//	pages := cache.Of[Page]{Store: store, Near: near.New[Page](10_000), NearTTL: time.Second}
//
// A Delete removes a value from the near cache of its own process. Another process may return the value until its own NearTTL
// has ended, counted from when it read it.
package near

import (
	"time"

	"github.com/maypok86/otter/v2"

	"github.com/scalr-go/scalr/cache"
)

// Cache is a cache.Near. It is safe for concurrent use. It starts no goroutine that outlives the call.
type Cache[V any] struct {
	values *otter.Cache[string, entry[V]]
}

var _ cache.Near[int] = (*Cache[int])(nil)

type entry[V any] struct {
	value V
	end   time.Time
}

const defaultSize = 10_000

// New makes a cache of at most size values; 0 or less means 10,000.
func New[V any](size int) *Cache[V] {
	if size <= 0 {
		size = defaultSize
	}
	return &Cache[V]{otter.Must(&otter.Options[string, entry[V]]{
		MaximumSize: size,
		Executor:    func(f func()) { f() },
	})}
}

// Get implements cache.Near.
func (c *Cache[V]) Get(key string) (v V, ok bool) {
	e, ok := c.values.GetIfPresent(key)
	if !ok || !time.Now().Before(e.end) {
		return v, false
	}
	return e.value, true
}

// Set implements cache.Near.
func (c *Cache[V]) Set(key string, v V, end time.Time) { c.values.Set(key, entry[V]{v, end}) }

// Delete implements cache.Near.
func (c *Cache[V]) Delete(key string) { c.values.Invalidate(key) }

// Clear implements cache.Near.
func (c *Cache[V]) Clear() { c.values.InvalidateAll() }
