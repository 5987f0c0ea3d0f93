package cronlock_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/scalr-go/scalr"
	"github.com/scalr-go/scalr/cronlock"
)

// tally counts runs and events.
type tally struct {
	mu     sync.Mutex
	runs   []cronlock.Claim
	events []scalr.Event
}

// run counts a run, unless its context has ended meanwhile: then it may be somebody else's.
func (y *tally) run(ctx context.Context, c cronlock.Claim) {
	y.mu.Lock()
	defer y.mu.Unlock()
	if ctx.Err() == nil {
		y.runs = append(y.runs, c)
	}
}

func (y *tally) event(e scalr.Event) {
	y.mu.Lock()
	defer y.mu.Unlock()
	y.events = append(y.events, e)
}

func (y *tally) kinds() map[scalr.Kind]int {
	y.mu.Lock()
	defer y.mu.Unlock()
	m := map[scalr.Kind]int{}
	for _, e := range y.events {
		m[e.Kind]++
	}
	return m
}

// starts gives how often each run was started.
func (y *tally) starts() map[string]int {
	y.mu.Lock()
	defer y.mu.Unlock()
	m := map[string]int{}
	for _, c := range y.runs {
		m[c.Key.String()]++
	}
	return m
}

func (y *tally) count() int {
	y.mu.Lock()
	defer y.mu.Unlock()
	return len(y.runs)
}

// start runs a runner until the returned func is called, which waits for it.
func start(c cronlock.Cron) (stop func()) {
	ctx, cancel := context.WithCancelCause(context.Background())
	done := make(chan error)
	go func() { done <- c.Run(ctx) }()
	return func() {
		cancel(errStopped)
		if err := <-done; !errors.Is(err, errStopped) {
			panic(fmt.Sprint("Run returned ", err))
		}
	}
}

var errStopped = errors.New("test stops")

// counted gives a job that counts its runs and takes so long.
func counted(y *tally, name, expr string, takes time.Duration) cronlock.Job {
	return cronlock.Job{Name: name, Schedule: cronlock.MustParse(expr), Run: func(ctx context.Context, r cronlock.Run) error {
		y.run(ctx, r.Claim)
		if takes == 0 { // without a timer: thousands that are due at once have crashed the race detector's runtime
			return nil
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(takes):
			return nil
		}
	}}
}

func TestCronRunsEachInstantOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var m cronlock.Memory
		var y tally
		c := cronlock.Cron{Claimer: &m, Events: y.event}
		for i := range 10 {
			c.Jobs = append(c.Jobs, counted(&y, fmt.Sprint("job-", i), "* * * * *", time.Second))
		}
		began := time.Now()
		var stops []func()
		for range 20 {
			stops = append(stops, start(c))
		}
		time.Sleep(time.Hour + 10*time.Second)
		for _, stop := range stops {
			stop()
		}
		perRunner := map[string]int{}
		for _, r := range y.runs {
			perRunner[r.Runner]++
			require.False(t, r.Claimed.Before(r.At), "no run is early")
			require.Less(t, r.Claimed.Sub(r.At), time.Second)
		}
		require.Len(t, y.starts(), 600, "ten jobs for sixty minutes from %v", began)
		require.Len(t, y.runs, 600)
		require.Len(t, perRunner, 20, "the load is spread: %v", perRunner)
		require.Equal(t, 600, y.kinds()[cronlock.RunSucceeded])
		open, err := m.Open(t.Context())
		require.NoError(t, err)
		require.Empty(t, open)
		history, err := c.History(t.Context(), "job-3", began, time.Now())
		require.NoError(t, err)
		require.Len(t, history, 60)
		require.Equal(t, cronlock.Succeeded, history[7].Status)
		require.Equal(t, time.Second, history[7].Ended.Sub(history[7].Claimed))
	})
}

// Runners come, go, stop dead and lose their leases at random, and the store fails and loses its answers. No run is claimed
// twice, and none is missed while a runner lives.
func TestCronUnderChance(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		seed := rapid.Uint64().Draw(rt, "seed")
		atLeastOnce := rapid.Bool().Draw(rt, "at least once")
		runners := rapid.IntRange(2, 6).Draw(rt, "runners")
		losses := rapid.SliceOfN(rapid.IntRange(1, 500), 0, 12).Draw(rt, "losses")
		failing := rapid.IntRange(0, 30).Draw(rt, "percent of failing calls")
		rapid.SyncTest(rt, func(rt *rapid.T) {
			m := &cronlock.Memory{}
			var y tally
			store := &flaky{Memory: m, r: rand.New(rand.NewPCG(seed, 0)), percent: failing}
			c := cronlock.Cron{Claimer: store, Events: y.event}
			for i := range 3 {
				j := counted(&y, fmt.Sprint("job-", i), "*/10 * * * * *", 7*time.Second)
				j.AtLeastOnce, j.CatchUp = atLeastOnce, cronlock.CatchUpAll
				c.Jobs = append(c.Jobs, j)
			}
			began := time.Now()
			var stops []func()
			for range runners {
				stops = append(stops, start(c))
			}
			for _, at := range losses {
				go func() {
					time.Sleep(time.Duration(at) * time.Second)
					f, _ := m.Fleet(context.Background())
					if len(f.Runners) > 0 {
						m.Expire(f.Runners[at%len(f.Runners)])
					}
				}()
			}
			time.Sleep(10 * time.Minute)
			store.quiet()
			time.Sleep(30 * time.Second)
			for _, stop := range stops {
				stop()
			}
			tokens := map[string]uint64{}
			attempts := map[string]bool{}
			for _, r := range y.runs {
				if a := fmt.Sprint(r.Key, r.Attempt); attempts[a] {
					rt.Errorf("%s attempt %d ran twice", r.Key, r.Attempt)
				} else {
					attempts[a] = true
				}
				if tokens[r.Key.String()] >= r.Token {
					rt.Errorf("%s: token %d after %d", r.Key, r.Token, tokens[r.Key.String()])
				}
				tokens[r.Key.String()] = r.Token
			}
			for _, j := range c.Jobs {
				for at := j.Schedule.Next(began.Add(20 * time.Second)); at.Before(began.Add(10 * time.Minute)); at = j.Schedule.Next(at) {
					claim, err := m.Get(context.Background(), cronlock.Key{Job: j.Name, At: at})
					switch {
					case err != nil:
						rt.Errorf("%s@%s was missed", j.Name, at)
					case atLeastOnce && claim.Status != cronlock.Succeeded:
						rt.Errorf("%s is %s after attempt %d", claim.Key, claim.Status, claim.Attempt)
					case !atLeastOnce && claim.Attempt > 1:
						rt.Errorf("%s has attempt %d", claim.Key, claim.Attempt)
					case !claim.Status.Over():
						rt.Errorf("%s is left %s", claim.Key, claim.Status)
					}
				}
			}
		})
	})
}

// flaky fails calls before and after they took effect.
type flaky struct {
	*cronlock.Memory
	mu      sync.Mutex
	r       *rand.Rand
	percent int
}

var errFlaky = errors.New("connection closed")

func (f *flaky) quiet() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.percent = 0
}

func (f *flaky) fail() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.r.IntN(100) < f.percent {
		return errFlaky
	}
	return nil
}

func (f *flaky) Claim(ctx context.Context, c cronlock.Claim) (cronlock.Claim, error) {
	if err := f.fail(); err != nil {
		return cronlock.Claim{}, err
	}
	got, err := f.Memory.Claim(ctx, c)
	if lost := f.fail(); lost != nil {
		return cronlock.Claim{}, lost
	}
	return got, err
}

func (f *flaky) Update(ctx context.Context, was, c cronlock.Claim) (cronlock.Claim, error) {
	if err := f.fail(); err != nil {
		return cronlock.Claim{}, err
	}
	got, err := f.Memory.Update(ctx, was, c)
	if lost := f.fail(); lost != nil {
		return cronlock.Claim{}, lost
	}
	return got, err
}

func (f *flaky) Fleet(ctx context.Context) (cronlock.Fleet, error) {
	if err := f.fail(); err != nil {
		return cronlock.Fleet{}, err
	}
	return f.Memory.Fleet(ctx)
}

func (f *flaky) Open(ctx context.Context) ([]cronlock.Key, error) {
	if err := f.fail(); err != nil {
		return nil, err
	}
	return f.Memory.Open(ctx)
}

func TestOverlap(t *testing.T) {
	for overlap, want := range map[cronlock.Overlap]struct {
		started int
		status  map[cronlock.Status]int
	}{
		cronlock.Allow:   {10, map[cronlock.Status]int{cronlock.Succeeded: 10}},
		cronlock.Forbid:  {4, map[cronlock.Status]int{cronlock.Succeeded: 4, cronlock.Skipped: 6}},
		cronlock.Replace: {10, map[cronlock.Status]int{cronlock.Failed: 9, cronlock.Succeeded: 1}},
	} {
		t.Run(fmt.Sprint(overlap), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var m cronlock.Memory
				var y tally
				j := counted(&y, "slow", "* * * * *", 150*time.Second)
				j.Overlap = overlap
				c := cronlock.Cron{Claimer: &m, Events: y.event, Jobs: []cronlock.Job{j}}
				began := time.Now()
				var stops []func()
				for range 4 {
					stops = append(stops, start(c))
				}
				time.Sleep(10*time.Minute + 30*time.Second)
				require.NoError(t, c.Pause(t.Context(), "slow"))
				time.Sleep(3 * time.Minute)
				for _, stop := range stops {
					stop()
				}
				require.Equal(t, want.started, y.count())
				status := map[cronlock.Status]int{}
				history, err := c.History(t.Context(), "slow", began, time.Now())
				require.NoError(t, err)
				for _, h := range history {
					status[h.Status]++
				}
				require.Equal(t, want.status, status)
				if overlap == cronlock.Replace {
					require.Contains(t, history[0].Error, cronlock.ErrReplaced.Error())
					for i := 1; i < len(history); i++ {
						require.False(t, history[i].Claimed.Before(history[i-1].Ended), "one ends before the next begins")
					}
				}
			})
		})
	}
}

func TestCatchUp(t *testing.T) {
	for policy, want := range map[cronlock.CatchUp]int{cronlock.CatchUpNone: 0, cronlock.CatchUpLast: 1, cronlock.CatchUpAll: 6} {
		synctest.Test(t, func(t *testing.T) {
			var m cronlock.Memory
			var y tally
			j := counted(&y, "j", "*/10 * * * *", time.Second)
			j.CatchUp = policy
			c := cronlock.Cron{Claimer: &m, Events: y.event, Jobs: []cronlock.Job{j}}
			stop := start(c)
			time.Sleep(time.Until(j.Schedule.Next(time.Now()).Add(5 * time.Second)))
			stop()
			require.Equal(t, 1, y.count())
			time.Sleep(3*time.Hour + 2*time.Minute) // nobody lives
			for range 2 {                           // whoever comes later finds it decided
				stop = start(c)
				other := start(c)
				time.Sleep(3 * time.Minute)
				stop()
				other()
				require.Equal(t, 1+want, y.count(), "policy %d", policy)
			}
		})
	}
}

func TestPauseResumeTriggerBackfill(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var m cronlock.Memory
		var y tally
		c := cronlock.Cron{Claimer: &m, Events: y.event, Jobs: []cronlock.Job{counted(&y, "j", "0 * * * *", time.Second)}}
		c.Jobs[0].CatchUp = cronlock.CatchUpAll
		c.Jobs[0].Window = 6 * time.Hour
		stop := start(c)
		defer stop()
		ctx := t.Context()
		time.Sleep(10 * time.Second)
		require.NoError(t, c.Pause(ctx, "j"))
		began := time.Now()
		time.Sleep(3 * time.Hour)
		require.Zero(t, y.count())
		run, err := c.Trigger(ctx, "j")
		require.NoError(t, err)
		time.Sleep(3 * time.Second)
		require.Equal(t, map[string]int{run.String(): 1}, y.starts(), "by hand also in a pause")
		require.NoError(t, c.Resume(ctx, "j"))
		time.Sleep(time.Minute)
		require.Equal(t, 1, y.count(), "a pause is not caught up")
		n, err := c.Backfill(ctx, "j", began, time.Now())
		require.NoError(t, err)
		require.Equal(t, 3, n)
		time.Sleep(5 * time.Second)
		require.Equal(t, 4, y.count())
		n, err = c.Backfill(ctx, "j", began, time.Now())
		require.NoError(t, err)
		require.Zero(t, n)
		time.Sleep(time.Hour)
		require.Equal(t, 5, y.count(), "and it goes on")
		_, err = c.Trigger(ctx, "k")
		require.EqualError(t, err, `cron: there is no job "k"`)
	})
}

func TestRetriesTimeoutPanicAndOutput(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var m cronlock.Memory
		var y tally
		var out strings.Builder
		c := cronlock.Cron{Claimer: &m, Events: y.event, Output: func(run cronlock.Claim) io.WriteCloser {
			if run.Job != "flaky" {
				return nil
			}
			return closer{&out}
		}}
		c.Jobs = []cronlock.Job{
			{Name: "flaky", Retries: 3, Run: func(ctx context.Context, r cronlock.Run) error {
				y.run(ctx, r.Claim)
				fmt.Fprintf(r.Output, "attempt %d\n", r.Attempt)
				if r.Attempt < 3 {
					return errors.New("not yet")
				}
				return nil
			}},
			{Name: "slow", Timeout: time.Minute, Run: func(ctx context.Context, r cronlock.Run) error {
				<-ctx.Done()
				return errors.New("stopped")
			}},
			{Name: "panics", Run: func(context.Context, cronlock.Run) error { panic("ouch") }},
		}
		stop := start(c)
		began := time.Now()
		for _, j := range c.Jobs {
			_, err := c.Trigger(t.Context(), j.Name)
			require.NoError(t, err)
		}
		time.Sleep(2 * time.Minute)
		stop()
		require.Equal(t, "attempt 1\n.attempt 2\n.attempt 3\n.", out.String())
		require.Less(t, y.runs[0].Token, y.runs[1].Token)
		require.Less(t, y.runs[1].Token, y.runs[2].Token)
		for job, want := range map[string]string{"slow": "run timed out: stopped", "panics": "panic: ouch", "flaky": ""} {
			h, err := c.History(t.Context(), job, began, time.Now())
			require.NoError(t, err)
			require.Len(t, h, 1)
			require.Equal(t, want, h[0].Error)
			require.Equal(t, want == "", h[0].Status == cronlock.Succeeded)
		}
	})
}

type closer struct{ *strings.Builder }

func (c closer) Close() error { c.WriteString("."); return nil }
