package replication_test

import (
	"context"
	"fmt"

	"github.com/scalr-go/scalr/replication"
	"github.com/scalr-go/scalr/replication/memdb"
)

// Three empty servers become a set, its primary is killed, and a replica takes over.
func Example() {
	db := memdb.New(memdb.Options{})
	var members []replication.Member
	for _, id := range []string{"db-1", "db-2", "db-3"} {
		db.Start(id + ":3306")
		members = append(members, replication.Member{ID: id, Addr: id + ":3306"})
	}
	manager, err := replication.New(replication.Config{Name: "shop/db", Engine: db, Policy: replication.Durability})
	if err != nil {
		panic(err)
	}
	manager.SetMembers(members, len(members))

	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error)
	go func() { done <- manager.Run(ctx) }()

	until := func(cond func(replication.Topology) bool) replication.Topology {
		for {
			t, changed := manager.Topology()
			if cond(t) {
				return t
			}
			<-changed
		}
	}
	until(func(t replication.Topology) bool {
		serving := 0
		for _, m := range t.Members {
			if m.Serves {
				serving++
			}
		}
		return serving == 3
	})
	fmt.Println(db.Write(ctx, "db-1:3306", "question", "42"))

	db.Crash("db-1:3306")
	t := until(func(t replication.Topology) bool { return t.Epoch == 2 })
	_, found, _ := db.Read(ctx, t.Primary+":3306", "question")
	fmt.Println("primary:", t.Primary, "loss:", t.Verdict.Loss, "found:", found)

	cancel()
	fmt.Println(<-done)
	// Output:
	// <nil>
	// primary: db-2 loss: none found: true
	// context canceled
}
