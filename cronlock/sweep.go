package cronlock

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/scalr-go/scalr"
)

// homeState is what the runner that is a job's home knows of it. Each job has one home, which looks after what nobody
// claimed; runs are shared by all.
type homeState struct {
	job     *Job
	known   bool      // the store knows of the job
	next    time.Time // when there is something to do
	swept   time.Time // instants until then are decided
	pruned  time.Time // when it was done last
	since   time.Time // when this runner became the home
	alarmed bool
	looked  time.Time // for the alarm
}

// sweeps keeps the fleet known and looks after what was left over, until the lease's context ends.
func (r *runner) sweeps(ctx context.Context) {
	for ctx.Err() == nil {
		if err := r.sweep(ctx); err != nil && ctx.Err() == nil {
			r.emit(scalr.Event{Kind: StoreFailed, Message: "cannot look after runs", Err: err.Error()})
		}
		sleep(ctx, period)
	}
}

func (r *runner) sweep(ctx context.Context) error {
	if err := r.adopt(ctx); err != nil {
		return err
	}
	now, began := r.now(), time.Now()
	r.settle(now)
	for _, h := range r.home {
		if time.Since(began) > period {
			break // the rest in the next sweeps, in another order: the fleet must stay known
		}
		if err := r.catchUp(ctx, h.job, h, now); err != nil {
			return err
		}
		if err := r.alarm(ctx, h.job, h, now); err != nil {
			return err
		}
	}
	return nil
}

// settle finds the jobs whose home this runner is, whenever the fleet has changed.
func (r *runner) settle(now time.Time) {
	r.mu.Lock()
	runners := r.fleet.Runners
	r.mu.Unlock()
	if slices.Equal(runners, r.settled) {
		return
	}
	r.settled = runners
	for i := range r.Jobs {
		j := &r.Jobs[i]
		if rankOf(runners, r.lease.Name, j.Name, time.Time{}) != 0 {
			delete(r.home, j.Name)
		} else if r.home[j.Name] == nil {
			r.home[j.Name] = &homeState{job: j, since: now, pruned: now}
		}
	}
}

// adopt takes runs that nobody runs, ends those whose runner is gone, and passes on the wish to replace a run.
func (r *runner) adopt(ctx context.Context) error {
	fleet, err := r.Claimer.Fleet(ctx) // for the ranks: the next one is to act as soon as the first is gone
	if err != nil {
		return err
	}
	r.setFleet(fleet)
	open, err := r.Claimer.Open(ctx)
	if err != nil {
		return err
	}
	var claims []Claim
	for _, run := range open {
		cancel, mine := r.under(run)
		j := r.jobs[run.Job]
		if j == nil || mine && j.Overlap != Replace || !mine && !r.doubtful(run) && r.rank(run.Job, run.At) != 0 {
			continue
		}
		c, err := r.Claimer.Get(ctx, run)
		switch {
		case errors.Is(err, ErrNoClaim):
		case err != nil:
			r.doubt(run)
			return err
		case mine && c.Status == Stopping && cancel != nil && c.Runner == r.lease.Name:
			cancel(ErrReplaced)
		case !mine && !c.Status.Over():
			claims = append(claims, c)
		}
	}
	if len(claims) == 0 {
		return nil
	}
	// The fleet is read once more after the claims: a runner that made one of them, and is not seen here, is gone.
	if fleet, err = r.Claimer.Fleet(ctx); err != nil {
		for _, c := range claims {
			r.doubt(c.Key)
		}
		return err
	}
	r.setFleet(fleet)
	for _, c := range claims {
		_, mine := r.under(c.Key)
		abandoned := c.Runner == r.lease.Name // by this runner, which never learnt that it has the claim
		if mine || c.Status.Active() && !abandoned && slices.Contains(fleet.Runners, c.Runner) {
			continue
		}
		r.takeOver(ctx, r.jobs[c.Job], c)
	}
	return nil
}

// doubt keeps in mind that this runner may have a claim of which it does not know.
func (r *runner) doubt(run Key) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.doubts[run.key()] = true
}

// doubtful reports whether the run is in doubt, and ends that: whoever asks looks at it.
func (r *runner) doubtful(run Key) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	yes := r.doubts[run.key()]
	delete(r.doubts, run.key())
	return yes
}

// under gives the means to end a run that is under way here, and whether it is.
func (r *runner) under(run Key) (context.CancelCauseFunc, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	cancel, ok := r.runs[run.key()]
	return cancel, ok
}

// takeOver runs, or ends, an open run that has no runner.
func (r *runner) takeOver(ctx context.Context, j *Job, c Claim) {
	to := c
	if c.Status.Active() && (!j.AtLeastOnce || c.Status == Stopping) {
		to.Status, to.Ended, to.Error = Lost, time.Now(), "its runner died"
		if now, err := r.Claimer.Update(ctx, c, to); err == nil {
			r.event(RunLost, now, "runner "+c.Runner+" died in the middle of it", nil)
		}
		return
	}
	end, ok := r.begin(c.Key)
	if !ok {
		return
	}
	to.Status, to.Runner, to.Attempt, to.Exclusive, to.Error = Running, r.lease.Name, c.Attempt+1, j.Overlap != Allow, ""
	now, err := r.Claimer.Update(ctx, c, to)
	if err != nil { // somebody else's, busy, or unknown: the next sweep sees
		r.doubt(c.Key)
		end()
		return
	}
	if c.Status.Active() {
		r.event(RunTakenOver, now, "runner "+c.Runner+" died in the middle of it", nil)
	}
	r.group.Go(func() {
		defer end()
		r.execute(ctx, j, now)
	})
}

// catchUp runs the instants that nobody claimed in time, as the job wants it, and prunes its records.
func (r *runner) catchUp(ctx context.Context, j *Job, h *homeState, now time.Time) error {
	window := j.Window
	if window == 0 {
		window = time.Hour
	}
	until := now.Add(-settled - j.Jitter)
	if h.known && (h.next.IsZero() || h.next.After(until)) {
		return nil
	}
	control, err := r.Claimer.Control(ctx, j.Name)
	if err != nil {
		return err
	}
	if control.Paused { // what is due until it is resumed is not caught up
		h.known, h.next = true, j.Schedule.Next(until)
		return nil
	}
	if control.Created.IsZero() { // the first runner of all
		if err := r.Claimer.SetControl(ctx, j.Name, Control{}); err != nil && !errors.Is(err, ErrClaimed) {
			return err
		}
		return nil
	}
	h.known = true
	from := h.swept
	for _, t := range []time.Time{now.Add(-window - j.Jitter), control.Created, control.Since, control.Floor.Add(-1)} {
		from = latest(from, t)
	}
	if h.next = j.Schedule.Next(from); h.next.IsZero() || h.next.After(until) {
		return nil
	}
	claimed, err := r.claimed(ctx, j, from, until, now)
	if err != nil {
		return err
	}
	var missed []time.Time
	for at := j.Schedule.Next(from); !at.IsZero() && !at.After(until); at = j.Schedule.Next(at) {
		if claimed[at.UnixMicro()] {
			if j.CatchUp != CatchUpAll {
				missed = slices.DeleteFunc(missed, func(m time.Time) bool { return now.Sub(m)-j.Jitter > prompt })
			}
			continue
		}
		old := now.Sub(at)-j.Jitter > prompt
		if old && j.CatchUp == CatchUpNone {
			continue
		}
		if old && j.CatchUp == CatchUpLast {
			missed = missed[:0]
		}
		missed = append(missed, at)
	}
	if j.CatchUp == CatchUpLast && len(missed) > 1 {
		// Of the old ones only the last of all was left, and one that is younger comes after it.
		missed = slices.DeleteFunc(missed, func(m time.Time) bool { return now.Sub(m)-j.Jitter > prompt })
	}
	for _, at := range missed {
		run := Key{j.Name, at}
		end, ok := r.begin(run)
		if !ok { // no room; the rest waits for the next sweep
			h.swept = latest(h.swept, at.Add(-1))
			return nil
		}
		r.group.Go(func() {
			defer end()
			r.claim(ctx, j, run)
		})
	}
	// What was begun now is looked at once more, in case its claim did not come through.
	if len(missed) == 0 {
		h.swept, h.next = until, j.Schedule.Next(until)
	}
	if now.Sub(h.pruned) > prompt {
		h.pruned = now
		return r.prune(ctx, j, control, now.Add(-window-j.Jitter-10*time.Minute))
	}
	return nil
}

// few is how many records are looked at one by one; above that all instants are listed.
const few = 3

// claimed gives the instants after from that have a record, in microseconds: those until until that the schedule has.
func (r *runner) claimed(ctx context.Context, j *Job, from, until, now time.Time) (map[int64]bool, error) {
	var due []time.Time
	for at := j.Schedule.Next(from); !at.IsZero() && !at.After(until) && len(due) <= few; at = j.Schedule.Next(at) {
		due = append(due, at)
	}
	claimed := map[int64]bool{}
	if len(due) > few {
		all, err := r.Claimer.Instants(ctx, j.Name, from, now)
		for _, at := range all {
			claimed[at.UnixMicro()] = true
		}
		return claimed, err
	}
	// As a rule it is one, while a job may have thousands of records.
	for _, at := range due {
		switch _, err := r.Claimer.Get(ctx, Key{j.Name, at}); {
		case err == nil:
			claimed[at.UnixMicro()] = true
		case !errors.Is(err, ErrNoClaim):
			return nil, err
		}
	}
	return claimed, nil
}

// prune forgets the records that are older than the limit and not among the last ones to be kept.
func (r *runner) prune(ctx context.Context, j *Job, control Control, limit time.Time) error {
	all, err := r.Claimer.Instants(ctx, j.Name, time.Time{}, limit)
	if err != nil || len(all) <= r.Keep {
		return err
	}
	control.Floor = all[len(all)-r.Keep]
	if err := r.Claimer.SetControl(ctx, j.Name, control); !errors.Is(err, ErrClaimed) {
		return err
	}
	return nil
}

// alarm tells of a job that has not succeeded for too long.
func (r *runner) alarm(ctx context.Context, j *Job, h *homeState, now time.Time) error {
	if j.Alarm == 0 || now.Sub(h.looked) < max(j.Alarm/8, period) {
		return nil
	}
	h.looked = now
	control, err := r.Claimer.Control(ctx, j.Name)
	if err != nil || control.Paused {
		return err
	}
	begin := control.Created
	if begin.IsZero() {
		begin = h.since
	}
	if begin = latest(begin, control.Since); now.Sub(begin) < j.Alarm {
		return nil
	}
	all, err := r.Claimer.Instants(ctx, j.Name, now.Add(-2*j.Alarm-j.Jitter), now)
	if err != nil {
		return err
	}
	for _, at := range slices.Backward(all) {
		c, err := r.Claimer.Get(ctx, Key{j.Name, at})
		if err != nil && !errors.Is(err, ErrNoClaim) {
			return err
		}
		if c.Status == Succeeded && now.Sub(c.Ended) < j.Alarm {
			h.alarmed = false
			return nil
		}
	}
	if !h.alarmed {
		h.alarmed = true
		r.emit(scalr.Event{Kind: JobSilent, Subject: j.Name, Message: fmt.Sprintf("has not succeeded for %s", j.Alarm)})
	}
	return nil
}
