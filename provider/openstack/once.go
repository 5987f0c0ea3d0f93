package openstack

import (
	"context"
	"errors"
	"time"

	"github.com/scalr-go/scalr/provider"
)

// settle is how long what was made may take to be listed.
const settle = 20 * time.Second

// thing is how things of one kind are made once: see the package's doc.
type thing[T any] struct {
	op, token string
	// find lists what bears the token, the oldest first. What is being deleted is left out.
	find func(context.Context) ([]T, error)
	// post makes one.
	post func(context.Context) error
	// drop deletes one that is too many.
	drop func(context.Context, T) error
	// before, if not nil, is called when there is none, before one is made; it may give what to return instead.
	before func(context.Context) (*T, error)
}

// once finds the thing, or makes it.
func once[T any](ctx context.Context, c *Cloud, t thing[T]) (T, error) {
	var none T
	if err := ctx.Err(); err != nil {
		return none, fail(ctx, t.op, t.token, err)
	}
	key := t.op + " " + t.token
	unlock, err := c.locks.lock(ctx, key)
	if err != nil {
		return none, fail(ctx, t.op, t.token, err)
	}
	defer unlock()
	found, err := t.find(ctx)
	if until, lost := c.unheard.Load(key); err == nil && lost {
		if len(found) == 0 {
			found, err = t.await(ctx, time.Until(until.(time.Time)))
		}
		if err == nil {
			c.unheard.Delete(key)
		}
	}
	if err != nil {
		return none, fail(ctx, t.op, t.token, err)
	}
	if len(found) > 0 {
		return t.oldest(ctx, found)
	}
	if t.before != nil {
		if other, err := t.before(ctx); err != nil || other != nil {
			if other == nil {
				other = &none
			}
			return *other, fail(ctx, t.op, t.token, err)
		}
	}
	unheard := t.post(ctx)
	if unheard != nil {
		unheard = failed(ctx, t.op, t.token, unheard)
		if !errors.Is(unheard, provider.ErrAmbiguous) {
			return none, unheard
		}
	}
	// Whatever the answer was, it is the list that counts. After a good one it comes at once.
	wait := settle
	if unheard != nil {
		// The cloud may go on with the request also when the caller's context has ended: whoever asks next waits for that.
		wait = settle / 4
		until := time.Now().Add(wait)
		c.unheard.Store(key, until)
		time.AfterFunc(wait, func() { c.unheard.CompareAndDelete(key, until) }) // nobody may ask again
	}
	found, err = t.await(ctx, wait)
	switch {
	case len(found) > 0:
		c.unheard.Delete(key)
		return t.oldest(ctx, found)
	case unheard != nil:
		return none, unheard
	case err == nil:
		return none, provider.Errorf(t.op, t.token, provider.ErrAmbiguous, "the cloud has taken the request and lists nothing of it within %s", settle)
	}
	return none, &provider.Error{Op: t.op, ID: t.token, Kind: provider.ErrAmbiguous, Err: fail(ctx, "list", "", err)}
}

// await looks until something bears the token, and for no longer than a time: then it gives nothing.
func (t thing[T]) await(ctx context.Context, d time.Duration) (found []T, err error) {
	wait, cancel := context.WithTimeout(ctx, d)
	defer cancel()
	err = poll(wait, func() (bool, error) {
		found, err = t.find(wait)
		return len(found) > 0, err
	})
	if ctx.Err() == nil && wait.Err() != nil {
		err = nil
	}
	return found, err
}

// oldest keeps the first and deletes the others.
func (t thing[T]) oldest(ctx context.Context, found []T) (T, error) {
	for _, x := range found[1:] {
		if err := t.drop(ctx, x); err != nil {
			var none T
			return none, fail(ctx, t.op, t.token, err)
		}
	}
	return found[0], nil
}
