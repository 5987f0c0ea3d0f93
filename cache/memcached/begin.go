package memcached

import (
	"context"
	"time"
)

// A GetMulti that asks several servers writes to all of them before it reads from the first, in one goroutine: to hand each server
// to a goroutine of its own costs more than the rest of the call. A server that does not answer soon gets one all the same, so that
// it does not hold up what the others have answered, nor those who wait for their connections.

// soon is how long one server is waited for while others have answered.
const soon = 2 * time.Millisecond

// begin writes a call where that can be done at once: a connection is there and nobody uses it. The call must then be made with do.
func (n *node) begin(ctx context.Context, c *call) bool {
	ls, ok := (*n.transport.Load()).(*lanes)
	if !ok || n.uneasy.Load() || ctx.Err() != nil {
		return false
	}
	for _, l := range ls.all {
		if !l.load.CompareAndSwap(0, 1) {
			continue
		}
		if l.begin(ctx, c) {
			return true
		}
		l.load.Add(-1)
		return false
	}
	return false
}

func (l *lane) begin(ctx context.Context, c *call) bool {
	l.mu.Lock()
	if l.driven || l.suspect || len(l.queue) > 0 || l.conn == nil || time.Since(l.conn.last) >= maxIdleTime {
		l.mu.Unlock()
		return false
	}
	c.encode(&l.opaques)
	if len(c.out) > maxFlightBytes {
		l.mu.Unlock()
		return false
	}
	l.driven, c.state, c.begun = true, drives, l
	l.flight, l.at = append(l.flight[:0], c), 0
	l.mu.Unlock()
	c.unwatch = l.conn.watch(ctx)
	c.since = l.conn.extended
	c.early = l.conn.send(c.out)
	return true
}

// soon reads the answer to a call that was begun, if it comes soon, and reports whether there is nothing more to wait for.
func (c *call) soon() bool {
	if c.early != nil {
		return true
	}
	conn := c.begun.conn
	c.makeRoom(conn.usual)
	conn.hurry(soon)
	err := c.begun.receive(c)
	if err != nil && isTimeout(err) && conn.relax() {
		return false
	}
	c.early = err
	return true
}

// resume makes the rest of a call that was begun.
func (l *lane) resume(ctx context.Context, c *call) {
	c.begun = nil
	l.drive(ctx, c)
	l.load.Add(-1)
}
