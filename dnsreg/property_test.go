package dnsreg_test

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/scalr-go/scalr/dnsreg"
)

// value is one value in a zone.
type value struct{ name, typ, text string }

var markText = regexp.MustCompile(`^v=scalr[12] owner=(\w+) type=(\w+) ttl=(\d+) (value|addresses)=(.*)$`)

// markedBy gives what a mark's text means.
func markedBy(t require.TestingT, kind, text string) []string {
	if kind == "value" {
		return []string{text}
	}
	data, err := base64.RawURLEncoding.DecodeString(text)
	require.NoError(t, err)
	var values []string
	for some := range slices.Chunk(data, 4) {
		values = append(values, netip.AddrFrom4([4]byte(some)).String())
	}
	return values
}

// world is a zone that several owners and a person change, and what the person has put there.
type world struct {
	*rapid.T
	m      *dnsreg.Memory
	person map[value]bool
	want   map[string][]dnsreg.RRset // by owner
}

var owners = []string{"one", "two", "three"}

func newWorld(t *rapid.T) *world {
	return &world{T: t, m: &dnsreg.Memory{Zones: []string{zone}}, person: make(map[value]bool), want: make(map[string][]dnsreg.RRset)}
}

func (w *world) records() []dnsreg.RRset {
	list, err := w.m.Records(w.Context(), zone)
	require.NoError(w, err)
	return list
}

// values gives what the zone holds apart from marks, SOA and NS, and who has marked what.
func (w *world) values() (values map[value]time.Duration, marks map[value]map[string]bool) {
	values, marks = make(map[value]time.Duration), make(map[value]map[string]bool)
	for _, r := range w.records() {
		if r.Type == "SOA" || r.Type == "NS" {
			continue
		}
		name, marked := strings.CutPrefix(r.Name, "_scalr.")
		if rest, ok := strings.CutPrefix(r.Name, "_scalr-any."); ok {
			name, marked = "*."+rest, true
		}
		for _, text := range r.Values {
			if !marked {
				values[value{name, r.Type, text}] = r.TTL
			} else if m := markText.FindStringSubmatch(text); m != nil {
				for _, text := range markedBy(w, m[4], m[5]) {
					v := value{name, m[2], text}
					if marks[v] == nil {
						marks[v] = make(map[string]bool)
					}
					marks[v][m[1]] = true
				}
			}
		}
	}
	return values, marks
}

func (w *world) drawName() string {
	return rapid.SampledFrom([]string{"www." + zone, "a.b." + zone, "*." + zone, zone}).Draw(w.T, "name")
}

func (w *world) drawSet(name string) dnsreg.RRset {
	typ := rapid.SampledFrom([]string{"A", "TXT", "CNAME", "crowd"}).Draw(w.T, "type")
	pool := map[string][]string{
		"A":     {"192.0.2.1", "192.0.2.2", "192.0.2.3"},
		"TXT":   {"x", "y", "v=scalr1 owner=one type=A ttl=1 value=192.0.2.1"},
		"CNAME": {"p.example.net.", "q.example.net."},
	}[typ]
	if typ == "crowd" { // about as many as are marked together
		n := rapid.IntRange(97, 103).Draw(w.T, "crowd")
		return set(name, "A", time.Duration(rapid.IntRange(1, 3).Draw(w.T, "ttl"))*time.Second, append(crowd("A", n), "192.0.2.1")...)
	}
	values := rapid.SliceOfNDistinct(rapid.SampledFrom(pool), 1, len(pool), rapid.ID).Draw(w.T, "values")
	if typ == "CNAME" {
		values = values[:1]
	}
	return set(name, typ, time.Duration(rapid.IntRange(1, 3).Draw(w.T, "ttl"))*time.Second, values...)
}

// setWant draws what an owner wants from now on.
func (w *world) setWant(owner string) {
	w.want[owner] = nil
	for range rapid.IntRange(0, 5).Draw(w.T, "wants") {
		w.want[owner] = append(w.want[owner], w.drawSet(w.drawName()))
	}
}

// edit lets the person add or remove a value.
func (w *world) edit() {
	s := w.drawSet(w.drawName())
	v := value{s.Name, s.Type, s.Values[0]}
	var old *dnsreg.RRset
	for _, r := range w.records() {
		if r.Name == s.Name && r.Type == s.Type {
			old = &r
		}
	}
	_, marks := w.values()
	c := dnsreg.Change{Name: s.Name, Type: s.Type, Old: old}
	switch {
	case len(marks[v]) > 0 && !w.person[v]:
		return // it is an owner's already, or counts as such since a program ended between mark and value
	case old == nil:
		c.New = &dnsreg.RRset{Name: s.Name, Type: s.Type, TTL: s.TTL, Values: []string{v.text}}
	case !slices.Contains(old.Values, v.text) && s.Type != "CNAME":
		c.New = &dnsreg.RRset{Name: s.Name, Type: s.Type, TTL: s.TTL, Values: append(slices.Clip(old.Values), v.text)}
	case w.person[v]:
		if left := slices.DeleteFunc(slices.Clone(old.Values), func(o string) bool { return o == v.text }); len(left) > 0 {
			c.New = &dnsreg.RRset{Name: s.Name, Type: s.Type, TTL: old.TTL, Values: left}
		}
	default:
		return
	}
	err := w.m.Apply(w.Context(), zone, []dnsreg.Change{c})
	if errors.Is(err, dnsreg.ErrInvalid) {
		return // a CNAME beside data
	}
	require.NoError(w, err)
	if w.person[v] {
		delete(w.person, v)
	} else {
		w.person[v] = true
	}
}

// apply lets an owner apply changes that it has computed some time ago, and checks what no owner may do.
func (w *world) apply(owner string, changes []dnsreg.Change) (applied bool) {
	before, marks := w.values()
	err := w.m.Apply(w.Context(), zone, changes)
	if err != nil {
		require.True(w, errors.Is(err, dnsreg.ErrConflict) || errors.Is(err, dnsreg.ErrInvalid), "%v", err)
	}
	after, marksAfter := w.values()
	for v := range before {
		_, still := after[v]
		others := maps.Clone(marks[v])
		delete(others, owner)
		require.True(w, still || len(others) == 0 && marks[v][owner], "%s removed %v, which %v have marked", owner, v, marks[v])
	}
	for v := range w.person {
		require.Contains(w, after, v, "a person's value is gone")
	}
	for _, o := range owners {
		for v := range marks {
			if o != owner && marks[v][o] {
				require.True(w, marksAfter[v][o], "%s took the mark of %s on %v away", owner, o, v)
			}
		}
		for v := range marksAfter {
			if o != owner && marksAfter[v][o] {
				require.True(w, marks[v][o], "%s put a mark of %s on %v", owner, o, v)
			}
		}
	}
	return err == nil
}

func (w *world) diff(owner string) ([]dnsreg.Change, map[string]bool) {
	changes, err := dnsreg.Diff(zone, owner, w.records(), w.want[owner])
	refusedNames := make(map[string]bool)
	if refused, ok := errors.AsType[*dnsreg.RefusedError](err); ok {
		for _, r := range refused.Refused {
			refusedNames[r.Name] = true
		}
	} else {
		require.NoError(w, err)
	}
	return changes, refusedNames
}

// settle lets all owners in turn apply what they want, until none has anything to do.
func (w *world) settle() {
	for range len(owners) + 2 {
		quiet := true
		for _, owner := range owners {
			changes, _ := w.diff(owner)
			if len(changes) == 0 {
				continue
			}
			quiet = false
			require.True(w, w.apply(owner, changes))
			left, _ := w.diff(owner)
			require.Empty(w, left, "the diff of %s after it was applied", owner)
		}
		if quiet {
			return
		}
	}
	w.Fatalf("the owners do not come to rest")
}

func TestOwnersConvergeAndNeverHarmOthers(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := newWorld(t)
		pending := make(map[string][]dnsreg.Change)
		for range rapid.IntRange(1, 25).Draw(t, "steps") {
			owner := rapid.SampledFrom(owners).Draw(t, "owner")
			switch rapid.IntRange(0, 4).Draw(t, "step") {
			case 0:
				w.setWant(owner)
			case 1:
				pending[owner], _ = w.diff(owner)
			case 2, 3:
				if changes := pending[owner]; len(changes) > 0 {
					w.apply(owner, changes)
					pending[owner] = nil
				}
			case 4:
				w.edit()
			}
		}
		w.settle()

		values, marks := w.values()
		expect := maps.Clone(w.person)
		for _, owner := range owners {
			_, refused := w.diff(owner)
			owned := dnsreg.Owned(zone, owner, w.records())
			count := 0
			for _, r := range owned {
				for _, text := range r.Values {
					require.True(t, marks[value{r.Name, r.Type, text}][owner], "%s owns %v without a mark", owner, r)
					count++
				}
			}
			for v := range marks {
				if marks[v][owner] {
					count--
				}
			}
			require.Zero(t, count, "%s has marked more than it owns: %v", owner, owned)
			same, err := dnsreg.Diff(zone, owner, w.records(), owned)
			require.NoError(t, err)
			for _, c := range same {
				// A refused name has not been put right: a person may have raised the TTL there, and nothing else.
				require.True(t, refused[c.Name] && c.Old != nil && c.New != nil && slices.Equal(c.Old.Values, c.New.Values) && c.Old.TTL > c.New.TTL,
					"what %s owns differs from what it has: %v", owner, c)
			}
			for v := range marks {
				require.True(t, !marks[v][owner] || !w.person[v], "%s has marked the person's %v", owner, v)
				if refused[v.name] && marks[v][owner] {
					expect[v] = true // a refused name keeps what is there
				}
			}
			for _, r := range w.want[owner] {
				for _, text := range r.Values {
					v := value{r.Name, r.Type, text}
					if refused[r.Name] {
						continue
					}
					expect[v] = true
					require.Contains(t, values, v, "%s does not have what it wants", owner)
					require.True(t, marks[v][owner] || w.person[v], "%s has not marked %v", owner, v)
					if marks[v][owner] {
						require.LessOrEqual(t, values[v], r.TTL, "%v is kept for longer than %s wants", v, owner)
					}
				}
			}
		}
		require.ElementsMatch(t, slices.Collect(maps.Keys(expect)), slices.Collect(maps.Keys(values)), "what nobody wants is left")

		clear(w.want)
		w.settle()
		values, _ = w.values()
		require.ElementsMatch(t, slices.Collect(maps.Keys(w.person)), slices.Collect(maps.Keys(values)))
		for _, r := range w.records() {
			require.False(t, strings.HasPrefix(r.Name, "_scalr"), "a mark is left: %v", r)
		}
	})
}

var errDown = errors.New("down")

// A host program may end at any call, and a reply may be lost: whatever is left then is found again by its mark.
func TestSyncSurvivesFaultsAtAnyCall(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := newWorld(t)
		w.m.MaxChanges = rapid.IntRange(0, 4).Draw(t, "max changes")
		var r dnsreg.Registrar = w.m
		switch rapid.SampledFrom([]string{"", "one by one", "narrow"}).Draw(t, "registrar") {
		case "one by one":
			r = oneByOne{w.m}
		case "narrow":
			r = narrow{w.m}
		}
		for range rapid.IntRange(1, 8).Draw(t, "rounds") {
			owner := rapid.SampledFrom(owners).Draw(t, "owner")
			w.setWant(owner)
			calls, stop := 0, rapid.IntRange(0, 12).Draw(t, "stop at call")
			late := rapid.Bool().Draw(t, "reply lost")
			before, marks := w.values()
			w.m.Fault = func(_ context.Context, c dnsreg.Call) error {
				if c.Done == late {
					calls++
				}
				if calls > stop || calls == stop && c.Done == late {
					return errDown
				}
				return nil
			}
			_, err := dnsreg.Sync(t.Context(), r, zone, owner, w.want[owner])
			w.m.Fault = nil
			if err != nil {
				_, refused := errors.AsType[*dnsreg.RefusedError](err)
				require.True(t, refused || errors.Is(err, errDown), "%v", err)
			}
			after, marksAfter := w.values()
			for v := range before {
				_, still := after[v]
				require.True(t, still || len(marks[v]) == 1 && marks[v][owner], "%v is gone", v)
			}
			for v := range after {
				require.True(t, w.person[v] || len(marksAfter[v]) > 0, "%v has no mark: nobody will ever remove it", v)
			}
			w.edit()
		}
		for _, owner := range owners {
			_, err := dnsreg.Sync(t.Context(), r, zone, owner, nil)
			require.NoError(t, err)
		}
		values, marks := w.values()
		require.ElementsMatch(t, slices.Collect(maps.Keys(w.person)), slices.Collect(maps.Keys(values)))
		require.Empty(t, marks)
	})
}

// oneByOne is a registrar that is not atomic, as most DNS hosts are.
type oneByOne struct{ *dnsreg.Memory }

func (o oneByOne) Capabilities() dnsreg.Capabilities { return dnsreg.Capabilities{Preconditions: true} }

func (o oneByOne) Apply(ctx context.Context, zone string, changes []dnsreg.Change) error {
	for i := range changes {
		if err := o.Memory.Apply(ctx, zone, changes[i:i+1]); err != nil {
			return &dnsreg.PartialError{Done: changes[:i], Unknown: changes[i : i+1], Failed: changes[i+1:], Err: fmt.Errorf("one by one: %w", err)}
		}
	}
	return nil
}

// narrow is a registrar that takes no more of one change set than a message holds: a crowd, but not with its marks.
type narrow struct{ *dnsreg.Memory }

func (n narrow) Apply(ctx context.Context, zone string, changes []dnsreg.Change) error {
	for _, c := range changes {
		for _, r := range []*dnsreg.RRset{c.Old, c.New} {
			if r != nil && len(r.Values) > 100 && len(changes) > 1 {
				return fmt.Errorf("%w: too much at once", dnsreg.ErrInvalid)
			}
		}
	}
	return n.Memory.Apply(ctx, zone, changes)
}
