package dnsreg

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
)

// Refusal is an RRset that an owner wants and cannot have.
type Refusal struct {
	Name string
	Type string
	Err  error // why: an ErrInvalid, or who is in the way
}

// RefusedError lists what [Diff] and [Sync] refused. The names in it are left as they are; all other names are done.
type RefusedError struct {
	Refused []Refusal // sorted by name and type
}

// Error gives all refusals, separated by "; ".
func (e *RefusedError) Error() string {
	s := make([]string, len(e.Refused))
	for i, r := range e.Refused {
		s[i] = r.Err.Error()
	}
	return strings.Join(s, "; ")
}

// Unwrap gives the refusals' errors, so that errors.Is finds ErrInvalid.
func (e *RefusedError) Unwrap() []error {
	errs := make([]error, len(e.Refused))
	for i, r := range e.Refused {
		errs[i] = r.Err
	}
	return errs
}

// Diff gives the changes after which the zone holds what the owner wants in it and nothing else of the owner's; the values
// of others stay as they are (see the package doc). It is pure. have is what the registrar lists, want is everything that
// the owner wants in this zone, each name and type at most once; want may be empty, and then the owner leaves. An owner is
// 1 to 63 letters, digits, '-', '_', '.' or '/'.
//
// Once the changes are applied, the same Diff is empty. They are sorted by name, the change of a name's marks after those
// of its values. Both must be applied together: use [Sync] where a registrar is not atomic or bounds its change sets.
//
// One bad name does not block the others: where an RRset in want is invalid, or needs a CNAME where others have data or
// data where others have a CNAME, its name is left as it is, the changes for all other names are returned, and the error is
// a *RefusedError that lists each. With any other error there are no changes.
func Diff(zone, owner string, have, want []RRset) ([]Change, error) {
	groups, err := diff(zone, owner, have, want, 0)
	var changes []Change
	for _, g := range groups {
		changes = append(changes, g.changes()...)
	}
	return changes, err
}

// group is the changes at one name: they go together.
type group struct {
	values []Change
	marks  *Change
}

func (g group) changes() []Change {
	if g.marks == nil {
		return g.values
	}
	return append(slices.Clip(g.values), *g.marks)
}

func diff(zone, owner string, have, want []RRset, minTTL time.Duration) ([]group, error) {
	zone, err := canonicalZone(zone)
	if err != nil {
		return nil, err
	}
	if err := checkOwner(owner); err != nil {
		return nil, err
	}
	refused := new(RefusedError)
	names := wanted(zone, want, minTTL, refused)
	gather(zone, owner, have, names)

	var groups []group
	for _, name := range slices.Sorted(maps.Keys(names)) {
		st := names[name]
		if st.refused || st.settled(owner) {
			continue
		}
		if err := st.conflict(owner); err != nil {
			for _, typ := range slices.Sorted(maps.Keys(st.want)) {
				refused.add(name, typ, fmt.Errorf("%s %s: %w", name, typ, err))
			}
			continue
		}
		if g := st.plan(owner); len(g.values) > 0 || g.marks != nil {
			groups = append(groups, g)
		}
	}
	if len(refused.Refused) > 0 {
		slices.SortStableFunc(refused.Refused, func(a, b Refusal) int {
			return strings.Compare(a.Name+" "+a.Type, b.Name+" "+b.Type)
		})
		return groups, refused
	}
	return groups, nil
}

func (e *RefusedError) add(name, typ string, err error) {
	e.Refused = append(e.Refused, Refusal{Name: name, Type: typ, Err: err})
}

// state is what is known of one name.
type state struct {
	name    string
	want    map[string]RRset // by type
	have    map[string]RRset // by type
	marks   *RRset           // the TXT RRset at the marks' name; nil if there is none
	refused bool
}

// settled reports whether the name holds what the owner wants and marks, and nothing else: then there is nothing to do. It is
// what most names are most of the time.
func (st *state) settled(owner string) bool {
	if st.marks == nil || len(st.have) != len(st.want) {
		return false
	}
	var marks []string
	for typ, want := range st.want {
		if !want.Equal(st.have[typ]) {
			return false
		}
		marks = append(marks, markTexts(owner, typ, want.TTL, want.Values)...)
	}
	slices.Sort(marks)
	return slices.Equal(marks, st.marks.Values)
}

// wanted sorts what an owner wants by name, and refuses what is wrong with it.
func wanted(zone string, want []RRset, minTTL time.Duration, refused *RefusedError) map[string]*state {
	names := make(map[string]*state)
	for _, w := range want {
		name, err := CanonicalName(w.Name)
		if err != nil {
			refused.add(w.Name, w.Type, err)
			continue
		}
		st := names[name]
		if st == nil {
			st = &state{name: name, want: make(map[string]RRset), have: make(map[string]RRset)}
			names[name] = st
		}
		r, err := Canonical(w)
		fault := func(format string, args ...any) {
			err = fmt.Errorf("%s %s: %w: %w", name, w.Type, ErrInvalid, fmt.Errorf(format, args...))
		}
		if err == nil {
			if ownable := checkOwnable(name, zone); ownable != nil {
				fault("%w", ownable)
			} else if _, twice := st.want[r.Type]; twice {
				fault("wanted twice")
			} else if r.Type == "SOA" {
				fault("the SOA is the registrar's own")
			} else if r.Type == "CNAME" && name == zone {
				fault("a CNAME cannot be at the zone's own name")
			} else if r.TTL < minTTL {
				fault("TTL %v is shorter than the registrar's minimum, %v", r.TTL, minTTL)
			}
		}
		if err != nil {
			refused.add(name, w.Type, err)
			st.refused = true
			continue
		}
		st.want[r.Type] = r
	}
	for name, st := range names {
		if _, ok := st.want["CNAME"]; ok && len(st.want) > 1 && !st.refused {
			refused.add(name, "CNAME", fmt.Errorf("%s CNAME: %w: a CNAME stands alone, other types are wanted at this name too",
				name, ErrInvalid))
			st.refused = true
		}
	}
	return names
}

// gather adds to names those that bear a mark of the owner, and what the zone holds at all of them.
func gather(zone, owner string, have []RRset, names map[string]*state) {
	for _, r := range have {
		name, ok := markedName(strings.ToLower(r.Name))
		if !ok || r.Type != "TXT" || names[name] != nil || !inZone(name, zone) {
			continue
		}
		for _, v := range r.Values {
			if isMarkOf(owner, v) {
				names[name] = &state{name: name, want: make(map[string]RRset), have: make(map[string]RRset)}
				break
			}
		}
	}
	for _, r := range have {
		name := strings.ToLower(r.Name)
		marked, isMark := markedName(name)
		st := names[name]
		if isMark {
			st = names[marked]
		}
		if st == nil {
			continue
		}
		// What is listed and not canonical is a registrar's quirk or a type that is not known here: it is somebody's, and
		// is compared and kept as it is.
		if c, err := Canonical(r); err == nil {
			r = c
		}
		switch {
		case !isMark:
			st.have[r.Type] = r
		case r.Type == "TXT":
			st.marks = &r
		}
	}
}

// owners gives, for each value of a type, who has marked it, and with which TTL.
func (st *state) owners(typ string) map[string][]mark {
	marks := make(map[string][]mark)
	if st.marks != nil {
		for _, text := range st.marks.Values {
			for _, m := range parseMarks(text) {
				if m.typ == typ {
					marks[m.key] = append(marks[m.key], m)
				}
			}
		}
	}
	return marks
}

// others splits the values of a type into those that stay whatever the owner wants, because they bear another's mark or
// none, and says of each who is meant.
func (st *state) others(owner, typ string) (values []string, whose map[string]string) {
	whose = make(map[string]string)
	marks := st.owners(typ)
	for _, v := range st.have[typ].Values {
		ms := marks[valueKey(v)]
		if len(ms) == 0 {
			values, whose[v] = append(values, v), "no owner's mark is on it"
			continue
		}
		for _, m := range ms {
			if m.owner != owner {
				values, whose[v] = append(values, v), "owner "+m.owner+" has it"
				break
			}
		}
	}
	return values, whose
}

// conflict reports why what the owner wants at this name cannot stand beside what others have there.
func (st *state) conflict(owner string) error {
	if len(st.want) == 0 {
		return nil
	}
	cname, wantsCNAME := st.want["CNAME"]
	for _, typ := range slices.Sorted(maps.Keys(st.have)) {
		values, whose := st.others(owner, typ)
		for _, v := range values {
			same := typ == "CNAME" && wantsCNAME && cname.Values[0] == v
			if (typ == "CNAME" || wantsCNAME) && !same {
				return fmt.Errorf("a CNAME stands alone (RFC 1034, section 3.6.2), and there is %s %q (%s)",
					typ, short(v), whose[v])
			}
		}
	}
	return nil
}

// plan gives the changes at this name.
func (st *state) plan(owner string) group {
	var g group
	var marks []string // what the marks' RRset shall hold
	ttl := time.Duration(0)
	if st.marks != nil {
		ttl = st.marks.TTL
		for _, text := range st.marks.Values {
			if !isMarkOf(owner, text) {
				marks = append(marks, text)
			}
		}
	}
	types := maps.Clone(st.have)
	maps.Copy(types, st.want)
	for _, typ := range slices.Sorted(maps.Keys(types)) {
		values, mine, wish, involved := st.merge(owner, typ)
		if !involved {
			continue
		}
		marks = append(marks, markTexts(owner, typ, st.want[typ].TTL, mine)...)
		if st.marks == nil {
			ttl = max(ttl, st.want[typ].TTL)
		}
		var old, new *RRset
		if r, ok := st.have[typ]; ok {
			old = &r
		}
		if len(values) > 0 {
			new = &RRset{Name: st.name, Type: typ, TTL: wish, Values: values}
		}
		if old != nil && new != nil && old.Equal(*new) {
			continue
		}
		g.values = append(g.values, Change{Name: st.name, Type: typ, Old: old, New: new})
	}
	// What goes, goes first: a registrar that makes one change after the other takes no CNAME beside other data.
	slices.SortStableFunc(g.values, func(a, b Change) int {
		switch {
		case a.New == nil && b.New != nil:
			return -1
		case a.New != nil && b.New == nil:
			return 1
		}
		return 0
	})
	g.marks = markChange(markName(st.name), st.marks, marks, ttl)
	return g
}

// markChange gives the change of a marks' RRset to the given values, or nil if they are there.
func markChange(name string, old *RRset, marks []string, ttl time.Duration) *Change {
	slices.Sort(marks)
	marks = slices.Compact(marks)
	c := &Change{Name: name, Type: "TXT", Old: old}
	switch {
	case len(marks) > 0:
		c.New = &RRset{Name: name, Type: "TXT", TTL: ttl, Values: marks}
		if old != nil && old.Equal(*c.New) {
			return nil
		}
	case old == nil:
		return nil
	}
	return c
}

// merge gives the values that a type shall have at this name, which of them the owner marks, and the TTL; and whether any
// of that is the owner's business, because it has or had a mark there.
func (st *state) merge(owner, typ string) (values, mine []string, ttl time.Duration, involved bool) {
	marks := st.owners(typ)
	have, want := st.have[typ], st.want[typ]
	values, _ = st.others(owner, typ)
	there := make(map[string]bool, len(have.Values))
	for _, v := range have.Values {
		there[v] = true
	}
	for _, v := range want.Values {
		if len(marks[valueKey(v)]) > 0 || !there[v] {
			mine = append(mine, v)
		}
		values = append(values, v)
	}
	slices.Sort(values)
	values = slices.Compact(values)

	involved = len(mine) > 0
	for _, v := range have.Values {
		involved = involved || slices.ContainsFunc(marks[valueKey(v)], func(m mark) bool { return m.owner == owner })
	}

	ttl = maxTTL
	for _, v := range values {
		if _, is := slices.BinarySearch(mine, v); is { // as sorted as what is wanted
			ttl = min(ttl, want.TTL)
		} else if len(marks[valueKey(v)]) == 0 {
			ttl = min(ttl, have.TTL)
		}
		for _, m := range marks[valueKey(v)] {
			if m.owner != owner {
				ttl = min(ttl, m.ttl)
			}
		}
	}
	return values, mine, ttl, involved
}
