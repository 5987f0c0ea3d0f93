package scale

import (
	"errors"
	"fmt"
	"math"
	"time"
)

// Target keeps the mean of a metric per instance near a value: with 4 instances at 90 % CPU and a target of 60 it wants
// 6. It is the rule of Kubernetes' HPA and of target tracking on EC2: the ratio of the mean to the target, times the
// instances that serve, rounded up; nothing happens while the ratio is within the tolerance; and going down it takes the
// highest advice of a window, so that a short lull costs nothing.
type Target struct {
	// Metric is the name of a sensor in the farm's Config.
	Metric string `json:"metric"`
	// Value is what the mean over the instances should be; greater than 0.
	Value float64 `json:"value"`
	// Total says that a sample is of the role as a whole (requests a second at a balancer): it is divided by the
	// instances that serve.
	Total bool `json:"total,omitempty"`
	// Tolerance is how far, as a share of Value, the mean may be off; default 0.1.
	Tolerance float64 `json:"tolerance,omitempty"`
	// Window is how long a lull must last before the role shrinks; default 5 minutes.
	Window time.Duration `json:"window,omitempty"`
}

// Check reports every fault of the policy's fields.
func (t Target) Check() error {
	var errs []error
	if t.Metric == "" {
		errs = append(errs, errors.New("metric is empty, want the name of a sensor"))
	}
	if !(t.Value > 0) || math.IsInf(t.Value, 0) {
		errs = append(errs, fmt.Errorf("value is %v, want more than 0", t.Value))
	}
	if !(t.Tolerance >= 0 && t.Tolerance < 1) {
		errs = append(errs, fmt.Errorf("tolerance is %v, want 0 to 1", t.Tolerance))
	}
	if t.Window < 0 {
		errs = append(errs, fmt.Errorf("window is %v, want 0 or more", t.Window))
	}
	return errors.Join(errs...)
}

// Memory is how far back the policy wants to see its own advice.
func (t Target) Memory() time.Duration { return defaultTo(t.Window, 5*time.Minute) }

// Desired implements [Policy].
func (t Target) Desired(in Input) Decision {
	mean, ok := in.Of(t.Metric).Mean()
	if !ok {
		return in.Hold("%s is missing: hold at %d", t.Metric, in.Count)
	}
	switch {
	case t.Total && in.Ready == 0:
		// From none, for a load that is counted elsewhere.
		raw := max(min(int(math.Ceil(min(mean/t.Value, 1e9))), in.Max), in.Min)
		return Decision{Desired: max(raw, in.Count), Raw: raw, Reason: fmt.Sprintf("%s is %v and nothing serves yet, target %v an instance: want %d", t.Metric, figure(mean), figure(t.Value), max(raw, in.Count))}
	case in.Ready == 0:
		return in.Hold("nothing serves yet: hold at %d", in.Count)
	case t.Total:
		mean /= float64(in.Ready)
	}
	ratio := mean / t.Value
	// The instances that are on their way will take their share: they count before more are asked for.
	raw := int(math.Ceil(min(float64(in.Ready)*ratio, 1e9) - 1e-9))
	if math.Abs(ratio-1) <= defaultTo(t.Tolerance, 0.1) {
		raw = in.Ready
	}
	raw = max(min(raw, in.Max), in.Min)
	why := fmt.Sprintf("%s is %v an instance over %d, target %v", t.Metric, figure(mean), in.Ready, figure(t.Value))
	switch {
	case raw > in.Count:
		return Decision{Desired: raw, Raw: raw, Reason: fmt.Sprintf("%s: grow from %d to %d", why, in.Count, raw)}
	case raw == in.Count:
		return Decision{Desired: raw, Raw: raw, Reason: fmt.Sprintf("%s: stay at %d", why, raw)}
	case in.Ready < in.Count && raw > in.Ready:
		return Decision{Desired: in.Count, Raw: raw, Reason: fmt.Sprintf("%s: %d are on their way", why, in.Count-in.Ready)}
	}
	window := t.Memory()
	if watched := in.Now.Sub(in.Since); !in.Since.IsZero() && watched < window {
		return Decision{Desired: in.Count, Raw: raw, Reason: fmt.Sprintf("%s: %d would do, but the load has been watched for %v of %v only: stay", why, raw, watched.Round(time.Second), window)}
	}
	needed := in.highest(window, raw)
	switch held := min(needed, in.Count); {
	case held == in.Count:
		return Decision{Desired: held, Raw: raw, Reason: fmt.Sprintf("%s: %d would do, but %d was needed within %v: stay", why, raw, needed, window)}
	case held > raw:
		return Decision{Desired: held, Raw: raw, Reason: fmt.Sprintf("%s: shrink from %d to %d, which was needed within %v (%d would do)", why, in.Count, held, window, raw)}
	}
	return Decision{Desired: raw, Raw: raw, Reason: fmt.Sprintf("%s: shrink from %d to %d", why, in.Count, raw)}
}

func defaultTo[T comparable](v, def T) T {
	var zero T
	if v == zero {
		return def
	}
	return v
}
