// Package dnsreg keeps the names in a DNS zone up to date through a [Registrar], without ever touching what somebody
// else put there.
//
// # The model
//
// A zone is a set of [RRset] (RFC 2181, section 5): all values of one name and type, with one TTL. A [Change] replaces
// one RRset by another and carries the old one as its precondition, so that of two writers who race one fails with
// [ErrConflict] instead of undoing the other's work. [Diff] is a pure function from what a zone holds and what an owner
// wants to the changes between them; [Sync] reads, diffs and applies. Everything is compared in its one canonical form
// (see [Canonical]), so that no record is ever changed to what it is already.
//
// # Ownership
//
// Several owners (farms, people) share a zone and even one RRset. Ownership is kept for each value: beside a name that an
// owner has values at stands a TXT RRset that says which owner put which value there. The mark is written in the same
// change set as the value. An owner removes only values that bear its mark, and adds its values to those of others; a
// value without a mark is a person's and stays, also where an owner wants the same one: then the owner does not mark it
// and never removes it. A value that several owners want bears the mark of each and goes with the last of them.
//
// The marks of "www.example.com." are TXT values at "_scalr.www.example.com."; those of the wildcard "*.example.com."
// are at "_scalr-any.example.com.", since many hosts take an asterisk as the first label only. One mark is one TXT value:
//
//	v=scalr1 owner=shop type=A ttl=20 value=192.0.2.1
//	v=scalr1 owner=shop type=TXT ttl=300 sha256=9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08
//
//	v=scalr2 owner=shop type=A ttl=20 addresses=wAACAcAAAgI
//
// The last form marks several addresses: in base64 (RFC 4648, section 5, without padding), one after the other, ascending. It
// is taken for more than 100 addresses of one owner at one name, so that marks need less room than what they mark. The hash
// stands for a value that is longer than 128 bytes or that a host could alter on its way: one with a quote, a backslash, a
// semicolon, a space at an end, or anything but printable ASCII. TXT values at a mark's name that are not exactly of these
// forms are somebody else's and stay. A mark without its value, as a program that ends half-way leaves it on a registrar
// that is not atomic, holds for the value when it comes, whoever puts it there. A mark below a delegation (NS) is listed
// with the zone but never answered.
//
// # How much one name holds
//
// All values of a name and type are one answer, of at most 65535 bytes (RFC 1035, section 4.2.2). So a name has at most 4000
// addresses of type A, or 2285 of type AAAA: [Canonical] refuses more. What is more than about 70 addresses comes by TCP
// only, and not every client reads all of it; before some hundreds of machines the name of a balancer does more. Hosts may
// take less: Route 53 takes 400 values. How much of a name can change at once depends on the registrar.
//
// # TTL
//
// An RRset has one TTL whoever its values belong to (RFC 2181, section 5.2). It is the shortest that its owners want, each
// of whom has written its wish into its marks; where a value without a mark is among them, it is never raised. So no
// resolver keeps an owner's value for longer than that owner allows, and two owners never take turns in changing it.
package dnsreg

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
)

// RRset is all values of one name and type.
type RRset struct {
	// Name is absolute and in lower case, with the trailing dot: "www.example.com.".
	Name string
	// Type is "A", "AAAA", "CNAME", "TXT", "SRV", "MX" or "NS" (and "SOA", which registrars list but never change).
	Type string
	// TTL is how long a resolver may keep it, in whole seconds. 0 means not at all (RFC 1035, section 3.2.1).
	TTL time.Duration
	// Values are in presentation format (RFC 1035, section 5), without order and without repetition: "192.0.2.1",
	// "10 mail.example.com.". A TXT value is its text as it is, unquoted; registrars quote and split it.
	Values []string
}

// Equal reports whether two canonical RRsets are the same.
func (r RRset) Equal(o RRset) bool {
	return r.Name == o.Name && r.Type == o.Type && r.TTL == o.TTL && slices.Equal(r.Values, o.Values)
}

// Change replaces one RRset. Old and New, where they are not nil, have the change's name and type.
type Change struct {
	Name string
	Type string
	Old  *RRset // what the zone must hold now, as the precondition: nil means that there is no such RRset
	New  *RRset // what it shall hold; nil removes the RRset
}

// String gives the change as lines of a diff, one value a line: what goes, then what comes. Values that stay as they are
// have no line, and a change that changes nothing is an empty string.
//
//   - www.example.com. A 192.0.2.1 ttl=20s
//   - www.example.com. A 192.0.2.2 ttl=20s
func (c Change) String() string {
	var b strings.Builder
	lines := func(sign string, r, other *RRset) {
		if r == nil {
			return
		}
		for _, v := range r.Values {
			if other != nil && other.TTL == r.TTL && slices.Contains(other.Values, v) {
				continue
			}
			if r.Type == "TXT" {
				v = strconv.QuoteToASCII(v)
			}
			if b.Len() > 0 {
				b.WriteByte('\n')
			}
			fmt.Fprintf(&b, "%s %s %s %s ttl=%ds", sign, r.Name, r.Type, v, int64(r.TTL/time.Second))
		}
	}
	lines("-", c.Old, c.New)
	lines("+", c.New, c.Old)
	return b.String()
}

// Errors that callers branch on.
var (
	// ErrConflict: a precondition did not hold, somebody else has changed the zone. Read again, diff again.
	ErrConflict = errors.New("zone has changed meanwhile")
	// ErrInvalid: the change can never succeed as it is. The message names the record, the value and the rule.
	ErrInvalid = errors.New("invalid")
	// ErrNoZone: the registrar does not have this zone.
	ErrNoZone = errors.New("no such zone")
)

// Registrar reads and changes zones. Implementations pass dnsregtest.Run and are safe for concurrent use.
type Registrar interface {
	// Records lists all RRsets of the zone, canonical and sorted by name and type. The zone is an absolute name. The list
	// belongs to the caller.
	Records(ctx context.Context, zone string) ([]RRset, error)

	// Apply makes the changes, each under its precondition. Where Capabilities says Atomic it makes all or none;
	// elsewhere it makes them in the given order, and a failure half-way is a *PartialError that says which were made and
	// which may have been. No changes are no call. Implementations pass what they get through CanonicalChanges first, so
	// that the same changes are ErrInvalid everywhere. A precondition is about the values; a registrar that can compares
	// the TTL too.
	Apply(ctx context.Context, zone string, changes []Change) error

	// Capabilities says what the registrar can do. It makes no calls.
	Capabilities() Capabilities
}

// Capabilities is what a registrar can do.
type Capabilities struct {
	Atomic        bool          // Apply makes all changes of a call or none
	Preconditions bool          // Change.Old is checked by the server; elsewhere it is checked by reading just before
	MaxChanges    int           // the most changes that one Apply takes, more are ErrInvalid; 0 means no limit
	MinTTL        time.Duration // shorter TTLs are refused with ErrInvalid
}

// PartialError is what Apply returns when it made some of the changes and not all, or does not know. The three lists hold
// each change of the call once.
type PartialError struct {
	Done    []Change // were made
	Unknown []Change // may have been made: the reply was lost
	Failed  []Change // were not made
	Err     error    // why
}

// Error gives the numbers and the cause.
func (e *PartialError) Error() string {
	return fmt.Sprintf("%d changes made, %d unknown, %d not made: %v", len(e.Done), len(e.Unknown), len(e.Failed), e.Err)
}

// Unwrap gives the cause.
func (e *PartialError) Unwrap() error { return e.Err }
