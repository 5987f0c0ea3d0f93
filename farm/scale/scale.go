// Package scale holds the policies that say how many instances a role should have.
//
// A [Policy] is a pure function from what is known now to a number and the reason for it in words. It never does
// anything: the farm clamps the number to the role's Min and Max and acts. The plain policies ([Target], [Threshold],
// [Step], [Forecast], [Schedule]) are data, so that they stand in a spec; anything else is a [Func]. [MaxOf] and [Within] make
// one policy of others. A queue's length for each instance is a [Target] with Total.
//
// A metric that is missing is missing, never zero: a policy that lacks its metric holds the role as it is.
package scale

import (
	"fmt"
	"math"
	"slices"
	"strconv"
	"time"
)

// Policy says how many instances a role should have. It must be pure: the farm also calls it for dry runs.
type Policy interface {
	Desired(Input) Decision
}

// Func is a function as a [Policy].
type Func func(Input) Decision

// Desired calls f.
func (f Func) Desired(in Input) Decision { return f(in) }

// Sample is one value of a metric.
type Sample struct {
	Metric   string    // the sensor's name in the farm's Config; empty where there is but one
	Instance string    // whom it is about; empty for a value of the role as a whole
	Value    float64   // in the metric's own unit
	At       time.Time // when it was true
}

// Input is what a policy knows.
type Input struct {
	Now      time.Time
	Min, Max int
	Count    int       // instances that there are or that are on their way: pending ones count
	Ready    int       // those of them that serve
	Late     int       // those of the others that should have served long ago: nobody waits for them
	Samples  []Sample  // of the metrics that the policy named; only samples that are recent enough
	Past     []Advice  // what the policy advised at earlier passes, oldest first, as far back as it asked for
	Since    time.Time // since when Past is complete; zero if it is
	LastUp   time.Time // when the role last grew or shrank by a decision of the policy; zero if never
	LastDown time.Time
	Boot     time.Duration // how long launches took of late until the instance served; 0 while that is not known
	Memory   any           // the Decision.Memory of the last decision; nil at first, and after a restart
}

// Advice is what a policy wanted at an earlier time.
type Advice struct {
	At      time.Time
	Desired int // before anything held it back
}

// Decision is what a policy wants.
type Decision struct {
	Desired int    // how many instances
	Raw     int    // what it would be without regard for the past; it is what Input.Past shows later
	Reason  string // why, in words and figures
	// Memory is what the policy wants to find in Input.Memory next time. It is a value: the policy makes a new one and leaves
	// alone what it was given, for a decision may be a dry run.
	Memory any
}

// MemoryOf says how far back a policy wants to see its own advice: what its method Memory says, or an hour.
func MemoryOf(p Policy) time.Duration {
	if m, ok := p.(interface{ Memory() time.Duration }); ok {
		return m.Memory()
	}
	return time.Hour
}

// Hold is the decision to leave the role as it is.
func (in Input) Hold(format string, args ...any) Decision {
	return Decision{Desired: in.Count, Raw: in.Count, Reason: fmt.Sprintf(format, args...), Memory: in.Memory}
}

// Of is the input with the samples of one metric, and those that name none.
func (in Input) Of(metric string) Input {
	other := func(s Sample) bool { return s.Metric != "" && s.Metric != metric }
	if slices.ContainsFunc(in.Samples, other) {
		in.Samples = slices.DeleteFunc(slices.Clone(in.Samples), other)
	}
	return in
}

// Mean is the mean of the samples. It is not ok if there are none, or if fewer than half of the instances that serve
// have given one and no sample is of the role as a whole.
func (in Input) Mean() (mean float64, ok bool) {
	n, whole := 0, false
	for _, s := range in.Samples {
		if math.IsNaN(s.Value) || math.IsInf(s.Value, 0) {
			continue
		}
		mean += s.Value
		n++
		whole = whole || s.Instance == ""
	}
	if n == 0 || !whole && 2*n < in.Ready {
		return 0, false
	}
	return mean / float64(n), true
}

// cooling is how much of a cool-down is left since the role last grew or shrank.
func (in Input) cooling(cool time.Duration) (left time.Duration) {
	last := in.LastUp
	if in.LastDown.After(last) {
		last = in.LastDown
	}
	if last.IsZero() {
		return 0
	}
	return max(cool-in.Now.Sub(last), 0)
}

// highest gives the most that was advised within the window that ends now, and now itself.
func (in Input) highest(window time.Duration, now int) int {
	for _, a := range in.Past {
		if in.Now.Sub(a.At) <= window {
			now = max(now, a.Desired)
		}
	}
	return now
}

// figure is a value of a metric as a reason shows it: three digits that count, and no exponent.
type figure float64

func (f figure) String() string {
	v, err := strconv.ParseFloat(strconv.FormatFloat(float64(f), 'g', 3, 64), 64)
	if err != nil {
		v = float64(f)
	}
	return strconv.FormatFloat(v, 'f', -1, 64)
}
