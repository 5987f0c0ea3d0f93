package farm

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"strings"
	"time"

	"github.com/scalr-go/scalr"
)

// TerminateOptions says what is to be left of a farm. The zero value ends the machines and gives back what costs money
// without holding data: volumes and snapshots stay.
type TerminateOptions struct {
	DeleteVolumes bool `json:"delete_volumes,omitempty"` // delete the volumes, and the data with them
	KeepAddresses bool `json:"keep_addresses,omitempty"` // keep the public addresses
	KeepNames     bool `json:"keep_names,omitempty"`     // leave the names as they are
	// FinalSnapshot takes a snapshot of each volume once its machine has ended, and deletes the volume when the snapshot is
	// complete; of several that runs of the program that were killed have taken, the newest stays. Only with DeleteVolumes.
	// A volume of which there can be no snapshot stays, and the farm's end waits: that is told as an event after Config.Grace.
	FinalSnapshot bool `json:"final_snapshot,omitempty"`
	// DeleteSnapshots deletes the snapshots that the schedules of the roles have taken, after the volumes if these go too. Final
	// ones stay, and those that a person has taken. (One that was to fill the first volumes, see Source.Now, goes in any case.)
	DeleteSnapshots bool `json:"delete_snapshots,omitempty"`
	// Force ends the farm although others depend on it: although volumes of another farm are being filled from its snapshots or, with
	// DeleteSnapshots, have been; or its volumes are being copied for another one (Source.Now), or its databases (see Spec.Parent).
	Force bool `json:"force,omitempty"`
}

// keeps says in words what is left of the farm.
func (o TerminateOptions) keeps() string {
	var kept []string
	keep := func(is bool, what string) {
		if is {
			kept = append(kept, what)
		}
	}
	keep(!o.DeleteVolumes, "its volumes")
	keep(o.FinalSnapshot, "a last snapshot of each volume")
	keep(!o.DeleteSnapshots, "the snapshots by schedule")
	keep(o.KeepAddresses, "its addresses")
	keep(o.KeepNames, "its names")
	if len(kept) == 0 {
		return "nothing is kept"
	}
	return "it keeps " + strings.Join(kept, ", ")
}

// Terminate ends the farm: the roles in the reverse of their launch order, without draining, then balancers, addresses,
// names and, if told, volumes and snapshots. A Run of this Farm ends first. Terminate returns nil when nothing is left,
// which it believes only when lists have been empty for Config.ListLag after whatever may have been created last. It may
// be called again after an error, and by another program after a crash; a Farm that has been told to end does nothing else.
//
// While another farm depends on this one, it fails with [ErrDependents] and has touched nothing: see TerminateOptions.Force.
// That is what tags in its own clouds show: a twin in others is not seen. Whether a farm depends on it is asked once, at the beginning; while that cannot be known, Terminate waits and tells of it as an event.
func (f *Farm) Terminate(ctx context.Context, o TerminateOptions) error {
	if err := o.check("options.FinalSnapshot", &f.config); err != nil {
		return err
	}
	if err := f.mayEnd(ctx, o, false); err != nil {
		return err
	}
	f.mu.Lock()
	f.ending = &o
	run := f.running
	f.mu.Unlock()
	if run != nil {
		run.stop(ErrEnded)
		select {
		case <-run.done:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	return f.hold(ctx, func(ctx context.Context) error {
		// Without the lease, another program may have let the farm work on: a last snapshot is none any more.
		if err := f.take(ctx); err != nil {
			return err
		}
		f.mu.Lock()
		maps.DeleteFunc(f.history.copies, func(key series, _ copyMemory) bool { return key.final != "" })
		f.mu.Unlock()
		f.give()
		if err := f.end(ctx); err != nil {
			return err
		}
		release(f.spec.Name)
		f.emit(scalr.Event{Time: time.Now(), Kind: Terminated, Farm: f.spec.Name, Message: "nothing is left of the farm"})
		f.hooks.wait()
		return nil
	})
}

// PlanTerminate says what Terminate would do first. Nothing is done. With [ErrDependents] it gives the plan that Force would
// take.
func (f *Farm) PlanTerminate(ctx context.Context, o TerminateOptions) (Plan, error) {
	if err := o.check("options.FinalSnapshot", &f.config); err != nil {
		return Plan{}, err
	}
	if err := f.take(ctx); err != nil {
		return Plan{}, err
	}
	defer f.give()
	p, err := f.plan(ctx, &o, f.history)
	return p, errors.Join(f.dependents(ctx, o), err)
}

// end makes passes until nothing is left.
func (f *Farm) end(ctx context.Context) error {
	pause := max(min(f.config.Interval/10, f.config.ListLag/4), time.Millisecond)
	var p Plan
	for {
		next, _ := f.pass(ctx) // of what went wrong, the plan says what keeps the farm from its end
		if !next.Time.IsZero() {
			p = next
		}
		if ctx.Err() != nil {
			return fmt.Errorf("%w; still to do:\n%s", context.Cause(ctx), p)
		}
		if p.Empty() && !p.left {
			return nil
		}
		sleep(ctx, pause)
	}
}
