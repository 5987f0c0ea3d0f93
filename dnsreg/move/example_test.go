package move_test

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/scalr-go/scalr/dnsreg"
	"github.com/scalr-go/scalr/dnsreg/move"
	"github.com/scalr-go/scalr/dnsreg/nameserver"
)

func Example() {
	ctx, cancel := context.WithCancel(context.Background())
	var run sync.WaitGroup
	defer run.Wait()
	defer cancel()
	names, err := nameserver.New(nameserver.Options{Zones: []nameserver.Zone{{Name: "example.com."}}})
	if err != nil {
		fmt.Println(err)
		return
	}
	run.Go(func() { _ = names.Run(ctx) })
	_, err = dnsreg.Sync(ctx, names, "example.com.", "shop", []dnsreg.RRset{
		{Name: "www.example.com.", Type: "A", TTL: time.Second, Values: []string{"192.0.2.1"}},
	})
	if err != nil {
		fmt.Println(err)
		return
	}

	m := move.Move{
		Registrar: names, Zone: "example.com.", Owner: "shop", Name: "www.example.com.", Type: "A",
		Old: []string{"192.0.2.1"}, New: []string{"198.51.100.1"}, TTL: time.Second, Interval: 100 * time.Millisecond,
		Servers: []move.Lookup{move.Ask(names.Addr().String())},
	}
	var kept move.State // in a file, say, to go on from after a crash
	last, err := m.Run(ctx, kept, func(s move.State) error {
		if s.Phase != kept.Phase {
			fmt.Println(s.Phase)
		}
		kept = s
		return nil
	})
	fmt.Println(last.OldUnused(), err)
	// Output:
	// lower
	// add
	// remove
	// raise
	// done
	// true <nil>
}
