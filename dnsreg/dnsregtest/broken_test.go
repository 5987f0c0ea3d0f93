package dnsregtest

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/scalr-go/scalr/dnsreg"
)

// brokenWays are ways in which a registrar can be wrong, and the rule that must tell.
var brokenWays = []struct {
	name string
	rule string
	make func() dnsreg.Registrar
}{
	{"forgets the TTL", "every type is listed as it was written, with its TTL", func() dnsreg.Registrar {
		return rewriting(func(r *dnsreg.RRset) bool { r.TTL = 300 * time.Second; return true })
	}},
	{"lists in the order of creation reversed", "the list is sorted by name and type, and canonical", func() dnsreg.Registrar {
		m := memory()
		return broken{Registrar: m, records: func(ctx context.Context, zone string) ([]dnsreg.RRset, error) {
			list, err := m.Records(ctx, zone)
			slices.SortFunc(list, func(a, b dnsreg.RRset) int { return cmp.Compare(b.Name, a.Name) })
			return list, err
		}}
	}},
	{"lists IPv6 addresses at full length", "the list is sorted by name and type, and canonical", func() dnsreg.Registrar {
		return rewriting(func(r *dnsreg.RRset) bool {
			for i, v := range r.Values {
				r.Values[i] = strings.ReplaceAll(v, "::", ":0:0:0:0:0:")
			}
			return true
		})
	}},
	{"cuts TXT after 255 bytes", "a TXT value of any length and any bytes comes back as it was", func() dnsreg.Registrar {
		return rewriting(func(r *dnsreg.RRset) bool {
			for i, v := range r.Values {
				r.Values[i] = v[:min(255, len(v))]
			}
			return true
		})
	}},
	{"takes backslashes out of TXT", "a TXT value of any length and any bytes comes back as it was", func() dnsreg.Registrar {
		return rewriting(func(r *dnsreg.RRset) bool {
			for i, v := range r.Values {
				r.Values[i] = strings.ReplaceAll(v, `\`, "")
			}
			return true
		})
	}},
	{"escapes the asterisk", "a wildcard is listed by its asterisk", func() dnsreg.Registrar {
		return rewriting(func(r *dnsreg.RRset) bool { r.Name = strings.ReplaceAll(r.Name, "*", `\052`); return true })
	}},
	{"hides what is below a delegation", "what stands below a delegation is listed", func() dnsreg.Registrar {
		return rewriting(func(r *dnsreg.RRset) bool { return !strings.Contains(r.Name, ".sub.") })
	}},
	{"lists one page only", "a list of many RRsets is complete", func() dnsreg.Registrar {
		m := memory()
		return broken{Registrar: m, records: func(ctx context.Context, zone string) ([]dnsreg.RRset, error) {
			list, err := m.Records(ctx, zone)
			return list[:min(100, len(list))], err
		}}
	}},
	{"hands out its own list", "lists and arguments belong to the caller", func() dnsreg.Registrar {
		m := memory()
		var mu sync.Mutex
		var cached []dnsreg.RRset
		return broken{Registrar: m,
			records: func(ctx context.Context, zone string) ([]dnsreg.RRset, error) {
				mu.Lock()
				defer mu.Unlock()
				var err error
				if cached == nil {
					cached, err = m.Records(ctx, zone)
				}
				return slices.Clone(cached), err
			},
			apply: func(ctx context.Context, zone string, changes []dnsreg.Change) error {
				mu.Lock()
				defer mu.Unlock()
				cached = nil
				return m.Apply(ctx, zone, changes)
			}}
	}},
	{"takes an unknown zone for an empty one", "an unknown zone is ErrNoZone", func() dnsreg.Registrar {
		m := memory()
		return broken{Registrar: m, records: func(ctx context.Context, zone string) ([]dnsreg.RRset, error) {
			list, err := m.Records(ctx, zone)
			if errors.Is(err, dnsreg.ErrNoZone) {
				err = nil
			}
			return list, err
		}}
	}},
	{"does not look at the context", "a context that has ended fails the call and changes nothing", func() dnsreg.Registrar {
		return applying(func(ctx context.Context, m dnsreg.Registrar, zone string, changes []dnsreg.Change) error {
			return m.Apply(context.WithoutCancel(ctx), zone, changes)
		})
	}},
	{"learns its capabilities on the way", "capabilities stay the same", func() dnsreg.Registrar {
		m := memory()
		caps := m.Capabilities()
		return broken{Registrar: m, caps: func() dnsreg.Capabilities { return caps },
			apply: func(ctx context.Context, zone string, changes []dnsreg.Change) error {
				caps.MaxChanges = 100
				return m.Apply(ctx, zone, changes)
			}}
	}},
	{"adds values instead of replacing them", "a change replaces all values", func() dnsreg.Registrar {
		return applying(func(ctx context.Context, m dnsreg.Registrar, zone string, changes []dnsreg.Change) error {
			for i, c := range changes {
				if c.Old != nil && c.New != nil {
					new := *c.New
					new.Values = slices.Concat(c.Old.Values, new.Values)
					changes[i].New = &new
				}
			}
			return m.Apply(ctx, zone, changes)
		})
	}},
	{"takes a change of the TTL for none", "a change of the TTL alone is made", func() dnsreg.Registrar {
		return applying(func(ctx context.Context, m dnsreg.Registrar, zone string, changes []dnsreg.Change) error {
			changes = slices.DeleteFunc(changes, func(c dnsreg.Change) bool {
				return c.Old != nil && c.New != nil && slices.Equal(c.Old.Values, c.New.Values)
			})
			return m.Apply(ctx, zone, changes)
		})
	}},
	{"removes the whole name", "a removal removes its type and no other", func() dnsreg.Registrar {
		return applying(func(ctx context.Context, m dnsreg.Registrar, zone string, changes []dnsreg.Change) error {
			if err := m.Apply(ctx, zone, changes); err != nil {
				return err
			}
			list, _ := m.Records(ctx, zone)
			for _, r := range list {
				if changes[0].New == nil && r.Name == changes[0].Name {
					m.Apply(ctx, zone, []dnsreg.Change{change(&r, nil)})
				}
			}
			return nil
		})
	}},
	{"compares preconditions as text", "order, repetition and upper case make no difference", func() dnsreg.Registrar {
		return applying(func(ctx context.Context, m dnsreg.Registrar, zone string, changes []dnsreg.Change) error {
			for _, c := range changes {
				if h := held(ctx, m, zone, c); c.Old != nil && h != nil && !slices.Equal(h.Values, c.Old.Values) {
					return dnsreg.ErrConflict
				}
			}
			return m.Apply(ctx, zone, changes)
		})
	}},
	{"fails when there is nothing to do", "no changes are no call and no error", func() dnsreg.Registrar {
		return applying(func(ctx context.Context, m dnsreg.Registrar, zone string, changes []dnsreg.Change) error {
			if len(changes) == 0 {
				return dnsreg.ErrInvalid
			}
			return m.Apply(ctx, zone, changes)
		})
	}},
	{"fails when nothing would change", "a change to what is there already succeeds and changes nothing", func() dnsreg.Registrar {
		return applying(func(ctx context.Context, m dnsreg.Registrar, zone string, changes []dnsreg.Change) error {
			for _, c := range changes {
				if c.Old != nil && c.New != nil && c.Old.Equal(*c.New) {
					return dnsreg.ErrConflict
				}
			}
			return m.Apply(ctx, zone, changes)
		})
	}},
	{"checks a CNAME against what a set removes", "one change set replaces data by a CNAME and back", func() dnsreg.Registrar {
		return applying(func(ctx context.Context, m dnsreg.Registrar, zone string, changes []dnsreg.Change) error {
			for i := range changes {
				if err := m.Apply(ctx, zone, changes[i:i+1]); err != nil {
					return err
				}
			}
			return nil
		})
	}},
	{"claims to be atomic and is not", "all changes of a call are made, or none", func() dnsreg.Registrar {
		return broken{Registrar: oneByOne(memory()), caps: memory().Capabilities}
	}},
	{"shows change sets half done", "a reader never sees a part of a change set", func() dnsreg.Registrar {
		return applying(func(ctx context.Context, m dnsreg.Registrar, zone string, changes []dnsreg.Change) error {
			for i := range changes {
				if err := m.Apply(ctx, zone, changes[i:i+1]); err != nil {
					return err
				}
				time.Sleep(time.Millisecond)
			}
			return nil
		})
	}},
	{"hides that it stopped half-way", "a failure half-way says what was made and what was not", func() dnsreg.Registrar {
		r := oneByOne(memory()).(broken)
		apply := r.apply
		r.apply = func(ctx context.Context, zone string, changes []dnsreg.Change) error {
			err := apply(ctx, zone, changes)
			if p, ok := errors.AsType[*dnsreg.PartialError](err); ok {
				return p.Err
			}
			return err
		}
		return r
	}},
	{"says the wrong half was made", "a failure half-way says what was made and what was not", func() dnsreg.Registrar {
		r := oneByOne(memory()).(broken)
		apply := r.apply
		r.apply = func(ctx context.Context, zone string, changes []dnsreg.Change) error {
			err := apply(ctx, zone, changes)
			if p, ok := errors.AsType[*dnsreg.PartialError](err); ok {
				return &dnsreg.PartialError{Done: p.Failed, Failed: p.Done, Err: p.Err}
			}
			return err
		}
		return r
	}},
	{"overwrites what exists", "an RRset that exists is not created again", func() dnsreg.Registrar {
		return applying(func(ctx context.Context, m dnsreg.Registrar, zone string, changes []dnsreg.Change) error {
			for i, c := range changes {
				if c.Old == nil {
					changes[i].Old = held(ctx, m, zone, c)
				}
			}
			return m.Apply(ctx, zone, changes)
		})
	}},
	{"does not check preconditions", "a stale precondition is ErrConflict and changes nothing", func() dnsreg.Registrar {
		return applying(func(ctx context.Context, m dnsreg.Registrar, zone string, changes []dnsreg.Change) error {
			for i, c := range changes {
				if h := held(ctx, m, zone, c); c.Old != nil && h != nil {
					changes[i].Old = h
				}
			}
			return m.Apply(ctx, zone, changes)
		})
	}},
	{"wants one value of the precondition to hold only", "a stale precondition is ErrConflict and changes nothing", func() dnsreg.Registrar {
		return applying(func(ctx context.Context, m dnsreg.Registrar, zone string, changes []dnsreg.Change) error {
			for i, c := range changes {
				if h := held(ctx, m, zone, c); c.Old != nil && h != nil && slices.Contains(h.Values, c.Old.Values[0]) {
					changes[i].Old = h
				}
			}
			return m.Apply(ctx, zone, changes)
		})
	}},
	{"removes what is gone without a word", "a precondition on an RRset that is gone is ErrConflict", func() dnsreg.Registrar {
		return applying(func(ctx context.Context, m dnsreg.Registrar, zone string, changes []dnsreg.Change) error {
			changes = slices.DeleteFunc(changes, func(c dnsreg.Change) bool {
				return c.New == nil && c.Old != nil && held(ctx, m, zone, c) == nil
			})
			return m.Apply(ctx, zone, changes)
		})
	}},
	{"checks, then acts", "of those who race on one RRset, exactly one wins", func() dnsreg.Registrar {
		return applying(func(ctx context.Context, m dnsreg.Registrar, zone string, changes []dnsreg.Change) error {
			for _, c := range changes {
				h := held(ctx, m, zone, c)
				if (h == nil) != (c.Old == nil) || h != nil && !slices.Equal(h.Values, c.Old.Values) {
					return dnsreg.ErrConflict
				}
			}
			time.Sleep(time.Millisecond)
			for {
				for i, c := range changes {
					changes[i].Old = held(ctx, m, zone, c)
					if changes[i].Old == nil && c.New == nil {
						return nil
					}
				}
				if err := m.Apply(ctx, zone, changes); !errors.Is(err, dnsreg.ErrConflict) {
					return err
				}
			}
		})
	}},
	{"calls a lost race a failure of another kind", "of those who race on one RRset, exactly one wins", func() dnsreg.Registrar {
		return applying(func(ctx context.Context, m dnsreg.Registrar, zone string, changes []dnsreg.Change) error {
			if err := m.Apply(ctx, zone, changes); errors.Is(err, dnsreg.ErrConflict) {
				return errors.New("NXRRSET")
			} else {
				return err
			}
		})
	}},
	{"calls a CNAME beside data a conflict", "a CNAME stands alone", func() dnsreg.Registrar {
		return applying(func(ctx context.Context, m dnsreg.Registrar, zone string, changes []dnsreg.Change) error {
			if err := m.Apply(ctx, zone, changes); err != nil && strings.Contains(err.Error(), "stands alone") {
				return dnsreg.ErrConflict
			} else {
				return err
			}
		})
	}},
	{"skips what is invalid", "what can never succeed is ErrInvalid, names the record and changes nothing", func() dnsreg.Registrar {
		return applying(func(ctx context.Context, m dnsreg.Registrar, zone string, changes []dnsreg.Change) error {
			if err := m.Apply(ctx, zone, changes); !errors.Is(err, dnsreg.ErrInvalid) {
				return err
			}
			return nil
		})
	}},
	{"does not say what is invalid", "what can never succeed is ErrInvalid, names the record and changes nothing", func() dnsreg.Registrar {
		return applying(func(ctx context.Context, m dnsreg.Registrar, zone string, changes []dnsreg.Change) error {
			if err := m.Apply(ctx, zone, changes); errors.Is(err, dnsreg.ErrInvalid) {
				return dnsreg.ErrInvalid
			} else {
				return err
			}
		})
	}},
	{"makes changes to one RRset one after the other", "one RRset is changed once in a change set", func() dnsreg.Registrar {
		return oneAfterTheOther(memory())
	}},
	{"takes the zone's NS away without a word", "the zone keeps its own NS", func() dnsreg.Registrar {
		return applying(func(ctx context.Context, m dnsreg.Registrar, zone string, changes []dnsreg.Change) error {
			changes = slices.DeleteFunc(changes, func(c dnsreg.Change) bool { return c.Type == "NS" && c.Name == zone && c.New == nil })
			return m.Apply(ctx, zone, changes)
		})
	}},
	{"raises a short TTL by itself", "a TTL below the minimum is ErrInvalid", func() dnsreg.Registrar {
		m := memory()
		caps := m.Capabilities()
		caps.MinTTL = 2 * time.Minute
		return broken{Registrar: m, caps: func() dnsreg.Capabilities { return caps }}
	}},
	{"takes more changes than it says", "more changes than the maximum are ErrInvalid", func() dnsreg.Registrar {
		m := memory()
		caps := m.Capabilities()
		caps.MaxChanges = 5
		return broken{Registrar: m, caps: func() dnsreg.Capabilities { return caps }}
	}},
	{"keeps the marks away from the list", "owners share a name, and leave nothing behind when they go", func() dnsreg.Registrar {
		return rewriting(func(r *dnsreg.RRset) bool { return !strings.HasPrefix(r.Name, "_scalr") })
	}},
}
