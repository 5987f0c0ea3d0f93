package mysql

import (
	"context"
	"net"
	"sync"

	"github.com/scalr-go/scalr/replication"
)

var _ replication.Watcher = (*Engine)(nil)

// Watch holds an idle connection to the member and returns when it breaks.
func (e *Engine) Watch(ctx context.Context, m replication.Member) error {
	return wrap("watch", m, e.watch(ctx, m))
}

func (e *Engine) watch(ctx context.Context, m replication.Member) error {
	var mu sync.Mutex
	var wire net.Conn
	db, err := e.openBy(m.Addr, nil, func(ctx context.Context, network, addr string) (net.Conn, error) {
		c, err := e.dial(ctx, network, addr)
		mu.Lock()
		defer mu.Unlock()
		wire = c
		return c, err
	})
	if err != nil {
		return err
	}
	defer db.Close()
	bounded, cancel := context.WithTimeout(ctx, e.config.Timeout)
	defer cancel()
	conn, err := db.Conn(bounded)
	if err != nil {
		return e.explain(bounded, err)
	}
	defer conn.Close()
	mu.Lock()
	c := wire
	mu.Unlock()
	stop := context.AfterFunc(ctx, func() { c.Close() })
	defer stop()
	_, err = c.Read(make([]byte, 1)) // a server says nothing to an idle connection but that it ends it
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return e.explain(ctx, err)
}
