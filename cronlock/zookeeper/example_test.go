package zookeeper_test

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"time"

	"github.com/scalr-go/scalr/cronlock"
	"github.com/scalr-go/scalr/cronlock/zookeeper"
)

// Each of twenty instances of a program runs this: the report is made once a night, and one of them at a time leads.
func Example() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	store, err := zookeeper.Open(ctx, zookeeper.Options{
		Servers: []string{"zoo1:2181", "zoo2:2181", "zoo3:2181"}, User: "reports", Password: os.Getenv("ZOO_PASSWORD"),
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer store.Close()

	go func() {
		for ctx.Err() == nil {
			err := store.Hold(ctx, "leader", func(ctx context.Context, lease cronlock.Lease) error {
				fmt.Println("leading, with token", lease.Token)
				<-ctx.Done() // or the lease is lost
				return context.Cause(ctx)
			})
			fmt.Println("no leader any more:", err)
			time.Sleep(time.Second)
		}
	}()
	cron := cronlock.Cron{Claimer: store, Jobs: []cronlock.Job{{
		Name: "report", Schedule: cronlock.MustParse("TZ=Europe/Paris 0 3 * * *"), Alarm: 25 * time.Hour,
		Run: cronlock.Command("/usr/local/bin/report", "--nightly"),
	}}}
	fmt.Println(cron.Run(ctx))
}
