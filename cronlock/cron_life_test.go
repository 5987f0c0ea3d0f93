package cronlock_test

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/scalr-go/scalr/cronlock"
)

// A runner dies in the middle of a run.
func TestOwnerDies(t *testing.T) {
	for _, again := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			var m cronlock.Memory
			var y tally
			j := counted(&y, "j", "0 * * * *", 10*time.Minute)
			j.AtLeastOnce, j.Overlap = again, cronlock.Forbid
			c := cronlock.Cron{Claimer: &m, Events: y.event, Jobs: []cronlock.Job{j}}
			stops := []func(){start(c), start(c)}
			began := time.Now()
			time.Sleep(time.Until(j.Schedule.Next(time.Now()).Add(time.Minute)))
			require.Equal(t, 1, y.count())
			m.Expire(y.runs[0].Runner)
			time.Sleep(15 * time.Minute)
			h, err := c.History(t.Context(), "j", began, time.Now())
			require.NoError(t, err)
			require.Len(t, h, 1)
			if again {
				require.Equal(t, 2, y.count())
				require.Equal(t, cronlock.Succeeded, h[0].Status)
				require.Equal(t, 2, y.runs[1].Attempt)
				require.Greater(t, y.runs[1].Token, y.runs[0].Token)
				require.Equal(t, 1, y.kinds()[cronlock.RunTakenOver])
			} else {
				require.Equal(t, 1, y.count())
				require.Equal(t, cronlock.Lost, h[0].Status)
				require.Equal(t, 1, y.kinds()[cronlock.RunLost])
			}
			require.Equal(t, 1, y.kinds()[cronlock.RunnerLost])
			time.Sleep(time.Hour)
			require.Greater(t, y.count(), 1, "the job goes on")
			for _, stop := range stops {
				stop()
			}
		})
	}
}

// A runner that is stopped hands on what may be repeated.
func TestStopHandsBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var m cronlock.Memory
		var y tally
		j := counted(&y, "j", "0 * * * *", 10*time.Minute)
		j.AtLeastOnce = true
		c := cronlock.Cron{Claimer: &m, Events: y.event, Jobs: []cronlock.Job{j}}
		stop := start(c)
		time.Sleep(time.Until(j.Schedule.Next(time.Now()).Add(time.Minute)))
		other := start(c)
		time.Sleep(5 * time.Second)
		stop()
		time.Sleep(5 * time.Second)
		require.Equal(t, 2, y.count())
		require.Equal(t, 2, y.runs[1].Attempt)
		other()
	})
}

// A runner whose clock is ahead of the store's does not run early, and one that is behind is not waited for.
func TestSkew(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var m cronlock.Memory
		var y tally
		j := counted(&y, "j", "*/5 * * * * *", 0)
		var stops []func()
		for _, skew := range []time.Duration{-5 * time.Second, 0, 5 * time.Second, -300 * time.Millisecond} {
			// In virtual time all have one clock; the store's is shifted instead.
			stops = append(stops, start(cronlock.Cron{Claimer: skewed{&m, skew}, Events: y.event, Jobs: []cronlock.Job{j}}))
		}
		time.Sleep(5 * time.Minute)
		for _, stop := range stops {
			stop()
		}
		for key, n := range y.starts() {
			require.Equal(t, 1, n, key)
		}
		require.GreaterOrEqual(t, y.count(), 59)
		perRunner := map[string][]time.Duration{}
		for _, r := range y.runs {
			perRunner[r.Runner] = append(perRunner[r.Runner], r.Claimed.Sub(r.At))
			require.GreaterOrEqual(t, r.Claimed.Sub(r.At), time.Duration(0))
		}
		require.Equal(t, 2, y.kinds()[cronlock.ClockSkewed])
		late := 0
		for _, runs := range perRunner {
			for _, by := range runs {
				if by > 2*time.Second {
					late++
				}
			}
		}
		require.LessOrEqual(t, late, 1, "the others run what the one with the early clock leaves: %v", perRunner)
	})
}

type skewed struct {
	*cronlock.Memory
	skew time.Duration
}

func (s skewed) Fleet(ctx context.Context) (cronlock.Fleet, error) {
	f, err := s.Memory.Fleet(ctx)
	f.Skew = s.skew
	return f, err
}

func TestAlarm(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var m cronlock.Memory
		var y tally
		var fails atomic.Bool
		fails.Store(true)
		j := cronlock.Job{Name: "backup", Schedule: cronlock.MustParse("@hourly"), Alarm: 3 * time.Hour, Run: func(context.Context, cronlock.Run) error {
			if fails.Load() {
				return errors.New("disk full")
			}
			return nil
		}}
		stop := start(cronlock.Cron{Claimer: &m, Events: y.event, Jobs: []cronlock.Job{j}})
		defer stop()
		time.Sleep(2*time.Hour + 50*time.Minute)
		require.Zero(t, y.kinds()[cronlock.JobSilent])
		time.Sleep(6 * time.Hour)
		require.Equal(t, 1, y.kinds()[cronlock.JobSilent], "once for each silence")
		fails.Store(false)
		time.Sleep(6 * time.Hour)
		require.Equal(t, 1, y.kinds()[cronlock.JobSilent])
		fails.Store(true)
		time.Sleep(6 * time.Hour)
		require.Equal(t, 2, y.kinds()[cronlock.JobSilent])
	})
}

// Records are pruned, and a runner with an old clock cannot repeat what was forgotten.
func TestPruning(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var m cronlock.Memory
		var y tally
		c := cronlock.Cron{Claimer: &m, Events: y.event, Keep: 10, Jobs: []cronlock.Job{counted(&y, "j", "* * * * *", 0)}}
		began := time.Now()
		stop := start(c)
		defer stop()
		time.Sleep(10*time.Hour + 30*time.Second)
		left, err := m.Instants(t.Context(), "j", time.Time{}, time.Now())
		require.NoError(t, err)
		require.Less(t, len(left), 100)
		require.Greater(t, len(left), 70)
		_, err = m.Claim(t.Context(), cronlock.Claim{Key: cronlock.Key{Job: "j", At: began.Add(time.Minute).Truncate(time.Minute)}, Status: cronlock.Running, Runner: "late", Attempt: 1})
		require.ErrorIs(t, err, cronlock.ErrPruned)
		require.Equal(t, 600, y.count())
	})
}

func TestBadCron(t *testing.T) {
	err := cronlock.Cron{Limit: -1, Keep: -1, Jobs: []cronlock.Job{
		{Name: "a b"}, {Name: "x", Overlap: 7, CatchUp: 7, Window: time.Second, Retries: -1, Timeout: -1}, {Name: "x", Run: cronlock.Command("true")},
	}}.Run(context.Background())
	for _, want := range []string{
		"Claimer is nil", "Limit is -1", "Keep is -1", `Jobs[0]: lock name "a b"`, "job x: Run is nil", "job x: Overlap is 7", "job x: CatchUp is 7",
		"job x: Window is 1s, want at least 1m0s", "job x: Retries is -1", "job x: Timeout is -1ns", `Jobs[2]: name "x" is taken`,
	} {
		require.ErrorContains(t, err, want)
	}
}

// The lease of a runner ends while the store does not answer, and the end of a run is to be recorded: the run is left to the others. The
// context of a lease may be of any type, such as one that cannot be compared.
func TestLeaseEndsWhileTheEndIsRecorded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var m cronlock.Memory
		var y tally
		store := &silent{Memory: &m}
		j := counted(&y, "j", "* * * * *", time.Second)
		stop := start(cronlock.Cron{Claimer: store, Events: y.event, Jobs: []cronlock.Job{j}})
		defer stop()
		store.down.Store(true)
		time.Sleep(time.Until(j.Schedule.Next(time.Now()).Add(3 * time.Second)))
		require.Equal(t, 1, y.count())
		f, err := m.Fleet(t.Context())
		require.NoError(t, err)
		m.Expire(f.Runners[0])
		time.Sleep(10 * time.Second)
		store.down.Store(false)
		time.Sleep(10 * time.Second)
		claim, err := m.Get(t.Context(), y.runs[0].Key)
		require.NoError(t, err)
		require.Equal(t, cronlock.Lost, claim.Status)
	})
}

// silent is a store whose updates fail, and whose leases' contexts cannot be compared.
type silent struct {
	*cronlock.Memory
	down atomic.Bool
}

func (s *silent) Update(ctx context.Context, was, c cronlock.Claim) (cronlock.Claim, error) {
	if s.down.Load() {
		return cronlock.Claim{}, errFlaky
	}
	return s.Memory.Update(ctx, was, c)
}

type uncomparable struct {
	context.Context
	_ []int
}

func (s *silent) Join(ctx context.Context, work func(context.Context, cronlock.Lease) error) error {
	return s.Memory.Join(ctx, func(ctx context.Context, lease cronlock.Lease) error { return work(uncomparable{Context: ctx}, lease) })
}
