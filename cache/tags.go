package cache

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
)

// The generation of a tag is a random number under a key of its own. Each value has those of its tags as they were before it
// was loaded. Who removes a generation makes every value that has it a miss; the next reader makes up another one, which no
// value has.
const flagGeneration uint32 = 0x5ca1_0003

func tagKey(tag string) string {
	if key := "tag:" + tag; tag[0] != '#' && CheckKey(key) == nil {
		return key
	}
	sum := sha256.Sum256([]byte(tag))
	return "tag:#" + base64.RawURLEncoding.EncodeToString(sum[:])
}

func checkTags(tags []string) error {
	if len(tags) > maxTags {
		return fmt.Errorf("%w: %d tags, want at most %d", ErrInvalid, len(tags), maxTags)
	}
	for i, tag := range tags {
		if tag == "" {
			return fmt.Errorf("%w: tag %d of %q is empty", ErrInvalid, i, tags)
		}
	}
	return nil
}

// Invalidate makes a miss of every value in the store, of whatever type, that depends on one of the tags (see Of.Tags), as
// Delete does for one, and with the same guarantee: no Get that begins after it has returned nil returns a value that was loaded
// before. Values in a Near of another Of stay until their NearTTL ends.
func Invalidate(ctx context.Context, store Store, tags ...string) error {
	if err := checkTags(tags); err != nil {
		return &Error{Op: "Invalidate", Err: err}
	}
	var errs []error
	for _, tag := range tags {
		if err := store.Delete(ctx, tagKey(tag)); err != nil {
			errs = append(errs, &Error{Op: "Invalidate", Key: tag, Err: err})
		}
	}
	return errors.Join(errs...)
}

// Invalidate is the function of that name on the cache's store, and clears its Near.
func (o *Of[V]) Invalidate(ctx context.Context, tags ...string) error {
	if o.Store == nil {
		return &Error{Op: "Invalidate", Err: fmt.Errorf("%w: Of.Store is nil, want a store", ErrInvalid)}
	}
	err := Invalidate(ctx, o.Store, tags...)
	if o.Near != nil {
		o.void(1)
		o.Near.Clear()
	}
	return err
}

// InvalidateAll is Invalidate of Of.Namespace: it makes a miss of every value of the namespace at once, however many there are.
func (o *Of[V]) InvalidateAll(ctx context.Context) error {
	if o.Namespace == "" {
		return &Error{Op: "InvalidateAll", Err: fmt.Errorf("%w: Of.Namespace is empty, want a name", ErrInvalid)}
	}
	return o.Invalidate(ctx, o.Namespace)
}

// place is where a value is.
type place struct {
	key, full string
	tags      []string
}

// reading is what the store says about a place.
type reading struct {
	item Item
	err  error // of the item, or of a generation
	gens []uint64
	won  bool // the item is the stub of a lease that this reading has won
}

// read reads a place, and takes the lease on it where the store gives one for nothing and lease is true.
func (o *Of[V]) read(ctx context.Context, p *place, lease bool) (r reading) {
	if len(p.tags) == 0 {
		if l, ok := o.Store.(Leaser); ok && lease {
			r.item, r.won, r.err = l.Lease(ctx, p.full, o.leaseTTL())
		} else {
			r.item, r.err = o.Store.Get(ctx, p.full)
		}
		return r
	}
	keys := []string{p.full}
	for _, tag := range p.tags {
		keys = append(keys, tagKey(tag))
	}
	items, err := o.Store.GetMulti(ctx, keys)
	if r.err = failure(err, p.full); r.err != nil {
		return r
	}
	item, ok := items[p.full]
	if r.gens, r.err = o.generations(ctx, p.tags, items); r.err != nil {
		return r
	}
	if r.item = item; !ok {
		r.err = ErrMiss
	}
	return r
}

// failure is what a GetMulti says about one key.
func failure(err error, key string) error {
	partial, ok := errors.AsType[*PartialError](err)
	if ok {
		return partial.Failed[key]
	}
	return err
}

// generations gives the generations of tags, of which some may be known. Those that there are not are made up.
func (o *Of[V]) generations(ctx context.Context, tags []string, known map[string]Item) ([]uint64, error) {
	var gens []uint64
	for _, tag := range tags {
		key := tagKey(tag)
		item, ok := known[key]
		if gen, ok2 := generation(item); ok && ok2 {
			gens = append(gens, gen)
			continue
		}
		gen, err := makeGeneration(ctx, o.Store, key)
		if err != nil {
			return nil, err
		}
		gens = append(gens, gen)
	}
	return gens, nil
}

func makeGeneration(ctx context.Context, s Store, key string) (uint64, error) {
	for range 10 {
		item, err := s.Get(ctx, key)
		if gen, ok := generation(item); err == nil && ok {
			return gen, nil
		}
		fresh := Item{Key: key, Value: appendGeneration(rand.Uint64()), Flags: flagGeneration, Version: item.Version}
		switch {
		case errors.Is(err, ErrMiss):
			err = s.Add(ctx, fresh)
		case err == nil:
			err = s.CompareAndSwap(ctx, fresh) // nothing of ours
		}
		if err == nil {
			gen, _ := generation(fresh)
			return gen, nil
		}
		if !errors.Is(err, ErrNotStored) && !errors.Is(err, ErrMiss) {
			return 0, err
		}
	}
	return 0, fmt.Errorf("generation %q: %w", key, ErrNotStored)
}

func generation(item Item) (uint64, bool) {
	if item.Flags != flagGeneration || len(item.Value) != 8 {
		return 0, false
	}
	return binary.BigEndian.Uint64(item.Value), true
}

func appendGeneration(gen uint64) []byte { return binary.BigEndian.AppendUint64(nil, gen) }
