// Package gocron holds cronlock against github.com/go-co-op/gocron/v2 with a lock, side by side on one ensemble:
//
//	go test -v -count 1 .
//
// It is a module of its own, so that gocron and what it needs are in nobody's module graph.
package gocron

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-co-op/gocron/v2"
	"github.com/go-zookeeper/zk"
	"github.com/jonboulle/clockwork"
	"github.com/stretchr/testify/require"

	"github.com/scalr-go/scalr/cronlock"
	"github.com/scalr-go/scalr/cronlock/zookeeper"
	"github.com/scalr-go/scalr/internal/testenv"
)

const (
	jobs       = 20
	expression = "*/2 * * * * *"
	period     = 2 * time.Second
	takes      = 5 * time.Millisecond
	lasts      = 30 * time.Second
)

// errors are how far the clock of each runner is ahead.
var clockErrors = []time.Duration{-300 * time.Millisecond, -150 * time.Millisecond, 0, 75 * time.Millisecond, 150 * time.Millisecond}

// outcome is a line of the result.
type outcome struct {
	What       string  `json:"what"`
	Instants   int     `json:"instants"`
	Doubled    int     `json:"doubled"` // instants that were run more than once
	Missed     int     `json:"missed"`
	EarlyMS    int64   `json:"earliest_ms"` // start against instant
	LateP50    int64   `json:"lateness_ms_p50"`
	LateP99    int64   `json:"lateness_ms_p99"`
	Operations float64 `json:"requests_per_run"` // to the ensemble, pings and leases included
}

// runs is what was run when.
type runs struct {
	mu   sync.Mutex
	list map[string][]time.Duration // by job and instant: how late
}

func (r *runs) start(job string) {
	now := time.Now()
	at := now.Round(period) // clocks differ by much less than the period
	r.mu.Lock()
	defer r.mu.Unlock()
	key := fmt.Sprint(job, "@", at.Unix())
	r.list[key] = append(r.list[key], now.Sub(at))
}

// measure runs one of the two for a while.
func measure(t *testing.T, e *testenv.Ensemble, what string, begin func(*runs) (end func())) outcome {
	r := &runs{list: map[string][]time.Duration{}}
	end := begin(r)
	time.Sleep(5 * time.Second) // the fleet is complete
	from, before := time.Now(), requests(t, e)
	time.Sleep(lasts)
	to, after := time.Now(), requests(t, e)
	end()

	o := outcome{What: what}
	var late []time.Duration
	n := 0
	for at := from.Truncate(period).Add(2 * period); at.Before(to.Add(-period)); at = at.Add(period) {
		for j := range jobs {
			o.Instants++
			starts := r.list[fmt.Sprint(name(j), "@", at.Unix())]
			n += len(starts)
			late = append(late, starts...)
			switch {
			case len(starts) == 0:
				o.Missed++
			case len(starts) > 1:
				o.Doubled++
			}
		}
	}
	slices.Sort(late)
	require.NotEmpty(t, late)
	ms := func(p int) int64 { return late[min(len(late)-1, len(late)*p/100)].Milliseconds() }
	o.EarlyMS, o.LateP50, o.LateP99 = ms(0), ms(50), ms(99)
	o.Operations = float64(after-before) / to.Sub(from).Seconds() * period.Seconds() / jobs
	return o
}

func name(j int) string { return fmt.Sprint("job-", j) }

// requests is how many all servers have had so far.
func requests(t *testing.T, e *testenv.Ensemble) (n int) {
	for i := range e.Servers {
		for l := range strings.Lines(e.Ask(t.Context(), i, "mntr")) {
			if text, ok := strings.CutPrefix(l, "zk_packets_received\t"); ok {
				v, err := strconv.Atoi(strings.TrimSpace(text))
				require.NoError(t, err)
				n += v
			}
		}
	}
	return n
}

func TestSideBySide(t *testing.T) {
	e := testenv.ZooKeeper(t, 3)
	theirs := measure(t, e, "gocron v2.21.2, a lock for each job", func(r *runs) func() { return withGocron(t, e, r) })
	ours := measure(t, e, "cronlock", func(r *runs) func() { return withCronlock(t, e, r) })
	for _, o := range []outcome{theirs, ours} {
		line, err := json.Marshal(o)
		require.NoError(t, err)
		fmt.Println(string(line))
	}
	require.Zero(t, ours.Doubled+ours.Missed)
}

func withGocron(t *testing.T, e *testenv.Ensemble, r *runs) func() {
	var ends []func()
	for _, ahead := range clockErrors {
		conn, _, err := zk.Connect(e.Addrs(), 10*time.Second, zk.WithLogInfo(false))
		require.NoError(t, err)
		_, err = conn.Create("/gocron", nil, 0, zk.WorldACL(zk.PermAll))
		if err != zk.ErrNodeExists {
			require.NoError(t, err)
		}
		s, err := gocron.NewScheduler(
			gocron.WithDistributedLocker(locker{conn}), gocron.WithLocation(time.UTC), gocron.WithClock(clock{clockwork.NewRealClock(), ahead}),
		)
		require.NoError(t, err)
		for j := range jobs {
			_, err := s.NewJob(gocron.CronJob(expression, true), gocron.NewTask(func() { r.start(name(j)); time.Sleep(takes) }), gocron.WithName(name(j)))
			require.NoError(t, err)
		}
		s.Start()
		ends = append(ends, func() { _ = s.Shutdown(); conn.Close() })
	}
	return func() {
		for _, end := range ends {
			end()
		}
	}
}

// locker is what gocron's own lockers are on other stores: who makes the node runs the job, and removes it after the run.
type locker struct{ conn *zk.Conn }

func (l locker) Lock(_ context.Context, key string) (gocron.Lock, error) {
	_, err := l.conn.Create("/gocron/"+key, nil, zk.FlagEphemeral, zk.WorldACL(zk.PermAll))
	return lock{l.conn, key}, err
}

type lock struct {
	conn *zk.Conn
	key  string
}

func (l lock) Unlock(context.Context) error { return l.conn.Delete("/gocron/"+l.key, -1) }

// clock is one that is wrong.
type clock struct {
	clockwork.Clock
	ahead time.Duration
}

func (c clock) Now() time.Time                         { return c.Clock.Now().Add(c.ahead) }
func (c clock) Since(t time.Time) time.Duration        { return c.Now().Sub(t) }
func (c clock) Until(t time.Time) time.Duration        { return t.Sub(c.Now()) }
func (c clock) After(d time.Duration) <-chan time.Time { return c.Clock.After(d) }

func withCronlock(t *testing.T, e *testenv.Ensemble, r *runs) func() {
	ctx, cancel := context.WithCancel(t.Context())
	var group sync.WaitGroup
	for _, ahead := range clockErrors {
		client, err := zookeeper.Open(ctx, zookeeper.Options{Servers: e.Addrs()})
		require.NoError(t, err)
		c := cronlock.Cron{Claimer: claimer{client, ahead}}
		for j := range jobs {
			c.Jobs = append(c.Jobs, cronlock.Job{Name: name(j), Schedule: cronlock.MustParse(expression), Run: func(context.Context, cronlock.Run) error {
				r.start(name(j))
				time.Sleep(takes)
				return nil
			}})
		}
		group.Go(func() {
			defer client.Close()
			_ = c.Run(ctx)
		})
	}
	return func() { cancel(); group.Wait() }
}

// claimer is that of a runner whose clock is wrong. The clock of this process is not; but a clock that is ahead is corrected by
// what is measured against the store's, and so only one that is behind makes a difference.
type claimer struct {
	cronlock.Claimer
	ahead time.Duration
}

func (c claimer) Fleet(ctx context.Context) (cronlock.Fleet, error) {
	f, err := c.Claimer.Fleet(ctx)
	f.Skew = cmp.Or(min(c.ahead, 0), f.Skew)
	return f, err
}
