package dnsreg_test

import (
	"context"
	"fmt"
	"time"

	"github.com/scalr-go/scalr/dnsreg"
)

func Example() {
	ctx := context.Background()
	registrar := &dnsreg.Memory{Zones: []string{"example.com."}}
	www := func(addresses ...string) []dnsreg.RRset {
		return []dnsreg.RRset{{Name: "www.example.com.", Type: "A", TTL: 20 * time.Second, Values: addresses}}
	}

	// Two farms share a name.
	for owner, want := range map[string][]dnsreg.RRset{"shop": www("192.0.2.1"), "blog": www("192.0.2.2")} {
		if _, err := dnsreg.Sync(ctx, registrar, "example.com.", owner, want); err != nil {
			fmt.Println(err)
		}
	}

	// A dry run for one of them, and the same for real.
	have, err := registrar.Records(ctx, "example.com.")
	if err != nil {
		fmt.Println(err)
	}
	changes, err := dnsreg.Diff("example.com.", "shop", have, www("192.0.2.3"))
	if err != nil {
		fmt.Println(err)
	}
	fmt.Println(changes[0])
	if err := registrar.Apply(ctx, "example.com.", changes); err != nil {
		fmt.Println(err)
	}
	// Output:
	// - www.example.com. A 192.0.2.1 ttl=20s
	// + www.example.com. A 192.0.2.3 ttl=20s
}
