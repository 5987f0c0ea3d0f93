package cronlock_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/scalr-go/scalr/cronlock"
)

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
