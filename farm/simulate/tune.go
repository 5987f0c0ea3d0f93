package simulate

import (
	"errors"
	"fmt"
	"math"
	"time"

	"github.com/scalr-go/scalr/farm/scale"
)

// Family is a policy with one knob: how high it may load its instances, how wide its margin is.
type Family struct {
	Name   string
	Policy func(knob float64) scale.Policy
	// Low and High bound the knob. Where they are the same there is nothing to tune.
	Low, High float64
}

// ErrBudget: no setting of the knob keeps the budget.
var ErrBudget = errors.New("no setting of the knob keeps within the budget")

// Tune searches the knob of the family for the setting that is cheapest while the share of requests that meet too little
// capacity is at most the budget, in the part of the trace that the scenario judges. It tries steps of the whole range, and
// then finer ones around the best. If no setting keeps the budget, it gives the one that comes nearest, and ErrBudget.
func Tune(t Trace, s Scenario, f Family, budget float64) (knob float64, r Result, err error) {
	if !(f.Low <= f.High) || f.Policy == nil {
		return 0, Result{}, fmt.Errorf("family %q: low is %v and high is %v, want low not more than high and a policy", f.Name, f.Low, f.High)
	}
	found, kept := false, false
	try := func(k float64) error {
		s := s
		s.Policy, s.Series = f.Policy(k), false
		got, err := Run(t, s)
		if err != nil {
			return err
		}
		within := got.Excess <= budget
		better := within && (!kept || got.Paid < r.Paid) || !within && !kept && got.Excess < r.Excess
		if !found || better {
			knob, r, found, kept = k, got, true, kept || within
		}
		return nil
	}
	const steps = 16
	width := (f.High - f.Low) / steps
	if err := try(f.Low); err != nil {
		return 0, Result{}, err
	}
	for i := 1; i <= steps && width > 0; i++ {
		if err := try(f.Low + float64(i)*width); err != nil {
			return 0, Result{}, err
		}
	}
	for range 2 {
		middle := knob
		for i := -3; i <= 3; i++ {
			if k := middle + float64(i)*width/4; i != 0 && k > f.Low && k < f.High {
				if err := try(k); err != nil {
					return 0, Result{}, err
				}
			}
		}
		width /= 4
	}
	if !kept {
		return knob, r, fmt.Errorf("family %q: %w: %.3g of the requests are too many", f.Name, ErrBudget, r.Excess)
	}
	return knob, r, nil
}

// Judged is how a tuned policy did.
type Judged struct {
	Family string
	Budget float64
	Knob   float64
	Tuned  Result // in the first part
	Result        // in the rest
	// Kept says that a setting of the knob kept the budget in the first part.
	Kept bool
}

// Compare tunes each family on the first part of the trace (a share of 0 to 1) and judges it on the rest; the policy has seen
// the first part then.
func Compare(t Trace, s Scenario, train, budget float64, families ...Family) ([]Judged, error) {
	if !(train > 0 && train < 1) {
		return nil, fmt.Errorf("train is %v, want more than 0 and less than 1", train)
	}
	split := time.Duration(math.Round(float64(len(t.Requests))*train)) * t.Step
	if s.Max == 0 {
		s.Max = s.withDefaults(t).Max
	}
	var list []Judged
	for _, f := range families {
		s := s
		// What happens before the first launch can serve is nobody's merit.
		s.From, s.To = min(s.Cloud.Boot+s.withDefaults(t).Interval, split/2), split
		knob, tuned, err := Tune(t, s, f, budget)
		if err != nil && !errors.Is(err, ErrBudget) {
			return nil, err
		}
		j := Judged{Family: f.Name, Budget: budget, Knob: knob, Tuned: tuned, Kept: err == nil}
		s.From, s.To, s.Policy = split, 0, f.Policy(knob)
		if j.Result, err = Run(t, s); err != nil {
			return nil, err
		}
		list = append(list, j)
	}
	return list, nil
}
