package memdb

import (
	"context"
	"maps"
	"time"
)

// Session is an application's connection to one server. It ends when the server is fenced, crashes or is seeded.
type Session struct {
	cluster *Cluster
	addr    string
	number  int
}

// Open connects to the server at addr.
func (c *Cluster) Open(ctx context.Context, addr string) (*Session, error) {
	s := &Session{cluster: c, addr: addr}
	err := c.enter(ctx, Client, addr, func(srv *server, now time.Time) (time.Time, bool, error) {
		s.number = srv.session
		return time.Time{}, true, nil
	})
	if err != nil {
		return nil, err
	}
	return s, nil
}

// Write commits key = value and returns nil when the server has acknowledged it: under semi-synchronous replication when a
// replica has it too. ErrReadOnly means that nothing happened; after any other error it may have happened.
func (s *Session) Write(ctx context.Context, key, value string) error {
	c := s.cluster
	n := 0 // the length of the log with the transaction in it
	return c.enter(ctx, Client, s.addr, func(srv *server, now time.Time) (time.Time, bool, error) {
		if srv.session != s.number {
			return time.Time{}, true, ErrLost
		}
		if n == 0 {
			if !srv.writable {
				return time.Time{}, true, ErrReadOnly
			}
			if srv.stalled {
				return time.Time{}, false, nil
			}
			srv.commit(key, value, now)
			n = len(srv.log)
			if srv.applied = n; !srv.semisync {
				srv.acked = n
			}
			c.advance(now)
		}
		if srv.acked >= n {
			return time.Time{}, true, nil
		}
		var arrives time.Time // at the first of the replicas
		for _, r := range c.servers {
			if r.source == s.addr && !r.linked.IsZero() && !r.hung && !srv.deaf {
				if at := latest(srv.log[n-1].at.Add(c.options.Delay), r.linked); arrives.IsZero() || at.Before(arrives) {
					arrives = at
				}
			}
		}
		return arrives, false, nil
	})
}

// Read gives the value of key as the server sees it, and whether there is one.
func (s *Session) Read(ctx context.Context, key string) (value string, found bool, err error) {
	err = s.cluster.enter(ctx, Client, s.addr, func(srv *server, now time.Time) (time.Time, bool, error) {
		if srv.session != s.number {
			return time.Time{}, true, ErrLost
		}
		value, found = srv.view()[key]
		return time.Time{}, true, nil
	})
	return value, found, err
}

// Write is Open and Session.Write.
func (c *Cluster) Write(ctx context.Context, addr, key, value string) error {
	s, err := c.Open(ctx, addr)
	if err != nil {
		return err
	}
	return s.Write(ctx, key, value)
}

// Read is Open and Session.Read.
func (c *Cluster) Read(ctx context.Context, addr, key string) (value string, found bool, err error) {
	s, err := c.Open(ctx, addr)
	if err != nil {
		return "", false, err
	}
	return s.Read(ctx, key)
}

// Rows gives all that a reader of the server sees.
func (c *Cluster) Rows(ctx context.Context, addr string) (map[string]string, error) {
	var rows map[string]string
	err := c.enter(ctx, Client, addr, func(srv *server, now time.Time) (time.Time, bool, error) {
		rows = maps.Clone(srv.view())
		return time.Time{}, true, nil
	})
	return rows, err
}
