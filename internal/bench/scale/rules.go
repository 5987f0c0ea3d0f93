package main

import (
	"fmt"
	"math"
	"time"

	"github.com/scalr-go/scalr/farm/scale"
	"github.com/scalr-go/scalr/farm/simulate"
)

// baselines are the rules of others, each with the share of an instance's capacity that it aims at, in percent, as its knob; that of
// the static peak is how many instances there are, up to what the peak of the trace needs.
func baselines(peak int) []simulate.Family {
	return []simulate.Family{
		{Name: "scalr-2010", Low: 5, High: 100, Policy: func(k float64) scale.Policy {
			// The band of its load averages was 2 to 5; its cool-downs were read, but never written.
			return scale.Threshold{Metric: "utilisation", Low: 0.4 * k, High: k, CoolDown: time.Nanosecond}
		}},
		{Name: "aws-target-tracking", Low: 5, High: 100, Policy: func(k float64) scale.Policy { return targetTracking(k) }},
		{Name: "hpa", Low: 5, High: 100, Policy: func(k float64) scale.Policy {
			return scale.Target{Metric: "utilisation", Value: k, Tolerance: 0.1, Window: 5 * time.Minute}
		}},
		{Name: "nomad-target-value", Low: 5, High: 100, Policy: func(k float64) scale.Policy { return targetValue(k) }},
		{Name: "static-peak", Low: 1, High: float64(peak), Policy: func(k float64) scale.Policy {
			n := int(math.Ceil(k))
			return scale.Func(func(in scale.Input) scale.Decision {
				return scale.Decision{Desired: n, Raw: n, Reason: "always as many"}
			})
		}},
	}
}

// alarms are how many minutes in a row the alarms of target tracking have seen their condition.
type alarms struct {
	at        time.Time
	high, low time.Duration
}

// targetTracking is EC2's policy of that name: alarms on one-minute metrics that must hold for 3 minutes above the target, or
// for 15 minutes below 90 % of it; out by the ratio, in by the ratio rounded up, and not in while instances warm up.
// (Amazon EC2 Auto Scaling User Guide, "Target tracking scaling policies".)
func targetTracking(target float64) scale.Policy {
	return scale.Func(func(in scale.Input) scale.Decision {
		mem, _ := in.Memory.(alarms)
		mean, ok := in.Mean()
		if !ok || in.Ready == 0 {
			return in.Hold("no data")
		}
		passed := time.Duration(0)
		if !mem.at.IsZero() {
			passed = in.Now.Sub(mem.at)
		}
		mem.at = in.Now
		count := func(is bool, d *time.Duration) {
			if !is {
				*d = 0
			} else {
				*d += max(passed, time.Nanosecond)
			}
		}
		count(mean > target, &mem.high)
		count(mean < 0.9*target, &mem.low)
		want := int(math.Ceil(float64(in.Ready)*mean/target - 1e-9))
		d := scale.Decision{Desired: in.Count, Raw: want, Memory: mem}
		switch {
		case mem.high > 2*time.Minute:
			d.Desired, d.Reason = max(want, in.Count), "high alarm"
		case mem.low > 14*time.Minute && in.Ready >= in.Count:
			d.Desired, d.Reason = min(want, in.Count), "low alarm"
		}
		d.Desired = max(min(d.Desired, in.Max), in.Min)
		return d
	})
}

// targetValue is the strategy of that name of Nomad's autoscaler: the count times the ratio to the target, rounded up, unless
// the ratio is within a hundredth of 1; then a cool-down, 5 minutes by default, in which it does nothing.
func targetValue(target float64) scale.Policy {
	return scale.Func(func(in scale.Input) scale.Decision {
		mean, ok := in.Mean()
		if !ok || in.Ready == 0 {
			return in.Hold("no data")
		}
		last := in.LastUp
		if in.LastDown.After(last) {
			last = in.LastDown
		}
		if !last.IsZero() && in.Now.Sub(last) < 5*time.Minute {
			return in.Hold("cool-down")
		}
		ratio := mean / target
		if math.Abs(ratio-1) <= 0.01 {
			return in.Hold("on target")
		}
		want := max(min(int(math.Ceil(float64(in.Ready)*ratio-1e-9)), in.Max), in.Min)
		return scale.Decision{Desired: want, Raw: want, Reason: fmt.Sprintf("factor %.2f", ratio)}
	})
}
