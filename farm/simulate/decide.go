package simulate

import (
	"slices"
	"time"

	"github.com/scalr-go/scalr/farm/scale"
)

// decide is the farm's decision on how many instances the role should have.
func (r *run) decide(at time.Time, samples []scale.Sample) scale.Decision {
	mem := &r.role
	in := scale.Input{Now: at, Min: r.Min, Max: r.Max, Count: mem.Desired, Ready: r.ready, Samples: samples, Past: mem.Past,
		Since: r.trace.Start, LastUp: mem.LastUp, LastDown: mem.LastDown, Boot: r.Cloud.Boot, Memory: mem.Memory}
	d := r.Policy.Desired(in)
	keep := scale.MemoryOf(r.Policy)
	if n := len(mem.Past); n > 0 && at.Sub(mem.Past[0].At) > keep {
		i := 0
		for i < n && at.Sub(mem.Past[i].At) > keep {
			i++
		}
		mem.Past = slices.Delete(mem.Past, 0, i)
	}
	mem.Past = append(mem.Past, scale.Advice{At: at, Desired: d.Raw})
	mem.Memory = d.Memory
	d.Desired = min(max(d.Desired, r.Min), r.Max)
	if d.Desired > mem.Desired {
		mem.LastUp = at
	} else if d.Desired < mem.Desired {
		mem.LastDown = at
	}
	mem.Desired = d.Desired
	return d
}
