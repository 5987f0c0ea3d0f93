package farm

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/scalr-go/scalr"
	"github.com/scalr-go/scalr/provider"
)

// Hook is what is done when something happens: a function of the host program, or a command that is run on machines.
//
//	config.Hooks = []farm.Hook{
//		{Name: "deploy", Role: "www", On: []scalr.Kind{farm.HostStarting}, Command: provider.Command{Args: []string{"/usr/local/bin/deploy"}}},
//		{Name: "peers", Role: "www", On: []scalr.Kind{farm.HostUp, farm.HostDown}, Target: farm.TheRole, Do: writePeers},
//	}
//
// One on [HostStarting] or [HostStopping] holds the machine until it has returned without an error: a machine does not serve before,
// and is not ended before. The hooks that hold a machine are asked one after another, in their order in the config. One that
// fails is asked again at the next pass; the plan shows what holds a machine, and for how long. A machine that is not let serve
// within Role.LaunchTimeout is replaced, and one that is held for Role.StopTimeout is ended anyhow. A host program that starts
// again asks all of them again, so they must take it well; what clients could find stays in service meanwhile. A farm that is
// terminated asks nobody.
//
// On all other kinds a hook follows what has happened, and holds nothing. The runs of one hook for one target are made one
// after another, in the order of the events. An event that the host program did not live to tell, or whose hook it did not live
// to run, is not told again: what must not be missed belongs to the moments that hold a machine.
//
// No pass waits for a hook for more than a second, however long it takes. What becomes of a run is told by [HookDone] and
// [HookFailed]; what fails in the same way again is told once. The runs end with [Farm.Run], which waits for them; where a host
// program makes the passes itself, they go on until they have ended or their Timeout is over.
type Hook struct {
	// Name is what plans, events and errors call it: each once in a config.
	Name string
	// On are the kinds of the events that it is bound to: those of this package but DataAtRisk, HookDone and HookFailed, and those of
	// steps that are done, such as scalr.Kind(LaunchInstance).
	On []scalr.Kind
	// Role narrows it to the events of one role; empty means all, and those of the farm itself.
	Role string
	// Target says which machines it is given.
	Target Target
	// Do is the function. It must return when its context ends, and is called concurrently: for other targets at once, and with
	// other hooks. Servers may be empty: a machine that is gone is not among them.
	Do func(ctx context.Context, e scalr.Event, servers []Server) error
	// Command is run on each of the machines, by [Farm.RunCommand], if there is no Do. It finds the event in its environment as
	// SCALR_EVENT, SCALR_EVENT_ROLE, SCALR_EVENT_INDEX and SCALR_EVENT_SUBJECT, beside what RunCommand gives it. It has no streams.
	Command provider.Command
	// Timeout bounds one run; default 5 min.
	Timeout time.Duration
}

// Target is which machines a [Hook] is given.
type Target string

// The targets.
const (
	TheMachine Target = ""     // the one that the event is about, if it is there
	TheRole    Target = "role" // all of the event's role, or of the farm if it is of none
	TheFarm    Target = "farm" // all of the farm
)

// holding are the kinds at which hooks hold a machine.
var holding = []scalr.Kind{HostStarting, HostStopping}

// bound reports whether the hook is for such an event.
func (h *Hook) bound(kind scalr.Kind, role string) bool {
	return slices.Contains(h.On, kind) && (h.Role == "" || h.Role == role)
}

// holds reports whether a hook holds the role's machines at that moment.
func (c *Config) holds(kind scalr.Kind, role string) bool {
	return slices.ContainsFunc(c.Hooks, func(h Hook) bool { return h.bound(kind, role) })
}

// hookable reports whether a hook can be bound to events of that kind.
func hookable(kind scalr.Kind) bool {
	return slices.Contains(hookKinds, kind) || slices.ContainsFunc(phases, func(phase []Action) bool { return slices.Contains(phase, Action(kind)) })
}

var hookKinds = []scalr.Kind{HostStarting, HostStopping, HostUp, HostUnhealthy, HostCrash, HostDown, UpdateFailed, UpdateDone, MoveDone,
	CalledUp, HostDoomed, StopTimedOut, PrimaryChanged, Quarantined, ScaleUp, ScaleDown, ViewDistrusted, ViewTrusted, SnapshotDone,
	SnapshotFailed, StepFailed, PassFailed, LeaseHeld, LeaseLost, Closed, Opened, Terminated}

func (f *faults) hooks(s *Spec, c *Config) {
	first := map[string]int{}
	for i := range c.Hooks {
		h := &c.Hooks[i]
		at := fmt.Sprintf("config.Hooks[%d]", i)
		if other, twice := first[h.Name]; twice && h.Name != "" {
			f.add(at+".Name", "%q is also the name of config.Hooks[%d], want each once", h.Name, other)
		}
		first[h.Name] = i
		if h.Name == "" {
			f.add(at+".Name", "is empty, want a name for plans and events")
		} else {
			at = fmt.Sprintf("config.Hooks[%d] (%s)", i, h.Name)
		}
		if len(h.On) == 0 {
			f.add(at+".On", "is empty, want the kinds of the events that it is bound to")
		}
		for _, kind := range h.On {
			if !hookable(kind) {
				f.add(at+".On", "%q is no kind of event that a hook can be bound to", kind)
			}
		}
		role := slices.IndexFunc(s.Roles, func(r Role) bool { return r.Name == h.Role })
		if h.Role != "" && role < 0 {
			f.add(at+".Role", "the spec has no role %q", h.Role)
		}
		if !slices.Contains([]Target{TheMachine, TheRole, TheFarm}, h.Target) {
			f.add(at+".Target", "is %q, want %q, %q or nothing", h.Target, TheRole, TheFarm)
		}
		if h.Timeout < 0 {
			f.add(at+".Timeout", "%v is negative", h.Timeout)
		}
		runs := len(h.Command.Args) > 0
		switch {
		case runs == (h.Do != nil):
			f.add(at, "want one of Do and Command.Args, and not both")
		case h.Command.Stdin != nil || h.Command.Stdout != nil:
			f.add(at+".Command", "has a stream, which is for one run of one command")
		case runs:
			for k := range c.Pools {
				p := &c.Pools[k]
				elsewhere := role >= 0 && h.Target != TheFarm && len(s.Roles[role].Pools) > 0 && !slices.Contains(s.Roles[role].Pools, p.Name)
				if _, ok := provider.As[provider.Commands](p.Provider); !ok && !isNil(p.Provider) && !elsewhere {
					f.add(at+".Command", "the provider of pool %q runs no commands", p.Name)
				}
			}
		}
	}
}

// runHook runs a hook once. Of what holds a machine, that one is known better than from the last pass.
func (f *Farm) runHook(ctx context.Context, h *Hook, e scalr.Event, held *Server) error {
	ctx, cancel := context.WithTimeout(ctx, or(h.Timeout, 5*time.Minute))
	defer cancel()
	servers := f.targets(h.Target, e, held)
	var err error
	switch {
	case h.Do != nil:
		err = h.Do(ctx, e, servers)
	case len(servers) == 0 && h.Target == TheMachine:
		err = errors.New("the machine is not there: the command was not run")
	default:
		c := h.Command
		c.Env = append(slices.Clone(c.Env), "SCALR_EVENT="+string(e.Kind), "SCALR_EVENT_ROLE="+e.Role,
			"SCALR_EVENT_INDEX="+strconv.Itoa(e.Index), "SCALR_EVENT_SUBJECT="+e.Subject)
		_, err = f.RunCommand(ctx, c, servers...)
	}
	if err != nil && errors.Is(ctx.Err(), context.DeadlineExceeded) {
		err = fmt.Errorf("it has not ended within %v: %w", or(h.Timeout, 5*time.Minute), err)
	}
	return err
}

func (f *Farm) targets(t Target, e scalr.Event, held *Server) []Server {
	role := e.Role
	if t == TheFarm {
		role = ""
	}
	if t == TheMachine && held != nil {
		return []Server{*held}
	}
	servers := f.Servers(role)
	if t == TheMachine {
		servers = slices.DeleteFunc(servers, func(s Server) bool { return s.ID != e.Subject && s.ID != e.Attrs["instance"] })
	}
	return servers
}
