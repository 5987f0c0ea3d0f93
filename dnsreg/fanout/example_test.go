package fanout_test

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/scalr-go/scalr/dnsreg"
	"github.com/scalr-go/scalr/dnsreg/fanout"
)

func Example() {
	here := &dnsreg.Memory{Zones: []string{"example.com."}}
	there := &dnsreg.Memory{Zones: []string{"example.com."}}
	f, err := fanout.New(fanout.Options{Zone: "example.com.", Owners: []string{"shop"}, Lead: here,
		Followers: []fanout.Follower{{Name: "there", Registrar: there}}})
	if err != nil {
		fmt.Println(err)
		return
	}
	ctx, cancel := context.WithCancel(context.Background())
	var run sync.WaitGroup
	run.Go(func() { _ = f.Run(ctx) })
	defer run.Wait()
	defer cancel()

	_, err = dnsreg.Sync(ctx, f, "example.com.", "shop", []dnsreg.RRset{
		{Name: "www.example.com.", Type: "A", TTL: 20 * time.Second, Values: []string{"192.0.2.1"}},
	})
	for f.Status()[0].Lag > 0 {
		time.Sleep(time.Millisecond)
	}
	list, _ := there.Records(ctx, "example.com.")
	fmt.Println(dnsreg.Owned("example.com.", "shop", list)[0].Values, err)
	// Output: [192.0.2.1] <nil>
}
