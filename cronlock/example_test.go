package cronlock_test

import (
	"context"
	"errors"
	"fmt"

	"github.com/scalr-go/scalr/cronlock"
)

// Work under a lock stops when its context ends, and marks what it writes elsewhere with the token.
func ExampleMemory() {
	var locks cronlock.Memory
	ctx := context.Background()

	err := locks.Hold(ctx, "reports/nightly", func(ctx context.Context, lease cronlock.Lease) error {
		fmt.Println("working under", lease.Name, "with token", lease.Token)
		busy := locks.TryHold(ctx, "reports/nightly", func(context.Context, cronlock.Lease) error { return nil })
		fmt.Println("somebody else:", busy)
		return nil
	})
	fmt.Println("returned:", err)

	// A test of one's own work takes the lease away in the middle of it.
	err = locks.Hold(ctx, "reports/nightly", func(ctx context.Context, lease cronlock.Lease) error {
		fmt.Println("working with token", lease.Token)
		locks.Expire("reports/nightly")
		<-ctx.Done()
		return errors.New("stopped half-way")
	})
	fmt.Println("lost:", errors.Is(err, cronlock.ErrLost))
	// Output:
	// working under reports/nightly with token 1
	// somebody else: lock is held
	// returned: <nil>
	// working with token 2
	// lost: true
}
