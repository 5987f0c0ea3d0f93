package cronlock_test

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/scalr-go/scalr"
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

// Every program that runs this runs the job, once for each scheduled instant. On several machines the store is one that
// they share, such as zookeeper.Client.
func ExampleCron() {
	var store cronlock.Memory
	ctx, cancel := context.WithCancel(context.Background())
	cron := cronlock.Cron{Claimer: &store, Jobs: []cronlock.Job{{
		Name: "report", Schedule: cronlock.MustParse("TZ=Europe/Paris 0 3 * * *"),
		Run: func(ctx context.Context, r cronlock.Run) error {
			fmt.Println("run of", r.Job, "attempt", r.Attempt)
			cancel()
			return nil
		},
	}}}
	if _, err := cron.Trigger(ctx, "report"); err != nil {
		fmt.Println(err)
	}
	fmt.Println(cron.Run(ctx))
	// Output:
	// run of report attempt 1
	// context canceled
}

// Runs of the past are asked for, and the record says what became of them.
func ExampleCron_Backfill() {
	var store cronlock.Memory
	ctx, cancel := context.WithCancel(context.Background())
	ended := 0
	cron := cronlock.Cron{Claimer: &store, Jobs: []cronlock.Job{{
		Name: "report", Schedule: cronlock.MustParse("0 3 * * *"),
		Run: func(_ context.Context, r cronlock.Run) error {
			if r.At.Day() == 2 {
				return errors.New("no data for that day")
			}
			return nil
		},
	}}, Events: func(e scalr.Event) { // one after another
		if e.Kind == cronlock.RunSucceeded || e.Kind == cronlock.RunFailed {
			if ended++; ended == 3 {
				cancel()
			}
		}
	}}
	from := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	n, err := cron.Backfill(ctx, "report", from, from.AddDate(0, 0, 3))
	fmt.Println(n, "runs asked for:", err)
	fmt.Println(cron.Run(ctx))

	history, err := cron.History(context.Background(), "report", from, from.AddDate(0, 0, 3))
	for _, c := range history {
		fmt.Printf("%s %s %q\n", c.At.Format(time.DateTime), c.Status, c.Error)
	}
	fmt.Println(err)
	// Output:
	// 3 runs asked for: <nil>
	// context canceled
	// 2026-01-01 03:00:00 succeeded ""
	// 2026-01-02 03:00:00 failed "no data for that day"
	// 2026-01-03 03:00:00 succeeded ""
	// <nil>
}

// A time that the clock skips is not lost, and one that it shows twice is not run twice.
func ExampleParse() {
	s, err := cronlock.Parse("TZ=America/New_York 30 2 * * *")
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(s.Words())
	at := time.Date(2025, 3, 8, 12, 0, 0, 0, time.UTC)
	for range 2 {
		at = s.Next(at)
		fmt.Println(at)
	}
	fmt.Println(s.Prev(at.Add(-24 * time.Hour)))
	_, err = cronlock.Parse("0 0 30 2 *")
	fmt.Println(err)
	// Output:
	// at 02:30, every day, in America/New_York
	// 2025-03-09 03:00:00 -0400 EDT
	// 2025-03-10 02:30:00 -0400 EDT
	// 2025-03-08 02:30:00 -0500 EST
	// schedule "0 0 30 2 *": day of month "30": month "2" has 29 days at most, want 1 to 29
}
