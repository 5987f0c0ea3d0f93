package cronlock

import (
	"cmp"
	"container/heap"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/scalr-go/scalr"
)

const (
	// prompt is how late an instant may be and still run, whatever Job.CatchUp says.
	prompt = time.Minute
	// stagger is how long the next runner waits for the one before it to claim a run.
	stagger = 500 * time.Millisecond
	// backups is how many runners look whether the first has claimed.
	backups = 2
	// settled is when an instant is left to the sweep.
	settled = (backups + 2) * stagger
	// period is that of the sweep.
	period = time.Second
	// skewed is the difference of clocks that is worth an event.
	skewed = time.Second
)

// Run is a runner until ctx ends. It then ends the runs that it has, waits for them to return, and returns the cause. Whenever it is
// cut off from the store it ends its runs, and joins again as a new runner. It returns an error at once if
// the configuration has faults, and names all of them.
func (c Cron) Run(ctx context.Context) error {
	if err := c.check(); err != nil {
		return err
	}
	c.Limit, c.Keep = cmp.Or(c.Limit, 100), cmp.Or(c.Keep, 100)
	var events sync.Mutex
	emit := func(e scalr.Event) {
		if c.Events != nil {
			events.Lock()
			defer events.Unlock()
			e.Time = time.Now()
			c.Events(e)
		}
	}
	for ctx.Err() == nil {
		err := c.Claimer.Join(ctx, func(lost context.Context, lease Lease) error {
			emit(scalr.Event{Kind: RunnerJoined, Message: "joined as " + lease.Name, Attrs: map[string]string{"runner": lease.Name}})
			r := &runner{
				Cron: c, lease: lease, stop: ctx, emit: emit, jobs: map[string]*Job{}, runs: map[runKey]context.CancelCauseFunc{},
				doubts: map[runKey]bool{}, home: map[string]*homeState{},
			}
			for i := range c.Jobs {
				r.jobs[c.Jobs[i].Name] = &c.Jobs[i]
			}
			return r.run(lost)
		})
		switch {
		case ctx.Err() != nil:
		case errors.Is(err, ErrLost):
			emit(scalr.Event{Kind: RunnerLost, Message: "cut off from the store; all runs were ended", Err: err.Error()})
		case err != nil:
			emit(scalr.Event{Kind: StoreFailed, Message: "cannot join", Err: err.Error()})
		}
		sleep(ctx, period)
	}
	return context.Cause(ctx)
}

// runner is one membership of a runner: what it knows lasts as long as its lease.
type runner struct {
	Cron
	lease Lease
	stop  context.Context // ends when Run is to return; the lease's context is derived from it
	emit  func(scalr.Event)
	group sync.WaitGroup
	jobs  map[string]*Job

	home    map[string]*homeState // by job; of the sweep only, as what follows
	settled []string              // the fleet for which home was found

	mu     sync.Mutex
	fleet  Fleet
	read   time.Time                          // when the fleet was
	runs   map[runKey]context.CancelCauseFunc // what has begun; nil until it is claimed
	doubts map[runKey]bool                    // runs that this runner may have claimed without knowing
}

// runKey is a Key that can be compared.
type runKey struct {
	job string
	at  int64 // microseconds
}

func (k Key) key() runKey { return runKey{k.Job, k.At.UnixMicro()} }

// due is an instant of a job for which this runner looks at a time.
type due struct {
	time time.Time
	job  *Job
	at   time.Time
	rank int
	next bool // the job's following instant is to be computed when this one is due
}

type dueHeap []due

func (h dueHeap) Len() int           { return len(h) }
func (h dueHeap) Less(i, j int) bool { return h[i].time.Before(h[j].time) }
func (h dueHeap) Swap(i, j int)      { h[i], h[j] = h[j], h[i] }
func (h *dueHeap) Push(x any)        { *h = append(*h, x.(due)) }
func (h *dueHeap) Pop() any {
	old := *h
	x := old[len(old)-1]
	*h = old[:len(old)-1]
	return x
}

// now is the earlier of this machine's clock and the store's, so that neither sees a run before its time.
func (r *runner) now() time.Time {
	r.mu.Lock()
	defer r.mu.Unlock()
	return earliest(time.Now(), r.read, r.fleet.Skew)
}

// earliest is the earlier of now, by this machine's clock, and what the store's shows, which was ahead by skew when it was read. It has gone on
// since then by the monotonic clock: if this machine's was set meanwhile, the store's was not.
func earliest(now, read time.Time, skew time.Duration) time.Time {
	store := read.Add(now.Sub(read)).Add(skew).Round(0)
	if now = now.Round(0); store.Before(now) {
		return store
	}
	return now
}

// run schedules until the lease's context ends.
func (r *runner) run(ctx context.Context) error {
	for { // the fleet must be known, for its ranks and its clock
		f, err := r.Claimer.Fleet(ctx)
		if err == nil && slices.Contains(f.Runners, r.lease.Name) {
			r.setFleet(f)
			break
		}
		if sleep(ctx, stagger/5) != nil {
			return context.Cause(ctx)
		}
	}
	r.group.Go(func() { r.sweeps(ctx) })
	defer r.group.Wait()

	var queue dueHeap
	start := r.now()
	for i := range r.Jobs {
		r.enqueue(&queue, &r.Jobs[i], r.Jobs[i].Schedule.Next(start))
	}
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		now := r.now()
		for len(queue) > 0 && !queue[0].time.After(now) {
			d := heap.Pop(&queue).(due)
			if d.next {
				// After a long standstill the instants between are the sweep's.
				r.enqueue(&queue, d.job, d.job.Schedule.Next(latest(d.at, now.Add(-prompt))))
				d.next = false
				d.rank = r.rank(d.job.Name, d.at)
				if d.rank > backups {
					continue
				}
				if d.rank > 0 {
					d.time = now.Add(time.Duration(d.rank) * stagger)
					heap.Push(&queue, d)
					continue
				}
			}
			if now.Sub(d.at)-d.job.Jitter < prompt {
				r.attempt(ctx, d.job, d.at, d.rank > 0)
			}
		}
		wait := period // at most, since clocks are set
		if len(queue) > 0 {
			wait = min(wait, queue[0].time.Sub(now))
		}
		timer.Reset(wait)
		select {
		case <-ctx.Done():
			return nil
		case <-timer.C:
		}
	}
}

func (r *runner) enqueue(q *dueHeap, j *Job, at time.Time) {
	if !at.IsZero() {
		heap.Push(q, due{time: at.Add(j.Delay(at)), job: j, at: at, next: true})
	}
}

// Delay is the jitter of a run: how long after its instant it starts.
func (j Job) Delay(at time.Time) time.Duration {
	if j.Jitter <= 0 {
		return 0
	}
	return time.Duration(hash(j.Name, at.UnixMicro(), "") % uint64(j.Jitter))
}

// hash is the same on all machines, and spreads well.
func hash(job string, at int64, runner string) uint64 {
	x := uint64(0xcbf29ce484222325) // FNV-1a
	for _, s := range [...]string{job, "\x00", runner} {
		for i := range len(s) {
			x = (x ^ uint64(s[i])) * 0x100000001b3
		}
	}
	x ^= uint64(at) * 0x9e3779b97f4a7c15
	// The end of MurmurHash3, since FNV leaves names that differ in the last byte close together.
	x ^= x >> 33
	x *= 0xff51afd7ed558ccd
	x ^= x >> 33
	x *= 0xc4ceb9fe1a85ec53
	return x ^ x>>33
}

// rank is this runner's place among those that may claim the run. The runner that is not known yet is the last.
func (r *runner) rank(job string, at time.Time) int {
	r.mu.Lock()
	runners := r.fleet.Runners
	r.mu.Unlock()
	return rankOf(runners, r.lease.Name, job, at)
}

func rankOf(runners []string, name, job string, at time.Time) (rank int) {
	mine := hash(job, at.UnixMicro(), name)
	for _, other := range runners {
		if other != name && hash(job, at.UnixMicro(), other) > mine {
			rank++
		}
	}
	return rank
}

func (r *runner) setFleet(f Fleet) {
	r.mu.Lock()
	was := r.fleet.Skew
	r.fleet, r.read = f, time.Now()
	r.mu.Unlock()
	if f.Skew.Abs() > skewed && (was-f.Skew).Abs() > skewed/2 {
		r.emit(scalr.Event{Kind: ClockSkewed, Message: fmt.Sprintf("this machine's clock and the store's differ by %s", f.Skew)})
	}
}

// event reports something about a run.
func (r *runner) event(kind scalr.Kind, c Claim, message string, err error) {
	e := scalr.Event{Kind: kind, Subject: c.Job, Message: message, Attrs: map[string]string{
		"at": c.At.UTC().Format(time.RFC3339Nano), "attempt": fmt.Sprint(c.Attempt), "token": fmt.Sprint(c.Token), "runner": c.Runner,
	}}
	if err != nil {
		e.Err = err.Error()
	}
	r.emit(e)
}

// begin reserves a run for one attempt of this runner, so that schedule and sweep do not both make it, if there is room.
func (r *runner) begin(run Key) (end func(), ok bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if _, under := r.runs[run.key()]; under || len(r.runs) >= r.Limit {
		return nil, false
	}
	r.runs[run.key()] = nil
	return func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		delete(r.runs, run.key())
	}, true
}

// attempt claims a run and runs it, in a goroutine of its own.
func (r *runner) attempt(ctx context.Context, j *Job, at time.Time, look bool) {
	run := Key{j.Name, at}
	end, ok := r.begin(run)
	if !ok {
		return
	}
	r.group.Go(func() {
		defer end()
		if look {
			if _, err := r.Claimer.Get(ctx, run); err == nil {
				return
			}
		}
		r.claim(ctx, j, run)
	})
}

// claim claims a run until the answer is known, and runs it.
func (r *runner) claim(ctx context.Context, j *Job, run Key) {
	mine := Claim{Key: run, Attempt: 1, Runner: r.lease.Name, Status: Running, Exclusive: j.Overlap != Allow}
	for ctx.Err() == nil {
		c, err := r.Claimer.Claim(ctx, mine)
		switch {
		case err == nil:
			r.execute(ctx, j, c)
			return
		case errors.Is(err, ErrClaimed), errors.Is(err, ErrPruned), errors.Is(err, ErrPaused):
			return
		case errors.Is(err, ErrBusy):
			next := j.Schedule.Next(run.At)
			if j.Overlap == Replace && (next.IsZero() || r.now().Before(next)) {
				r.replace(ctx, run)
				sleep(ctx, stagger/5)
				continue
			}
			mine.Status, mine.Exclusive, mine.Runner, mine.Ended = Skipped, false, r.lease.Name, time.Now()
			mine.ID, mine.Error = r.lease.Name, "the previous run had not ended"
		case ctx.Err() != nil:
			return
		default:
			r.emit(scalr.Event{Kind: StoreFailed, Subject: j.Name, Message: "cannot claim " + run.String(), Err: err.Error()})
			if sleep(ctx, stagger/2) != nil || r.now().Sub(run.At)-j.Jitter > prompt {
				r.doubt(run)
				return
			}
			continue
		}
		if mine.Status == Skipped {
			if c, err := r.Claimer.Claim(ctx, mine); err == nil {
				r.event(RunSkipped, c, c.Error, nil)
			} // else it is decided, or the sweep decides it
			return
		}
	}
}

// replace asks the exclusive run of the job to end.
func (r *runner) replace(ctx context.Context, by Key) {
	open, err := r.Claimer.Open(ctx)
	if err != nil {
		return
	}
	for _, run := range open {
		if run.Job != by.Job || run.key() == by.key() {
			continue
		}
		if c, err := r.Claimer.Get(ctx, run); err == nil && c.Exclusive && c.Status == Running && c.At.Before(by.At) {
			to := c
			to.Status = Stopping
			_, _ = r.Claimer.Update(ctx, c, to) // the next turn sees what came of it
		}
	}
}

func latest(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// sleep waits, and returns the cause if the context ends before.
func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-t.C:
		return nil
	}
}
