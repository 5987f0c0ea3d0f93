package farm

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/scalr-go/scalr"
	"github.com/scalr-go/scalr/cronlock"
	"github.com/scalr-go/scalr/provider"
)

// running is a Run that is under way.
type running struct {
	stop context.CancelCauseFunc
	done chan struct{}
}

// Run keeps the farm as its spec says until the context ends, and returns the context's cause; or nil after Terminate, and
// when it has ended the farm itself, since Spec.End has passed. It
// runs the managers of the farm's databases, makes a pass each Interval, and makes one earlier when the last one changed
// something or a database has a new primary. What fails is told as an event and tried again: Run does not end for it.
//
// With a Locker, Run waits for the lock "farm/<name>", acts only while it holds it, and waits for it again when it is
// lost. A second Run of one Farm is an error.
func (f *Farm) Run(ctx context.Context) error { return f.run(ctx, f.hold) }

// run is Run with a way to hold the lease.
func (f *Farm) run(ctx context.Context, hold func(context.Context, func(context.Context) error) error) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	r := &running{stop: cancel, done: make(chan struct{})}
	f.mu.Lock()
	switch {
	case f.ending != nil:
		f.mu.Unlock()
		return ErrEnded
	case f.running != nil:
		f.mu.Unlock()
		return errors.New("the farm runs already")
	}
	f.running = r
	f.mu.Unlock()
	defer func() {
		f.mu.Lock()
		f.running = nil
		f.mu.Unlock()
		close(r.done)
	}()
	for ctx.Err() == nil {
		err := hold(ctx, f.live)
		switch {
		case ctx.Err() != nil:
			continue
		case err == nil:
			return nil // it has ended
		}
		if !errors.Is(err, cronlock.ErrHeld) {
			f.emit(scalr.Event{Time: time.Now(), Kind: LeaseLost, Farm: f.spec.Name, Message: "waits for the lease again", Err: err.Error()})
		}
		sleep(ctx, f.config.Interval)
	}
	if cause := context.Cause(ctx); !errors.Is(cause, ErrEnded) {
		return cause
	}
	return nil
}

// hold runs work while the farm's lease is held.
func (f *Farm) hold(ctx context.Context, work func(context.Context) error) error {
	if isNil(f.config.Locker) {
		return work(ctx)
	}
	return f.config.Locker.Hold(ctx, f.lease(), f.held(work))
}

func (f *Farm) lease() string { return "farm/" + f.spec.Name }

// held is work that tells of the lease first.
func (f *Farm) held(work func(context.Context) error) func(context.Context, cronlock.Lease) error {
	return func(ctx context.Context, l cronlock.Lease) error {
		f.emit(scalr.Event{Time: time.Now(), Kind: LeaseHeld, Farm: f.spec.Name, Subject: l.Name, Message: "this program runs the farm"})
		return work(ctx)
	}
}

// live runs the farm until its end has come, and ends it then.
func (f *Farm) live(ctx context.Context) error {
	// What was known under an earlier lease is old: meanwhile another program has run the farm.
	if err := f.take(ctx); err != nil {
		return err
	}
	f.forget()
	f.give()
	if f.spec.End == nil {
		return f.loop(ctx)
	}
	until, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	var waiting sync.WaitGroup
	defer waiting.Wait()
	defer stop(nil)
	waiting.Go(func() {
		if f.awaitEnd(until) {
			stop(ErrEnded)
		}
	})
	if err := f.loop(until); !errors.Is(err, ErrEnded) || ctx.Err() != nil {
		return err
	}
	end := &f.spec.End.TerminateOptions
	f.mu.Lock()
	if f.ending == nil {
		f.ending = end
	}
	f.mu.Unlock()
	err := f.end(ctx)
	f.mu.Lock()
	defer f.mu.Unlock()
	if err != nil && f.ending == end {
		f.ending = nil // whoever has the lease next goes on
	}
	return err
}

// awaitEnd reports that Spec.End has passed and no other farm depends on this one, which it tells of as long as one does. Until
// then the farm is kept as it is.
func (f *Farm) awaitEnd(ctx context.Context) bool {
	for !f.over() {
		// The clock may be set meanwhile.
		if sleep(ctx, min(time.Until(f.spec.End.At.Round(0)), f.config.Interval)); ctx.Err() != nil {
			return false
		}
	}
	return f.mayEnd(ctx, f.spec.End.TerminateOptions, true) == nil
}

// loop runs the managers and makes passes until the context ends.
func (f *Farm) loop(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	for _, m := range f.config.Databases {
		wg.Go(func() {
			for ctx.Err() == nil {
				if err := m.Run(ctx); err != nil && ctx.Err() == nil {
					f.emit(scalr.Event{Time: time.Now(), Kind: PassFailed, Farm: f.spec.Name, Message: "a database manager ended", Err: err.Error()})
					sleep(ctx, f.config.Interval)
				}
			}
		})
	}
	changed, wake := make(chan struct{}, 1), make(chan struct{}, 1)
	wg.Go(func() { f.publishing(ctx, changed) })
	for _, m := range f.config.Databases {
		wg.Go(func() {
			for {
				_, next := m.Topology()
				select {
				case <-next:
				case <-ctx.Done():
					return
				}
				for _, c := range []chan struct{}{changed, wake} {
					select {
					case c <- struct{}{}:
					default:
					}
				}
			}
		})
	}
	for ctx.Err() == nil {
		p, err := f.pass(ctx)
		timer := time.NewTimer(f.pause(p, err))
		select {
		case <-timer.C:
		case <-ctx.Done():
		case <-wake:
		}
		timer.Stop()
	}
	return context.Cause(ctx)
}

// publishing moves the names whenever a database has changed, however long a pass takes.
func (f *Farm) publishing(ctx context.Context, changed <-chan struct{}) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-changed:
		}
		if err := f.publish(ctx); err != nil && ctx.Err() == nil {
			f.emit(scalr.Event{Time: time.Now(), Kind: StepFailed, Farm: f.spec.Name, Message: "names could not follow the primary", Err: err.Error()})
		}
	}
}

// pause says how long to wait for the next pass: a tenth of the interval while things are under way.
func (f *Farm) pause(p Plan, err error) time.Duration {
	if errors.Is(err, provider.ErrThrottled) {
		return f.config.Interval
	}
	for _, s := range p.Steps {
		if s.Err == "" {
			return f.config.Interval / 10
		}
	}
	if p.soon {
		return f.config.Interval / 10
	}
	return f.config.Interval
}

func sleep(ctx context.Context, d time.Duration) {
	select {
	case <-time.After(d):
	case <-ctx.Done():
	}
}
