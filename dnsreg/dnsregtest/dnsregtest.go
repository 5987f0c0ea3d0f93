// Package dnsregtest holds an implementation of [dnsreg.Registrar] to the rules that callers rely on. Each test is named
// by its rule, so that a failure reads as what the implementation does not keep.
package dnsregtest

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/scalr-go/scalr/dnsreg"
)

// Run runs the suite. open gives a registrar and a zone that it has, for each rule anew or the same one each time; during
// the test nobody else changes names below "scalr-test." in that zone. The suite removes what it created.
//
// Rules that a registrar does not claim to keep (Capabilities: Atomic, Preconditions, MinTTL) are skipped.
func Run(t *testing.T, open func(t *testing.T) (dnsreg.Registrar, string)) {
	for _, c := range checks() {
		t.Run(c.rule, func(t *testing.T) {
			r, zone := open(t)
			if !c.applies(r.Capabilities()) {
				t.Skip("the registrar does not claim this")
			}
			c.check(t, r, zone)
		})
	}
}

// testingT is what the checks use of *testing.T, so that the suite itself can be tested.
type testingT interface {
	require.TestingT
	Helper()
	Context() context.Context
}

// check is one rule.
type check struct {
	rule  string
	needs func(dnsreg.Capabilities) bool // nil: it holds for every registrar
	run   func(e *env)
}

func (c check) applies(caps dnsreg.Capabilities) bool { return c.needs == nil || c.needs(caps) }

func (c check) check(t testingT, r dnsreg.Registrar, zone string) {
	zone, err := dnsreg.CanonicalName(zone)
	require.NoError(t, err)
	e := &env{t: t, r: r, zone: zone, base: "scalr-test." + zone, ttl: max(time.Minute, r.Capabilities().MinTTL)}
	e.clean()
	defer e.clean()
	c.run(e)
}

func atomic(c dnsreg.Capabilities) bool        { return c.Atomic }
func preconditions(c dnsreg.Capabilities) bool { return c.Preconditions }

// checks are the rules.
func checks() []check { return slices.Concat(listing, changing, refusing, sharing) }

// env is what a check works with. Names are relative to the suite's own corner of the zone.
type env struct {
	t    testingT
	r    dnsreg.Registrar
	zone string
	base string
	ttl  time.Duration
}

func (e *env) name(label string) string {
	if label == "" {
		return e.base
	}
	return label + "." + e.base
}

func (e *env) set(label, typ string, values ...string) *dnsreg.RRset {
	return &dnsreg.RRset{Name: e.name(label), Type: typ, TTL: e.ttl, Values: values}
}

// change makes a change out of two RRsets, one of which may be nil.
func change(old, new *dnsreg.RRset) dnsreg.Change {
	c := dnsreg.Change{Old: old, New: new}
	if new != nil {
		c.Name, c.Type = new.Name, new.Type
	} else {
		c.Name, c.Type = old.Name, old.Type
	}
	return c
}

// apply applies changes, in portions if there are more than the registrar takes at once.
func (e *env) apply(changes ...dnsreg.Change) error {
	portion := len(changes)
	if m := e.r.Capabilities().MaxChanges; m > 0 {
		portion = min(portion, m)
	}
	for c := range slices.Chunk(changes, max(1, portion)) {
		if err := e.r.Apply(e.t.Context(), e.zone, c); err != nil {
			return err
		}
	}
	return nil
}

func (e *env) must(changes ...dnsreg.Change) {
	e.t.Helper()
	require.NoError(e.t, e.apply(changes...))
}

// create creates RRsets that must not exist yet.
func (e *env) create(sets ...*dnsreg.RRset) {
	e.t.Helper()
	changes := make([]dnsreg.Change, len(sets))
	for i, s := range sets {
		changes[i] = change(nil, s)
	}
	e.must(changes...)
}

// records lists the suite's corner of the zone.
func (e *env) records() []dnsreg.RRset {
	e.t.Helper()
	return e.below(e.t.Context())
}

func (e *env) below(ctx context.Context) []dnsreg.RRset {
	e.t.Helper()
	list, err := e.r.Records(ctx, e.zone)
	require.NoError(e.t, err)
	return slices.DeleteFunc(list, func(r dnsreg.RRset) bool {
		return r.Name != e.base && !strings.HasSuffix(r.Name, "."+e.base)
	})
}

// get gives one RRset as it is listed, or nil.
func (e *env) get(label, typ string) *dnsreg.RRset {
	e.t.Helper()
	for _, r := range e.records() {
		if r.Name == e.name(label) && r.Type == typ {
			return &r
		}
	}
	return nil
}

// holds requires the suite's corner to hold exactly these RRsets.
func (e *env) holds(sets ...*dnsreg.RRset) {
	e.t.Helper()
	want := make([]string, len(sets))
	for i, s := range sets {
		c, err := dnsreg.Canonical(*s)
		require.NoError(e.t, err)
		want[i] = print(c)
	}
	got := []string{}
	for _, r := range e.records() {
		got = append(got, print(r))
	}
	slices.Sort(want)
	slices.Sort(got)
	require.Equal(e.t, want, got)
}

func print(r dnsreg.RRset) string { return dnsreg.Change{New: &r}.String() }

// refused requires an error of a kind, and the zone to be as before.
func (e *env) refused(kind error, changes ...dnsreg.Change) {
	e.t.Helper()
	before := e.records()
	err := e.apply(changes...)
	require.ErrorIs(e.t, err, kind)
	require.Equal(e.t, before, e.records(), "the zone changed although Apply failed with: %v", err)
}

// clean removes what stands in the suite's corner, whoever left it there.
func (e *env) clean() {
	ctx := context.WithoutCancel(e.t.Context())
	var changes []dnsreg.Change
	for _, r := range e.below(ctx) {
		changes = append(changes, change(&r, nil))
	}
	portion := 100
	if m := e.r.Capabilities().MaxChanges; m > 0 {
		portion = min(portion, m)
	}
	for c := range slices.Chunk(changes, portion) {
		err := e.r.Apply(ctx, e.zone, c)
		if err != nil && !errors.Is(err, dnsreg.ErrConflict) {
			e.t.Errorf("clean up: %v", err)
			return
		}
	}
}
