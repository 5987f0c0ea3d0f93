package scale

import (
	"math"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

// play asks a policy minute by minute about a load in instances, and gives what it decided.
func play(p Policy, from time.Time, minutes int, boot time.Duration, load func(minute int) float64, memory any) (decisions []Decision, last any) {
	in := Input{Min: 1, Max: 100, Count: 5, Ready: 5, Boot: boot, Memory: memory}
	for i := range minutes {
		in.Now = from.Add(time.Duration(i) * time.Minute)
		in.Ready = in.Count
		in.Samples = []Sample{{Value: 100 * load(i) / float64(in.Ready), At: in.Now}}
		d := p.Desired(in)
		switch {
		case d.Desired > in.Count:
			in.LastUp = in.Now
		case d.Desired < in.Count:
			in.LastDown = in.Now
		}
		in.Past = append(in.Past, Advice{in.Now, d.Raw})
		if len(in.Past) > 20 {
			in.Past = in.Past[1:]
		}
		in.Count, in.Memory = d.Desired, d.Memory
		decisions = append(decisions, d)
	}
	return decisions, in.Memory
}

// TestForecastKnowsTheDay has a load that doubles at noon, at once. After some days the instances are there before it comes, and
// on the first day they cannot be.
func TestForecastKnowsTheDay(t *testing.T) {
	load := func(i int) float64 {
		if m := i % 1440; m >= 720 && m < 780 {
			return 20
		}
		return 8
	}
	start := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	d, _ := play(Forecast{Metric: "m", Value: 100, Budget: 0.02}, start, 5*1440, 10*time.Minute, load, nil)
	require.Less(t, d[715].Desired, 15, "the first day")
	require.GreaterOrEqual(t, d[4*1440+713].Desired, 20, "before noon of the fifth: %s", d[4*1440+713].Reason)
	require.Less(t, d[4*1440+600].Desired, 15, "two hours before: %s", d[4*1440+600].Reason)
	require.Less(t, d[4*1440+830].Desired, 15, "and after it: %s", d[4*1440+830].Reason)
}

// TestForecastKnowsTheHour has a load that jumps at the same minute of each hour, at once, on the first day, when no day can tell.
func TestForecastKnowsTheHour(t *testing.T) {
	load := func(i int) float64 {
		if m := i % 60; m >= 20 && m < 30 {
			return 20
		}
		return 8
	}
	start := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	d, _ := play(Forecast{Metric: "m", Value: 100, Budget: 0.01}, start, 12*60, 10*time.Minute, load, nil)
	require.Less(t, d[18].Desired, 18, "the first hour")
	require.GreaterOrEqual(t, d[11*60+18].Desired, 20, "before it comes: %s", d[11*60+18].Reason)
	require.Less(t, d[11*60+55].Desired, 15, "and after it: %s", d[11*60+55].Reason)
	require.Contains(t, d[11*60+18].Reason, hourly.String())
}

// TestForecastKnowsNoise has a load that jumps about at random and has nothing to foretell: what is kept is what it comes to, and no
// multiple of a jump.
func TestForecastKnowsNoise(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 1))
	loads := make([]float64, 3*288)
	for i := range loads {
		loads[i] = 10 * random.Float64()
	}
	d, _ := play(Forecast{Metric: "m", Value: 100, Budget: 0.01}, noon, 3*1440, time.Minute, func(i int) float64 { return loads[i/5] }, nil)
	for i := 1440; i < len(d); i++ {
		require.InDelta(t, 10, d[i].Desired, 2, "minute %d: %s", i, d[i].Reason)
	}
}

// TestForecastIgnoresBursts has a quiet load with bursts of five minutes that come at random: the role has what they are worth all the
// time, and changes hardly.
func TestForecastIgnoresBursts(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 1))
	loads := make([]float64, 10*288)
	for i := range loads {
		loads[i] = 5 + random.Float64()
		if random.Float64() < 0.1 {
			loads[i] *= 4 + 2*random.Float64()
		}
	}
	d, _ := play(Forecast{Metric: "m", Value: 100, Budget: 0.01}, noon, 10*1440, time.Minute, func(i int) float64 { return loads[i/5] }, nil)
	changes := 0
	for i := 7 * 1440; i < len(d); i++ {
		if d[i].Desired != d[i-1].Desired {
			changes++
		}
	}
	require.Less(t, changes, 30, "%d in three days", changes)
}

// TestForecastKeepsItsBudget has a load that is as hard to foretell on one day as on another: what is lacking stays within the
// budget, whichever it is, without anybody having tuned anything, and a smaller one is dearer.
func TestForecastKeepsItsBudget(t *testing.T) {
	const days = 6
	random := rand.New(rand.NewPCG(1, 2))
	loads, at := make([]float64, days*1440), 0.0
	for i := range loads {
		at = 0.95*at + 0.05*random.NormFloat64()
		loads[i] = 40 * math.Exp(at+0.5*math.Sin(2*math.Pi*float64(i)/1440))
	}
	paid := map[float64]int{}
	for _, budget := range []float64{0.001, 0.01, 0.05} {
		d, _ := play(Forecast{Metric: "m", Value: 100, Budget: budget}, noon, len(loads), time.Minute, func(i int) float64 { return loads[i] }, nil)
		lacked, carried := 0.0, 0.0
		for i := 3 * 1440; i < len(d); i++ {
			carried += loads[i]
			lacked += max(0, loads[i]-float64(d[i-1].Desired))
			paid[budget] += d[i].Desired
		}
		require.Less(t, lacked/carried, 1.2*budget)
		require.Positive(t, lacked)
	}
	require.Greater(t, paid[0.001], paid[0.01])
	require.Greater(t, paid[0.01], paid[0.05])
}

// TestForecastRegrets has a load that wanders, so that every shrinking is undone soon: it learns to leave more, and not to shrink by
// little.
func TestForecastRegrets(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 1))
	at := 0.0
	d, _ := play(Forecast{Metric: "m", Value: 100, Budget: 0.01}, noon, 4*1440, time.Minute, func(int) float64 {
		at = 0.98*at + random.NormFloat64()
		return max(30+at, 0)
	}, nil)
	var undone [4]int
	declined := 0
	count, down := 5, -1000
	for i, d := range d {
		if shrinks := count - d.Desired; shrinks > 0 && i > 3*1440 {
			require.Greater(t, shrinks, 1, "minute %d: %s", i, d.Reason)
		}
		if strings.Contains(d.Reason, "shrinks by no less than") {
			declined++
		}
		switch {
		case d.Desired < count:
			down = i
		case d.Desired > count && i-down <= 15:
			undone[i/1440]++
			down = -1000
		}
		count = d.Desired
	}
	require.Greater(t, undone[0], 3, "%v", undone)
	require.LessOrEqual(t, undone[3], 3, "%v", undone)
	require.Positive(t, declined)
}

// TestForecastBeginsCareful: what a shrinking leaves is most at first, and after an hour what undone ones have made it.
func TestForecastBeginsCareful(t *testing.T) {
	m := remembered(nil)
	var spares []float64
	for i := range 120 {
		spares = append(spares, m.spare()-m.regret)
		_, last := play(Forecast{Metric: "m", Value: 100}, noon.Add(time.Duration(i)*time.Minute), 1, 0, func(int) float64 { return 5 }, m)
		m = last.(*memory)
	}
	require.InDelta(t, forecastNew, spares[0], 1e-9)
	require.InDelta(t, forecastNew/2, spares[32], 0.01)
	require.InDelta(t, 0, spares[70], 1e-3)
	require.Positive(t, forecastNew)
}

// TestForecastShrinksToMin: however much undone shrinkings have taught, a role without a load goes down to its Min.
func TestForecastShrinksToMin(t *testing.T) {
	m := remembered(nil)
	m.regret = forecastCap
	in := Input{Min: 10, Max: 100, Count: 12, Ready: 12, Boot: time.Minute, Memory: m, Now: noon}
	var d Decision
	for range 120 {
		in.Now = in.Now.Add(time.Minute)
		in.Samples = []Sample{{Value: 0.1, At: in.Now}}
		d = Forecast{Metric: "m", Value: 100}.Desired(in)
		in.Past = append(in.Past, Advice{in.Now, d.Raw})
		in.Count, in.Ready, in.Memory = d.Desired, d.Desired, d.Memory
	}
	require.Equal(t, in.Min, d.Desired, d.Reason)
}

// TestForecastLetsGoOfAPeak has a load that falls to a third within the hold: what is needed no more goes before it is over, and
// a small fall does not hurry anybody.
func TestForecastLetsGoOfAPeak(t *testing.T) {
	const at = 1440
	peak := func(after float64) []Decision {
		d, _ := play(Forecast{Metric: "m", Value: 100, Budget: 0.01}, noon, at+40, time.Minute, func(i int) float64 {
			switch {
			case i < at:
				return 10
			case i < at+4:
				return 30
			}
			return after
		}, nil)
		return d
	}
	require.GreaterOrEqual(t, peak(10)[at+3].Desired, 28)
	require.Less(t, peak(10)[at+14].Desired, 20, peak(10)[at+14].Reason)
	require.GreaterOrEqual(t, peak(27)[at+14].Desired, 28, peak(27)[at+14].Reason)
}

// TestForecastHurriesWhereLaunchesAreSlow: a smaller fall, and more shrinkings that were undone, let what was launched go early.
func TestForecastHurriesWhereLaunchesAreSlow(t *testing.T) {
	low := func(minutes int, regret float64) float64 {
		return (&memory{ahead: minutes + 1, regret: regret, ladder: ladder{minutes: 1440}}).low()
	}
	require.InDelta(t, 0.6, low(1, 0), 1e-9)
	require.InDelta(t, 0.6, low(3, 0), 1e-9)
	require.InDelta(t, 0.91, low(10, 0), 0.01)
	require.Zero(t, low(1, 0.15))
	require.InDelta(t, 0.91, low(10, 0.3), 0.01)
	require.Zero(t, low(5, 0.3))
}

// TestForecastKeepsWhatIsLittle: where no more than a few would go, they stay for as long as anything that was launched.
func TestForecastKeepsWhatIsLittle(t *testing.T) {
	const at = 1440
	d, _ := play(Forecast{Metric: "m", Value: 100, Budget: 0.01}, noon, at+40, time.Minute, func(i int) float64 {
		if i >= at && i < at+4 {
			return 3.9
		}
		return 0.9
	}, nil)
	require.Equal(t, 1, d[at-1].Desired)
	require.GreaterOrEqual(t, d[at+2].Desired, 4)
	require.GreaterOrEqual(t, d[at+14].Desired, 4, d[at+14].Reason)
	require.Less(t, d[at+39].Desired, 4, d[at+39].Reason)
}

// TestForecastKeepsWhatIsUsed has a load that is the same for a day, so that every forecast is as good as another, then a peak, and
// after it more than ever before: the forecasts that remember do not take away what is used.
func TestForecastKeepsWhatIsUsed(t *testing.T) {
	const at = 1440
	d, _ := play(Forecast{Metric: "m", Value: 100, Budget: 0.01}, noon, at+60, 10*time.Minute, func(i int) float64 {
		switch {
		case i < at:
			return 10
		case i < at+4:
			return 30
		}
		return 20
	}, nil)
	for i := at + 4; i < len(d); i++ {
		require.GreaterOrEqual(t, d[i].Desired, 20, "minute %d: %s", i-at, d[i].Reason)
	}
}

// TestForecastFollowsSteps has a load that is measured every five minutes and wanders: what it is now says most.
func TestForecastFollowsSteps(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 1))
	loads := make([]float64, 4*288)
	at := 30.0
	for i := range loads {
		at = max(10, min(50, at+2*random.NormFloat64()))
		loads[i] = at
	}
	d, _ := play(Forecast{Metric: "m", Value: 100, Budget: 0.01}, noon, 4*1440, time.Minute, func(i int) float64 { return loads[i/5] }, nil)
	said := 0
	for _, d := range d[2*1440:] {
		if strings.Contains(d.Reason, "judged most of all by the present") {
			said++
		}
	}
	require.Greater(t, said, 1440, "of %d", 2*1440)
}

// TestForecastHasALimit: a tail that is only guessed wants no more than a fifth beyond the highest load that was seen, or twice the
// present one.
func TestForecastHasALimit(t *testing.T) {
	loads := func(i int) float64 {
		if i == 1400 {
			return 40
		}
		return 3
	}
	_, last := play(Forecast{Metric: "m", Value: 100}, noon, 1430, time.Minute, loads, nil)
	require.Equal(t, 1000, last.(*memory).limit(1000), "less than a day is known")
	d, last := play(Forecast{Metric: "m", Value: 100}, noon, 1500, time.Minute, loads, nil)
	m := last.(*memory)
	require.Equal(t, 49, m.limit(1000), d[len(d)-1].Reason)
	require.Equal(t, 5, m.limit(5))
	m.now.bases[present] = float32(math.Log(100 + forecastFloor))
	require.InDelta(t, 201, m.limit(1000), 1)
	m.now.bases[present] = float32(math.NaN())
	require.Equal(t, 49, m.limit(1000), "nothing is known of this minute")

	careful := Forecast{Metric: "m", Value: 100, Budget: 1e-6}
	_, last = play(careful, noon, 1500, time.Minute, loads, nil)
	m = last.(*memory)
	next := func() Decision {
		d, _ := play(careful, noon.Add(1500*time.Minute), 1, time.Minute, func(int) float64 { return 3 }, m)
		return d[0]
	}
	require.Greater(t, next().Raw, 8)
	m.highest = 0
	require.LessOrEqual(t, next().Raw, 8)
}

// TestForecastIsNotMisledByAPeak has a load that is the same for days, so that hardly anything was ever lacking and much of the budget
// is left, and a peak that nobody could foretell: it is followed at once, and after it what is used all the time stays.
func TestForecastIsNotMisledByAPeak(t *testing.T) {
	for _, budget := range []float64{0.001, 0.01, 0.1} {
		for _, days := range []int{1, 3} {
			at := days * 1440
			d, _ := play(Forecast{Metric: "m", Value: 100, Budget: budget}, noon, at+240, time.Minute, func(i int) float64 {
				if i >= at && i < at+4 {
					return 30
				}
				return 9.7
			}, nil)
			require.GreaterOrEqual(t, d[at+2].Desired, 28, d[at+2].Reason)
			for _, d := range d[at:] {
				require.GreaterOrEqual(t, d.Desired, 10, d.Reason)
			}
		}
	}
}

// TestForecastFollowsATrend has a load that grows steadily: the instances run ahead of it.
func TestForecastFollowsATrend(t *testing.T) {
	load := func(i int) float64 { return 5 * math.Exp(0.03*float64(max(0, i-60))) }
	d, _ := play(Forecast{Metric: "m", Value: 100}, noon, 100, 10*time.Minute, load, nil)
	require.GreaterOrEqual(t, float64(d[90].Desired), load(90)*math.Exp(0.25), d[90].Reason)
}

func TestForecastDoesNotFlap(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		loads := rapid.SliceOfN(rapid.Float64Range(0, 60), 1, 90).Draw(t, "loads")
		d, _ := play(Forecast{Metric: "m", Value: 100}, noon, len(loads), time.Minute, func(i int) float64 { return loads[i] }, nil)
		count, up := 5, -1000
		for i, d := range d {
			hold := forecastHold
			if float64(d.Desired) < forecastLow*float64(count) {
				hold = forecastDrop
			}
			if d.Desired < count && i-up <= int(hold.Minutes()) {
				t.Fatalf("minute %d: shrinks from %d to %d, %d minutes after it grew", i, count, d.Desired, i-up)
			}
			if d.Desired > count {
				up = i
			}
			count = d.Desired
		}
	})
}

// TestForecastIsPure asks twice with the same memory: what the first asking has learned must not show.
func TestForecastIsPure(t *testing.T) {
	load := func(i int) float64 { return 5 + 3*math.Sin(float64(i)/50) }
	f := Forecast{Metric: "m", Value: 100}
	_, memory := play(f, noon, 2000, time.Minute, load, nil)
	one, _ := play(f, noon.Add(2000*time.Minute), 200, time.Minute, load, memory)
	_, _ = play(f, noon.Add(2000*time.Minute), 300, 5*time.Minute, func(int) float64 { return 50 }, memory)
	two, _ := play(f, noon.Add(2000*time.Minute), 200, time.Minute, load, memory)
	for i := range one {
		require.Equal(t, one[i].Desired, two[i].Desired)
		require.Equal(t, one[i].Reason, two[i].Reason)
	}
}

// TestForecastBearsGaps leaves out hours and days, and lets the clock go back.
func TestForecastBearsGaps(t *testing.T) {
	f := Forecast{Metric: "m", Value: 100}
	var memory any
	at := noon
	for _, gap := range []time.Duration{0, 3 * time.Hour, 26 * time.Hour, -time.Hour, 40 * 24 * time.Hour, time.Minute} {
		at = at.Add(gap)
		var d []Decision
		d, memory = play(f, at, 300, 3*time.Minute, func(int) float64 { return 7.5 }, memory)
		at = at.Add(300 * time.Minute)
		last := d[len(d)-1]
		require.GreaterOrEqual(t, last.Desired, 8, last.Reason)
		require.LessOrEqual(t, last.Desired, 13, last.Reason)
	}
}

func TestForecastChecks(t *testing.T) {
	require.NoError(t, Forecast{Metric: "m", Value: 1}.Check())
	err := Forecast{Value: math.Inf(1), Budget: 2, Boot: -1}.Check()
	for _, want := range []string{"metric is empty", "value is +Inf", "budget is 2", "boot is -1ns"} {
		require.ErrorContains(t, err, want)
	}
}
