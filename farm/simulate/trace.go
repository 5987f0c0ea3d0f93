package simulate

import (
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Trace is load as it was: how many requests came in each step of time.
type Trace struct {
	Start    time.Time     // of the first step; the seasons of a forecast do not depend on it
	Step     time.Duration // the length of each step
	Requests []float64     // in each step
}

// Length is how long the trace lasts.
func (t Trace) Length() time.Duration { return t.Step * time.Duration(len(t.Requests)) }

// Rate gives the requests a second in the step with that number.
func (t Trace) Rate(step int) float64 { return t.Requests[step] / t.Step.Seconds() }

// Peak is the highest rate, in requests a second.
func (t Trace) Peak() float64 {
	peak := 0.0
	for i := range t.Requests {
		peak = max(peak, t.Rate(i))
	}
	return peak
}

// Check reports what makes a trace useless: no steps, or figures that are none.
func (t Trace) Check() error {
	if t.Step <= 0 {
		return fmt.Errorf("trace: step is %v, want more than 0", t.Step)
	}
	if len(t.Requests) == 0 {
		return errors.New("trace: it has no steps")
	}
	for i, v := range t.Requests {
		if !(v >= 0) || math.IsInf(v, 0) {
			return fmt.Errorf("trace: step %d has %v requests, want 0 or more", i, v)
		}
	}
	return nil
}

// maxSteps bounds what a gap in a trace may be filled up to.
const maxSteps = 10_000_000

// ReadCSV reads a trace: the first column is the time, in seconds from any beginning or as a date with a time of day (RFC
// 3339, or "2006-01-02 15:04:05" in UTC), the second is the requests since then, up to the next line; further columns are
// left alone. The first line may be a header. The step of the trace is the most common distance of two lines; where lines
// are missing, the steps between take the line between their neighbours.
func ReadCSV(r io.Reader) (Trace, error) {
	var at []time.Time
	var requests []float64
	in := csv.NewReader(r)
	in.FieldsPerRecord, in.ReuseRecord, in.TrimLeadingSpace = -1, true, true
	for {
		fields, err := in.Read()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return Trace{}, fmt.Errorf("trace: %w", err)
		}
		line, _ := in.FieldPos(0)
		if len(fields) < 2 {
			return Trace{}, fmt.Errorf("trace: line %d has %d columns, want a time and a number of requests", line, len(fields))
		}
		when, err := parseTime(fields[0])
		if err != nil && len(at) == 0 && line == 1 {
			continue // a header
		}
		if err != nil {
			return Trace{}, fmt.Errorf("trace: line %d: %w", line, err)
		}
		v, err := strconv.ParseFloat(strings.TrimSpace(fields[1]), 64)
		if err != nil || !(v >= 0) || math.IsInf(v, 0) {
			return Trace{}, fmt.Errorf("trace: line %d has %q requests, want a number, 0 or more", line, fields[1])
		}
		if n := len(at); n > 0 && !when.After(at[n-1]) {
			return Trace{}, fmt.Errorf("trace: line %d is not later than the line before", line)
		}
		at, requests = append(at, when), append(requests, v)
	}
	if len(at) < 2 {
		return Trace{}, fmt.Errorf("trace: it has %d lines with figures, want at least 2", len(at))
	}
	return even(at, requests)
}

func parseTime(s string) (time.Time, error) {
	s = strings.TrimSpace(s)
	if v, err := strconv.ParseFloat(s, 64); err == nil && math.Abs(v) < 1e11 {
		return time.Unix(0, int64(v*1e9)).UTC(), nil
	}
	for _, layout := range []string{time.RFC3339, time.DateTime, "2006-01-02 15:04", "2006-01-02T15:04:05"} {
		if t, err := time.Parse(layout, s); err == nil {
			return t, nil
		}
	}
	return time.Time{}, fmt.Errorf("%q is no time, want seconds or a date such as 2006-01-02 15:04:05", s)
}

// even gives the trace with steps of one length.
func even(at []time.Time, requests []float64) (Trace, error) {
	gaps := make([]time.Duration, len(at)-1)
	for i := range gaps {
		gaps[i] = at[i+1].Sub(at[i])
	}
	slices.Sort(gaps)
	step, most := time.Duration(0), 0
	for i := 0; i < len(gaps); {
		j := i
		for j < len(gaps) && gaps[j] == gaps[i] {
			j++
		}
		if j-i > most {
			step, most = gaps[i], j-i
		}
		i = j
	}
	steps := int64(at[len(at)-1].Sub(at[0])/step) + 1
	if steps > maxSteps {
		return Trace{}, fmt.Errorf("trace: %v in steps of %v are %d steps, want at most %d", at[len(at)-1].Sub(at[0]), step, steps, maxSteps)
	}
	t := Trace{Start: at[0], Step: step, Requests: make([]float64, steps)}
	for i, k := range t.Requests {
		when := at[0].Add(time.Duration(i) * step)
		n, exact := slices.BinarySearchFunc(at, when, time.Time.Compare)
		switch {
		case exact:
			k = requests[n]
		case n == len(at):
			k = requests[n-1]
		default:
			share := float64(when.Sub(at[n-1])) / float64(at[n].Sub(at[n-1]))
			k = requests[n-1] + share*(requests[n]-requests[n-1])
		}
		t.Requests[i] = k
	}
	return t, nil
}
