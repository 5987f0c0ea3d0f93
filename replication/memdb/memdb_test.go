package memdb_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/scalr-go/scalr/replication"
	"github.com/scalr-go/scalr/replication/memdb"
	"github.com/scalr-go/scalr/replication/replicationtest"
)

type session struct{ *memdb.Session }

func (session) Close() error { return nil }

func fixture(options memdb.Options) replicationtest.Fixture {
	c := memdb.New(options)
	n := 0
	return replicationtest.Fixture{
		Engine: c,
		Start: func() replicationtest.Server {
			n++
			addr := fmt.Sprintf("db-%d:3306", n)
			c.Start(addr)
			return replicationtest.Server{
				Member:  replication.Member{ID: fmt.Sprintf("db-%d", n), Addr: addr},
				Kill:    func() { c.Crash(addr) },
				Restart: func() { c.Start(addr) },
				Hang:    func() { c.Hang(addr) },
				Resume:  func() { c.Resume(addr) },
			}
		},
		Open: func(ctx context.Context, m replication.Member) (replicationtest.Session, error) {
			s, err := c.Open(ctx, m.Addr)
			return session{s}, err
		},
		Denied: denied{c},
	}
}

// denied is the cluster by somebody with wrong credentials.
type denied struct{ *memdb.Cluster }

func (d denied) with(addr string, f func() error) error {
	d.Deny(addr, true)
	defer d.Deny(addr, false)
	return f()
}

func (d denied) Observe(ctx context.Context, m replication.Member) (st replication.Status, err error) {
	err = d.with(m.Addr, func() error { st, err = d.Cluster.Observe(ctx, m); return err })
	return st, err
}

func (d denied) Fence(ctx context.Context, m replication.Member) error {
	return d.with(m.Addr, func() error { return d.Cluster.Fence(ctx, m) })
}

func (d denied) Promote(ctx context.Context, m replication.Member, semisync bool) error {
	return d.with(m.Addr, func() error { return d.Cluster.Promote(ctx, m, semisync) })
}

func (d denied) SetSemiSync(ctx context.Context, m replication.Member, on bool) error {
	return d.with(m.Addr, func() error { return d.Cluster.SetSemiSync(ctx, m, on) })
}

func (d denied) Follow(ctx context.Context, m, primary replication.Member) error {
	return d.with(m.Addr, func() error { return d.Cluster.Follow(ctx, m, primary) })
}

func (d denied) Drain(ctx context.Context, m replication.Member) (p replication.Position, err error) {
	err = d.with(m.Addr, func() error { p, err = d.Cluster.Drain(ctx, m); return err })
	return p, err
}

func (d denied) Seed(ctx context.Context, m, source replication.Member, f func(replication.Progress)) (p replication.Position, err error) {
	err = d.with(m.Addr, func() error { p, err = d.Cluster.Seed(ctx, m, source, f); return err })
	return p, err
}

func TestConformance(t *testing.T) {
	for name, options := range map[string]memdb.Options{
		"AtOnce": {},
		"Slow": {
			Latency: 100 * time.Microsecond, Delay: time.Millisecond, Apply: 200 * time.Microsecond,
			Heartbeat: 20 * time.Millisecond, Copy: 10 * time.Millisecond, RelayLogsLost: true,
		},
	} {
		t.Run(name, func(t *testing.T) {
			replicationtest.Run(t, func(testing.TB) replicationtest.Fixture { return fixture(options) })
		})
	}
}
