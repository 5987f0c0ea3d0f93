package memcached

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/scalr-go/scalr/cache"
)

// lanes is the transport of our own: a few connections, each of which carries the calls of many callers at once.
//
// A lane has no goroutine. One of its callers drives: it writes the requests of all who have come, in one piece, reads the
// answers in their order, and wakes each who waits for one. When it has its own answer it goes on only as long as answers are
// there, and hands over to one who still waits. A caller who is alone pays for no hand-over at all; the more callers there
// are, the more requests share a system call.
type lanes struct {
	node    *node
	all     []*lane
	opaques atomic.Uint32
}

type lane struct {
	*lanes
	load atomic.Int32 // calls that are here

	mu      sync.Mutex
	queue   []*call // are not written yet
	flight  []*call // in the order of their answers; only the driver changes it
	at      int     // how many of them have theirs
	driven  bool
	conn    *conn // the driver's, if there is one
	suspect bool  // the connection must not be used for further requests

	batch []byte // the driver's
}

const (
	maxFlight      = 256
	maxFlightBytes = 16 << 10 // fits the buffers of a connection, so that writing need not wait for reading
)

var (
	errNoMeta      = errors.New("server does not speak the meta protocol")
	errInterrupted = errors.New("connection was closed when the caller before had enough")
)

func newLanes(n *node, size int) *lanes {
	ls := &lanes{node: n}
	for range size {
		ls.all = append(ls.all, &lane{lanes: ls})
	}
	return ls
}

// carry implements transport.
func (ls *lanes) carry(ctx context.Context, c *call) {
	l := ls.pick(c)
	if l == nil {
		c.err = cache.ErrNotStored
		if _, ours := c.version.(*casOf); ours {
			c.err = cache.ErrMiss // with the server that had it
		}
		return
	}
	c.encode(&ls.opaques)
	l.carry(ctx, c)
	l.load.Add(-1)
}

// pick gives the lane of a call, and counts it there: the first that is free, or the one with the fewest calls. A swap has to
// take the connection that its version came over.
func (ls *lanes) pick(c *call) *lane {
	if c.kind == swap {
		if v, ok := c.version.(*casOf); ok && v.conn.lane.lanes == ls {
			v.conn.lane.load.Add(1)
			return v.conn.lane
		}
		return nil
	}
	var best *lane
	var least int32
	for _, l := range ls.all {
		if l.load.CompareAndSwap(0, 1) {
			return l
		}
		if n := l.load.Load(); best == nil || n < least {
			best, least = l, n
		}
	}
	best.load.Add(1)
	return best
}

func (l *lane) carry(ctx context.Context, c *call) {
	l.mu.Lock()
	l.queue = append(l.queue, c)
	c.state = queued
	if !l.driven {
		l.driven, c.state = true, drives
		l.mu.Unlock()
		l.drive(ctx, c)
		return
	}
	l.mu.Unlock()
	select {
	case <-c.wake:
	case <-ctx.Done():
		if l.leave(ctx, c) {
			return
		}
		<-c.wake
	}
	if c.state == drives {
		l.drive(ctx, c)
	}
}

// leave takes a call away whose caller's context has ended, unless it is done, or about to drive.
func (l *lane) leave(ctx context.Context, c *call) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch c.state {
	case queued:
		l.queue = slices.DeleteFunc(l.queue, func(other *call) bool { return other == c })
		c.state, c.ioErr = done, ctx.Err()
	case flying:
		c.state, c.ioErr = abandoned, ctx.Err()
	default:
		return false
	}
	return true
}

// drive reads and writes until the caller's own call is done.
func (l *lane) drive(ctx context.Context, own *call) {
	unwatch, early := own.unwatch, own.early
	own.unwatch, own.early = nil, nil
	rest := func() {
		if unwatch != nil {
			unwatch()
			unwatch = nil
		}
	}
	if early != nil && !l.fail(ctx, own, early, true) {
		rest()
		l.disconnect()
	}
	for own.state == drives {
		var err error
		fresh := l.take()
		if fresh {
			if l.conn != nil && (l.isSuspect() || time.Since(l.conn.last) >= maxIdleTime) {
				rest()
				l.disconnect()
			}
			l.refuse()
			if l.conn == nil && l.at < len(l.flight) {
				rest()
				if l.conn, err = l.dial(ctx); err != nil {
					l.failDial(ctx, own, err)
					continue
				}
			}
		}
		if l.at == len(l.flight) {
			continue
		}
		if unwatch == nil {
			unwatch = l.conn.watch(ctx)
		}
		if fresh {
			if err = l.send(); err == nil && own.kind == multi {
				own.makeRoom(l.conn.usual)
			}
		}
		sent := err == nil
		if sent {
			err = l.receive(own)
		}
		if err != nil {
			kept := l.fail(ctx, own, err, sent)
			if !kept {
				rest()
				l.disconnect()
			}
		}
	}
	rest()
	l.handOver()
}

// take lets calls board, if none is in flight.
func (l *lane) take() bool {
	if l.at < len(l.flight) {
		return false
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	clear(l.flight)
	l.flight, l.at = l.flight[:0], 0
	bytes, n := 0, 0
	for _, c := range l.queue {
		if bytes += len(c.out); n > 0 && bytes > maxFlightBytes || n == maxFlight {
			break
		}
		if c.state == queued {
			c.state = flying
		}
		l.flight = append(l.flight, c)
		n++
	}
	l.queue = slices.Delete(l.queue, 0, n)
	return true
}

// refuse answers the swaps of what came over another connection than this one.
func (l *lane) refuse() {
	flight := l.flight[:0]
	for _, c := range l.flight {
		if c.kind == swap && c.version.(*casOf).conn != l.conn {
			c.err = cache.ErrNotStored
			l.complete(c, nil, true)
		} else {
			flight = append(flight, c)
		}
	}
	l.flight = flight
}

// complete gives a call back to its caller.
func (l *lane) complete(c *call, ioErr error, reused bool) {
	l.mu.Lock()
	waits := c.state == flying
	if c.state == flying || c.state == drives {
		c.state, c.ioErr, c.reused = done, ioErr, reused
	}
	l.mu.Unlock()
	if waits {
		c.wake <- struct{}{}
	}
}

func (l *lane) send() error {
	if len(l.flight) == 1 {
		return l.conn.send(l.flight[0].out)
	}
	l.batch = l.batch[:0]
	for _, c := range l.flight {
		l.batch = append(l.batch, c.out...)
	}
	return l.conn.send(l.batch)
}

// receive reads answers: all up to the caller's own, and further ones that are there.
func (l *lane) receive(own *call) error {
	for l.at < len(l.flight) && (own.state == drives || l.conn.buffered()) {
		c := l.flight[l.at]
		c.at = l.conn.sent
		if err := l.conn.answer(c, l.conn); err != nil {
			return err
		}
		l.conn.used = true
		l.at++
		l.complete(c, nil, true)
	}
	l.conn.last = time.Now()
	return nil
}

// fail ends calls whose connection has failed, and reports whether it is usable all the same.
func (l *lane) fail(ctx context.Context, own *call, err error, sent bool) (kept bool) {
	reused := l.conn.used
	switch {
	case own.state == drives && ctx.Err() != nil && isTimeout(err):
		l.mu.Lock()
		own.state, own.ioErr = done, err
		if sent && slices.ContainsFunc(l.flight[l.at:], func(c *call) bool { return c.state == flying }) {
			own.state = abandoned // its answer is still to come
			kept = true
		}
		l.mu.Unlock()
		if kept {
			return true
		}
		err, reused = errInterrupted, true
	case errors.Is(err, errProtocol):
		c := l.flight[l.at]
		l.at++
		c.err = err
		l.complete(c, nil, true)
		err, reused = errInterrupted, true
	case isTimeout(err): // nobody is to wait for the same again
		l.mu.Lock()
		l.takeQueue()
		l.mu.Unlock()
	}
	for ; l.at < len(l.flight); l.at++ {
		l.complete(l.flight[l.at], err, reused)
	}
	return false
}

// takeQueue lets all calls share the fate of those in flight. It is called with mu held.
func (l *lane) takeQueue() {
	for _, c := range l.queue {
		c.state = flying
	}
	l.flight = append(l.flight, l.queue...)
	l.queue = nil
}

// failDial ends the calls that wait for a connection; if the caller's context has ended, only its own.
func (l *lane) failDial(ctx context.Context, own *call, err error) {
	l.mu.Lock()
	if own.state == drives && ctx.Err() != nil {
		var queue []*call
		for _, c := range l.flight[l.at:] {
			if c.state == flying {
				c.state = queued
				queue = append(queue, c)
			}
		}
		l.queue = append(queue, l.queue...)
		l.flight, l.at = append(l.flight[:0], own), 0
	} else {
		l.takeQueue()
	}
	l.mu.Unlock()
	for ; l.at < len(l.flight); l.at++ {
		l.complete(l.flight[l.at], err, false)
	}
}

// handOver makes another caller drive, if there is one.
func (l *lane) handOver() {
	l.mu.Lock()
	var next *call
	if i := slices.IndexFunc(l.flight[l.at:], func(c *call) bool { return c.state == flying }); i >= 0 {
		next = l.flight[l.at+i]
	} else {
		if l.at < len(l.flight) { // answers are to come that nobody waits for
			l.disconnect()
		}
		clear(l.flight)
		l.flight, l.at = l.flight[:0], 0
		if len(l.queue) > 0 {
			next = l.queue[0]
		}
	}
	if next == nil {
		if l.suspect {
			l.disconnect()
			l.suspect = false
		}
		l.driven = false
		l.mu.Unlock()
		return
	}
	next.state = drives
	l.mu.Unlock()
	next.wake <- struct{}{}
}

func (l *lane) isSuspect() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	suspect := l.suspect
	l.suspect = false
	return suspect
}

func (l *lane) disconnect() {
	if l.conn != nil {
		l.conn.Close()
		l.conn = nil
	}
}

// dial opens a connection and asks whether the server speaks the meta protocol: an older one would take values for commands.
func (l *lane) dial(ctx context.Context) (*conn, error) {
	ctx, cancel := context.WithTimeout(ctx, l.node.opts.Timeout)
	defer cancel()
	raw, err := l.node.dial(ctx)
	if err != nil {
		return nil, err
	}
	c := &conn{Conn: raw, lane: l, timeout: l.node.opts.Timeout, last: time.Now()}
	c.reader = reader{src: c, buf: make([]byte, bufferSize)}
	unwatch := c.watch(ctx)
	err = c.send([]byte("mn\r\n"))
	var line []byte
	if err == nil {
		line, err = c.line()
	}
	unwatch()
	switch {
	case err != nil:
	case string(line) == "MN":
		return c, nil
	case string(line) == "ERROR":
		err = errNoMeta
	default:
		err = fmt.Errorf("%w: %.200q", errProtocol, line)
	}
	raw.Close()
	return nil, err
}

// closeIdle implements transport. The connections in use go when their drivers have their answers.
func (ls *lanes) closeIdle() {
	for _, l := range ls.all {
		l.mu.Lock()
		if l.driven {
			l.suspect = true
		} else {
			l.disconnect()
		}
		l.mu.Unlock()
	}
}

// idle implements transport.
func (ls *lanes) idle() (n int) {
	for _, l := range ls.all {
		l.mu.Lock()
		if !l.driven && l.conn != nil {
			n++
		}
		l.mu.Unlock()
	}
	return n
}
