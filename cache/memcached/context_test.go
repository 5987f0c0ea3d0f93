package memcached_test

import (
	"context"
	"errors"
	"net"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/scalr-go/scalr/cache"
	"github.com/scalr-go/scalr/cache/memcached"
)

func TestContextBoundsCall(t *testing.T) {
	inBubble(t, func(t *testing.T, n *network, c *memcached.Client) {
		_, err := get(t.Context(), c)
		require.Equal(t, cache.ErrMiss, err)
		n.set(hangs)
		stop := errors.New("stop")
		for range 5 {
			ctx, cancel := context.WithCancelCause(t.Context())
			time.AfterFunc(10*time.Millisecond, func() { cancel(stop) })
			took, err := get(ctx, c)
			require.Equal(t, 10*time.Millisecond, took, "%v", err)
			require.ErrorIs(t, err, stop)
			require.Zero(t, n.connections(), "a connection that was interrupted is closed")
		}
		require.False(t, c.Stats()[0].Down, "what callers cancel says nothing about the server")
		require.Zero(t, c.Stats()[0].Errors)

		for i := range 3 {
			ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
			took, err := get(ctx, c)
			require.Equal(t, 20*time.Millisecond, took)
			require.ErrorIs(t, err, context.DeadlineExceeded)
			require.Equal(t, i == 2, c.Stats()[0].Down, "three deadlines in a row are taken for a failure")
			cancel()
		}
		_, err = get(t.Context(), c)
		require.ErrorIs(t, err, cache.ErrDown)
		require.NotErrorIs(t, err, context.DeadlineExceeded, "the deadline was another caller's")
	})
}

// The context ends between two steps of a call: the next step must not extend the deadline of the connection again.
func TestContextEndsBetweenSteps(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := &network{reply: hangs}
		c, end := endsContext(t, n, "write", 0)
		took, err := get(end, c)
		require.ErrorIs(t, err, context.Canceled)
		require.Zero(t, took)
		require.Zero(t, n.connections())
	})
}

// The context ends when the reply has come: the call succeeds. Over gomemcache, its connection is not used again.
func TestContextEndsWithCall(t *testing.T) {
	eachTransport(t, func(t *testing.T, text bool) {
		synctest.Test(t, func(t *testing.T) { testContextEndsWithCall(t, text) })
	})
}

func testContextEndsWithCall(t *testing.T, text bool) {
	{
		n := &network{reply: misses, text: text}
		c, end := endsContext(t, n, "read", map[bool]int{false: 1}[text]) // the first answer is about the protocol
		_, err := get(end, c)
		require.Equal(t, cache.ErrMiss, err)
		require.Equal(t, !text, n.connections() == 1)
		_, err = get(t.Context(), c)
		require.Equal(t, cache.ErrMiss, err)
		require.NoError(t, c.Close())
	}
}

// endsContext gives a client, and a context that ends during a read or write of any of its connections, after some others.
func endsContext(t *testing.T, n *network, when string, after int) (*memcached.Client, context.Context) {
	ctx, cancel := context.WithCancel(t.Context())
	end := func() { cancel(); synctest.Wait() }
	c, err := memcached.New(memcached.Options{
		Servers:      slots("cache-1"),
		TextProtocol: n.text,
		DialContext: func(ctx context.Context, network, addr string) (net.Conn, error) {
			conn, err := n.dial(ctx, network, addr)
			return &hooked{conn, when, after, end}, err
		},
	})
	require.NoError(t, err)
	return c, ctx
}

type hooked struct {
	net.Conn
	when  string
	after int
	do    func()
}

func (h *hooked) hook(when string) {
	if h.when == when {
		if h.after--; h.after < 0 {
			h.do()
		}
	}
}

func (h *hooked) Write(b []byte) (int, error) {
	n, err := h.Conn.Write(b)
	h.hook("write")
	return n, err
}

func (h *hooked) Read(b []byte) (int, error) {
	n, err := h.Conn.Read(b)
	h.hook("read")
	return n, err
}
