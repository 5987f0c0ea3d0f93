package main

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"sync"
	"syscall"
	"time"

	"github.com/go-sql-driver/mysql"

	"github.com/scalr-go/scalr/examples/show"
	"github.com/scalr-go/scalr/examples/worldcup"
	"github.com/scalr-go/scalr/farm"
	"github.com/scalr-go/scalr/replication"
)

func run(ctx context.Context, out *show.Show, policy replication.Policy) error {
	dir, err := os.MkdirTemp("", "localfarm")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	s, err := newSite(dir, out, policy)
	if err != nil {
		return err
	}

	running, stop := context.WithCancel(ctx)
	defer stop()
	var background sync.WaitGroup
	defer background.Wait()
	defer stop()
	start(&background, running, s.names.Run, s.farm.Run)
	ended := false
	defer func() {
		if ended {
			return
		}
		// Whatever has gone wrong, nothing is left behind.
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 20*time.Second)
		defer cancel()
		_ = s.farm.Terminate(ctx, farm.TerminateOptions{DeleteVolumes: true})
	}()

	out.Say("The farm launches, with policy %s: three MariaDB and two memcached first, then the web servers.", policy)
	if err := until(ctx, func() bool { return serve(s.farm, "db") == 3 && serve(s.farm, "cache") == 2 }); err != nil {
		return fmt.Errorf("the database did not come up: %w", err)
	}
	if err := s.createTable(ctx); err != nil {
		return err
	}
	if err := until(ctx, func() bool { return serve(s.farm, "www") == 2 }); err != nil {
		return fmt.Errorf("the web servers did not come up: %w", err)
	}

	out.Say("Half a day of load is replayed over HTTP in %v, and rows are written all the while.", length)
	replay := &worldcup.Replay{Load: worldcup.Day(), Length: length}
	replay.Begin()
	people := newVisitors(dialer(s.names.Addr()).DialContext)
	visiting, leave := context.WithCancel(ctx)
	defer leave()
	var visits sync.WaitGroup
	start(&visits, visiting, people.write, func(ctx context.Context) error { return people.browse(ctx, replay) })

	var moved chan time.Duration
	for tick := time.NewTicker(200 * time.Millisecond); !replay.Over() && ctx.Err() == nil; <-tick.C {
		out.Load(replay.Now(), s.farm.Servers("www"))
		if moved == nil && replay.Passed() > length*4/10 {
			moved = make(chan time.Duration, 1)
			if err := s.killPrimary(ctx, out, people, moved); err != nil {
				return err
			}
		}
	}
	leave()
	visits.Wait()

	if err := until(ctx, func() bool { return serve(s.farm, "db") == 3 }); err != nil {
		return fmt.Errorf("the old primary did not come back: %w", err)
	}
	lost, err := s.missing(ctx, people.acked)
	if err != nil {
		return err
	}
	topology, _ := s.manager.Topology()
	verdict := "there was no recovery"
	if topology.Verdict != nil {
		verdict = topology.Verdict.String()
	}
	out.Say("The rows are counted: %d were acknowledged, %d of them are missing. The verdict was: %s.", len(people.acked), lost, verdict)

	out.Say("The farm is terminated, its volumes with it.")
	if err := s.farm.Terminate(ctx, farm.TerminateOptions{DeleteVolumes: true}); err != nil {
		return err
	}
	ended = true
	left, err := s.left(ctx)
	if err != nil {
		return err
	}
	var dns time.Duration
	if moved != nil {
		dns = <-moved
	}
	ups, downs := out.Count(farm.ScaleUp), out.Count(farm.ScaleDown)
	out.Line(map[string]any{"summary": true, "policy": policy.String(), "failover_ms": people.failover.Milliseconds(),
		"dns_ms": dns.Milliseconds(), "acked": len(people.acked), "lost": lost, "scale_ups": ups, "scale_downs": downs,
		"left_over": left, "pages": people.served, "pages_failed": people.failed, "verdict": verdict},
		fmt.Sprintf("Writes went on after %d ms, the name had moved after %d ms, %d of %d acknowledged rows are lost, www grew %d times and "+
			"shrank %d times, %d of %d pages failed, %d things are left over.", people.failover.Milliseconds(), dns.Milliseconds(),
			lost, len(people.acked), ups, downs, people.failed, people.served, left))
	return nil
}

// killPrimary ends the primary's process with SIGKILL, and measures when its name points elsewhere.
func (s *site) killPrimary(ctx context.Context, out *show.Show, people *visitors, moved chan<- time.Duration) error {
	topology, _ := s.manager.Topology()
	old, ok := topology.Member(topology.Primary)
	if !ok {
		return errors.New("there is no primary to kill")
	}
	out.Say("The primary, %s, is killed with SIGKILL.", old.Member.ID)
	people.mu.Lock()
	people.kill = time.Now()
	people.mu.Unlock()
	if err := s.cloud.Signal(ctx, old.Member.Machine, syscall.SIGKILL); err != nil {
		return err
	}
	people.mu.Lock()
	people.dead = time.Now()
	people.mu.Unlock()
	host, _, _ := net.SplitHostPort(old.Member.Addr)
	r := resolver(s.names.Addr())
	go func() {
		for ctx.Err() == nil {
			addrs, err := r.LookupHost(ctx, "db."+zone)
			if err == nil && len(addrs) == 1 && addrs[0] != host {
				break
			}
			time.Sleep(2 * time.Millisecond)
		}
		moved <- time.Since(people.kill)
	}()
	return nil
}

// createTable makes the application's table on the primary; the replicas get it from there.
func (s *site) createTable(ctx context.Context) error {
	return s.onPrimary(func(db *sql.DB) error {
		for _, statement := range []string{"CREATE DATABASE IF NOT EXISTS shop",
			"CREATE TABLE IF NOT EXISTS shop.rows_written (id INT PRIMARY KEY, written TIMESTAMP DEFAULT CURRENT_TIMESTAMP)"} {
			if _, err := db.ExecContext(ctx, statement); err != nil {
				return err
			}
		}
		return nil
	})
}

// missing counts the acknowledged rows that the primary does not have.
func (s *site) missing(ctx context.Context, acked []int) (lost int, err error) {
	err = s.onPrimary(func(db *sql.DB) error {
		rows, err := db.QueryContext(ctx, "SELECT id FROM shop.rows_written")
		if err != nil {
			return err
		}
		defer rows.Close()
		there := map[int]bool{}
		for rows.Next() {
			var id int
			if err := rows.Scan(&id); err != nil {
				return err
			}
			there[id] = true
		}
		for _, id := range acked {
			if !there[id] {
				lost++
			}
		}
		return rows.Err()
	})
	return lost, err
}

// onPrimary connects to the primary as the administrator.
func (s *site) onPrimary(do func(*sql.DB) error) error {
	topology, _ := s.manager.Topology()
	primary, ok := topology.Member(topology.Primary)
	if !ok {
		return replication.ErrNoPrimary
	}
	config := mysql.NewConfig()
	config.User, config.Passwd, config.Net, config.Addr = "scalr", s.secrets.admin, "tcp", primary.Member.Addr
	connector, err := mysql.NewConnector(config)
	if err != nil {
		return err
	}
	db := sql.OpenDB(connector)
	defer db.Close()
	return do(db)
}

// left counts what still exists.
func (s *site) left(ctx context.Context) (int, error) {
	instances, err1 := s.cloud.Instances(ctx, nil)
	volumes, err2 := s.cloud.Volumes(ctx, nil)
	left := len(volumes)
	for _, in := range instances {
		if !in.State.Gone() {
			left++
		}
	}
	return left, errors.Join(err1, err2)
}

func serve(f *farm.Farm, role string) (n int) {
	for _, server := range f.Servers(role) {
		if server.Ready {
			n++
		}
	}
	return n
}

// start runs functions until the context ends.
func start(wg *sync.WaitGroup, ctx context.Context, run ...func(context.Context) error) {
	for _, f := range run {
		wg.Go(func() {
			if err := f(ctx); err != nil && ctx.Err() == nil {
				fmt.Fprintln(os.Stderr, "localfarm:", err)
			}
		})
	}
}

// until waits for a condition.
func until(ctx context.Context, done func() bool) error {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	for !done() {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(20 * time.Millisecond):
		}
	}
	return nil
}

// probing is a client whose connections are not kept: a kept one could outlive the machine behind it.
func probing() *http.Client {
	return &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
}
