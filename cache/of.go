package cache

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// Of is a read-through cache of values of one type. Only Store is required. It is safe for concurrent use and must not be
// copied or changed once it is used.
type Of[V any] struct {
	// Store is where the values are kept. Required.
	Store Store
	// Prefix is put before every key, so that several types share a store: "page:".
	Prefix string
	// TTL is how long a value is fresh; 0 means a minute. Each value is given up to a tenth less, so that what was stored
	// together does not expire together. It is also the bound where the package's guarantee does not hold.
	TTL time.Duration
	// Ahead is how long before the end of its TTL a value is loaded anew, while it is fresh: by one caller, who waits for the
	// load; all others get the value that there is. See Run for loads that nobody waits for. 0 means never. At most half of TTL.
	Ahead time.Duration
	// Stale is how long after its TTL a value may still be returned, while one caller loads it anew, or to that caller when
	// the load fails. 0 means not at all. A Delete removes the value all the same.
	Stale time.Duration
	// NegativeTTL is how long it is remembered that load returned ErrNotFound; 0 means not at all.
	NegativeTTL time.Duration
	// ErrorTTL is how long any other error of load is remembered, so that what is down is not asked by everybody again; 0 means not
	// at all. For so long Get returns an Error with ErrLoadFailed and the text of the first one, up to a kilobyte, which is stored
	// with the values. A load that nobody waited for to its end is not remembered, and no failure takes the place of a value.
	ErrorTTL time.Duration
	// LoadTimeout bounds each load; 0 means 10 seconds. It is also how long other processes wait for one that died while
	// it loaded, before one of them loads instead. All processes should have the same.
	LoadTimeout time.Duration
	// Codec encodes the values; nil means JSON. What another codec has stored is a miss, and so is a value of a type that looks
	// different: of another kind, or with other exported fields or tags. So programs of which one has a field more have values of their
	// own, by turns, if they use the same keys; another Prefix keeps them apart.
	Codec Codec[V]
	// Version is to be changed with the meaning of values where their type stays as it is: what was stored under another one is a miss.
	Version int
	// Compress is the size in bytes above which encoded values are compressed, with DEFLATE; 0 means never.
	Compress int
	// Tags names what the value under a key depends on, 255 at most: tables, a tenant, all values of one kind. Invalidate of
	// one of them is like Delete of all that depend on it. A Get then reads a generation for each tag along with the value, in
	// one GetMulti. Nil means none. It must always give the same for a key.
	Tags func(key string) []string
	// Namespace is a tag that all values have beside those of Tags: "pages". InvalidateAll makes a miss of all of them at once,
	// and so does Invalidate of that tag by somebody who has the store only. Empty means none.
	Namespace string
	// Near keeps decoded values in the process; nil means that none are. See cache/near.
	Near Near[V]
	// NearTTL is how long Near may have a value, and so how long after a Delete by another process a Get may return an older
	// one; 0 means a second.
	NearTTL time.Duration

	mu      sync.Mutex
	flights map[string]*flight[V]
	voids   uint64 // counts the Deletes, so that Near gets nothing that was read before one
	jobs    atomic.Pointer[chan func()]
	counts  counts

	schemaOnce sync.Once
	schemaHash uint32
}

// Near is a cache in the process. Its values are shared by all callers, who must not change them. It is safe for concurrent use.
type Near[V any] interface {
	// Get returns the value until its end has come.
	Get(key string) (v V, ok bool)
	Set(key string, v V, end time.Time)
	Delete(key string)
	Clear()
}

const (
	defaultTTL         = time.Minute
	defaultLoadTimeout = 10 * time.Second
	defaultNearTTL     = time.Second
)

// The Flags of what Of stores. Anything else under one of its keys is a miss and is replaced. An empty item without flags is
// the stub of a Leaser.
const (
	flagStub  uint32 = 0x5ca1_0000 // whoever put it there loads the value; an empty one was given up
	flagValue uint32 = 0x5ca1_0002 // an envelope
)

// ErrNotFound is what load returns where there is no value, itself or wrapped; Get returns it in an Error. It is cached for
// Of.NegativeTTL.
var ErrNotFound = errors.New("not found")

// ErrLoadFailed: load has failed shortly before, here or in another process, and is not called for the moment. See Of.ErrorTTL.
var ErrLoadFailed = errors.New("load has failed shortly before")

// Get returns the value that is cached under the key or, if there is none, the one that load returns, which it caches.
// Any string is a key; one that CheckKey refuses is stored under its SHA-256 and has its own name in errors.
//
// Of all callers in all processes that want a missing value at once, one loads it and the others wait. Load has a
// context of its own: it carries the values of the caller's, ends after LoadTimeout, and is cancelled when no caller
// waits for the value any more. A caller whose context ends leaves with its cause; the last one waits until load has
// returned, so that nothing runs on behind its back. An error of load is returned; it is cached only as NegativeTTL and ErrorTTL
// say. A panic goes through to the callers.
//
// A value that the store cannot take is returned all the same; so is one that is loaded because servers fail. Each
// caller gets a copy of its own, unless there is Near.
func (o *Of[V]) Get(ctx context.Context, key string, load func(context.Context) (V, error)) (V, error) {
	if o.Near != nil {
		if v, ok := o.Near.Get(key); ok && ctx.Err() == nil {
			o.counts.near.Add(1)
			return v, nil
		}
	}
	return o.get(ctx, key, o.tags(key), load)
}

func (o *Of[V]) get(ctx context.Context, key string, tags []string, load func(context.Context) (V, error)) (V, error) {
	var zero V
	full, err := o.key(key)
	if err == nil && load == nil {
		err = fmt.Errorf("%w: load is nil, want a function", ErrInvalid)
	}
	if err == nil {
		err = checkTags(tags)
	}
	if err != nil {
		return zero, &Error{Op: "Get", Key: key, Err: err}
	}
	p := &place{key: key, full: full, tags: tags}
	start, voids := time.Now(), o.void(0)
	for waited := false; ; waited = true {
		r := o.read(ctx, p, !waited)
		if ctx.Err() != nil {
			o.giveUp(ctx, r)
			return zero, &Error{Op: "Get", Key: o.Prefix + key, Err: context.Cause(ctx)}
		}
		if v, e, ok := o.unseal(r.item, r.gens); r.err == nil && ok {
			if !waited {
				o.counts.hit(e, start)
			}
			if err := e.failure(); err != nil {
				return zero, &Error{Op: "Get", Key: o.Prefix + key, Err: err}
			}
			v, err := o.maybeRenew(ctx, p, r, e, v, load)
			if err == nil {
				o.keepNear(key, v, start, voids)
			}
			return v, err
		}
		if !waited {
			o.counts.misses.Add(1)
		}
		f, since := o.board(ctx, p, load, r)
		select {
		case <-f.done:
		case <-ctx.Done():
			o.leave(full, f)
			return zero, &Error{Op: "Get", Key: o.Prefix + key, Err: context.Cause(ctx)}
		}
		// A flight that this caller has boarded half-way may bring a value from before a Delete that this caller knows
		// of. The next one begins after this call did, whoever begins it. An Invalidate shows in the generations, which this
		// caller has read since its call began.
		if f.certain && slices.Equal(f.gens, r.gens) || f.asOf > since || waited {
			v, err := f.result(o, since == 0)
			if err == nil {
				o.keepNear(key, v, start, voids)
			}
			return v, err
		}
	}
}

// Set stores a value, whatever there is, and voids the lease of a load that is under way. Of two writers at once, the one
// that changed the database first may come last: where that matters, Delete.
func (o *Of[V]) Set(ctx context.Context, key string, v V) error {
	full, err := o.key(key)
	tags := o.tags(key)
	if err == nil {
		err = checkTags(tags)
	}
	var gens []uint64
	if err == nil {
		gens, err = o.generations(ctx, tags, nil)
	}
	if err != nil {
		return &Error{Op: "Set", Key: o.Prefix + key, Err: err}
	}
	o.forget(key)
	stored, ttl, err := o.seal(v, nil, gens)
	if err == nil {
		err = o.Store.Set(ctx, Item{Key: full, Value: stored, Flags: flagValue, TTL: ttl})
	}
	o.forget(key)
	return named("Set", o.Prefix+key, full, err)
}

// Delete removes the value under the key and voids the lease of a load that is under way. Write to the database first,
// then Delete; a load that reads from a replica which lags brings the old value back. If Delete fails, the old value may
// be returned until its TTL ends.
func (o *Of[V]) Delete(ctx context.Context, key string) error {
	full, err := o.key(key)
	if err != nil {
		return &Error{Op: "Delete", Key: key, Err: err}
	}
	err = o.Store.Delete(ctx, full)
	o.forget(key)
	return named("Delete", o.Prefix+key, full, err)
}

// named gives an error the caller's name of a key that is stored under another one.
func named(op, key, full string, err error) error {
	if err == nil || key == full {
		return err
	}
	return &Error{Op: op, Key: key, Err: err}
}

// forget removes a key from Near, and keeps out of it what was read before.
func (o *Of[V]) forget(key string) {
	if o.Near != nil {
		o.void(1)
		o.Near.Delete(key)
	}
}

func (o *Of[V]) void(n uint64) uint64 {
	if o.Near == nil {
		return 0
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	o.voids += n
	return o.voids
}

// keepNear gives Near a value that was read after start, unless something was deleted since.
func (o *Of[V]) keepNear(key string, v V, start time.Time, voids uint64) {
	if o.Near == nil {
		return
	}
	ttl := o.NearTTL
	if ttl == 0 {
		ttl = defaultNearTTL
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	if end := start.Add(ttl); o.voids == voids && time.Now().Before(end) {
		o.Near.Set(key, v, end)
	}
}

// key checks the configuration and gives the key in the store.
func (o *Of[V]) key(key string) (string, error) {
	if o.Store == nil {
		return "", fmt.Errorf("%w: Of.Store is nil, want a store", ErrInvalid)
	}
	if min(o.TTL, o.Ahead, o.Stale, o.NegativeTTL, o.ErrorTTL, o.LoadTimeout, o.NearTTL, time.Duration(o.Compress)) < 0 {
		return "", o.negative()
	}
	if ttl := o.fullTTL(); o.Ahead > ttl/2 {
		return "", fmt.Errorf("%w: Of.Ahead is %v, want at most half of TTL, %v", ErrInvalid, o.Ahead, ttl)
	}
	if key == "" {
		return "", fmt.Errorf("%w: key is empty", ErrInvalid)
	}
	full := o.Prefix + key
	if key[0] == '#' || CheckKey(full) != nil {
		sum := sha256.Sum256([]byte(key))
		full = o.Prefix + "#" + base64.RawURLEncoding.EncodeToString(sum[:])
		if err := CheckKey(full); err != nil {
			return "", fmt.Errorf("Of.Prefix with the hash of a key: %w", err)
		}
	}
	return full, nil
}

// negative says which option is below zero.
func (o *Of[V]) negative() error {
	for _, d := range []struct {
		name  string
		value time.Duration
	}{
		{"TTL", o.TTL}, {"Ahead", o.Ahead}, {"Stale", o.Stale}, {"NegativeTTL", o.NegativeTTL}, {"ErrorTTL", o.ErrorTTL}, {"LoadTimeout", o.LoadTimeout},
		{"NearTTL", o.NearTTL},
	} {
		if d.value < 0 {
			return fmt.Errorf("%w: Of.%s is %v, want 0 or more", ErrInvalid, d.name, d.value)
		}
	}
	return fmt.Errorf("%w: Of.Compress is %d, want 0 or more", ErrInvalid, o.Compress)
}

func (o *Of[V]) tags(key string) []string {
	var tags []string
	if o.Tags != nil {
		tags = o.Tags(key)
	}
	if o.Namespace == "" {
		return tags
	}
	return append([]string{o.Namespace}, tags...)
}

func (o *Of[V]) fullTTL() time.Duration {
	if o.TTL == 0 {
		return defaultTTL
	}
	return o.TTL
}

// ttl is the TTL of one value, with its jitter.
func (o *Of[V]) ttl() time.Duration {
	ttl := o.fullTTL()
	return ttl - rand.N(ttl/10+1)
}

func (o *Of[V]) loadTimeout() time.Duration {
	if o.LoadTimeout == 0 {
		return defaultLoadTimeout
	}
	return o.LoadTimeout
}
