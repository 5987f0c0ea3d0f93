package farm

import (
	"context"
	"errors"
	"fmt"
	"sync"
)

// RunAll runs farms side by side, as [Farm.Run] does, until the context ends or all of them have been terminated. It runs those
// whose lease is to be had, and at most so many at once; 0 means all.
//
// Several host programs that call it for the same farms divide them: what one program has is left alone by the others, and
// what a program leaves when it ends is taken up, within Config.Interval after the end of its leases, by those that have
// room. To lose one of three programs without losing a farm, let each run at most half of the farms.
//
// Every farm needs a Locker. Farms of one account should share a Config.Limit.
func RunAll(ctx context.Context, most int, farms ...*Farm) error {
	if most < 0 {
		return fmt.Errorf("most is %d, want 0 or more", most)
	}
	seen := map[string]bool{}
	var faults []error
	for i, f := range farms {
		if isNil(f.config.Locker) {
			faults = append(faults, fmt.Errorf("farms[%d] (%s): its config has no Locker", i, f.spec.Name))
		}
		if seen[f.spec.Name] {
			faults = append(faults, fmt.Errorf("farms[%d]: farm %s is there twice", i, f.spec.Name))
		}
		seen[f.spec.Name] = true
	}
	if len(faults) > 0 {
		return errors.Join(faults...)
	}
	places := make(chan struct{}, or(most, max(len(farms), 1)))
	errs := make([]error, len(farms))
	var wg sync.WaitGroup
	for i, f := range farms {
		wg.Go(func() {
			errs[i] = f.run(ctx, func(ctx context.Context, work func(context.Context) error) error {
				select {
				case places <- struct{}{}:
					defer func() { <-places }()
				case <-ctx.Done():
					return context.Cause(ctx)
				}
				return f.config.Locker.TryHold(ctx, f.lease(), f.held(work))
			})
		})
	}
	wg.Wait()
	return errors.Join(errs...)
}
