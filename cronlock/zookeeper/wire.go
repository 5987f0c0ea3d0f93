package zookeeper

import (
	"context"
	"crypto/tls"
	"net"
	"time"

	"github.com/go-zookeeper/zk"
)

// dialer is what the client library calls. It knows TLS only as a way to dial.
func (c *Client) dialer(o Options) zk.Dialer {
	dial := o.Dial
	if dial == nil {
		dial = new(net.Dialer).DialContext
	}
	return func(network, address string, timeout time.Duration) (net.Conn, error) {
		ctx, cancel := context.WithTimeout(c.quit, timeout)
		defer cancel()
		conn, err := dial(ctx, network, address)
		if err != nil {
			c.failed(err)
			return nil, err
		}
		w := &wire{Conn: conn, raw: conn, failed: c.failed, opened: time.Now(), patience: max(o.Timeout/3, timeout)}
		if o.TLS != nil {
			config := o.TLS.Clone()
			if config.ServerName == "" {
				config.ServerName, _, _ = net.SplitHostPort(address)
			}
			secure := tls.Client(conn, config)
			if err := secure.HandshakeContext(ctx); err != nil {
				conn.Close()
				c.failed(err)
				return nil, err
			}
			w.Conn = secure
		}
		w.forget = context.AfterFunc(c.quit, func() { conn.Close() })
		c.wire.Store(w)
		return w, nil
	}
}

// failed keeps why there is no connection, for who waits for the session.
func (c *Client) failed(err error) { c.failure.Store(&err) }

// hangUp ends the connection if it is older than the given time, for which nothing was heard. The client library takes another
// server, with the same session; by itself it waits longer than a lease lasts.
func (c *Client) hangUp(silence time.Duration) {
	if w := c.wire.Load(); w != nil && time.Since(w.opened) >= silence {
		w.raw.Close()
	}
}

// wire is a connection as the client library can bear it.
type wire struct {
	net.Conn
	raw      net.Conn // below TLS, whose Close waits for a server that hangs
	opened   time.Time
	patience time.Duration // for the answer to the greeting
	greeted  bool          // of the reading goroutine only
	failed   func(error)   // is told why there was no greeting
	forget   func() bool
}

// Write breaks the connection where a write fails, and says nothing: reading tells. The client library would hand on the network's
// own error as the outcome of a request; and if that was one of the credentials, which are sent again with each
// connection, it would block for ever.
func (w *wire) Write(p []byte) (int, error) {
	if _, err := w.Conn.Write(p); err != nil {
		w.raw.Close()
	}
	return len(p), nil
}

func (w *wire) Read(p []byte) (int, error) {
	n, err := w.Conn.Read(p)
	if w.greeted = w.greeted || n > 0; !w.greeted && err != nil {
		w.failed(err)
	}
	return n, err
}

// SetReadDeadline shortens the wait for the answer to the greeting, for which the client library takes almost seven times the
// session's timeout: a server that hangs accepts connections all the same.
func (w *wire) SetReadDeadline(t time.Time) error {
	if most := time.Now().Add(w.patience); !w.greeted && t.After(most) {
		t = most
	}
	return w.Conn.SetReadDeadline(t)
}

func (w *wire) Close() error {
	w.forget()
	return w.raw.Close()
}
