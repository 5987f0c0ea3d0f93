// Package cronlock runs jobs by their schedules, once for each scheduled instant, on any number of machines; and it holds
// named locks across them.
//
// # Cron
//
// A [Cron] is the same in every instance of a program. Its [Job]s have a [Schedule], which [Parse] reads from a cron expression, and a
// func, or a program that [Command] runs. A [Claimer] is the record that the instances share: a run is claimed there by one of
// them before it begins, and what became of it can be read there. [Memory] is a record within one process; package
// zookeeper has one for all processes.
//
// # Locks
//
// A lock in a distributed system is a lease: it ends by itself when its holder is cut off, and the holder must know
// that before anybody else can take it. So work under a lock is a function that [Locker.Hold] runs, and the function's
// context is cancelled, with cause [ErrLost], before the lease can have passed to another holder. Whatever the work
// writes elsewhere it marks with the lease's token, so that the receiver can refuse a holder that was overtaken (Martin
// Kleppmann, "How to do distributed locking", 2016).
//
// Hold runs the work within its own call instead of handing out a lease to be released: a lease cannot be forgotten, and
// renewal needs no goroutine that outlives the call.
package cronlock

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// Errors that callers branch on.
var (
	// ErrHeld: TryHold found the lock held by somebody else.
	ErrHeld = errors.New("lock is held")
	// ErrLost: the lease could not be renewed in time and may be somebody else's by now. It is the cause of the
	// cancelled context, and Hold returns it.
	ErrLost = errors.New("lease lost")
)

// Locker grants leases on names. Implementations pass cronlocktest.Run and are safe for concurrent use.
type Locker interface {
	// Hold waits until it has the lock, runs work while it holds it, releases it and returns work's error. Waiters are
	// served in the order in which they came, as far as the implementation's store knows it.
	//
	// Work's context is derived from ctx. It is cancelled with cause ErrLost when the lease is lost; Hold then waits for
	// work to return and returns an error that is ErrLost and work's own. If ctx ends while it waits, Hold returns
	// context.Cause(ctx). The lock is released also when work panics.
	//
	// A process that stands still (SIGSTOP, a suspended machine) can wake after its lease has ended, a moment before it is
	// told. Where the lease ends by time, the Err of work's context looks at the clock, so that it knows: work asks it before what
	// must not be done twice. A context derived from it is told a moment later.
	Hold(ctx context.Context, name string, work func(context.Context, Lease) error) error

	// TryHold is Hold, except that it returns ErrHeld at once if somebody else has the lock.
	TryHold(ctx context.Context, name string, work func(context.Context, Lease) error) error
}

// Lease is a lock that is held.
type Lease struct {
	// Name is the lock's name.
	Name string
	// Token is the fencing token: greater than the token of every earlier holder of this name.
	Token uint64
	// Held is when the lease was granted, by this machine's clock.
	Held time.Time
}

// CheckName reports what is wrong with a lock's name: it must be 1 to 200 bytes of printable ASCII without spaces, in
// segments that are divided by '/' and are none of "", "." and "..".
func CheckName(name string) error {
	if len(name) == 0 || len(name) > 200 {
		return fmt.Errorf("lock name %q has %d bytes, want 1 to 200", name, len(name))
	}
	segment := 0
	for i := 0; i <= len(name); i++ {
		if i < len(name) && name[i] != '/' {
			if c := name[i]; c <= ' ' || c > '~' {
				return fmt.Errorf("lock name %q has byte %#02x, want printable ASCII without spaces", name, c)
			}
			continue
		}
		if s := name[segment:i]; s == "" || s == "." || s == ".." {
			return fmt.Errorf("lock name %q has the segment %q, want none of \"\", \".\" and \"..\"", name, s)
		}
		segment = i + 1
	}
	return nil
}
