package dnsreg_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/scalr-go/scalr/dnsreg"
)

func guardSet(label, typ string, values ...string) *dnsreg.RRset {
	return &dnsreg.RRset{Name: label + ".example.com.", Type: typ, TTL: time.Minute, Values: values}
}

func guardChange(old, new *dnsreg.RRset) dnsreg.Change {
	r := old
	if r == nil {
		r = new
	}
	return dnsreg.Change{Name: r.Name, Type: r.Type, Old: old, New: new}
}

func TestGuard(t *testing.T) {
	a, aaaa, txt := guardSet("www", "A", "192.0.2.1", "192.0.2.2"), guardSet("www", "AAAA", "2001:db8::1"), guardSet("www", "TXT", "x")
	b := guardSet("b", "A", "192.0.2.3")
	mark := guardSet("_scalr.www", "TXT", "v=scalr1 owner=shop type=A ttl=60 value=192.0.2.1")
	have := []dnsreg.RRset{*a, *txt, *b, *mark}
	for name, c := range map[string]struct {
		guard   dnsreg.Guard
		have    []dnsreg.RRset
		changes []dnsreg.Change
		want    []string
	}{
		"an address goes": {changes: []dnsreg.Change{guardChange(a, guardSet("www", "A", "192.0.2.1"))}},
		"all go":          {changes: []dnsreg.Change{guardChange(a, nil)}, want: []string{"www.example.com. would be left without an address"}},
		"all are others":  {changes: []dnsreg.Change{guardChange(a, guardSet("www", "A", "192.0.2.9"))}},
		"of another type": {changes: []dnsreg.Change{guardChange(a, nil), guardChange(nil, aaaa)}},
		"an alias":        {guard: dnsreg.Guard{MaxDeleted: -1}, changes: []dnsreg.Change{guardChange(b, nil), guardChange(nil, guardSet("b", "CNAME", "www.example.com."))}},
		"one type stays": {guard: dnsreg.Guard{MaxReplaced: -1, MaxDeleted: -1}, have: append(slices.Clone(have), *aaaa),
			changes: []dnsreg.Change{guardChange(a, nil)}},
		"text goes":      {changes: []dnsreg.Change{guardChange(txt, nil)}},
		"it is retired":  {guard: dnsreg.Guard{Retired: []string{"WWW.example.com"}}, changes: []dnsreg.Change{guardChange(a, nil)}},
		"another one is": {guard: dnsreg.Guard{Retired: []string{"b.example.com."}}, changes: []dnsreg.Change{guardChange(a, nil)}, want: []string{"www.example.com. would be left without an address"}},
		"replacing, within the budget": {guard: dnsreg.Guard{MaxReplaced: 1, MaxDeleted: -1},
			changes: []dnsreg.Change{guardChange(a, guardSet("www", "A", "192.0.2.9")), guardChange(b, guardSet("b", "A", "192.0.2.3", "192.0.2.4"))}},
		"replacing, above": {guard: dnsreg.Guard{MaxReplaced: 1},
			changes: []dnsreg.Change{guardChange(a, guardSet("www", "A", "192.0.2.9")), guardChange(b, guardSet("b", "A", "192.0.2.4"))},
			want:    []string{"2 names would get wholly other addresses, want at most 1"}},
		"replacing, none": {guard: dnsreg.Guard{MaxReplaced: -1}, changes: []dnsreg.Change{guardChange(b, guardSet("b", "A", "192.0.2.4"))},
			want: []string{"1 names would get wholly other addresses, want at most 0"}},
		"deleting, above": {guard: dnsreg.Guard{MaxDeleted: 1, MaxReplaced: -1, Retired: []string{"b.example.com"}},
			changes: []dnsreg.Change{guardChange(txt, nil), guardChange(b, nil)}, want: []string{"2 RRsets would be deleted, want at most 1"}},
		"marks do not count": {guard: dnsreg.Guard{MaxDeleted: -1}, changes: []dnsreg.Change{guardChange(mark, nil)}},
		"several reasons": {guard: dnsreg.Guard{MaxDeleted: -1}, changes: []dnsreg.Change{guardChange(a, nil)},
			want: []string{"1 RRsets would be deleted, want at most 0", "www.example.com. would be left without an address"}},
	} {
		t.Run(name, func(t *testing.T) {
			if c.have == nil {
				c.have = have
			}
			err := c.guard.Check("example.com.", c.have, c.changes)
			if c.want == nil {
				require.NoError(t, err)
				return
			}
			held, ok := errors.AsType[*dnsreg.GuardError](err)
			require.True(t, ok, "%v", err)
			require.Equal(t, c.want, held.Reasons)
			c.guard.Approved = held.Hash
			require.NoError(t, c.guard.Check("example.com.", c.have, c.changes), "approved")
			c.guard.Approved = dnsreg.Hash("example.net.", c.changes)
			require.Error(t, c.guard.Check("example.com.", c.have, c.changes), "approved for another zone")
		})
	}
}

// The hash is the plan's: of whatever is different in it.
func TestHash(t *testing.T) {
	a, b := guardChange(nil, guardSet("a", "A", "192.0.2.1")), guardChange(guardSet("b", "A", "192.0.2.1"), guardSet("b", "A", "192.0.2.2"))
	plan := dnsreg.Hash("example.com.", []dnsreg.Change{a, b})
	require.Len(t, plan, 32)
	require.Equal(t, plan, dnsreg.Hash("Example.com", []dnsreg.Change{b, a}))
	seen := map[string]bool{plan: true}
	ttl := guardSet("a", "A", "192.0.2.1")
	ttl.TTL++
	for _, changes := range [][]dnsreg.Change{nil, {a}, {b}, {a, a}, {guardChange(nil, ttl), b}, {a, guardChange(b.Old, nil)},
		{a, guardChange(nil, b.New)}, {a, guardChange(b.New, b.Old)}, {guardChange(nil, guardSet("c", "A", "192.0.2.1")), b},
		{guardChange(nil, guardSet("a", "TXT", "192.0.2.1")), b}, {guardChange(nil, guardSet("a", "TXT", "x", "y")), b},
		{guardChange(nil, guardSet("a", "TXT", `x" "y`)), b}} {
		h := dnsreg.Hash("example.com.", changes)
		require.False(t, seen[h], "%v", changes)
		seen[h] = true
	}
}

func TestTextReadsLikeADiff(t *testing.T) {
	changes := []dnsreg.Change{guardChange(guardSet("www", "A", "192.0.2.1"), guardSet("www", "A", "192.0.2.2")),
		guardChange(nil, guardSet("_scalr.www", "TXT", "v=scalr1")), guardChange(guardSet("old", "TXT", "x"), nil)}
	require.Equal(t, "example.com.: 0 to create, 1 to change, 1 to delete (plan "+dnsreg.Hash("example.com.", changes)+`)
- www.example.com. A 192.0.2.1 ttl=60s
+ www.example.com. A 192.0.2.2 ttl=60s
- old.example.com. TXT "x" ttl=60s`, dnsreg.Text("example.com.", changes))
}

// Whatever owners want through guarded registrars, a name that was live once stays so, and what is held back changes nothing.
func TestNoNameEmptiesBehindAGuard(t *testing.T) {
	heldBack, made := 0, 0
	rapid.Check(t, func(t *rapid.T) {
		m := &dnsreg.Memory{Zones: []string{"example.com."}}
		guarded := dnsreg.Guarded{Registrar: m}
		atomic := rapid.Bool().Draw(t, "atomic")
		if !atomic {
			guarded.Registrar = oneByOne{m}
		}
		once := make(map[string]bool)
		for range rapid.IntRange(1, 15).Draw(t, "rounds") {
			var want []dnsreg.RRset
			for _, label := range []string{"a", "b"} {
				switch kind := rapid.SampledFrom([]string{"", "A", "AAAA", "CNAME", "TXT"}).Draw(t, label); kind {
				case "":
				case "A":
					want = append(want, *guardSet(label, kind, fmt.Sprintf("192.0.2.%d", rapid.IntRange(1, 3).Draw(t, "value"))))
				default:
					want = append(want, *guardSet(label, kind, map[string]string{"AAAA": "2001:db8::1", "CNAME": "x.example.org.", "TXT": "x"}[kind]))
				}
			}
			owner := rapid.SampledFrom([]string{"one", "two"}).Draw(t, "owner")
			before := m.Serial("example.com.")
			_, err := dnsreg.Sync(t.Context(), guarded, "example.com.", owner, want)
			if held, ok := errors.AsType[*dnsreg.GuardError](err); ok {
				heldBack++
				require.True(t, before == m.Serial("example.com.") || !atomic, "held back, and changed")
				require.NotEmpty(t, held.Reasons)
			} else {
				made++
			}
			now := make(map[string]bool)
			list, err := m.Records(t.Context(), "example.com.")
			require.NoError(t, err)
			for _, r := range list {
				if r.Type == "A" || r.Type == "AAAA" || r.Type == "CNAME" {
					now[r.Name] = true
				}
			}
			for name := range once {
				require.True(t, now[name], "%s was emptied", name)
			}
			once = now
		}
	})
	require.NotZero(t, heldBack)
	require.NotZero(t, made)
}

// The budgets are for all that a Sync does, also where a registrar makes one change after the other; and so is the hash.
func TestAGuardJudgesAllOfAPlan(t *testing.T) {
	want := func(value string) (sets []dnsreg.RRset) {
		for _, label := range []string{"a", "b", "c"} {
			sets = append(sets, *guardSet(label, "A", value))
		}
		return sets
	}
	for name, registrar := range map[string]func(*dnsreg.Memory) dnsreg.Registrar{
		"atomic":     func(m *dnsreg.Memory) dnsreg.Registrar { return m },
		"in batches": func(m *dnsreg.Memory) dnsreg.Registrar { m.MaxChanges = 2; return m },
		"one by one": func(m *dnsreg.Memory) dnsreg.Registrar { return oneByOne{m} },
	} {
		t.Run(name, func(t *testing.T) {
			m := memory()
			r := registrar(m)
			_, err := dnsreg.Sync(t.Context(), r, zone, "shop", want("192.0.2.1"))
			require.NoError(t, err)
			serial := m.Serial(zone)
			have, err := m.Records(t.Context(), zone)
			require.NoError(t, err)
			plan, err := dnsreg.Diff(zone, "shop", have, want("192.0.2.2"))
			require.NoError(t, err)

			guarded := dnsreg.Guarded{Registrar: r, Guard: dnsreg.Guard{MaxReplaced: 2}}
			made, err := dnsreg.Sync(t.Context(), guarded, zone, "shop", want("192.0.2.2"))
			held, ok := errors.AsType[*dnsreg.GuardError](err)
			require.True(t, ok, "%v", err)
			require.Equal(t, []string{"3 names would get wholly other addresses, want at most 2"}, held.Reasons)
			require.Equal(t, dnsreg.Hash(zone, plan), held.Hash)
			require.Empty(t, made)
			require.Equal(t, serial, m.Serial(zone), "held back, and changed")

			guarded.Guard.Approved = dnsreg.Hash(zone, plan)
			made, err = dnsreg.Sync(t.Context(), guarded, zone, "shop", want("192.0.2.2"))
			require.NoError(t, err)
			require.NotEmpty(t, made)

			// Another plan is not approved, and where each step is seen no step empties a name.
			alias := []dnsreg.RRset{*guardSet("a", "CNAME", "x.example.org."), *guardSet("b", "A", "192.0.2.3"), *guardSet("c", "A", "192.0.2.2")}
			guarded.Guard.MaxReplaced = -1
			_, err = dnsreg.Sync(t.Context(), guarded, zone, "shop", alias)
			_, ok = errors.AsType[*dnsreg.GuardError](err)
			require.True(t, ok, "%v", err)
			guarded.Guard.MaxReplaced = 0
			_, err = dnsreg.Sync(t.Context(), guarded, zone, "shop", alias)
			if name == "atomic" {
				require.NoError(t, err)
				return
			}
			held, ok = errors.AsType[*dnsreg.GuardError](err)
			require.True(t, ok, "%v", err)
			require.Equal(t, []string{"a.example.com. would be left without an address"}, held.Reasons)
			have, err = m.Records(t.Context(), zone)
			require.NoError(t, err)
			require.Contains(t, have, alias[1], "what is held back holds back no other name")
			_, err = dnsreg.Sync(t.Context(), guarded, zone, "shop", alias) // its marks are there by now
			held, ok = errors.AsType[*dnsreg.GuardError](err)
			require.True(t, ok, "%v", err)
			guarded.Guard.Approved = held.Hash
			_, err = dnsreg.Sync(t.Context(), guarded, zone, "shop", alias)
			require.NoError(t, err)
		})
	}
}

// Two who each take an address away because there is the other's do not empty the name between them.
func TestTwoBehindGuardsDoNotEmptyANameTogether(t *testing.T) {
	m := memory()
	a, aaaa := guardSet("www", "A", "192.0.2.1"), guardSet("www", "AAAA", "2001:db8::1")
	require.NoError(t, m.Apply(t.Context(), zone, []dnsreg.Change{guardChange(nil, a), guardChange(nil, aaaa)}))
	guarded := dnsreg.Guarded{Registrar: m}
	var other error
	m.Fault = func(ctx context.Context, c dnsreg.Call) error {
		if c.Op == "Apply" && !c.Done {
			m.Fault = nil
			other = guarded.Apply(ctx, zone, []dnsreg.Change{guardChange(aaaa, nil)})
		}
		return nil
	}
	require.ErrorIs(t, guarded.Apply(t.Context(), zone, []dnsreg.Change{guardChange(a, nil)}), dnsreg.ErrConflict)
	require.NoError(t, other)
	list, err := m.Records(t.Context(), zone)
	require.NoError(t, err)
	require.Contains(t, list, *a)
	require.NotContains(t, list, *aaaa)
}
