package memcached

import (
	"bytes"
	"errors"
	"io"
	"maps"
	"slices"
	"testing"
	"testing/iotest"

	"github.com/stretchr/testify/require"

	"github.com/scalr-go/scalr/cache"
)

// Whatever a server says: the reader does not panic, takes no more than it may, gives nothing under a key that was not asked
// for, and says the same whether the bytes come at once or one by one, with interruptions.
func FuzzAnswer(f *testing.F) {
	for _, s := range []string{
		"VA 3 f7 c2 O7\r\nabc\r\n", "VA 0 f0 c1 O7 W\r\n\r\n", "EN O7\r\n", "HD O7\r\n", "NS O7\r\n", "EX O7\r\n", "NF O7\r\n",
		"VALUE a 7 3 2\r\nabc\r\nVALUE b 0 0 1\r\n\r\nEND\r\n", "STAT pid 12\r\nEND\r\n", "SERVER_ERROR object too large for cache\r\n",
		"ERROR\r\n", "CLIENT_ERROR bad\r\n", "VALUE c 0 1 1\r\nx\r\nEND\r\n", "VA 99999999999999999999 O7\r\n", "VA 3 O8\r\nabc\r\n",
		"VA 3 f7 c2 O7\r\nabcdef", "\n", "\r\n", "VA -1 O7\r\n", "VALUE a 0 18446744073709551616 1\r\n",
	} {
		for k := range 7 {
			f.Add(uint8(k), []byte(s))
		}
	}
	f.Fuzz(func(t *testing.T, k uint8, data []byte) {
		ask := func(src io.Reader) (*call, error) {
			c := &call{kind: kind(k % 7), key: "a", keys: []string{"a", "b", "a"}, opaque: 7}
			r := reader{src: src, buf: make([]byte, bufferSize)}
			for {
				err := r.answer(c, nil)
				if !errors.Is(err, iotest.ErrTimeout) {
					got := map[string]cache.Item{}
					if c.kind == multi {
						c.makeRoom(0)
						c.deliver(got)
					}
					for _, key := range slices.Sorted(maps.Keys(got)) {
						c.found = append(c.found, got[key])
					}
					return c, err
				}
			}
		}
		whole, err := ask(bytes.NewReader(data))
		pieces, err2 := ask(iotest.TimeoutReader(iotest.OneByteReader(bytes.NewReader(data))))
		require.Equal(t, err == nil, err2 == nil, "%v, %v", err, err2)
		require.Equal(t, whole.found, pieces.found)
		require.Equal(t, whole.err, pieces.err)
		require.Equal(t, whole.won, pieces.won)
		for _, item := range whole.found {
			require.True(t, slices.Contains(whole.keys, item.Key))
			require.True(t, bytes.Contains(data, item.Value))
		}
	})
}
