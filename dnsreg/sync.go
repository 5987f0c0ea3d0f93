package dnsreg

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"time"
)

// syncTries is how often Sync reads and diffs before it gives in to others who keep changing the zone. Of those who
// race, one wins each round, so it bounds how many may race at once.
const syncTries = 12

// Sync makes the zone hold what the owner wants in it: it reads the zone, applies what [Diff] gives, and begins again,
// after a short wait, where somebody else has changed the zone in between. It returns the changes that it knows were made,
// also with an error.
//
// All changes are one change set where the registrar is atomic and takes so many. Where it bounds them, the changes at one
// name stay together. Where it is not atomic, a name's marks are written before its values come and cut back after they
// went, so that whenever it stops, no value of the owner's is without its mark. A change set that the registrar refuses
// with ErrInvalid is halved until what is wrong stands alone and all else is done, and one name with more than 100 values is then
// changed step by step, as where a registrar is not atomic; so is halved, at the last try, one that still meets ErrConflict: a
// name that somebody else never leaves alone holds back no other.
//
// Through a [Guarded] registrar, the guard judges all changes together, also where they are made one by one, and the hash that
// it gives is that of all of them.
//
// The error holds a *RefusedError if names were refused, and what the registrar said. After any error the next Sync
// continues from what is there.
func Sync(ctx context.Context, r Registrar, zone, owner string, want []RRset) ([]Change, error) {
	s := syncer{Registrar: r, caps: r.Capabilities(), zone: zone}
	for try := 1; ; try++ {
		have, err := r.Records(ctx, zone)
		if err != nil {
			return s.made, fmt.Errorf("records of %s: %w", zone, err)
		}
		groups, refused := diff(zone, owner, have, want, s.caps.MinTTL)
		s.last = try == syncTries
		guarded, ok := r.(Guarded)
		if p, is := r.(*Guarded); is {
			guarded, ok = *p, true
		}
		if ok {
			err = s.guarded(ctx, guarded, have, groups)
		} else {
			err = s.all(ctx, groups)
		}
		if try == syncTries || !errors.Is(err, ErrConflict) {
			return s.made, errors.Join(err, refused)
		}
		wait := time.NewTimer(rand.N(time.Millisecond << min(try, 8)))
		select {
		case <-wait.C:
		case <-ctx.Done():
			wait.Stop()
			return s.made, errors.Join(context.Cause(ctx), err, refused)
		}
	}
}

// syncer applies groups within what the registrar can do.
type syncer struct {
	Registrar
	caps Capabilities
	zone string
	made []Change
	last bool   // there is no other try
	hash string // of all that a guard has judged together
}

// guarded lets the guard judge the groups together before they are applied. Each of their change sets has the guard's first
// rule to keep too, since whoever asks sees the zone between them; unless all of it was approved.
func (s *syncer) guarded(ctx context.Context, g Guarded, have []RRset, groups []group) error {
	var changes []Change
	for _, g := range groups {
		changes = append(changes, g.changes()...)
	}
	if err := g.Guard.Check(s.zone, have, changes); err != nil {
		return err
	}
	s.hash = Hash(s.zone, changes)
	s.Registrar = g.Registrar
	if g.Guard.Approved != s.hash {
		s.Registrar = Guarded{Registrar: g.Registrar, Guard: Guard{Retired: g.Guard.Retired}}
	}
	return s.all(ctx, groups)
}

// all applies the groups, as many at once as may be. An error of one group, a conflict, something invalid or a step that a
// guard holds back, does not keep the others back; any other error does, for it would meet them as well.
func (s *syncer) all(ctx context.Context, groups []group) error {
	var errs []error
	for len(groups) > 0 {
		n := s.batch(groups)
		var err error
		if n == 0 {
			n = 1
			err = s.phases(ctx, groups[0])
		} else {
			err = s.halves(ctx, groups[:n])
		}
		groups = groups[n:]
		if err != nil {
			errs = append(errs, err)
			if _, held := errors.AsType[*GuardError](err); !held && !errors.Is(err, ErrConflict) && !errors.Is(err, ErrInvalid) {
				break
			}
		}
	}
	return errors.Join(errs...)
}

// batch says how many of the groups go into one atomic change set; 0 means that not even the first does.
func (s *syncer) batch(groups []group) int {
	if !s.caps.Atomic {
		return 0
	}
	changes := 0
	for i, g := range groups {
		changes += len(g.changes())
		if s.caps.MaxChanges > 0 && changes > s.caps.MaxChanges {
			return i
		}
	}
	return len(groups)
}

// halves applies the groups as one change set, and in halves where that cannot be done.
func (s *syncer) halves(ctx context.Context, groups []group) error {
	var changes []Change
	for _, g := range groups {
		changes = append(changes, g.changes()...)
	}
	stuck := func(err error) bool { return errors.Is(err, ErrInvalid) || s.last && errors.Is(err, ErrConflict) }
	err := s.apply(ctx, changes)
	if len(groups) == 1 && errors.Is(err, ErrInvalid) && groups[0].crowded() {
		return s.phases(ctx, groups[0]) // it may be too much at once
	}
	if len(groups) == 1 || !stuck(err) {
		return err
	}
	half := len(groups) / 2
	err = s.halves(ctx, groups[:half])
	if err != nil && !stuck(err) {
		return err
	}
	return errors.Join(err, s.halves(ctx, groups[half:]))
}

// crowded reports whether the group has several changes, and one of them many values.
func (g group) crowded() bool {
	all := g.changes()
	return len(all) > 1 && slices.ContainsFunc(all, func(c Change) bool {
		return c.Old != nil && len(c.Old.Values) > crowded || c.New != nil && len(c.New.Values) > crowded
	})
}

// phases applies one group change by change: first its marks, the old ones and the new ones; then the values; then its
// marks as they shall be.
func (s *syncer) phases(ctx context.Context, g group) error {
	steps := g.values
	if m := g.marks; m != nil {
		both := unite(m)
		if m.Old == nil || !m.Old.Equal(*both) {
			steps = append([]Change{{Name: m.Name, Type: m.Type, Old: m.Old, New: both}}, steps...)
		}
		if m.New == nil || !m.New.Equal(*both) {
			steps = append(slices.Clip(steps), Change{Name: m.Name, Type: m.Type, Old: both, New: m.New})
		}
	}
	for _, c := range steps {
		if err := s.apply(ctx, []Change{c}); err != nil {
			return err
		}
	}
	return nil
}

// unite gives the RRset that holds the values of both sides of a change.
func unite(c *Change) *RRset {
	switch {
	case c.Old == nil:
		return c.New
	case c.New == nil:
		return c.Old
	}
	values := slices.Concat(c.Old.Values, c.New.Values)
	slices.Sort(values)
	return &RRset{Name: c.Name, Type: c.Type, TTL: c.New.TTL, Values: slices.Compact(values)}
}

// apply applies and keeps what was made.
func (s *syncer) apply(ctx context.Context, changes []Change) error {
	if len(changes) == 0 {
		return nil
	}
	err := s.Apply(ctx, s.zone, changes)
	if err == nil {
		s.made = append(s.made, changes...)
		return nil
	}
	if held, ok := errors.AsType[*GuardError](err); ok && s.hash != "" {
		held.Hash = s.hash
	}
	if partial, ok := errors.AsType[*PartialError](err); ok {
		s.made = append(s.made, partial.Done...)
	}
	return fmt.Errorf("apply to %s: %w", s.zone, err)
}
