package zookeeper

import (
	"testing"
	"time"
	"unsafe"

	"github.com/stretchr/testify/require"
)

// set is what time.Now gives when the clock was set by whole seconds: the monotonic reading does not know of it.
func set(t time.Time, seconds int64) time.Time {
	wall := (*uint64)(unsafe.Pointer(&t)) // the seconds are above 30 bits of nanoseconds
	*wall = uint64(int64(*wall) + seconds<<30)
	return t
}

func TestGauge(t *testing.T) {
	now := time.Now()
	require.EqualValues(t, 5*time.Second, set(now, 5).Round(0).Sub(now.Round(0)))
	require.Zero(t, set(now, 5).Sub(now))
	after := func(d time.Duration) time.Time { return now.Add(d) }
	const ahead = 3 * time.Second // the store's clock
	stamp := func(d time.Duration) int64 { return after(d + ahead).UnixMilli() }
	near := func(g *gauge, at time.Time, want time.Duration) {
		t.Helper()
		require.InDelta(t, want.Seconds(), g.ahead(at).Seconds(), 0.01)
	}

	var g gauge
	require.Zero(t, g.ahead(now), "nothing is known")
	g.note(stamp(time.Second), now, after(2*time.Second))
	near(&g, now, ahead) // a slow answer is better than none
	g.note(stamp(3*time.Second), after(3*time.Second), after(3*time.Second))
	near(&g, now, ahead)
	g.note(stamp(4*time.Second), after(4*time.Second), after(8*time.Second))
	near(&g, now, ahead) // a slow one that fits says nothing new

	// This machine's clock is set, and the store's is not. That is known at once.
	near(&g, set(after(9*time.Second), 5), ahead-5*time.Second)
	near(&g, set(after(9*time.Second), -5), ahead+5*time.Second)
	// The store's clock is set, or another leader has another one: a slow answer that does not fit is believed, as well as it can be.
	g.note(after(10*time.Second-2*time.Second).UnixMilli(), after(9500*time.Millisecond), after(10500*time.Millisecond))
	near(&g, now, -2*time.Second)
}
