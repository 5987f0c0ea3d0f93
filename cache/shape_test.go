package cache_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/scalr-go/scalr/cache"
)

type (
	pageV1 struct {
		Title string
		Next  *pageV1
	}
	pageV2 struct { // JSON would find a title, and nothing else
		Title  string
		Author string
		Next   *pageV2
	}
	moved struct {
		Title string
		Next  *moved
	}
	tagged struct {
		Title string `json:"Next"`
		Next  *tagged
	}
)

// A value of a type that looks different is a miss, and never a value that is half there; a type may move and be renamed.
func TestValueOfAnotherTypeIsAMiss(t *testing.T) {
	for name, gob := range map[string]bool{"JSON": false, "gob": true} {
		t.Run(name, func(t *testing.T) {
			var m cache.Memory
			require.Equal(t, pageV1{Title: "one"}, through(t, &m, gob, pageV1{Title: "one"}, true))
			require.Equal(t, moved{Title: "one"}, through(t, &m, gob, moved{Title: "two"}, false))
			require.Equal(t, pageV2{Title: "two", Author: "me"}, through(t, &m, gob, pageV2{Title: "two", Author: "me"}, true))
			require.Equal(t, tagged{Title: "three"}, through(t, &m, gob, tagged{Title: "three"}, true))
			require.Equal(t, map[string]string{"Title": "four"}, through(t, &m, gob, map[string]string{"Title": "four"}, true))
			require.Equal(t, map[string]any{"Title": "five"}, through(t, &m, gob, map[string]any{"Title": "five"}, true))
			require.Equal(t, [2]int64{6, 6}, through(t, &m, gob, [2]int64{6, 6}, true))
			require.Equal(t, []int64{7, 7}, through(t, &m, gob, []int64{7, 7}, true))
			require.Equal(t, time.Unix(8, 0).UTC(), through(t, &m, gob, time.Unix(8, 0).UTC(), true))
		})
	}
}

// through reads the key "k" through a cache of its own, and says whether the value had to be loaded.
func through[V any](t *testing.T, m *cache.Memory, gob bool, v V, loads bool) V {
	t.Helper()
	of := &cache.Of[V]{Store: m}
	if gob {
		of.Codec = cache.Gob[V]{}
	}
	loaded := false
	got, err := of.Get(t.Context(), "k", func(context.Context) (V, error) { loaded = true; return v, nil })
	require.NoError(t, err)
	require.Equal(t, loads, loaded, "%T", v)
	return got
}

// protobuf is the codec of the doc of Codec.
type protobuf struct{}

func (protobuf) Encode(p *wrapperspb.StringValue) ([]byte, error) { return proto.Marshal(p) }
func (protobuf) Decode(b []byte) (*wrapperspb.StringValue, error) {
	p := new(wrapperspb.StringValue)
	return p, proto.Unmarshal(b, p)
}

func TestProtobuf(t *testing.T) {
	of := &cache.Of[*wrapperspb.StringValue]{Store: new(cache.Memory), Codec: protobuf{}}
	load := func(context.Context) (*wrapperspb.StringValue, error) { return wrapperspb.String("v"), nil }
	for range 2 {
		got, err := of.Get(t.Context(), "k", load)
		require.NoError(t, err)
		require.True(t, proto.Equal(wrapperspb.String("v"), got))
		load = func(context.Context) (*wrapperspb.StringValue, error) { return nil, errors.New("loaded again") }
	}
}
