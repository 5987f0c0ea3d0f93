package farm

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"

	"github.com/scalr-go/scalr/dnsreg"
)

// A NameServer asks one name server for the records of a name and a type, without a cache; move.Ask of dnsreg/move makes one. No such
// name is an empty set and no error.
type NameServer = func(ctx context.Context, name, typ string) (dnsreg.RRset, error)

// resolved is what the name servers give out for the names of a role.
type resolved struct {
	values map[string]bool // addresses, and host names without the last dot
	err    error           // one of them did not answer
}

// askNames asks every name server for the names of those roles that have machines or balancers on their way out.
func (f *Farm) askNames(ctx context.Context, o *observation) {
	if len(f.config.NameServers) == 0 || f.spec.Zone == "" {
		return
	}
	var mu sync.Mutex
	g := f.group()
	o.resolved = map[string]*resolved{}
	for i := range f.spec.Roles {
		r := &f.spec.Roles[i]
		names := append(r.labels(), r.Aliases...)
		leaving := r.Balancer != nil && f.history.roles[r.Name].moving
		for _, m := range f.history.machines {
			if m.slot.role == r.Name && !m.draining.IsZero() {
				names, leaving = append(names, m.slot.name()), true
			}
		}
		if !leaving {
			continue
		}
		if r.Main {
			names = append(names, "")
		}
		found := &resolved{values: map[string]bool{}}
		o.resolved[r.Name] = found
		for _, name := range names {
			for _, typ := range []string{"A", "AAAA", "CNAME"} {
				for k, ask := range f.config.NameServers {
					g.add(func() {
						ctx, cancel := context.WithTimeout(ctx, f.config.CallTimeout)
						defer cancel()
						set, err := ask(ctx, (&nameset{zone: f.spec.Zone}).full(name), typ)
						mu.Lock()
						defer mu.Unlock()
						if err != nil && found.err == nil {
							found.err = fmt.Errorf("name server %d: %w", k+1, err)
						}
						for _, v := range set.Values {
							found.values[strings.TrimSuffix(v, ".")] = true
						}
					})
				}
			}
		}
	}
	g.wait()
	for _, role := range sortedKeys(o.resolved) {
		if err := o.resolved[role].err; err != nil {
			o.errs = append(o.errs, err)
		}
	}
}

// given reports whether a name server may still give out a value for the role.
func (d *decision) given(role string, values ...string) bool {
	if len(d.config.NameServers) == 0 {
		return false
	}
	found := d.o.resolved[role]
	return found == nil || found.err != nil || slices.ContainsFunc(values, func(v string) bool { return found.values[v] })
}
