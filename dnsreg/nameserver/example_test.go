package nameserver_test

import (
	"context"
	"fmt"
	"net"
	"time"

	"github.com/scalr-go/scalr/dnsreg"
	"github.com/scalr-go/scalr/dnsreg/nameserver"
)

func Example() {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	server, err := nameserver.New(nameserver.Options{Zones: []nameserver.Zone{{Name: "farm.test."}}})
	if err != nil {
		fmt.Println(err)
		return
	}
	// The server is a registrar: what is synced is answered at once. What is synced before Run is there from the first answer on.
	_, err = dnsreg.Sync(ctx, server, "farm.test.", "shop", []dnsreg.RRset{
		{Name: "www.farm.test.", Type: "A", TTL: 20 * time.Second, Values: []string{"192.0.2.1"}},
	})
	if err != nil {
		fmt.Println(err)
	}
	done := make(chan error)
	go func() { done <- server.Run(ctx) }()
	resolver := &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, network, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, network, server.Addr().String())
	}}
	fmt.Println(resolver.LookupHost(ctx, "www.farm.test."))

	cancel()
	fmt.Println(<-done)
	// Output:
	// [192.0.2.1] <nil>
	// <nil>
}
