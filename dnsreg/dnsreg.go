// Package dnsreg keeps the names in a DNS zone up to date through a [Registrar], without ever touching what somebody
// else put there.
//
// # The model
//
// A zone is a set of [RRset] (RFC 2181, section 5): all values of one name and type, with one TTL. A [Change] replaces
// one RRset by another and carries the old one as its precondition, so that of two writers who race one fails with
// [ErrConflict] instead of undoing the other's work. [Diff] is a pure function from what a zone holds and what an owner
// wants to the changes between them.
//
// # Ownership
//
// Several owners (farms, people) share a zone and even one RRset. Ownership is kept for each value: beside a name that an
// owner has values at stands a TXT RRset, at "_scalr." before the name, that says which owner put which value there. The
// mark is written in the same change set as the value. An owner removes only values that bear its mark, and adds its
// values to those of others; a value without a mark is a person's and stays.
package dnsreg

import (
	"context"
	"errors"
	"time"
)

// RRset is all values of one name and type.
type RRset struct {
	// Name is absolute and in lower case, with the trailing dot: "www.example.com.".
	Name string
	// Type is "A", "AAAA", "CNAME", "TXT", "SRV", "MX" or "NS" (and "SOA", which registrars list but never change).
	Type string
	// TTL is how long a resolver may keep it, in whole seconds.
	TTL time.Duration
	// Values are in presentation format (RFC 1035, section 5), without order and without repetition: "192.0.2.1",
	// "10 mail.example.com.". A TXT value is its text as it is, unquoted; registrars quote and split it.
	Values []string
}

// Change replaces one RRset. Old and New, where they are not nil, have the change's name and type.
type Change struct {
	Name string
	Type string
	Old  *RRset // what the zone must hold now, as the precondition: nil means that there is no such RRset
	New  *RRset // what it shall hold; nil removes the RRset
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
	// Records lists all RRsets of the zone, canonical and sorted by name and type. The zone is an absolute name.
	Records(ctx context.Context, zone string) ([]RRset, error)

	// Apply makes the changes, each under its precondition. Where Capabilities says Atomic it makes all or none;
	// elsewhere a failure half-way is a *PartialError that says which were made and which may have been. No changes are
	// no call.
	Apply(ctx context.Context, zone string, changes []Change) error

	// Capabilities says what the registrar can do. It makes no calls.
	Capabilities() Capabilities
}

// Capabilities is what a registrar can do.
type Capabilities struct {
	Atomic        bool          // Apply makes all changes of a call or none
	Preconditions bool          // Change.Old is checked by the server; elsewhere it is checked by reading just before
	MaxChanges    int           // the most changes that one Apply makes atomically; 0 means no limit
	MinTTL        time.Duration // shorter TTLs are refused with ErrInvalid
}
