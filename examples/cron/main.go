// Command cron runs three runners of one job, ends one of them, and shows that every scheduled instant is run once all the same.
//
//	go run ./examples/cron                                        # three runners in this process, nothing installed
//	go run ./examples/cron -zookeeper 127.0.0.1:2181,127.0.0.2:2181 # three processes, on a ZooKeeper ensemble
//
// In memory the runner that ends is cut off from the store; across processes it is killed with SIGKILL.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"strings"
	"sync"
	"time"

	"github.com/scalr-go/scalr"
	"github.com/scalr-go/scalr/cronlock"
	"github.com/scalr-go/scalr/cronlock/zookeeper"
)

func main() {
	servers := flag.String("zookeeper", "", "addresses of an ensemble, divided by commas; without them all is in memory")
	lasts := flag.Duration("for", 20*time.Second, "how long")
	runner := flag.Int("runner", 0, "be this runner, for the program's own use")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	ctx, cancel := context.WithTimeout(ctx, *lasts)
	defer cancel()
	var err error
	switch {
	case *servers == "":
		err = inMemory(ctx, *lasts)
	case *runner == 0:
		err = processes(ctx, *servers, *lasts)
	default:
		err = oneProcess(ctx, *servers, *runner)
	}
	if err != nil && ctx.Err() == nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// cron is the whole program: what to run, and when.
func cron(store cronlock.Claimer, runner int) cronlock.Cron {
	say := func(format string, args ...any) {
		fmt.Printf("%s runner %d: %s\n", time.Now().Format("15:04:05.000"), runner, fmt.Sprintf(format, args...))
	}
	return cronlock.Cron{
		Claimer: store,
		Jobs: []cronlock.Job{{
			Name: "report", Schedule: cronlock.MustParse("*/2 * * * * *"), AtLeastOnce: true,
			Run: func(ctx context.Context, r cronlock.Run) error {
				say("runs the report of %s, attempt %d", r.At.Format("15:04:05"), r.Attempt)
				select {
				case <-ctx.Done():
					return context.Cause(ctx)
				case <-time.After(500 * time.Millisecond):
					return nil
				}
			},
		}},
		Events: func(e scalr.Event) {
			if e.Kind != cronlock.RunStarted && e.Kind != cronlock.RunSucceeded {
				say("%s: %s %s", e.Kind, e.Message, e.Err)
			}
		},
	}
}

func inMemory(ctx context.Context, lasts time.Duration) error {
	var store cronlock.Memory
	began := time.Now()
	var group sync.WaitGroup
	for n := range 3 {
		group.Go(func() { _ = cron(&store, n+1).Run(ctx) })
	}
	select {
	case <-time.After(lasts / 2):
		f, err := store.Fleet(ctx)
		if err != nil {
			return err
		}
		fmt.Println("cutting off", f.Runners[0])
		store.Expire(f.Runners[0])
	case <-ctx.Done():
	}
	group.Wait()
	return tell(context.WithoutCancel(ctx), &store, began)
}

func oneProcess(ctx context.Context, servers string, runner int) error {
	store, err := open(ctx, servers)
	if err != nil {
		return err
	}
	defer store.Close()
	return cron(store, runner).Run(ctx)
}

func open(ctx context.Context, servers string) (*zookeeper.Client, error) {
	return zookeeper.Open(ctx, zookeeper.Options{Servers: strings.Split(servers, ","), Timeout: 4 * time.Second, Root: "/example"})
}

func processes(ctx context.Context, servers string, lasts time.Duration) error {
	store, err := open(ctx, servers)
	if err != nil {
		return err
	}
	defer store.Close()
	began := time.Now()
	self, err := os.Executable()
	if err != nil {
		return err
	}
	var all []*exec.Cmd
	for n := range 3 {
		cmd := exec.Command(self, "-zookeeper", servers, "-for", lasts.String(), "-runner", fmt.Sprint(n+1))
		cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
		if err := cmd.Start(); err != nil {
			return err
		}
		defer cmd.Process.Kill()
		all = append(all, cmd)
	}
	select {
	case <-time.After(lasts / 2):
		fmt.Println("kill -9 runner 1")
		if err := all[0].Process.Kill(); err != nil {
			return err
		}
	case <-ctx.Done():
	}
	for _, cmd := range all {
		_ = cmd.Wait() // one was killed
	}
	return tell(context.WithoutCancel(ctx), store, began)
}

// tell reads the history back.
func tell(ctx context.Context, store cronlock.Claimer, began time.Time) error {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	history, err := cron(store, 0).History(ctx, "report", began, time.Now())
	if err != nil {
		return err
	}
	for _, c := range history {
		fmt.Printf("%s %-9s attempt %d by %s\n", c.At.Format("15:04:05"), c.Status, c.Attempt, c.Runner)
	}
	return nil
}
