package cache

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"
)

// maybeRenew loads a value anew that is stale or about to be, if nobody else does, and gives the new one. If that fails it
// gives the one that there is. While Run runs, the load is left to it.
func (o *Of[V]) maybeRenew(
	ctx context.Context, p *place, r reading, e envelope, v V, load func(context.Context) (V, error),
) (V, error) {
	now := time.Now()
	if now.Before(e.fresh.Add(-o.Ahead)) || now.Before(e.renewing) {
		return v, nil
	}
	if jobs := o.jobs.Load(); jobs != nil {
		ctx := context.WithoutCancel(ctx)
		select {
		case *jobs <- func() { _, _ = o.renew(ctx, p, r, e, v, load) }:
		default: // the next one tries again
		}
		return v, nil
	}
	return o.renew(ctx, p, r, e, v, load)
}

func (o *Of[V]) renew(
	ctx context.Context, p *place, r reading, e envelope, v V, load func(context.Context) (V, error),
) (V, error) {
	// Who swaps the envelope for one with his mark has the lease. Others see the mark, and let him.
	e.renewing, e.renewer = time.Now().Add(o.loadTimeout()), rand.Uint64()
	marked := r.item
	marked.Value = e.append(nil)
	if marked.TTL = time.Until(e.fresh.Add(o.Stale)); marked.TTL <= 0 || o.Store.CompareAndSwap(ctx, marked) != nil {
		return v, nil
	}
	mine, err := o.Store.Get(ctx, p.full)
	if err != nil || !bytes.Equal(mine.Value, marked.Value) {
		return v, nil
	}
	fresh, stored, ttl, err := o.load(ctx, p, load, r.gens)
	if stored != nil && (err == nil || errors.Is(err, ErrNotFound)) {
		// A swap that fails is that of somebody who has deleted or written: what was loaded may be older than that.
		mine.Value, mine.Flags, mine.TTL = stored, flagValue, ttl
		settle, cancel := context.WithTimeout(context.WithoutCancel(ctx), o.loadTimeout())
		defer cancel()
		_ = o.Store.CompareAndSwap(settle, mine)
	}
	if err == nil || errors.Is(err, ErrNotFound) {
		return fresh, err
	}
	return v, nil // and nobody tries again until the mark has ended
}

// Run loads anew what Get finds stale, or about to be, so that no caller waits for that. It returns the cause of ctx when that
// ends; only then do callers load themselves again. Loads see the values of the context of the Get that found the value, and
// workers of them are under way at once.
func (o *Of[V]) Run(ctx context.Context, workers int) error {
	if workers < 1 {
		return &Error{Op: "Run", Err: fmt.Errorf("%w: workers is %d, want 1 or more", ErrInvalid, workers)}
	}
	jobs := make(chan func(), 64*workers)
	if !o.jobs.CompareAndSwap(nil, &jobs) {
		return &Error{Op: "Run", Err: fmt.Errorf("%w: Run is running already", ErrInvalid)}
	}
	defer o.jobs.Store(nil)
	done := make(chan struct{})
	for range workers {
		go func() {
			defer func() { done <- struct{}{} }()
			for {
				select {
				case <-ctx.Done():
					return
				case job := <-jobs:
					job()
				}
			}
		}()
	}
	for range workers {
		<-done
	}
	return context.Cause(ctx)
}
