package memcached_test

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/scalr-go/scalr/cache"
	"github.com/scalr-go/scalr/cache/memcached"
)

// canned is a connection to a server that gives one answer to all requests, at once: what is measured over it is the work of
// the client alone.
type canned struct {
	net.Conn
	answer, rest []byte
}

func (c *canned) Read(b []byte) (int, error) {
	n := copy(b, c.rest)
	c.rest = c.rest[n:]
	return n, nil
}

func (c *canned) Write(b []byte) (int, error) {
	c.rest = c.answer
	if bytes.HasPrefix(b, []byte("mn\r\n")) {
		c.rest = []byte("MN\r\n")
	}
	return len(b), nil
}

func (*canned) SetDeadline(time.Time) error { return nil }
func (*canned) Close() error                { return nil }

// The work of the client in a GetMulti of 100 values of 100 bytes.
func BenchmarkGetMultiClient(b *testing.B) {
	var keys []string
	var answer bytes.Buffer
	for i := range 100 {
		keys = append(keys, fmt.Sprintf("page:%04d", i))
		fmt.Fprintf(&answer, "VALUE %s 0 100 %d\r\n%s\r\n", keys[i], i+1, strings.Repeat("v", 100))
	}
	answer.WriteString("END\r\n")
	c, err := memcached.New(memcached.Options{
		Servers:     []cache.Server{{Slot: "cache-1", Addr: "127.0.0.1:1"}},
		DialContext: func(context.Context, string, string) (net.Conn, error) { return &canned{answer: answer.Bytes()}, nil },
	})
	require.NoError(b, err)
	ctx, cancel := context.WithTimeout(b.Context(), time.Hour)
	defer cancel()
	b.ReportAllocs()
	for b.Loop() {
		items, err := c.GetMulti(ctx, keys)
		if err != nil || len(items) != len(keys) {
			b.Fatal(len(items), err)
		}
	}
}
