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
// when it has ended the farm itself, since Spec.End has passed. Outside of
// Spec.Hours it puts the farm away. It runs the managers of the farm's databases, makes a pass each Interval, and makes one earlier when the last one changed
// something or a database has a new primary. What fails is told as an event and tried again: Run does not end for it.
//
// With a Locker, Run waits for the lock "farm/<name>", acts only while it holds it, and waits for it again when it is
// lost. The databases' servers know its fencing token: see replication.Guard. A second Run of one Farm is an error.
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
		f.token = l.Token
		return work(ctx)
	}
}

// live runs the farm until its end has come, and ends it then. As often as it closes it is put away, until it opens.
func (f *Farm) live(ctx context.Context) error {
	defer f.hooks.begin(ctx)()
	for {
		// What was known under an earlier lease, or before the farm was put away, is old.
		if err := f.take(ctx); err != nil {
			return err
		}
		f.forget()
		f.give()
		due, err := f.serve(ctx)
		if err != nil {
			return err
		}
		f.mu.Lock()
		if f.ending == nil {
			f.ending = due
		}
		f.mu.Unlock()
		err = f.end(ctx)
		f.mu.Lock()
		if f.ending == due && (err != nil || due == f.closing) {
			f.ending = nil // whoever has the lease next, or opens the farm, goes on
		}
		f.mu.Unlock()
		switch {
		case err != nil:
			return err
		case due != f.closing:
			release(f.spec.Name)
			f.emit(scalr.Event{Time: time.Now(), Kind: Terminated, Farm: f.spec.Name, Message: "nothing is left of the farm"})
			f.hooks.wait()
			return nil
		}
		f.emit(scalr.Event{Time: time.Now(), Kind: Closed, Farm: f.spec.Name, Message: "the farm has been put away"})
		for f.due() == f.closing {
			if sleep(ctx, f.change()); ctx.Err() != nil {
				return context.Cause(ctx)
			}
		}
		if !f.over() {
			f.emit(scalr.Event{Time: time.Now(), Kind: Opened, Farm: f.spec.Name, Message: "the farm is launched again"})
		}
	}
}

// serve runs the farm until it is due to end, and says how. What is due already when it begins is not launched first.
func (f *Farm) serve(ctx context.Context) (*TerminateOptions, error) {
	if f.spec.End == nil && f.hours == nil {
		return nil, f.loop(ctx)
	}
	if due := f.due(); due != nil {
		if err := f.mayEnd(ctx, *due, due == f.closing); err == nil {
			return due, nil
		} else if !errors.Is(err, ErrDependents) || ctx.Err() != nil {
			return nil, err
		}
	}
	until, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	var waiting sync.WaitGroup
	defer waiting.Wait()
	defer stop(nil)
	var due *TerminateOptions
	waiting.Go(func() {
		if due = f.awaitEnd(until); due != nil {
			stop(ErrEnded)
		}
	})
	if err := f.loop(until); !errors.Is(err, ErrEnded) || ctx.Err() != nil {
		return nil, err
	}
	waiting.Wait()
	return due, nil
}

// awaitEnd waits until the farm is due to end and no other farm depends on this one, which it tells of as long as one does. Until
// then the farm is kept as it is.
func (f *Farm) awaitEnd(ctx context.Context) *TerminateOptions {
	for {
		due := f.due()
		switch {
		case due == nil:
			sleep(ctx, f.change())
		case f.mayEnd(ctx, *due, true) == nil && f.due() == due:
			return due
		}
		if ctx.Err() != nil {
			return nil
		}
	}
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
				if err := m.RunUnder(ctx, f.token); err != nil && ctx.Err() == nil {
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
		case <-f.hooks.freed:
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
