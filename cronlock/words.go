package cronlock

import (
	"fmt"
	"math/bits"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Words explains the schedule to a person: "at 03:00, on Monday to Friday, in Europe/Paris".
func (s Schedule) Words() string {
	switch {
	case s.every > 0:
		return fmt.Sprintf("every %s, counted from 1970-01-01 00:00 UTC", time.Duration(s.every)*time.Second)
	case s.field[minute] == 0:
		return "never"
	}
	words := []string{s.timeWords(), s.dayWords()}
	if !s.full(month) {
		words = append(words, "in "+join(s.field[month], func(n int) string { return time.Month(n).String() }))
	}
	words = append(words, "in "+s.zone().String())
	gap := map[Gap]string{GapAtTransition: "at the transition if the clock skips it", GapShift: "shifted if the clock skips it"}[s.gap()]
	fold := map[Fold]string{FoldSecond: "the second time if the clock shows it twice", FoldBoth: "both times if the clock shows it twice"}[s.fold()]
	if s.Gap != GapAuto && gap != "" {
		words = append(words, gap)
	}
	if s.Fold != FoldAuto && fold != "" {
		words = append(words, fold)
	}
	return strings.Join(words, ", ")
}

// full reports whether the field excludes nothing.
func (s Schedule) full(f int) bool {
	rule := fieldRules[f]
	n := rule.max - rule.min + 1
	if f == dayOfWeek {
		n = 7
	}
	return bits.OnesCount64(s.field[f]) == n
}

func (s Schedule) timeWords() string {
	times := bits.OnesCount64(s.field[hour]) * bits.OnesCount64(s.field[minute]) * bits.OnesCount64(s.field[second])
	if times <= 4 {
		var list []string
		for h := range values(s.field[hour]) {
			for m := range values(s.field[minute]) {
				for sec := range values(s.field[second]) {
					t := fmt.Sprintf("%02d:%02d", h, m)
					if s.field[second] != 1 {
						t += fmt.Sprintf(":%02d", sec)
					}
					list = append(list, t)
				}
			}
		}
		return "at " + and(list)
	}
	var parts []string
	if s.field[second] != 1 {
		parts = append(parts, s.unitWords(second))
	}
	if len(parts) == 0 || !s.full(minute) {
		parts = append(parts, s.unitWords(minute))
	}
	if !s.full(hour) {
		parts = append(parts, s.unitWords(hour))
	}
	return strings.Join(parts, " of ")
}

func (s Schedule) unitWords(f int) string {
	name := fieldRules[f].name
	if s.full(f) {
		return "every " + name
	}
	list := slices.Collect(values(s.field[f]))
	if len(list) == 1 {
		return name + " " + strconv.Itoa(list[0])
	}
	step := list[1] - list[0]
	even := step > 1 && list[0] == 0 && list[len(list)-1]+step > fieldRules[f].max
	for i := 1; i < len(list); i++ {
		even = even && list[i]-list[i-1] == step
	}
	if even {
		return fmt.Sprintf("every %d %ss from 0 on", step, name)
	}
	return name + "s " + join(s.field[f], strconv.Itoa)
}

func (s Schedule) dayWords() string {
	date := "on day " + join(s.field[dayOfMonth], strconv.Itoa) + " of the month"
	if bits.OnesCount64(s.field[dayOfMonth]) > 1 {
		date = "on days " + join(s.field[dayOfMonth], strconv.Itoa) + " of the month"
	}
	week := "on " + join(s.field[dayOfWeek], func(n int) string { return time.Weekday(n).String() })
	either := !s.star[dayOfMonth] && !s.star[dayOfWeek]
	switch dates, weekdays := s.full(dayOfMonth), s.full(dayOfWeek); {
	case dates && weekdays, either && (dates || weekdays):
		return "every day"
	case dates:
		return week
	case weekdays:
		return date
	case either:
		return date + " or " + week
	}
	return date + " if it is " + strings.TrimPrefix(week, "on ")
}

func values(set uint64) func(func(int) bool) {
	return func(yield func(int) bool) {
		for n := next(set, 0); n != none; n = next(set, n+1) {
			if !yield(int(n)) {
				return
			}
		}
	}
}

// join names what is in the set, three and more in a row as a range.
func join(set uint64, name func(int) string) string {
	var list []string
	for n := next(set, 0); n != none; {
		end := n
		for has(set, end+1) {
			end++
		}
		switch {
		case end >= n+2:
			list = append(list, name(int(n))+" to "+name(int(end)))
		case end == n+1:
			list = append(list, name(int(n)), name(int(end)))
		default:
			list = append(list, name(int(n)))
		}
		n = next(set, end+1)
	}
	return and(list)
}

func and(list []string) string {
	if len(list) < 2 {
		return strings.Join(list, "")
	}
	return strings.Join(list[:len(list)-1], ", ") + " and " + list[len(list)-1]
}
