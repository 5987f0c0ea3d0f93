package replicationtest

import (
	"context"
	"errors"
)

var brokenReplicas = []fault{
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
}
