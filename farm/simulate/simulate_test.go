package simulate

import (
	"math"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/scalr-go/scalr/farm/scale"
)

// waves is two and a half days of load with a rush each noon, minute by minute.
func waves() Trace {
	t := Trace{Start: time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC), Step: time.Minute}
	for i := range 3600 {
		day := float64(i%1440) / 1440 * 2 * math.Pi
		load := 3000 - 2000*math.Cos(day) + 100*math.Sin(float64(i*i%97))
		if i%1440 > 700 && i%1440 < 760 {
			load += 40 * float64(i%1440-700)
		}
		t.Requests = append(t.Requests, load)
	}
	return t
}

// bruteOptimum tries every way to keep or end the one instance of a layer between its busy times.
func bruteOptimum(needs []int, step, boot time.Duration) float64 {
	most, total := 0, 0.0
	for _, n := range needs {
		most = max(most, n)
	}
	for k := 1; k <= most; k++ {
		// The least that is paid up to the step, if the instance is on or off then.
		on, off, seen := 0.0, 0.0, false
		for _, n := range needs {
			switch {
			case n >= k && !seen:
				on, off, seen = step.Seconds(), math.Inf(1), true
			case !seen:
			case n >= k:
				on, off = min(on, off+boot.Seconds())+step.Seconds(), math.Inf(1)
			default:
				on, off = on+step.Seconds(), min(on, off)
			}
		}
		total += min(on, off)
	}
	return total
}

// TestOptimum holds the optimum against every choice there is.
func TestOptimum(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		needs := rapid.SliceOfN(rapid.IntRange(0, 4), 1, 30).Draw(t, "needs")
		boot := time.Duration(rapid.IntRange(0, 10).Draw(t, "boot")) * time.Minute
		want := bruteOptimum(needs, time.Minute, boot)
		require.InDelta(t, want, optimum(needs, time.Minute, boot), 1e-6)
		sum := 0
		for i, n := range optimal(needs, time.Minute, boot) {
			require.GreaterOrEqual(t, n, needs[i])
			sum += n
		}
		require.InDelta(t, want, float64(sum)*60, 1e-6, "the picture shows what is paid")
	})
}

// TestFarmDecidesTheSame holds the short way against the whole decision of a farm.
func TestFarmDecidesTheSame(t *testing.T) {
	for name, p := range map[string]scale.Policy{
		"target":    scale.Target{Metric: metric, Value: 60},
		"threshold": scale.Threshold{Metric: metric, Low: 30, High: 70},
		"forecast":  scale.Forecast{Metric: metric, Value: 100},
	} {
		t.Run(name, func(t *testing.T) {
			s := Scenario{Policy: p, PerInstance: 10, Min: 1, Max: 30, Cloud: Cloud{Boot: 3 * time.Minute}, To: 30 * time.Hour}
			short, err := Run(waves(), s)
			require.NoError(t, err)
			s.Farm = true
			whole, err := Run(waves(), s)
			require.NoError(t, err)
			require.Equal(t, short, whole)
			require.Positive(t, short.Launches)
		})
	}
}

func TestWhatIsPaid(t *testing.T) {
	// Two hours at two instances, then two at one.
	trace := Trace{Step: time.Hour, Requests: []float64{7200, 7200, 3600, 3600}}
	exact := scale.Func(func(in scale.Input) scale.Decision {
		mean, _ := in.Mean()
		n := int(math.Ceil(mean*float64(in.Ready)/100 - 1e-9))
		return scale.Decision{Desired: n, Raw: n, Reason: "as many as are needed"}
	})
	s := Scenario{Policy: exact, PerInstance: 1, Interval: time.Hour}
	r, err := Run(trace, s)
	require.NoError(t, err)
	require.InDelta(t, 7, r.Paid, 1e-9, "the load is known when it is over: one hour too many")
	require.InDelta(t, 6, r.Optimum, 1e-9)
	require.InDelta(t, 0.25, r.OverTimeshare, 1e-9)
	require.Zero(t, r.Excess)

	s.Cloud.Billing = 3 * time.Hour
	r, err = Run(trace, s)
	require.NoError(t, err)
	require.InDelta(t, 9, r.Paid, 1e-9, "three hours for the one, twice three for the other")

	s = Scenario{Policy: exact, PerInstance: 1, Interval: time.Hour, Max: 1}
	r, err = Run(trace, s)
	require.NoError(t, err)
	require.InDelta(t, 1./3, r.Excess, 1e-9)
	require.Equal(t, 2*time.Hour, r.Violating)
}

// TestBadClouds draws clouds that fail, run out and take their time: the bounds hold, and everything ends.
func TestBadClouds(t *testing.T) {
	trace := waves()
	trace.Requests = trace.Requests[:600]
	rapid.Check(t, func(t *rapid.T) {
		c := Cloud{Boot: time.Duration(rapid.IntRange(0, 900).Draw(t, "boot")) * time.Second, Spread: rapid.Float64Range(0, 1).Draw(t, "spread"),
			Failures: rapid.Float64Range(0, 0.5).Draw(t, "failures"), Capacity: rapid.IntRange(0, 8).Draw(t, "capacity"),
			Billing: rapid.SampledFrom([]time.Duration{0, time.Minute, time.Hour}).Draw(t, "billing"), Seed: rapid.Uint64().Draw(t, "seed")}
		s := Scenario{Policy: scale.Forecast{Metric: metric, Value: 100}, PerInstance: 10, Min: 2, Max: 12, Cloud: c, Series: true,
			Farm: rapid.IntRange(0, 9).Draw(t, "farm") == 0}
		r, err := Run(trace, s)
		require.NoError(t, err)
		for _, p := range r.Series {
			require.GreaterOrEqual(t, p.Desired, s.Min)
			require.LessOrEqual(t, p.Desired, s.Max)
			require.LessOrEqual(t, p.Ready, p.Count)
			if c.Capacity > 4 { // the first ones were there before
				require.LessOrEqual(t, p.Count, c.Capacity)
			}
		}
		again, err := Run(trace, s)
		require.NoError(t, err)
		require.Equal(t, r, again, "the same scenario has the same result")
	})
}

func TestTune(t *testing.T) {
	f := Family{Name: "target", Low: 10, High: 100, Policy: func(k float64) scale.Policy { return scale.Target{Metric: metric, Value: k} }}
	s := Scenario{PerInstance: 5, Min: 1, Cloud: Cloud{Boot: 5 * time.Minute}}
	tight, strict, err := Tune(waves(), s, f, 0.0001)
	require.NoError(t, err)
	loose, lax, err := Tune(waves(), s, f, 0.01)
	require.NoError(t, err)
	require.LessOrEqual(t, strict.Excess, 0.0001)
	require.LessOrEqual(t, lax.Excess, 0.01)
	require.Less(t, lax.Paid, strict.Paid)
	require.Less(t, tight, loose)

	s.Max = 1
	_, _, err = Tune(waves(), s, f, 0.0001)
	require.ErrorIs(t, err, ErrBudget)

	_, err = Compare(waves(), s, 1, 0.01, f)
	require.ErrorContains(t, err, "train is 1")
}

func TestReadCSV(t *testing.T) {
	trace, err := ReadCSV(strings.NewReader("t_s,requests,tokens\n0,10,1\n60,20,1\n\n180,40,1\n240,50,1\n"))
	require.NoError(t, err)
	require.Equal(t, time.Minute, trace.Step)
	require.Equal(t, []float64{10, 20, 30, 40, 50}, trace.Requests, "a line that is missing is between its neighbours")

	trace, err = ReadCSV(strings.NewReader("timestamp,value\n2014-04-10 00:04:00,94.0\n2014-04-10 00:09:00,56\n"))
	require.NoError(t, err)
	require.Equal(t, 5*time.Minute, trace.Step)
	require.Equal(t, time.Date(2014, 4, 10, 0, 4, 0, 0, time.UTC), trace.Start)

	for text, want := range map[string]string{
		"":                           "0 lines with figures",
		"a,b\n1,2\n":                 "1 lines with figures",
		"1,2\nnoon,3\n":              `line 2: "noon" is no time`,
		"1,2\n2,many\n":              `line 2 has "many" requests`,
		"1,2\n2,-1\n":                `line 2 has "-1" requests`,
		"1,2\n1,3\n":                 "line 2 is not later",
		"1\n2\n":                     "line 1 has 1 columns",
		"0,1\n0.001,1\n10000000,1\n": "steps, want at most",
	} {
		_, err := ReadCSV(strings.NewReader(text))
		require.ErrorContains(t, err, want, text)
	}
}

func TestWrongScenario(t *testing.T) {
	_, err := Run(Trace{}, Scenario{Min: 3, Max: 2, Cloud: Cloud{Boot: -1, Failures: 1}})
	for _, want := range []string{"trace: step is 0s", "policy is nil", "per_instance is 0", "min is 3 and max is 2", "boot is -1ns", "failures is 1"} {
		require.ErrorContains(t, err, want)
	}
}
