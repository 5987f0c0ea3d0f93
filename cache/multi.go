package cache

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"
)

// GetMulti is Get for many keys at once, which may repeat: one call of load for all whose values are missing and nobody else
// loads, and one lease for each of them. Load returns the values that there are; a key without one is remembered as not found
// for NegativeTTL. What others load is waited for, and loaded in a second call if it does not come.
//
// The result has the values that there are. If load fails, the result has those that were cached, and the error is that of load;
// where ErrorTTL is not 0 that is remembered for each of its keys.
// Values that are stale are returned, and renewed by a Get of them only.
func (o *Of[V]) GetMulti(
	ctx context.Context, keys []string, load func(ctx context.Context, missing []string) (map[string]V, error),
) (map[string]V, error) {
	found := make(map[string]V, len(keys))
	if load == nil {
		return found, &Error{Op: "GetMulti", Err: fmt.Errorf("%w: load is nil, want a function", ErrInvalid)}
	}
	start, voids := time.Now(), o.void(0)
	want := map[string]*claim{}
	for _, key := range keys {
		full, err := o.key(key)
		tags := o.tags(key)
		if err == nil {
			err = checkTags(tags)
		}
		if err != nil {
			return found, &Error{Op: "GetMulti", Key: key, Err: err}
		}
		if o.Near != nil {
			if v, ok := o.Near.Get(key); ok {
				o.counts.near.Add(1)
				found[key] = v
				continue
			}
		}
		want[key] = &claim{place: place{key, full, tags}}
	}
	giveUp := time.Now().Add(o.loadTimeout())
	pause := 5 * time.Millisecond
	var loadErr error
	for first := true; len(want) > 0; first = false {
		o.readAll(ctx, want)
		if ctx.Err() != nil {
			return found, &Error{Op: "GetMulti", Err: context.Cause(ctx)}
		}
		var missing []*claim
		for key, c := range want {
			v, e, ok := o.unseal(c.item, c.gens)
			if c.err != nil || !ok {
				if first {
					o.counts.misses.Add(1)
				}
				missing = append(missing, c)
				continue
			}
			delete(want, key)
			if first {
				o.counts.hit(e, start)
			}
			if err := e.failure(); err == nil {
				found[key] = v
				o.keepNear(key, v, start, voids)
			} else if errors.Is(err, ErrLoadFailed) && loadErr == nil {
				loadErr = &Error{Op: "GetMulti", Key: o.Prefix + key, Err: err}
			}
		}
		o.claimAll(ctx, missing, !time.Now().Before(giveUp))
		var mine []*claim
		for _, c := range missing {
			if c.leased || c.alone {
				mine = append(mine, c)
				delete(want, c.key)
			}
		}
		if len(mine) > 0 {
			err := o.loadAll(ctx, mine, found, load)
			for _, c := range mine {
				if v, ok := found[c.key]; ok {
					o.keepNear(c.key, v, start, voids)
				}
			}
			if err != nil {
				return found, err
			}
			continue
		}
		if len(want) == 0 {
			break
		}
		select {
		case <-ctx.Done():
		case <-time.After(pause/2 + rand.N(pause)):
		}
		pause = min(2*pause, 100*time.Millisecond)
	}
	return found, loadErr
}

// claim is one key of a GetMulti.
type claim struct {
	place
	reading
	leased bool // the item is its stub
	alone  bool // there is no lease to be had, and the value is not stored
}

// readAll reads all keys and the generations of their tags in one GetMulti of the store.
func (o *Of[V]) readAll(ctx context.Context, want map[string]*claim) {
	keys := make([]string, 0, len(want))
	seen := map[string]bool{}
	for _, c := range want {
		keys = append(keys, c.full)
		for _, tag := range c.tags {
			if key := tagKey(tag); !seen[key] {
				seen[key] = true
				keys = append(keys, key)
			}
		}
	}
	items, err := o.Store.GetMulti(ctx, keys)
	for _, c := range want {
		c.reading = reading{err: failure(err, c.full)}
		if c.err != nil {
			continue
		}
		item, ok := items[c.full]
		c.gens = nil
		for _, tag := range c.tags {
			key := tagKey(tag)
			gen, known := generation(items[key])
			if !known {
				if gen, c.err = makeGeneration(ctx, o.Store, key); c.err != nil {
					break
				}
				items[key] = Item{Flags: flagGeneration, Value: appendGeneration(gen)}
			}
			c.gens = append(c.gens, gen)
		}
		if c.item = item; c.err == nil && !ok {
			c.err = ErrMiss
		}
	}
}

// claimAll tries to take the leases, many at once. With force, what somebody else holds is taken to be lost.
func (o *Of[V]) claimAll(ctx context.Context, claims []*claim, force bool) {
	each(claims, func(c *claim) {
		stub := o.newStub(c.full)
		err := c.err
		switch {
		case errors.Is(err, ErrMiss):
			if l, ok := o.Store.(Leaser); ok {
				c.item, c.won, err = l.Lease(ctx, c.full, o.leaseTTL())
				if c.leased = err == nil && c.won; err == nil {
					return
				}
				if !errors.Is(err, ErrMiss) {
					break
				}
			}
			err = o.Store.Add(ctx, stub)
		case err != nil:
		case isStub(c.item) && !force:
			return
		default:
			stub.Version = c.item.Version
			err = o.Store.CompareAndSwap(ctx, stub)
		}
		if err == nil {
			c.item, err = o.Store.Get(ctx, c.full)
			c.leased = err == nil && c.item.Flags == flagStub && string(c.item.Value) == string(stub.Value)
			return
		}
		c.alone = force || !errors.Is(err, ErrMiss) && !errors.Is(err, ErrNotStored)
	})
}

// loadAll loads the claimed keys in one call and stores what comes.
func (o *Of[V]) loadAll(
	ctx context.Context, mine []*claim, found map[string]V, load func(context.Context, []string) (map[string]V, error),
) (err error) {
	stored := make([][]byte, len(mine))
	ttls := make([]time.Duration, len(mine))
	index := make(map[*claim]int, len(mine))
	keys := make([]string, len(mine))
	for i, c := range mine {
		index[c], keys[i] = i, c.key
	}
	defer func() { // also when load panics
		each(mine, func(c *claim) {
			if c.leased {
				o.settle(ctx, c.item, stored[index[c]], ttls[index[c]])
			}
		})
	}()
	start := time.Now()
	loadCtx, cancel := context.WithTimeout(ctx, o.loadTimeout())
	defer cancel()
	values, err := load(loadCtx, keys)
	o.counts.loaded(start, err)
	if err != nil {
		if ctx.Err() == nil && !errors.Is(err, ErrNotFound) { // of which key?
			var none V
			for i, c := range mine {
				stored[i], ttls[i], _ = o.seal(none, err, c.gens)
			}
		}
		return err
	}
	for i, c := range mine {
		v, ok := values[c.key]
		var absent error
		if !ok {
			absent = ErrNotFound
		}
		if stored[i], ttls[i], err = o.seal(v, absent, c.gens); err != nil {
			return &Error{Op: "GetMulti", Key: o.Prefix + c.key, Err: err}
		}
		if ok {
			found[c.key] = v
		}
	}
	return nil
}

// each calls f for each claim, for up to 32 at once: the store shares round trips among callers.
func each(claims []*claim, f func(*claim)) {
	if len(claims) == 1 {
		f(claims[0])
		return
	}
	next := make(chan *claim)
	var wg sync.WaitGroup
	for range min(len(claims), 32) {
		wg.Go(func() {
			for c := range next {
				f(c)
			}
		})
	}
	for _, c := range claims {
		next <- c
	}
	close(next)
	wg.Wait()
}
