package memcached_test

import (
	"context"
	"errors"
	"net"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/require"

	"github.com/scalr-go/scalr/cache"
	"github.com/scalr-go/scalr/cache/memcached"
)

// A GetMulti all of whose keys have servers that are down has nothing when it comes to their stand-ins.
func TestGetMultiOfStandInsOnly(t *testing.T) {
	for _, text := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			n := &network{text: text, reply: func(_, command string) (reply string) {
				for _, key := range strings.Fields(command)[1:] {
					reply += "VALUE " + key + " 0 5 1\r\nvalue\r\n"
				}
				return reply + "END\r\n"
			}}
			c, err := memcached.New(memcached.Options{
				Servers:      []cache.Server{{Slot: "cache-1", Addr: "a.example:1"}, {Slot: "cache-2", Addr: "b.example:1"}},
				TextProtocol: text,
				DialContext: func(ctx context.Context, network, addr string) (net.Conn, error) {
					if strings.HasPrefix(addr, "a.") {
						return nil, errors.New("refused")
					}
					return n.dial(ctx, network, addr)
				},
			})
			require.NoError(t, err)
			keys := keysOf(t, c, 3)["cache-1"]
			for range 2 { // the first finds the server down, the second knows it
				items, err := c.GetMulti(t.Context(), keys)
				require.NoError(t, err)
				require.Len(t, items, 3)
				require.Equal(t, "value", string(items[keys[0]].Value))
			}
			items, err := c.GetMulti(t.Context(), nil)
			require.NoError(t, err)
			require.NotNil(t, items)
			require.NoError(t, c.Close())
		})
	}
}
