package farm

import (
	"fmt"
	"math"
	"strings"
)

// Updating is how far the update of a role is: see [Update].
type Updating struct {
	Role     string   `json:"role"`
	Machines int      `json:"machines"`
	Done     int      `json:"done"`           // of these, those that are made of what the role has now
	Now      []string `json:"now,omitempty"`  // the machines that leave
	Next     []string `json:"next,omitempty"` // those that are to follow, in this order unless one fails
	How      string   `json:"how"`            // how they do
	Paused   bool     `json:"paused,omitempty"`
}

// String gives the update as lines for a person.
func (u Updating) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "update %s: %d of %d machines are made of what the role has now\n", u.Role, u.Done, u.Machines)
	line := func(when string, names []string) {
		if len(names) > 0 {
			fmt.Fprintf(&b, "    %-6s  %s\n", when, strings.Join(names, ", "))
		}
	}
	line("now", u.Now)
	if u.Paused {
		line("paused", u.Next)
	} else {
		line("next", u.Next)
	}
	fmt.Fprintf(&b, "    %s\n", u.How)
	return b.String()
}

// most is how many machines may be replaced at once.
func (u *Update) most(machines int) int {
	return max(u.AtOnce, int(math.Ceil(u.Share*float64(machines))), 1)
}

// tellUpdate puts the update of a role into the plan.
func (d *decision) tellUpdate(r *Role, held []*machine) {
	mem, build := d.h.roles[r.Name], r.build()
	if r.Update == nil || mem.outdated == 0 || mem.bad == build || d.end != nil {
		return
	}
	u := Updating{Role: r.Name, Machines: len(held), Done: len(held) - mem.outdated, Paused: r.Update.Pause}
	var last []string
	for _, m := range held {
		switch {
		case m.build == build:
		case m.leaving != "" && m.updating:
			u.Now = append(u.Now, m.at.name)
		case d.primary(m):
			last = append(last, m.at.name)
		default:
			u.Next = append(u.Next, m.at.name)
		}
	}
	u.Next = append(u.Next, last...)
	most := r.Update.most(len(held))
	switch {
	case r.Serves == Database:
		u.How = "one at a time; a replica takes over from the primary, which is the last one"
	case d.surges(r):
		u.How = fmt.Sprintf("%d at a time, each when a successor serves", most)
	default:
		u.How = fmt.Sprintf("%d at a time, each drained, ended and followed by a successor in its place", most)
	}
	if mem.proven != build {
		if most > 1 {
			u.How += "; the first one alone"
		}
		u.How += "; if that does not come to serve, the role goes on with " + d.back(r)
	}
	d.plan.Updates = append(d.plan.Updates, u)
}
