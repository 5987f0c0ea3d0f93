package dnsreg

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
)

// Guard bounds what a change set may do, by its consequence for those who ask: not by how much of a zone changes, since a
// move to another cloud rightly changes all of it. The zero Guard has one rule:
//
// A live name is never emptied. A name is live if it has A, AAAA or CNAME records; it is emptied if it has none of them
// afterwards. Other addresses in their place are fine, and so is a name without addresses that goes.
type Guard struct {
	// Retired are live names that may be emptied.
	Retired []string
	// MaxReplaced is how many live names one change set may give wholly other addresses. 0 means any number, less than 0
	// none.
	MaxReplaced int
	// MaxDeleted is how many RRsets one change set may remove; one that other addresses of its name take the place of does
	// not count. 0 means any number, less than 0 none.
	MaxDeleted int
	// Approved is the hash of a plan (see [Hash]) that somebody has read and wants all the same.
	Approved string
}

// GuardError says why a [Guard] does not let a change set through. Nothing was changed.
type GuardError struct {
	Hash    string   // what Guard.Approved must be to let it through
	Reasons []string // sorted
}

// Error gives the reasons, separated by "; ", and the hash.
func (e *GuardError) Error() string {
	return fmt.Sprintf("held back: %s (plan %s)", strings.Join(e.Reasons, "; "), e.Hash)
}

// Check reports what a change set must not do to a zone, as a *GuardError. It is pure; have is what the registrar lists,
// and the changes are canonical. Marks of ownership do not count.
func (g Guard) Check(zone string, have []RRset, changes []Change) error {
	hash := Hash(zone, changes)
	if g.Approved == hash {
		return nil
	}
	names := make(map[string]*addresses)
	for _, c := range changes {
		if names[c.Name] == nil {
			names[c.Name] = &addresses{was: make(map[string][]string), is: make(map[string][]string)}
		}
	}
	for _, r := range have {
		if a := names[r.Name]; a != nil && live(r.Type) {
			a.was[r.Type], a.is[r.Type] = r.Values, r.Values
		}
	}
	for _, c := range changes {
		if a := names[c.Name]; live(c.Type) {
			delete(a.is, c.Type)
			if c.New != nil {
				a.is[c.Type] = c.New.Values
			}
		}
	}
	var reasons []string
	replaced, deleted := 0, 0
	for _, name := range slices.Sorted(maps.Keys(names)) {
		a := names[name]
		switch {
		case len(a.was) == 0:
		case len(a.is) == 0 && !slices.ContainsFunc(g.Retired, sameName(name)):
			reasons = append(reasons, name+" would be left without an address")
		case len(a.is) > 0 && !a.share():
			replaced++
		}
	}
	for _, c := range changes {
		if _, isMark := markedName(c.Name); c.New == nil && !isMark && !(live(c.Type) && len(names[c.Name].is) > 0) {
			deleted++
		}
	}
	for _, b := range []struct {
		count, limit int
		what         string
	}{{replaced, g.MaxReplaced, "names would get wholly other addresses"}, {deleted, g.MaxDeleted, "RRsets would be deleted"}} {
		if b.limit != 0 && b.count > max(b.limit, 0) {
			reasons = append(reasons, fmt.Sprintf("%d %s, want at most %d", b.count, b.what, max(b.limit, 0)))
		}
	}
	if len(reasons) == 0 {
		return nil
	}
	slices.Sort(reasons)
	return &GuardError{Hash: hash, Reasons: reasons}
}

// live reports whether a type leads a client to a machine.
func live(typ string) bool { return typ == "A" || typ == "AAAA" || typ == "CNAME" }

// addresses are what a live name leads to, by type, before and after.
type addresses struct{ was, is map[string][]string }

// share reports whether something stays.
func (a *addresses) share() bool {
	for typ, values := range a.was {
		for _, v := range values {
			if slices.Contains(a.is[typ], v) {
				return true
			}
		}
	}
	return false
}

func sameName(name string) func(string) bool {
	return func(other string) bool {
		other, err := CanonicalName(other)
		return err == nil && other == name
	}
}

// Hash names a plan: the same canonical changes of the same zone, in any order, have the same hash, and any others another
// one.
func Hash(zone string, changes []Change) string {
	lines := make([]string, len(changes))
	for i, c := range changes {
		lines[i] = fmt.Sprintf("%q %q", c.Name, c.Type)
		for _, r := range []*RRset{c.Old, c.New} {
			if r == nil {
				lines[i] += " none"
			} else {
				lines[i] += fmt.Sprintf(" %d %q", r.TTL, r.Values)
			}
		}
	}
	slices.Sort(lines)
	if z, err := CanonicalName(zone); err == nil {
		zone = z
	}
	sum := sha256.Sum256(fmt.Appendf(nil, "%q\n%s", zone, strings.Join(lines, "\n")))
	return hex.EncodeToString(sum[:16])
}

// Text gives a plan to read before it is made: a line with the numbers and the hash, and a diff, as [Change.String] writes
// it, without the marks of ownership.
func Text(zone string, changes []Change) string {
	var b strings.Builder
	create, replace, remove := 0, 0, 0
	for _, c := range changes {
		if _, isMark := markedName(c.Name); isMark {
			continue
		}
		switch {
		case c.Old == nil:
			create++
		case c.New == nil:
			remove++
		default:
			replace++
		}
		if s := c.String(); s != "" {
			b.WriteByte('\n')
			b.WriteString(s)
		}
	}
	return fmt.Sprintf("%s: %d to create, %d to change, %d to delete (plan %s)%s", zone, create, replace, remove,
		Hash(zone, changes), b.String())
}

// Guarded is a registrar whose change sets pass a guard first. It lists the zone before each. A change set is what one Apply
// gets; [Sync] lets the guard judge all that it has to do together.
//
// Who takes an address from a name because the name has one of another type makes sure that this one is still there at that
// instant, where the registrar has preconditions: so two who do that at once do not empty it.
type Guarded struct {
	Registrar
	Guard Guard
}

// Apply makes the changes unless the guard holds them back, with a *GuardError.
func (g Guarded) Apply(ctx context.Context, zone string, changes []Change) error {
	if len(changes) == 0 {
		return nil
	}
	canonical, err := CanonicalChanges(zone, changes)
	if err != nil {
		return err
	}
	have, err := g.Records(ctx, zone)
	if err != nil {
		return err
	}
	if err := g.Guard.Check(zone, have, canonical); err != nil {
		return err
	}
	caps := g.Capabilities()
	relied := reliedOn(have, canonical)
	if !caps.Preconditions || !caps.Atomic || caps.MaxChanges > 0 && len(changes)+len(relied) > caps.MaxChanges {
		relied = nil
	}
	err = g.Registrar.Apply(ctx, zone, slices.Concat(changes, relied))
	if partial, ok := errors.AsType[*PartialError](err); ok {
		for _, list := range []*[]Change{&partial.Done, &partial.Unknown, &partial.Failed} {
			*list = slices.DeleteFunc(slices.Clone(*list), func(c Change) bool {
				return slices.ContainsFunc(relied, func(r Change) bool { return r.Name == c.Name && r.Type == c.Type })
			})
		}
	}
	return err
}

// reliedOn gives changes that change nothing: of what the names that lose an address keep, and the change set does not name.
func reliedOn(have []RRset, changes []Change) (relied []Change) {
	loses, named := make(map[string]bool), make(map[[2]string]bool)
	for _, c := range changes {
		named[[2]string{c.Name, c.Type}] = true
		loses[c.Name] = loses[c.Name] || live(c.Type) && c.New == nil
	}
	for _, r := range have {
		if loses[r.Name] && live(r.Type) && !named[[2]string{r.Name, r.Type}] {
			relied = append(relied, Change{Name: r.Name, Type: r.Type, Old: &r, New: &r})
		}
	}
	return relied
}
