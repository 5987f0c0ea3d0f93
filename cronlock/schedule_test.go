package cronlock_test

import (
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/scalr-go/scalr/cronlock"
)

// oracle gives what an expression means, by looking at every tick of the clock from start to end.
type oracle struct {
	zone   *time.Location
	step   int64
	civil  []int64           // what the clock shows at each tick, as seconds since it showed 1970-01-01 00:00
	ticks  []int64           // the instants, in seconds since the epoch
	twice  map[int64][]int64 // the instants of each civil time that is shown more than once
	jumps  []int             // the indexes at which the clock was set forward
	fields []time.Time       // of each tick, in the zone
}

func newOracle(zone *time.Location, start, end time.Time, step time.Duration) *oracle {
	o := &oracle{zone: zone, step: int64(step / time.Second), twice: map[int64][]int64{}}
	highest := int64(-1 << 62)
	for u := start.Unix() / 60 * 60; u < end.Unix(); u += o.step {
		t := time.Unix(u, 0).In(zone)
		_, off := t.Zone()
		c := u + int64(off)
		if n := len(o.civil); n > 0 && c > o.civil[n-1]+o.step {
			o.jumps = append(o.jumps, n)
		}
		if c <= highest { // it was shown before
			for i := len(o.civil) - 1; i >= 0 && o.ticks[i] > u-27*3600; i-- {
				if o.civil[i] == c {
					if o.twice[c] == nil {
						o.twice[c] = []int64{o.ticks[i]}
					}
					o.twice[c] = append(o.twice[c], u)
					break
				}
			}
		}
		highest = max(highest, c)
		o.civil, o.ticks, o.fields = append(o.civil, c), append(o.ticks, u), append(o.fields, t)
	}
	return o
}

// expression is a random expression with what it means, kept apart from the parser.
type expression struct {
	text string
	set  [6]map[int]bool // second to day of week
	star [6]bool
}

var ranges = [6][2]int{{0, 59}, {0, 59}, {0, 23}, {1, 31}, {1, 12}, {0, 6}}

func randomExpression(r *rand.Rand, seconds bool) expression {
	e := expression{}
	var words []string
	for f := range e.set {
		lo, hi := ranges[f][0], ranges[f][1]
		e.set[f] = map[int]bool{}
		if f == 0 && !seconds {
			e.set[0][0] = true
			continue
		}
		var items []string
		for range 1 + r.IntN(2)*r.IntN(3) {
			a, b, step := lo+r.IntN(hi-lo+1), lo+r.IntN(hi-lo+1), 1
			if f == 2 && r.IntN(2) == 0 {
				a, b = r.IntN(4), r.IntN(4) // where the transitions are
			}
			a, b = min(a, b), max(a, b)
			item := ""
			kind := r.IntN(6)
			if f >= 3 && r.IntN(2) == 0 {
				kind = 0
			}
			switch kind {
			case 0, 1:
				a, b, item = lo, hi, "*"
			case 2, 3:
				b, item = a, fmt.Sprint(a)
			default:
				item = fmt.Sprintf("%d-%d", a, b)
			}
			if kind != 2 && kind != 3 && r.IntN(2) == 0 {
				step = 1 + r.IntN(hi-lo-1)
				item += fmt.Sprintf("/%d", step)
			}
			for v := a; v <= b; v += step {
				e.set[f][v] = true
			}
			items = append(items, item)
		}
		text := strings.Join(items, ",")
		e.star[f] = text[0] == '*'
		words = append(words, text)
	}
	e.text = strings.Join(words, " ")
	return e
}

func (e expression) matches(t time.Time) bool {
	if !e.set[0][t.Second()] || !e.set[1][t.Minute()] || !e.set[2][t.Hour()] || !e.set[4][int(t.Month())] {
		return false
	}
	date, week := e.set[3][t.Day()], e.set[5][int(t.Weekday())]
	if e.star[3] || e.star[5] {
		return date && week
	}
	return date || week
}

// instants is what the oracle says. Times at the edges are left out, where it does not see both sides.
func (o *oracle) instants(e expression, gap cronlock.Gap, fold cronlock.Fold) (list []int64) {
	wild := e.star[1] || e.star[2]
	if gap == cronlock.GapAuto {
		if gap = cronlock.GapAtTransition; wild {
			gap = cronlock.GapSkip
		}
	}
	if fold == cronlock.FoldAuto {
		if fold = cronlock.FoldFirst; wild {
			fold = cronlock.FoldBoth
		}
	}
	for i, u := range o.ticks {
		if !e.matches(o.fields[i]) {
			continue
		}
		if all := o.twice[o.civil[i]]; all != nil {
			if fold == cronlock.FoldFirst && u != all[0] || fold == cronlock.FoldSecond && u != all[len(all)-1] {
				continue
			}
		}
		list = append(list, u)
	}
	for _, i := range o.jumps {
		before := o.civil[i-1] - o.ticks[i-1]
		for c := o.civil[i-1] + o.step; c < o.civil[i]; c += o.step {
			if !e.matches(time.Unix(c, 0).UTC()) {
				continue
			}
			switch gap {
			case cronlock.GapAtTransition:
				list = append(list, o.ticks[i])
			case cronlock.GapShift:
				list = append(list, c-before)
			}
		}
	}
	slices.Sort(list)
	return slices.Compact(list)
}

// check compares Next and Prev with the oracle.
func (o *oracle) check(t *testing.T, e expression, gap cronlock.Gap, fold cronlock.Fold) (checked int) {
	t.Helper()
	s, err := cronlock.Parse(e.text)
	if err != nil {
		if strings.Contains(err.Error(), "days at most") { // 30 February, by chance
			return 0
		}
		t.Fatal(err)
	}
	s.Zone, s.Gap, s.Fold = o.zone, gap, fold
	const margin = 30 * 3600
	lo, hi := o.ticks[0]+margin, o.ticks[len(o.ticks)-1]-margin
	want := slices.DeleteFunc(o.instants(e, gap, fold), func(u int64) bool { return u < lo || u > hi })
	var forward, back []int64
	for u := s.Next(time.Unix(lo-1, 5)); !u.IsZero() && u.Unix() <= hi; u = s.Next(u) {
		forward = append(forward, u.Unix())
	}
	for u := s.Prev(time.Unix(hi, 5)); !u.IsZero() && u.Unix() >= lo; u = s.Prev(u) {
		back = append(back, u.Unix())
	}
	slices.Reverse(back)
	for what, got := range map[string][]int64{"Next": forward, "Prev": back} {
		if !slices.Equal(got, want) {
			i := 0
			for i < len(got) && i < len(want) && got[i] == want[i] {
				i++
			}
			at := func(l []int64) any {
				if i < len(l) {
					return time.Unix(l[i], 0).In(o.zone)
				}
				return "nothing"
			}
			t.Fatalf("%q in %s, gap %d, fold %d: %s gives %v, want %v", e.text, o.zone, gap, fold, what, at(got), at(want))
		}
	}
	return len(want)
}

// zones are all zones that this machine's database has, or those of a short list.
func zones(t *testing.T) (list []*time.Location) {
	names := []string{
		"UTC", "America/New_York", "Australia/Lord_Howe", "Africa/Cairo", "America/Santiago", "Europe/Dublin", "Asia/Tehran",
		"Africa/Casablanca", "America/St_Johns", "Pacific/Chatham", "Asia/Kolkata", "Antarctica/Troll", "America/Havana", "Pacific/Apia",
	}
	if os.Getenv("CRON_LONG") != "" {
		names = nil
		root := os.DirFS("/usr/share/zoneinfo")
		err := fs.WalkDir(root, ".", func(name string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() {
				if name == "posix" || name == "right" {
					return fs.SkipDir
				}
				return err
			}
			names = append(names, name)
			return nil
		})
		require.NoError(t, err)
	}
	for _, name := range names {
		if z, err := time.LoadLocation(name); err == nil {
			list = append(list, z)
		}
	}
	return list
}

// Schedules equal what a look at every minute gives: around some transitions of some zones; or, where CRON_LONG is set, around
// each transition of every zone, and in ten years of every history that a zone has. With seconds, at every second around transitions.
func TestScheduleEqualsOracle(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 0))
	long := os.Getenv("CRON_LONG") != ""
	expressions, instants := 0, 0
	run := func(o *oracle, n int, seconds bool) {
		for range n {
			e := randomExpression(r, seconds)
			instants += o.check(t, e, cronlock.Gap(r.IntN(4)), cronlock.Fold(r.IntN(4)))
			expressions++
		}
	}
	from, to := time.Date(2019, 7, 1, 0, 0, 0, 0, time.UTC), time.Date(2029, 7, 1, 0, 0, 0, 0, time.UTC)
	all := zones(t)
	histories := map[string]bool{} // of the ten years; many zones share one
	for _, z := range all {
		var history strings.Builder
		for at := from; !at.IsZero() && at.Before(to); _, at = at.In(z).ZoneBounds() {
			_, off := at.In(z).Zone()
			history.WriteString(fmt.Sprint(at.Unix(), off, " "))
		}
		if long && !histories[history.String()] {
			histories[history.String()] = true
			run(newOracle(z, from, to, time.Minute), 8, false)
		}
		var transitions []time.Time
		for at := from; at.Before(to); {
			_, end := at.In(z).ZoneBounds()
			if at = end; end.IsZero() {
				break
			}
			transitions = append(transitions, at)
		}
		if z.String() == "Pacific/Apia" { // which went without 30 December 2011
			transitions = append(transitions, time.Date(2011, 12, 30, 10, 0, 0, 0, time.UTC))
		}
		for i, at := range transitions {
			if !long && i > 1 {
				continue
			}
			run(newOracle(z, at.Add(-3*24*time.Hour), at.Add(3*24*time.Hour), time.Minute), 20, false)
			if i < 1 {
				run(newOracle(z, at.Add(-33*time.Hour), at.Add(33*time.Hour), time.Second), 3, true)
			}
		}
	}
	t.Logf("%d expressions, %d instants, %d zones, of which %d histories minute by minute", expressions, instants, len(all), len(histories))
	require.Greater(t, expressions, 500)
	require.Greater(t, instants, 10_000)
}

// The table of what other parsers get wrong.
func TestScheduleInKnownCases(t *testing.T) {
	for _, c := range []struct {
		expr       string
		gap        cronlock.Gap
		fold       cronlock.Fold
		from, want string
	}{
		{"TZ=America/New_York 30 2 * * *", 0, 0, "2025-03-09T00:00:00-05:00", "2025-03-09T03:00:00-04:00 2025-03-10T02:30:00-04:00"},
		{"TZ=America/New_York 30 2 * * *", cronlock.GapShift, 0, "2025-03-09T00:00:00-05:00", "2025-03-09T03:30:00-04:00"},
		{"TZ=America/New_York 30 2 * * *", cronlock.GapSkip, 0, "2025-03-09T00:00:00-05:00", "2025-03-10T02:30:00-04:00"},
		{"TZ=America/New_York 30 1 * * *", 0, 0, "2025-11-02T00:00:00-04:00", "2025-11-02T01:30:00-04:00 2025-11-03T01:30:00-05:00"},
		{"TZ=America/New_York 30 1 * * *", 0, cronlock.FoldSecond, "2025-11-02T00:00:00-04:00", "2025-11-02T01:30:00-05:00"},
		{"TZ=America/New_York 30 1 * * *", 0, cronlock.FoldBoth, "2025-11-02T00:00:00-04:00", "2025-11-02T01:30:00-04:00 2025-11-02T01:30:00-05:00"},
		{"TZ=Australia/Lord_Howe 15 2 * * *", 0, 0, "2025-10-05T00:00:00+10:30", "2025-10-05T02:30:00+11:00"},
		{"TZ=Australia/Lord_Howe 45 1 * * *", 0, 0, "2025-04-06T00:00:00+11:00", "2025-04-06T01:45:00+11:00 2025-04-07T01:45:00+10:30"},
		{"TZ=Africa/Cairo 0 0 * * *", 0, 0, "2025-04-24T12:00:00+02:00", "2025-04-25T01:00:00+03:00"},
		{"TZ=America/Santiago 0 0 * * *", 0, 0, "2025-09-06T12:00:00-04:00", "2025-09-07T01:00:00-03:00"},
		{"TZ=America/New_York 0 */2 * * *", 0, 0, "2025-03-09T00:00:00-05:00", "2025-03-09T04:00:00-04:00"},
		{"0 0 13 * 5", 0, 0, "2025-06-10T00:00:00Z", "2025-06-13T00:00:00Z 2025-06-20T00:00:00Z"},
		{"0 0 29 2 *", 0, 0, "2096-03-01T00:00:00Z", "2104-02-29T00:00:00Z"},
		{"@every 90s", 0, 0, "2025-01-01T00:00:01Z", "2025-01-01T00:01:30Z 2025-01-01T00:03:00Z"},
		{"@every 7s", 0, 0, "1969-12-31T23:59:50Z", "1969-12-31T23:59:53Z 1970-01-01T00:00:00Z"},
		{"5/20 8 * * Sat-Sun", 0, 0, "2025-06-13T00:00:00Z", "2025-06-14T08:05:00Z 2025-06-14T08:25:00Z 2025-06-14T08:45:00Z 2025-06-15T08:05:00Z"},
		{"*/20 0 0 ? jan 7", 0, 0, "2025-06-13T00:00:00Z", "2026-01-04T00:00:00Z 2026-01-04T00:00:20Z"},
		{"@weekly", 0, 0, "2025-06-13T00:00:00Z", "2025-06-15T00:00:00Z"},
		{"@yearly", 0, 0, "2025-06-13T00:00:00Z", "2026-01-01T00:00:00Z"},
	} {
		s, err := cronlock.Parse(c.expr)
		require.NoError(t, err)
		s.Gap, s.Fold = c.gap, c.fold
		at, err := time.Parse(time.RFC3339, c.from)
		require.NoError(t, err)
		var got []string
		wants := strings.Fields(c.want)
		for range wants {
			at = s.Next(at)
			got = append(got, at.Format(time.RFC3339))
		}
		require.Equal(t, wants, got, "%s from %s", c.expr, c.from)
		at = at.Add(time.Nanosecond)
		for _, want := range slices.Backward(wants) {
			at = s.Prev(at)
			require.Equal(t, want, at.Format(time.RFC3339), c.expr)
		}
		again, err := cronlock.Parse(s.String())
		require.NoError(t, err)
		require.Equal(t, s.String(), again.String())
	}
	var zero cronlock.Schedule
	require.Zero(t, zero.Next(time.Now()))
	require.Zero(t, zero.Prev(time.Now()))
}

func TestParseSaysWhatIsWrong(t *testing.T) {
	for expr, want := range map[string]string{
		"":                       `0 fields: want 5 (minute, hour, day of month, month, day of week), or 6 with the second in front`,
		"* * * *":                `4 fields: want 5 (minute, hour, day of month, month, day of week), or 6 with the second in front`,
		"60 * * * *":             `minute "60": "60": want 0 to 59`,
		"* 1,24 * * *":           `hour "1,24": "24": want 0 to 23`,
		"* * 0 * *":              `day of month "0": "0": want 1 to 31`,
		"* * * foo *":            `month "foo": "foo": want 1 to 12 or jan to dec`,
		"* * * * 8":              `day of week "8": "8": want 0 to 7 (both Sunday) or sun to sat`,
		"61 * * * * *":           `second "61": "61": want 0 to 59`,
		"5-1 * * * *":            `minute "5-1": "5-1" runs backwards: want a range from the lower to the higher`,
		"*/0 * * * *":            `minute "*/0": step "0": want 1 to 59`,
		"*/90 * * * *":           `minute "*/90": step "90": want 1 to 59`,
		"1,,2 * * * *":           `minute "1,,2": "": want 0 to 59`,
		"-1 * * * *":             `minute "-1": "": want 0 to 59`,
		"+1 * * * *":             `minute "+1": "+1": want 0 to 59`,
		"? * * * *":              `minute "?": "?": want 0 to 59`,
		"* * L * *":              `day of month "L": "L": want 1 to 31`,
		"0 0 30 2 *":             `day of month "30": month "2" has 29 days at most, want 1 to 29`,
		"0 0 31 4,6,sep,11 *":    `day of month "31": month "4,6,sep,11" has 30 days at most, want 1 to 30`,
		"@fortnightly":           `"@fortnightly": want @yearly, @monthly, @weekly, @daily, @hourly or @every and a duration`,
		"@every":                 `@every "": want a duration of whole seconds, at least 1s, such as 90s or 1h30m`,
		"@every 1500ms":          `@every "1500ms": want a duration of whole seconds, at least 1s, such as 90s or 1h30m`,
		"@every -5s":             `@every "-5s": want a duration of whole seconds, at least 1s, such as 90s or 1h30m`,
		"TZ=Mars/Base * * * * *": `time zone "Mars/Base": want a name in the IANA database, such as Europe/Paris`,
		"TZ=Local * * * * *":     `time zone "Local": want a name in the IANA database, such as Europe/Paris`,
	} {
		_, err := cronlock.Parse(expr)
		require.EqualError(t, err, fmt.Sprintf("schedule %q: %s", expr, want))
	}
	require.Panics(t, func() { cronlock.MustParse("x") })
}

func TestScheduleInWords(t *testing.T) {
	for expr, want := range map[string]string{
		"0 3 * * *":                      "at 03:00, every day, in UTC",
		"TZ=Europe/Paris 0 3,15 * * 1-5": "at 03:00 and 15:00, on Monday to Friday, in Europe/Paris",
		"*/15 9-17 * * *":                "every 15 minutes from 0 on of hours 9 to 17, every day, in UTC",
		"* * * * *":                      "every minute, every day, in UTC",
		"0 0 13 * 5":                     "at 00:00, on day 13 of the month or on Friday, in UTC",
		"0 0 */2 * 5":                    "at 00:00, on days 1, 3, 5, 7, 9, 11, 13, 15, 17, 19, 21, 23, 25, 27, 29 and 31 of the month if it is Friday, in UTC",
		"0 0 1 1,2,6 *":                  "at 00:00, on day 1 of the month, in January, February and June, in UTC",
		"*/10 * * * * *":                 "every 10 seconds from 0 on, every day, in UTC",
		"30 5 4 * * *":                   "at 04:05:30, every day, in UTC",
		"@every 90m":                     "every 1h30m0s, counted from 1970-01-01 00:00 UTC",
		"7 * * * *":                      "minute 7, every day, in UTC",
	} {
		require.Equal(t, want, cronlock.MustParse(expr).Words(), expr)
	}
	require.Equal(t, "never", cronlock.Schedule{}.Words())
}

// Whatever the text, Parse returns, and what it takes has instants in both directions.
func FuzzParse(f *testing.F) {
	for _, seed := range []string{"0 3 * * *", "@every 5s", "TZ=Europe/Paris */5 1-4/2 * jan-mar sun", "0 0 29 2 *", "0 0 30 2 *"} {
		f.Add(seed)
	}
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	f.Fuzz(func(t *testing.T, expr string) {
		s, err := cronlock.Parse(expr)
		if err != nil {
			return
		}
		n := s.Next(now)
		if !n.After(now) || !s.Prev(n.Add(time.Second)).Equal(n) && !s.Prev(n.Add(time.Second)).After(n) {
			t.Fatalf("%q: Next(%v) is %v", expr, now, n)
		}
	})
}
