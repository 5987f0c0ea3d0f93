package replication_test

import (
	"context"
	"fmt"
	"os"
	"sync"
	"time"

	"github.com/scalr-go/scalr/cronlock"
	"github.com/scalr-go/scalr/replication"
	"github.com/scalr-go/scalr/replication/memdb"
)

// Three empty servers become a set, its primary is killed, and a replica takes over.
func Example() {
	db := memdb.New(memdb.Options{})
	var members []replication.Member
	for i, id := range []string{"db-1", "db-2", "db-3"} {
		db.Start(id + ":3306")
		members = append(members, replication.Member{ID: id, Addr: id + ":3306", Prefer: 3 - i})
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

// A set for development gets its first data from production's replica: names are taken out before anybody may see them.
func ExampleOrigin() {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	run := func(config replication.Config, members ...replication.Member) *replication.Manager {
		m, err := replication.New(config)
		if err != nil {
			panic(err)
		}
		m.SetMembers(members, len(members))
		go m.Run(ctx)
		for {
			t, changed := m.Topology()
			serving := 0
			for _, x := range t.Members {
				if x.Serves {
					serving++
				}
			}
			if serving == len(members) {
				return m
			}
			<-changed
		}
	}
	production := memdb.New(memdb.Options{})
	production.Start("shop-1:3306")
	production.Start("shop-2:3306")
	parent := run(replication.Config{Name: "shop/db", Engine: production},
		replication.Member{ID: "db-1", Addr: "shop-1:3306"}, replication.Member{ID: "db-2", Addr: "shop-2:3306"})
	fmt.Println(production.Write(ctx, "shop-1:3306", "customer-1", "Ada Lovelace"))

	development := memdb.New(memdb.Options{})
	development.Start("dev-1:3306")
	run(replication.Config{Name: "dev/db", Engine: development, Origin: &replication.Origin{
		Engine: production, // with mysql: an engine with an account on production's servers that can only read
		Source: parent.Source,
		Scrub: func(_ context.Context, m replication.Member) error {
			development.Inject(m.Addr, "customer-1", "N. N.")
			return nil
		},
	}}, replication.Member{ID: "db-1", Addr: "dev-1:3306"})
	for _, set := range []*memdb.Cluster{production, development} {
		rows, _ := set.Rows(ctx, set.Writable()[0])
		fmt.Println(set.Writable(), rows)
	}
	// Output:
	// <nil>
	// [shop-1:3306] map[customer-1:Ada Lovelace]
	// [dev-1:3306] map[customer-1:N. N.]
}

// A set is copied to files; all of its servers are lost; a new set gets the newest of the files. A test of backups is the same,
// as farm.Drill does it, or RestoreBackup, into a server that is there for nothing else.
func ExampleBackups() {
	ctx := context.Background()
	dir, err := os.MkdirTemp("", "backups")
	if err != nil {
		panic(err)
	}
	defer os.RemoveAll(dir)
	until := func(m *replication.Manager, cond func(replication.Topology) bool) {
		running, stop := context.WithCancel(ctx)
		ended := make(chan struct{})
		go func() { defer close(ended); _ = m.Run(running) }()
		for {
			t, changed := m.Topology()
			if cond(t) {
				break
			}
			<-changed
		}
		stop()
		<-ended
	}

	lost := memdb.New(memdb.Options{})
	lost.Start("db-1:3306")
	member := replication.Member{ID: "db-1", Addr: "db-1:3306"}
	fmt.Println(lost.Promote(ctx, member, false), lost.Write(ctx, member.Addr, "order", "7"))
	manager, err := replication.New(replication.Config{Name: "shop/db", Engine: lost,
		Backups: &replication.Backups{Dir: dir, Every: 24 * time.Hour, Keep: 7, MaxAge: 30 * 24 * time.Hour}})
	if err != nil {
		panic(err)
	}
	manager.SetMembers([]replication.Member{member}, 1)
	until(manager, func(t replication.Topology) bool { return !t.Backup.IsZero() })

	found := memdb.New(memdb.Options{})
	found.Start("db-1:3306")
	manager, err = replication.New(replication.Config{Name: "shop/db", Engine: found, Origin: &replication.Origin{
		Backup: func(context.Context) (string, error) { return replication.LatestBackup(dir, "shop/db") },
	}})
	if err != nil {
		panic(err)
	}
	manager.SetMembers([]replication.Member{member}, 1)
	until(manager, func(t replication.Topology) bool { return t.Primary != "" })
	fmt.Println(found.Rows(ctx, member.Addr))
	// Output:
	// <nil> <nil>
	// map[order:7] <nil>
}

// Two host programs have a Manager for one set, and each runs it under the same lease: one works at a time. When it loses the
// lease its context ends, before the other one can have it, which goes on where the first was, in a recovery too. The members know
// the token of the lease: should the first one not have noticed, since its process stood still, they refuse it.
func ExampleManager_RunUnder() {
	db := memdb.New(memdb.Options{})
	db.Start("db-1:3306")
	member := replication.Member{ID: "db-1", Addr: "db-1:3306"}
	locker := &cronlock.Memory{} // or one of cronlock/zookeeper, for programs on several machines
	ctx, cancel := context.WithCancel(context.Background())
	tokens := make(chan uint64)
	var hosts sync.WaitGroup
	for range 2 {
		hosts.Go(func() {
			manager, err := replication.New(replication.Config{Name: "shop/db", Engine: db})
			if err != nil {
				panic(err)
			}
			manager.SetMembers([]replication.Member{member}, 1)
			_ = locker.Hold(ctx, "replication/shop/db", func(ctx context.Context, lease cronlock.Lease) error {
				tokens <- lease.Token
				return manager.RunUnder(ctx, lease.Token)
			})
		})
	}
	first := <-tokens
	locker.Expire("replication/shop/db")
	second := <-tokens
	fmt.Println("the second one has the higher token:", second > first)
	member.Token = first
	for db.Claim(ctx, member) == nil { // until the second one has claimed it
		time.Sleep(time.Millisecond)
	}
	fmt.Println("whoever comes with the first:", db.Promote(ctx, member, false))
	cancel()
	hosts.Wait()
	// Output:
	// the second one has the higher token: true
	// whoever comes with the first: db-1:3306: another Manager has a later lease
}
