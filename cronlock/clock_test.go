package cronlock

import (
	"testing"
	"time"
	"unsafe"

	"github.com/stretchr/testify/require"
)

// A clock that is set forward, or is ahead of the store's, makes nothing run early, and what a clock that is set back shows is taken: others run
// what it does not see.
func TestEarliest(t *testing.T) {
	read := time.Now()
	// set is what time.Now gives so long after the fleet was read, when the clock was set by whole seconds meanwhile.
	set := func(after time.Duration, seconds int64) time.Time {
		now := read.Add(after)
		wall := (*uint64)(unsafe.Pointer(&now)) // the seconds are above 30 bits of nanoseconds
		*wall = uint64(int64(*wall) + seconds<<30)
		return now
	}
	for _, c := range []struct {
		after time.Duration
		set   int64
		skew  time.Duration
		want  time.Duration // after the fleet was read, by the clock as it was then
	}{
		{time.Second, 0, 0, time.Second},
		{time.Second, 5, 0, time.Second},
		{time.Second, -5, 0, -4 * time.Second},
		{time.Second, 0, 3 * time.Second, time.Second},
		{time.Second, 0, -3 * time.Second, -2 * time.Second},
		{time.Second, 5, -3 * time.Second, -2 * time.Second},
		{time.Second, 5, 3 * time.Second, 4 * time.Second},
	} {
		got := earliest(set(c.after, c.set), read, c.skew)
		require.Equal(t, c.want, got.Sub(read.Round(0)), "%+v", c)
	}
}
