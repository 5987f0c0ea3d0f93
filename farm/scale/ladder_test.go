package scale

import (
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

// TestLadder: the more may be lacking the higher is the share, and what is found lies between the step that keeps the budget
// and the next one, which does not.
func TestLadder(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var l ladder
		for range rapid.IntRange(0, 3000).Draw(t, "minutes") {
			l.count(10, [steps]uint16{10, 10, 10, 10, 10, 10, 10, 10})
		}
		lacked := 0.0
		for i := steps - 1; i >= 0; i-- {
			lacked += l.carried * rapid.Float64Range(0, 0.02).Draw(t, "lacked")
			l.lacked[i] = lacked
		}
		last := 0.0
		for _, budget := range []float64{1e-6, 1e-4, 1e-3, 1e-2, 0.1, 0.9} {
			use := l.highest(budget)
			if use < last || use < share(steps-1) || use > share(0) {
				t.Fatalf("budget %v: %v after %v", budget, use, last)
			}
			last = use
			for i := range steps {
				if kept := l.lacked[i] == 0 && budget > 0.11 || l.carried > 0 && l.lacked[i] < budget*l.carried/2 && ladderLacked*share(i) < budget/2; kept && use < share(i)*0.999 {
					t.Fatalf("budget %v: %v, but %v would have kept it", budget, use, share(i))
				}
			}
		}
	})
}

// TestLadderAims loses less than was thought, then more, and aims at as much as before when nothing is lacking for long.
func TestLadderAims(t *testing.T) {
	var l ladder
	minutes := func(n int, ready float64) {
		for range n {
			l.compare(0.01, 10, ready, 1)
			l.count(10, [steps]uint16{10, 10, 10, 10, 10, 10, 10, 10})
		}
	}
	minutes(1440, 10)
	require.Equal(t, 0.0125, l.aim(0.01), "less was lacking than was thought, but no more is aimed at than that")
	minutes(20, 0)
	require.InDelta(t, 0.0090, l.aim(0.01), 0.0002)
	minutes(600, 5)
	require.Equal(t, 0.005, l.aim(0.01), "and no less than that")
	minutes(16*7*1440, 10)
	require.Equal(t, 0.0125, l.aim(0.01))
}
