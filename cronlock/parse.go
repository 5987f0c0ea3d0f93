package cronlock

import (
	"fmt"
	"strconv"
	"strings"
	"time"
)

// The fields of an expression.
const (
	second = iota
	minute
	hour
	dayOfMonth
	month
	dayOfWeek
	fields
)

var (
	monthNames = []string{"jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"}
	dayNames   = []string{"sun", "mon", "tue", "wed", "thu", "fri", "sat"}
)

// fieldRules say what a field may hold. Sunday is 0 and 7.
var fieldRules = [fields]struct {
	name     string
	min, max int
	names    []string // of min and what follows it
	want     string
}{
	{"second", 0, 59, nil, "0 to 59"},
	{"minute", 0, 59, nil, "0 to 59"},
	{"hour", 0, 23, nil, "0 to 23"},
	{"day of month", 1, 31, nil, "1 to 31"},
	{"month", 1, 12, monthNames, "1 to 12 or jan to dec"},
	{"day of week", 0, 7, dayNames, "0 to 7 (both Sunday) or sun to sat"},
}

var macros = map[string]string{
	"@yearly": "0 0 1 1 *", "@annually": "0 0 1 1 *", "@monthly": "0 0 1 * *", "@weekly": "0 0 * * 0",
	"@daily": "0 0 * * *", "@midnight": "0 0 * * *", "@hourly": "0 * * * *",
}

// MustParse is [Parse] for expressions that are part of the program. It panics if there is anything wrong.
func MustParse(expr string) Schedule {
	s, err := Parse(expr)
	if err != nil {
		panic(err)
	}
	return s
}

// Parse reads an expression as crontab(5) has it: five fields for minute, hour, day of month, month and day of week, or
// six with the second in front. A field is a list, divided by commas, of
//
//   - every value; ? is the same in both fields for days
//     5        one value; in the last two fields also by a name of three letters, in any case
//     9-17     a range
//     */15     every 15th value from the first on; also with a range, 9-17/2, or a beginning, 5/15
//
// As in crontab(5), if both day of month and day of week are given (neither begins with '*'), a day that matches either
// is taken: "0 0 13 * 5" is every 13th and every Friday.
//
// Instead of fields there may be @yearly or @annually, @monthly, @weekly, @daily or @midnight, @hourly; or "@every 90s", the
// multiples of a duration of whole seconds since 1970-01-01 00:00 UTC, so that all runners agree on them, whenever they
// were started.
//
// "TZ=Europe/Paris " in front sets the zone, by its name in the IANA database.
//
// An error names the field, its text and what is allowed. An expression that has no instant, such as the 30th of
// February, is an error.
func Parse(expr string) (Schedule, error) {
	s, err := parse(expr)
	if err != nil {
		return Schedule{}, fmt.Errorf("schedule %q: %w", expr, err)
	}
	return s, nil
}

func parse(expr string) (s Schedule, err error) {
	words := strings.Fields(expr)
	if len(words) > 0 {
		if zone, ok := strings.CutPrefix(words[0], "TZ="); ok {
			words = words[1:]
			s.Zone, err = time.LoadLocation(zone)
			if err != nil || zone == "" || zone == "Local" {
				return s, fmt.Errorf("time zone %q: want a name in the IANA database, such as Europe/Paris", zone)
			}
		}
	}
	s.text = strings.Join(words, " ")
	if len(words) > 0 && words[0][0] == '@' {
		if words[0] == "@every" {
			s.every, err = parseEvery(words[1:])
			return s, err
		}
		macro := macros[words[0]]
		if macro == "" || len(words) > 1 {
			return s, fmt.Errorf("%q: want @yearly, @monthly, @weekly, @daily, @hourly or @every and a duration", s.text)
		}
		words = strings.Fields(macro)
	}
	switch len(words) {
	case 5:
		words = append([]string{"0"}, words...)
	case 6:
	default:
		return s, fmt.Errorf("%d fields: want 5 (minute, hour, day of month, month, day of week), or 6 with the second in front", len(words))
	}
	for f, text := range words {
		if s.field[f], err = parseField(f, text); err != nil {
			return s, fmt.Errorf("%s %q: %w", fieldRules[f].name, text, err)
		}
		s.star[f] = text[0] == '*' || text[0] == '?'
	}
	return s, s.possible(words[dayOfMonth], words[month])
}

func parseEvery(words []string) (int64, error) {
	text := strings.Join(words, " ")
	d, err := time.ParseDuration(text)
	if err != nil || d < time.Second || d%time.Second != 0 {
		return 0, fmt.Errorf("@every %q: want a duration of whole seconds, at least 1s, such as 90s or 1h30m", text)
	}
	return int64(d / time.Second), nil
}

func parseField(f int, text string) (set uint64, err error) {
	for item := range strings.SplitSeq(text, ",") {
		s, err := parseItem(f, item)
		if err != nil {
			return 0, err
		}
		set |= s
	}
	if f == dayOfWeek && has(set, 7) {
		set = set&^(1<<7) | 1
	}
	return set, nil
}

func parseItem(f int, item string) (set uint64, err error) {
	rule := fieldRules[f]
	values, stepText, stepped := strings.Cut(item, "/")
	lo, hi := rule.min, rule.max
	if f == dayOfWeek {
		hi = 6 // for '*', so that steps count each day once
	}
	switch days := f == dayOfMonth || f == dayOfWeek; {
	case values == "*" || values == "?" && days:
	default:
		from, to, ranged := strings.Cut(values, "-")
		if lo, err = parseValue(f, from); err != nil {
			return 0, err
		}
		if ranged {
			if hi, err = parseValue(f, to); err != nil {
				return 0, err
			}
			if f == dayOfWeek && hi == 0 && lo > 0 {
				hi = 7
			}
		} else if !stepped {
			hi = lo
		}
		if lo > hi {
			return 0, fmt.Errorf("%q runs backwards: want a range from the lower to the higher", values)
		}
	}
	step := 1
	if stepped {
		step, err = strconv.Atoi(stepText)
		if most := rule.max - rule.min; err != nil || step < 1 || step > most {
			return 0, fmt.Errorf("step %q: want 1 to %d", stepText, most)
		}
	}
	for v := lo; v <= hi; v += step {
		set |= 1 << v
	}
	return set, nil
}

func parseValue(f int, text string) (int, error) {
	rule := fieldRules[f]
	for i, name := range rule.names {
		if strings.EqualFold(text, name) {
			return rule.min + i, nil
		}
	}
	for _, c := range []byte(text) {
		if c < '0' || c > '9' {
			return 0, fmt.Errorf("%q: want %s", text, rule.want)
		}
	}
	v, err := strconv.Atoi(text)
	if err != nil || v < rule.min || v > rule.max {
		return 0, fmt.Errorf("%q: want %s", text, rule.want)
	}
	return v, nil
}

// possible refuses what no year has.
func (s Schedule) possible(dayText, monthText string) error {
	if !s.star[dayOfMonth] && !s.star[dayOfWeek] {
		return nil // the day of the week alone is enough
	}
	longest := 0
	for m := range 13 {
		if has(s.field[month], int64(m)) {
			longest = max(longest, time.Date(2024, time.Month(m)+1, 0, 0, 0, 0, 0, time.UTC).Day())
		}
	}
	if first := next(s.field[dayOfMonth], 0); first > int64(longest) {
		return fmt.Errorf("day of month %q: month %q has %d days at most, want 1 to %d", dayText, monthText, longest, longest)
	}
	return nil
}
