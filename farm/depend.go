package farm

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/scalr-go/scalr"
	"github.com/scalr-go/scalr/provider"
)

// ErrDependents: other farms depend on the farm that was to end. The error says which, and why.
var ErrDependents = errors.New("other farms depend on it")

// check reports what is wrong with FinalSnapshot, which stands in the field, for a farm.
func (o TerminateOptions) check(field string, c *Config) error {
	if !o.FinalSnapshot {
		return nil
	}
	if !o.DeleteVolumes {
		return fmt.Errorf("%s: is set, but volumes are not to be deleted: they stay anyhow", field)
	}
	for _, p := range c.Pools {
		if !isNil(p.Provider) && has[provider.Volumes](p.Provider) && !has[provider.Snapshots](p.Provider) {
			return fmt.Errorf("%s: the provider of pool %q (%T) has no such capability", field, p.Name, p.Provider)
		}
	}
	return nil
}

// needs reports whether a role's first data is copied from servers of another farm.
func (s *Spec) needs(r *Role, c *Config) bool {
	m := c.Databases[r.Name]
	return s.Parent != "" && r.Serves == Database && m != nil && m.Origin().Engine != nil
}

// fed takes TagNeeds from the machines of databases that have their first data.
func (d *decision) fed() {
	if d.end != nil || d.spec.Parent == "" {
		return
	}
	for i := range d.spec.Roles {
		r := &d.spec.Roles[i]
		for _, m := range d.byRole[r.Name] {
			if p := d.config.pool(m.pool); !m.needs || dead(m) || d.o.sets[r.Name].Primary == "" || p == nil || !has[provider.Tagger](p.Provider) {
				continue
			}
			d.step(Step{Action: TagInstance, Role: r.Name, Index: m.slot.index, Pool: m.pool, Subject: m.id, tags: map[string]string{TagNeeds: ""},
				Reason: "the database has its first data, and needs farm " + d.spec.Parent + " no more"})
		}
	}
}

// dependents asks which farms depend on this one. It lists the volumes that came of its snapshots, the snapshots of its volumes that
// are another's first data, and the machines that get theirs from its servers; what does not show in a cloud's tags nobody knows.
func (f *Farm) dependents(ctx context.Context, o TerminateOptions) error {
	if o.Force {
		return nil
	}
	uses := slices.ContainsFunc(f.spec.Roles, func(r Role) bool { return r.Volume != nil })
	var machines []provider.Instance
	var volumes []provider.Volume
	var snapshots []provider.Snapshot
	clouds := f.config.clouds()
	of := map[string]string{TagSource: f.spec.Name}
	for i := range clouds {
		var errs []error
		if has[provider.Tagger](clouds[i].provider) {
			l := list(ctx, f, &clouds[i], "instances", clouds[i].provider.Instances, map[string]string{TagNeeds: f.spec.Name})
			machines, errs = append(machines, l.items...), append(errs, l.err)
		}
		if v, ok := provider.As[provider.Volumes](clouds[i].provider); ok {
			l := list(ctx, f, &clouds[i], "volumes", v.Volumes, of)
			volumes, errs = append(volumes, l.items...), append(errs, l.err)
		}
		if x, ok := provider.As[provider.Snapshots](clouds[i].provider); ok {
			l := list(ctx, f, &clouds[i], "snapshots", x.Snapshots, of)
			snapshots, errs = append(snapshots, l.items...), append(errs, l.err)
		}
		for _, err := range errs {
			if err != nil && (uses || !errors.Is(err, provider.ErrAuth) && !errors.Is(err, errors.ErrUnsupported)) {
				return fmt.Errorf("which farms depend on farm %s is not known: %w", f.spec.Name, err)
			}
		}
	}
	if why := dependents(f.spec.Name, o, machines, volumes, snapshots); len(why) > 0 {
		return fmt.Errorf("farm %s: %w: %s", f.spec.Name, ErrDependents, strings.Join(why, "; "))
	}
	return nil
}

// dependents says which of the volumes that came of a farm's snapshots keep it from its end: those of other farms that are being
// filled, and, if its snapshots are to be deleted, all, since they would be filled from these again. Likewise, of the snapshots that are
// other farms' first data, those that are not complete: one that has failed is made again. And of the machines that need the farm, all.
func dependents(farm string, o TerminateOptions, machines []provider.Instance, volumes []provider.Volume, snapshots []provider.Snapshot) (why []string) {
	for _, m := range machines {
		s, _ := slotOf(m.Tags)
		if other := m.Tags[TagFarm]; other != farm && other != "" && !m.State.Gone() {
			why = append(why, fmt.Sprintf("%s/%s (%s) gets its first data from it", other, s.name(), m.ID))
		}
	}
	for _, x := range snapshots {
		s, _ := slotOf(x.Tags)
		if other := x.Tags[TagFarm]; other != farm && other != "" && x.Tags[TagFirst] != "" && !x.Ready {
			why = append(why, fmt.Sprintf("snapshot %s, of volume %s of it, is to be the first data of %s/%s and is not complete", x.ID, x.Volume, other, s.role))
		}
	}
	for _, v := range volumes {
		s, _ := slotOf(v.Tags)
		switch other := v.Tags[TagFarm]; {
		case other == farm || other == "":
		case !v.Ready:
			why = append(why, fmt.Sprintf("volume %s of %s/%s is being filled from a snapshot of it", v.ID, other, s.name()))
		case o.DeleteSnapshots:
			why = append(why, fmt.Sprintf("volume %s of %s/%s came of a snapshot of it, which is to be deleted", v.ID, other, s.name()))
		}
	}
	slices.Sort(why)
	return slices.Compact(why)
}

// mayEnd waits until it is known whether another farm depends on this one, and if told until none does. It tells what it waits for.
func (f *Farm) mayEnd(ctx context.Context, o TerminateOptions, patient bool) error {
	var why error // it waits
	for {
		err := f.dependents(ctx, o)
		switch {
		case err == nil || errors.Is(err, ErrDependents) && !patient:
			return err
		case ctx.Err() != nil && why != nil:
			return fmt.Errorf("%w: %w", context.Cause(ctx), why) // what the end has cut off says nothing
		case ctx.Err() != nil:
			return fmt.Errorf("%w: %w", context.Cause(ctx), err)
		case why == nil || err.Error() != why.Error():
			f.emit(scalr.Event{Time: time.Now(), Kind: PassFailed, Farm: f.spec.Name, Message: "the farm is to end, and waits", Err: err.Error()})
		}
		why = err
		sleep(ctx, f.config.Interval/10)
		if ctx.Err() != nil {
			return fmt.Errorf("%w: %w", context.Cause(ctx), why)
		}
	}
}
