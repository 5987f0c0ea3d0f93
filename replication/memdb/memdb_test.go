package memdb_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/scalr-go/scalr/replication"
	"github.com/scalr-go/scalr/replication/memdb"
	"github.com/scalr-go/scalr/replication/replicationtest"
)

type session struct{ *memdb.Session }

func (session) Close() error { return nil }

func fixture(options memdb.Options) replicationtest.Fixture {
	c := memdb.New(options)
	n := 0
	start := func(how func(addr string)) replicationtest.Server {
		n++
		addr := fmt.Sprintf("db-%d:3306", n)
		how(addr)
		return replicationtest.Server{
			Member:  replication.Member{ID: fmt.Sprintf("db-%d", n), Addr: addr},
			Kill:    func() { c.Crash(addr) },
			Restart: func() { c.Start(addr) },
			Hang:    func() { c.Hang(addr) },
			Resume:  func() { c.Resume(addr) },
		}
	}
	return replicationtest.Fixture{
		Engine: c,
		Start:  func() replicationtest.Server { return start(c.Start) },
		Copy: func(keys ...string) (replicationtest.Server, replication.Position) {
			other, m := memdb.New(options), replication.Member{ID: "elsewhere", Addr: "elsewhere:3306"}
			other.Start(m.Addr)
			err := other.Promote(context.Background(), m, false)
			for _, key := range keys {
				err = errors.Join(err, other.Write(context.Background(), m.Addr, key, key))
			}
			st, failed := other.Observe(context.Background(), m)
			if err = errors.Join(err, failed); err != nil {
				panic(err)
			}
			return start(func(addr string) { c.StartCopy(addr, other, m.Addr) }), st.Applied
		},
		Open: func(ctx context.Context, m replication.Member) (replicationtest.Session, error) {
			s, err := c.Open(ctx, m.Addr)
			return session{s}, err
		},
		Denied: denied{c},
		Scrub: func(_ context.Context, m replication.Member) error {
			c.Inject(m.Addr, "secret", "scrubbed")
			return nil
		},
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

// Replication takes the time that the options say, also when nobody looks meanwhile.
func TestTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx := t.Context()
		c := memdb.New(memdb.Options{Latency: time.Second, Delay: time.Minute, Apply: time.Hour})
		a, b := replication.Member{Addr: "a"}, replication.Member{Addr: "b"}
		c.Start("a")
		c.Start("b")
		require.NoError(t, c.Promote(ctx, a, false))
		require.NoError(t, c.Follow(ctx, b, a))
		begin := time.Now()
		require.NoError(t, c.Write(ctx, "a", "k", "v"))
		require.Equal(t, 2*time.Second, time.Since(begin), "a session and a write")
		time.Sleep(time.Minute + time.Hour - 3*time.Second)
		_, found, _ := c.Read(ctx, "b", "k") // two seconds more, one less than it takes
		require.False(t, found)
		_, found, _ = c.Read(ctx, "b", "k")
		require.True(t, found)

		require.NoError(t, c.SetSemiSync(ctx, a, true))
		begin = time.Now()
		require.NoError(t, c.Write(ctx, "a", "k", "w"))
		require.Equal(t, 2*time.Second+time.Minute, time.Since(begin), "and the way to the replica")

		st, err := c.Observe(ctx, b)
		require.NoError(t, err)
		require.Equal(t, replication.Behind, c.Compare(st.Applied, st.Received))
		require.Equal(t, time.Minute+time.Second, st.Lag)
	})
}

// A partition is silent, and lasts until it is healed.
func TestCut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := memdb.New(memdb.Options{})
		a, b := replication.Member{Addr: "a"}, replication.Member{Addr: "b"}
		c.Start("a")
		c.Start("b")
		require.NoError(t, c.Promote(t.Context(), a, false))
		require.NoError(t, c.Follow(t.Context(), b, a))

		c.Cut("a", memdb.Manager)
		begin := time.Now()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		_, err := c.Observe(ctx, a)
		require.ErrorIs(t, err, replication.ErrUnreachable)
		require.NotErrorIs(t, err, replication.ErrRefused)
		require.Equal(t, time.Second, time.Since(begin))
		require.NoError(t, c.Write(t.Context(), "a", "k", "v"), "applications still reach it")
		_, found, _ := c.Read(t.Context(), "b", "k")
		require.True(t, found, "and so do replicas")
		time.AfterFunc(time.Minute, func() { c.Heal(memdb.Manager, "a") })
		_, err = c.Observe(t.Context(), a)
		require.NoError(t, err)

		c.Cut("b", "a")
		require.NoError(t, c.Write(t.Context(), "a", "l", "v"))
		_, found, _ = c.Read(t.Context(), "b", "l")
		require.False(t, found)
		st, _ := c.Observe(t.Context(), b)
		require.True(t, st.Receives, "it does not know yet")
		time.Sleep(time.Second)
		st, _ = c.Observe(t.Context(), b)
		require.False(t, st.Receives)
		c.Heal("a", "b")
		_, found, _ = c.Read(t.Context(), "b", "l")
		require.True(t, found)

		c.Remove("a")
		ctx, cancel = context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		_, err = c.Observe(ctx, a)
		require.ErrorIs(t, err, replication.ErrUnreachable)
	})
}

// What a semi-synchronous primary has and no replica acknowledged is there after a crash, and was not acknowledged.
func TestTail(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := memdb.New(memdb.Options{})
		a := replication.Member{Addr: "a"}
		c.Start("a")
		require.NoError(t, c.Promote(t.Context(), a, true))
		result := make(chan error)
		go func() { result <- c.Write(t.Context(), "a", "k", "v") }()
		synctest.Wait()
		_, found, _ := c.Read(t.Context(), "a", "k")
		require.False(t, found, "nobody reads what is not acknowledged")
		c.Crash("a")
		require.ErrorIs(t, <-result, replication.ErrRefused)
		c.Start("a")
		_, found, _ = c.Read(t.Context(), "a", "k")
		require.True(t, found)
		require.ErrorIs(t, c.Write(t.Context(), "a", "k", "w"), memdb.ErrReadOnly)
	})
}
