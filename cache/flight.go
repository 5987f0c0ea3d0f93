package cache

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"
)

// flight is what all callers of this process that wait for one key have in common. It runs in a goroutine of its own,
// which ends before the last of them returns.
type flight[V any] struct {
	cancel  context.CancelFunc
	callers int    // guarded by Of.mu
	step    int    // guarded by Of.mu: how many reads and loads it has begun
	won     []Item // guarded by Of.mu: leases that callers have won who then boarded

	done     chan struct{} // closed when what follows is set
	value    V
	stored   []byte // the value in its envelope, for all callers but the first
	gens     []uint64
	err      error
	panicked any
	asOf     int  // the step that brought the result
	certain  bool // no Delete was acknowledged from the beginning of the load to its end; it says nothing of Invalidate
}

// board makes the caller wait for the flight of the key and begins one if there is none, with what the caller has just
// read. It also says how many steps that flight had begun before: 0 for who began it.
func (o *Of[V]) board(
	ctx context.Context, p *place, load func(context.Context) (V, error), r reading,
) (f *flight[V], since int) {
	o.mu.Lock()
	defer o.mu.Unlock()
	key := p.full
	if f := o.flights[key]; f != nil {
		f.callers++
		if r.won {
			f.won = append(f.won, r.item)
		}
		return f, f.step
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	f = &flight[V]{cancel: cancel, callers: 1, step: 1, done: make(chan struct{})}
	if o.flights == nil {
		o.flights = map[string]*flight[V]{}
	}
	o.flights[key] = f
	go func() {
		defer func() {
			o.mu.Lock()
			o.end(key, f)
			o.mu.Unlock()
			close(f.done)
		}()
		o.fly(ctx, f, p, load, r)
	}()
	return f, 0
}

// leave takes the caller off the flight. The last one ends it.
func (o *Of[V]) leave(key string, f *flight[V]) {
	o.mu.Lock()
	f.callers--
	last := f.callers == 0
	if last {
		o.end(key, f)
	}
	o.mu.Unlock()
	if last {
		<-f.done
	}
}

// end makes sure that nobody boards the flight any more. It is called with Of.mu held.
func (o *Of[V]) end(key string, f *flight[V]) {
	if o.flights[key] == f {
		delete(o.flights, key)
	}
	f.cancel()
}

// begin counts a read or a load that is about to begin.
func (o *Of[V]) begin(f *flight[V]) {
	o.mu.Lock()
	defer o.mu.Unlock()
	f.step++
	f.asOf = f.step
}

// result gives a caller what the flight brought.
func (f *flight[V]) result(o *Of[V], first bool) (v V, err error) {
	if f.panicked != nil {
		panic(f.panicked)
	}
	if first || f.err != nil {
		return f.value, f.err
	}
	v, _, ok := o.unseal(Item{Value: f.stored, Flags: flagValue}, f.gens)
	if !ok {
		return f.value, nil // it has expired meanwhile, or its codec does not decode what it encodes
	}
	return v, nil
}

// fly brings the value: from the store if another process is loading it, else by loading it, under a lease if the store
// gives one.
func (o *Of[V]) fly(ctx context.Context, f *flight[V], p *place, load func(context.Context) (V, error), first reading) {
	r, leased := o.acquire(ctx, f, p, first)
	f.gens = r.gens
	if v, e, ok := o.unseal(r.item, r.gens); ok {
		f.value, f.stored = v, r.item.Value
		if err := e.failure(); err != nil {
			f.err = &Error{Op: "Get", Key: o.Prefix + p.key, Err: err}
		}
		return
	}
	o.begin(f)
	var ttl time.Duration
	defer func() {
		f.panicked = recover()
		if leased {
			f.certain = o.settle(ctx, r.item, f.stored, ttl)
		} else if r.err != nil && !errors.Is(r.err, ErrDown) && !errors.Is(r.err, ErrNoServers) {
			// The stub may be there all the same, its answer lost, and others would wait for nobody. A Delete never harms.
			ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), o.loadTimeout())
			_ = o.Store.Delete(ctx, p.full)
			cancel()
		}
		o.mu.Lock()
		won := f.won
		o.end(p.full, f) // nobody adds to won any more
		o.mu.Unlock()
		for _, item := range won {
			o.settle(ctx, item, nil, 0)
		}
	}()
	if f.err = ctx.Err(); f.err != nil {
		return // everybody has left
	}
	if h, ok := o.Store.(HandOver); ok && leased {
		if item, err := h.GetPrevious(ctx, p.full); err == nil {
			if v, e, ok := o.unseal(item, r.gens); ok && e.failure() == nil {
				f.value, f.stored, ttl = v, item.Value, max(time.Until(e.fresh.Add(o.Stale)), time.Millisecond)
				return
			}
		}
	}
	f.err = errors.New("load ended its goroutine instead of returning")
	f.value, f.stored, ttl, f.err = o.load(ctx, p, load, r.gens)
}

// load calls load, and encodes what it returns.
func (o *Of[V]) load(
	ctx context.Context, p *place, load func(context.Context) (V, error), gens []uint64,
) (v V, stored []byte, ttl time.Duration, err error) {
	bounded, cancel := context.WithTimeout(ctx, o.loadTimeout())
	defer cancel()
	start := time.Now()
	defer func() { o.counts.loaded(start, err) }()
	v, err = load(bounded)
	if err != nil {
		if ctx.Err() == nil { // else it may have failed for that
			stored, ttl, _ = o.seal(v, err, gens)
		}
		if errors.Is(err, ErrNotFound) {
			err = &Error{Op: "Get", Key: o.Prefix + p.key, Err: err}
		}
		return v, stored, ttl, err
	}
	if stored, ttl, err = o.seal(v, nil, gens); err != nil {
		err = &Error{Op: "Get", Key: o.Prefix + p.key, Err: err}
	}
	return v, stored, ttl, err
}

// settle ends a lease: it stores the value in the place of the stub, or gives the lease up where there is none. It reports
// whether the lease was good to the end.
func (o *Of[V]) settle(ctx context.Context, lease Item, stored []byte, ttl time.Duration) bool {
	// Nobody may wait any more, but others want the value, or the lease.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), o.loadTimeout())
	defer cancel()
	var err error
	if stored != nil {
		lease.Value, lease.Flags, lease.TTL = stored, flagValue, ttl
		err = o.Store.CompareAndSwap(ctx, lease)
		if err == nil || errors.Is(err, ErrMiss) || errors.Is(err, ErrNotStored) {
			return err == nil
		}
	}
	lease.Value, lease.Flags, lease.TTL = nil, flagStub, time.Second // given up: the next one need not wait
	return o.Store.CompareAndSwap(ctx, lease) == nil
}

// giveUp ends the lease of a reading whose caller leaves.
func (o *Of[V]) giveUp(ctx context.Context, r reading) {
	if r.won {
		o.settle(ctx, r.item, nil, 0)
	}
}

// leaseTTL is longer than the load, also where clocks are coarse.
func (o *Of[V]) leaseTTL() time.Duration { return o.loadTimeout() + 2*time.Second }

// newStub makes a stub under the key itself, so that a Delete by anybody removes it and a swap for the value then fails. The
// one who has the lease is recognised by the stub's text, and swaps by the stub's version.
func (o *Of[V]) newStub(key string) Item {
	text := fmt.Appendf(nil, "%016x%016x", rand.Uint64(), rand.Uint64())
	return Item{Key: key, Value: text, Flags: flagStub, TTL: o.leaseTTL()}
}

// isStub reports whether somebody loads the value.
func isStub(item Item) bool {
	return item.Flags == flagStub && len(item.Value) > 0 || item.Flags == 0 && len(item.Value) == 0 && item.Version != nil
}

// acquire takes the lease on the key and returns the stub that stands for it, or returns the value that another process
// has loaded meanwhile. Without either, the value is loaded without a lease and not stored.
func (o *Of[V]) acquire(ctx context.Context, f *flight[V], p *place, r reading) (_ reading, leased bool) {
	stub := o.newStub(p.full)
	var lost error // why there is no lease
	none := func() (reading, bool) { return reading{gens: r.gens, err: lost}, false }
	var (
		other    any       // the latest stub of somebody else,
		overdue  time.Time // and when whoever put it there must have ended
		giveUp   = time.Now().Add(2 * o.loadTimeout())
		pause    = 5 * time.Millisecond
		attempts = 4 // to take the lease; it may be lost as soon as it is taken, to Deletes or for want of memory
	)
	for attempts > 0 && time.Now().Before(giveUp) {
		if won, ok := o.takeWon(f); ok {
			return reading{item: won, gens: r.gens}, true
		}
		_, _, isValue := o.unseal(r.item, r.gens)
		err := r.err
		lease := false
		switch {
		case r.won:
			return r, true
		case errors.Is(err, ErrMiss):
			attempts--
			if _, lease = o.Store.(Leaser); !lease || len(p.tags) > 0 || attempts < 3 {
				lease, err = false, o.Store.Add(ctx, stub)
			} else {
				err = nil
			}
		case err != nil:
			lost = err
			return none()
		case isValue:
			return r, false
		case r.item.Flags == flagStub && string(r.item.Value) == string(stub.Value):
			return r, true
		case isStub(r.item):
			if id := stubID(r.item); id != other {
				other, overdue = id, time.Now().Add(o.loadTimeout())
				o.counts.waits.Add(1)
			}
			if !time.Now().Before(overdue) {
				attempts--
				stub.Version = r.item.Version
				err = o.Store.CompareAndSwap(ctx, stub)
				break
			}
			select {
			case <-ctx.Done():
				return none()
			case <-time.After(pause/2 + rand.N(pause)):
			}
			pause = min(2*pause, 100*time.Millisecond)
		default: // given up, or nothing of ours
			attempts--
			stub.Version = r.item.Version
			err = o.Store.CompareAndSwap(ctx, stub)
		}
		if err != nil && !errors.Is(err, ErrMiss) && !errors.Is(err, ErrNotStored) {
			lost = err
			return none()
		}
		o.begin(f)
		r = o.read(ctx, p, lease)
	}
	return none()
}

// stubID tells stubs apart: by their text, or where they have none by their version, which a store's own may be compared by.
func stubID(item Item) any {
	if len(item.Value) > 0 {
		return string(item.Value)
	}
	return ""
}

func (o *Of[V]) takeWon(f *flight[V]) (Item, bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if n := len(f.won); n > 0 {
		item := f.won[n-1]
		f.won = f.won[:n-1]
		return item, true
	}
	return Item{}, false
}
