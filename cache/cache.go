// Package cache reads through a set of cache servers, so that a database is asked once and not once for each reader.
//
// # Two layers
//
// A [Store] is a set of cache servers as one key space: bytes under keys, with the conditional writes that memcached has.
// [Memory] is one within the process; cache/memcached speaks to real servers, chosen for each key by rendezvous hashing,
// and follows the members of a farm's role (see [Follower]), or their names (see [Names]). Implementations pass cachetest.Run.
//
// [Of] is a typed read-through on a store:
//
//	pages := cache.Of[Page]{Store: store, Prefix: "page:", TTL: time.Minute}
//	page, err := pages.Get(ctx, "42", func(ctx context.Context) (Page, error) { return queryPage(ctx, db, 42) })
//
// # What is guaranteed
//
// After a write to the database, [Of.Delete] removes what is cached. Once Delete has returned nil, no Get that begins
// later returns a value that was loaded before, and none is stored: a load that is under way holds a lease, which the
// Delete voids (Nishtala et al., "Scaling Memcache at Facebook", NSDI 2013, section 3.2.1). This holds for all processes
// that see the same servers. It cannot hold for a server that missed the Delete and is asked again later: one that some
// processes use for a key while others use another one, as they learn that a server is down or that the members have changed, or
// one that left the set and came back with its old content. There the store says what the bound is: see cache/memcached.
// [Of.Near] adds its NearTTL in every other process.
//
// A cache is allowed to forget: any item may vanish at any time. When servers fail, Of loads without them.
package cache

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"
)

// Store is a set of cache servers as one key space. Implementations pass cachetest.Run and are safe for concurrent use.
//
// Every method checks its arguments first ([CheckKey], [Item.Check]), fails with the cause of a context that has ended,
// and otherwise returns the sentinel errors below as they are, or an [Error]. Values that are handed in or out are the
// caller's: a store keeps copies.
type Store interface {
	// Get returns the item, or ErrMiss.
	Get(ctx context.Context, key string) (Item, error)

	// GetMulti returns the items that there are, by key, in as few round trips as it can; keys may repeat. If it cannot
	// tell about some keys, because they are invalid or their server fails, it returns what it has of the others and a
	// *PartialError that names those.
	GetMulti(ctx context.Context, keys []string) (map[string]Item, error)

	// Set stores the item, whatever there is. When it fails, what was there may be gone.
	Set(ctx context.Context, item Item) error

	// Add stores the item if there is none under its key, else it returns ErrNotStored.
	Add(ctx context.Context, item Item) error

	// CompareAndSwap stores the item if what is under its key is what the Get or GetMulti saw that item.Version comes
	// from. It returns ErrNotStored if something was stored since, and ErrMiss if there is nothing any more. It never
	// stores over something else, also if servers were restarted or replaced in between; it may then fail without need.
	CompareAndSwap(ctx context.Context, item Item) error

	// Delete removes the item, if there is one.
	Delete(ctx context.Context, key string) error
}

// Leaser is a store that leases a missing key in the round trip that finds it missing. [Of] uses it where it is there, and
// elsewhere takes leases with Add and Get.
type Leaser interface {
	// Lease is Get, except that where there is nothing it stores an empty item with Flags 0 for ttl and returns that: won is
	// true for the one caller who made it store that, whoever else comes while it is there. If the store cannot tell who won,
	// it stores nothing and returns ErrMiss.
	Lease(ctx context.Context, key string, ttl time.Duration) (item Item, won bool, err error)
}

// HandOver is a store that knows who had a key before its servers changed. [Of] asks for a value there before it loads one.
type HandOver interface {
	// GetPrevious returns the item that the previous owner of the key has, without a version, or ErrMiss. It must be called
	// under a lease: whoever deletes removes the item there first, and then the lease.
	GetPrevious(ctx context.Context, key string) (Item, error)
}

// Item is what is stored under a key.
type Item struct {
	// Key has 1 to 250 bytes: see CheckKey.
	Key string
	// Value has at most MaxValue bytes.
	Value []byte
	// Flags are the caller's own and are kept with the value.
	Flags uint32
	// TTL is how long the item may be returned; 0 means until it is evicted. Stores may round up to whole seconds and to
	// no less than two, and end it up to a second earlier. Get does not return it.
	TTL time.Duration
	// Version is set by Get and GetMulti and is what CompareAndSwap compares. Only the store that set it understands it.
	Version any
}

// MaxValue is the most bytes that a value may have. A server may take a little less, for its own overhead.
const MaxValue = 1 << 20

// Errors that callers branch on.
var (
	// ErrMiss: there is no item under the key.
	ErrMiss = errors.New("cache miss")
	// ErrNotStored: the condition of Add or CompareAndSwap does not hold.
	ErrNotStored = errors.New("not stored")
	// ErrInvalid: the call can never succeed as it is. The message names the field, the value and the rule.
	ErrInvalid = errors.New("invalid")
	// ErrTooLarge: the value is larger than MaxValue, or than the server takes.
	ErrTooLarge = errors.New("value too large")
	// ErrNoServers: the set of servers is empty.
	ErrNoServers = errors.New("no cache servers")
	// ErrDown: the server has failed shortly before and is not asked for the moment.
	ErrDown = errors.New("cache server is down")
)

// Error is a failure of one call.
type Error struct {
	Op     string // the method: "Get"
	Key    string // empty where it is about several
	Server Server // the server that was asked; zero where none was
	Err    error
}

// Error gives "Op "key": slot (address): cause".
func (e *Error) Error() string {
	s := e.Op
	if e.Key != "" {
		s += fmt.Sprintf(" %q", e.Key)
	}
	if e.Server != (Server{}) {
		s += ": " + e.Server.String()
	}
	return s + ": " + e.Err.Error()
}

// Unwrap gives the cause.
func (e *Error) Unwrap() error { return e.Err }

// PartialError says about which keys GetMulti could not tell, and why.
type PartialError struct {
	Failed map[string]error // by key
}

// Error gives the number of keys and the failure of the first one.
func (e *PartialError) Error() string {
	for _, key := range slices.Sorted(maps.Keys(e.Failed)) {
		return fmt.Sprintf("%d keys failed, the first is %q: %v", len(e.Failed), key, e.Failed[key])
	}
	return "no keys failed"
}

// Unwrap gives the failures, in the order of keys.
func (e *PartialError) Unwrap() []error {
	var errs []error
	for _, key := range slices.Sorted(maps.Keys(e.Failed)) {
		errs = append(errs, e.Failed[key])
	}
	return errs
}

// Server is one cache server.
type Server struct {
	// Slot is the stable name of the server's place in the set ("cache-1"). The slot owns the keys: a server that
	// replaces another one in its slot gets the same keys, and no other key moves.
	Slot string
	// Addr is host:port.
	Addr string
}

// String gives "slot (address)".
func (s Server) String() string { return s.Slot + " (" + s.Addr + ")" }

// Follower is a store whose servers change while it is in use. A farm calls it with the members of its cache role.
type Follower interface {
	// SetServers replaces the set of servers at once: each call goes by the old set or by the new one. On an error
	// nothing has changed. An empty set is allowed; calls then fail with ErrNoServers.
	SetServers(servers []Server) error
}

// CheckKey reports what is wrong with a key: it must have 1 to 250 bytes, none of them a space or a control character.
// The error is ErrInvalid. Keys are refused and never rewritten, so that a key in an error or in a server's own tools is
// the caller's.
func CheckKey(key string) error {
	if len(key) == 0 || len(key) > 250 {
		return fmt.Errorf("%w: key %.260q has %d bytes, want 1 to 250", ErrInvalid, key, len(key))
	}
	for i := range len(key) {
		if c := key[i]; c <= ' ' || c == 0x7f {
			return fmt.Errorf("%w: key %q has byte %#02x at %d, want no space and no control character", ErrInvalid, key, c, i)
		}
	}
	return nil
}

// Check reports what is wrong with an item that is to be stored. The error is ErrInvalid or ErrTooLarge.
func (i Item) Check() error {
	if err := CheckKey(i.Key); err != nil {
		return err
	}
	if len(i.Value) > MaxValue {
		return fmt.Errorf("%w: item %q has %d bytes, want at most %d", ErrTooLarge, i.Key, len(i.Value), MaxValue)
	}
	if i.TTL < 0 {
		return fmt.Errorf("%w: item %q has TTL %v, want 0 or more", ErrInvalid, i.Key, i.TTL)
	}
	return nil
}
