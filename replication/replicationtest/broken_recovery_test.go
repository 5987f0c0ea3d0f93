package replicationtest

import (
	"context"
	"errors"
	"io"
	"sync"

	"github.com/scalr-go/scalr/replication"
)

var brokenRecoveries = []fault{
	{"Fence", "does nothing", func(e *engine) {
		e.fence = func(context.Context, member) error { return nil }
	}},
	{"Fence", "sessions live on", func(e *engine) {
		e.session = func(s Session, open func() (Session, error)) Session { return &reconnecting{s, open} }
	}},
	{"Fence", "fails the second time", func(e *engine) {
		n := 0
		e.fence = func(ctx context.Context, m member) error {
			if n++; n > 1 {
				return errors.New("it is read-only already")
			}
			return e.Cluster.Fence(ctx, m)
		}
	}},
	{"FenceWaiting", "acknowledges", func(e *engine) {
		e.fence = func(ctx context.Context, m member) error {
			e.Cluster.SetSemiSync(ctx, m, false)
			return e.Cluster.Fence(ctx, m)
		}
	}},
	{"FenceWaiting", "leaves it waiting", func(e *engine) {
		e.fence = func(context.Context, member) error { return nil }
	}},
	{"Drain", "does not wait", func(e *engine) {
		e.drain = func(ctx context.Context, m member) (pos, error) {
			st, err := e.Cluster.Observe(ctx, m)
			return st.Applied, err
		}
	}},
	{"Drain", "goes on receiving", func(e *engine) {
		e.drain = func(ctx context.Context, m member) (pos, error) {
			st, _ := e.Cluster.Observe(ctx, m)
			p, err := e.Cluster.Drain(ctx, m)
			e.Cluster.Follow(ctx, m, member{Addr: st.Source})
			return p, err
		}
	}},
	{"Drain", "forgets whom it followed", func(e *engine) {
		e.drain = func(ctx context.Context, m member) (pos, error) {
			p, err := e.Cluster.Drain(ctx, m)
			e.Cluster.Promote(ctx, m, false)
			e.Cluster.Fence(ctx, m)
			return p, err
		}
	}},
	{"Drain", "drops the relay log", dropping},
	{"DrainStopped", "drops the relay log", dropping},
	{"SemiSync", "is not promoted with it", func(e *engine) {
		e.promote = func(ctx context.Context, m member, _ bool) error { return e.Cluster.Promote(ctx, m, false) }
	}},
	{"SemiSync", "is not switched", func(e *engine) {
		e.semi = func(context.Context, member, bool) error { return nil }
	}},
	{"SemiSync", "no word of acknowledgement", lying(func(st *status) { st.Acked = false })},
	{"SemiSync", "no word of waiters", lying(func(st *status) { st.Waiters = 0 })},
	{"SemiSyncLoss", "drops the relay log", dropping},
	{"Diverged", "overwritten", func(e *engine) {
		e.follow = func(ctx context.Context, m, p member) error {
			err := e.Cluster.Follow(ctx, m, p)
			if errors.Is(err, replication.ErrDiverged) {
				e.Cluster.Seed(ctx, m, p, nil)
				err = e.Cluster.Follow(ctx, m, p)
			}
			return err
		}
	}},
	{"Diverged", "overwritten with the right error", func(e *engine) {
		e.follow = func(ctx context.Context, m, p member) error {
			err := e.Cluster.Follow(ctx, m, p)
			if errors.Is(err, replication.ErrDiverged) {
				e.Cluster.Seed(ctx, m, p, nil)
			}
			return err
		}
	}},
	{"OldPrimary", "never taken back", func(e *engine) {
		var mu sync.Mutex
		was := map[string]bool{}
		e.promote = func(ctx context.Context, m member, s bool) error {
			mu.Lock()
			defer mu.Unlock()
			was[m.Addr] = true
			return e.Cluster.Promote(ctx, m, s)
		}
		e.follow = func(ctx context.Context, m, p member) error {
			mu.Lock()
			defer mu.Unlock()
			if was[m.Addr] {
				return replication.ErrDiverged
			}
			return e.Cluster.Follow(ctx, m, p)
		}
	}},
	{"Surplus", "not seen", func(e *engine) {
		e.compare = func(a, b pos) replication.Order {
			if o := e.Cluster.Compare(a, b); o != replication.Diverged {
				return o
			}
			return replication.Behind
		}
	}},
	{"Surplus", "counted as everything", func(e *engine) {
		e.count = func(a, b pos) (uint64, bool) { return e.Cluster.Count(a, "") }
	}},
	{"Surplus", "follows and keeps it", func(e *engine) {
		e.follow = func(ctx context.Context, m, p member) error {
			if err := e.Cluster.Follow(ctx, m, p); !errors.Is(err, replication.ErrDiverged) {
				return err
			}
			return nil
		}
	}},
	{"Rewind", "saves nothing", func(e *engine) {
		e.save = func(ctx context.Context, m, p member, _ io.Writer) (pos, error) {
			return e.Cluster.Save(ctx, m, p, io.Discard)
		}
	}},
	{"Rewind", "saves the last one only", func(e *engine) {
		e.save = func(ctx context.Context, m, p member, w io.Writer) (pos, error) {
			_, _ = io.WriteString(w, "own2")
			return e.Cluster.Save(ctx, m, p, io.Discard)
		}
	}},
	{"Rewind", "does nothing", func(e *engine) {
		e.rewind = func(context.Context, member, member, pos, func(replication.Progress)) error { return nil }
	}},
	{"Rewind", "seeds the primary", func(e *engine) {
		e.rewind = func(ctx context.Context, m, s member, _ pos, f func(replication.Progress)) error {
			_ = e.Cluster.Fence(ctx, s)
			_, err := e.Cluster.Seed(ctx, m, s, f)
			return err
		}
	}},
	{"RewindRefused", "asks for no position", func(e *engine) {
		e.rewind = func(ctx context.Context, m, s member, _ pos, f func(replication.Progress)) error {
			st, err := e.Cluster.Observe(ctx, m)
			if err != nil {
				return err
			}
			return e.Cluster.Rewind(ctx, m, s, st.Applied, f)
		}
	}},
	{"RewindRefused", "fences", func(e *engine) {
		e.save = func(ctx context.Context, m, p member, w io.Writer) (pos, error) {
			_ = e.Cluster.Fence(ctx, m)
			return e.Cluster.Save(ctx, m, p, w)
		}
	}},
	{"RewindBroken", "goes on", func(e *engine) {
		e.rewind = func(ctx context.Context, m, s member, at pos, f func(replication.Progress)) error {
			return e.Cluster.Rewind(context.WithoutCancel(ctx), m, s, at, f)
		}
	}},
	{"RewindBroken", "has taken back half", func(e *engine) {
		e.rewind = func(ctx context.Context, m, s member, at pos, f func(replication.Progress)) error {
			err := e.Cluster.Rewind(context.WithoutCancel(ctx), m, s, at, f)
			return errors.Join(err, ctx.Err())
		}
	}},
}

// dropping drains as MariaDB does when both threads are stopped first: what was received and not applied is gone.
func dropping(e *engine) {
	e.drain = func(ctx context.Context, m member) (pos, error) {
		e.Crash(m.Addr)
		e.Start(m.Addr)
		return e.Cluster.Drain(ctx, m)
	}
}
