package cronlock_test

import (
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/scalr-go/scalr/cronlock"
)

// oracle gives what an expression means by looking at every tick of the clock from a start to an end.
type oracle struct {
	zone  *time.Location
	start int64 // in seconds since the epoch
	step  int64 // in seconds
	ticks []tick
	twice map[int64][]int64 // the instants of each civil time that is shown more than once
	jumps []int             // the indexes at which the clock was set forward
}

// tick is what the clock shows at one instant.
type tick struct {
	off    int32 // to be added to the instant for the civil time, in seconds since the clock showed 1970-01-01 00:00
	fields [6]uint8
	twice  bool
}

func newOracle(zone *time.Location, start, end time.Time, step time.Duration) *oracle {
	o := &oracle{zone: zone, start: start.Unix() / 60 * 60, step: int64(step / time.Second), twice: map[int64][]int64{}}
	o.ticks = make([]tick, 0, (end.Unix()-o.start)/o.step+1)
	highest := int64(-1 << 62)
	for u := o.start; u < end.Unix(); u += o.step {
		t := time.Unix(u, 0).In(zone)
		_, off := t.Zone()
		_, month, day := t.Date()
		h, m, s := t.Clock()
		n, c := len(o.ticks), u+int64(off)
		if n > 0 && c > o.civil(n-1)+o.step {
			o.jumps = append(o.jumps, n)
		}
		o.ticks = append(o.ticks, tick{off: int32(off), fields: [6]uint8{uint8(s), uint8(m), uint8(h), uint8(day), uint8(month), uint8(t.Weekday())}})
		if c <= highest { // it was shown before
			for i := n - 1; i >= 0 && o.at(i) > u-27*3600; i-- {
				if o.civil(i) == c {
					if o.twice[c] == nil {
						o.twice[c] = []int64{o.at(i)}
					}
					o.twice[c] = append(o.twice[c], u)
					o.ticks[i].twice, o.ticks[n].twice = true, true
					break
				}
			}
		}
		highest = max(highest, c)
	}
	return o
}

func (o *oracle) at(i int) int64    { return o.start + int64(i)*o.step }
func (o *oracle) civil(i int) int64 { return o.at(i) + int64(o.ticks[i].off) }

// expression is a random expression with what it means, kept apart from the parser.
type expression struct {
	text string
	set  [6]uint64 // second to day of week, a bit for each value
	star [6]bool
}

var ranges = [6][2]int{{0, 59}, {0, 59}, {0, 23}, {1, 31}, {1, 12}, {0, 6}}

func randomExpression(r *rand.Rand, seconds bool) expression {
	e := expression{}
	var words []string
	for f := range e.set {
		lo, hi := ranges[f][0], ranges[f][1]
		if f == 0 && !seconds {
			e.set[0] = 1
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
				e.set[f] |= 1 << v
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

func (e *expression) matches(fields *[6]uint8) bool {
	is := func(f int) bool { return e.set[f]>>fields[f]&1 == 1 }
	if !is(0) || !is(1) || !is(2) || !is(4) {
		return false
	}
	if e.star[3] || e.star[5] {
		return is(3) && is(5)
	}
	return is(3) || is(5)
}

// instants is what the oracle says.
func (o *oracle) instants(e *expression, gap cronlock.Gap, fold cronlock.Fold) (list []int64) {
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
	for i := range o.ticks {
		if !e.matches(&o.ticks[i].fields) {
			continue
		}
		u := o.at(i)
		if o.ticks[i].twice {
			all := o.twice[o.civil(i)]
			if fold == cronlock.FoldFirst && u != all[0] || fold == cronlock.FoldSecond && u != all[len(all)-1] {
				continue
			}
		}
		list = append(list, u)
	}
	for _, i := range o.jumps {
		before := int64(o.ticks[i-1].off)
		for c := o.civil(i-1) + o.step; c < o.civil(i); c += o.step {
			t := time.Unix(c, 0).UTC()
			fields := [6]uint8{uint8(t.Second()), uint8(t.Minute()), uint8(t.Hour()), uint8(t.Day()), uint8(t.Month()), uint8(t.Weekday())}
			if !e.matches(&fields) {
				continue
			}
			switch gap {
			case cronlock.GapAtTransition:
				list = append(list, o.at(i))
			case cronlock.GapShift:
				list = append(list, c-before)
			}
		}
	}
	slices.Sort(list)
	return slices.Compact(list)
}

// check compares Next and Prev with the oracle, and says how many instants there were. Times at the edges are left out, where
// the oracle does not see both sides.
func (o *oracle) check(t *testing.T, e expression, gap cronlock.Gap, fold cronlock.Fold) int {
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
	lo, hi := o.start+margin, o.at(len(o.ticks)-1)-margin
	want := slices.DeleteFunc(o.instants(&e, gap, fold), func(u int64) bool { return u < lo || u > hi })
	walk := func(what string, want []int64, at time.Time, step func(time.Time) time.Time, within func(int64) bool) {
		t.Helper()
		for i := 0; ; i++ {
			at = step(at)
			ended := at.IsZero() || !within(at.Unix())
			if ended && i == len(want) {
				return
			}
			if ended || i == len(want) || at.Unix() != want[i] {
				expected := "nothing"
				if i < len(want) {
					expected = time.Unix(want[i], 0).In(o.zone).String()
				}
				t.Fatalf("%q in %s, gap %d, fold %d: %s gives %v, want %s", e.text, o.zone, gap, fold, what, at, expected)
			}
		}
	}
	walk("Next", want, time.Unix(lo-1, 5), s.Next, func(u int64) bool { return u <= hi })
	slices.Reverse(want)
	walk("Prev", want, time.Unix(hi, 5), s.Prev, func(u int64) bool { return u >= lo })
	return len(want)
}

// zones are all zones that this machine's database has, or those of a short list.
func zones(t *testing.T, all bool) (list []*time.Location) {
	names := []string{
		"UTC", "America/New_York", "Australia/Lord_Howe", "Africa/Cairo", "America/Santiago", "Europe/Dublin", "Asia/Tehran",
		"Africa/Casablanca", "America/St_Johns", "Pacific/Chatham", "Asia/Kolkata", "Antarctica/Troll", "America/Havana", "Pacific/Apia",
	}
	if all {
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

// Schedules equal what a look at every minute gives: over ten years of one zone, and around some transitions of some zones.
// Where CRON_LONG is set to a number, that is how many expressions are held to ten years of every history that any zone has, and each
// transition of every zone is looked at. With seconds, it is a look at every second around transitions.
func TestScheduleEqualsOracle(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	perHistory, _ := strconv.Atoi(os.Getenv("CRON_LONG"))
	long := perHistory > 0
	from, to := time.Date(2019, 7, 1, 0, 0, 0, 0, time.UTC), time.Date(2029, 7, 1, 0, 0, 0, 0, time.UTC)
	all := zones(t, long)
	var expressions, years, instants atomic.Int64
	seen := map[string]bool{} // histories of the ten years; many zones share one
	chosen := rand.New(rand.NewPCG(seed, 0)).IntN(len(all))
	t.Run("zones", func(t *testing.T) {
		for i, z := range all {
			var transitions []time.Time
			var text strings.Builder
			for at := from; !at.IsZero() && at.Before(to); _, at = at.In(z).ZoneBounds() {
				_, off := at.In(z).Zone()
				text.WriteString(fmt.Sprint(at.Unix(), off, " "))
				if at != from {
					transitions = append(transitions, at)
				}
			}
			whole := 0
			if long && !seen[text.String()] {
				whole = perHistory
			} else if !long && i == chosen {
				whole = 1
			}
			seen[text.String()] = true
			if z.String() == "Pacific/Apia" { // which went without 30 December 2011
				transitions = append(transitions, time.Date(2011, 12, 30, 10, 0, 0, 0, time.UTC))
			}
			t.Run(z.String(), func(t *testing.T) {
				t.Parallel()
				r := rand.New(rand.NewPCG(seed, uint64(i)))
				run := func(o *oracle, n int, seconds bool) {
					for range n {
						e := randomExpression(r, seconds)
						instants.Add(int64(o.check(t, e, cronlock.Gap(r.IntN(4)), cronlock.Fold(r.IntN(4)))))
						expressions.Add(1)
					}
				}
				if whole > 0 {
					run(newOracle(z, from, to, time.Minute), whole, false)
					years.Add(int64(whole))
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
			})
		}
	})
	t.Logf("%d expressions, %d of them over ten years, %d instants; %d zones with %d histories", expressions.Load(), years.Load(), instants.Load(), len(all), len(seen))
	require.Greater(t, expressions.Load(), int64(400))
	require.Greater(t, instants.Load(), int64(10_000))
}
