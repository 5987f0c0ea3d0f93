package memdb_test

import (
	"context"
	"fmt"

	"github.com/scalr-go/scalr/replication"
	"github.com/scalr-go/scalr/replication/memdb"
)

func Example() {
	ctx := context.Background()
	c := memdb.New(memdb.Options{})
	a, b := replication.Member{ID: "a", Addr: "a:3306"}, replication.Member{ID: "b", Addr: "b:3306"}
	c.Start(a.Addr)
	c.Start(b.Addr)
	fmt.Println(c.Write(ctx, a.Addr, "k", "v"))

	fmt.Println(c.Promote(ctx, a, false), c.Follow(ctx, b, a))
	fmt.Println(c.Write(ctx, a.Addr, "k", "v"))
	fmt.Println(c.Rows(ctx, b.Addr))

	c.Crash(a.Addr)
	fmt.Println(c.Write(ctx, a.Addr, "k", "w"))
	// Output:
	// a:3306: server is read-only
	// <nil> <nil>
	// <nil>
	// map[k:v] <nil>
	// a:3306: connection refused
}
