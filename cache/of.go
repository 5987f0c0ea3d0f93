package cache

import (
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"
)

// Of is a read-through cache of values of one type, kept in a Store as JSON. It is safe for concurrent use and must not
// be copied or changed once it is used.
type Of[V any] struct {
	// Store is where the values are kept. Required.
	Store Store
	// Prefix is put before every key, so that several types share a store: "page:".
	Prefix string
	// TTL is how long a value may be returned; 0 means a minute. Each value is given up to a tenth less, so that what was
	// stored together does not expire together. It is also the bound where the package's guarantee does not hold.
	TTL time.Duration
	// LoadTimeout bounds each load; 0 means 10 seconds. It is also how long other processes wait for one that died while
	// it loaded, before one of them loads instead. All processes should have the same.
	LoadTimeout time.Duration

	mu      sync.Mutex
	flights map[string]*flight[V]
}

const (
	defaultTTL         = time.Minute
	defaultLoadTimeout = 10 * time.Second
)

// The Flags of what Of stores. Anything else under one of its keys is a miss and is replaced.
const (
	flagStub  uint32 = 0x5ca1_0000 // whoever put it there loads the value; an empty one was given up
	flagValue uint32 = 0x5ca1_0001 // a value as JSON
)

// Get returns the value that is cached under the key or, if there is none, the one that load returns, which it caches.
//
// Of all callers in all processes that want a missing value at once, one loads it and the others wait. Load has a
// context of its own: it carries the values of the caller's, ends after LoadTimeout, and is cancelled when no caller
// waits for the value any more. A caller whose context ends leaves with its cause; the last one waits until load has
// returned, so that nothing runs on behind its back. An error of load is returned and not cached; a panic goes through to
// the callers.
//
// A value that the store cannot take is returned all the same; so is one that is loaded because servers fail. Each
// caller gets a copy of its own.
func (o *Of[V]) Get(ctx context.Context, key string, load func(context.Context) (V, error)) (V, error) {
	var zero V
	full, err := o.key(key)
	if err != nil {
		return zero, &Error{Op: "Get", Err: err}
	}
	if load == nil {
		return zero, &Error{Op: "Get", Key: full, Err: fmt.Errorf("%w: load is nil, want a function", ErrInvalid)}
	}
	for waited := false; ; waited = true {
		item, err := o.Store.Get(ctx, full)
		if ctx.Err() != nil {
			return zero, &Error{Op: "Get", Key: full, Err: context.Cause(ctx)}
		}
		if v, ok := decode[V](item); err == nil && ok {
			return v, nil
		}
		f, since := o.board(ctx, full, load, item, err)
		select {
		case <-f.done:
		case <-ctx.Done():
			o.leave(full, f)
			return zero, &Error{Op: "Get", Key: full, Err: context.Cause(ctx)}
		}
		// A flight that this caller has boarded half-way may bring a value from before a Delete that this caller knows
		// of. The next one begins after this call did, whoever begins it.
		if f.certain || f.asOf > since || waited {
			return f.result(since == 0)
		}
	}
}

// Delete removes the value under the key and voids the lease of a load that is under way. Write to the database first,
// then Delete; a load that reads from a replica which lags brings the old value back. If Delete fails, the old value may
// be returned until its TTL ends.
func (o *Of[V]) Delete(ctx context.Context, key string) error {
	full, err := o.key(key)
	if err != nil {
		return &Error{Op: "Delete", Err: err}
	}
	return o.Store.Delete(ctx, full)
}

// key checks the configuration and gives the key in the store.
func (o *Of[V]) key(key string) (string, error) {
	switch {
	case o.Store == nil:
		return "", fmt.Errorf("%w: Of.Store is nil, want a store", ErrInvalid)
	case o.TTL < 0:
		return "", fmt.Errorf("%w: Of.TTL is %v, want 0 or more", ErrInvalid, o.TTL)
	case o.LoadTimeout < 0:
		return "", fmt.Errorf("%w: Of.LoadTimeout is %v, want 0 or more", ErrInvalid, o.LoadTimeout)
	case key == "":
		return "", fmt.Errorf("%w: key is empty", ErrInvalid)
	}
	full := o.Prefix + key
	return full, CheckKey(full)
}

// ttl is the TTL of one value, with its jitter.
func (o *Of[V]) ttl() time.Duration {
	ttl := o.TTL
	if ttl == 0 {
		ttl = defaultTTL
	}
	return ttl - rand.N(ttl/10+1)
}

func (o *Of[V]) loadTimeout() time.Duration {
	if o.LoadTimeout == 0 {
		return defaultLoadTimeout
	}
	return o.LoadTimeout
}

func decode[V any](item Item) (v V, ok bool) {
	if item.Flags != flagValue {
		return v, false
	}
	err := json.Unmarshal(item.Value, &v)
	return v, err == nil
}
