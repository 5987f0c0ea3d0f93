package memcached

import (
	"context"
	"net"
	"sync"
	"time"
)

// conn is a connection of a lane.
type conn struct {
	net.Conn
	reader
	lane     *lane
	timeout  time.Duration
	used     bool      // it has carried a call
	last     time.Time // when it was used last
	extended time.Time // when the server was given time last
	sent     int64     // when requests were sent last, or a little before, in nanoseconds of Unix time

	mu          sync.Mutex
	turn        uint64 // counts the drivers
	interrupted bool   // the current driver's context has ended
}

// watch lets the end of a context interrupt the connection, until unwatch.
func (c *conn) watch(ctx context.Context) (unwatch func()) {
	c.mu.Lock()
	c.turn++
	c.interrupted = false
	turn := c.turn
	c.extend()
	c.mu.Unlock()
	if ctx.Done() == nil {
		return func() {}
	}
	stop := context.AfterFunc(ctx, func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		if c.turn == turn {
			c.interrupted = true
			c.SetDeadline(time.Unix(1, 0))
		}
	})
	return func() {
		if !stop() {
			c.mu.Lock()
			c.turn++
			c.mu.Unlock()
		}
	}
}

// extend gives the server time from now on. It is called with mu held.
func (c *conn) extend() {
	if !c.interrupted {
		c.extended = time.Now()
		c.SetDeadline(c.extended.Add(c.timeout))
	}
}

// hurry gives the server a shorter time for its next bytes, until relax.
func (c *conn) hurry(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.interrupted && d < c.timeout {
		c.SetReadDeadline(time.Now().Add(d))
	}
}

// relax gives the server its usual time, and reports whether the connection was not interrupted meanwhile.
func (c *conn) relax() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.extend()
	return !c.interrupted
}

func (c *conn) extendLater() {
	if time.Since(c.extended) > c.timeout/8 {
		c.mu.Lock()
		c.extend()
		c.mu.Unlock()
	}
}

func (c *conn) send(b []byte) error {
	for {
		c.extendLater()
		c.sent = c.extended.UnixNano()
		n, err := c.Write(b[:min(len(b), 64<<10)])
		if err != nil {
			return err
		}
		if b = b[n:]; len(b) == 0 {
			return nil
		}
	}
}

// Read reads what comes next, within the time that the server has.
func (c *conn) Read(b []byte) (int, error) {
	c.extendLater()
	return c.Conn.Read(b)
}
