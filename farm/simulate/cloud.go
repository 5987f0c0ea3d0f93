package simulate

import (
	"math"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/scalr-go/scalr/provider"
)

// never is when an instance serves that does not come up.
const never = time.Duration(math.MaxInt64)

// instance is one that is paid.
type instance struct {
	launched time.Duration // since the begin of the trace
	serves   time.Duration // from when on
	paid     time.Duration // until when, where billing is not by the second
	seen     provider.Instance
}

// world is the cloud and its account.
type world struct {
	cloud     Cloud
	rand      *rand.Rand
	timeout   time.Duration
	now       time.Duration
	instances []instance // those that serve first, in the order of their launch; then those that are on their way
	ready     int        // how many of them serve
	next      time.Duration

	judged bool // whether what happens counts
	result Result
	paid   float64 // seconds of instances
}

// launch asks for an instance; the cloud may have none.
func (w *world) launch() bool {
	if w.cloud.Capacity > 0 && len(w.instances) >= w.cloud.Capacity {
		return false
	}
	boot := w.cloud.Boot
	if w.cloud.Spread > 0 {
		boot = time.Duration(float64(boot) * math.Exp(w.cloud.Spread*w.rand.NormFloat64()))
	}
	i := instance{launched: w.now, serves: w.now + boot, paid: w.now}
	if w.cloud.Failures > 0 && w.rand.Float64() < w.cloud.Failures {
		i.serves = never
	}
	w.instances = append(w.instances, i)
	w.next = min(w.next, i.serves)
	if w.judged {
		w.result.Launches++
		w.result.MostInstances = max(w.result.MostInstances, len(w.instances))
	}
	return true
}

// end ends the instance at that place.
func (w *world) end(at int) {
	if at < w.ready {
		w.ready--
	}
	w.instances = slices.Delete(w.instances, at, at+1)
}

// arrive lets those serve whose time has come, and says when the next one will.
func (w *world) arrive() {
	if w.now < w.next {
		return
	}
	w.next = never
	for at := w.ready; at < len(w.instances); at++ {
		switch i := w.instances[at]; {
		case i.serves > w.now:
			w.next = min(w.next, i.serves)
		default:
			w.instances = slices.Delete(w.instances, at, at+1)
			place := w.ready
			for place > 0 && w.instances[place-1].launched > i.launched {
				place--
			}
			w.instances = slices.Insert(w.instances, place, i)
			w.ready++
		}
	}
}

// expire ends those that have not come up in time.
func (w *world) expire() {
	for at := len(w.instances) - 1; at >= w.ready; at-- {
		if w.now-w.instances[at].launched >= w.timeout {
			w.end(at)
		}
	}
}

// pass lets time pass up to a moment in which nothing arrives, at a steady rate, and keeps the account.
func (w *world) pass(until time.Duration, rate, perInstance float64, least int) {
	length := until - w.now
	w.now = until
	if w.cloud.Billing > time.Second {
		for at := range w.instances {
			for i := &w.instances[at]; i.paid < until; i.paid += w.cloud.Billing {
				if w.judged {
					w.paid += w.cloud.Billing.Seconds()
				}
			}
		}
	}
	if !w.judged {
		return
	}
	seconds := length.Seconds()
	if w.cloud.Billing <= time.Second {
		w.paid += float64(len(w.instances)) * seconds
	}
	r := &w.result
	r.Length += length
	if lack := rate - float64(w.ready)*perInstance; lack > 1e-9*rate {
		r.Excess += lack * seconds
		r.Violating += length
	}
	switch needed := max(need(rate, perInstance), least); {
	case w.ready < needed:
		r.UnderAccuracy += float64(needed-w.ready) / float64(needed) * seconds
		r.UnderTimeshare += seconds
	case w.ready > needed:
		r.OverAccuracy += float64(w.ready-needed) / float64(max(needed, 1)) * seconds
		r.OverTimeshare += seconds
	}
}
