package replicationtest

import (
	"context"
	"errors"

	"github.com/scalr-go/scalr/replication"
)

var brokenCopies = []fault{
	{"Seed", "copies nothing", func(e *engine) {
		e.seed = func(ctx context.Context, m, s member, _ func(replication.Progress)) (pos, error) {
			st, err := e.Cluster.Observe(ctx, s)
			return st.Applied, err
		}
	}},
	{"Seed", "no position", func(e *engine) {
		e.seed = func(ctx context.Context, m, s member, f func(replication.Progress)) (pos, error) {
			_, err := e.Cluster.Seed(ctx, m, s, f)
			return "", err
		}
	}},
	{"Seed", "stops the source", func(e *engine) {
		e.seed = func(ctx context.Context, m, s member, f func(replication.Progress)) (pos, error) {
			e.Cluster.Fence(ctx, s)
			defer e.Cluster.Promote(ctx, s, false)
			return e.Cluster.Seed(ctx, m, s, f)
		}
	}},
	{"SeedReplica", "stops the replica", func(e *engine) {
		e.seed = func(ctx context.Context, m, s member, f func(replication.Progress)) (pos, error) {
			e.Cluster.Drain(ctx, s)
			return e.Cluster.Seed(ctx, m, s, f)
		}
	}},
	{"SeedOver", "into empty servers only", func(e *engine) {
		e.seed = func(ctx context.Context, m, s member, f func(replication.Progress)) (pos, error) {
			if st, err := e.Cluster.Observe(ctx, m); err != nil || !st.Empty {
				return st.Applied, err
			}
			return e.Cluster.Seed(ctx, m, s, f)
		}
	}},
	{"SeedBroken", "leaves half of it", func(e *engine) {
		e.seed = func(ctx context.Context, m, s member, f func(replication.Progress)) (pos, error) {
			p, err := e.Cluster.Seed(ctx, m, s, f)
			if err != nil {
				e.Inject(m.Addr, "half", "1")
			}
			return p, err
		}
	}},
	{"SeedBroken", "refuses another time", func(e *engine) {
		n := 0
		e.seed = func(ctx context.Context, m, s member, f func(replication.Progress)) (pos, error) {
			if n++; n > 1 {
				return "", errors.New("a seed is under way")
			}
			return e.Cluster.Seed(ctx, m, s, f)
		}
	}},
	{"Import", "is a seed", func(e *engine) {
		e.imports = func(ctx context.Context, m member, _ replication.Engine, s member, scrub scrubber, f func(replication.Progress)) (pos, error) {
			p, err := e.Cluster.Seed(ctx, m, s, f)
			return p, errors.Join(err, scrub(ctx, m))
		}
	}},
	{"Import", "is known as one for ever", func(e *engine) {
		done := map[string]bool{}
		e.imports = func(ctx context.Context, m member, o replication.Engine, s member, scrub scrubber, f func(replication.Progress)) (pos, error) {
			done[m.Addr] = true
			return e.Cluster.Import(ctx, m, o, s, scrub, f)
		}
		e.observe = func(ctx context.Context, m member) (status, error) {
			st, err := e.Cluster.Observe(ctx, m)
			st.Imported = done[m.Addr]
			return st, err
		}
	}},
	{"Import", "gives a position of its own", func(e *engine) {
		e.imports = func(ctx context.Context, m member, o replication.Engine, s member, scrub scrubber, f func(replication.Progress)) (pos, error) {
			_, err := e.Cluster.Import(ctx, m, o, s, scrub, f)
			st, _ := e.Cluster.Observe(ctx, m)
			return st.Applied, err
		}
	}},
	{"Import", "scrubs the source", func(e *engine) {
		e.imports = func(ctx context.Context, m member, o replication.Engine, s member, scrub scrubber, f func(replication.Progress)) (pos, error) {
			p, err := e.Cluster.Import(ctx, m, o, s, scrub, f)
			return p, errors.Join(err, scrub(ctx, s))
		}
	}},
	{"ImportHidden", "scrubs when all is done", func(e *engine) {
		e.imports = func(ctx context.Context, m member, o replication.Engine, s member, scrub scrubber, f func(replication.Progress)) (pos, error) {
			p, err := e.Cluster.Import(ctx, m, o, s, nil, f)
			return p, errors.Join(err, scrub(ctx, m))
		}
	}},
	{"ImportHidden", "does not scrub", func(e *engine) {
		e.imports = func(ctx context.Context, m member, o replication.Engine, s member, _ scrubber, f func(replication.Progress)) (pos, error) {
			return e.Cluster.Import(ctx, m, o, s, nil, f)
		}
	}},
	{"ImportBroken", "does not mind a scrub that fails", func(e *engine) {
		e.imports = func(ctx context.Context, m member, o replication.Engine, s member, scrub scrubber, f func(replication.Progress)) (pos, error) {
			return e.Cluster.Import(ctx, m, o, s, func(ctx context.Context, m member) error { _ = scrub(ctx, m); return nil }, f)
		}
	}},
	{"ImportBroken", "forgets that it is half a copy", func(e *engine) {
		e.restarted = func(addr string) {
			if st, _ := e.Cluster.Observe(context.Background(), member{Addr: addr}); st.Empty {
				e.Remove(addr)
				e.Start(addr)
				e.Inject(addr, "half", "1")
			}
		}
	}},
}

type scrubber = func(context.Context, member) error
