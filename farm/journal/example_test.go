package journal_test

import (
	"context"
	"fmt"

	"github.com/scalr-go/scalr"
	"github.com/scalr-go/scalr/farm"
	"github.com/scalr-go/scalr/farm/journal"
	"github.com/scalr-go/scalr/provider/memcloud"
)

// A journal answers why an instance is there.
func Example() {
	ctx := context.Background()
	log := new(journal.Memory) // a journal.File or journal.SQL keeps it
	w := journal.NewWriter(log)
	shop, err := farm.New(
		farm.Spec{Name: "shop", Roles: []farm.Role{{Name: "www", Image: "web", Min: 1, Max: 1}}},
		farm.Config{Pools: []farm.Pool{{Name: "here", Provider: memcloud.New(memcloud.Options{})}}, Events: w.Event})
	if err != nil {
		fmt.Println(err)
		return
	}
	if _, err = shop.Reconcile(ctx); err != nil {
		fmt.Println(err)
		return
	}
	ended, cancel := context.WithCancel(ctx)
	cancel()
	if err = w.Run(ended); err != nil { // a program runs it all the while
		fmt.Println(err)
		return
	}
	events, err := log.Read(ctx, journal.Query{Role: "www", Index: 1, Kinds: []scalr.Kind{scalr.Kind(farm.LaunchInstance)}})
	fmt.Println(events[0].Message, err)
	// Output: slot www-1 is empty <nil>
}
