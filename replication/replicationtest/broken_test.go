package replicationtest

import (
	"context"
	"errors"
	"strings"

	"github.com/scalr-go/scalr/replication"
)

// fault is a way to break an engine, and the rule that finds it.
type fault struct {
	rule, what string
	how        func(*engine)
}

// lying changes what Observe says.
func lying(change func(st *status)) func(*engine) {
	return func(e *engine) {
		e.observe = func(ctx context.Context, m member) (status, error) {
			st, err := e.Cluster.Observe(ctx, m)
			change(&st)
			return st, err
		}
	}
}

// failing changes how Observe fails.
func failing(change func(error) error) func(*engine) {
	return func(e *engine) {
		e.observe = func(ctx context.Context, m member) (status, error) {
			st, err := e.Cluster.Observe(ctx, m)
			if err != nil {
				err = change(err)
			}
			return st, err
		}
	}
}

var brokenServers = []fault{
	{"Fresh", "has data", lying(func(st *status) { st.Empty = false })},
	{"Fresh", "takes writes", lying(func(st *status) { st.Writable = true })},
	{"Fresh", "one identity", lying(func(st *status) { st.Server = "1" })},
	{"Refused", "only unreachable", failing(func(error) error { return replication.ErrUnreachable })},
	{"Refused", "of its own", failing(func(error) error { return errors.New("connection refused") })},
	{"Hung", "is unreachable", failing(func(error) error { return replication.ErrUnreachable })},
	{"Hung", "promotes a hung server", func(e *engine) {
		e.promote = func(context.Context, member, bool) error { return nil }
	}},
	{"Cancelled", "goes on", func(e *engine) {
		e.promote = func(ctx context.Context, m member, s bool) error {
			return e.Cluster.Promote(context.WithoutCancel(ctx), m, s)
		}
	}},
	{"Cancelled", "fails and works", func(e *engine) {
		e.promote = func(ctx context.Context, m member, s bool) error {
			e.Cluster.Promote(context.WithoutCancel(ctx), m, s)
			return ctx.Err()
		}
	}},
	{"Denied", "no kind", func(e *engine) {
		e.denied = func(e *engine) replication.Engine { return refusing{e, errors.New("1045"), false} }
	}},
	{"Denied", "works all the same", func(e *engine) {
		e.denied = func(e *engine) replication.Engine { return refusing{e, replication.ErrAccess, true} }
	}},
	{"Promote", "does nothing", func(e *engine) {
		e.promote = func(context.Context, member, bool) error { return nil }
	}},
	{"Promote", "loses data the second time", func(e *engine) {
		e.promote = func(ctx context.Context, m member, s bool) error {
			e.Remove(m.Addr)
			e.Start(m.Addr)
			return e.Cluster.Promote(ctx, m, s)
		}
	}},
	{"Restart", "takes writes", func(e *engine) {
		e.restarted = func(addr string) { e.Cluster.Promote(context.Background(), member{Addr: addr}, false) }
	}},
	{"Restart", "loses data", func(e *engine) {
		e.restarted = func(addr string) { e.Remove(addr); e.Start(addr) }
	}},
	{"Restart", "forgets whom it followed", func(e *engine) {
		e.restarted = func(addr string) {
			e.Cluster.Promote(context.Background(), member{Addr: addr}, false)
			e.Cluster.Fence(context.Background(), member{Addr: addr})
		}
	}},
	{"Restart", "is up for years", lying(func(st *status) { st.Uptime *= 1e6 })},
	{"Positions", "all equal", func(e *engine) {
		e.compare = func(a, b pos) replication.Order { return replication.Equal }
	}},
	{"Positions", "compared as text", func(e *engine) {
		e.compare = func(a, b pos) replication.Order {
			return [...]replication.Order{replication.Behind, replication.Equal, replication.Ahead}[strings.Compare(string(a), string(b))+1]
		}
	}},
	{"Positions", "never diverged", func(e *engine) {
		e.compare = func(a, b pos) replication.Order {
			if o := e.Cluster.Compare(a, b); o != replication.Diverged {
				return o
			}
			return replication.Ahead
		}
	}},
	{"Positions", "counts one too many", func(e *engine) {
		e.count = func(a, b pos) (uint64, bool) { n, exact := e.Cluster.Count(a, b); return n + 1, exact }
	}},
	{"Positions", "counts nothing", func(e *engine) {
		e.count = func(a, b pos) (uint64, bool) { return 0, false }
	}},
	{"Close", "for ever", func(e *engine) {
		closed := false
		e.close = func(member) error { closed = true; return nil }
		e.observe = func(ctx context.Context, m member) (status, error) {
			if closed {
				return status{}, errors.New("closed")
			}
			return e.Cluster.Observe(ctx, m)
		}
	}},
	{"Close", "fences", func(e *engine) {
		e.close = func(m member) error { return e.Cluster.Fence(context.Background(), m) }
	}},
}
