// Localfarm runs a whole farm of real servers on this machine: a MariaDB primary with two replicas, two memcached, and a web
// application that scales with the load of the 1998 World Cup. Writes go to the primary, reads to the replicas and the cache,
// and everybody finds everybody by name. While rows are being written, the primary is killed.
//
//	go run ./examples/localfarm                        for a person
//	go run ./examples/localfarm -json                  one JSON object a line, the last of them the summary
//	go run ./examples/localfarm -policy availability   what is lost when writes do not wait for a replica
//
// It needs mariadbd and memcached, which it does not install: without them it says which packages to install, and exits 2.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"time"

	"github.com/scalr-go/scalr/examples/show"
	"github.com/scalr-go/scalr/replication"
)

const (
	zone         = "shop.example."
	webPort      = 8080
	cacheServers = 2
	length       = 25 * time.Second // of the replay
	scaledDown   = 40               // one request of ours for so many of the trace
	capacity     = 30000            // requests a minute, in the trace's figures, that one web server is meant to take
)

var errMissing = errors.New("real servers are missing")

func main() {
	asJSON := flag.Bool("json", false, "print JSON lines")
	policyName := flag.String("policy", "durability", "what to give up when the primary dies: availability or durability")
	webFile := flag.String("web", "", "run the web application with this configuration (the farm does that)")
	flag.Parse()
	if *webFile != "" {
		fail(runWeb(*webFile))
	}
	policies := map[string]replication.Policy{"availability": replication.Availability, "durability": replication.Durability}
	policy, ok := policies[*policyName]
	if !ok {
		fail(fmt.Errorf("-policy is %q, want availability or durability", *policyName))
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	ctx, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	fail(run(ctx, show.New(os.Stdout, *asJSON), policy))
}

func fail(err error) {
	switch {
	case err == nil:
		os.Exit(0)
	case errors.Is(err, errMissing):
		fmt.Fprintln(os.Stderr, "localfarm:", err)
		os.Exit(2)
	}
	fmt.Fprintln(os.Stderr, "localfarm:", err)
	os.Exit(1)
}
