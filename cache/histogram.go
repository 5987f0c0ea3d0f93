package cache

import (
	"math"
	"math/bits"
	"sync/atomic"
	"time"
)

// Buckets is how many buckets Latencies have.
const Buckets = 25

// Latencies say how long calls took, in buckets whose bounds double. They are a value: two of them may be subtracted, field by
// field, for what happened in between.
type Latencies struct {
	// Counts has the calls by how long they took: the first up to a microsecond, each one up to twice as long as the one before,
	// and the last all that took more than 8.4 seconds. See Bound.
	Counts [Buckets]uint64
	// Sum is how long all calls took together.
	Sum time.Duration
}

// Bound is the longest time that bucket i of Latencies counts; of the last one, and of any beyond, the longest that there is.
func Bound(i int) time.Duration {
	if i >= Buckets-1 {
		return math.MaxInt64
	}
	return time.Microsecond << max(i, 0)
}

// Total is the number of calls.
func (l Latencies) Total() (n uint64) {
	for _, c := range l.Counts {
		n += c
	}
	return n
}

// Quantile gives a time that the share q of the calls, from 0 to 1, did not exceed: the bound of the bucket that the last of them is
// in, so that it is at most twice what it would be exactly. It is 0 if there were no calls.
func (l Latencies) Quantile(q float64) time.Duration {
	total := l.Total()
	if total == 0 {
		return 0
	}
	rank, seen := uint64(math.Ceil(min(max(q, 0), 1)*float64(total))), uint64(0)
	for i, c := range l.Counts {
		if seen += c; seen >= max(rank, 1) {
			return Bound(i)
		}
	}
	return Bound(Buckets)
}

// Histogram collects Latencies. The zero value is empty and ready for use. It is safe for concurrent use, and adding costs some
// nanoseconds.
type Histogram struct {
	counts [Buckets]atomic.Uint64
	sum    atomic.Int64
}

// Add counts a call that took d; what is below 0 counts as 0.
func (h *Histogram) Add(d time.Duration) {
	d = max(d, 0)
	i := 0
	if d > time.Microsecond {
		i = min(bits.Len64(uint64((d-1)/time.Microsecond)), Buckets-1)
	}
	h.counts[i].Add(1)
	h.sum.Add(int64(d))
}

// Latencies gives a snapshot. Calls that are added meanwhile may be in one of its fields only.
func (h *Histogram) Latencies() (l Latencies) {
	for i := range h.counts {
		l.Counts[i] = h.counts[i].Load()
	}
	l.Sum = time.Duration(h.sum.Load())
	return l
}
