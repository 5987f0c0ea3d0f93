package cache_test

import (
	"math"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/scalr-go/scalr/cache"
)

// Every call is in the one bucket whose bounds it is between, and a quantile is not less than the exact one, and at most twice that.
func TestHistogram(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		longest := int64(cache.Bound(cache.Buckets - 2))
		took := rapid.SliceOfN(rapid.Custom(func(t *rapid.T) time.Duration {
			d := rapid.Int64Range(0, longest).Draw(t, "ns") >> rapid.IntRange(0, 40).Draw(t, "shorter")
			return time.Duration(d)
		}), 1, 50).Draw(t, "took")
		var h cache.Histogram
		var want cache.Latencies
		for _, d := range took {
			h.Add(d)
			i := 0
			for d > cache.Bound(i) {
				i++
			}
			want.Counts[i]++
			want.Sum += d
		}
		got := h.Latencies()
		if got != want || got.Total() != uint64(len(took)) {
			t.Fatalf("%v are %v, want %v", took, got, want)
		}
		slices.Sort(took)
		for _, q := range []float64{0, 0.01, 0.5, 0.99, 1} {
			exact := took[max(0, int(math.Ceil(q*float64(len(took))))-1)]
			if d := got.Quantile(q); d < exact || d > max(2*exact, time.Microsecond) {
				t.Fatalf("quantile %v of %v is %v", q, took, d)
			}
		}
	})
}

func TestHistogramEnds(t *testing.T) {
	var h cache.Histogram
	require.Zero(t, h.Latencies().Quantile(0.5))
	h.Add(-time.Second)
	require.Equal(t, time.Microsecond, h.Latencies().Quantile(1))
	require.Zero(t, h.Latencies().Sum)
	h.Add(time.Hour)
	require.EqualValues(t, 1, h.Latencies().Counts[cache.Buckets-1])
	require.Equal(t, time.Duration(math.MaxInt64), h.Latencies().Quantile(1))
	require.Equal(t, 8388608*time.Microsecond, cache.Bound(cache.Buckets-2))
	require.Equal(t, time.Microsecond, cache.Bound(-1))
}
