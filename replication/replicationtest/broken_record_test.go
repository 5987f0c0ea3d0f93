package replicationtest

import (
	"context"
)

var brokenRecords = []fault{
	{"Claim", "knows no tokens", func(e *engine) {
		e.follow = func(ctx context.Context, m, p member) error {
			m.Token = 0
			return e.Cluster.Follow(ctx, m, p)
		}
	}},
	{"Record", "keeps nothing", func(e *engine) {
		e.record = func(context.Context, member, string) error { return nil }
	}},
	{"Record", "keeps the first", func(e *engine) {
		kept := map[string]bool{}
		e.record = func(ctx context.Context, m member, text string) error {
			if kept[m.Addr] {
				return nil
			}
			kept[m.Addr] = true
			return e.Cluster.Record(ctx, m, text)
		}
	}},
	{"Record", "hands it on", func(e *engine) {
		e.record = func(ctx context.Context, m member, text string) error {
			for _, addr := range e.Addrs() {
				e.Cluster.Record(ctx, member{Addr: addr}, text)
			}
			return nil
		}
	}},
	{"Record", "as a transaction", func(e *engine) {
		e.record = func(ctx context.Context, m member, text string) error {
			if st, _ := e.Cluster.Observe(ctx, m); !st.Writable && st.Source == "" {
				e.Inject(m.Addr, "record", text)
			}
			return e.Cluster.Record(ctx, m, text)
		}
	}},
	{"Record", "forgets it at the start", func(e *engine) {
		e.restarted = func(addr string) { e.Cluster.Record(context.Background(), member{Addr: addr}, "") }
	}},
	{"Record", "knows no tokens", func(e *engine) {
		e.record = func(ctx context.Context, m member, text string) error {
			m.Token = 0
			return e.Cluster.Record(ctx, m, text)
		}
	}},
}
