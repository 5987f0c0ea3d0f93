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
			require.Equal(t, 10*time.Millisecond, took)
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
		c, end := endsContext(t, n, "write")
		took, err := get(end, c)
		require.ErrorIs(t, err, context.Canceled)
		require.Zero(t, took)
		require.Zero(t, n.connections())
	})
}

// The context ends when the reply has come: the call succeeds, and its connection is not used again.
func TestContextEndsWithCall(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := &network{reply: misses}
		c, end := endsContext(t, n, "read")
		_, err := get(end, c)
		require.Equal(t, cache.ErrMiss, err)
		require.Zero(t, n.connections())
		_, err = get(t.Context(), c)
		require.Equal(t, cache.ErrMiss, err)
		require.NoError(t, c.Close())
	})
}

// endsContext gives a client, and a context that ends during the first read or write of any of its connections.
func endsContext(t *testing.T, n *network, when string) (*memcached.Client, context.Context) {
	ctx, cancel := context.WithCancel(t.Context())
	end := func() { cancel(); synctest.Wait() }
	c, err := memcached.New(memcached.Options{
		Servers: slots("cache-1"),
		DialContext: func(ctx context.Context, network, addr string) (net.Conn, error) {
			conn, err := n.dial(ctx, network, addr)
			return &hooked{conn, when, end}, err
		},
	})
	require.NoError(t, err)
	return c, ctx
}

type hooked struct {
	net.Conn
	when string
	do   func()
}

func (h *hooked) Write(b []byte) (int, error) {
	n, err := h.Conn.Write(b)
	if h.when == "write" {
		h.do()
	}
	return n, err
}

func (h *hooked) Read(b []byte) (int, error) {
	n, err := h.Conn.Read(b)
	if h.when == "read" {
		h.do()
	}
	return n, err
}
