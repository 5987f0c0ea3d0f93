package cache_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/scalr-go/scalr/cache"
)

// Errors of load are remembered only where it is asked for, by all processes, for their own time, and never in the place of a value.
func TestErrorsAreRememberedIfAsked(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx := t.Context()
		var m cache.Memory
		n := &numbered{err: errors.New("database is down: " + strings.Repeat("x", 2000))}
		process := func(ttl time.Duration) *cache.Of[string] {
			return &cache.Of[string]{Store: &m, TTL: time.Minute, Stale: time.Hour, ErrorTTL: ttl, Compress: 10, LoadTimeout: 10 * time.Second}
		}
		for range 3 {
			_, err := process(0).Get(ctx, "k", n.load)
			require.ErrorIs(t, err, n.err)
		}
		require.EqualValues(t, 3, n.loads.Load(), "not asked")

		_, err := process(5*time.Second).Get(ctx, "k", n.load)
		require.ErrorIs(t, err, n.err, "the one who loads has the error itself")
		for range 3 {
			of := process(5 * time.Second)
			_, err = of.Get(ctx, "k", n.load)
			require.ErrorIs(t, err, cache.ErrLoadFailed)
			require.ErrorContains(t, err, `Get "k": load has failed shortly before: database is down: xxx`)
			require.Less(t, len(err.Error()), 1200)
			require.EqualValues(t, 1, of.Stats().Negative)
		}
		require.EqualValues(t, 4, n.loads.Load())
		require.NoError(t, process(0).Delete(ctx, "k"))
		_, err = process(5*time.Second).Get(ctx, "k", n.load)
		require.ErrorIs(t, err, n.err, "a Delete removes it")
		time.Sleep(5 * time.Second)
		n.err = nil
		v, err := process(5*time.Second).Get(ctx, "k", n.load)
		require.NoError(t, err, "its time is over, and Stale is not for errors")
		require.Equal(t, "6", v)

		// A value that is stale is better than an error.
		time.Sleep(2 * time.Minute)
		n.err = errors.New("down again")
		for range 3 {
			v, err = process(time.Minute).Get(ctx, "k", n.load)
			require.NoError(t, err)
			require.Equal(t, "6", v)
		}
		require.EqualValues(t, 7, n.loads.Load())

		// Who gives up has not found out anything.
		short, cancel := context.WithTimeout(ctx, time.Second)
		defer cancel()
		_, err = process(time.Hour).Get(short, "given up", func(ctx context.Context) (string, error) { <-ctx.Done(); return "", ctx.Err() })
		require.ErrorIs(t, err, context.DeadlineExceeded)
		n.err = nil
		_, err = process(time.Hour).Get(ctx, "given up", n.load)
		require.NoError(t, err)
		// A load that takes too long has.
		_, err = process(time.Hour).Get(ctx, "slow", func(ctx context.Context) (string, error) { <-ctx.Done(); return "", ctx.Err() })
		require.ErrorIs(t, err, context.DeadlineExceeded)
		_, err = process(time.Hour).Get(ctx, "slow", n.load)
		require.ErrorIs(t, err, cache.ErrLoadFailed)
	})
}

func TestGetMultiRemembersErrorsIfAsked(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx := t.Context()
		var m cache.Memory
		of := &cache.Of[string]{Store: &m, ErrorTTL: 5 * time.Second}
		down := errors.New("database is down")
		failing := func(context.Context, []string) (map[string]string, error) { return nil, down }
		var asked []string
		load := func(_ context.Context, keys []string) (map[string]string, error) {
			asked = keys
			return map[string]string{keys[0]: "v"}, nil
		}
		_, err := of.GetMulti(ctx, []string{"a", "b"}, failing)
		require.ErrorIs(t, err, down)
		found, err := of.GetMulti(ctx, []string{"a", "c"}, load)
		require.ErrorIs(t, err, cache.ErrLoadFailed)
		require.ErrorContains(t, err, `"a"`)
		require.Equal(t, map[string]string{"c": "v"}, found, "what can be had is")
		require.Equal(t, []string{"c"}, asked)
		_, err = of.Get(ctx, "b", func(context.Context) (string, error) { return "v", nil })
		require.ErrorIs(t, err, cache.ErrLoadFailed)
		time.Sleep(5 * time.Second)
		found, err = of.GetMulti(ctx, []string{"a"}, load)
		require.NoError(t, err)
		require.Equal(t, map[string]string{"a": "v"}, found)
	})
}

// A whole namespace becomes a miss at once, also to loads that are under way, and no other does.
func TestNamespaceIsInvalidatedAtOnce(t *testing.T) {
	ctx := t.Context()
	var m cache.Memory
	pages := func() *cache.Of[string] {
		return &cache.Of[string]{Store: &m, Prefix: "page:", Namespace: "pages", Tags: cache.Tables("t")}
	}
	other := &cache.Of[string]{Store: &m, Prefix: "other:", Namespace: "others"}
	n := &numbered{}
	get := func(of *cache.Of[string], key string) string {
		v, err := of.Get(ctx, key, n.load)
		require.NoError(t, err)
		return v
	}
	all := func() []string { return []string{get(pages(), "a"), get(pages(), "b"), get(other, "a")} }
	require.Equal(t, []string{"1", "2", "3"}, all())
	require.Equal(t, []string{"1", "2", "3"}, all())
	require.NoError(t, pages().InvalidateAll(ctx))
	require.Equal(t, []string{"4", "5", "3"}, all())
	require.NoError(t, cache.Invalidate(ctx, &m, "t"), "other tags are as they were")
	require.Equal(t, []string{"6", "7", "3"}, all())
	require.NoError(t, cache.Invalidate(ctx, &m, "pages"), "by somebody who has the store only")
	v, err := pages().Get(ctx, "a", func(ctx context.Context) (string, error) { return "old", pages().InvalidateAll(ctx) })
	require.NoError(t, err)
	require.Equal(t, "old", v)
	require.Equal(t, []string{"8", "9", "3"}, all())

	found, err := pages().GetMulti(ctx, []string{"a", "b"}, nothing)
	require.NoError(t, err)
	require.Len(t, found, 2)
	require.NoError(t, pages().InvalidateAll(ctx))
	found, err = pages().GetMulti(ctx, []string{"a", "b"}, nothing)
	require.NoError(t, err)
	require.Empty(t, found)
	err = (&cache.Of[string]{Store: &m}).InvalidateAll(ctx)
	require.ErrorIs(t, err, cache.ErrInvalid)
	require.ErrorContains(t, err, "Of.Namespace is empty")
}

// nothing finds nothing.
func nothing(context.Context, []string) (map[string]string, error) { return nil, nil }
