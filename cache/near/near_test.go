package near_test

import (
	"context"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/scalr-go/scalr/cache"
	"github.com/scalr-go/scalr/cache/near"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func fixed(v string) func(context.Context) (string, error) {
	return func(context.Context) (string, error) { return v, nil }
}

func Example() {
	pages := cache.Of[string]{Store: new(cache.Memory), Near: near.New[string](1000), NearTTL: time.Minute}
	for range 3 {
		page, err := pages.Get(context.Background(), "home", fixed("welcome"))
		fmt.Println(page, err)
	}
	fmt.Println("from the process itself:", pages.Stats().Near)
	// Output:
	// welcome <nil>
	// welcome <nil>
	// welcome <nil>
	// from the process itself: 2
}

// What another process deletes is returned until NearTTL has ended, and no longer; what this one deletes, not at all.
func TestBound(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var m cache.Memory
		a := &cache.Of[string]{Store: &m, Near: near.New[string](10), NearTTL: 5 * time.Second, Tags: func(string) []string { return []string{"t"} }}
		b := &cache.Of[string]{Store: &m}
		get := func(load string) string {
			v, err := a.Get(t.Context(), "k", fixed(load))
			require.NoError(t, err)
			return v
		}
		require.Equal(t, "old", get("old"))
		require.NoError(t, b.Delete(t.Context(), "k"))
		time.Sleep(5*time.Second - 1)
		require.Equal(t, "old", get("new"))
		time.Sleep(time.Nanosecond)
		require.Equal(t, "new", get("new"))
		require.NoError(t, a.Delete(t.Context(), "k"))
		require.Equal(t, "newer", get("newer"))
		require.NoError(t, a.Invalidate(t.Context(), "t"))
		require.Equal(t, "newest", get("newest"))

		// A value that was being loaded when this process deleted it does not stay either.
		require.NoError(t, a.Delete(t.Context(), "k"))
		v, err := a.Get(t.Context(), "k", func(ctx context.Context) (string, error) { return "loaded", a.Delete(ctx, "k") })
		require.NoError(t, err)
		require.Equal(t, "loaded", v)
		require.Equal(t, "after", get("after"))
	})
}

func TestSizeIsBounded(t *testing.T) {
	c := near.New[int](100)
	for i := range 10_000 {
		c.Set(fmt.Sprint(i), i, time.Now().Add(time.Hour))
	}
	n := 0
	for i := range 10_000 {
		if _, ok := c.Get(fmt.Sprint(i)); ok {
			n++
		}
	}
	require.LessOrEqual(t, n, 200)
	require.Positive(t, n)
}

func TestHitDoesNotAllocate(t *testing.T) {
	pages := &cache.Of[string]{Store: new(cache.Memory), Near: near.New[string](10), NearTTL: time.Hour}
	ctx, load := t.Context(), fixed("v")
	_, err := pages.Get(ctx, "k", load)
	require.NoError(t, err)
	require.Zero(t, testing.AllocsPerRun(1000, func() { _, _ = pages.Get(ctx, "k", load) }))
}

func BenchmarkHit(b *testing.B) {
	pages := &cache.Of[string]{Store: new(cache.Memory), Near: near.New[string](10), NearTTL: time.Hour}
	load := fixed("v")
	b.ReportAllocs()
	for b.Loop() {
		if _, err := pages.Get(context.Background(), "k", load); err != nil {
			b.Fatal(err)
		}
	}
}
