package memcached

import (
	"context"
	"fmt"
	"net"

	"github.com/bradfitz/gomemcache/memcache"

	"github.com/scalr-go/scalr/cache"
)

// Gomemcache gives a client of github.com/bradfitz/gomemcache for the same servers, for what a cache.Store does not have:
// Increment, Append, Touch, FlushAll. It asks the server that owns a key, also after SetServers, with the Client's
// Timeout, TLS and dialer, over connections of its own.
//
// It knows nothing of what makes a Client safe: no breaker, no stand-in, no hand-over after a change of servers, and no
// leases. What both write is safe only where a stale value is.
func (c *Client) Gomemcache() *memcache.Client {
	g := memcache.NewFromSelector(selector{c})
	g.Timeout, g.MaxIdleConns = c.opts.Timeout, max(c.opts.Connections, 16)
	g.DialContext = func(ctx context.Context, _, addr string) (net.Conn, error) {
		for _, s := range c.ring.Load().slots {
			if s.node.server.Addr == addr {
				return s.node.dial(ctx)
			}
		}
		return nil, fmt.Errorf("%s: %w", addr, errDeparted)
	}
	return g
}

// selector is a Client's servers as gomemcache wants them.
type selector struct{ c *Client }

// PickServer implements memcache.ServerSelector.
func (s selector) PickServer(key string) (net.Addr, error) {
	n := s.c.ring.Load().pick(key)
	if n == nil {
		return nil, cache.ErrNoServers
	}
	return serverAddr(n.server.Addr), nil
}

// Each implements memcache.ServerSelector.
func (s selector) Each(do func(net.Addr) error) error {
	for _, slot := range s.c.ring.Load().slots {
		if err := do(serverAddr(slot.node.server.Addr)); err != nil {
			return err
		}
	}
	return nil
}

type serverAddr string

func (serverAddr) Network() string  { return "tcp" }
func (a serverAddr) String() string { return string(a) }
