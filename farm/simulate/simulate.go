// Package simulate says what a scaling policy would have cost: it runs the policy against load as it was ([Trace]) on a cloud
// that boots, fails, runs out and bills as described ([Cloud]), in virtual time and without sleeping.
//
// Cost alone says nothing: a policy that never launches is the cheapest. [Tune] therefore searches a policy's knob for
// the least cost at which not more than a given share of the requests met too little capacity, on one part of a trace, and
// [Compare] judges policies that were tuned so on the rest of it. What is paid is set against the clairvoyant optimum: what
// somebody would have paid who knows the future. Elasticity is measured as SPEC's research group does: Herbst et al., "Ready
// for Rain? A View from SPEC Research on the Future of Cloud Metrics", 2016.
//
// What is simulated is requests that are served at once or not at all: there is no queue, and an instance that serves takes
// PerInstance requests a second, whatever the others do.
package simulate

import (
	"errors"
	"fmt"
	"math"
	"time"

	"github.com/scalr-go/scalr/farm/scale"
)

// Scenario is a role, its policy and its cloud.
type Scenario struct {
	// Policy is what is judged. It is not kept.
	Policy scale.Policy
	// PerInstance is how many requests a second an instance can take; more than 0.
	PerInstance float64
	// Min and Max bound the instances. Max 0 means twice what the peak of the trace needs.
	Min, Max int
	// Sensor is what the policy is told; nil means [Utilisation].
	Sensor Sensor
	// Interval is the time between two decisions; default the step of the trace, but not less than 10 s nor more than a
	// minute.
	Interval time.Duration
	// LaunchTimeout is how long an instance may take to come up before it is replaced; default 10 minutes more than the boot
	// of the cloud.
	LaunchTimeout time.Duration
	// Cloud is where the instances are.
	Cloud Cloud

	// From and To bound the part of the trace that is judged: the policy sees everything before To, and what happens before
	// From counts for nothing. To 0 means the end.
	From, To time.Duration
	// Series asks for Result.Series.
	Series bool
	// Farm makes every decision of a farm about the role: launch order, slots, back-offs, what goes first. Without it, only the one
	// about the number is made, as the farm makes it, which is much faster and comes to the same where launches succeed.
	Farm bool
}

// Cloud is how a cloud behaves.
type Cloud struct {
	// Boot is the time from a launch until the instance serves.
	Boot time.Duration
	// Spread is how much boots differ: the standard deviation of the logarithm of the boot time, 0 to 2. 0.3 means that two
	// in three are within −26 % and +35 % of Boot.
	Spread float64
	// Failures is the share of launches that come to nothing, 0 to less than 1.
	Failures float64
	// Capacity is the most instances that the cloud has; 0 means as many as are wanted.
	Capacity int
	// Billing is what is paid for at a time: a second (the default), an hour.
	Billing time.Duration
	// Seed makes other boots and failures.
	Seed uint64
}

// Moment is what a sensor sees.
type Moment struct {
	At          time.Time
	Rate        float64 // requests a second since the last decision
	Ready       int     // instances that serve
	PerInstance float64 // requests a second that each can take
}

// Sensor turns the load into what a policy is told, as the sensors of a farm do. No samples mean that the metric is missing.
// It may keep the array behind its result: the policy is asked before the sensor is read again.
type Sensor func(Moment) []scale.Sample

// Utilisation gives, for the role as a whole, the requests an instance in percent of what it can take, as CPU utilisation does,
// but without an end at 100. It is missing while nothing serves.
func Utilisation(m Moment) []scale.Sample {
	if m.Ready == 0 {
		return nil
	}
	return []scale.Sample{{Value: 100 * m.Rate / (float64(m.Ready) * m.PerInstance), At: m.At}}
}

// CPU gives what Utilisation does, but not more than 100: that is all that an overloaded instance says.
func CPU(m Moment) []scale.Sample {
	s := Utilisation(m)
	for i := range s {
		s[i].Value = min(s[i].Value, 100)
	}
	return s
}

// Requests gives the requests a second of the role as a whole, as a balancer counts them.
func Requests(m Moment) []scale.Sample { return []scale.Sample{{Value: m.Rate, At: m.At}} }

// Result is how a policy did in the part of the trace that is judged.
type Result struct {
	Length time.Duration // of that part
	// Paid and Optimum are what was paid and what the clairvoyant optimum pays, in hours of instances; CostRatio is the one
	// over the other. The optimum is for billing by the second, boots of exactly Cloud.Boot and no failures.
	Paid, Optimum, CostRatio float64
	// Excess is the share of the requests that met too little capacity.
	Excess float64
	// Violating is how long there was too little.
	Violating time.Duration
	// UnderAccuracy and OverAccuracy are how much too few and too many instances served, as a share of those needed, on the
	// average over time; UnderTimeshare and OverTimeshare are the share of the time in which they did.
	UnderAccuracy, OverAccuracy, UnderTimeshare, OverTimeshare float64
	// Launches counts launches, the failed ones included. Reversals counts changes of the wanted number within 15 minutes of
	// a change the other way.
	Launches, Reversals             int
	LaunchesPerDay, ReversalsPerDay float64
	// MostInstances is the most that there were at a time.
	MostInstances int
	// Series is what happened, a point for each decision, if the scenario asks for it.
	Series []Point
}

// Point is a moment of a simulation.
type Point struct {
	At       time.Duration // since the begin of the trace
	Load     float64       // requests a second until the next decision
	Need     int           // instances that the load needs
	Ready    int           // instances that serve
	Count    int           // instances that are paid
	Desired  int
	Optimum  int    // instances that the clairvoyant optimum has
	Decision string // why Desired is what it is
}

// check reports every fault of a scenario.
func (s Scenario) check(t Trace) error {
	var errs []error
	add := func(is bool, format string, args ...any) {
		if is {
			errs = append(errs, fmt.Errorf(format, args...))
		}
	}
	errs = append(errs, t.Check())
	add(s.Policy == nil, "scenario: policy is nil")
	add(!(s.PerInstance > 0) || math.IsInf(s.PerInstance, 0), "scenario: per_instance is %v, want more than 0", s.PerInstance)
	add(s.Min < 0 || s.Max < 0 || s.Max > 0 && s.Min > s.Max, "scenario: min is %d and max is %d, want 0 ≤ min ≤ max", s.Min, s.Max)
	add(s.Interval < 0, "scenario: interval is %v, want 0 or more", s.Interval)
	add(s.LaunchTimeout < 0, "scenario: launch_timeout is %v, want 0 or more", s.LaunchTimeout)
	add(s.From < 0 || s.To < 0 || s.To > 0 && s.From >= s.To || s.From >= t.Length(), "scenario: the part from %v to %v is not in a trace of %v", s.From, s.To, t.Length())
	c := s.Cloud
	add(c.Boot < 0, "cloud: boot is %v, want 0 or more", c.Boot)
	add(!(c.Spread >= 0 && c.Spread <= 2), "cloud: spread is %v, want 0 to 2", c.Spread)
	add(!(c.Failures >= 0 && c.Failures < 1), "cloud: failures is %v, want 0 to less than 1", c.Failures)
	add(c.Capacity < 0, "cloud: capacity is %d, want 0 or more", c.Capacity)
	add(c.Billing < 0, "cloud: billing is %v, want 0 or more", c.Billing)
	return errors.Join(errs...)
}

func (s Scenario) withDefaults(t Trace) Scenario {
	if s.Max == 0 {
		s.Max = max(2*need(t.Peak(), s.PerInstance), s.Min, 1)
	}
	if s.Sensor == nil {
		s.Sensor = Utilisation
	}
	if s.Interval == 0 {
		s.Interval = min(max(t.Step, 10*time.Second), time.Minute)
	}
	if s.LaunchTimeout == 0 {
		s.LaunchTimeout = s.Cloud.Boot + 10*time.Minute
	}
	if s.To == 0 || s.To > t.Length() {
		s.To = t.Length()
	}
	if s.Cloud.Billing == 0 {
		s.Cloud.Billing = time.Second
	}
	return s
}
