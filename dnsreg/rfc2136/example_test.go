package rfc2136_test

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/scalr-go/scalr/dnsreg"
	"github.com/scalr-go/scalr/dnsreg/nameserver"
	"github.com/scalr-go/scalr/dnsreg/rfc2136"
	"github.com/scalr-go/scalr/dnsreg/tsig"
)

func Example() {
	ctx, cancel := context.WithCancel(context.Background())
	var run sync.WaitGroup
	defer run.Wait()
	defer cancel()

	// any name server that takes dynamic updates; here the embedded one
	key := tsig.Key{Name: "farm.", Secret: []byte("0123456789abcdef0123456789abcdef")}
	server, err := nameserver.New(nameserver.Options{Zones: []nameserver.Zone{{Name: "example.com.", Updaters: []tsig.Key{key}}}})
	if err != nil {
		fmt.Println(err)
		return
	}
	run.Go(func() { _ = server.Run(ctx) })

	registrar, err := rfc2136.New(rfc2136.Options{Server: server.Addr().String(), Key: key})
	if err != nil {
		fmt.Println(err)
		return
	}
	made, err := dnsreg.Sync(ctx, registrar, "example.com.", "shop", []dnsreg.RRset{
		{Name: "www.example.com.", Type: "A", TTL: 20 * time.Second, Values: []string{"192.0.2.1", "192.0.2.2"}},
	})
	fmt.Println(made[0], err)
	// Output:
	// + www.example.com. A 192.0.2.1 ttl=20s
	// + www.example.com. A 192.0.2.2 ttl=20s <nil>
}
