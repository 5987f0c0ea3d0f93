package cache_test

import (
	"context"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/scalr-go/scalr/cache"
	"github.com/scalr-go/scalr/cache/cachetest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestMemoryConformance(t *testing.T) {
	cachetest.Run(t, func(testing.TB) cache.Store { return new(cache.Memory) })
}

func TestMemoryEvictsLeastRecentlyUsed(t *testing.T) {
	ctx := context.Background()
	m := &cache.Memory{MaxBytes: 10 * (64 + 2 + 34)} // ten items of 100 bytes
	set := func(i int) {
		require.NoError(t, m.Set(ctx, cache.Item{Key: fmt.Sprintf("%02d", i), Value: make([]byte, 34)}))
	}
	there := func() (keys []int) {
		for i := range 30 {
			if _, err := m.Get(ctx, fmt.Sprintf("%02d", i)); err == nil {
				keys = append(keys, i)
			}
		}
		return keys
	}
	for i := range 10 {
		set(i)
	}
	require.Equal(t, []int{0, 1, 2, 3, 4, 5, 6, 7, 8, 9}, there(), "all fit")
	_, err := m.Get(ctx, "00")
	require.NoError(t, err)
	set(10)
	set(11)
	require.Equal(t, []int{0, 3, 4, 5, 6, 7, 8, 9, 10, 11}, there(), "1 and 2 were used least recently")

	require.NoError(t, m.Set(ctx, cache.Item{Key: "20", Value: make([]byte, 334)}))
	require.Equal(t, []int{6, 7, 8, 9, 10, 11, 20}, there(), "the place of four")
	require.NoError(t, m.Delete(ctx, "20"))
	for i := 21; i < 25; i++ {
		set(i)
	}
	require.Equal(t, []int{6, 7, 8, 9, 10, 11, 21, 22, 23, 24}, there(), "what is deleted makes room, and no more")

	err = m.Set(ctx, cache.Item{Key: "huge", Value: make([]byte, 1000)})
	require.ErrorIs(t, err, cache.ErrTooLarge)
	require.ErrorContains(t, err, "MaxBytes is 1000")
	require.Len(t, there(), 10, "what can never fit evicts nothing")
}

func TestMemoryExpiresExactly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var m cache.Memory
		require.NoError(t, m.Set(t.Context(), cache.Item{Key: "k", Value: []byte("v"), TTL: 90 * time.Second}))
		time.Sleep(90*time.Second - 1)
		_, err := m.Get(t.Context(), "k")
		require.NoError(t, err)
		time.Sleep(time.Nanosecond)
		_, err = m.Get(t.Context(), "k")
		require.Equal(t, cache.ErrMiss, err)
	})
}
