package cachetest

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/scalr-go/scalr/cache"
)

const day = 24 * time.Hour

func expiry(h *harness) {
	// Memcached takes more than 30 days for a date, keeps time in whole seconds, and has 32 bits for them.
	long := []time.Duration{
		time.Hour, time.Hour + 1, 30*day - time.Second/2, 30 * day, 30*day + 1, 31 * day, 365 * day, 100 * 365 * day, 1<<63 - 1,
	}
	for _, ttl := range long {
		if err := h.Set(h.ctx, cache.Item{Key: "long-" + ttl.String(), Value: []byte("v"), TTL: ttl}); err != nil {
			h.broken("Set with TTL %v: %v", ttl, err)
		}
		if item := h.get("long-" + ttl.String()); string(item.Value) != "v" || item.TTL != 0 {
			h.broken("with a TTL of %v, Get returned %s with a TTL of %v, want \"v\" and no TTL", ttl, show(item.Value), item.TTL)
		}
	}

	expires := func(key string) cache.Item { return cache.Item{Key: key, Value: []byte("v"), TTL: time.Second} }
	store := func(what string, err error) {
		h.Helper()
		if err != nil {
			h.broken("%s: %v", what, err)
		}
	}
	store("Set", h.Set(h.ctx, expires("kept")))
	h.set("kept", "without TTL")
	store("Set", h.Set(h.ctx, expires("swapped")))
	swapped := expires("swapped")
	store("Set", h.Set(h.ctx, cache.Item{Key: "swapped", Value: []byte("v")}))
	swapped.Version = h.get("swapped").Version
	store("CompareAndSwap", h.CompareAndSwap(h.ctx, swapped))
	store("Add", h.Add(h.ctx, expires("added")))
	store("Set", h.Set(h.ctx, cache.Item{Key: "instant", Value: []byte("v"), TTL: 1}))
	store("Set", h.Set(h.ctx, expires("set")))
	version := func() any {
		item, err := h.Get(h.ctx, "set")
		if err != nil && !errors.Is(err, cache.ErrMiss) {
			h.broken("Get: %v", err)
		}
		return item.Version // nil if the machine was too slow to see it
	}()
	for _, key := range []string{"set", "added", "swapped", "instant"} {
		h.until("the item "+key+" was gone after its TTL", func() bool {
			_, err := h.Get(h.ctx, key)
			return errors.Is(err, cache.ErrMiss)
		})
	}
	h.holds("kept", "without TTL", "after it was stored without TTL over an item with one that has passed")
	for _, ttl := range long {
		h.holds("long-"+ttl.String(), "v", fmt.Sprintf("with a TTL of %v, after a second or two", ttl))
	}
	got, err := h.GetMulti(h.ctx, []string{"set", "added", "kept"})
	if err != nil || len(got) != 1 {
		h.broken("GetMulti returned %d items and %v, want the one that has not expired", len(got), err)
	}
	if version != nil {
		err := h.CompareAndSwap(h.ctx, cache.Item{Key: "set", Value: []byte("bad"), Version: version})
		h.want("CompareAndSwap of what has expired", err, cache.ErrMiss)
	}
	store("Add where an item has expired", h.Add(h.ctx, cache.Item{Key: "set", Value: []byte("new")}))
	h.holds("set", "new", "after Add where an item had expired")
}

func concurrency(h *harness) {
	const callers, rounds = 8, 20
	errs := make(chan error, callers)
	wait := func() {
		h.Helper()
		for range callers {
			if err := <-errs; err != nil {
				h.broken("%v", err)
			}
		}
	}
	var winners atomic.Int32
	for i := range callers {
		go func() {
			err := h.Add(h.ctx, cache.Item{Key: "won", Value: []byte{byte(i)}})
			if err == nil {
				winners.Add(1)
			} else if errors.Is(err, cache.ErrNotStored) {
				err = nil
			}
			errs <- err
		}()
	}
	wait()
	if n := winners.Load(); n != 1 {
		h.broken("%d of %d Adds at once succeeded, want 1", n, callers)
	}

	h.set("count", "0")
	for range callers {
		go func() {
			for range rounds {
				if err := increment(h.ctx, h.Store); err != nil {
					errs <- err
					return
				}
			}
			errs <- nil
		}()
	}
	wait()
	h.holds("count", strconv.Itoa(callers*rounds), fmt.Sprintf("after %d callers have incremented it %d times each", callers, rounds))
}

func increment(ctx context.Context, s cache.Store) error {
	for {
		item, err := s.Get(ctx, "count")
		if err != nil {
			return err
		}
		n, err := strconv.Atoi(string(item.Value))
		if err != nil {
			return err
		}
		item.Value = []byte(strconv.Itoa(n + 1))
		if err = s.CompareAndSwap(ctx, item); !errors.Is(err, cache.ErrNotStored) {
			return err
		}
	}
}

func oneLoad(h *harness) {
	const processes, callers = 3, 8
	var loads, begun atomic.Int32
	errs := make(chan error, processes*callers)
	for range processes {
		pages := &cache.Of[string]{Store: h.Store, Prefix: "page:"}
		for range callers {
			go func() {
				begun.Add(1)
				v, err := pages.Get(h.ctx, "home", func(ctx context.Context) (string, error) {
					loads.Add(1)
					for begun.Load() < processes*callers && ctx.Err() == nil {
						time.Sleep(time.Millisecond)
					}
					return "welcome", ctx.Err()
				})
				if err == nil && v != "welcome" {
					err = fmt.Errorf("a caller got %q", v)
				}
				errs <- err
			}()
		}
	}
	for range processes * callers {
		if err := <-errs; err != nil {
			h.broken("%v", err)
		}
	}
	if n := loads.Load(); n != 1 {
		h.broken("%d callers in %d processes loaded the value %d times, want once", processes*callers, processes, n)
	}
}

func voidedLease(h *harness) {
	loader := &cache.Of[string]{Store: h.Store}
	writer := &cache.Of[string]{Store: h.Store}
	other := func(context.Context) (string, error) { return "new", nil }

	v, err := loader.Get(h.ctx, "k", func(context.Context) (string, error) {
		return "old", writer.Delete(h.ctx, "k") // a write and its Delete, while the old value is under way
	})
	if err != nil || v != "old" {
		h.broken("Get returned %q and %v, want what it loaded", v, err)
	}
	if v, err = writer.Get(h.ctx, "k", other); err != nil || v != "new" {
		h.broken("after the Delete, Get returned %q and %v, want a new load", v, err)
	}

	// The same where another process has begun to load anew before the old load ends.
	if err := writer.Delete(h.ctx, "k"); err != nil {
		h.broken("Delete: %v", err)
	}
	_, err = loader.Get(h.ctx, "k", func(context.Context) (string, error) {
		if err := writer.Delete(h.ctx, "k"); err != nil {
			return "", err
		}
		v, err := writer.Get(h.ctx, "k", other)
		if err != nil || v != "new" {
			return "", fmt.Errorf("after a Delete, while an old load was under way, Get returned %q and %w", v, err)
		}
		return "old", nil
	})
	if err != nil {
		h.broken("%v", err)
	}
	if v, err = writer.Get(h.ctx, "k", other); err != nil || v != "new" {
		h.broken("after an old load has ended, Get returned %q and %v, want the new value", v, err)
	}
}
