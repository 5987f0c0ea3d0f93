package scale

import (
	"errors"
	"fmt"
	"time"
)

// Threshold is Scalr's rule of 2010: one more above High, one less below Low, never while an instance is on its way, and
// not again before the cool-down has passed. An instance that is late is waited for no more.
type Threshold struct {
	// Metric is the name of a sensor in the farm's Config.
	Metric string `json:"metric"`
	// Low and High are the band in which nothing happens; Low is less than High.
	Low  float64 `json:"low"`
	High float64 `json:"high"`
	// CoolDown is how long after a change nothing more happens; default 3 minutes.
	CoolDown time.Duration `json:"cool_down,omitempty"`
}

// Check reports every fault of the policy's fields.
func (t Threshold) Check() error {
	var errs []error
	if t.Metric == "" {
		errs = append(errs, errors.New("metric is empty, want the name of a sensor"))
	}
	if !(t.Low < t.High) {
		errs = append(errs, fmt.Errorf("low is %v and high is %v, want low less than high", t.Low, t.High))
	}
	if t.CoolDown < 0 {
		errs = append(errs, fmt.Errorf("cool_down is %v, want 0 or more", t.CoolDown))
	}
	return errors.Join(errs...)
}

// Desired implements [Policy].
func (t Threshold) Desired(in Input) Decision {
	mean, ok := in.Of(t.Metric).Mean()
	if !ok {
		return in.Hold("%s is missing: hold at %d", t.Metric, in.Count)
	}
	step, why := 0, fmt.Sprintf("%s is %v, within %v to %v: stay at %d", t.Metric, figure(mean), figure(t.Low), figure(t.High), in.Count)
	switch {
	case mean > t.High && in.Count < in.Max:
		step, why = 1, fmt.Sprintf("%s is %v, above %v: grow from %d to %d", t.Metric, figure(mean), figure(t.High), in.Count, in.Count+1)
	case mean < t.Low && in.Count > in.Min:
		step, why = -1, fmt.Sprintf("%s is %v, below %v: shrink from %d to %d", t.Metric, figure(mean), figure(t.Low), in.Count, in.Count-1)
	}
	if step == 0 {
		return Decision{Desired: in.Count, Raw: in.Count, Reason: why}
	}
	if coming := in.Count - in.Ready - in.Late; coming > 0 && step > 0 {
		return in.Hold("%s is %v, but %d are on their way: hold at %d", t.Metric, figure(mean), coming, in.Count)
	}
	if left := in.cooling(defaultTo(t.CoolDown, 3*time.Minute)); left > 0 {
		return in.Hold("%s is %v, but the cool-down has %v to go: hold at %d", t.Metric, figure(mean), left.Round(time.Second), in.Count)
	}
	return Decision{Desired: in.Count + step, Raw: in.Count + step, Reason: why}
}
