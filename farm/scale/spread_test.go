package scale

import (
	"math"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

// TestSpread holds what a spread says against the loads that it has seen.
func TestSpread(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		loads := rapid.SliceOfN(rapid.Float64Range(1, 100), 1, 50).Draw(t, "loads")
		level := rapid.Float64Range(1, 50).Draw(t, "level")
		var s spread
		for _, l := range loads {
			s.add(math.Log(l+forecastFloor)-math.Log(level), 1000)
		}
		s.add(math.NaN(), 1)
		s.forget(0.5)
		require.InDelta(t, 500*len(loads), s.total, 1)
		before := 1.0
		for a := range 120 {
			used := s.used(level, float64(a))
			require.LessOrEqual(t, used, before+1e-6, "the next instance is used less")
			before = used
			// The steps are finer near the level, and the unseen weighs a little.
			low, high := 0.0, 0.0
			for _, l := range loads {
				step := math.Exp(0.01 + math.Abs(math.Log((l+forecastFloor)/level))/20)
				low += max(0, min(1, (l+forecastFloor)/step-forecastFloor-float64(a))) / float64(len(loads))
				high += max(0, min(1, (l+forecastFloor)*step-forecastFloor-float64(a))) / float64(len(loads))
			}
			require.GreaterOrEqual(t, used, low*0.94-1e-3, "instance %d", a)
			require.LessOrEqual(t, used, high+0.06, "instance %d", a)
		}
	})
}
