package replicationtest

import (
	"context"
	"errors"

	"github.com/scalr-go/scalr/replication"
)

var brokenAdopters = []fault{
	{"Adopt", "gives no position", func(e *engine) {
		e.adopt = func(ctx context.Context, m member, s scrubber, f func(replication.Progress)) (pos, error) {
			_, err := e.Cluster.Adopt(ctx, m, s, f)
			return "", err
		}
	}},
	{"Adopt", "does not scrub", func(e *engine) {
		e.adopt = func(ctx context.Context, m member, _ scrubber, f func(replication.Progress)) (pos, error) {
			return e.Cluster.Adopt(ctx, m, nil, f)
		}
	}},
	{"Adopt", "goes on with the other set's history", func(e *engine) {
		e.count = func(a, b pos) (uint64, bool) {
			n, exact := e.Cluster.Count(a, b)
			if b != "" && n > 1 {
				n--
			}
			return n, exact
		}
	}},
	{"Adopt", "adopts what is its own", func(e *engine) {
		e.adopt = func(ctx context.Context, m member, s scrubber, f func(replication.Progress)) (pos, error) {
			if st, err := e.Cluster.Observe(ctx, m); err != nil || !st.Foreign {
				return st.Applied, err
			}
			return e.Cluster.Adopt(ctx, m, s, f)
		}
	}},
	{"Adopt", "is foreign for ever", func(e *engine) {
		e.observe = func(ctx context.Context, m member) (status, error) {
			st, err := e.Cluster.Observe(ctx, m)
			st.Foreign = st.Foreign || st.Imported
			return st, err
		}
	}},
	{"AdoptBroken", "has data from the beginning", lying(func(st *status) { st.Empty = st.Empty && !st.Foreign })},
	{"AdoptBroken", "does not know that it is foreign", lying(func(st *status) { st.Foreign = false })},
	{"AdoptBroken", "scrubs when all is done", func(e *engine) {
		e.adopt = func(ctx context.Context, m member, s scrubber, f func(replication.Progress)) (pos, error) {
			p, err := e.Cluster.Adopt(ctx, m, nil, f)
			return p, errors.Join(err, s(ctx, m))
		}
	}},
	{"AdoptBroken", "does not mind a scrub that fails", func(e *engine) {
		e.adopt = func(ctx context.Context, m member, s scrubber, f func(replication.Progress)) (pos, error) {
			return e.Cluster.Adopt(ctx, m, func(ctx context.Context, m member) error { _ = s(ctx, m); return nil }, f)
		}
	}},
	{"AdoptBroken", "goes on", func(e *engine) {
		e.adopt = func(ctx context.Context, m member, s scrubber, f func(replication.Progress)) (pos, error) {
			return e.Cluster.Adopt(context.WithoutCancel(ctx), m, s, f)
		}
	}},
}
