package farm

import (
	"errors"
	"fmt"
	"slices"
	"strings"
)

const cannotMove = "the role has volumes, which cannot leave their pools, and is no database, whose data comes by replication: " +
	"want a role of another name there, with volume.from to fill its volumes from snapshots where the provider has these"

// MoveOptions say what moves where.
type MoveOptions struct {
	// Pools are where to, in order of preference. Required.
	Pools []string
	// Roles are what moves, by name; empty is the whole farm.
	Roles []string
	// The rest is each role's Move.
	Move
}

// Move gives the spec of the farm when it has moved: with that spec, and the pools of both places in its Config, a farm moves,
// as [Move] says. To go back, move the farm to where it was. The spec that it is called of is not changed. The error lists
// every fault, each with its field: a role with volumes cannot move unless it is a database.
func (s Spec) Move(o MoveOptions) (Spec, error) {
	var f faults
	moved := s.detach()
	if len(o.Pools) == 0 {
		f.add("options.Pools", "is empty, want the pools to move to")
	}
	for _, name := range o.Roles {
		if !slices.ContainsFunc(s.Roles, func(r Role) bool { return r.Name == name }) {
			f.add("options.Roles", "farm %s has no role %q", s.Name, name)
		}
	}
	for i := range moved.Roles {
		r := &moved.Roles[i]
		if len(o.Roles) > 0 && !slices.Contains(o.Roles, r.Name) {
			continue
		}
		r.Pools, r.Move = slices.Clone(o.Pools), new(o.Move)
		if r.Volume != nil && r.Serves != Database {
			f.add(fmt.Sprintf("spec.roles[%d] (%s).move", i, r.Name), "%s", cannotMove)
		}
	}
	if len(f) > 0 {
		return Spec{}, fmt.Errorf("move of farm %q:\n%w", s.Name, errors.Join(f...))
	}
	return moved, nil
}

// Moving is how far the move of a role is: see [Move].
type Moving struct {
	Role   string   `json:"role"`
	From   []string `json:"from"` // pools
	To     []string `json:"to"`   // likewise
	Stages []Stage  `json:"stages"`
}

// Stage is a part of a move. Each begins when the one before is done.
type Stage struct {
	Name  string     `json:"name"`
	State StageState `json:"state"`
	What  string     `json:"what"`
	// NoReturn marks the stage that begins with the point of no return. Until then, naming the old pools again takes back all
	// that has been done.
	NoReturn bool `json:"no_return,omitempty"`
}

// StageState is how far a stage is.
type StageState string

// The states of a stage.
const (
	StageDone StageState = "done"
	StageNow  StageState = "now"
	StageNext StageState = "next"
)

// The stages of a move, in their order.
const (
	stageLaunch     = "launch"
	stageServe      = "serve"
	stageSwitchOver = "switch-over"
	stageNames      = "names"
	stageDrain      = "drain"
	stageEnd        = "end"
)

// String gives the move as lines for a person.
func (m Moving) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "move %s from %s to %s:\n", m.Role, strings.Join(m.From, ", "), strings.Join(m.To, ", "))
	for _, s := range m.Stages {
		if s.NoReturn {
			fmt.Fprintf(&b, "    ---- the point of no return: until here, naming %s again takes it all back ----\n", strings.Join(m.From, ", "))
		}
		fmt.Fprintf(&b, "    %-4s  %s: %s\n", s.State, s.Name, s.What)
	}
	return b.String()
}

// tellMove puts the move of a role into the plan, with what is done and what is to come.
func (d *decision) tellMove(r *Role) {
	mv := d.moves[r.Name]
	if mv == nil {
		return
	}
	m := Moving{Role: r.Name, To: slices.Clone(r.Pools)}
	for _, p := range mv.pools {
		m.From = append(m.From, p.Name)
	}
	slices.Sort(m.From)
	ending := slices.ContainsFunc(mv.here, func(m *machine) bool { return m.parting && (!m.stopping.IsZero() || d.plan.ends(m.id)) })
	if ending {
		mv.stage = stageEnd
	}
	to, ttl := strings.Join(m.To, ", "), d.unresolved(d.now, r.Drain).Sub(d.now)
	stage := func(name, format string, args ...any) {
		s := Stage{Name: name, State: StageNext, What: fmt.Sprintf(format, args...), NoReturn: name == stageEnd}
		if name == mv.stage {
			s.State = StageNow
		}
		m.Stages = append(m.Stages, s)
	}
	serve := "%d of %d machines there serve"
	stage(stageLaunch, "%d of %d machines are in pool %s", len(mv.there), mv.want, to)
	if r.Serves == Database {
		serve += ", with the data of the primary"
	}
	if r.Balancer != nil {
		serve += ", behind a balancer"
	}
	if d.spec.Zone != "" {
		serve += ", and are in the zone"
	}
	stage(stageServe, serve, mv.come, mv.want)
	if r.Serves == Database {
		stage(stageSwitchOver, "a replica there takes over from the primary")
	}
	switch {
	case r.Balancer != nil && d.spec.Zone != "":
		stage(stageNames, "the names of the balancers here go, and nobody has them after %v", ttl)
		stage(stageDrain, "%d machines here drain for %v", len(mv.here), ttl)
	default:
		stage(stageNames, "the names of %d machines here go, and they drain for %v", len(mv.here), ttl)
	}
	stage(stageEnd, "%d machines here end", len(mv.here))
	for i := range m.Stages {
		if m.Stages[i].State == StageNow {
			break
		}
		m.Stages[i].State = StageDone
	}
	d.plan.Moves = append(d.plan.Moves, m)
}
