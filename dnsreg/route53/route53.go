// Package route53 is a [dnsreg.Registrar] for hosted zones of Amazon Route 53.
//
// A change set is one call of ChangeResourceRecordSets, which Route 53 makes as a whole or not at all. What a change replaces
// is deleted in it by its exact TTL and values and what it puts there is created, so that a change whose precondition does
// not hold fails: nothing is upserted, with the one exception of a zone's own NS, which Route 53 does not let anybody delete.
//
// A call that is throttled is made again, within its context. A call whose reply was lost is not: the error is then a
// *dnsreg.PartialError with all changes Unknown.
//
// Aliases and record sets with a routing policy (weighted, by latency and so on) are not listed and never changed: they
// have no values that a DNS client would get. To create a record where one stands is ErrInvalid.
//
// Route 53 answers with a change some seconds after the call, at most within a minute.
package route53

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/aws/ratelimit"
	"github.com/aws/aws-sdk-go-v2/aws/retry"
	"github.com/aws/aws-sdk-go-v2/service/route53"
	"github.com/aws/aws-sdk-go-v2/service/route53/types"
	"github.com/aws/smithy-go"
	smithyhttp "github.com/aws/smithy-go/transport/http"

	"github.com/scalr-go/scalr/dnsreg"
)

// The limits of one call (Amazon Route 53 API Reference, ChangeResourceRecordSets).
const (
	maxRecords = 1000  // values in it; those of an upsert count twice
	maxChars   = 32000 // in the values together; those of an upsert count twice
	// maxChanges is how many changes fit for sure if each replaces one value by another.
	maxChanges = maxRecords / 2
	// attempts bound how often a call is made that is throttled: Route 53 takes five a second of one account, and a process
	// has to share them.
	attempts   = 10
	maxBackoff = 5 * time.Second
)

// Options says which zones to change.
type Options struct {
	// Client calls Route 53. Required. Its retries are replaced.
	Client *route53.Client
	// Private makes it look for private zones where it finds a zone by its name; else it takes public ones.
	Private bool
	// Zones gives the IDs of hosted zones by their names, where a name alone does not tell: "example.com." has "Z123". Optional.
	Zones map[string]string
}

// Registrar changes hosted zones. It is safe for concurrent use.
type Registrar struct {
	opts Options

	mu    sync.Mutex
	zones map[string]string // IDs by name
}

var _ dnsreg.Registrar = (*Registrar)(nil)

// New checks the options. It makes no call.
func New(o Options) (*Registrar, error) {
	if o.Client == nil {
		return nil, errors.New("route53: Client is missing")
	}
	r := &Registrar{opts: o, zones: make(map[string]string)}
	for name, id := range o.Zones {
		zone, err := dnsreg.CanonicalName(name)
		if err != nil {
			return nil, fmt.Errorf("route53: Zones: %w", err)
		}
		if id == "" {
			return nil, fmt.Errorf("route53: Zones has no ID for %s", zone)
		}
		r.zones[zone] = id
	}
	return r, nil
}

// Capabilities says that change sets are atomic and conditional, and have at most 500 changes. One whose values are more
// than Route 53 takes in a call (1000 values, 32000 characters) is ErrInvalid; [dnsreg.Sync] halves it.
func (r *Registrar) Capabilities() dnsreg.Capabilities {
	return dnsreg.Capabilities{Atomic: true, Preconditions: true, MaxChanges: maxChanges}
}

// Records lists the zone, page by page: what changes meanwhile is seen or not.
func (r *Registrar) Records(ctx context.Context, zone string) ([]dnsreg.RRset, error) {
	zone, id, err := r.zone(ctx, zone)
	if err != nil {
		return nil, err
	}
	all, err := r.list(ctx, zone, id)
	if err != nil {
		return nil, err
	}
	list := []dnsreg.RRset{}
	for _, s := range all {
		if s.AliasTarget != nil || s.SetIdentifier != nil {
			continue
		}
		set, err := decode(s)
		if err != nil {
			return nil, fmt.Errorf("route53: records of %s: %w", zone, err)
		}
		list = append(list, set)
	}
	slices.SortFunc(list, func(a, b dnsreg.RRset) int { return cmp.Or(cmp.Compare(a.Name, b.Name), cmp.Compare(a.Type, b.Type)) })
	return list, nil
}

// list gives everything that the zone has.
func (r *Registrar) list(ctx context.Context, zone, id string) (all []types.ResourceRecordSet, err error) {
	in := &route53.ListResourceRecordSetsInput{HostedZoneId: &id}
	for {
		page, err := r.opts.Client.ListResourceRecordSets(ctx, in, retries(true))
		if err != nil {
			return nil, r.failed(ctx, "records", zone, err)
		}
		all = append(all, page.ResourceRecordSets...)
		if !page.IsTruncated {
			return all, nil
		}
		in.StartRecordName, in.StartRecordType, in.StartRecordIdentifier = page.NextRecordName, page.NextRecordType, page.NextRecordIdentifier
	}
}

// Apply makes all changes or none.
func (r *Registrar) Apply(ctx context.Context, zone string, changes []dnsreg.Change) error {
	if len(changes) == 0 {
		return nil
	}
	changes, err := dnsreg.CanonicalChanges(zone, changes)
	if err != nil {
		return err
	}
	zone, id, err := r.zone(ctx, zone)
	if err != nil {
		return err
	}
	// What the call says is in the way is looked at, and tried once more if it was only how a text is cut into strings.
	var listed map[setKey]types.ResourceRecordSet
	for {
		err := r.change(ctx, zone, id, changes, listed)
		refused, ok := errors.AsType[*refusedError](err)
		if !ok {
			return err
		}
		odd, err := r.why(ctx, zone, id, changes, refused.message)
		if len(odd) == 0 || listed != nil {
			return err
		}
		listed = odd
	}
}

type setKey struct{ name, typ string }

// refusedError is that Route 53 does not take a batch.
type refusedError struct{ message string }

func (e *refusedError) Error() string { return e.message }

// change sends the changes, once. What is deleted is as listed, where it is.
func (r *Registrar) change(ctx context.Context, zone, id string, changes []dnsreg.Change, listed map[setKey]types.ResourceRecordSet) error {
	batch, err := encode(zone, changes, listed)
	if err != nil {
		return err
	}
	if err := r.checkNS(ctx, zone, id, changes); err != nil {
		return err
	}
	_, err = r.opts.Client.ChangeResourceRecordSets(ctx, &route53.ChangeResourceRecordSetsInput{
		HostedZoneId: &id, ChangeBatch: &types.ChangeBatch{Changes: batch}}, retries(false))
	if err == nil {
		return nil
	}
	if code, message := refusal(err); code == "InvalidChangeBatch" {
		return &refusedError{message}
	}
	err = r.failed(ctx, "change", zone, err)
	if lost(err) {
		return &dnsreg.PartialError{Unknown: changes, Err: err}
	}
	return err
}

// checkNS reads the zone's own NS before a change of them, which Route 53 makes without a precondition.
func (r *Registrar) checkNS(ctx context.Context, zone, id string, changes []dnsreg.Change) error {
	i := slices.IndexFunc(changes, func(c dnsreg.Change) bool { return c.Name == zone && c.Type == "NS" })
	if i < 0 {
		return nil
	}
	page, err := r.opts.Client.ListResourceRecordSets(ctx, &route53.ListResourceRecordSetsInput{HostedZoneId: &id,
		StartRecordName: &zone, StartRecordType: types.RRTypeNs, MaxItems: aws.Int32(1)}, retries(true))
	if err != nil {
		return r.failed(ctx, "records", zone, err)
	}
	for _, s := range page.ResourceRecordSets {
		if set, err := decode(s); err == nil && set.Name == zone && set.Type == "NS" && changes[i].Old != nil && changes[i].Old.Equal(set) {
			return nil
		}
	}
	return fmt.Errorf("%s NS: %w: its TTL or values are others", zone, dnsreg.ErrConflict)
}

// why tells a precondition that did not hold from a change that can never be made. Route 53 says so in words, so that the
// zone is asked where they are not clear. It gives, too, what is listed of those that are to be deleted where a text is cut
// otherwise, if all else holds.
func (r *Registrar) why(ctx context.Context, zone, id string, changes []dnsreg.Change, message string) (map[setKey]types.ResourceRecordSet, error) {
	all, err := r.list(ctx, zone, id)
	if err != nil {
		return nil, fmt.Errorf("%s: %s: %w", zone, message, err)
	}
	have, odd := make(map[setKey]dnsreg.RRset), make(map[setKey]types.ResourceRecordSet)
	for _, s := range all {
		name := unescape(aws.ToString(s.Name))
		if s.AliasTarget != nil || s.SetIdentifier != nil {
			for _, c := range changes {
				if c.Name == name && (c.Type == string(s.Type) || c.Type == "CNAME" || s.Type == types.RRTypeCname) {
					return nil, fmt.Errorf("%s %s: %w: an alias or a record set with a routing policy stands there", c.Name, c.Type, dnsreg.ErrInvalid)
				}
			}
			continue
		}
		if set, err := decode(s); err == nil {
			k := setKey{set.Name, set.Type}
			if have[k] = set; set.Type == "TXT" {
				odd[k] = s
			}
		}
	}
	for _, c := range changes {
		is, ok := have[setKey{c.Name, c.Type}]
		switch {
		case c.Old == nil && ok:
			return nil, fmt.Errorf("%s %s: %w: it exists, with %d values", c.Name, c.Type, dnsreg.ErrConflict, len(is.Values))
		case c.Old != nil && !ok:
			return nil, fmt.Errorf("%s %s: %w: it does not exist", c.Name, c.Type, dnsreg.ErrConflict)
		case c.Old != nil && !c.Old.Equal(is):
			return nil, fmt.Errorf("%s %s: %w: its TTL or values are others", c.Name, c.Type, dnsreg.ErrConflict)
		}
	}
	maps.DeleteFunc(odd, func(k setKey, s types.ResourceRecordSet) bool {
		i := slices.IndexFunc(changes, func(c dnsreg.Change) bool { return c.Name == k.name && c.Type == k.typ && c.Old != nil })
		return i < 0 || !slices.ContainsFunc(s.ResourceRecords, func(v types.ResourceRecord) bool {
			text, _ := unquote(aws.ToString(v.Value))
			return quote(text) != aws.ToString(v.Value)
		})
	})
	if said := strings.ToLower(message); strings.Contains(said, "already exists") || strings.Contains(said, "not found") ||
		strings.Contains(said, "do not match the current values") {
		return odd, fmt.Errorf("%s: %w: %s", zone, dnsreg.ErrConflict, message) // it was so, and is not any more
	}
	what := fmt.Sprintf("%s %s", changes[0].Name, changes[0].Type)
	if more := len(changes) - 1; more > 0 {
		what = fmt.Sprintf("%s and %d more changes", what, more)
	}
	return odd, fmt.Errorf("%s: %w: %s", what, dnsreg.ErrInvalid, message)
}

// zone gives the zone's canonical name and its ID.
func (r *Registrar) zone(ctx context.Context, name string) (zone, id string, err error) {
	if ctx.Err() != nil {
		return "", "", context.Cause(ctx)
	}
	if zone, err = dnsreg.CanonicalName(name); err != nil {
		return "", "", err
	}
	r.mu.Lock()
	id = r.zones[zone]
	r.mu.Unlock()
	if id != "" {
		return zone, id, nil
	}
	in := &route53.ListHostedZonesByNameInput{DNSName: &zone}
	var found []string
	for {
		page, err := r.opts.Client.ListHostedZonesByName(ctx, in, retries(true))
		if err != nil {
			return "", "", r.failed(ctx, "zones", zone, err)
		}
		more := page.IsTruncated
		for _, z := range page.HostedZones {
			private := z.Config != nil && z.Config.PrivateZone
			switch {
			case unescape(aws.ToString(z.Name)) != zone:
				more = false // they are sorted, and this one comes after it
			case private == r.opts.Private:
				found = append(found, strings.TrimPrefix(aws.ToString(z.Id), "/hostedzone/"))
			}
		}
		if !more {
			break
		}
		in.DNSName, in.HostedZoneId = page.NextDNSName, page.NextHostedZoneId
	}
	switch len(found) {
	case 0:
		return "", "", fmt.Errorf("%s: %w", zone, dnsreg.ErrNoZone)
	case 1:
	default:
		return "", "", fmt.Errorf("%s: %w: %d hosted zones have this name (%s), want one of them in Options.Zones", zone, dnsreg.ErrInvalid,
			len(found), strings.Join(found, ", "))
	}
	r.mu.Lock()
	r.zones[zone] = found[0]
	r.mu.Unlock()
	return zone, found[0], nil
}

// failed says what a call's error means.
func (r *Registrar) failed(ctx context.Context, what, zone string, err error) error {
	switch code, _ := refusal(err); {
	case code == "NoSuchHostedZone":
		r.mu.Lock()
		if r.opts.Zones == nil {
			delete(r.zones, zone) // it may have been made anew, with another ID
		}
		r.mu.Unlock()
		return fmt.Errorf("%s: %w: %w", zone, dnsreg.ErrNoZone, err)
	case ctx.Err() != nil:
		return errors.Join(context.Cause(ctx), err)
	}
	return fmt.Errorf("route53: %s of %s: %w", what, zone, err)
}

// refusal gives the code and the words of an error that Route 53 has answered with.
func refusal(err error) (code, message string) {
	if batch, ok := errors.AsType[*types.InvalidChangeBatch](err); ok && len(batch.Messages) > 0 {
		return batch.ErrorCode(), strings.Join(batch.Messages, "; ")
	}
	if e, ok := errors.AsType[smithy.APIError](err); ok {
		return e.ErrorCode(), e.ErrorMessage()
	}
	return "", ""
}

// lost reports whether a change may have been made all the same: there was no answer, or one that says that Route 53 itself
// failed.
func lost(err error) bool {
	status := 0
	if e, ok := errors.AsType[*smithyhttp.ResponseError](err); ok {
		status = e.HTTPStatusCode()
	}
	return status == 0 || status >= http.StatusInternalServerError && !throttled(err)
}

func throttled(err error) bool {
	return retry.IsErrorThrottles(retry.DefaultThrottles).IsErrorThrottle(err) == aws.TrueTernary
}

// retries makes calls wait and come again when they are throttled; those that only read, after any failure that may pass.
func retries(read bool) func(*route53.Options) {
	return func(o *route53.Options) {
		o.Retryer = retry.NewStandard(func(s *retry.StandardOptions) {
			s.MaxAttempts, s.MaxBackoff = attempts, maxBackoff
			s.RateLimiter = ratelimit.None // the context bounds it, not what other calls have met
			if !read {
				s.Retryables = []retry.IsErrorRetryable{retry.IsErrorRetryableFunc(func(err error) aws.Ternary {
					return aws.BoolTernary(throttled(err))
				})}
			}
		})
	}
}
