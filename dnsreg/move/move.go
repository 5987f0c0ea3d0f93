// Package move takes a name from old machines to new ones so that at no instant a client holds an address that no longer
// serves, however long it caches:
//
//  1. [Lower]: shorten the TTL; wait until nobody holds the name with the long one
//  2. [Add]: the new values beside the old ones
//  3. [Remove]: take the old values away; wait until nobody holds them
//  4. [Raise]: lengthen the TTL again; the old machines may go
//
// Each step is over only when every name server of the zone has confirmed it and the TTL since then has passed, and a margin:
// an answer is on its way for a while, and caches that count whole seconds give out the rest of a TTL as up to a second more,
// each of those that a client is behind. If the name
// servers do not confirm within Move.Patience, or Move.Check fails before the last step, the move goes back: the old values
// alone, on every name server, and the new machines may go when nobody holds their addresses any more.
//
// A move is a [State] that is kept between steps, by a program that may end at any instant: each step puts in place what its
// phase wants, whatever is there.
package move

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/scalr-go/scalr/dnsreg"
)

// Move is what to move. The old machines serve until [State.OldUnused], the new ones from the start until
// [State.NewUnused].
type Move struct {
	Registrar dnsreg.Registrar // Required.
	Zone      string           // Required.
	Owner     string           // whose values they are. Required.
	Name      string           // the name that moves. Required.
	Type      string           // "A" or "AAAA". Required.
	Old, New  []string         // the values before and after; none is in both. Required.
	// Servers ask the zone's name servers, each one of them, without a cache. All of them are needed: one that is left out
	// may give out an address after its machine went. At least one. See [Ask].
	Servers []Lookup
	// TTL is the short TTL during the move, in whole seconds. It is the old one if that is shorter. A move that goes back takes
	// a second less, so that it is at least a second more than the registrar's minimum. Default 20 s, or more for that reason.
	TTL time.Duration
	// Margin is for how much longer than a TTL clients may hold what they got with it. Default 5 s.
	Margin time.Duration
	// Patience is how long the name servers may take to confirm a phase, from its begin. Default 10 min.
	Patience time.Duration
	// Interval is the pause between looks. Default 1 s.
	Interval time.Duration
	// Check, if not nil, says whether the new machines serve. It is asked before the new values come and before the old ones
	// go; an error takes the move back.
	Check func(ctx context.Context) error
}

// Lookup asks one name server for an RRset, with the TTL that it gives out.
type Lookup func(ctx context.Context, name, typ string) (dnsreg.RRset, error)

// Phase is a part of a move.
type Phase string

// The phases, in their order; Back comes after any of the first three.
const (
	Start  Phase = ""       // nothing is known yet
	Lower  Phase = "lower"  // the TTL becomes short
	Add    Phase = "add"    // the new values join
	Remove Phase = "remove" // the old values go
	Raise  Phase = "raise"  // the TTL becomes long again; nobody holds the old values
	Done   Phase = "done"

	Back      Phase = "back"       // the new values go, the old ones are back
	BackRaise Phase = "back-raise" // the TTL becomes long again; nobody holds the new values
	BackDone  Phase = "back-done"
)

// State is how far a move is. It is plain data; the zero State begins.
type State struct {
	Phase     Phase
	Since     time.Time     // when the phase began, or lost its confirmation
	Confirmed time.Time     // since when all name servers confirm it; zero if they do not
	Before    time.Duration // the TTL before the move
	Reason    string        // why the phase is not in place everywhere, or why the move goes back
}

// Ended reports whether there is nothing left to do.
func (s State) Ended() bool { return s.Phase == Done || s.Phase == BackDone }

// OldUnused reports whether no client holds an old value: the old machines may go.
func (s State) OldUnused() bool { return s.Phase == Raise || s.Phase == Done }

// NewUnused reports whether the move went back and no client holds a new value: the new machines may go.
func (s State) NewUnused() bool { return s.Phase == BackRaise || s.Phase == BackDone }

// defaults fills in what is not set, and checks what is.
func (m *Move) defaults() error {
	if m.Registrar == nil {
		return errors.New("move: Registrar is missing")
	}
	for _, d := range []struct {
		name  string
		value *time.Duration
		def   time.Duration
	}{{"TTL", &m.TTL, max(20*time.Second, m.shortest())}, {"Margin", &m.Margin, 5 * time.Second}, {"Patience", &m.Patience, 10 * time.Minute}, {"Interval", &m.Interval, time.Second}} {
		if *d.value < 0 {
			return fmt.Errorf("move: %s is %v, want more than 0, or 0 for the default", d.name, *d.value)
		}
		if *d.value == 0 {
			*d.value = d.def
		}
	}
	switch {
	case m.TTL < m.shortest():
		return fmt.Errorf("move: TTL is %v, want at least %v, a second more than the registrar's minimum", m.TTL, m.shortest())
	case len(m.Servers) == 0:
		return errors.New("move: Servers is empty, want every name server of the zone")
	case m.Type != "A" && m.Type != "AAAA":
		return fmt.Errorf("move: Type is %q, want A or AAAA", m.Type)
	}
	for _, side := range []struct {
		name   string
		values *[]string
	}{{"Old", &m.Old}, {"New", &m.New}} {
		r, err := dnsreg.Canonical(dnsreg.RRset{Name: m.Name, Type: m.Type, TTL: m.TTL, Values: *side.values})
		if err != nil {
			return fmt.Errorf("move: %s: %w", side.name, err)
		}
		m.Name, *side.values = r.Name, r.Values
	}
	for _, v := range m.New {
		if slices.Contains(m.Old, v) {
			return fmt.Errorf("move: New has %s, which is in Old too", v)
		}
	}
	_, err := dnsreg.Diff(m.Zone, m.Owner, nil, []dnsreg.RRset{{Name: m.Name, Type: m.Type, TTL: m.TTL, Values: m.Old}})
	if err != nil {
		return fmt.Errorf("move: %w", err)
	}
	return nil
}

// shortest is the shortest TTL that can still be a second less.
func (m *Move) shortest() time.Duration { return m.Registrar.Capabilities().MinTTL + time.Second }

// short is the TTL during the move.
func (m *Move) short(s State) time.Duration { return max(min(m.TTL, s.Before), m.shortest()) }

// Run takes the move from a state to its end, and gives the last state. save keeps each new state before anything is done
// in it, so that a Run after a crash goes on from there; it may be nil. With an error, the move stands where the state says;
// a registrar or a name server that fails is no error, but tried again. A move that went back is no error either.
func (m Move) Run(ctx context.Context, s State, save func(State) error) (State, error) {
	if err := m.defaults(); err != nil {
		return s, err
	}
	for !s.Ended() {
		next := m.Step(ctx, s)
		if ctx.Err() != nil {
			return s, context.Cause(ctx)
		}
		if save != nil && next != s {
			if err := save(next); err != nil {
				return s, fmt.Errorf("move: save: %w", err)
			}
		}
		if next.Phase == s.Phase {
			t := time.NewTimer(m.Interval)
			select {
			case <-t.C:
			case <-ctx.Done():
				t.Stop()
				return next, context.Cause(ctx)
			}
		}
		s = next
	}
	return s, nil
}

// Step puts in place what the phase wants, looks at all name servers, and gives the state from there: another phase, or the
// same one. The caller keeps it before the next step.
func (m Move) Step(ctx context.Context, s State) State {
	if s.Ended() || m.defaults() != nil {
		return s
	}
	var f facts
	switch s.Phase {
	case Start:
		f.before, f.err = m.longest(ctx)
	case Add, Remove:
		if m.Check != nil {
			f.check = m.Check(ctx)
		}
	}
	if s.Phase != Start && f.check == nil {
		if f.err = m.put(ctx, m.want(s)); f.err == nil && s.Phase != Raise && s.Phase != BackRaise {
			f.err = m.confirm(ctx, m.want(s))
		}
	}
	return m.next(s, f, time.Now())
}

// facts are what one step has found.
type facts struct {
	before time.Duration // the longest TTL that a client may have got
	check  error         // of Check
	err    error         // why the phase is not in place everywhere
}

// next decides. It is pure.
func (m Move) next(s State, f facts, now time.Time) State {
	to := func(p Phase) State {
		next := State{Phase: p, Since: now, Before: s.Before}
		if p == Back || p == BackRaise || p == BackDone {
			next.Reason = s.Reason
		}
		return next
	}
	if f.check != nil {
		s.Reason = f.check.Error()
		return to(Back)
	}
	if f.err != nil {
		if !s.Confirmed.IsZero() {
			s.Confirmed, s.Since = time.Time{}, now
		}
		patient := s.Phase != Lower && s.Phase != Add && s.Phase != Remove
		if s.Phase != Back && s.Phase != BackRaise {
			s.Reason = f.err.Error()
		}
		if !patient && now.Sub(s.Since) > m.Patience {
			return to(Back)
		}
		return s
	}
	if s.Phase != Back && s.Phase != BackRaise {
		s.Reason = ""
	}
	if s.Phase == Start {
		s.Before = f.before
		return to(Lower)
	}
	if s.Confirmed.IsZero() {
		s.Confirmed = now
	}
	held := now.Sub(s.Confirmed)
	switch {
	case s.Phase == Lower && held > s.Before+m.Margin:
		return to(Add)
	case s.Phase == Add:
		return to(Remove)
	case s.Phase == Remove && held > m.short(s)+m.Margin:
		return to(Raise)
	case s.Phase == Raise:
		return to(Done)
	case s.Phase == Back && held > m.short(s)+m.Margin:
		return to(BackRaise)
	case s.Phase == BackRaise:
		return to(BackDone)
	}
	return s
}

// want is what the phase wants at the name.
func (m Move) want(s State) dnsreg.RRset {
	r := dnsreg.RRset{Name: m.Name, Type: m.Type, TTL: m.short(s)}
	switch s.Phase {
	case Lower:
		r.Values = m.Old
	case Add:
		r.Values = slices.Concat(m.Old, m.New)
	case Remove:
		r.Values = m.New
	case Raise:
		r.TTL, r.Values = s.Before, m.New
	case Back:
		// The old values alone are also what a name server has that has not seen the new ones yet, and will: it must not be
		// taken for one that is past them. So this TTL is shorter than that one.
		r.TTL, r.Values = r.TTL-time.Second, m.Old
	case BackRaise:
		r.TTL, r.Values = s.Before, m.Old
	}
	return r
}

// put makes the owner have this at the name, and leaves all else of the owner's as it is.
func (m Move) put(ctx context.Context, want dnsreg.RRset) error {
	have, err := m.Registrar.Records(ctx, m.Zone)
	if err != nil {
		return err
	}
	all := slices.DeleteFunc(dnsreg.Owned(m.Zone, m.Owner, have), func(r dnsreg.RRset) bool {
		return r.Name == m.Name && r.Type == m.Type
	})
	changes, err := dnsreg.Diff(m.Zone, m.Owner, have, append(all, want))
	if err != nil {
		return err
	}
	if !m.Registrar.Capabilities().Atomic {
		_, err = dnsreg.Sync(ctx, m.Registrar, m.Zone, m.Owner, append(all, want))
		return err
	}
	return m.Registrar.Apply(ctx, m.Zone, changes)
}

// confirm reports which name server does not give out what is wanted: with all of our values and none that shall be gone,
// for no longer than wanted. Values of others at the name do not matter.
func (m Move) confirm(ctx context.Context, want dnsreg.RRset) error {
	for i, ask := range m.Servers {
		is, err := ask(ctx, m.Name, m.Type)
		if err != nil {
			return fmt.Errorf("name server %d: %w", i, err)
		}
		for _, v := range slices.Concat(m.Old, m.New) {
			if slices.Contains(is.Values, v) != slices.Contains(want.Values, v) {
				return fmt.Errorf("name server %d has %v, want %v", i, is.Values, want.Values)
			}
		}
		if is.TTL > want.TTL {
			return fmt.Errorf("name server %d has the TTL %v, want %v", i, is.TTL, want.TTL)
		}
	}
	return nil
}

// longest gives the longest TTL that the name has anywhere. All name servers must give out the old values and no new one.
func (m Move) longest(ctx context.Context) (longest time.Duration, err error) {
	if err := m.confirm(ctx, dnsreg.RRset{Values: m.Old, TTL: math.MaxInt64}); err != nil {
		return 0, err
	}
	for i, ask := range m.Servers {
		is, err := ask(ctx, m.Name, m.Type)
		if err != nil {
			return 0, fmt.Errorf("name server %d: %w", i, err)
		}
		longest = max(longest, is.TTL)
	}
	have, err := m.Registrar.Records(ctx, m.Zone)
	if err != nil {
		return 0, err
	}
	for _, r := range have {
		if r.Name == m.Name && r.Type == m.Type {
			longest = max(longest, r.TTL)
			if r.TTL < time.Second {
				return 0, fmt.Errorf("%s %s has the TTL %v, want at least 1s", r.Name, r.Type, r.TTL)
			}
		}
	}
	return longest, nil
}
