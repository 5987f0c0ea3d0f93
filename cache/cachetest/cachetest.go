// Package cachetest is the conformance suite for implementations of cache.Store.
//
//	func TestConformance(t *testing.T) {
//		cachetest.Run(t, func(testing.TB) cache.Store { return new(cache.Memory) })
//	}
//
// A store that is a cache.Leaser is held to that contract too, and RunHandOver is the suite for a cache.HandOver.
//
// Each failure begins with the rule that was broken, in words. No rule depends on how long anything takes: waits are for
// a condition, and their bound only decides when a broken implementation is given up.
package cachetest

import (
	"context"
	"testing"
	"time"

	"github.com/scalr-go/scalr/cache"
)

// Run holds a store to the rules of cache.Store, and to carry the leases of cache.Of. The factory makes an empty store for
// each rule, or one whose keys nobody else uses, and closes it with t.Cleanup. Rules run in parallel.
func Run(t *testing.T, factory func(t testing.TB) cache.Store) {
	for _, r := range rules {
		t.Run(r.name, func(t *testing.T) {
			t.Parallel()
			r.run(t, factory)
		})
	}
}

// rule is one rule of the contract.
type rule struct {
	name  string
	words string
	check func(h *harness)
}

func (r rule) run(t testing.TB, factory func(t testing.TB) cache.Store) {
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	r.check(&harness{TB: t, Store: factory(t), ctx: ctx, rule: r.words})
}

// patience bounds every wait of a rule. A correct implementation never comes near.
const patience = 30 * time.Second

var rules = []rule{
	{"Set and Get", "Get returns what was stored last, with its flags and a version", setAndGet},
	{"Miss", "what is not there is ErrMiss", miss},
	{"GetMulti", "GetMulti returns the items that there are, as Get does, and no error for those that there are not", getMulti},
	{"Keys", "a key is 1 to 250 bytes without spaces and control characters, as it is; any other is ErrInvalid", keys},
	{"Invalid key among others", "a key that GetMulti cannot ask for does not spoil the others, and is named", invalidAmongOthers},
	{"Values", "a value above MaxValue is ErrTooLarge, a TTL below zero is ErrInvalid, and nothing is stored", values},
	{"Add", "Add stores where nothing is, and is ErrNotStored elsewhere", add},
	{"CompareAndSwap", "CompareAndSwap stores over what was read; ErrNotStored if it was replaced, ErrMiss if it is gone", compareAndSwap},
	{"Delete", "Delete removes, and what is not there is no error", remove},
	{"TTL", "an item is gone after its TTL and not much before, however long it is, and never without one", expiry},
	{"Copies", "slices and maps that are handed in or out are the caller's", copies},
	{"Context", "a context that has ended fails every call with its cause, and nothing is done", contexts},
	{"Concurrency", "of conditional writes at once one succeeds", concurrency},
	{"One load", "of all who miss a value at once, one loads it", oneLoad},
	{"Lease", "of all who lease what is missing one wins, and a Delete voids it; the lease is a stub that ends", leases},
	{"Delete voids a lease", "a value that was being loaded when Delete returned is not stored", voidedLease},
}
