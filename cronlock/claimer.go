package cronlock

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// Errors of a Claimer that callers branch on.
var (
	// ErrClaimed: the run is somebody else's, or its record was changed since it was read.
	ErrClaimed = errors.New("run is claimed")
	// ErrBusy: another exclusive run of the job has not ended.
	ErrBusy = errors.New("job is running")
	// ErrPruned: the instant lies before the job's floor; what became of it is no longer known.
	ErrPruned = errors.New("instant is pruned")
	// ErrPaused: the job is paused.
	ErrPaused = errors.New("job is paused")
	// ErrNoClaim: the run has no record.
	ErrNoClaim = errors.New("run has no claim")
)

// Claimer is the record of runs that the runners of a fleet share: one claim for each job and scheduled instant, whoever
// comes first. A lock around a run does not give that: a runner whose clock is late takes the lock after it was released,
// and runs again. Claims outlive their runners.
//
// Implementations pass cronlocktest.RunClaimer and are safe for concurrent use. Instants have a resolution of
// microseconds. A call whose outcome is unknown is resolved by the implementation: it repeats the call, and knows its own
// record by runner and attempt. An error other than those above says that nothing is known yet, and the call can be
// repeated. What a Claimer has read never gets older by the next read. It may lack what others have done a moment ago, which Claim and
// Update do not overlook.
type Claimer interface {
	// Join runs work as a runner: Lease.Name is a name that no runner had before, and work's context ends with cause
	// ErrLost before Fleet can leave the name out. Otherwise it is as Locker.Hold.
	Join(ctx context.Context, work func(context.Context, Lease) error) error
	// Fleet gives the runners of now, sorted. A runner that is not among them has lost its lease or returned, provided
	// that it was heard of before the call: by a claim that bears its name, read by the same Claimer.
	Fleet(ctx context.Context) (Fleet, error)

	// Claim makes a record with the first Status that the run has: Running, Requested or one that Ended. It fails with
	// ErrClaimed if there is a record, unless that is Running and of the same Runner and Attempt, or has the same ID, and so is the
	// answer to this very call; with ErrBusy if c is to be Running and Exclusive, and another one is; with ErrPruned before the
	// floor; with ErrPaused if c is to be Running and the job is paused.
	Claim(ctx context.Context, c Claim) (Claim, error)
	// Update replaces the record was by the record c, of the same run, unless it has changed since, which is ErrClaimed.
	// ErrBusy is as in Claim. A change to a Running of another Runner or Attempt grants a new Token.
	Update(ctx context.Context, was, c Claim) (Claim, error)
	// Get reads the record of one run, or fails with ErrNoClaim.
	Get(ctx context.Context, run Key) (Claim, error)
	// Instants gives the instants of the job's records from from to before to, in order.
	Instants(ctx context.Context, job string, from, to time.Time) ([]time.Time, error)
	// Open gives all runs whose records have not ended, sorted by job and instant.
	Open(ctx context.Context) ([]Key, error)

	// Control gives the state of a job; a job that nobody has used yet has the zero state.
	Control(ctx context.Context, job string) (Control, error)
	// SetControl replaces the state that has c.Version by c, or fails with ErrClaimed. The floor never falls: a lower one
	// is taken as the present one. It forgets the ended records before the floor; open ones stay.
	SetControl(ctx context.Context, job string, c Control) error
}

// Fleet is who runs.
type Fleet struct {
	Runners []string
	// Skew is how far the store's clock is ahead of this machine's, as far as it is known.
	Skew time.Duration
}

// Key names a run.
type Key struct {
	Job string
	At  time.Time // the scheduled instant
}

func (k Key) String() string { return k.Job + "@" + k.At.UTC().Format("2006-01-02T15:04:05.999999Z") }

// Claim is the record of a run.
type Claim struct {
	Key
	// Attempt counts from 1. A run has more than one after failures, if the job has Retries, and after the death of its
	// runner, if the job is AtLeastOnce.
	Attempt int
	// Runner is the lease's name of whoever runs it.
	Runner string
	// Token is the fencing token: greater than that of every earlier grant of a run of the job.
	Token  uint64
	Status Status
	// ID tells a claim from another one for the same run, where Runner and Attempt do not: a run that is asked for has none. It is chosen by
	// whoever makes the claim, and the record keeps it. Empty is none.
	ID string
	// Exclusive: no other exclusive run of the job may be Running or Stopping.
	Exclusive bool
	Claimed   time.Time // when the record was made, by the store's clock
	Ended     time.Time // by the clock of whoever ended it; zero until then
	Error     string    // how it failed, or why it did not run
	// Version changes with each change of the record.
	Version int64
}

// Status is what has become of a run.
type Status string

const (
	Requested Status = "requested" // by hand or for another time, and nobody runs it yet
	Running   Status = "running"
	Stopping  Status = "stopping" // runs, and is asked to end because a later run replaces it

	Succeeded Status = "succeeded"
	Failed    Status = "failed"
	Lost      Status = "lost"    // its runner died, and whether it was done is not known
	Skipped   Status = "skipped" // the previous run had not ended
)

// Over reports whether the run has ended.
func (s Status) Over() bool { return s != Requested && s != Running && s != Stopping }

// Active reports whether somebody runs it.
func (s Status) Active() bool { return s == Running || s == Stopping }

// Control is the state of a job.
type Control struct {
	Paused bool
	// Since is when the job was last resumed. Instants until then are not caught up.
	Since time.Time
	// Floor: instants before it cannot be claimed any more, so that a runner with a late clock does not repeat what the
	// record has forgotten.
	Floor   time.Time
	Created time.Time // by the store's clock; zero if nobody has used the job yet. It is not to be set.
	Version int64
}

// Check reports what is wrong with a claim to be made.
func (c Claim) Check() error {
	if err := CheckName(c.Job); err != nil {
		return fmt.Errorf("job: %w", err)
	}
	if y := c.At.UTC().Year(); y < 1970 || y > 9999 {
		return fmt.Errorf("claim of %s: instant %v, want one in the years 1970 to 9999", c.Job, c.At)
	}
	switch c.Status {
	case Requested, Running, Stopping, Succeeded, Failed, Lost, Skipped:
	default:
		return fmt.Errorf("claim of %s: status %q, want one of the constants", c.Key, c.Status)
	}
	if c.Status.Active() && (c.Runner == "" || c.Attempt < 1) {
		return fmt.Errorf("claim of %s: runner %q, attempt %d: want a runner, and attempts counted from 1", c.Key, c.Runner, c.Attempt)
	}
	return nil
}

// Made reports whether the record old was made by the claim c, by an earlier call whose answer was lost.
func (c Claim) Made(old Claim) bool {
	if c.ID != "" && c.ID == old.ID {
		return true
	}
	return old.Status == Running && c.Status == Running && old.Runner == c.Runner && old.Attempt == c.Attempt
}

// Grants reports whether the change from was to c makes somebody run it anew.
func (c Claim) Grants(was Claim) bool {
	return c.Status == Running && (!was.Status.Active() || was.Runner != c.Runner || was.Attempt != c.Attempt)
}
