package mysql_test

import (
	"context"
	"fmt"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"
)

// relay passes connections on to a server. While it is muted, what the clients send is lost.
type relay struct {
	addr  string
	muted atomic.Bool
	mu    sync.Mutex
	conns []net.Conn
}

func newRelay(t *testing.T, target string) *relay {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	r := &relay{addr: l.Addr().String()}
	var users sync.WaitGroup
	t.Cleanup(func() {
		l.Close()
		r.cut()
		users.Wait()
	})
	users.Go(func() {
		for {
			client, err := l.Accept()
			if err != nil {
				return
			}
			server, err := net.Dial("tcp", target)
			if err != nil {
				client.Close()
				continue
			}
			r.mu.Lock()
			r.conns = append(r.conns, client, server)
			r.mu.Unlock()
			users.Go(func() {
				_, _ = io.Copy(client, server)
				client.Close()
			})
			users.Go(func() {
				buf := make([]byte, 4096)
				for {
					n, err := client.Read(buf)
					if err == nil && !r.muted.Load() {
						_, err = server.Write(buf[:n])
					}
					if err != nil {
						server.Close()
						return
					}
				}
			})
		}
	})
	return r
}

// cut ends the connections that there are.
func (r *relay) cut() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, c := range r.conns {
		c.Close()
	}
	r.conns = nil
}

// A replica that has a transaction and whose acknowledgement was lost with its connection does not acknowledge it again:
// the primary waits for ever, until the engine is told.
func TestLostAcknowledgement(t *testing.T) {
	e, primary, replica := pair(t)
	r := newRelay(t, primary.Addr)
	through := primary.Member
	through.Addr = r.addr
	t.Cleanup(func() { require.NoError(t, e.Close(through)) })
	require.NoError(t, e.Follow(t.Context(), replica.Member, through))
	caughtUp(t, e, replica, primary)
	require.NoError(t, e.SetSemiSync(t.Context(), primary.Member, true))
	app := primary.app(t)
	exec(t, app, "INSERT INTO app.t (v) VALUES ('x')")

	r.muted.Store(true)
	waits := make(chan error, 1)
	go func() {
		_, err := app.ExecContext(context.Background(), "INSERT INTO app.t (v) VALUES ('y')")
		waits <- err
	}()
	within(t, "the replica has what waits", func() bool {
		p := observe(t, e, primary)
		return p.Unacked == 1 && observe(t, e, replica).Received == p.Applied
	})
	r.muted.Store(false)
	r.cut()
	within(t, "the replica is back", func() bool {
		return observe(t, e, primary).Waiters == 1 && observe(t, e, replica).Receives
	})
	heartbeats := func() (n int) {
		_, err := fmt.Sscan(one(t, replica.admin(t), "SELECT variable_value FROM information_schema.global_status "+
			"WHERE variable_name = 'Slave_received_heartbeats'"), &n)
		require.NoError(t, err)
		return n
	}
	before := heartbeats()
	within(t, "the replica has nothing more to receive, and the commit has waited long", func() bool {
		return heartbeats() >= before+2 && one(t, primary.admin(t), "SELECT COUNT(*) FROM information_schema.processlist "+
			"WHERE state LIKE 'Waiting for semi-sync ACK%' AND time_ms > 500") == "1"
	})
	require.Equal(t, 1, observe(t, e, primary).Unacked, "this server needs no help")

	require.NoError(t, e.SetSemiSync(t.Context(), primary.Member, true))
	require.Error(t, <-waits, "nobody acknowledged it")
	exec(t, app, "INSERT INTO app.t (v) VALUES ('z')")
	require.True(t, observe(t, e, primary).SemiSync)
	caughtUp(t, e, replica, primary)
	require.Equal(t, "3", one(t, replica.admin(t), "SELECT COUNT(*) FROM app.t"))
}
