package farm

import (
	"iter"
	"maps"
	"net/netip"
	"slices"
	"time"
)

// slotMemory is about a slot and the launches into it.
type slotMemory struct {
	slot       slot
	name       string
	generation int        // the highest that was tried
	open       *attempt   // a launch that may have taken effect: only the same one may be repeated; nil if there is none
	retry      backoff    // after machines that failed to come up
	wanted     bool       // the slot was wanted by the last pass
	replaced   time.Time  // when its machine was ended because it had failed; zero once another one serves
	addr       netip.Addr // where the slot last served

	// Of the pass under way:
	wants  bool     // the slot is wanted
	holder *machine // the machine that has it
}

// attempt is a launch whose outcome is not known. It is never changed.
type attempt struct {
	times int       // how often it has been made
	last  time.Time // when it was made last
	offer offer     // what it took
	image string    // likewise
	build string
}

// slotTable is what is known of slots. Most roles use their indices from 1 on, so that a slot is found by its index.
type slotTable map[string]*roleSlots // by role

// roleSlots is what is known of the slots of a role.
type roleSlots struct {
	role string
	low  []*slotMemory       // by index; nil where nothing is known
	high map[int]*slotMemory // of the indices that low has no room for: none that a farm gives, but tags can say anything
}

// highest bounds the indices that roleSlots.low has room for: 8 MB of it.
const highest = 1 << 20

// get gives what is known of a slot, or nil.
func (t slotTable) get(s slot) *slotMemory {
	if r := t[s.role]; r != nil {
		return r.get(s.index)
	}
	return nil
}

// role gives the slots of a role, for the caller to add to.
func (t slotTable) role(name string) *roleSlots {
	r := t[name]
	if r == nil {
		r = &roleSlots{role: name}
		t[name] = r
	}
	return r
}

// of gives what is known of the slots of a role, in the order of their indices.
func (t slotTable) of(role string) iter.Seq[*slotMemory] {
	return func(yield func(*slotMemory) bool) {
		if r := t[role]; r != nil {
			r.each(yield)
		}
	}
}

// all gives what is known of all slots, in the order of their roles and indices.
func (t slotTable) all() iter.Seq[*slotMemory] {
	return func(yield func(*slotMemory) bool) {
		for _, role := range sortedKeys(t) {
			if !t[role].each(yield) {
				return
			}
		}
	}
}

// next gives a copy for the next pass to change.
func (t slotTable) next() slotTable {
	next := make(slotTable, len(t))
	for name, r := range t {
		next[name] = r.next()
	}
	return next
}

func (r *roleSlots) get(index int) *slotMemory {
	if index >= 0 && index < len(r.low) {
		return r.low[index]
	}
	return r.high[index]
}

// slot gives what is known of a slot, for the caller to change.
func (r *roleSlots) slot(index int) *slotMemory {
	if mem := r.get(index); mem != nil {
		return mem
	}
	mem := &slotMemory{slot: slot{r.role, index}}
	mem.name = mem.slot.name()
	switch {
	case index < 0 || index >= highest:
		if r.high == nil {
			r.high = map[int]*slotMemory{}
		}
		r.high[index] = mem
	default:
		if missing := index + 1 - len(r.low); missing > 0 {
			r.low = append(r.low, make([]*slotMemory, missing)...)
		}
		r.low[index] = mem
	}
	return mem
}

// each calls yield for the slots, in the order of their indices, and reports whether it was true each time.
func (r *roleSlots) each(yield func(*slotMemory) bool) bool {
	high := slices.Sorted(maps.Keys(r.high))
	for len(high) > 0 && high[0] < 0 {
		if !yield(r.high[high[0]]) {
			return false
		}
		high = high[1:]
	}
	for _, mem := range r.low {
		if mem != nil && !yield(mem) {
			return false
		}
	}
	for _, index := range high {
		if !yield(r.high[index]) {
			return false
		}
	}
	return true
}

func (r *roleSlots) next() *roleSlots {
	next := &roleSlots{role: r.role, low: make([]*slotMemory, len(r.low))}
	n := len(r.high)
	for _, mem := range r.low {
		if mem != nil {
			n++
		}
	}
	copies := make([]slotMemory, 0, n) // side by side, in the order in which they are asked for
	copied := func(mem *slotMemory) *slotMemory {
		copies = append(copies, *mem)
		mem = &copies[len(copies)-1]
		mem.wants, mem.holder = false, nil
		return mem
	}
	for i, mem := range r.low {
		if mem != nil {
			next.low[i] = copied(mem)
		}
	}
	if r.high != nil {
		next.high = make(map[int]*slotMemory, len(r.high))
		for i, mem := range r.high {
			next.high[i] = copied(mem)
		}
	}
	return next
}
