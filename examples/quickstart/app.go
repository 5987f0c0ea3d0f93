package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"sync"
	"time"

	"github.com/scalr-go/scalr/replication/memdb"
)

// app is a program that writes rows to the database. It knows a name and no address: whenever a write fails it asks the
// name server again.
type app struct {
	database *memdb.Cluster
	resolver *net.Resolver
	done     chan struct{}

	mu       sync.Mutex
	kill     time.Time     // when the primary was killed
	failover time.Duration // from then to the first row that was acknowledged after it
	acked    []string
	lost     []string
}

func newApp(database *memdb.Cluster, names netip.AddrPort) *app {
	return &app{database: database, done: make(chan struct{}), resolver: &net.Resolver{
		PreferGo: true,
		Dial: func(ctx context.Context, network, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, network, names.String())
		},
	}}
}

// write writes a row each millisecond until it is told to stop, and then looks for each of them.
func (a *app) write(ctx context.Context) error {
	addr, failed := "", false
	for row := 0; ; row++ {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-a.done:
			return a.look(ctx, addr)
		case <-time.After(time.Millisecond):
		}
		if addr == "" {
			if ips, err := a.resolver.LookupHost(ctx, "db."+zone); err == nil && len(ips) > 0 {
				addr = net.JoinHostPort(ips[0], "3306")
			}
		}
		key := "row-" + strconv.Itoa(row)
		attempt, cancel := context.WithTimeout(ctx, 100*time.Millisecond)
		err := a.database.Write(attempt, addr, key, "value")
		cancel()
		if err != nil {
			addr, failed = "", true
			continue
		}
		a.mu.Lock()
		a.acked = append(a.acked, key)
		if failed && a.failover == 0 && !a.kill.IsZero() {
			a.failover = time.Since(a.kill)
		}
		a.mu.Unlock()
		failed = false
	}
}

// look counts the acknowledged rows that the primary does not have.
func (a *app) look(ctx context.Context, addr string) error {
	rows, err := a.database.Rows(ctx, addr)
	if err != nil {
		return err
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, key := range a.acked {
		if _, ok := rows[key]; !ok {
			a.lost = append(a.lost, key)
		}
	}
	return nil
}

func (a *app) killed(at time.Time) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.kill = at
}

func (a *app) stop() { close(a.done) }

func (a *app) result() (failover time.Duration, acked, lost int) {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.failover, len(a.acked), len(a.lost)
}

// start runs functions until the context ends.
func start(ctx context.Context, run ...func(context.Context) error) *sync.WaitGroup {
	var wg sync.WaitGroup
	for _, f := range run {
		wg.Go(func() {
			if err := f(ctx); err != nil && !errors.Is(err, context.Canceled) {
				fmt.Println("quickstart:", err)
			}
		})
	}
	return &wg
}

// until waits for a condition.
func until(ctx context.Context, done func() bool) error {
	ctx, cancel := context.WithTimeout(ctx, 15*time.Second)
	defer cancel()
	for !done() {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(10 * time.Millisecond):
		}
	}
	return nil
}
