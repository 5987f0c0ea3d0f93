// Package designate is a [dnsreg.Registrar] for zones of Designate, the DNS service of OpenStack.
//
//	auth, endpoint, tls, err := clouds.Parse()                                  // clouds.yaml, OS_CLOUD
//	auth.AllowReauth = true
//	client, err := config.NewProviderClient(ctx, auth, config.WithTLSConfig(tls))
//	dns, err := openstack.NewDNSV2(client, endpoint)
//	registrar, err := designate.New(designate.Options{Client: dns})
//
// Designate takes one RRset at a time and hands it to its name servers afterwards. Apply returns when they have it: when the
// zone is ACTIVE again. It has neither change sets nor preconditions, so what a change replaces is read just before it is made.
package designate

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/gophercloud/gophercloud/v2"
	"github.com/gophercloud/gophercloud/v2/openstack/dns/v2/recordsets"

	"github.com/scalr-go/scalr/dnsreg"
)

// Options say how to reach Designate.
type Options struct {
	// Client is a client of the dns service, as openstack.NewDNSV2 makes it. Required. It signs in again by itself where its
	// AuthOptions allow that.
	Client *gophercloud.ServiceClient
	// Timeout bounds how long Apply waits for the name servers, within its context. Default a minute.
	Timeout time.Duration
}

// Registrar changes zones of one project. It is safe for concurrent use.
type Registrar struct{ opts Options }

var _ dnsreg.Registrar = (*Registrar)(nil)

// New checks the options. It makes no call.
func New(o Options) (*Registrar, error) {
	if o.Client == nil {
		return nil, errors.New("designate: Client is nil, want a client of the dns service")
	}
	if o.Timeout < 0 {
		return nil, fmt.Errorf("designate: Timeout is %v, want more than 0, or 0 for the default", o.Timeout)
	}
	o.Timeout = cmp.Or(o.Timeout, time.Minute)
	return &Registrar{o}, nil
}

// minTTL is the shortest TTL: a 0 stands for the zone's own.
const minTTL = time.Second

// Capabilities says that changes are made one by one.
func (r *Registrar) Capabilities() dnsreg.Capabilities { return dnsreg.Capabilities{MinTTL: minTTL} }

// zone is what is read of a zone.
type zone struct {
	ID     string
	Name   string
	Status string
	TTL    int
}

// set is what is read of a recordset.
type set struct {
	ID, Name, Type, Status, Action string
	TTL                            int // 0 is the zone's
	Records                        []string
}

// Records lists the zone, with what is on its way to the name servers. Types that package dnsreg does not have are left out.
func (r *Registrar) Records(ctx context.Context, name string) ([]dnsreg.RRset, error) {
	z, err := r.zone(ctx, name)
	if err != nil {
		return nil, err
	}
	all, err := r.sets(ctx, z, nil)
	if err != nil {
		return nil, fmt.Errorf("designate: list of %s: %w", z.Name, err)
	}
	list := make([]dnsreg.RRset, 0, len(all))
	for _, s := range all {
		if rr, err := s.rrset(z); err == nil {
			list = append(list, rr)
		} else if slices.Contains([]string{"A", "AAAA", "CNAME", "TXT", "SRV", "MX", "NS", "SOA"}, s.Type) {
			return nil, fmt.Errorf("designate: list of %s: %w", z.Name, err)
		}
	}
	slices.SortFunc(list, func(a, b dnsreg.RRset) int {
		return cmp.Or(strings.Compare(a.Name, b.Name), strings.Compare(a.Type, b.Type))
	})
	return list, nil
}

// rrset is the set in canonical form.
func (s set) rrset(z zone) (dnsreg.RRset, error) {
	rr := dnsreg.RRset{Name: s.Name, Type: s.Type, TTL: time.Duration(cmp.Or(s.TTL, z.TTL)) * time.Second, Values: slices.Clone(s.Records)}
	if s.Type == "TXT" {
		for i, v := range rr.Values {
			rr.Values[i] = unquote(v)
		}
	}
	return dnsreg.Canonical(rr)
}

// Apply makes the changes one after another and waits for the name servers. If it does not get that far, the error is a
// *dnsreg.PartialError: what Designate has taken and the name servers may not have yet is Unknown.
func (r *Registrar) Apply(ctx context.Context, name string, changes []dnsreg.Change) error {
	if len(changes) == 0 {
		return nil
	}
	changes, err := dnsreg.CanonicalChanges(name, changes)
	if err != nil {
		return err
	}
	for _, c := range changes {
		if c.New != nil && c.New.TTL < minTTL {
			return fmt.Errorf("%s %s: %w: TTL %v is shorter than the minimum, %v", c.Name, c.Type, dnsreg.ErrInvalid, c.New.TTL, minTTL)
		}
	}
	z, err := r.zone(ctx, name)
	if err != nil {
		return err
	}
	for i, c := range changes {
		unknown, err := r.apply(ctx, z, c)
		if err == nil {
			continue
		}
		if i == 0 && !unknown {
			if len(changes) > 1 {
				err = &dnsreg.PartialError{Failed: changes, Err: err}
			}
			return err
		}
		partial := &dnsreg.PartialError{Done: changes[:i], Failed: changes[i:], Err: err}
		if unknown {
			partial.Unknown, partial.Failed = changes[i:i+1], changes[i+1:]
		}
		if i > 0 {
			if served := r.served(ctx, z); served != nil {
				partial.Done, partial.Unknown = nil, slices.Concat(partial.Done, partial.Unknown)
			}
		}
		return partial
	}
	if err := r.served(ctx, z); err != nil {
		return &dnsreg.PartialError{Unknown: changes, Err: err}
	}
	return nil
}

// apply makes one change, and says whether it may have been made although it failed.
func (r *Registrar) apply(ctx context.Context, z zone, c dnsreg.Change) (unknown bool, err error) {
	all, err := r.sets(ctx, z, url.Values{"name": {c.Name}})
	if err != nil {
		return false, fmt.Errorf("designate: %s %s: %w", c.Name, c.Type, err)
	}
	var have *set
	for i := range all {
		switch {
		case all[i].Name != c.Name:
		case all[i].Type == c.Type:
			have = &all[i]
		case c.New != nil && (c.Type == "CNAME" || all[i].Type == "CNAME"):
			return false, fmt.Errorf("%s %s: %w: a CNAME stands alone, and there is %s", c.Name, c.Type, dnsreg.ErrInvalid, all[i].Type)
		}
	}
	switch {
	case c.Old == nil && have != nil:
		return false, fmt.Errorf("%s %s: %w: it exists, with %d values", c.Name, c.Type, dnsreg.ErrConflict, len(have.Records))
	case c.Old != nil && have == nil:
		return false, fmt.Errorf("%s %s: %w: it does not exist", c.Name, c.Type, dnsreg.ErrConflict)
	case c.Old != nil:
		is, err := have.rrset(z)
		if err != nil || !c.Old.Equal(is) {
			return false, fmt.Errorf("%s %s: %w: its TTL or values are others", c.Name, c.Type, dnsreg.ErrConflict)
		}
		if c.New != nil && c.New.Equal(is) {
			return false, nil
		}
	}
	sc := r.opts.Client
	switch {
	case c.Old == nil:
		err = recordsets.Create(ctx, sc, z.ID, recordsets.CreateOpts{Name: c.Name, Type: c.Type, TTL: seconds(c.New.TTL), Records: values(c.New)}).Err
	case c.New != nil:
		ttl := seconds(c.New.TTL)
		err = recordsets.Update(ctx, sc, z.ID, have.ID, recordsets.UpdateOpts{TTL: &ttl, Records: values(c.New)}).Err
	default:
		err = recordsets.Delete(ctx, sc, z.ID, have.ID).ExtractErr()
	}
	if err == nil {
		return false, nil
	}
	var kind error
	switch status := statusOf(err); {
	case status == 0 || status >= 500:
		unknown = true
	case status == http.StatusBadRequest:
		kind = dnsreg.ErrInvalid
	case status == http.StatusConflict || status == http.StatusNotFound:
		kind = dnsreg.ErrConflict
	}
	if kind != nil {
		return false, fmt.Errorf("%s %s: %w: %w", c.Name, c.Type, kind, clean(err))
	}
	return unknown, fmt.Errorf("designate: %s %s: %w", c.Name, c.Type, clean(err))
}

func seconds(d time.Duration) int { return int(d / time.Second) }

// values are the values as Designate has them.
func values(r *dnsreg.RRset) []string {
	if r.Type != "TXT" {
		return r.Values
	}
	all := make([]string, len(r.Values))
	for i, v := range r.Values {
		all[i] = quote(v)
	}
	return all
}

// served waits until the name servers have what Designate has.
func (r *Registrar) served(ctx context.Context, z zone) error {
	ctx, cancel := context.WithTimeoutCause(ctx, r.opts.Timeout, fmt.Errorf("the name servers have not got it within %v: %w", r.opts.Timeout, context.DeadlineExceeded))
	defer cancel()
	for pause := 50 * time.Millisecond; ; pause = min(2*pause, time.Second) {
		var now zone
		_, err := r.opts.Client.Get(ctx, r.opts.Client.ServiceURL("zones", z.ID), &now, nil)
		switch {
		case ctx.Err() != nil:
			return fmt.Errorf("designate: zone %s: %w", z.Name, context.Cause(ctx))
		case err != nil && statusOf(err) < 500 && statusOf(err) != 0:
			return fmt.Errorf("designate: zone %s: %w", z.Name, clean(err))
		case err == nil && now.Status == "ACTIVE":
			return nil
		case err == nil && now.Status == "ERROR":
			return fmt.Errorf("designate: zone %s is in ERROR: its name servers do not take it", z.Name)
		}
		t := time.NewTimer(pause)
		select {
		case <-t.C:
		case <-ctx.Done():
			t.Stop()
		}
	}
}

// zone finds a zone by its name.
func (r *Registrar) zone(ctx context.Context, name string) (zone, error) {
	name, err := dnsreg.CanonicalName(name)
	if err != nil {
		return zone{}, err
	}
	all, err := list[zone](ctx, r.opts.Client, "zones", url.Values{"name": {name}}, "zones")
	if err != nil {
		return zone{}, fmt.Errorf("designate: zone %s: %w", name, err)
	}
	if i := slices.IndexFunc(all, func(z zone) bool { return z.Name == name }); i >= 0 {
		return all[i], nil
	}
	return zone{}, fmt.Errorf("%s: %w", name, dnsreg.ErrNoZone)
}

// sets lists recordsets, without those that are being deleted.
func (r *Registrar) sets(ctx context.Context, z zone, q url.Values) ([]set, error) {
	all, err := list[set](ctx, r.opts.Client, "recordsets", q, "zones", z.ID, "recordsets")
	return slices.DeleteFunc(all, func(s set) bool { return s.Action == "DELETE" }), err
}

// list follows the pages of a list.
func list[T any](ctx context.Context, sc *gophercloud.ServiceClient, key string, q url.Values, path ...string) ([]T, error) {
	var all []T
	base := sc.ServiceURL(path...)
	for seen := map[string]bool{}; ; {
		query := q.Encode()
		if seen[query] {
			return nil, fmt.Errorf("the list of %s has no end: its page %q follows itself", key, query)
		}
		seen[query] = true
		var page map[string]json.RawMessage
		if _, err := sc.Get(ctx, base+"?"+query, &page, nil); err != nil {
			if ctx.Err() != nil {
				return nil, context.Cause(ctx)
			}
			return nil, clean(err)
		}
		var some []T
		var links struct{ Next string }
		if err := json.Unmarshal(page[key], &some); err != nil {
			return nil, fmt.Errorf("the list of %s: %w", key, err)
		}
		if raw, ok := page["links"]; ok {
			if err := json.Unmarshal(raw, &links); err != nil {
				return nil, fmt.Errorf("the list of %s: %w", key, err)
			}
		}
		all = append(all, some...)
		if links.Next == "" {
			return all, nil
		}
		next, err := url.Parse(links.Next)
		if err != nil {
			return nil, fmt.Errorf("the list of %s: %w", key, err)
		}
		q = next.Query()
	}
}
