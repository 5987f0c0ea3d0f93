package memcached

import (
	"errors"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

// Calls come and end at random, and the server answers or not.
func TestBreakerUnderChance(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		type call struct{ trial bool }
		var (
			b       breaker
			now     = time.Unix(1_800_000_000, 0)
			calls   []call
			broken  time.Time // when it opened or a trial failed last
			pause   time.Duration
			hurries int
		)
		trials := func() (n int) {
			for _, c := range calls {
				if c.trial {
					n++
				}
			}
			return n
		}
		t.Repeat(map[string]func(*rapid.T){
			"time": func(t *rapid.T) {
				now = now.Add(time.Duration(rapid.IntRange(0, 3000).Draw(t, "ms")) * time.Millisecond)
			},
			"call": func(t *rapid.T) {
				ok, trial := b.enter(now)
				switch {
				case pause == 0:
					require.True(t, ok && !trial, "a server that has not failed is asked")
				case now.Sub(broken) < pause || trials() > 0:
					require.False(t, ok, "a server that has failed is not asked during the pause, nor while one tries")
				default:
					require.True(t, ok && trial, "after the pause one tries")
				}
				if ok {
					calls = append(calls, call{trial})
				}
			},
			"end": func(t *rapid.T) {
				if len(calls) == 0 {
					t.Skip("none is under way")
				}
				i := rapid.IntRange(0, len(calls)-1).Draw(t, "call")
				c := calls[i]
				calls = append(calls[:i], calls[i+1:]...)
				o := outcome(rapid.IntRange(int(answered), int(abandons)).Draw(t, "outcome"))
				b.leave(now, c.trial, o, errors.New("cause"))
				if o == hurried {
					if hurries++; pause > 0 && c.trial || hurries >= maxHurried {
						o = failed
					}
				}
				switch {
				case o == answered:
					pause, hurries = 0, 0
				case o == failed && (c.trial || pause == 0):
					pause = min(max(2*pause, 500*time.Millisecond), 5*time.Second)
					broken, hurries = now, 0
				}
			},
		})
	})
}
