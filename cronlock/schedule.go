package cronlock

import (
	"fmt"
	"math"
	"math/bits"
	"time"
	_ "time/tzdata" // the fallback of time.LoadLocation where the host has no database
)

// Schedule is a set of instants, made by [Parse]. The fields may be changed after that; every runner of a job must have
// the same. The zero value has no instants. Schedules are values that are safe for concurrent use.
type Schedule struct {
	// Zone is the clock on the wall that the expression speaks of. Nil is UTC.
	Zone *time.Location
	// Gap says what becomes of times that the clock skips when it is set forward.
	Gap Gap
	// Fold says what becomes of times that the clock shows twice when it is set back.
	Fold Fold

	text  string
	every int64 // seconds; of @every only
	field [fields]uint64
	star  [fields]bool // the field begins with '*'
}

// Gap is a policy for local times that do not exist.
type Gap int

const (
	// GapAuto is what cron(8) does: a schedule whose minute or hour begins with '*' follows the clock and skips; any
	// other names a time of day, and runs at the transition.
	GapAuto Gap = iota
	GapSkip
	// GapAtTransition runs at the instant at which the clock is set forward, once for all that it skips.
	GapAtTransition
	// GapShift runs as long after the transition as the skipped time is: 02:30 becomes 03:30.
	GapShift
)

// Fold is a policy for local times that exist twice.
type Fold int

const (
	// FoldAuto is what cron(8) does: a schedule whose minute or hour begins with '*' runs both times, any other the
	// first time.
	FoldAuto Fold = iota
	FoldFirst
	FoldSecond
	FoldBoth
)

// horizon bounds the search for an instant: the days of the Gregorian calendar come back to their weekdays after at most
// 40 years, with a century that is no leap year between.
const horizon = 41 * 366 * 86400

// Next gives the first instant after t, in the schedule's zone, or the zero time if there is none.
func (s Schedule) Next(t time.Time) time.Time {
	from := t.Unix() + 1
	if s.every > 0 {
		return s.at(s.every * floorDiv(t.Unix()+s.every, s.every))
	}
	if s.field[minute] == 0 {
		return time.Time{}
	}
	for limit := from + horizon; from < limit; {
		g := s.segment(from)
		if u, ok := s.firstIn(g, from, min(g.end, limit)); ok {
			return s.at(u)
		}
		from = g.end
	}
	return time.Time{}
}

// Prev gives the last instant before t, in the schedule's zone, or the zero time if there is none.
func (s Schedule) Prev(t time.Time) time.Time {
	to := t.Unix()
	if t.Nanosecond() == 0 {
		to--
	}
	if s.every > 0 {
		return s.at(s.every * floorDiv(to, s.every))
	}
	if s.field[minute] == 0 {
		return time.Time{}
	}
	for limit := to - horizon; to > limit; {
		g := s.segment(to)
		if u, ok := s.lastIn(g, max(g.start, limit), to); ok {
			return s.at(u)
		}
		to = g.start - 1
	}
	return time.Time{}
}

func (s Schedule) zone() *time.Location {
	if s.Zone == nil {
		return time.UTC
	}
	return s.Zone
}

func (s Schedule) at(u int64) time.Time { return time.Unix(u, 0).In(s.zone()) }

func (s Schedule) gap() Gap {
	switch {
	case s.Gap != GapAuto:
		return s.Gap
	case s.star[minute] || s.star[hour]:
		return GapSkip
	}
	return GapAtTransition
}

func (s Schedule) fold() Fold {
	switch {
	case s.Fold != FoldAuto:
		return s.Fold
	case s.star[minute] || s.star[hour]:
		return FoldBoth
	}
	return FoldFirst
}

// segment is a time of constant offset: the instants from start to before end, in seconds since the epoch. What the clock
// on the wall shows then is the instant plus off: a civil time, in seconds since the clock showed 1970-01-01 00:00.
type segment struct{ start, end, off int64 }

func (s Schedule) segment(u int64) segment {
	t := s.at(u)
	_, off := t.Zone()
	g := segment{start: math.MinInt64, end: math.MaxInt64, off: int64(off)}
	start, end := t.ZoneBounds()
	if !start.IsZero() {
		g.start = start.Unix()
	}
	if !end.IsZero() {
		g.end = end.Unix()
	}
	return g
}

// has reports whether the clock shows c within the segment.
func (g segment) has(c int64) bool { return c-g.off >= g.start && c-g.off < g.end }

// widest is more than two offsets from UTC ever differ.
const widest = 27 * 3600

// wanted reports whether the policy for folds takes the civil time c within g.
func (s Schedule) wanted(c int64, g segment) bool {
	u := c - g.off
	switch s.fold() {
	case FoldFirst:
		for p := g; p.start > u-widest; {
			if p = s.segment(p.start - 1); p.has(c) {
				return false
			}
		}
	case FoldSecond:
		for n := g; n.end < u+widest; {
			if n = s.segment(n.end); n.has(c) {
				return false
			}
		}
	}
	return true
}

// skipped gives the civil times that the clock skips at the beginning of g, from and before to, and the offset until then.
func (s Schedule) skipped(g segment) (from, to, off int64) {
	if g.start == math.MinInt64 {
		return 0, 0, 0
	}
	off = s.segment(g.start - 1).off
	return g.start + off, g.start + g.off, off
}

// firstIn finds the first instant of g from from to before to.
func (s Schedule) firstIn(g segment, from, to int64) (int64, bool) {
	best, found := int64(math.MaxInt64), false
	for c := from + g.off; ; c++ {
		var ok bool
		if c, ok = s.matchFrom(c, to+g.off); !ok {
			break
		}
		if s.wanted(c, g) {
			best, found = c-g.off, true
			break
		}
	}
	if policy := s.gap(); policy != GapSkip && g.start > from-widest {
		a, b, off := s.skipped(g)
		if policy == GapShift {
			a = max(a, from+off)
		} else if from > g.start {
			return best, found
		}
		if c, ok := s.matchFrom(a, b); ok {
			u := g.start
			if policy == GapShift {
				u = c - off
			}
			if u < to && u < best {
				best, found = u, true
			}
		}
	}
	return best, found
}

// lastIn finds the last instant of g from from to to, inclusive.
func (s Schedule) lastIn(g segment, from, to int64) (int64, bool) {
	best, found := int64(math.MinInt64), false
	for c := to + g.off; ; c-- {
		var ok bool
		if c, ok = s.matchUntil(c, from+g.off); !ok {
			break
		}
		if s.wanted(c, g) {
			best, found = c-g.off, true
			break
		}
	}
	if policy := s.gap(); policy != GapSkip && g.start != math.MinInt64 && g.start >= from {
		a, b, off := s.skipped(g)
		last := b - 1
		if policy == GapShift {
			last = min(last, to+off)
		}
		if c, ok := s.matchUntil(last, a); ok {
			u := g.start
			if policy == GapShift {
				u = c - off
			}
			if u > best {
				best, found = u, true
			}
		}
	}
	return best, found
}

const day = 86400

// matchFrom finds the first civil time from from to before to that the fields match.
func (s Schedule) matchFrom(from, to int64) (int64, bool) {
	d := floorDiv(from, day)
	for rest := from - d*day; d*day+rest < to; d, rest = d+1, 0 {
		if !s.onDay(d) {
			continue
		}
		h, m, sec := rest/3600, rest/60%60, rest%60
		if !has(s.field[hour], h) {
			h, m, sec = next(s.field[hour], h+1), 0, 0
		}
		if !has(s.field[minute], m) {
			m, sec = next(s.field[minute], m+1), 0
		}
		if sec = next(s.field[second], sec); sec == none {
			m, sec = next(s.field[minute], m+1), next(s.field[second], 0)
		}
		if m == none {
			h, m, sec = next(s.field[hour], h+1), next(s.field[minute], 0), next(s.field[second], 0)
		}
		if h != none {
			c := d*day + h*3600 + m*60 + sec
			return c, c < to
		}
	}
	return 0, false
}

// matchUntil finds the last civil time from from to to, inclusive, that the fields match.
func (s Schedule) matchUntil(to, from int64) (int64, bool) {
	d := floorDiv(to, day)
	for rest := to - d*day; d*day+rest >= from; d, rest = d-1, day-1 {
		if !s.onDay(d) {
			continue
		}
		h, m, sec := rest/3600, rest/60%60, rest%60
		if !has(s.field[hour], h) {
			h, m, sec = last(s.field[hour], h-1), 59, 59
		}
		if !has(s.field[minute], m) {
			m, sec = last(s.field[minute], m-1), 59
		}
		if sec = last(s.field[second], sec); sec < 0 {
			m, sec = last(s.field[minute], m-1), last(s.field[second], 59)
		}
		if m < 0 {
			h, m, sec = last(s.field[hour], h-1), last(s.field[minute], 59), last(s.field[second], 59)
		}
		if h >= 0 {
			c := d*day + h*3600 + m*60 + sec
			return c, c >= from
		}
	}
	return 0, false
}

// onDay reports whether the fields match the day, counted from 1970-01-01.
func (s Schedule) onDay(d int64) bool {
	t := time.Unix(d*day, 0).UTC()
	if !has(s.field[month], int64(t.Month())) {
		return false
	}
	byDate, byWeek := has(s.field[dayOfMonth], int64(t.Day())), has(s.field[dayOfWeek], int64(t.Weekday()))
	if s.star[dayOfMonth] || s.star[dayOfWeek] {
		return byDate && byWeek
	}
	return byDate || byWeek
}

// none is what next gives where no bit is left.
const none = 64

func has(set uint64, n int64) bool { return n >= 0 && n < none && set>>n&1 == 1 }

// next gives the lowest bit of the set that is at least n.
func next(set uint64, n int64) int64 {
	if n >= none {
		return none
	}
	return int64(bits.TrailingZeros64(set >> n << n))
}

// last gives the highest bit of the set that is at most n, or -1.
func last(set uint64, n int64) int64 {
	if n < 0 {
		return -1
	}
	return int64(bits.Len64(set&(1<<(n+1)-1))) - 1
}

func floorDiv(a, b int64) int64 {
	q := a / b
	if a%b < 0 {
		q--
	}
	return q
}

// String gives the expression, with its zone in front where that is not UTC: what Parse takes.
func (s Schedule) String() string {
	if s.Zone == nil || s.Zone == time.UTC {
		return s.text
	}
	return fmt.Sprintf("TZ=%s %s", s.Zone, s.text)
}
