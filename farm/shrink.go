package farm

import (
	"cmp"
	"time"
)

// Order is which machines go first when a role shrinks.
type Order string

// The orders. Where an order does not tell two machines apart, the higher index goes first.
const (
	// HighestFirst ends the highest index, so that the role's names and slots stay close together; the default.
	HighestFirst Order = ""
	// NewestFirst keeps the oldest machines, which have warm caches.
	NewestFirst Order = "newest"
	// OldestFirst renews the role by and by.
	OldestFirst Order = "oldest"
	// IdlestFirst ends the machine with the lowest sample of the role's first metric. One without a sample stays.
	IdlestFirst Order = "idlest"
	// PaidUpFirst ends the machine whose paid hour, counted from its launch, is over soonest: for clouds that bill whole hours.
	PaidUpFirst Order = "paid-up"
)

var orders = []Order{HighestFirst, NewestFirst, OldestFirst, IdlestFirst, PaidUpFirst}

// stays compares machines of the role: the one that is rather to stay comes first.
func (d *decision) stays(r *Role) func(a, b *machine) int {
	switch r.Shrink {
	case NewestFirst:
		return func(a, b *machine) int { return a.launched.Compare(b.launched) }
	case OldestFirst:
		return func(a, b *machine) int { return b.launched.Compare(a.launched) }
	case PaidUpFirst:
		left := func(m *machine) time.Duration { return time.Hour - d.now.Sub(m.launched)%time.Hour }
		return func(a, b *machine) int { return cmp.Compare(left(b), left(a)) }
	case IdlestFirst:
		metrics, load := r.metrics(), map[string]float64{}
		for _, s := range d.o.samples[r.Name] {
			if s.Metric == "" || len(metrics) > 0 && s.Metric == metrics[0] {
				load[s.Instance] = s.Value
			}
		}
		return func(a, b *machine) int {
			x, knownA := load[a.id]
			y, knownB := load[b.id]
			return cmp.Or(trueFirst(!knownA, !knownB), cmp.Compare(y, x))
		}
	}
	return func(a, b *machine) int { return 0 }
}
