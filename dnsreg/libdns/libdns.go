// Package libdns makes a [dnsreg.Registrar] of a provider of github.com/libdns, of which there are some eighty: most DNS
// hosts have one.
//
// What libdns offers bounds what can be promised. A change set is a call for each change, and not atomic: one that stops
// half-way is a *dnsreg.PartialError. Preconditions are compared with the zone as it was just before, all of them before
// anything is changed; those who change the zone through one Registrar take turns, and only who else changes it in that
// instant is not seen. Errors of a provider say nothing about what has happened, so that its failed call is always Unknown.
//
// Providers differ in what they make of TXT values with quotes, backslashes or bytes that are not ASCII. Marks of ownership
// have none of these.
package libdns

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/libdns/libdns"

	"github.com/scalr-go/scalr/dnsreg"
)

// Provider is what a provider must be able to do; nearly all are.
type Provider interface {
	libdns.RecordGetter
	libdns.RecordSetter
	libdns.RecordDeleter
}

// Options says whose zones to change.
type Options struct {
	// Provider calls the DNS host. Required.
	Provider Provider
	// Zones are the names of the zones that the host has; any other is ErrNoZone, since providers do not say so. At least one.
	Zones []string
	// MinTTL is the shortest TTL that the host takes, in whole seconds. Default 1 s: providers take 0 for none given.
	MinTTL time.Duration
}

// Registrar changes zones through a provider. It is safe for concurrent use if the provider is.
type Registrar struct {
	opts  Options
	zones map[string]*sync.Mutex // each held by who changes the zone
}

var _ dnsreg.Registrar = (*Registrar)(nil)

// New checks the options. It makes no call.
func New(o Options) (*Registrar, error) {
	switch {
	case o.Provider == nil:
		return nil, errors.New("libdns: Provider is missing")
	case len(o.Zones) == 0:
		return nil, errors.New("libdns: Zones is empty, want at least one")
	case o.MinTTL < 0 || o.MinTTL%time.Second != 0:
		return nil, fmt.Errorf("libdns: MinTTL is %v, want whole seconds, or 0 for the default", o.MinTTL)
	}
	o.MinTTL = max(o.MinTTL, time.Second)
	r := &Registrar{opts: o, zones: make(map[string]*sync.Mutex)}
	for i, zone := range o.Zones {
		zone, err := dnsreg.CanonicalName(zone)
		if err != nil {
			return nil, fmt.Errorf("libdns: Zones[%d]: %w", i, err)
		}
		r.zones[zone] = new(sync.Mutex)
	}
	return r, nil
}

// Capabilities says that change sets are neither atomic nor conditional at the host.
func (r *Registrar) Capabilities() dnsreg.Capabilities {
	return dnsreg.Capabilities{MinTTL: r.opts.MinTTL}
}

func (r *Registrar) zone(ctx context.Context, name string) (string, error) {
	if ctx.Err() != nil {
		return "", context.Cause(ctx)
	}
	zone, err := dnsreg.CanonicalName(name)
	if err != nil {
		return "", err
	}
	if r.zones[zone] == nil {
		return "", fmt.Errorf("%s: %w", zone, dnsreg.ErrNoZone)
	}
	return zone, nil
}

// Records lists the zone. What its host does not list, many a SOA among it, is not there.
func (r *Registrar) Records(ctx context.Context, zone string) ([]dnsreg.RRset, error) {
	zone, err := r.zone(ctx, zone)
	if err != nil {
		return nil, err
	}
	return r.records(ctx, zone)
}

func (r *Registrar) records(ctx context.Context, zone string) ([]dnsreg.RRset, error) {
	records, err := r.opts.Provider.GetRecords(ctx, zone)
	if err != nil {
		return nil, fmt.Errorf("libdns: records of %s: %w", zone, err)
	}
	sets := make(map[[2]string]*dnsreg.RRset)
	for _, record := range records {
		rr := record.RR()
		name := strings.ToLower(absolute(rr.Name, zone))
		k := [2]string{name, rr.Type}
		s := sets[k]
		if s == nil {
			s = &dnsreg.RRset{Name: name, Type: rr.Type, TTL: rr.TTL}
			sets[k] = s
		}
		s.TTL = min(s.TTL, rr.TTL) // some hosts have one for each value
		data := rr.Data
		if pointsTo(rr.Type) && !strings.HasSuffix(data, ".") {
			data += "."
		}
		s.Values = append(s.Values, data)
	}
	list := make([]dnsreg.RRset, 0, len(sets))
	for _, s := range sets {
		if c, err := dnsreg.Canonical(*s); err == nil {
			*s = c
		} else {
			slices.Sort(s.Values)
			s.Values = slices.Compact(s.Values)
		}
		list = append(list, *s)
	}
	slices.SortFunc(list, func(a, b dnsreg.RRset) int { return cmp.Or(cmp.Compare(a.Name, b.Name), cmp.Compare(a.Type, b.Type)) })
	return list, nil
}

// pointsTo reports whether the values of a type end with a name, which some hosts write without the dot.
func pointsTo(typ string) bool { return typ == "CNAME" || typ == "NS" || typ == "MX" || typ == "SRV" }

// absolute gives a provider's name in full.
func absolute(name, zone string) string {
	switch {
	case name == "" || name == "@":
		return zone
	case strings.HasSuffix(name, "."):
		return name
	}
	return name + "." + zone
}

// relative gives a name as providers want it. (libdns's own RelativeName cuts a zone out of names that only end alike.)
func relative(name, zone string) string {
	if name == zone {
		return "@"
	}
	return strings.TrimSuffix(name, "."+zone)
}

// encode gives an RRset as a provider's records.
func encode(zone string, s *dnsreg.RRset) (list []libdns.Record) {
	for _, v := range s.Values {
		rr := libdns.RR{Name: relative(s.Name, zone), TTL: s.TTL, Type: s.Type, Data: v}
		record, err := rr.Parse() // some providers want a type's own struct
		if err != nil {
			record = rr // a SRV whose name libdns finds odd
		}
		list = append(list, record)
	}
	return list
}

// Apply makes the changes one by one, in their order but that what stands in the way of a CNAME, or a CNAME in the way of
// something, goes first.
func (r *Registrar) Apply(ctx context.Context, zone string, changes []dnsreg.Change) error {
	if len(changes) == 0 {
		return nil
	}
	changes, err := dnsreg.CanonicalChanges(zone, changes)
	if err != nil {
		return err
	}
	if zone, err = r.zone(ctx, zone); err != nil {
		return err
	}
	for _, c := range changes {
		if c.New != nil && c.New.TTL < r.opts.MinTTL {
			return fmt.Errorf("%s %s: %w: TTL %v is shorter than the minimum, %v", c.Name, c.Type, dnsreg.ErrInvalid, c.New.TTL, r.opts.MinTTL)
		}
	}
	turn := r.zones[zone]
	turn.Lock()
	defer turn.Unlock()
	have, err := r.records(ctx, zone)
	if err != nil {
		return err
	}
	if err := check(have, changes); err != nil {
		if len(changes) > 1 && errors.Is(err, dnsreg.ErrConflict) {
			return &dnsreg.PartialError{Failed: changes, Err: err}
		}
		return err
	}
	ordered := order(changes)
	for i, c := range ordered {
		err := r.one(ctx, zone, c)
		if err == nil {
			continue
		}
		err = fmt.Errorf("libdns: %s %s: %w", c.Name, c.Type, err)
		if ctx.Err() != nil {
			err = errors.Join(context.Cause(ctx), err)
		}
		return &dnsreg.PartialError{Done: ordered[:i], Unknown: ordered[i : i+1], Failed: ordered[i+1:], Err: err}
	}
	return nil
}

// check compares the changes with what the zone has.
func check(have []dnsreg.RRset, changes []dnsreg.Change) error {
	sets := make(map[string]map[string]dnsreg.RRset)
	for _, s := range have {
		if sets[s.Name] == nil {
			sets[s.Name] = make(map[string]dnsreg.RRset)
		}
		sets[s.Name][s.Type] = s
	}
	for _, c := range changes {
		is, ok := sets[c.Name][c.Type]
		switch {
		case c.Old == nil && ok:
			return fmt.Errorf("%s %s: %w: it exists, with %d values", c.Name, c.Type, dnsreg.ErrConflict, len(is.Values))
		case c.Old != nil && !ok:
			return fmt.Errorf("%s %s: %w: it does not exist", c.Name, c.Type, dnsreg.ErrConflict)
		case c.Old != nil && !c.Old.Equal(is):
			return fmt.Errorf("%s %s: %w: its TTL or values are others", c.Name, c.Type, dnsreg.ErrConflict)
		}
	}
	for _, c := range changes {
		if sets[c.Name] == nil {
			sets[c.Name] = make(map[string]dnsreg.RRset)
		}
		delete(sets[c.Name], c.Type)
		if c.New != nil {
			sets[c.Name][c.Type] = *c.New
		}
	}
	for _, c := range changes {
		if _, ok := sets[c.Name]["CNAME"]; ok && len(sets[c.Name]) > 1 {
			return fmt.Errorf("%s %s: %w: a CNAME stands alone, and there would be %d other types", c.Name, c.Type, dnsreg.ErrInvalid,
				len(sets[c.Name])-1)
		}
	}
	return nil
}

// order moves a removal that makes room for a change before it.
func order(changes []dnsreg.Change) []dnsreg.Change {
	var list []dnsreg.Change
	done := make([]bool, len(changes))
	for i, c := range changes {
		if c.New != nil {
			for j := i + 1; j < len(changes); j++ {
				if o := changes[j]; !done[j] && o.New == nil && o.Name == c.Name && (o.Type == "CNAME" || c.Type == "CNAME") {
					list, done[j] = append(list, o), true
				}
			}
		}
		if !done[i] {
			list, done[i] = append(list, c), true
		}
	}
	return list
}

// one makes one change.
func (r *Registrar) one(ctx context.Context, zone string, c dnsreg.Change) error {
	if c.New != nil && (c.Old == nil || !c.Old.Equal(*c.New)) {
		if _, err := r.opts.Provider.SetRecords(ctx, zone, encode(zone, c.New)); err != nil {
			return err
		}
	}
	var gone *dnsreg.RRset
	switch {
	case c.New == nil:
		gone = c.Old
	case c.Name == zone && c.Type == "NS": // hosts do not replace all of these at once, some by RFC 2136, section 3.4.2.3
		left := *c.Old
		left.Values = slices.DeleteFunc(slices.Clone(c.Old.Values), func(v string) bool { return slices.Contains(c.New.Values, v) })
		gone = &left
	}
	if gone == nil || len(gone.Values) == 0 {
		return nil
	}
	_, err := r.opts.Provider.DeleteRecords(ctx, zone, encode(zone, gone))
	return err
}
