package health_test

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/scalr-go/scalr/dnsreg"
	"github.com/scalr-go/scalr/dnsreg/health"
)

func Example() {
	ctx := context.Background()
	registrar := &dnsreg.Memory{Zones: []string{"example.com."}}
	gate, err := health.New(health.Options{Fall: 2, Check: func(_ context.Context, _, address string) error {
		if address == "192.0.2.2" { // a real one asks the machine: a connection, a page
			return errors.New("connection refused")
		}
		return nil
	}})
	if err != nil {
		fmt.Println(err)
		return
	}
	want := []dnsreg.RRset{{Name: "www.example.com.", Type: "A", TTL: 20 * time.Second, Values: []string{"192.0.2.1", "192.0.2.2"}}}
	for range 2 {
		gate.Probe(ctx, want)
		changes, err := dnsreg.Sync(ctx, registrar, "example.com.", "shop", gate.Filter(want))
		if err != nil {
			fmt.Println(err)
		}
		for _, c := range changes {
			if c.Type == "A" {
				fmt.Println(c)
			}
		}
	}
	// Output:
	// + www.example.com. A 192.0.2.1 ttl=20s
	// + www.example.com. A 192.0.2.2 ttl=20s
	// - www.example.com. A 192.0.2.2 ttl=20s
}
