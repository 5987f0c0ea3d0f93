package memcached_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/scalr-go/scalr/cache"
	"github.com/scalr-go/scalr/cache/memcached"
	"github.com/scalr-go/scalr/internal/testenv"
)

// keeper is a real memcached that comes back from a restart with what it had: see -e of memcached.
type keeper struct {
	t    *testing.T
	addr string
	args []string
	cmd  *exec.Cmd
	gone time.Time // when it was stopped
}

func keep(t *testing.T) *keeper {
	testenv.Need(t, "memcached")
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	addr := l.Addr().(*net.TCPAddr)
	require.NoError(t, l.Close())
	k := &keeper{t: t, addr: addr.String(), args: []string{
		"-l", "127.0.0.1", "-p", fmt.Sprint(addr.Port), "-U", "0", "-m", "64", "-e", testenv.Dir(t) + "/memory",
	}}
	if os.Getuid() == 0 {
		k.args = append(k.args, "-u", "root")
	}
	k.start()
	t.Cleanup(func() {
		if k.cmd != nil {
			_ = k.cmd.Process.Kill()
			_ = k.cmd.Wait()
		}
	})
	return k
}

func (k *keeper) start() {
	time.Sleep(time.Until(k.gone.Add(1100 * time.Millisecond))) // within the same second it does not trust what it finds
	k.cmd = exec.Command("memcached", k.args...)
	require.NoError(k.t, k.cmd.Start())
	until(k.t, "memcached answered", func() bool {
		conn, err := net.Dial("tcp", k.addr)
		if err == nil {
			conn.Close()
		}
		return err == nil
	})
}

// stop ends it so that it finds its memory again.
func (k *keeper) stop() {
	require.NoError(k.t, k.cmd.Process.Signal(syscall.SIGUSR1))
	_ = k.cmd.Wait()
	k.cmd, k.gone = nil, time.Now()
}

// A server is restarted with what it had. While it is away a Delete of what it has is not acknowledged, and when it is, no value
// from before it comes back: not what the server kept, nor what was being loaded when it went.
func TestRestartWithOldData(t *testing.T) {
	eachTransport(t, func(t *testing.T, text bool) {
		ctx := t.Context()
		k := keep(t)
		c := clientOver(t, text, []cache.Server{{Slot: "cache-1", Addr: k.addr}, set(testenv.Memcached(t, 2))[1]}, 0)
		key := keysOf(t, c, 2)["cache-1"]
		of := &cache.Of[string]{Store: c, TTL: time.Hour, LoadTimeout: time.Minute}
		get := func(key, load string) string {
			v, err := of.Get(ctx, key, func(context.Context) (string, error) { return load, nil })
			require.NoError(t, err)
			return v
		}
		require.Equal(t, "old", get(key[0], "old"))
		before, err := c.Get(ctx, key[0])
		require.NoError(t, err)

		// Another load is under way when the server goes, and its lease is kept, too.
		v, err := of.Get(ctx, key[1], func(context.Context) (string, error) {
			k.stop()
			require.Error(t, c.Delete(ctx, key[0]), "it may come back with what it had")
			k.start()
			until(t, "the server was asked again", func() bool { return c.Delete(ctx, key[1]) == nil })
			return "old", nil
		})
		require.NoError(t, err)
		require.Equal(t, "old", v)
		require.Equal(t, "new", get(key[1], "new"), "a load from before the Delete has been stored")

		after, err := c.Get(ctx, key[0])
		require.NoError(t, err, "the server has forgotten, which is not what is tried here")
		require.Equal(t, before.Value, after.Value)
		require.NoError(t, of.Delete(ctx, key[0]))
		require.Equal(t, "new", get(key[0], "new"))
		before.Value = []byte("swapped")
		require.ErrorIs(t, c.CompareAndSwap(ctx, before), cache.ErrNotStored)
	})
}

// The same under load, with processes that read and write all the time.
func TestRestartsWithOldDataUnderLoad(t *testing.T) {
	const processes, keys, rounds = 3, 4, 3
	k := keep(t)
	servers := []cache.Server{{Slot: "cache-1", Addr: k.addr}, set(testenv.Memcached(t, 2))[1]}
	ctx, stop := context.WithCancel(t.Context())
	rows := map[string]*row{}
	for i := range keys {
		rows[fmt.Sprint(i)] = new(row)
	}
	var wg sync.WaitGroup
	for range processes {
		// No call times out, else a Delete that misses the stand-in would leave there what Settle bounds.
		of := &cache.Of[int]{Store: client(t, servers, 0), Prefix: "row:", LoadTimeout: 300 * time.Millisecond}
		for key, r := range rows {
			wg.Go(func() {
				for ctx.Err() == nil {
					r.read(ctx, t, of, key)
				}
			})
			wg.Go(func() {
				for ctx.Err() == nil {
					time.Sleep(20 * time.Millisecond)
					r.write(ctx, of, key)
				}
			})
		}
	}
	for range rounds {
		time.Sleep(150 * time.Millisecond)
		k.stop()
		k.start()
	}
	time.Sleep(700 * time.Millisecond)
	stop()
	wg.Wait()
	total := 0
	for key, r := range rows {
		total += len(r.acks)
		r.read(context.Background(), t, &cache.Of[int]{Store: client(t, servers, 0), Prefix: "row:"}, key)
	}
	require.Greater(t, total, 20, "the test did something")
}

// A machine that leaves the set and comes back with what it had is the case that has the TTL of values as its bound.
func TestBoundOfReturningServer(t *testing.T) {
	ctx := t.Context()
	const ttl = 3 * time.Second
	all := []cache.Server{{Slot: "cache-1", Addr: keep(t).addr}, set(testenv.Memcached(t, 2))[1]}
	c, err := memcached.New(memcached.Options{Servers: all, Timeout: 20 * time.Second, Settle: 3 * time.Second})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, c.Close()) })
	key := keysOf(t, c, 1)["cache-1"][0]
	of := &cache.Of[string]{Store: c, TTL: ttl}
	get := func(load string) string {
		v, err := of.Get(ctx, key, func(context.Context) (string, error) { return load, nil })
		if err != nil && !errors.Is(err, cache.ErrDown) {
			require.NoError(t, err)
		}
		return v
	}
	require.Equal(t, "old", get("old"))
	require.NoError(t, c.SetServers(all[1:]))
	require.NoError(t, of.Delete(ctx, key))
	deleted := time.Now()
	require.Equal(t, "new", get("new"))
	require.NoError(t, c.SetServers(all))
	stale := 0
	for get("new") == "old" {
		stale++
		require.Less(t, time.Since(deleted), 30*time.Second, "the server still has the old value")
		time.Sleep(20 * time.Millisecond)
	}
	t.Logf("the bound is the TTL, %v; a stale value was seen for %v, %d times", ttl, time.Since(deleted), stale)
}
