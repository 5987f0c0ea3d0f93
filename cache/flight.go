package cache

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"
)

// flight is what all callers of this process that wait for one key have in common. It runs in a goroutine of its own,
// which ends before the last of them returns.
type flight[V any] struct {
	cancel  context.CancelFunc
	callers int // guarded by Of.mu
	step    int // guarded by Of.mu: how many reads and loads it has begun

	done     chan struct{} // closed when what follows is set
	value    V
	encoded  []byte // the value as JSON, for all callers but the first
	err      error
	panicked any
	asOf     int  // the step that brought the result
	certain  bool // no Delete was acknowledged from the beginning of the load to its end
}

// board makes the caller wait for the flight of the key and begins one if there is none, with what the caller has just
// read. It also says how many steps that flight had begun before: 0 for who began it.
func (o *Of[V]) board(
	ctx context.Context, key string, load func(context.Context) (V, error), read Item, readErr error,
) (f *flight[V], since int) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if f := o.flights[key]; f != nil {
		f.callers++
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
		o.fly(ctx, f, key, load, read, readErr)
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
func (f *flight[V]) result(first bool) (v V, err error) {
	if f.panicked != nil {
		panic(f.panicked)
	}
	if first || f.err != nil {
		return f.value, f.err
	}
	err = json.Unmarshal(f.encoded, &v)
	return v, err
}

// fly brings the value: from the store if another process is loading it, else by loading it, under a lease if the store
// gives one.
func (o *Of[V]) fly(
	ctx context.Context, f *flight[V], key string, load func(context.Context) (V, error), read Item, readErr error,
) {
	lease, leased := o.acquire(ctx, f, key, read, readErr)
	if v, ok := decode[V](lease); ok {
		f.value, f.encoded = v, lease.Value
		return
	}
	o.begin(f)
	defer func() {
		f.panicked = recover()
		if f.err == nil && f.panicked == nil {
			lease.Value, lease.Flags, lease.TTL = f.encoded, flagValue, o.ttl()
		} else {
			lease.Value, lease.TTL = nil, time.Second // given up: the next one need not wait
		}
		if !leased {
			return
		}
		// Nobody may wait any more, but others want the value, or the lease.
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), o.loadTimeout())
		defer cancel()
		err := o.Store.CompareAndSwap(ctx, lease)
		if lease.Flags == flagValue && err != nil && !errors.Is(err, ErrMiss) && !errors.Is(err, ErrNotStored) {
			lease.Value, lease.Flags, lease.TTL = nil, flagStub, time.Second
			err = o.Store.CompareAndSwap(ctx, lease)
		}
		f.certain = err == nil
	}()
	if f.err = ctx.Err(); f.err != nil {
		return // everybody has left
	}
	f.err = errors.New("load ended its goroutine instead of returning")
	loadCtx, cancel := context.WithTimeout(ctx, o.loadTimeout())
	defer cancel()
	if f.value, f.err = load(loadCtx); f.err != nil {
		return
	}
	if f.encoded, f.err = json.Marshal(f.value); f.err != nil {
		f.err = &Error{Op: "Get", Key: key, Err: f.err}
	}
}

// acquire takes the lease on the key and returns the stub that stands for it, or returns the value that another process
// has loaded meanwhile. Without either, the value is loaded without a lease and not stored.
//
// The lease is a stub under the key itself, so that a Delete by anybody removes it and a swap for the value then fails.
// The one who has it is recognised by the stub's text, and swaps by the stub's version.
func (o *Of[V]) acquire(ctx context.Context, f *flight[V], key string, read Item, err error) (_ Item, leased bool) {
	stub := Item{Key: key, Value: fmt.Appendf(nil, "%016x%016x", rand.Uint64(), rand.Uint64()), Flags: flagStub}
	stub.TTL = o.loadTimeout() + 2*time.Second // longer than the load, also where clocks are coarse
	var (
		other    string    // the latest stub of somebody else,
		overdue  time.Time // and when whoever put it there must have ended
		giveUp   = time.Now().Add(2 * o.loadTimeout())
		pause    = 5 * time.Millisecond
		attempts = 4 // to take the lease; it may be lost as soon as it is taken, to Deletes or for want of memory
	)
	for attempts > 0 && time.Now().Before(giveUp) {
		if text := string(read.Value); read.Flags == flagStub && text != other {
			other, overdue = text, time.Now().Add(o.loadTimeout())
		}
		_, isValue := decode[V](read)
		switch {
		case errors.Is(err, ErrMiss):
			attempts--
			err = o.Store.Add(ctx, stub)
		case err != nil:
			return Item{}, false
		case isValue:
			return read, false
		case read.Flags == flagStub && string(read.Value) == string(stub.Value):
			return read, true
		case read.Flags == flagStub && len(read.Value) > 0 && time.Now().Before(overdue):
			select {
			case <-ctx.Done():
				return Item{}, false
			case <-time.After(pause/2 + rand.N(pause)):
			}
			pause = min(2*pause, 100*time.Millisecond)
		default: // given up, overdue, or nothing of ours
			attempts--
			stub.Version = read.Version
			err = o.Store.CompareAndSwap(ctx, stub)
		}
		if err != nil && !errors.Is(err, ErrMiss) && !errors.Is(err, ErrNotStored) {
			return Item{}, false
		}
		o.begin(f)
		read, err = o.Store.Get(ctx, key)
	}
	return Item{}, false
}
