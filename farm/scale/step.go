package scale

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"time"
)

// Step changes the role by more the further a metric is out of its band: at 70 % one more, at 90 % half as many again. It is
// step scaling of EC2 Auto Scaling. Growing counts from the instances that serve, so that those that are on their way
// are part of what is wanted; shrinking waits until nothing is on its way and the cool-down has passed.
type Step struct {
	// Metric is the name of a sensor in the farm's Config.
	Metric string `json:"metric"`
	// Up are the values from which on the role grows, the lowest first; the last one that the mean has reached counts.
	Up []Bound `json:"up"`
	// Down are the values down to which the role shrinks, the highest first; each is less than all of Up.
	Down []Bound `json:"down"`
	// CoolDown is how long after a change the role does not shrink; default 5 minutes.
	CoolDown time.Duration `json:"cool_down,omitempty"`
}

// Bound is a value of a metric and the change that it makes: by a number of instances or by a share of those that serve,
// rounded up, whichever is more.
type Bound struct {
	At    float64 `json:"at"`
	By    int     `json:"by,omitempty"`
	Share float64 `json:"share,omitempty"`
}

func (b Bound) of(n int) int { return max(b.By, part(b.Share, n)) }

// part is a share of n, rounded up.
func part(share float64, n int) int { return int(math.Ceil(min(share*float64(n), 1e9) - 1e-9)) }

// Check reports every fault of the policy's fields.
func (s Step) Check() error {
	var errs []error
	if s.Metric == "" {
		errs = append(errs, errors.New("metric is empty, want the name of a sensor"))
	}
	if len(s.Up)+len(s.Down) == 0 {
		errs = append(errs, errors.New("up and down are empty, want a bound"))
	}
	for k, bounds := range [][]Bound{s.Up, s.Down} {
		name := []string{"up", "down"}[k]
		for i, b := range bounds {
			switch {
			case math.IsNaN(b.At) || math.IsInf(b.At, 0):
				errs = append(errs, fmt.Errorf("%s[%d].at is %v, want a number", name, i, b.At))
			case b.By < 0 || !(b.Share >= 0) || math.IsInf(b.Share, 0) || b.By == 0 && b.Share == 0:
				errs = append(errs, fmt.Errorf("%s[%d] has by %d and share %v, want one of them greater than 0", name, i, b.By, b.Share))
			case i > 0 && name == "up" && b.At <= bounds[i-1].At:
				errs = append(errs, fmt.Errorf("up[%d].at is %v, want more than the %v before it", i, b.At, bounds[i-1].At))
			case i > 0 && name == "down" && b.At >= bounds[i-1].At:
				errs = append(errs, fmt.Errorf("down[%d].at is %v, want less than the %v before it", i, b.At, bounds[i-1].At))
			}
		}
	}
	if len(s.Up) > 0 && len(s.Down) > 0 && s.Down[0].At >= s.Up[0].At {
		errs = append(errs, fmt.Errorf("down[0].at is %v, want less than up[0].at, which is %v", s.Down[0].At, s.Up[0].At))
	}
	if s.CoolDown < 0 {
		errs = append(errs, fmt.Errorf("cool_down is %v, want 0 or more", s.CoolDown))
	}
	return errors.Join(errs...)
}

// Desired implements [Policy].
func (s Step) Desired(in Input) Decision {
	mean, ok := in.Of(s.Metric).Mean()
	if !ok {
		return in.Hold("%s is missing: hold at %d", s.Metric, in.Count)
	}
	is := fmt.Sprintf("%s is %v", s.Metric, figure(mean))
	for _, b := range slices.Backward(s.Up) {
		if mean < b.At {
			continue
		}
		raw := max(min(in.Ready+b.of(in.Ready), in.Max), in.Min)
		if raw <= in.Count {
			return Decision{Desired: in.Count, Raw: raw, Reason: fmt.Sprintf("%s, %v or more, and %d of %d serve: stay at %d", is, figure(b.At), in.Ready, in.Count, in.Count)}
		}
		return Decision{Desired: raw, Raw: raw, Reason: fmt.Sprintf("%s, %v or more: grow from %d to %d", is, figure(b.At), in.Count, raw)}
	}
	for _, b := range slices.Backward(s.Down) {
		if mean > b.At {
			continue
		}
		if coming := in.Count - in.Ready - in.Late; coming > 0 {
			return in.Hold("%s, but %d are on their way: hold at %d", is, coming, in.Count)
		}
		if left := in.cooling(defaultTo(s.CoolDown, 5*time.Minute)); left > 0 {
			return in.Hold("%s, but the cool-down has %v to go: hold at %d", is, left.Round(time.Second), in.Count)
		}
		raw := min(max(in.Count-b.of(in.Count), in.Min), in.Max)
		if raw == in.Count {
			break
		}
		return Decision{Desired: raw, Raw: raw, Reason: fmt.Sprintf("%s, %v or less: shrink from %d to %d", is, figure(b.At), in.Count, raw)}
	}
	return Decision{Desired: in.Count, Raw: in.Count, Reason: fmt.Sprintf("%s: stay at %d", is, in.Count)}
}
