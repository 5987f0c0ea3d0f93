package dnsregtest

import (
	"context"
	"slices"
	"strings"

	"github.com/scalr-go/scalr/dnsreg"
)

// broken is a registrar with some of its methods replaced.
type broken struct {
	dnsreg.Registrar
	records func(context.Context, string) ([]dnsreg.RRset, error)
	apply   func(context.Context, string, []dnsreg.Change) error
	caps    func() dnsreg.Capabilities
}

func (b broken) Records(ctx context.Context, zone string) ([]dnsreg.RRset, error) {
	if b.records == nil {
		return b.Registrar.Records(ctx, zone)
	}
	return b.records(ctx, zone)
}

func (b broken) Apply(ctx context.Context, zone string, changes []dnsreg.Change) error {
	if b.apply == nil {
		return b.Registrar.Apply(ctx, zone, changes)
	}
	return b.apply(ctx, zone, changes)
}

func (b broken) Capabilities() dnsreg.Capabilities {
	if b.caps == nil {
		return b.Registrar.Capabilities()
	}
	return b.caps()
}

func memory() dnsreg.Registrar { return &dnsreg.Memory{Zones: []string{zone}} }

// oneByOne is a registrar as most DNS hosts are: a call for each record, nothing atomic. It is not broken.
func oneByOne(m dnsreg.Registrar) dnsreg.Registrar {
	return broken{Registrar: m,
		caps: func() dnsreg.Capabilities { return dnsreg.Capabilities{Preconditions: true} },
		apply: func(ctx context.Context, zone string, changes []dnsreg.Change) error {
			if _, err := dnsreg.CanonicalChanges(zone, changes); err != nil {
				return err
			}
			for i := range changes {
				if err := m.Apply(ctx, zone, changes[i:i+1]); err != nil {
					if i == 0 && len(changes) == 1 {
						return err
					}
					return &dnsreg.PartialError{Done: changes[:i], Failed: changes[i:], Err: err}
				}
			}
			return nil
		}}
}

// rewriting changes each listed RRset; a false drops it.
func rewriting(f func(r *dnsreg.RRset) bool) dnsreg.Registrar {
	m := memory()
	return broken{Registrar: m, records: func(ctx context.Context, zone string) ([]dnsreg.RRset, error) {
		list, err := m.Records(ctx, zone)
		kept := list[:0]
		for _, r := range list {
			if f(&r) {
				kept = append(kept, r)
			}
		}
		return kept, err
	}}
}

// applying changes what is applied.
func applying(f func(ctx context.Context, m dnsreg.Registrar, zone string, changes []dnsreg.Change) error) dnsreg.Registrar {
	m := memory()
	return broken{Registrar: m, apply: func(ctx context.Context, zone string, changes []dnsreg.Change) error {
		return f(ctx, m, zone, slices.Clone(changes))
	}}
}

// held gives what a zone holds of a change's RRset now.
func held(ctx context.Context, m dnsreg.Registrar, zone string, c dnsreg.Change) *dnsreg.RRset {
	list, _ := m.Records(ctx, zone)
	for _, r := range list {
		if r.Name == strings.ToLower(c.Name) && r.Type == c.Type {
			return &r
		}
	}
	return nil
}

// oneAfterTheOther makes the changes in order, and takes back those made where a later one fails.
func oneAfterTheOther(m dnsreg.Registrar) dnsreg.Registrar {
	return broken{Registrar: m, apply: func(ctx context.Context, zone string, changes []dnsreg.Change) error {
		for i := range changes {
			if err := m.Apply(ctx, zone, changes[i:i+1]); err != nil {
				for _, c := range slices.Backward(changes[:i]) {
					m.Apply(ctx, zone, []dnsreg.Change{{Name: c.Name, Type: c.Type, Old: c.New, New: c.Old}})
				}
				return err
			}
		}
		return nil
	}}
}
