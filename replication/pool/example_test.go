package pool_test

import (
	"context"
	"fmt"

	"github.com/scalr-go/scalr/replication/pool"
)

// A read after a write sees it, although replicas are behind.
func Example() {
	servers := newWorld("10.0.0.1:3306", "10.0.0.2:3306") // instead of real ones; mysql.NewClient is for those
	servers.change("10.0.0.2:3306", func(s *server) { s.behind = 3 })
	db, err := pool.Open(pool.Config{Driver: fakeDriver{servers}, Addrs: []string{"10.0.0.1:3306", "10.0.0.2:3306"}})
	if err != nil {
		panic(err)
	}
	defer db.Close()

	session := pool.NewSession("")
	ctx := pool.WithSession(context.Background(), session)
	for range 4 {
		if _, err := db.Writer.ExecContext(ctx, "write"); err != nil {
			panic(err)
		}
	}
	var server string
	var writes int
	if err := db.Reader.QueryRowContext(ctx, "read").Scan(&server, &writes); err != nil {
		panic(err)
	}
	fmt.Println(writes, "writes, says", server)
	token, err := session.Token(ctx, db)
	fmt.Println("token for the next process:", token, err)
	// Output:
	// 4 writes, says 10.0.0.1:3306
	// token for the next process: 4 <nil>
}
