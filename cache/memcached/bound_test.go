package memcached_test

import (
	"fmt"
	"regexp"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/scalr-go/scalr/cache"
	"github.com/scalr-go/scalr/cache/memcached"
)

// What is stored under a lease may be as old as the lease. Where a Delete may not have reached it, at a stand-in or under a key that
// has moved, it must end Settle after the lease was seen, not Settle after it is stored; and be stored not at all where that is over.
func TestBoundCountsFromTheLease(t *testing.T) {
	expires := regexp.MustCompile(`^(?:cas \S+ 0 (\d+)|ms \S+ 5 F0 T(\d+))`)
	for _, text := range []bool{false, true} {
		for _, where := range []string{"stand-in", "moved key", "owner"} {
			for _, taken := range []time.Duration{0, 4 * time.Second, 12 * time.Second} {
				t.Run(fmt.Sprintf("%v/%s/%v", map[bool]string{false: "meta", true: "text"}[text], where, taken), func(t *testing.T) {
					synctest.Test(t, func(t *testing.T) {
						n := &network{text: text}
						n.set(func(addr, command string) string {
							switch {
							case where == "stand-in" && strings.HasPrefix(addr, "cache-1."):
								return ""
							case strings.HasPrefix(command, "gets "):
								return "VALUE " + command[5:] + " 0 4 7\r\nstub\r\nEND\r\n"
							}
							return "STORED\r\n"
						})
						c, err := memcached.New(memcached.Options{
							Servers: slots("cache-1", "cache-2"), TextProtocol: text, DialContext: n.dial, Settle: 10 * time.Second,
						})
						require.NoError(t, err)
						defer c.Close()
						key := keysOf(t, c, 1)["cache-1"][0]
						if where == "moved key" {
							require.NoError(t, c.SetServers(slots("cache-2", "cache-3")))
							time.Sleep(9 * time.Second) // others may not know of it
						}
						lease, err := c.Get(t.Context(), key)
						require.NoError(t, err)
						time.Sleep(taken)
						lease.Value, lease.TTL = []byte("value"), time.Hour
						n.raw = nil
						err = c.CompareAndSwap(t.Context(), lease)
						if where != "owner" && taken > 10*time.Second {
							require.Equal(t, cache.ErrMiss, err)
							require.Empty(t, n.raw)
							return
						}
						require.NoError(t, err)
						require.Len(t, n.raw, 1)
						found := expires.FindStringSubmatch(n.raw[0])
						require.NotNil(t, found, n.raw[0])
						want := 10*time.Second - taken
						if where == "owner" {
							want = time.Hour
						}
						require.Equal(t, fmt.Sprint(want.Seconds()), found[1]+found[2], n.raw[0])
					})
				})
			}
		}
	}
}
