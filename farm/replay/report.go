package replay

import (
	"fmt"
	"maps"
	"math"
	"net/http"
	"slices"
	"strings"
	"time"
)

// Report is how a site took load for some time.
type Report struct {
	From     time.Duration `json:"from"`   // since the beginning
	Length   time.Duration `json:"length"` // until the last answer
	Requests int           `json:"requests"`
	// Failed are requests without a whole answer, and answers of status 500 and more.
	Failed int `json:"failed"`
	// Statuses are the answers by status.
	Statuses map[int]int `json:"statuses"`
	// Failure is why the first of them failed, if one did.
	Failure string `json:"failure,omitempty"`
	// These latencies are of what did not fail, from when a request was due until its answer was there, within 1 %. They are 0 if
	// all failed.
	P50 time.Duration `json:"p50"`
	P95 time.Duration `json:"p95"`
	P99 time.Duration `json:"p99"`
	Max time.Duration `json:"max"`
}

// Rate is the requests a second.
func (r Report) Rate() float64 {
	if r.Length <= 0 {
		return 0
	}
	return float64(r.Requests) / r.Length.Seconds()
}

// String gives the report as lines for a person.
func (r Report) String() string {
	var b strings.Builder
	round := func(d time.Duration) time.Duration { return d.Round(max(d/1000, time.Microsecond)) }
	fmt.Fprintf(&b, "%d requests in %v, %.1f a second: %d failed", r.Requests, round(r.Length), r.Rate(), r.Failed)
	if r.Failed > 0 {
		fmt.Fprintf(&b, " (the first: %s)", r.Failure)
	}
	fmt.Fprintf(&b, "\nanswers in %v (median), %v (95 %%), %v (99 %%), %v (most); by status", round(r.P50), round(r.P95), round(r.P99), round(r.Max))
	for _, status := range slices.Sorted(maps.Keys(r.Statuses)) {
		fmt.Fprintf(&b, " %d: %d", status, r.Statuses[status])
	}
	return b.String() + "\n"
}

// tally is a report in the making.
type tally struct {
	From, Length     time.Duration
	requests, failed int
	statuses         map[int]int
	failure          string
	most             time.Duration
	buckets          []int // of latencies, each 1 % longer than the one before
}

// growth is the logarithm of how much longer.
var growth = math.Log(1.01)

func (t *tally) note(took time.Duration, status int, err error) {
	t.requests++
	if err == nil && status >= http.StatusInternalServerError {
		err = fmt.Errorf("%d %s", status, http.StatusText(status))
	}
	if status != 0 {
		if t.statuses == nil {
			t.statuses = map[int]int{}
		}
		t.statuses[status]++
	}
	if err != nil {
		if t.failed++; t.failed == 1 {
			t.failure = err.Error()
		}
		return
	}
	t.most = max(t.most, took)
	i := int(math.Log(max(float64(took.Microseconds()), 1)) / growth)
	for len(t.buckets) <= i {
		t.buckets = append(t.buckets, 0)
	}
	t.buckets[i]++
}

// within is a latency that the share of the answers did not exceed.
func (t *tally) within(share float64) time.Duration {
	left := int(math.Ceil(share * float64(t.requests-t.failed)))
	for i, n := range t.buckets {
		if left -= n; left <= 0 && n > 0 {
			return min(time.Duration(math.Exp((float64(i)+0.5)*growth)*float64(time.Microsecond)), t.most)
		}
	}
	return 0
}

func (t *tally) report() Report {
	return Report{From: t.From, Length: t.Length, Requests: t.requests, Failed: t.failed, Failure: t.failure, Statuses: maps.Clone(t.statuses),
		P50: t.within(0.5), P95: t.within(0.95), P99: t.within(0.99), Max: t.most}
}
