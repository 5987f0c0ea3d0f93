// Package worldcup is half a day of real load for the examples: the requests to the web site of the 1998 football World Cup
// on 26 June from 12:00 to 24:00 UTC, minute by minute, with matches in the afternoon and in the evening. The logs are ©
// Hewlett-Packard; NOTICE.txt, beside the figures, is their licence.
package worldcup

import (
	_ "embed"
	"strconv"
	"strings"
	"sync"
	"time"
)

//go:embed worldcup98_jun26.csv
var csv string

// Load is requests a minute, one figure a minute.
type Load []float64

// Day gives the half day.
func Day() Load {
	var l Load
	for line := range strings.Lines(csv) {
		if _, figure, ok := strings.Cut(strings.TrimSpace(line), ","); ok {
			if v, err := strconv.ParseFloat(figure, 64); err == nil {
				l = append(l, v)
			}
		}
	}
	return l
}

// At gives the load when so much of the length of a replay has passed.
func (l Load) At(passed, length time.Duration) float64 {
	i := int(float64(len(l)) * float64(passed) / float64(length))
	return l[max(0, min(i, len(l)-1))]
}

// Peak is the highest load.
func (l Load) Peak() float64 {
	peak := 0.0
	for _, v := range l {
		peak = max(peak, v)
	}
	return peak
}

// Replay plays the load back in a shorter time. It is safe for concurrent use.
type Replay struct {
	Load   Load
	Length time.Duration

	mu    sync.Mutex
	began time.Time
}

// Begin starts it.
func (r *Replay) Begin() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.began = time.Now()
}

// Passed says how far it is; 0 before it begins.
func (r *Replay) Passed() time.Duration {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.began.IsZero() {
		return 0
	}
	return time.Since(r.began)
}

// Over reports whether it has ended.
func (r *Replay) Over() bool { return r.Passed() > r.Length }

// Now is the load in requests a minute.
func (r *Replay) Now() float64 { return r.Load.At(r.Passed(), r.Length) }
