package dnsreg

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"sync"
	"time"
)

// Memory is a registrar in memory: atomic, with preconditions. It is what tests and dry runs use in place of a name
// server. The exported fields are set before its first use.
//
// A zone begins as a real one does, with a SOA and a NS. Its serial goes up by one with each change set that changes
// something.
type Memory struct {
	// Zones are the names of the zones that it has.
	Zones []string
	// MaxChanges and MinTTL are limits as in Capabilities. 0 means none.
	MaxChanges int
	MinTTL     time.Duration
	// Fault, if not nil, is called twice in each call, without a lock held: before it does anything, and, with Done, after
	// it has taken effect. An error that Fault returns is what the call returns: with Done, the reply is lost.
	Fault func(ctx context.Context, c Call) error

	mu    sync.Mutex
	zones map[string]*memoryZone
}

var _ Registrar = (*Memory)(nil)

// Call is one call to a [Memory], for its Fault hook.
type Call struct {
	Op      string // "Records" or "Apply"
	Zone    string
	Changes []Change // of Apply
	Done    bool     // it has taken effect
}

type memoryZone struct {
	name   string
	serial uint32
	sets   map[string]map[string]RRset // by name and type
}

// Capabilities says what the registrar can do.
func (m *Memory) Capabilities() Capabilities {
	return Capabilities{Atomic: true, Preconditions: true, MaxChanges: m.MaxChanges, MinTTL: m.MinTTL}
}

// Records lists the zone.
func (m *Memory) Records(ctx context.Context, zone string) ([]RRset, error) {
	var list []RRset
	err := m.call(ctx, Call{Op: "Records", Zone: zone}, func(z *memoryZone) error {
		list = make([]RRset, 0, 2*len(z.sets))
		for _, types := range z.sets {
			for _, r := range types {
				r.Values = slices.Clone(r.Values)
				list = append(list, r)
			}
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	slices.SortFunc(list, func(a, b RRset) int {
		return cmp.Or(cmp.Compare(a.Name, b.Name), cmp.Compare(a.Type, b.Type))
	})
	return list, nil
}

// Apply makes all changes or none.
func (m *Memory) Apply(ctx context.Context, zone string, changes []Change) error {
	if len(changes) == 0 {
		return nil
	}
	return m.call(ctx, Call{Op: "Apply", Zone: zone, Changes: changes}, func(z *memoryZone) error {
		canonical, err := CanonicalChanges(zone, changes)
		if err != nil {
			return err
		}
		if m.MaxChanges > 0 && len(changes) > m.MaxChanges {
			return fmt.Errorf("%d changes: %w: want at most %d at once", len(changes), ErrInvalid, m.MaxChanges)
		}
		return z.apply(canonical, m.MinTTL)
	})
}

// Serial gives the zone's serial: how many change sets changed something, plus one. It is 0 for an unknown zone.
func (m *Memory) Serial(zone string) uint32 {
	m.mu.Lock()
	defer m.mu.Unlock()
	z, err := m.zone(zone)
	if err != nil {
		return 0
	}
	return z.serial
}

// call runs one call's work under the lock, between the two calls of the hook.
func (m *Memory) call(ctx context.Context, c Call, work func(z *memoryZone) error) error {
	fault := func() error {
		if m.Fault == nil {
			return nil
		}
		return m.Fault(ctx, c)
	}
	if err := fault(); err != nil {
		return err
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	err := func() error {
		m.mu.Lock()
		defer m.mu.Unlock()
		z, err := m.zone(c.Zone)
		if err != nil {
			return err
		}
		return work(z)
	}()
	if err != nil {
		return err
	}
	c.Done = true
	return fault()
}

// zone finds a zone by its name in any spelling, under the lock.
func (m *Memory) zone(name string) (*memoryZone, error) {
	if m.zones == nil {
		zones := make(map[string]*memoryZone)
		for _, zone := range m.Zones {
			zone, err := canonicalZone(zone)
			if err != nil {
				return nil, err
			}
			zones[zone] = newMemoryZone(zone)
		}
		m.zones = zones
	}
	zone, err := canonicalZone(name)
	if err != nil {
		return nil, err
	}
	z, ok := m.zones[zone]
	if !ok {
		return nil, fmt.Errorf("%s: %w", zone, ErrNoZone)
	}
	return z, nil
}

func newMemoryZone(zone string) *memoryZone {
	z := &memoryZone{name: zone, sets: map[string]map[string]RRset{zone: {
		"NS": {Name: zone, Type: "NS", TTL: time.Hour, Values: []string{"ns.invalid."}},
	}}}
	z.bump()
	return z
}

// bump counts the serial up in the SOA.
func (z *memoryZone) bump() {
	z.serial++
	z.sets[z.name]["SOA"] = RRset{Name: z.name, Type: "SOA", TTL: time.Hour,
		Values: []string{fmt.Sprintf("ns.invalid. hostmaster.invalid. %d 3600 600 604800 60", z.serial)}}
}

func (z *memoryZone) apply(changes []Change, minTTL time.Duration) error {
	changed := false
	after := make(map[string]map[string]bool) // the types that each name will have
	for _, c := range changes {
		have, ok := z.sets[c.Name][c.Type]
		switch {
		case c.Old == nil && ok:
			return fmt.Errorf("%s %s: %w: it exists, with %d values", c.Name, c.Type, ErrConflict, len(have.Values))
		case c.Old != nil && !ok:
			return fmt.Errorf("%s %s: %w: it does not exist", c.Name, c.Type, ErrConflict)
		case c.Old != nil && !c.Old.Equal(have):
			return fmt.Errorf("%s %s: %w: its TTL or values are others", c.Name, c.Type, ErrConflict)
		case c.New != nil && c.New.TTL < minTTL:
			return fmt.Errorf("%s %s: %w: TTL %v is shorter than the minimum, %v", c.Name, c.Type, ErrInvalid, c.New.TTL, minTTL)
		}
		changed = changed || c.Old == nil || c.New == nil || !c.Old.Equal(*c.New)
		types := after[c.Name]
		if types == nil {
			types = make(map[string]bool)
			for typ := range z.sets[c.Name] {
				types[typ] = true
			}
			after[c.Name] = types
		}
		types[c.Type] = true
		if c.New == nil {
			delete(types, c.Type)
		}
	}
	for name, types := range after {
		if types["CNAME"] && len(types) > 1 {
			return fmt.Errorf("%s CNAME: %w: a CNAME stands alone, and there would be %d other types", name, ErrInvalid, len(types)-1)
		}
	}
	if !changed {
		return nil
	}
	for _, c := range changes {
		delete(z.sets[c.Name], c.Type)
		if c.New != nil {
			if z.sets[c.Name] == nil {
				z.sets[c.Name] = make(map[string]RRset)
			}
			z.sets[c.Name][c.Type] = *c.New
		}
		if len(z.sets[c.Name]) == 0 {
			delete(z.sets, c.Name)
		}
	}
	z.bump()
	return nil
}
