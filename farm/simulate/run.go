package simulate

import (
	"math/rand/v2"
	"time"

	"github.com/scalr-go/scalr/farm"
	"github.com/scalr-go/scalr/farm/scale"
)

// reversal is how soon after a change one the other way counts as a reversal.
const reversal = 15 * time.Minute

// Run runs the scenario against the trace. The same arguments give the same result.
func Run(t Trace, s Scenario) (Result, error) {
	if err := s.check(t); err != nil {
		return Result{}, err
	}
	s = s.withDefaults(t)
	if t.Start.IsZero() {
		t.Start = time.Unix(0, 0).UTC()
	}
	r := &run{Scenario: s, trace: t, world: world{cloud: s.Cloud, timeout: s.LaunchTimeout, next: never,
		rand: rand.New(rand.NewPCG(s.Cloud.Seed, 1))}}
	for range min(max(need(t.Rate(0), s.PerInstance), s.Min), s.Max) {
		r.instances = append(r.instances, instance{})
		r.ready++
	}
	r.role.Desired = r.ready
	if s.Farm {
		if err := r.rehearsal(); err != nil {
			return Result{}, err
		}
	}
	for r.now < s.To {
		r.step()
	}
	return r.finish(), nil
}

// run is a simulation under way.
type run struct {
	Scenario
	trace Trace
	world
	role    memory
	farm    *farm.Rehearsal
	ids     int
	series  []Point
	changed [2]time.Duration // when the wanted number last grew and shrank
	has     [2]bool
}

// memory is what a farm remembers of a role.
type memory struct {
	Desired          int
	LastUp, LastDown time.Time
	Past             []scale.Advice
	Memory           any
}

// step decides once and lets time pass until the next decision.
func (r *run) step() {
	r.judged = r.now >= r.From
	r.arrive()
	if r.farm == nil {
		r.expire()
	}
	at := r.trace.Start.Add(r.now)
	samples := r.Sensor(Moment{At: at, Rate: r.rate(), Ready: r.ready, PerInstance: r.PerInstance})
	before := r.role.Desired
	var d scale.Decision
	if r.farm != nil {
		d = r.rehearse(at, samples)
	} else {
		d = r.decide(at, samples)
		for len(r.instances) < d.Desired && r.launch() {
		}
		for len(r.instances) > d.Desired {
			r.end(len(r.instances) - 1)
		}
	}
	r.count(d.Desired - before)
	r.arrive() // where nothing has to boot
	if r.Series && r.judged {
		rate := r.trace.Rate(int(r.now / r.trace.Step))
		r.series = append(r.series, Point{At: r.now, Load: rate, Need: max(need(rate, r.PerInstance), r.Min), Ready: r.ready,
			Count: len(r.instances), Desired: d.Desired, Decision: d.Reason})
	}
	for end := min(r.now+r.Interval, r.To); r.now < end; {
		bin := int(r.now / r.trace.Step)
		until := min(end, time.Duration(bin+1)*r.trace.Step)
		if r.next > r.now {
			until = min(until, r.next)
		}
		r.pass(until, r.trace.Rate(bin), r.PerInstance, r.Min)
		r.arrive()
	}
}

// rate is the mean rate since the last decision.
func (r *run) rate() float64 {
	from := max(r.now-r.Interval, 0)
	if r.now == 0 {
		return r.trace.Rate(0)
	}
	total := 0.0
	for at := from; at < r.now; {
		bin := int(at / r.trace.Step)
		until := min(r.now, time.Duration(bin+1)*r.trace.Step)
		total += r.trace.Rate(bin) * (until - at).Seconds()
		at = until
	}
	return total / (r.now - from).Seconds()
}

// count counts reversals.
func (r *run) count(change int) {
	if change == 0 {
		return
	}
	way, other := 0, 1
	if change < 0 {
		way, other = 1, 0
	}
	if r.judged && r.has[other] && r.now-r.changed[other] <= reversal && (!r.has[way] || r.changed[other] > r.changed[way]) {
		r.result.Reversals++
	}
	r.changed[way], r.has[way] = r.now, true
}

// finish works out the figures.
func (r *run) finish() Result {
	res := r.result
	first, last := int(r.From/r.trace.Step), int((r.To+r.trace.Step-1)/r.trace.Step)
	part := Trace{Step: r.trace.Step, Requests: r.trace.Requests[first:last]}
	needed := needs(part, r.PerInstance, r.Min)
	res.Optimum = optimum(needed, part.Step, r.Cloud.Boot) / 3600
	res.Paid = r.paid / 3600
	if res.Optimum > 0 {
		res.CostRatio = res.Paid / res.Optimum
	}
	total := 0.0
	for _, v := range part.Requests {
		total += v
	}
	if total > 0 {
		res.Excess /= total
	}
	seconds := res.Length.Seconds()
	for _, f := range []*float64{&res.UnderAccuracy, &res.OverAccuracy, &res.UnderTimeshare, &res.OverTimeshare} {
		*f /= seconds
	}
	days := seconds / 86400
	res.LaunchesPerDay, res.ReversalsPerDay = float64(res.Launches)/days, float64(res.Reversals)/days
	if r.Series {
		best := optimal(needed, part.Step, r.Cloud.Boot)
		for i := range r.series {
			r.series[i].Optimum = best[int(r.series[i].At/part.Step)-first]
		}
		res.Series = r.series
	}
	return res
}
