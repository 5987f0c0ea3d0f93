package memcached_test

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/scalr-go/scalr/cache"
	"github.com/scalr-go/scalr/cache/memcached"
)

// network is servers that misbehave to order, in virtual time. It is no fake of memcached: it has nothing stored and gives
// the reply that the test wants.
type network struct {
	mu      sync.Mutex
	reply   func(addr, command string) string // to each command; "" is none, so that the server hangs
	refuse  bool                              // connections
	dials   int
	open    map[net.Conn]bool // the servers' ends
	command []string          // all that came
	raw     []string          // the same as it came
	text    bool              // the client uses the text protocol
}

func (n *network) dial(ctx context.Context, _, addr string) (net.Conn, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.dials++
	if n.refuse {
		return nil, errors.New("connection refused")
	}
	ours, theirs := net.Pipe()
	if n.open == nil {
		n.open = map[net.Conn]bool{}
	}
	n.open[theirs] = true
	go n.serve(addr, theirs)
	return ours, nil
}

func (n *network) serve(addr string, conn net.Conn) {
	defer func() {
		conn.Close()
		n.mu.Lock()
		defer n.mu.Unlock()
		delete(n.open, conn)
	}()
	r := bufio.NewReader(conn)
	for {
		line, err := r.ReadString('\n')
		if err != nil {
			return
		}
		line = strings.TrimSpace(line)
		raw := line
		words := strings.Fields(line)
		if words[0] == "mn" {
			if _, err := io.WriteString(conn, "MN\r\n"); err != nil {
				return
			}
			continue
		}
		answer := func(text string) string { return text }
		switch opaque := words[len(words)-1]; words[0] {
		case "mg":
			line = "gets " + words[1]
			answer = func(text string) string { return metaAnswer(text, words[1], opaque) }
		case "ms":
			line = "set " + words[1]
			answer = func(text string) string { return strings.Replace(text, "STORED", "HD "+opaque, 1) }
		}
		if words[0] == "ms" || words[0] == "set" || words[0] == "cas" {
			if _, err := r.ReadString('\n'); err != nil {
				return
			}
		}
		n.mu.Lock()
		n.command, n.raw = append(n.command, line), append(n.raw, raw)
		reply := answer(n.reply(addr, line))
		n.mu.Unlock()
		if _, err := io.WriteString(conn, reply); err != nil {
			return
		}
	}
}

// metaAnswer says in the meta protocol what an answer to one key says in the text protocol.
func metaAnswer(text, key, opaque string) string {
	if text == "END\r\n" {
		return "EN " + opaque + "\r\n"
	}
	head, rest, ok := strings.Cut(text, "\r\n")
	words := strings.Fields(head)
	if !ok || len(words) != 5 || words[1] != key {
		return text
	}
	return "VA " + words[3] + " f" + words[2] + " c" + words[4] + " " + opaque + "\r\n" + strings.TrimSuffix(rest, "END\r\n")
}

func (n *network) set(reply func(addr, command string) string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.reply = reply
}

// cut closes the connections from the servers' side.
func (n *network) cut() {
	n.mu.Lock()
	for conn := range n.open {
		conn.Close()
	}
	n.mu.Unlock()
	synctest.Wait()
}

func (n *network) connections() int {
	synctest.Wait()
	n.mu.Lock()
	defer n.mu.Unlock()
	return len(n.open)
}

func misses(string, string) string { return "END\r\n" }
func hangs(string, string) string  { return "" }

// inBubble runs a test of a client with one server, cache-1, in virtual time, once over each transport.
func inBubble(t *testing.T, f func(t *testing.T, n *network, c *memcached.Client)) {
	for _, text := range []bool{false, true} {
		t.Run(map[bool]string{false: "meta", true: "text"}[text], func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n := &network{reply: misses, text: text}
				c, err := memcached.New(memcached.Options{
					Servers:      []cache.Server{{Slot: "cache-1", Addr: "a.example:1"}},
					Connections:  3,
					TextProtocol: text,
					DialContext:  n.dial,
				})
				require.NoError(t, err)
				f(t, n, c)
				require.NoError(t, c.Close())
				require.Zero(t, n.connections(), "connections left")
			})
		})
	}
}

// get calls Get and says how long it took.
func get(ctx context.Context, c *memcached.Client) (time.Duration, error) {
	start := time.Now()
	_, err := c.Get(ctx, "k")
	return time.Since(start), err
}

func TestHungServer(t *testing.T) {
	inBubble(t, func(t *testing.T, n *network, c *memcached.Client) {
		ctx := t.Context()
		took, err := get(ctx, c)
		require.Equal(t, cache.ErrMiss, err)
		require.Zero(t, took)
		n.set(hangs)
		// Each pause ends with one call that tries, and costs its caller the time-out; nobody else waits.
		for i, pause := range []time.Duration{0, 500 * time.Millisecond, time.Second, 2 * time.Second, 4 * time.Second, 5 * time.Second, 5 * time.Second} {
			if pause > 0 {
				time.Sleep(pause - 1)
				took, err = get(ctx, c)
				require.ErrorIs(t, err, cache.ErrDown, "just before the end of pause %d", i)
				require.Zero(t, took)
				time.Sleep(time.Nanosecond)
			}
			tried := make(chan error)
			go func() { _, err := get(ctx, c); tried <- err }()
			synctest.Wait()
			if pause > 0 {
				took, err = get(ctx, c)
				require.ErrorIs(t, err, cache.ErrDown, "while one tries")
				require.Zero(t, took)
			}
			start := time.Now()
			err := <-tried
			require.Equal(t, 250*time.Millisecond, time.Since(start))
			require.ErrorContains(t, err, `Get "k": cache-1 (a.example:1): no answer within 250ms`)
			require.True(t, c.Stats()[0].Down)
		}
		n.set(misses)
		time.Sleep(5 * time.Second)
		_, err = get(ctx, c)
		require.Equal(t, cache.ErrMiss, err)
		require.False(t, c.Stats()[0].Down)
		n.set(hangs)
		_, err = get(ctx, c)
		require.ErrorContains(t, err, "no answer")
		time.Sleep(500 * time.Millisecond)
		n.set(misses)
		_, err = get(ctx, c)
		require.Equal(t, cache.ErrMiss, err, "after an answer, pauses begin anew")
	})
}

func TestServerThatTakesNoConnection(t *testing.T) {
	inBubble(t, func(t *testing.T, n *network, c *memcached.Client) {
		n.refuse = true
		_, err := get(t.Context(), c)
		require.ErrorContains(t, err, "connection refused")
		_, err = get(t.Context(), c)
		require.ErrorIs(t, err, cache.ErrDown)
		require.ErrorContains(t, err, "connection refused", "the error says why it is down")
		require.Equal(t, 1, n.dials)
		require.EqualValues(t, 2, c.Stats()[0].Errors)
	})
}

func TestServerThatLeavesConnectionsUnanswered(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, err := memcached.New(memcached.Options{
			Servers: slots("cache-1"),
			Timeout: 100 * time.Millisecond,
			DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
				<-ctx.Done()
				return nil, ctx.Err()
			},
		})
		require.NoError(t, err)
		took, err := get(t.Context(), c)
		require.ErrorContains(t, err, "no answer within 100ms")
		require.Equal(t, 100*time.Millisecond, took)
		took, err = get(t.Context(), c)
		require.ErrorIs(t, err, cache.ErrDown)
		require.Zero(t, took)
	})
}

// One item after another may come; each must come in time, and all before the context's deadline.
func TestSlowReply(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		drip := func(ctx context.Context, network, addr string) (net.Conn, error) {
			ours, theirs := net.Pipe()
			go func() {
				defer theirs.Close()
				r := bufio.NewReader(theirs)
				line, err := r.ReadString('\n')
				if err == nil && line == "mn\r\n" {
					_, _ = io.WriteString(theirs, "MN\r\n")
					line, err = r.ReadString('\n')
				}
				if err != nil {
					return
				}
				for _, key := range strings.Fields(line)[1:] {
					time.Sleep(100 * time.Millisecond)
					if err == nil {
						_, err = io.WriteString(theirs, "VALUE "+key+" 0 1 7\r\nx\r\n")
					}
				}
				_, _ = io.WriteString(theirs, "END\r\n")
			}()
			return ours, nil
		}
		c, err := memcached.New(memcached.Options{Servers: slots("cache-1"), DialContext: drip})
		require.NoError(t, err)
		defer c.Close()
		keys := []string{"a", "b", "c", "d", "e", "f"}
		items, err := c.GetMulti(t.Context(), keys)
		require.NoError(t, err)
		require.Len(t, items, 6)

		memcached.CloseIdle(c)
		ctx, cancel := context.WithTimeout(t.Context(), 350*time.Millisecond)
		defer cancel()
		start := time.Now()
		items, err = c.GetMulti(ctx, keys)
		require.Equal(t, 350*time.Millisecond, time.Since(start))
		require.ErrorIs(t, err, context.DeadlineExceeded)
		require.Len(t, items, 3, "what came in time is returned")
		partial, ok := errors.AsType[*cache.PartialError](err)
		require.True(t, ok)
		require.Len(t, partial.Failed, 3)
		require.Contains(t, partial.Failed, "f")
		time.Sleep(time.Second)
	})
}

func TestDeadConnections(t *testing.T) {
	inBubble(t, func(t *testing.T, n *network, c *memcached.Client) {
		ctx := t.Context()
		stored := func(_, command string) string {
			if strings.HasPrefix(command, "set ") {
				return "STORED\r\n"
			}
			return "END\r\n"
		}
		n.set(stored)
		_, err := get(ctx, c)
		require.Equal(t, cache.ErrMiss, err)
		n.cut()
		_, err = get(ctx, c)
		require.Equal(t, cache.ErrMiss, err, "Get is made again over a new connection")
		require.Equal(t, 2, n.dials)

		n.cut()
		n.command = nil
		require.Error(t, c.Set(ctx, cache.Item{Key: "k", Value: []byte("v")}), "Set is not")
		require.Empty(t, n.command)
		require.False(t, c.Stats()[0].Down, "the server may be well")
		require.NoError(t, c.Set(ctx, cache.Item{Key: "k", Value: []byte("v")}))

		n.set(func(string, string) string { // each connection dies at its first command
			for conn := range n.open {
				conn.Close()
			}
			return ""
		})
		n.dials = 0
		_, err = get(ctx, c)
		require.ErrorIs(t, err, io.EOF)
		require.Equal(t, 1, n.dials, "a second attempt, and no third")
		require.True(t, c.Stats()[0].Down)
	})
}

// All unused connections to a server that was restarted are dead, and one call finds out for all.
func TestDeadConnectionsGoTogether(t *testing.T) {
	inBubble(t, func(t *testing.T, n *network, c *memcached.Client) {
		var wg sync.WaitGroup
		n.set(func(string, string) string {
			n.mu.Unlock()
			time.Sleep(time.Millisecond)
			n.mu.Lock()
			return "END\r\n"
		})
		for range 3 {
			wg.Go(func() { _, _ = c.Get(t.Context(), "k") })
		}
		wg.Wait()
		require.Equal(t, 3, n.connections())
		n.cut()
		_, err := get(t.Context(), c)
		require.Equal(t, cache.ErrMiss, err)
		require.Equal(t, 1, c.Stats()[0].Idle)
		require.Equal(t, 4, n.dials)
	})
}

func TestIdleConnections(t *testing.T) {
	inBubble(t, func(t *testing.T, n *network, c *memcached.Client) {
		if !n.text {
			return // see TestLanes
		}
		release := make(chan struct{})
		parallel := func(calls int) {
			release = make(chan struct{})
			var wg sync.WaitGroup
			for range calls {
				wg.Go(func() { _, _ = c.Get(t.Context(), "k") })
			}
			synctest.Wait()
			close(release)
			wg.Wait()
		}
		n.set(func(string, string) string {
			n.mu.Unlock()
			<-release
			n.mu.Lock()
			return "END\r\n"
		})
		parallel(5)
		require.Equal(t, 5, n.dials)
		require.Equal(t, 3, n.connections(), "MaxIdle are kept")
		require.Equal(t, 3, c.Stats()[0].Idle)
		time.Sleep(59 * time.Second)
		parallel(2)
		require.Equal(t, 5, n.dials, "they are used again")
		time.Sleep(2 * time.Second)
		parallel(1)
		require.Equal(t, 2, n.connections(), "one was unused for a minute")
		time.Sleep(time.Hour)
		parallel(1)
		require.Equal(t, 6, n.dials)
		require.Equal(t, 1, n.connections(), "all were")
	})
}

func TestServerThatTalksNonsense(t *testing.T) {
	inBubble(t, func(t *testing.T, n *network, c *memcached.Client) {
		for _, reply := range []string{
			"VALUE other 0 1 7\r\nx\r\nEND\r\n", "SERVER_ERROR out of memory\r\n", "HTTP/1.1 400 Bad Request\r\n",
			"VALUE k 0 1 7\r\nxyz", "VALUE k 0 banana\r\n", "ERROR Too many open connections\r\n",
		} {
			n.set(func(string, string) string { return reply })
			_, err := c.Get(t.Context(), "k")
			require.Error(t, err, "%q", reply)
			require.NotErrorIs(t, err, cache.ErrMiss, "%q", reply)
			items, err := c.GetMulti(t.Context(), []string{"k", "l"})
			require.Error(t, err, "%q", reply)
			require.Empty(t, items, "%q", reply)
			require.Zero(t, n.connections(), "a connection that is out of step is not used again: %q", reply)
		}
		n.set(func(string, string) string { return "VALUE k 0 1 7\r\nx\r\nEND\r\n" })
		item, err := c.Get(t.Context(), "k")
		require.NoError(t, err)
		require.Equal(t, "x", string(item.Value))
	})
}

// A call that is under way when its server leaves ends well, and its connection is closed then.
func TestServerLeavesDuringCall(t *testing.T) {
	inBubble(t, func(t *testing.T, n *network, c *memcached.Client) {
		release := make(chan struct{})
		var asked atomic.Value
		n.set(func(addr, _ string) string {
			asked.Store(addr)
			n.mu.Unlock()
			<-release
			n.mu.Lock()
			return "END\r\n"
		})
		done := make(chan error)
		go func() { _, err := c.Get(t.Context(), "k"); done <- err }()
		synctest.Wait()
		require.NoError(t, c.SetServers([]cache.Server{{Slot: "cache-1", Addr: "b.example:1"}}))
		require.Equal(t, 1, n.connections())
		close(release)
		require.Equal(t, cache.ErrMiss, <-done)
		require.Zero(t, n.connections())
		_, err := get(t.Context(), c)
		require.Equal(t, cache.ErrMiss, err)
		require.Equal(t, "b.example:1", asked.Load())
	})
}

// A call that is about to connect when its server leaves goes to the one that came.
func TestServerLeavesDuringDial(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := &network{reply: misses}
		var c *memcached.Client
		c, err := memcached.New(memcached.Options{
			Servers: slots("cache-1", "cache-2"),
			DialContext: func(ctx context.Context, network, addr string) (net.Conn, error) {
				if addr == "cache-1.example:11211" || addr == "cache-2.example:11211" {
					require.NoError(t, c.SetServers([]cache.Server{{Slot: "cache-1", Addr: "new:1"}}))
				}
				return n.dial(ctx, network, addr)
			},
		})
		require.NoError(t, err)
		items, err := c.GetMulti(t.Context(), []string{"a", "b", "c", "d", "e"})
		require.NoError(t, err)
		require.Empty(t, items)
		_, err = c.Get(t.Context(), "k")
		require.Equal(t, cache.ErrMiss, err)
		require.Equal(t, 1, n.connections())
		require.EqualValues(t, 6, c.Stats()[0].Misses)
		require.NoError(t, c.Close())
	})
}
