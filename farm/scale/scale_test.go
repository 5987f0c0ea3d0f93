package scale

import (
	"math"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

var noon = time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC)

func samples(values ...float64) (list []Sample) {
	for i, v := range values {
		list = append(list, Sample{Instance: string(rune('a' + i)), Value: v, At: noon})
	}
	return list
}

func TestTarget(t *testing.T) {
	target := Target{Metric: "cpu", Value: 60, Window: 5 * time.Minute}
	for name, c := range map[string]struct {
		in   Input
		want int
		why  string
	}{
		"grows by the ratio":            {Input{Count: 4, Ready: 4, Samples: samples(90, 90, 90, 90)}, 6, "grow from 4 to 6"},
		"stays within the tolerance":    {Input{Count: 4, Ready: 4, Samples: samples(65, 65, 65, 65)}, 4, "stay at 4"},
		"shrinks":                       {Input{Count: 4, Ready: 4, Samples: samples(30, 30, 30, 30)}, 2, "shrink from 4 to 2"},
		"shrinks to what was needed":    {Input{Count: 4, Ready: 4, Samples: samples(15, 15, 15, 15), Past: []Advice{{noon.Add(-time.Minute), 3}}}, 3, "shrink from 4 to 3, which was needed within 5m0s (2 would do)"},
		"waits for the window":          {Input{Count: 4, Ready: 4, Samples: samples(15, 15, 15, 15), Past: []Advice{{noon.Add(-time.Minute), 9}}}, 4, "9 was needed within 5m0s: stay"},
		"forgets what is long ago":      {Input{Count: 4, Ready: 4, Samples: samples(15, 15, 15, 15), Past: []Advice{{noon.Add(-time.Hour), 9}}}, 2, "shrink from 4 to 2"},
		"counts what is on its way":     {Input{Count: 6, Ready: 4, Samples: samples(90, 90, 90, 90)}, 6, "stay at 6"},
		"does not cut what is coming":   {Input{Count: 8, Ready: 4, Samples: samples(90, 90, 90, 90)}, 8, "4 are on their way"},
		"is missing":                    {Input{Count: 4, Ready: 4}, 4, "cpu is missing"},
		"is missing from most":          {Input{Count: 4, Ready: 4, Samples: samples(1)}, 4, "cpu is missing"},
		"is no number":                  {Input{Count: 4, Ready: 4, Samples: samples(math.NaN(), math.Inf(1))}, 4, "cpu is missing"},
		"nothing serves":                {Input{Count: 4, Samples: samples(1)}, 4, "nothing serves yet"},
		"is kept within the bounds":     {Input{Count: 4, Ready: 4, Samples: samples(1e300, 1e300, 1e300, 1e300)}, 10, "grow from 4 to 10"},
		"never goes below the minimum":  {Input{Count: 4, Ready: 4, Samples: samples(0, 0, 0, 0)}, 2, "shrink from 4 to 2"},
		"a negative value is no reason": {Input{Count: 4, Ready: 4, Samples: samples(-5, -5, -5, -5)}, 2, "shrink from 4 to 2"},
	} {
		t.Run(name, func(t *testing.T) {
			c.in.Now, c.in.Min, c.in.Max = noon, 2, 10
			got := target.Desired(c.in)
			require.Equal(t, c.want, got.Desired, got.Reason)
			require.Contains(t, got.Reason, c.why)
		})
	}
	total := Target{Metric: "rps", Value: 100, Total: true}.Desired(Input{Now: noon, Min: 1, Max: 10, Count: 2, Ready: 2, Samples: []Sample{{Value: 500, At: noon}}})
	require.Equal(t, 5, total.Desired)
}

func TestThreshold(t *testing.T) {
	rule := Threshold{Metric: "load", Low: 2, High: 5, CoolDown: 3 * time.Minute}
	for name, c := range map[string]struct {
		in   Input
		want int
		why  string
	}{
		"one more above":               {Input{Count: 4, Ready: 4, Samples: samples(6, 6, 6, 6)}, 5, "above 5"},
		"one less below":               {Input{Count: 4, Ready: 4, Samples: samples(1, 1, 1, 1)}, 3, "below 2"},
		"nothing between":              {Input{Count: 4, Ready: 4, Samples: samples(3, 3, 3, 3)}, 4, "within 2 to 5"},
		"never while one is coming":    {Input{Count: 4, Ready: 3, Samples: samples(6, 6, 6)}, 4, "1 are on their way"},
		"but not for one that is late": {Input{Count: 4, Ready: 3, Late: 1, Samples: samples(6, 6, 6)}, 5, "grow from 4 to 5"},
		"not in the cool-down":         {Input{Count: 4, Ready: 4, Samples: samples(6, 6, 6, 6), LastUp: noon.Add(-time.Minute)}, 4, "2m0s to go"},
		"nor after shrinking":          {Input{Count: 4, Ready: 4, Samples: samples(1, 1, 1, 1), LastDown: noon.Add(-time.Minute)}, 4, "2m0s to go"},
		"again after it":               {Input{Count: 4, Ready: 4, Samples: samples(6, 6, 6, 6), LastUp: noon.Add(-3 * time.Minute)}, 5, "above"},
		"not above the most":           {Input{Count: 10, Ready: 10, Samples: samples(6, 6, 6, 6, 6)}, 10, "stay"},
		"missing is not zero":          {Input{Count: 4, Ready: 4}, 4, "missing"},
	} {
		t.Run(name, func(t *testing.T) {
			c.in.Now, c.in.Min, c.in.Max = noon, 2, 10
			got := rule.Desired(c.in)
			require.Equal(t, c.want, got.Desired, got.Reason)
			require.Contains(t, got.Reason, c.why)
		})
	}
}

// TestPolicies draws what a policy may be asked, and wants an answer within the bounds, a reason, and no loss without a metric.
func TestPolicies(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		least := rapid.IntRange(0, 20).Draw(t, "min")
		most := rapid.IntRange(max(least, 1), 40).Draw(t, "max")
		in := Input{Now: noon, Min: least, Max: most, Count: rapid.IntRange(least, most).Draw(t, "count")}
		in.Ready = rapid.IntRange(0, in.Count).Draw(t, "ready")
		for range rapid.IntRange(0, in.Ready).Draw(t, "samples") {
			in.Samples = append(in.Samples, Sample{Instance: "i", Value: rapid.Float64().Draw(t, "value"), At: noon})
		}
		for range rapid.IntRange(0, 3).Draw(t, "past") {
			in.Past = append(in.Past, Advice{noon.Add(-time.Duration(rapid.IntRange(0, 600).Draw(t, "ago")) * time.Second), rapid.IntRange(least, most).Draw(t, "advice")})
		}
		for _, p := range []Policy{Target{Metric: "m", Value: 50}, Threshold{Metric: "m", Low: 2, High: 5}, Forecast{Metric: "m", Value: 50}, Forecast{Metric: "m", Value: 50, Total: true},
			Step{Metric: "m", Up: []Bound{{At: 50, By: 1}, {At: 90, Share: 1}}, Down: []Bound{{At: 20, By: 2}}},
			MaxOf{Target{Metric: "m", Value: 50}, Threshold{Metric: "m", Low: 2, High: 5}},
			Within(Target{Metric: "m", Value: 50}, Limit{Up: Rate{By: 1, Per: time.Minute}, DownFor: time.Minute})} {
			got := p.Desired(in)
			if got.Reason == "" || got.Desired < least || got.Desired > most {
				t.Fatalf("%T: %+v", p, got)
			}
			if len(in.Samples) == 0 && got.Desired != in.Count {
				t.Fatalf("%T changes without a metric: %+v", p, got)
			}
		}
	})
}

func TestCheck(t *testing.T) {
	require.NoError(t, Target{Metric: "m", Value: 1}.Check())
	require.ErrorContains(t, Target{}.Check(), "metric is empty")
	require.ErrorContains(t, Target{Metric: "m", Value: math.NaN()}.Check(), "value is NaN")
	require.ErrorContains(t, Target{Metric: "m", Value: 1, Tolerance: 1, Window: -1}.Check(), "tolerance is 1")
	require.NoError(t, Threshold{Metric: "m", Low: 1, High: 2}.Check())
	require.ErrorContains(t, Threshold{Low: 2, High: 2, CoolDown: -1}.Check(), "low is 2 and high is 2")
}

func TestFiguresAreReadable(t *testing.T) {
	for v, want := range map[float64]string{20000: "20000", 32213.7: "32200", 0.12345: "0.123", 61.26: "61.3", 0: "0", -5: "-5"} {
		require.Equal(t, want, figure(v).String())
	}
	d := (&Target{Metric: "requests", Value: 20000}).Desired(Input{Now: time.Now(), Min: 1, Max: 9, Count: 2, Ready: 2,
		Samples: []Sample{{Instance: "a", Value: 32213.7}, {Instance: "b", Value: 32213.7}}})
	require.Contains(t, d.Reason, "requests is 32200 an instance over 2, target 20000")
}
