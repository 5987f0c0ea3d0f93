package zookeeper_test

import (
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"sync"
)

// link is what a client's connections go through. It can be cut in silence, or lose the answer to a request.
type link struct {
	mu    sync.Mutex
	down  bool
	conns map[*linkConn]bool
	// drop is asked for each request, by opcode, whether to deliver it and then cut the connection instead of answering.
	drop func(opcode int32) bool
	// tear is asked for each request whether the connection breaks just before it is written.
	tear func(opcode int32) bool
}

func (l *link) dial(ctx context.Context, network, address string) (net.Conn, error) {
	l.mu.Lock()
	down := l.down
	l.mu.Unlock()
	if down {
		<-ctx.Done()
		return nil, context.Cause(ctx)
	}
	var d net.Dialer
	conn, err := d.DialContext(ctx, network, address)
	if err != nil {
		return nil, err
	}
	c := &linkConn{Conn: conn, link: l, lost: map[int32]bool{}}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.conns == nil {
		l.conns = map[*linkConn]bool{}
	}
	l.conns[c] = true
	return c, nil
}

// cut swallows what is sent and what is received from now on.
func (l *link) cut() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.down = true
}

// heal lets new connections through. Those that were cut break.
func (l *link) heal() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.down {
		l.down = false
		for c := range l.conns {
			c.Conn.Close()
			delete(l.conns, c)
		}
	}
}

func (l *link) isDown() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.down
}

// linkConn is one connection. The client library writes each request, and the first of all, in one call.
type linkConn struct {
	net.Conn
	link *link

	mu      sync.Mutex
	greeted bool
	lost    map[int32]bool // requests whose answer is not to arrive, by their number
	in      []byte         // what has been read and not yet been given
}

var errAnswerLost = errors.New("answer lost")

func (c *linkConn) Write(p []byte) (int, error) {
	if c.link.isDown() {
		return len(p), nil
	}
	c.mu.Lock()
	if !c.greeted {
		c.greeted = true
	} else if len(p) >= 12 {
		xid, op := int32(binary.BigEndian.Uint32(p[4:])), int32(binary.BigEndian.Uint32(p[8:]))
		c.link.mu.Lock()
		drop, tear := c.link.drop, c.link.tear
		c.link.mu.Unlock()
		if xid > 0 && tear != nil && tear(op) {
			c.Conn.Close()
		}
		if xid > 0 && drop != nil && drop(op) {
			c.lost[xid] = true
		}
	}
	c.mu.Unlock()
	return c.Conn.Write(p)
}

// Read gives whole answers only, so that one can be withheld.
func (c *linkConn) Read(p []byte) (int, error) {
	if len(c.in) == 0 {
		var head [4]byte
		if _, err := io.ReadFull(c.Conn, head[:]); err != nil {
			return 0, err
		}
		body := make([]byte, binary.BigEndian.Uint32(head[:]))
		if _, err := io.ReadFull(c.Conn, body); err != nil {
			return 0, err
		}
		if c.link.isDown() {
			return c.Read(p)
		}
		if len(body) >= 4 {
			c.mu.Lock()
			lost := c.lost[int32(binary.BigEndian.Uint32(body))]
			c.mu.Unlock()
			if lost {
				c.Conn.Close()
				return 0, errAnswerLost
			}
		}
		c.in = append(head[:], body...)
	}
	n := copy(p, c.in)
	c.in = c.in[n:]
	return n, nil
}
