package cronlock

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"time"
)

// execute runs a claimed run with its retries, and records its end. The context is the lease's.
func (r *runner) execute(ctx context.Context, j *Job, c Claim) {
	// A run that is replaced ends as a whole: its retries too.
	runCtx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	r.mu.Lock()
	r.runs[c.key()] = cancel
	r.mu.Unlock()

	for retries := 0; ; retries++ {
		_ = ctx.Err() // which may know that the lease has ended, after a standstill, before it is told
		err := context.Cause(runCtx)
		if err == nil {
			r.event(RunStarted, c, fmt.Sprintf("attempt %d", c.Attempt), nil)
			err = r.once(runContext{runCtx, ctx}, j, c)
		}
		if errors.Is(context.Cause(ctx), ErrLost) {
			return // the run is somebody else's to judge, by now
		}
		if err != nil && runCtx.Err() == nil && retries < j.Retries {
			to := c
			to.Attempt, to.Error = c.Attempt+1, err.Error()
			next, ok := r.record(ctx, c, to)
			if !ok {
				return
			}
			r.event(RunRetried, next, fmt.Sprintf("attempt %d follows", next.Attempt), err)
			c = next
			c.Error = ""
			if err = sleep(runCtx, cmp.Or(j.Backoff, time.Second)<<min(retries, 6)); err == nil {
				continue
			}
			if errors.Is(err, ErrLost) {
				return
			}
		}
		r.finish(ctx, j, c, err)
		return
	}
}

// runContext is a run's context, whose Err asks the lease's.
type runContext struct {
	context.Context
	lease context.Context
}

func (c runContext) Err() error {
	_ = c.lease.Err()
	return c.Context.Err()
}

// finish records the end of a run.
func (r *runner) finish(ctx context.Context, j *Job, c Claim, err error) {
	to, kind := c, RunSucceeded
	to.Status, to.Ended = Succeeded, time.Now()
	switch {
	case err == nil:
	case r.stop.Err() != nil && j.AtLeastOnce:
		to.Status, to.Ended, kind = Requested, time.Time{}, RunFailed
		err = fmt.Errorf("the runner stops, and hands the run back: %w", err)
	default:
		to.Status, to.Error, kind = Failed, err.Error(), RunFailed
	}
	if now, ok := r.record(ctx, c, to); ok {
		r.event(kind, now, fmt.Sprintf("%s after %s", now.Status, time.Since(c.Claimed).Round(time.Millisecond)), err)
	}
}

// once makes one attempt.
func (r *runner) once(ctx context.Context, j *Job, c Claim) (err error) {
	if j.Timeout > 0 {
		timed, cancel := context.WithTimeoutCause(ctx, j.Timeout, ErrTimeout)
		defer cancel()
		ctx = runContext{timed, ctx}
	}
	run := Run{Claim: c, Output: io.Discard}
	if r.Output != nil {
		if w := r.Output(c); w != nil {
			run.Output = w
			defer func() { err = errors.Join(err, w.Close()) }()
		}
	}
	defer func() {
		if v := recover(); v != nil {
			err = fmt.Errorf("panic: %v", v)
		}
		if cause := context.Cause(ctx); err != nil && cause != nil && !errors.Is(err, cause) {
			err = fmt.Errorf("%w: %w", cause, err)
		}
	}()
	return j.Run(ctx, run)
}

// record changes the record of a run of this runner, whatever was asked of it meanwhile. It tries until it knows the
// outcome, as long as the lease lasts, and for some seconds after Cron.Run's context has ended.
func (r *runner) record(ctx context.Context, was, to Claim) (Claim, bool) {
	write, stopping := ctx, r.stop.Err() != nil
	if stopping {
		var cancel context.CancelFunc
		write, cancel = context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
		defer cancel()
	}
	for write.Err() == nil {
		c, err := r.Claimer.Update(write, was, to)
		if err == nil {
			return c, true
		}
		if errors.Is(err, ErrClaimed) {
			now, err := r.Claimer.Get(write, was.Key)
			switch {
			case errors.Is(err, ErrNoClaim):
				return Claim{}, false
			case err != nil:
			case now.Runner == to.Runner && now.Attempt == to.Attempt && now.Status == to.Status:
				return now, true // an earlier try was done after all
			case now.Runner != was.Runner || now.Attempt != was.Attempt || !now.Status.Active():
				return Claim{}, false // somebody else's
			default:
				was = now
				if to.Status == Running {
					to.Status, to.Attempt, to.Ended, to.Error = Failed, was.Attempt, time.Now(), ErrReplaced.Error()
				}
				continue
			}
		}
		if sleep(write, stagger/5) != nil && !stopping && r.stop.Err() != nil {
			return r.record(ctx, was, to)
		}
	}
	return Claim{}, false
}
