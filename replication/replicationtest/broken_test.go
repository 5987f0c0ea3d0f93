package replicationtest

import (
	"context"
	"errors"
	"io"
	"strings"
	"sync"

	"github.com/scalr-go/scalr/replication"
)

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

var broken = []struct {
	rule, what string
	how        func(*engine)
}{
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
	{"Follow", "does nothing", func(e *engine) {
		e.follow = func(context.Context, member, member) error { return nil }
	}},
	{"Follow", "receives from the dead", lying(func(st *status) { st.Receives = st.Source != "" })},
	{"Follow", "stops after what is there", func(e *engine) {
		e.follow = func(ctx context.Context, m, p member) error {
			e.Cluster.Seed(ctx, m, p, nil)
			if err := e.Cluster.Follow(ctx, m, p); err != nil {
				return err
			}
			_, err := e.Cluster.Drain(ctx, m)
			return err
		}
	}},
	{"Silence", "hears the silent", lying(func(st *status) { st.Receives = st.Source != "" })},
	{"FollowFresh", "wants a primary", func(e *engine) {
		e.follow = func(ctx context.Context, m, p member) error {
			if st, _ := e.Cluster.Observe(ctx, p); !st.Writable {
				return errors.New("it is no primary")
			}
			return e.Cluster.Follow(ctx, m, p)
		}
	}},
	{"FollowFresh", "makes a primary", func(e *engine) {
		e.follow = func(ctx context.Context, m, p member) error {
			e.Cluster.Promote(ctx, p, false)
			return e.Cluster.Follow(ctx, m, p)
		}
	}},
	{"Refollow", "follows the first one only", func(e *engine) {
		first := map[string]member{}
		e.follow = func(ctx context.Context, m, p member) error {
			if f, ok := first[m.Addr]; ok {
				p = f
			}
			first[m.Addr] = p
			return e.Cluster.Follow(ctx, m, p)
		}
	}},
	{"Chain", "follows the primary only", func(e *engine) {
		e.follow = func(ctx context.Context, m, p member) error {
			if st, _ := e.Cluster.Observe(ctx, p); st.Receives {
				return errors.New("it is no primary")
			}
			return e.Cluster.Follow(ctx, m, p)
		}
	}},
	{"Chain", "follows in a circle", func(e *engine) {
		e.follow = func(ctx context.Context, m, p member) error {
			if st, _ := e.Cluster.Observe(ctx, p); st.Source == m.Addr {
				return nil
			}
			return e.Cluster.Follow(ctx, m, p)
		}
	}},
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
	{"Claim", "knows no tokens", func(e *engine) {
		e.follow = func(ctx context.Context, m, p member) error {
			m.Token = 0
			return e.Cluster.Follow(ctx, m, p)
		}
	}},
	{"Delay", "knows no delay", func(e *engine) {
		e.follow = func(ctx context.Context, m, p member) error {
			m.Delay = 0
			return e.Cluster.Follow(ctx, m, p)
		}
	}},
	{"Delay", "takes any", func(e *engine) {
		e.follow = func(ctx context.Context, m, p member) error {
			m.Delay = max(m.Delay, 0)
			return e.Cluster.Follow(ctx, m, p)
		}
	}},
	{"Delay", "ends it where none is told", func(e *engine) {
		e.follow = func(ctx context.Context, m, p member) error {
			if m.Delay == 0 {
				e.Cluster.Delay(m.Addr, 0)
			}
			return e.Cluster.Follow(ctx, m, p)
		}
	}},
	{"Delay", "only when it begins to follow", func(e *engine) {
		e.follow = func(ctx context.Context, m, p member) error {
			if st, err := e.Cluster.Observe(ctx, m); err == nil && st.Source == p.Addr && m.Delay >= 0 {
				m.Delay = 0
			}
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

type scrubber = func(context.Context, member) error

// dropping drains as MariaDB does when both threads are stopped first: what was received and not applied is gone.
func dropping(e *engine) {
	e.drain = func(ctx context.Context, m member) (pos, error) {
		e.Crash(m.Addr)
		e.Start(m.Addr)
		return e.Cluster.Drain(ctx, m)
	}
}
