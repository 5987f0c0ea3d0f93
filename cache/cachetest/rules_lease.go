package cachetest

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/scalr-go/scalr/cache"
)

// leases holds a store that is a cache.Leaser to the contract of one.
func leases(h *harness) {
	l, ok := h.Store.(cache.Leaser)
	if !ok {
		return
	}
	for _, c := range []struct {
		key string
		ttl time.Duration
	}{{"", time.Minute}, {"not valid", time.Minute}, {"k", -time.Second}} {
		_, won, err := l.Lease(h.ctx, c.key, c.ttl)
		h.want(fmt.Sprintf("Lease(%q, %v)", c.key, c.ttl), err, cache.ErrInvalid)
		if won {
			h.broken("Lease(%q, %v) is invalid and won", c.key, c.ttl)
		}
	}
	h.set("there", "value")
	if item, won, err := l.Lease(h.ctx, "there", time.Minute); err != nil || won || string(item.Value) != "value" || item.Version == nil {
		h.broken("where there is a value, Lease returned %s, version %v, won %t and %v", show(item.Value), item.Version, won, err)
	}

	const callers = 16
	var winners, misses atomic.Int32
	var winner cache.Item
	var wg sync.WaitGroup
	errs := make(chan error, callers)
	for range callers {
		wg.Go(func() {
			item, won, err := l.Lease(h.ctx, "missing", time.Minute)
			switch {
			case errors.Is(err, cache.ErrMiss) && !won:
				misses.Add(1)
			case err != nil:
				errs <- err
			case len(item.Value) > 0 || item.Flags != 0 || item.Version == nil || item.Key != "missing":
				errs <- fmt.Errorf("the stub is %+v, want an empty item without flags, with a version", item)
			case won:
				if winners.Add(1) == 1 {
					winner = item
				}
			}
		})
	}
	wg.Wait()
	select {
	case err := <-errs:
		h.broken("Lease: %v", err)
	default:
	}
	if misses.Load() == callers { // the store cannot tell
		h.lacks("missing", "after a Lease that was ErrMiss")
		return
	}
	if n := winners.Load(); n != 1 || misses.Load() > 0 {
		h.broken("of %d callers at once %d won and %d were told of a miss, want 1 and 0", callers, n, misses.Load())
	}
	h.holds("missing", "", "after a Lease")
	winner.Value, winner.Flags = []byte("loaded"), 7
	if err := h.CompareAndSwap(h.ctx, winner); err != nil {
		h.broken("CompareAndSwap with the version of the stub: %v", err)
	}
	h.holds("missing", "loaded", "after the winner has stored")

	// A Delete voids a lease, also where somebody else has one since.
	for _, again := range []bool{false, true} {
		stub, won, err := l.Lease(h.ctx, "void", time.Minute)
		if err != nil || !won {
			h.broken("Lease of what is missing returned won %t and %v", won, err)
		}
		if err := h.Delete(h.ctx, "void"); err != nil {
			h.broken("Delete: %v", err)
		}
		want := cache.ErrMiss
		if again {
			if _, won, err := l.Lease(h.ctx, "void", time.Minute); err != nil || !won {
				h.broken("after a Delete, Lease returned won %t and %v", won, err)
			}
			want = cache.ErrNotStored
		}
		stub.Value = []byte("old")
		h.want("CompareAndSwap with a lease that a Delete has voided", h.CompareAndSwap(h.ctx, stub), want)
		if err := h.Delete(h.ctx, "void"); err != nil {
			h.broken("Delete: %v", err)
		}
	}

	if _, won, err := l.Lease(h.ctx, "short", 2*time.Second); err != nil || !won {
		h.broken("Lease of what is missing returned won %t and %v", won, err)
	}
	h.until("a lease had ended with its ttl", func() bool {
		_, err := h.Get(h.ctx, "short")
		return errors.Is(err, cache.ErrMiss)
	})
}

// RunHandOver holds a store that is a cache.HandOver to the contract of one. The factory makes an empty store for each rule, as
// that of Run does, and a function that changes its servers: some of the keys "key-0" to "key-99" must have another server then,
// and some the same, and all servers from before must still be there.
func RunHandOver(t *testing.T, factory func(t testing.TB) (s cache.Store, change func())) {
	for _, r := range handOverRules {
		t.Run(r.name, func(t *testing.T) {
			t.Parallel()
			r.run(t, factory)
		})
	}
}

// handOverRule is one rule of the contract of a cache.HandOver.
type handOverRule struct {
	name  string
	words string
	check func(h *harness, change func())
}

func (r handOverRule) run(t testing.TB, factory func(t testing.TB) (cache.Store, func())) {
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	s, change := factory(t)
	h := &harness{TB: t, Store: s, ctx: ctx, rule: r.words}
	if _, ok := s.(cache.HandOver); !ok {
		h.broken("the store is no cache.HandOver")
	}
	r.check(h, change)
}

var handOverRules = []handOverRule{
	{"Nothing before a change", "GetPrevious is ErrMiss as long as no key has moved", nothingBefore},
	{"Previous value", "after a change GetPrevious returns what the previous owner of a key has, and only that", previousValue},
	{"Removed everywhere", "what was deleted or replaced after a change does not come back from the previous owner", removedEverywhere},
	{"No load", "after a change Of takes over what the previous owner has, and loads anew after a Delete", noLoad},
}

const handOverKeys = 100

func handOverKey(i int) string { return fmt.Sprint("key-", i) }

func (h *harness) previous(key string) (cache.Item, error) {
	return h.Store.(cache.HandOver).GetPrevious(h.ctx, key)
}

// moved sets all keys, changes the servers, and gives the keys that have moved.
func (h *harness) moved(change func()) (keys []string) {
	for i := range handOverKeys {
		h.set(handOverKey(i), "value of "+handOverKey(i))
	}
	change()
	for i := range handOverKeys {
		key := handOverKey(i)
		_, err := h.Get(h.ctx, key)
		switch {
		case errors.Is(err, cache.ErrMiss):
			keys = append(keys, key)
		case err != nil:
			h.broken("after a change, Get(%s): %v", key, err)
		}
	}
	if len(keys) == 0 || len(keys) == handOverKeys {
		h.broken("the factory's change has moved %d keys of %d, want some", len(keys), handOverKeys)
	}
	return keys
}

func nothingBefore(h *harness, _ func()) {
	for i := range handOverKeys {
		h.set(handOverKey(i), "value")
		_, err := h.previous(handOverKey(i))
		h.want("GetPrevious without a change of servers", err, cache.ErrMiss)
	}
}

func previousValue(h *harness, change func()) {
	moved := map[string]bool{}
	for _, key := range h.moved(change) {
		moved[key] = true
	}
	for i := range handOverKeys {
		key := handOverKey(i)
		item, err := h.previous(key)
		switch {
		case !moved[key]:
			h.want("GetPrevious of a key that has not moved", err, cache.ErrMiss)
		case err != nil || item.Key != key || string(item.Value) != "value of "+key || item.Version != nil:
			h.broken("GetPrevious(%s) returned %+v and %v, want its value without a version", key, item, err)
		}
	}
	for i := range handOverKeys {
		_, err := h.previous(fmt.Sprint("absent-", i))
		h.want("GetPrevious of what nobody has", err, cache.ErrMiss)
	}
}

func removedEverywhere(h *harness, change func()) {
	for i, key := range h.moved(change) {
		if i%2 == 0 {
			if err := h.Delete(h.ctx, key); err != nil {
				h.broken("Delete: %v", err)
			}
			h.lacks(key, "after a Delete")
		} else {
			h.set(key, "new")
			h.holds(key, "new", "after a Set")
		}
		_, err := h.previous(key)
		h.want("GetPrevious of what was deleted or replaced", err, cache.ErrMiss)
	}
}

func noLoad(h *harness, change func()) {
	of := &cache.Of[string]{Store: h.Store, TTL: time.Hour}
	loads := 0
	load := func(context.Context) (string, error) { loads++; return fmt.Sprint("load ", loads), nil }
	get := func(key string) string {
		v, err := of.Get(h.ctx, key, load)
		if err != nil {
			h.broken("Get(%s): %v", key, err)
		}
		return v
	}
	before := map[string]string{}
	for i := range handOverKeys {
		before[handOverKey(i)] = get(handOverKey(i))
	}
	change()
	for key, v := range before {
		if now := get(key); now != v {
			h.broken("after a change, Get(%s) returned %q, want %q without a load", key, now, v)
		}
	}
	for key, v := range before {
		if err := of.Delete(h.ctx, key); err != nil {
			h.broken("Delete: %v", err)
		}
		if now := get(key); now == v {
			h.broken("after a change and a Delete, Get(%s) returned %q again", key, now)
		}
	}
}
