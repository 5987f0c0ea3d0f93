package cronlock_test

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/scalr-go/scalr/cronlock"
)

// counting counts the calls of a claimer, and how many instants it has listed.
type counting struct {
	cronlock.Claimer
	mu    sync.Mutex
	calls map[string]int
}

func (c *counting) count(call string, n int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.calls == nil {
		c.calls = map[string]int{}
	}
	c.calls[call] += n
}

// since gives what was counted since the last call.
func (c *counting) since() map[string]int {
	c.mu.Lock()
	defer c.mu.Unlock()
	was := c.calls
	c.calls = map[string]int{}
	return was
}

func (c *counting) Fleet(ctx context.Context) (cronlock.Fleet, error) {
	c.count("fleet", 1)
	return c.Claimer.Fleet(ctx)
}

func (c *counting) Claim(ctx context.Context, claim cronlock.Claim) (cronlock.Claim, error) {
	c.count("claim", 1)
	return c.Claimer.Claim(ctx, claim)
}

func (c *counting) Update(ctx context.Context, was, claim cronlock.Claim) (cronlock.Claim, error) {
	c.count("update", 1)
	return c.Claimer.Update(ctx, was, claim)
}

func (c *counting) Get(ctx context.Context, run cronlock.Key) (cronlock.Claim, error) {
	c.count("get", 1)
	return c.Claimer.Get(ctx, run)
}

func (c *counting) Open(ctx context.Context) ([]cronlock.Key, error) {
	c.count("open", 1)
	return c.Claimer.Open(ctx)
}

func (c *counting) Instants(ctx context.Context, job string, from, to time.Time) ([]time.Time, error) {
	list, err := c.Claimer.Instants(ctx, job, from, to)
	c.count("instants", 1)
	c.count("listed", len(list))
	return list, err
}

func (c *counting) Control(ctx context.Context, job string) (cronlock.Control, error) {
	c.count("control", 1)
	return c.Claimer.Control(ctx, job)
}

// What a fleet asks of the store grows with what is due, and not with how many jobs there are, nor with how long they have run.
func TestLoadGrowsWithWhatIsDue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var m cronlock.Memory
		var y tally
		store := &counting{Claimer: &m}
		c := cronlock.Cron{Claimer: store, Jobs: []cronlock.Job{counted(&y, "busy", "* * * * * *", 0)}}
		for n := range 1000 {
			c.Jobs = append(c.Jobs, counted(&y, fmt.Sprint("quiet-", n), "0 0 1 1 *", 0))
		}
		for n := range 100 {
			c.Jobs = append(c.Jobs, counted(&y, fmt.Sprint("paused-", n), "0 * * * *", 0))
		}
		stops := []func(){start(c), start(c), start(c)}
		time.Sleep(50 * time.Minute)
		for n := range 100 {
			require.NoError(t, c.Pause(t.Context(), fmt.Sprint("paused-", n)))
		}
		time.Sleep(15 * time.Minute)
		store.since()
		before := y.count()
		time.Sleep(20 * time.Minute) // with no whole hour in it
		calls, runs := store.since(), y.count()-before
		for _, stop := range stops {
			stop()
		}
		t.Logf("%d runs: %v", runs, calls)
		require.InDelta(t, 1200, runs, 2)
		require.InDelta(t, runs, calls["claim"], 10)
		require.InDelta(t, runs, calls["update"], 10)
		require.InDelta(t, 3*1200, calls["fleet"], 100, "each runner once a second")
		require.InDelta(t, 3*1200, calls["open"], 100)
		require.Less(t, calls["control"], runs+100, "one for each sweep that finds something due, and none for jobs that are not")
		require.Less(t, calls["get"], 4*runs, "of the runners that come after the first, and of the sweep")
		require.Less(t, calls["instants"], 40, "where the record is pruned")
	})
}
