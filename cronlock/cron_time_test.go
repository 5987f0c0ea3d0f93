package cronlock_test

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/scalr-go/scalr/cronlock"
)

// When the clock is set forward or back, runners run what the schedules say, once: New York in the spring and the autumn of 2000.
func TestCronWhenClocksAreSet(t *testing.T) {
	for at, want := range map[string]map[string][]string{
		"2000-04-02T07:00:00Z": { // 01:59:59 EST is followed by 03:00:00 EDT
			"30 2 * * *":   {"07:00"},
			"30 1 * * *":   {"06:30"},
			"0 */2 * * *":  {"05:00", "08:00"}, // 00:00 and 04:00
			"*/30 2 * * *": nil,
		},
		"2000-10-29T06:00:00Z": { // 01:59:59 EDT is followed by 01:00:00 EST
			"30 2 * * *":   {"07:30"},
			"30 1 * * *":   {"05:30"},
			"0 */2 * * *":  {"04:00", "07:00"},
			"*/30 1 * * *": {"05:00", "05:30", "06:00", "06:30"},
		},
	} {
		synctest.Test(t, func(t *testing.T) {
			transition, err := time.Parse(time.RFC3339, at)
			require.NoError(t, err)
			time.Sleep(time.Until(transition.Add(-2*time.Hour - 10*time.Second)))
			var m cronlock.Memory
			var y tally
			c := cronlock.Cron{Claimer: &m, Events: y.event}
			n := 0
			wants := map[string]int{}
			for expr, times := range want {
				j := counted(&y, fmt.Sprint("job-", n), "TZ=America/New_York "+expr, time.Second)
				j.CatchUp = cronlock.CatchUpAll
				c.Jobs = append(c.Jobs, j)
				for _, hour := range times {
					wants[j.Name+"@"+transition.Format("2006-01-02T")+hour+":00Z"] = 1
				}
				n++
			}
			stops := []func(){start(c), start(c), start(c)}
			time.Sleep(3*time.Hour + 40*time.Minute)
			for _, stop := range stops {
				stop()
			}
			require.Equal(t, wants, y.starts())
		})
	}
}

// Nobody lives for ten thousand instants. Then runners come.
func TestTenThousandMissed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const missed = 10_000
		var m cronlock.Memory
		runs := map[string]*tally{"all": {}, "last": {}, "none": {}}
		var events tally
		c := cronlock.Cron{Claimer: &m, Events: events.event}
		for name, policy := range map[string]cronlock.CatchUp{"all": cronlock.CatchUpAll, "last": cronlock.CatchUpLast, "none": cronlock.CatchUpNone} {
			j := counted(runs[name], name, "@every 1s", 0)
			j.CatchUp, j.Window = policy, 4*time.Hour
			c.Jobs = append(c.Jobs, j)
		}
		stop := start(c)
		time.Sleep(10 * time.Second)
		stop()
		before := map[string]int{}
		for name, y := range runs {
			before[name] = y.count()
		}
		time.Sleep(missed * time.Second)
		stops := []func(){start(c), start(c), start(c)}
		time.Sleep(2*time.Minute - 500*time.Millisecond)
		for _, stop := range stops {
			stop()
		}
		for name, y := range runs {
			for run, times := range y.starts() {
				require.Equal(t, 1, times, run)
			}
			t.Logf("%s: %d runs", name, y.count()-before[name])
		}
		require.GreaterOrEqual(t, runs["all"].count()-before["all"], missed+119)
		// What is younger than a minute always runs.
		require.InDelta(t, 60+120, runs["none"].count()-before["none"], 5)
		require.InDelta(t, 60+120, runs["last"].count()-before["last"], 5)
	})
}
