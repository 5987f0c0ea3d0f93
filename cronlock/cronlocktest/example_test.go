package cronlocktest_test

import (
	"testing"

	"github.com/scalr-go/scalr/cronlock"
	"github.com/scalr-go/scalr/cronlock/cronlocktest"
)

// The tests of an implementation: a fresh store for each rule, and how to take a lease away.
func ExampleRun() {
	TestLocker := func(t *testing.T) {
		cronlocktest.Run(t, func(testing.TB) cronlocktest.Store {
			var m cronlock.Memory
			return cronlocktest.Store{
				Open: func() cronlock.Locker { return &m },
				Lose: func(name string) { m.Expire(name) },
			}
		})
	}
	TestClaimer := func(t *testing.T) {
		cronlocktest.RunClaimer(t, func(testing.TB) cronlocktest.ClaimStore {
			var m cronlock.Memory
			return cronlocktest.ClaimStore{
				Open: func() cronlock.Claimer { return &m },
				Lose: func(runner string) { m.Expire(runner) },
			}
		})
	}
	_, _ = TestLocker, TestClaimer // in a file of their own: func TestLocker(t *testing.T)
	// Output:
}
