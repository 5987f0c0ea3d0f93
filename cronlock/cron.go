package cronlock

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/scalr-go/scalr"
)

// Cron runs jobs by their schedules, each scheduled instant once, on any number of runners: programs that call Run with
// the same jobs and a Claimer of the same store. It is plain data; all its methods may be called at once.
//
// The runners share the work: for each run they are ranked by a hash, the first claims it when it is due, and the next
// ones look half a second later each. Every claim is a single write, and what a runner does grows with what is due.
//
// "Once" means that a run is claimed exactly once. A runner that dies in the middle leaves a run of which nobody knows
// how far it came: see [Job.AtLeastOnce]. The work marks what it writes elsewhere with the token of the run.
type Cron struct {
	// Claimer is the record that the runners share. Required.
	Claimer Claimer
	// Jobs must be the same for all runners.
	Jobs []Job
	// Limit is how many runs this runner has at once; what is due beyond it is left to others, or waits. 0 is 100.
	Limit int
	// Keep is how many records of each job are kept beyond its Window. 0 is 100.
	Keep int
	// Output gives the place for what a run writes to Run.Output; it is closed after the run. Nil discards it. It is
	// called by several runs at once.
	Output func(Claim) io.WriteCloser
	// Events is told what happens. Nil ignores it.
	Events func(scalr.Event)
}

// Job is a function and when to run it.
type Job struct {
	// Name is the job's name in the store, as CheckName wants it. Required.
	Name string
	// Schedule says when. The zero schedule is for jobs that are only triggered by hand.
	Schedule Schedule
	// Run does the work. Its context ends with cause ErrLost, before the run can be given to somebody else, when this
	// runner is cut off from the store; ErrReplaced; ErrTimeout; or that of Cron.Run. It must return then. Its Err looks
	// at the clock, as that of Locker.Hold. A panic is an error like any other. Required.
	Run func(context.Context, Run) error

	// Overlap says what to do if the previous run has not ended, on whichever runner.
	Overlap Overlap
	// CatchUp says what to do with instants that nobody ran for more than a minute, because no runner lived or the store
	// was away. Younger ones always run.
	CatchUp CatchUp
	// Window is how old an instant may be to be caught up. 0 is one hour; at least a minute.
	Window time.Duration
	// Jitter spreads runs over so much time after their instants, by a hash of job and instant.
	Jitter time.Duration
	// Timeout ends each attempt. 0 is none.
	Timeout time.Duration
	// Retries is how often a run is tried again on the same runner after it failed.
	Retries int
	// Backoff is the wait before the first retry; each further one is twice as long, up to 64 times. 0 is a second.
	Backoff time.Duration
	// AtLeastOnce: a run whose runner died, or was stopped in the middle, is run again by another one, with the next
	// attempt number and a new token. Without it such a run is Lost, or Failed: nobody knows how far it came, and it is
	// not repeated.
	AtLeastOnce bool
	// Alarm: if the job has not succeeded for so long, there is an event of kind JobSilent. 0 is never.
	Alarm time.Duration
}

// Run is one run as its work sees it.
type Run struct {
	Claim
	Output io.Writer // never nil
}

// Overlap is a policy for runs that come before the previous one has ended.
type Overlap int

const (
	Allow   Overlap = iota // run both
	Forbid                 // skip the later one
	Replace                // end the earlier one first
)

// CatchUp is a policy for missed instants.
type CatchUp int

const (
	CatchUpLast CatchUp = iota // run the last, if nothing ran after it
	CatchUpNone
	CatchUpAll
)

// Causes of a run's cancelled context, beside ErrLost.
var (
	ErrReplaced = errors.New("run is replaced by a later one")
	ErrTimeout  = errors.New("run timed out")
)

// Kinds of events. Subject is the job, Attrs have "at", "attempt", "token" and "runner" where there is a run.
const (
	RunnerJoined scalr.Kind = "runner-joined"
	RunnerLost   scalr.Kind = "runner-lost" // its lease; it joins again
	RunStarted   scalr.Kind = "run-started"
	RunSucceeded scalr.Kind = "run-succeeded"
	RunFailed    scalr.Kind = "run-failed"
	RunRetried   scalr.Kind = "run-retried"
	RunSkipped   scalr.Kind = "run-skipped"
	RunLost      scalr.Kind = "run-lost"       // its runner died
	RunTakenOver scalr.Kind = "run-taken-over" // from a runner that died, or that handed it back
	JobSilent    scalr.Kind = "job-silent"     // see Job.Alarm
	ClockSkewed  scalr.Kind = "clock-skewed"   // by more than a second against the store
	StoreFailed  scalr.Kind = "store-failed"   // a call to the Claimer; it is repeated
)

// check reports every fault of the configuration.
func (c Cron) check() error {
	var errs []error
	bad := func(format string, args ...any) { errs = append(errs, fmt.Errorf("cron: "+format, args...)) }
	if c.Claimer == nil {
		bad("Claimer is nil, want one")
	}
	if c.Limit < 0 {
		bad("Limit is %d, want at least 1, or 0 for 100", c.Limit)
	}
	if c.Keep < 0 {
		bad("Keep is %d, want at least 1, or 0 for 100", c.Keep)
	}
	names := map[string]bool{}
	for i, j := range c.Jobs {
		if err := CheckName(j.Name); err != nil {
			bad("Jobs[%d]: %w", i, err)
			continue
		}
		if names[j.Name] {
			bad("Jobs[%d]: name %q is taken by another job", i, j.Name)
		}
		names[j.Name] = true
		if j.Run == nil {
			bad("job %s: Run is nil, want a func", j.Name)
		}
		if j.Overlap < Allow || j.Overlap > Replace {
			bad("job %s: Overlap is %d, want Allow, Forbid or Replace", j.Name, j.Overlap)
		}
		if j.CatchUp < CatchUpLast || j.CatchUp > CatchUpAll {
			bad("job %s: CatchUp is %d, want CatchUpLast, CatchUpNone or CatchUpAll", j.Name, j.CatchUp)
		}
		if j.Window != 0 && j.Window < prompt {
			bad("job %s: Window is %s, want at least %s, or 0 for an hour", j.Name, j.Window, prompt)
		}
		if j.Retries < 0 {
			bad("job %s: Retries is %d, want at least 0", j.Name, j.Retries)
		}
		for field, d := range map[string]time.Duration{"Jitter": j.Jitter, "Timeout": j.Timeout, "Backoff": j.Backoff, "Alarm": j.Alarm} {
			if d < 0 {
				bad("job %s: %s is %s, want at least 0", j.Name, field, d)
			}
		}
	}
	return errors.Join(errs...)
}

func (c Cron) job(name string) (Job, error) {
	for _, j := range c.Jobs {
		if j.Name == name {
			return j, nil
		}
	}
	return Job{}, fmt.Errorf("cron: there is no job %q", name)
}

// Trigger asks for a run of the job now, by whichever runner. It is run also if the job is paused. If Trigger fails for another reason than
// an unknown job, the run may have been asked for all the same.
func (c Cron) Trigger(ctx context.Context, job string) (Key, error) {
	if _, err := c.job(job); err != nil {
		return Key{}, err
	}
	run, id := Key{Job: job, At: time.Now().UTC().Truncate(time.Microsecond)}, rand.Text()
	for {
		_, err := c.Claimer.Claim(ctx, Claim{Key: run, Status: Requested, ID: id})
		if !errors.Is(err, ErrClaimed) {
			return run, err
		}
		run.At = run.At.Add(time.Microsecond)
	}
}

// Backfill asks for the runs of all instants from from to before to that have no record, and says how many those were.
// Instants before the floor have been pruned and cannot be asked for.
func (c Cron) Backfill(ctx context.Context, job string, from, to time.Time) (n int, err error) {
	j, err := c.job(job)
	if err != nil {
		return 0, err
	}
	id := rand.Text()
	for at := j.Schedule.Next(from.Add(-time.Nanosecond)); !at.IsZero() && at.Before(to); at = j.Schedule.Next(at) {
		_, err := c.Claimer.Claim(ctx, Claim{Key: Key{Job: job, At: at}, Status: Requested, ID: id})
		if errors.Is(err, ErrClaimed) {
			continue
		}
		if err != nil {
			return n, fmt.Errorf("cron: %s: %w", Key{job, at}, err)
		}
		n++
	}
	return n, nil
}

// Pause stops a job for all runners. Runs under way go on.
func (c Cron) Pause(ctx context.Context, job string) error {
	return c.control(ctx, job, func(s *Control) { s.Paused = true })
}

// Resume ends a pause. The instants until now are not caught up.
func (c Cron) Resume(ctx context.Context, job string) error {
	return c.control(ctx, job, func(s *Control) { s.Paused, s.Since = false, time.Now() })
}

func (c Cron) control(ctx context.Context, job string, change func(*Control)) error {
	if _, err := c.job(job); err != nil {
		return err
	}
	for {
		s, err := c.Claimer.Control(ctx, job)
		if err != nil {
			return err
		}
		change(&s)
		if err := c.Claimer.SetControl(ctx, job, s); !errors.Is(err, ErrClaimed) {
			return err
		}
	}
}

// History gives the records of a job's runs from from to before to, in the order of their instants: who ran what when, and
// how it ended.
func (c Cron) History(ctx context.Context, job string, from, to time.Time) ([]Claim, error) {
	instants, err := c.Claimer.Instants(ctx, job, from, to)
	if err != nil {
		return nil, err
	}
	var list []Claim
	for _, at := range instants {
		claim, err := c.Claimer.Get(ctx, Key{job, at})
		if errors.Is(err, ErrNoClaim) { // pruned meanwhile
			continue
		}
		if err != nil {
			return nil, err
		}
		list = append(list, claim)
	}
	return list, nil
}
