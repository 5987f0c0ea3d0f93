package memcached_test

import (
	"fmt"

	"github.com/scalr-go/scalr/cache"
	"github.com/scalr-go/scalr/cache/memcached"
)

// The machine in the slot cache-2 is replaced. Its successor has the same keys, and no other key moves.
func Example() {
	client, err := memcached.New(memcached.Options{Servers: []cache.Server{
		{Slot: "cache-1", Addr: "192.0.2.1:11211"},
		{Slot: "cache-2", Addr: "192.0.2.2:11211"},
	}})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer client.Close()

	err = client.SetServers([]cache.Server{
		{Slot: "cache-1", Addr: "192.0.2.1:11211"},
		{Slot: "cache-2", Addr: "192.0.2.7:11211"},
	})
	fmt.Println("replaced:", err)
	for _, s := range client.Stats() {
		fmt.Println(s.Server, "hits:", s.Hits, "misses:", s.Misses)
	}
	// Output:
	// replaced: <nil>
	// cache-1 (192.0.2.1:11211) hits: 0 misses: 0
	// cache-2 (192.0.2.7:11211) hits: 0 misses: 0
}
