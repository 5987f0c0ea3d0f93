package farm

import (
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"
)

// CloneOptions say in what a twin differs from its parent.
type CloneOptions struct {
	// Zone is the twin's own zone, absolute. It may lie below the parent's, and must not be one of the parent's names.
	// Required if the parent has a zone; must be empty if it has none.
	Zone string
	// Scale multiplies the Min and Max of each role, and what it keeps warm, rounded up: of what the parent has one or more,
	// the twin has one or more. More than 0; the default, 0, is 1.
	Scale float64
	// Pools are where the twin's machines may be; empty leaves each role where it is.
	Pools []string
	// End is when the twin ends by itself; nil means never, whatever the parent has.
	End *End
	// Hours are when the twin runs; nil means always, whatever the parent has.
	Hours *Hours
	// Snapshots fills the volumes of the twin's databases from snapshots of the parent's (Volume.From), instead of copying the data by
	// the Manager's Origin: from the newest that the parent has taken on a schedule, or, of a role without one, from one that the twin
	// makes (Source.Now). It takes more of who makes the twin: see Clone.
	Snapshots bool
	// Roles are what is different for single roles, by name.
	Roles map[string]CloneRole
	// Arch tells the processor architecture of a size, in any words, and "" where that is not known. With it, a role that
	// gets sizes of another architecture than its parent's without an Image of its own is warned of. Optional; ec2.Arch is
	// one.
	Arch func(size string) string
}

// CloneRole is what is different for one role of a twin. The zero value of each field leaves what the parent and the
// CloneOptions say.
type CloneRole struct {
	Scale    float64
	Image    string
	Size     string // with a size of its own, a role has Fallback as it stands here
	Fallback []string
	Pools    []string
	UserData string
}

// Clone gives the spec of a twin of the farm: the same roles, with a name, a zone and an end of its own. It is pure, and the
// result is plain data that may be changed before it is given to [New].
//
// Everything that a farm has at a provider and in a zone bears its name, so that the twin has its own machines, volumes,
// addresses, balancers and records, and can neither see nor touch the parent's. The twin's Config is made by the caller,
// with credentials, caches and managers of its own; a database is filled by its manager (replication.Config.Origin), for
// which its role's LaunchTimeout must leave time.
//
// That is a copy over SQL, of a replica at one moment: of it nobody can see anything before it is scrubbed. With Snapshots, where the
// providers have snapshots of volumes, the parent's servers are not read at all:
//
//	twin, _, err := shop.Clone("dev", farm.CloneOptions{Zone: "dev.example.", Snapshots: true})
//	twin.Roles[0].Volume.From.Now = true // the data as it is now, although there is a snapshot of last night
//	origin := &replication.Origin{Volumes: true, Source: production.Source, Scrub: scrub} // of a Manager whose mysql.Config has a Set
//
// The twin's members start on what one snapshot held, which is of one instant of a replica, if one served: the newest of the
// parent's role, or one that the twin takes itself of the server that the Origin's Source names, for which its providers' credentials
// must do. One of them becomes the primary, however much data it is, and the others are seeded from it. The parent's accounts,
// data not yet scrubbed and replication settings are on such a volume from the first boot. So the twin's servers must lock what is not
// theirs before they take a connection, by the mysql.Config.Set that their image or user data and the Manager's Engine have; a
// Manager whose Engine could not tell the difference is refused. Volumes of other roles, which nobody would scrub, begin
// empty.
//
// A cache lets in whoever reaches it. The twin's applications are told of the twin's caches ([Config].Caches), and what keeps its
// machines from the parent's is the network: give the twin Pools of a network, or of security groups, of its own.
//
// What would lead the twin to its parent is a fault: a name or zone of the parent's, and user data that names the parent's
// zone. The error lists every fault by its field. The warnings say what will probably not work; they are sorted by role.
func (s Spec) Clone(name string, o CloneOptions) (twin Spec, warnings []string, err error) {
	var f faults
	f.label("name", name, 32)
	if name == s.Name {
		f.add("name", "%q is the parent's own name, want another one", name)
	}
	f.twinZone(s, o.Zone)
	f.factor("options.Scale", o.Scale)
	if o.End != nil && o.End.At.IsZero() {
		f.add("options.End.At", "is missing, want a time; without an end, leave End out")
	}
	if o.Hours != nil {
		_, bad := o.Hours.read("options.Hours.Open", "options.Hours.Close")
		f = append(f, bad...)
	}
	if o.Snapshots && !slices.ContainsFunc(s.Roles, func(r Role) bool { return r.Serves == Database && r.Volume != nil }) {
		f.add("options.Snapshots", "farm %s has no database on volumes", s.Name)
	}
	for _, role := range slices.Sorted(maps.Keys(o.Roles)) {
		at := fmt.Sprintf("options.Roles[%q]", role)
		if !slices.ContainsFunc(s.Roles, func(r Role) bool { return r.Name == role }) {
			f.add(at, "farm %s has no role of that name", s.Name)
		}
		f.factor(at+".Scale", o.Roles[role].Scale)
		if c := o.Roles[role]; c.Size == "" && len(c.Fallback) > 0 {
			f.add(at+".Fallback", "%q is what to take instead of Size, which is empty", c.Fallback)
		}
	}
	twin = s.detach()
	twin.Parent = ""
	if slices.ContainsFunc(s.Roles, func(r Role) bool { return r.Serves == Database }) {
		twin.Parent = s.Name
	}
	twin.Name, twin.Zone, twin.End = name, o.Zone, copied(o.End)
	twin.Hours = copied(o.Hours)
	for i := range twin.Roles {
		r := &twin.Roles[i]
		c := o.Roles[r.Name]
		if o.Snapshots && r.Serves == Database && r.Volume != nil {
			r.Volume.From = &Source{Farm: s.Name, Now: r.Volume.Snapshots == nil}
		} else if r.Volume != nil && r.Volume.From != nil {
			r.Volume.From = nil
			warnings = append(warnings, fmt.Sprintf("role %s: its new volumes are empty, while the parent's are filled from snapshots (Volume.From)", r.Name))
		}
		r.resize(or(or(c.Scale, o.Scale), 1))
		r.Image, r.UserData = or(c.Image, r.Image), or(c.UserData, r.UserData)
		for _, pools := range [][]string{o.Pools, c.Pools} {
			if len(pools) > 0 {
				r.Pools = slices.Clone(pools)
			}
		}
		if c.Size != "" {
			r.Size, r.Fallback = c.Size, slices.Clone(c.Fallback)
			if c.Image == "" && o.Arch != nil {
				warnings = append(warnings, differentArch(&s.Roles[i], r, o.Arch)...)
			}
		}
		if r.Serves == Cache && len(o.Pools)+len(c.Pools) == 0 {
			warnings = append(warnings, fmt.Sprintf("role %s: memcached asks nobody who he is: the twin is told of its own caches only, "+
				"but nothing else keeps its machines from the parent's, in whose pools they are", r.Name))
		}
		if leadsTo(r.UserData, s.Zone, o.Zone) {
			f.add(fmt.Sprintf("options.Roles[%q].UserData", r.Name),
				"the user data names the parent's zone %s, want some that does not lead the twin there", s.Zone)
		}
	}
	if len(f) > 0 {
		return Spec{}, nil, fmt.Errorf("clone of farm %q:\n%w", s.Name, errors.Join(f...))
	}
	slices.Sort(warnings)
	return twin, warnings, nil
}

// factor checks what numbers of machines are multiplied by.
func (f *faults) factor(field string, v float64) {
	if !(v >= 0) || v > 1000 {
		f.add(field, "%v is no factor, want more than 0 and at most 1000, or 0 for the default", v)
	}
}

// resize multiplies the numbers of machines.
func (r *Role) resize(by float64) {
	times := func(n int) int { return max(int(math.Ceil(float64(n)*by-1e-9)), min(n, 1)) } // what is 3 but for rounding is 3
	r.Min, r.Max = times(r.Min), times(r.Max)
	if r.Warm != nil {
		r.Warm.Count = times(r.Warm.Count)
	}
}

// twinZone checks that no name is both the parent's and the twin's.
func (f *faults) twinZone(parent Spec, zone string) {
	const field = "options.Zone"
	switch {
	case zone == "" && parent.Zone != "":
		f.add(field, "is empty, want a zone for the twin's names that is not the parent's, %s", parent.Zone)
		return
	case zone != "" && parent.Zone == "":
		f.add(field, "is %q, but the parent publishes no names", zone)
		return
	case zone == "":
		return
	case strings.EqualFold(zone, parent.Zone):
		f.add(field, "%q is the parent's own zone, want another one", zone)
		return
	}
	f.zoneName(field, zone)
	for _, z := range []struct{ above, below, whose string }{{parent.Zone, zone, "the parent"}, {zone, parent.Zone, "the twin"}} {
		label, ok := strings.CutSuffix(z.below, "."+z.above)
		if !ok {
			continue
		}
		for i := range parent.Roles {
			if parent.Roles[i].publishes(label) {
				f.add(field, "%q: %s would have the name %s too, for its role %s, want a zone that is none of its names",
					zone, z.whose, z.below, parent.Roles[i].Name)
			}
		}
	}
}

// publishes reports whether the role has, or can come to have, a name of this label in its farm's zone.
func (r *Role) publishes(label string) bool {
	index, of := strings.CutPrefix(label, r.Name+"-")
	return slices.Contains(r.labels(), label) || slices.Contains(r.Aliases, label) ||
		of && index != "" && strings.Trim(index, "0123456789") == ""
}

// leadsTo reports whether a text has a zone in it, other than as the end of another one.
func leadsTo(text, zone, other string) bool {
	if zone == "" {
		return false
	}
	bare := func(s string) string { return strings.ToLower(strings.TrimSuffix(s, ".")) }
	text, zone, other = bare(text), bare(zone), bare(other)
	below := strings.TrimSuffix(other, zone) // "dev." of "dev.example.com"
	if !strings.HasSuffix(other, "."+zone) {
		below = ""
	}
	for at := 0; ; at++ {
		i := strings.Index(text[at:], zone)
		if i < 0 {
			return false
		}
		at += i
		before, under := strings.CutSuffix(text[:at], below)
		if below == "" || !under || before != "" && strings.ContainsRune("abcdefghijklmnopqrstuvwxyz0123456789-_", rune(before[len(before)-1])) {
			return true
		}
	}
}

// differentArch warns of sizes whose architecture is none of the parent's.
func differentArch(parent, twin *Role, arch func(string) string) (warnings []string) {
	had := map[string]bool{}
	for _, size := range append([]string{parent.Size}, parent.Fallback...) {
		had[arch(size)] = true
	}
	if had[""] {
		return nil // it is not known what the image was made for
	}
	for _, size := range append([]string{twin.Size}, twin.Fallback...) {
		if a := arch(size); a != "" && !had[a] {
			warnings = append(warnings, fmt.Sprintf("role %s: size %s is %s and the parent's %s is %s: image %s may not boot",
				twin.Name, size, a, parent.Size, arch(parent.Size), twin.Image))
		}
	}
	return warnings
}
