package cronlock

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"time"
)

var _ Claimer = (*Memory)(nil)

// memoryJob is what Memory knows of a job.
type memoryJob struct {
	control Control
	claims  map[int64]Claim // by the instant in microseconds
}

// runnerPrefix begins the names of runners, which Expire takes as well.
const runnerPrefix = "runners/"

// Join implements Claimer.
func (m *Memory) Join(ctx context.Context, work func(context.Context, Lease) error) error {
	m.mu.Lock()
	m.joined++
	name := fmt.Sprintf("%s%06d", runnerPrefix, m.joined)
	m.mu.Unlock()
	return m.hold(ctx, name, true, work)
}

// Fleet implements Claimer.
func (m *Memory) Fleet(ctx context.Context) (f Fleet, err error) {
	if ctx.Err() != nil {
		return f, context.Cause(ctx)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	for name := range m.locks {
		if strings.HasPrefix(name, runnerPrefix) {
			f.Runners = append(f.Runners, name)
		}
	}
	slices.Sort(f.Runners)
	return f, nil
}

// job gives what is known of a job, and makes it known if it must be. m.mu is held.
func (m *Memory) job(name string) *memoryJob {
	j := m.jobs[name]
	if j == nil {
		if m.jobs == nil {
			m.jobs = map[string]*memoryJob{}
		}
		j = &memoryJob{control: Control{Created: time.Now(), Version: 1}, claims: map[int64]Claim{}}
		m.jobs[name] = j
	}
	return j
}

// busy reports whether c would run beside an exclusive run.
func (j *memoryJob) busy(c Claim) bool {
	if !c.Exclusive || !c.Status.Active() {
		return false
	}
	for _, other := range j.claims {
		if other.Exclusive && other.Status.Active() && !other.At.Equal(c.At) {
			return true
		}
	}
	return false
}

// Claim implements Claimer.
func (m *Memory) Claim(ctx context.Context, c Claim) (Claim, error) {
	if err := c.Check(); err != nil {
		return Claim{}, err
	}
	if ctx.Err() != nil {
		return Claim{}, context.Cause(ctx)
	}
	c.At = c.At.UTC().Truncate(time.Microsecond)
	m.mu.Lock()
	defer m.mu.Unlock()
	j := m.job(c.Job)
	old, exists := j.claims[c.At.UnixMicro()]
	switch {
	case exists && c.Made(old):
		return old, nil
	case exists:
		return old, ErrClaimed
	case c.At.Before(j.control.Floor):
		return Claim{}, ErrPruned
	case c.Status == Running && j.control.Paused:
		return Claim{}, ErrPaused
	case j.busy(c):
		return Claim{}, ErrBusy
	}
	c.Claimed, c.Version = time.Now(), 1
	if c.Status == Running {
		m.token++
		c.Token = m.token
	}
	j.claims[c.At.UnixMicro()] = c
	return c, nil
}

// Update implements Claimer.
func (m *Memory) Update(ctx context.Context, was, c Claim) (Claim, error) {
	if err := c.Check(); err != nil {
		return Claim{}, err
	}
	if ctx.Err() != nil {
		return Claim{}, context.Cause(ctx)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	j := m.job(c.Job)
	old, exists := j.claims[was.At.UnixMicro()]
	switch {
	case !exists || old.Version != was.Version:
		return old, ErrClaimed
	case j.busy(c):
		return old, ErrBusy
	}
	c.Key, c.ID, c.Claimed, c.Token, c.Version = old.Key, old.ID, old.Claimed, old.Token, old.Version+1
	if c.Grants(old) {
		m.token++
		c.Token = m.token
	}
	j.claims[c.At.UnixMicro()] = c
	return c, nil
}

// Get implements Claimer.
func (m *Memory) Get(ctx context.Context, run Key) (Claim, error) {
	if ctx.Err() != nil {
		return Claim{}, context.Cause(ctx)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if j := m.jobs[run.Job]; j != nil {
		if c, ok := j.claims[run.At.UnixMicro()]; ok {
			return c, nil
		}
	}
	return Claim{}, ErrNoClaim
}

// Instants implements Claimer.
func (m *Memory) Instants(ctx context.Context, job string, from, to time.Time) (list []time.Time, err error) {
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if j := m.jobs[job]; j != nil {
		for _, c := range j.claims {
			if !c.At.Before(from) && c.At.Before(to) {
				list = append(list, c.At)
			}
		}
	}
	slices.SortFunc(list, time.Time.Compare)
	return list, nil
}

// Open implements Claimer.
func (m *Memory) Open(ctx context.Context) (list []Key, err error) {
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, j := range m.jobs {
		for _, c := range j.claims {
			if !c.Status.Over() {
				list = append(list, c.Key)
			}
		}
	}
	slices.SortFunc(list, func(a, b Key) int { return cmp.Or(strings.Compare(a.Job, b.Job), a.At.Compare(b.At)) })
	return list, nil
}

// Control implements Claimer.
func (m *Memory) Control(ctx context.Context, job string) (Control, error) {
	if ctx.Err() != nil {
		return Control{}, context.Cause(ctx)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if j := m.jobs[job]; j != nil {
		return j.control, nil
	}
	return Control{}, nil
}

// SetControl implements Claimer.
func (m *Memory) SetControl(ctx context.Context, job string, c Control) error {
	if err := CheckName(job); err != nil {
		return fmt.Errorf("job: %w", err)
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if j := m.jobs[job]; c.Version != 0 && j == nil || j != nil && j.control.Version != c.Version {
		return ErrClaimed
	}
	j := m.job(job)
	if c.Floor.Before(j.control.Floor) {
		c.Floor = j.control.Floor
	}
	c.Created, c.Version = j.control.Created, j.control.Version+1
	j.control = c
	for at, claim := range j.claims {
		if claim.At.Before(c.Floor) && claim.Status.Over() {
			delete(j.claims, at)
		}
	}
	return nil
}
