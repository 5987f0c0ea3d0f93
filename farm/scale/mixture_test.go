package scale

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

// TestMixed has two forecasts that are as good as each other, a third that is worse and one that is useless: what they say together is
// between what the two say, nearly.
func TestMixed(t *testing.T) {
	_, last := play(Forecast{Metric: "m", Value: 100}, noon, 600, time.Minute, func(i int) float64 { return 10 + 3*float64(i%7) }, nil)
	m := *remembered(last)
	m.judged, m.cost = [experts]float64{}, [experts]float64{}
	for e, cost := range map[expert]float64{trend: 1, short: 1, long: 1.2, slow: 3} {
		m.judged[e], m.cost[e] = 1, cost
	}
	require.True(t, m.expected(short) && m.expected(long) && m.expected(slow))
	f, best := m.mixed(grow, 0)
	require.Equal(t, trend, best)
	say := func(e expert, a float64) float64 { return m.foreseen(e, grow, 0)(a) }
	for a := 5.; a < 40; a++ {
		require.InDelta(t, (say(trend, a)+say(short, a)+0.2*say(long, a))/2.2, f(a), 0.02, "instance %v", a)
	}
	m.cost[long] = 0.5
	f, best = m.mixed(grow, 0)
	require.Equal(t, long, best)
	require.Equal(t, say(long, 12), f(12), "the others are twice as dear")

	m.now.bases[trend] += 2
	require.False(t, m.expected(long), "who has never seen such a load")
	require.True(t, m.expected(trend))
	f, best = m.mixed(grow, 0)
	require.Equal(t, say(trend, 12), f(12))
	require.Equal(t, trend, best)
}

// TestMostIsTheLast asks any curve that falls.
func TestMostIsTheLast(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		in := Input{Min: rapid.IntRange(0, 5).Draw(t, "min"), Max: rapid.IntRange(5, 100).Draw(t, "max")}
		from, slope := rapid.Float64Range(0, 2).Draw(t, "from"), rapid.Float64Range(0, 0.2).Draw(t, "slope")
		f := foreseen(func(a float64) float64 { return from - slope*a })
		n := f.most(0.5, in)
		if n < in.Min || n > in.Max || n > in.Min && f(float64(n-1)) < 0.5 || n < in.Max && f(float64(n)) >= 0.5 {
			t.Fatalf("%d", n)
		}
	})
	require.Equal(t, 3, foreseen(nil).most(0.5, Input{Min: 3, Max: 9}), "nothing is known")
}
