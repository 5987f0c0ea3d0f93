package main

import (
	"errors"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/scalr-go/scalr/cronlock"
	"github.com/scalr-go/scalr/farm"
)

// twinFlags are what clone may be told besides the name: in what the twin differs from its parent.
type twinFlags struct {
	until, weekdays string
	scale           float64
	sizes           map[string]string // by role
}

// size takes a -size.
func (o *twinFlags) size(text string) error {
	role, size, ok := strings.Cut(text, "=")
	switch {
	case !ok || role == "" || size == "":
		return errors.New("want ROLE=SIZE, such as www=small")
	case o.sizes[role] != "":
		return fmt.Errorf("role %s has the size %q already", role, o.sizes[role])
	}
	if o.sizes == nil {
		o.sizes = map[string]string{}
	}
	o.sizes[role] = size
	return nil
}

// options gives what the flags say, or every fault of them.
func (o *twinFlags) options(spec farm.Spec, now time.Time) (c farm.CloneOptions, err error) {
	var faults []error
	fault := func(format string, args ...any) { faults = append(faults, fmt.Errorf(format, args...)) }
	if o.until != "" {
		if at, err := untilOf(o.until, now); err != nil {
			fault("-until: %w", err)
		} else {
			c.End = &farm.End{At: at, TerminateOptions: farm.TerminateOptions{DeleteVolumes: true, FinalSnapshot: true}}
		}
	}
	if o.weekdays != "" {
		if c.Hours, err = weekdaysOf(o.weekdays); err != nil {
			fault("-weekdays: %w", err)
		}
	}
	if !(o.scale > 0 && o.scale <= 1000) {
		fault("-scale: %v, want a factor of more than 0 and at most 1000", o.scale)
	}
	c.Scale, c.Roles = o.scale, map[string]farm.CloneRole{}
	for _, role := range slices.Sorted(maps.Keys(o.sizes)) {
		i := slices.IndexFunc(spec.Roles, func(r farm.Role) bool { return r.Name == role })
		if i < 0 {
			fault("-size %s=%s: farm %s has no role of that name", role, o.sizes[role], spec.Name)
			continue
		}
		c.Roles[role] = farm.CloneRole{Size: o.sizes[role], Fallback: spec.Roles[i].Fallback}
	}
	return c, errors.Join(faults...)
}

// untilOf reads an instant that is still to come: written out, or the next such time of a week.
func untilOf(text string, now time.Time) (time.Time, error) {
	at, err := time.Parse(time.RFC3339, text)
	if err != nil {
		var hour, minute int
		f := strings.Fields(text)
		if len(f) < 2 || len(f) > 3 || !timeOfDay(f[1], &hour, &minute) {
			return at, fmt.Errorf("%q, want a time such as 2026-12-01T08:00:00Z, \"tue 08:00\" or \"tue 08:00 Europe/Paris\"", text)
		}
		s, err := cronlock.Parse(fmt.Sprintf("TZ=%s %d %d * * %s", zone(f[2:]), minute, hour, f[0]))
		if err != nil {
			return at, fmt.Errorf("%q: %w", text, err)
		}
		at = s.Next(now)
	}
	if !at.After(now) {
		return at, fmt.Errorf("%q is over, want a time to come", text)
	}
	return time.Parse(time.RFC3339, at.UTC().Format(time.RFC3339)) // as the spec file will have it
}

// weekdaysOf reads the hours of the days from Monday to Friday.
func weekdaysOf(text string) (*farm.Hours, error) {
	var hour, minute [2]int
	f := strings.Fields(text)
	var from, to string
	if len(f) == 1 || len(f) == 2 {
		from, to, _ = strings.Cut(f[0], "-")
	}
	if !timeOfDay(from, &hour[0], &minute[0]) || !timeOfDay(to, &hour[1], &minute[1]) || hour[0]*60+minute[0] >= hour[1]*60+minute[1] {
		return nil, fmt.Errorf("%q, want hours of a day such as 9-17, 8:30-18 or \"9-17 Europe/Paris\"", text)
	}
	at := func(i int) string {
		return fmt.Sprintf("TZ=%s %d %d * * mon-fri", zone(f[1:]), minute[i], hour[i])
	}
	h := &farm.Hours{Open: at(0), Close: at(1)}
	if _, err := cronlock.Parse(h.Open); err != nil {
		return nil, fmt.Errorf("%q: %w", text, err)
	}
	return h, nil
}

// zone is the time zone that stands behind a time, if there is one.
func zone(rest []string) string { return append(rest, "UTC")[0] }

var clock = regexp.MustCompile(`^([0-9]{1,2})(?::([0-9]{2}))?$`)

func timeOfDay(text string, hour, minute *int) bool {
	m := clock.FindStringSubmatch(text)
	if m == nil {
		return false
	}
	*hour, _ = strconv.Atoi(m[1])
	*minute, _ = strconv.Atoi(m[2])
	return *hour < 24 && *minute < 60
}

// twin gives the document of a twin: the parent's, with what is different written into it.
func (d *document) twin(file string, want farm.Spec) (*document, error) {
	var changes []change
	change := func(path, now, then string) {
		if now != then {
			changes = append(changes, replaceAt(path, then))
		}
	}
	change("name", quoted(d.spec.Name), quoted(want.Name))
	for i := range want.Roles {
		was, is, at := &d.spec.Roles[i], &want.Roles[i], fmt.Sprintf("roles[%d].", i)
		change(at+"min", strconv.Itoa(was.Min), strconv.Itoa(is.Min))
		change(at+"max", strconv.Itoa(was.Max), strconv.Itoa(is.Max))
		if was.Warm != nil && is.Warm != nil {
			change(at+"warm.count", strconv.Itoa(was.Warm.Count), strconv.Itoa(is.Warm.Count))
		}
		if d.at[at+"size"] != nil {
			change(at+"size", quoted(was.Size), quoted(is.Size))
		} else if is.Size != "" {
			changes = append(changes, addBehind(at+"image", "size", quoted(is.Size)))
		}
	}
	for _, field := range []string{"parent", "end", "hours"} {
		if d.at[field] != nil {
			changes = append(changes, remove(field))
		}
	}
	if want.Parent != "" {
		changes = append(changes, add("parent: "+quoted(want.Parent)))
	}
	if e := want.End; e != nil {
		changes = append(changes, add(fmt.Sprintf("end: {at: %s, delete_volumes: %t, final_snapshot: %t}", e.At.Format(time.RFC3339), e.DeleteVolumes, e.FinalSnapshot)))
	}
	if h := want.Hours; h != nil {
		changes = append(changes, add(fmt.Sprintf("hours: {open: %q, close: %q}", h.Open, h.Close)))
	}
	return d.rewrite(file, want, changes...)
}
