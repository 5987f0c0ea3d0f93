package scale

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

func at(count int, values ...float64) Input {
	return Input{Now: noon, Min: 2, Max: 20, Count: count, Ready: count, Samples: samples(values...)}
}

func TestMaxOf(t *testing.T) {
	m := MaxOf{Target{Metric: "cpu", Value: 60}, Target{Metric: "queue", Value: 100, Total: true}}
	sample := func(metric string, v float64) Sample { return Sample{Metric: metric, Value: v, At: noon} }
	in := at(4)
	in.Samples = []Sample{sample("cpu", 60), sample("queue", 900)}
	d := m.Desired(in)
	require.Equal(t, 9, d.Desired)
	require.Contains(t, d.Reason, "queue is 225 an instance over 4, target 100: grow from 4 to 9 [the others: cpu is 60")

	in.Samples, in.Memory, in.Now = []Sample{sample("cpu", 10), sample("queue", 10)}, d.Memory, noon.Add(time.Minute)
	in.Count, in.Ready = 9, 9
	d = m.Desired(in)
	require.Equal(t, 9, d.Desired, "each policy knows what it advised itself: %s", d.Reason)
	in.Memory, in.Now = d.Memory, noon.Add(10*time.Minute)
	require.Equal(t, 2, m.Desired(in).Desired)

	in.Samples = in.Samples[:1]
	d = m.Desired(in)
	require.Equal(t, 9, d.Desired, "a metric that is missing shrinks nothing")
	require.Contains(t, d.Reason, "queue is missing")
	in.Samples[0].Value = 90
	require.Equal(t, 14, m.Desired(in).Desired, "and keeps nothing from growing")
	require.Equal(t, 4, MaxOf{}.Desired(at(4)).Desired)
}

func TestFloor(t *testing.T) {
	m := MaxOf{Target{Metric: "cpu", Value: 60}, Schedule{Windows: []Window{{From: "08:00", To: "18:00", Least: 6}}}}
	in := at(6, 1, 1, 1, 1, 1, 1)
	d := Within(m, Limit{}).Desired(in)
	require.Equal(t, 6, d.Desired)
	in.Now, in.Memory = noon.Add(7*time.Hour), d.Memory
	require.Equal(t, 2, Within(m, Limit{}).Desired(in).Desired)
	in.Memory = nil
	require.Equal(t, 6, Within(m, Limit{}).Desired(in).Desired, "after a restart the load is watched first")
}

func TestStep(t *testing.T) {
	s := Step{Metric: "cpu", Up: []Bound{{At: 70, By: 1}, {At: 90, Share: 0.5}}, Down: []Bound{{At: 30, By: 1}, {At: 10, Share: 0.5}}}
	require.NoError(t, s.Check())
	for name, c := range map[string]struct {
		in   Input
		want int
		why  string
	}{
		"within the band":              {at(4, 50, 50, 50, 50), 4, "stay at 4"},
		"by one":                       {at(4, 70, 70, 70, 70), 5, "70 or more: grow from 4 to 5"},
		"by half":                      {at(5, 95, 95, 95, 95, 95), 8, "90 or more: grow from 5 to 8"},
		"some are on their way":        {Input{Count: 6, Ready: 4, Samples: samples(70, 70, 70, 70)}, 6, "4 of 6 serve"},
		"too few are on their way":     {Input{Count: 5, Ready: 4, Samples: samples(95, 95, 95, 95)}, 6, "grow from 5 to 6"},
		"down by one":                  {at(4, 20, 20, 20, 20), 3, "30 or less: shrink from 4 to 3"},
		"down by half":                 {at(8, 5, 5, 5, 5, 5, 5, 5, 5), 4, "shrink from 8 to 4"},
		"not below the minimum":        {at(2, 5, 5), 2, "stay at 2"},
		"not while one is on its way":  {Input{Count: 4, Ready: 3, Samples: samples(5, 5, 5)}, 4, "1 are on their way"},
		"not in the cool-down":         {Input{Count: 4, Ready: 4, Samples: samples(5, 5, 5, 5), LastUp: noon.Add(-4 * time.Minute)}, 4, "1m0s to go"},
		"growing waits for nothing":    {Input{Count: 4, Ready: 4, Samples: samples(71, 71, 71, 71), LastUp: noon.Add(-time.Second)}, 5, "grow"},
		"missing":                      {at(4), 4, "cpu is missing"},
		"of another metric is missing": {Input{Count: 4, Ready: 4, Samples: []Sample{{Metric: "x", Value: 99}}}, 4, "cpu is missing"},
	} {
		t.Run(name, func(t *testing.T) {
			c.in.Now, c.in.Min, c.in.Max = noon, 2, 20
			d := s.Desired(c.in)
			require.Equal(t, c.want, d.Desired, d.Reason)
			require.Contains(t, d.Reason, c.why)
		})
	}
	err := Step{Up: []Bound{{At: 5, By: 1}, {At: 5, By: 1}, {At: 9}}, Down: []Bound{{At: 6, By: -1}, {At: 7, Share: 1}}, CoolDown: -1}.Check()
	for _, want := range []string{"metric is empty", "up[1].at is 5, want more than the 5", "up[2] has by 0", "down[0] has by -1", "down[1].at is 7, want less",
		"down[0].at is 6, want less than up[0].at, which is 5", "cool_down is -1ns"} {
		require.ErrorContains(t, err, want)
	}
	require.ErrorContains(t, Step{Metric: "m"}.Check(), "up and down are empty")
}

func TestSchedule(t *testing.T) {
	s := Schedule{Zone: "Europe/Berlin", Windows: []Window{
		{Days: []string{"mon-fri"}, From: "08:00", To: "18:00", Least: 6},
		{Days: []string{"Fri", "sat"}, From: "22:00", To: "02:00", Least: 9},
		{From: "12:00", To: "13:00", Least: 3},
	}}
	require.NoError(t, s.Check())
	berlin, err := time.LoadLocation("Europe/Berlin")
	require.NoError(t, err)
	for text, want := range map[string]int{
		"2026-03-27 07:59": 2, "2026-03-27 08:00": 6, "2026-03-27 12:30": 6, "2026-03-27 18:00": 2, // a Friday
		"2026-03-27 22:00": 9, "2026-03-28 01:59": 9, "2026-03-28 02:00": 2, "2026-03-28 12:30": 3, "2026-03-28 09:00": 2,
		"2026-03-29 01:59": 9, "2026-03-29 03:00": 2, // the clocks go forward from 02:00
		"2026-03-30 08:00": 6, "2026-03-30 01:00": 2,
	} {
		now, err := time.ParseInLocation("2006-01-02 15:04", text, berlin)
		require.NoError(t, err)
		d := s.Desired(Input{Now: now, Min: 2, Max: 20, Count: 4})
		require.Equal(t, want, d.Desired, "%s: %s", text, d.Reason)
	}
	now := time.Date(2026, 3, 27, 7, 50, 0, 0, berlin)
	d := s.Desired(Input{Now: now, Min: 2, Max: 20, Count: 2, Boot: 10 * time.Minute})
	require.Equal(t, 6, d.Desired, "what is launched now serves when the window begins")
	require.Contains(t, d.Reason, "the schedule has at least 6 mon-fri 08:00-18:00, and it is Fri 07:50")
	require.Equal(t, 4, s.Desired(Input{Now: now, Min: 2, Max: 4, Count: 2, Boot: 10 * time.Minute}).Desired)
	short := Schedule{Windows: []Window{{From: "08:00", To: "08:05", Least: 5}}, Ahead: time.Hour}
	require.Equal(t, 5, short.Desired(Input{Now: time.Date(2026, 1, 1, 7, 30, 0, 0, time.UTC), Max: 9}).Desired, "a short window ahead")

	err = Schedule{Zone: "Nowhere/Town", Windows: []Window{{Days: []string{"someday"}, From: "8", To: "25:00"}}, Ahead: -1}.Check()
	for _, want := range []string{`zone is "Nowhere/Town"`, `windows[0].days has "someday"`, `windows[0].from is "8"`, `windows[0].to is "25:00"`, "windows[0].least is 0", "ahead is -1ns"} {
		require.ErrorContains(t, err, want)
	}
	require.ErrorContains(t, Schedule{}.Check(), "windows is empty")
}

func TestWithin(t *testing.T) {
	wants := func(n int) Policy {
		return Func(func(Input) Decision { return Decision{Desired: n, Raw: n, Reason: "because"} })
	}
	in := at(4)
	d := Within(wants(12), Limit{Up: Rate{By: 2, Share: 0.5, Per: time.Minute}}).Desired(in)
	require.Equal(t, 6, d.Desired)
	require.Equal(t, 12, d.Raw)
	require.Equal(t, "because, but from 4 it may grow by 2 within 1m0s: 6", d.Reason)
	in.Memory, in.Now, in.Count = d.Memory, noon.Add(30*time.Second), 6
	d = Within(wants(12), Limit{Up: Rate{By: 2, Share: 0.5, Per: time.Minute}}).Desired(in)
	require.Equal(t, 6, d.Desired, "the minute is not over")
	in.Memory, in.Now = d.Memory, noon.Add(60*time.Second)
	require.Equal(t, 9, Within(wants(12), Limit{Up: Rate{By: 2, Share: 0.5, Per: time.Minute}}).Desired(in).Desired)

	in = at(10)
	require.Equal(t, 9, Within(wants(2), Limit{Down: Rate{By: 1, Per: time.Minute}}).Desired(in).Desired)
	in.Past = []Advice{{noon.Add(-2 * time.Minute), 8}, {noon.Add(-time.Minute), 3}}
	require.Equal(t, 8, Within(wants(2), Limit{DownFor: 5 * time.Minute}).Desired(in).Desired)
	require.Equal(t, 3, Within(wants(2), Limit{DownFor: 90 * time.Second}).Desired(in).Desired)
	in.Since = noon.Add(-time.Minute)
	require.Equal(t, 10, Within(wants(2), Limit{DownFor: 90 * time.Second}).Desired(in).Desired, "it has not watched for long enough")
	in = at(4)
	in.Past = []Advice{{noon.Add(-time.Minute), 5}}
	require.Equal(t, 5, Within(wants(9), Limit{UpFor: 2 * time.Minute}).Desired(in).Desired)
	in = at(4)
	in.LastUp = noon.Add(-time.Minute)
	require.Equal(t, 4, Within(wants(9), Limit{AfterUp: 2 * time.Minute}).Desired(in).Desired)
	require.Equal(t, 9, Within(wants(9), Limit{AfterDown: 2 * time.Minute}).Desired(in).Desired)

	require.NoError(t, Limit{}.Check())
	err := Limit{Up: Rate{Per: time.Second}, Down: Rate{By: -1}, UpFor: -1}.Check()
	for _, want := range []string{"up has by 0 and share 0", "down has by -1", "down.per is 0s", "up_for is -1ns"} {
		require.ErrorContains(t, err, want)
	}
}

// Whatever a policy wants, within any time Per the role grows and shrinks by no more than the rate.
func TestRateHolds(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		l := Limit{Up: Rate{By: rapid.IntRange(1, 4).Draw(t, "up"), Per: time.Minute}, Down: Rate{By: rapid.IntRange(1, 4).Draw(t, "down"), Per: 2 * time.Minute}}
		in := Input{Now: noon, Min: 0, Max: 100, Count: 20, Ready: 20}
		type count struct {
			at time.Time
			n  int
		}
		var all []count
		for range 40 {
			want := rapid.IntRange(0, 100).Draw(t, "want")
			d := Within(Func(func(Input) Decision { return Decision{Desired: want, Raw: want, Reason: "r"} }), l).Desired(in)
			all = append(all, count{in.Now, in.Count})
			in.Memory, in.Count, in.Ready = d.Memory, d.Desired, d.Desired
			for _, c := range all {
				if since := in.Now.Sub(c.at); since < time.Minute && in.Count > c.n+l.Up.By || since < 2*time.Minute && in.Count < c.n-l.Down.By {
					t.Fatalf("from %d to %d within %v: %+v", c.n, in.Count, since, l)
				}
			}
			in.Now = in.Now.Add(time.Duration(rapid.IntRange(1, 50).Draw(t, "pause")) * time.Second)
		}
	})
}

// TestScheduleReadsItsZoneOnce gives a schedule the memory of a zone that no file has.
func TestScheduleReadsItsZoneOnce(t *testing.T) {
	s := Schedule{Zone: "Europe/Berlin", Windows: []Window{{From: "08:00", To: "09:00", Least: 6}}}
	in := Input{Now: time.Date(2026, 1, 5, 7, 30, 0, 0, time.UTC), Min: 1, Max: 9, Count: 3}
	d := s.Desired(in)
	require.Equal(t, 6, d.Desired, d.Reason)
	in.Memory = d.Memory
	require.Equal(t, d, s.Desired(in))
	mem := d.Memory.(zoned)
	mem.zone = time.FixedZone("Berlin", 5*3600)
	in.Memory = mem
	require.Equal(t, 1, s.Desired(in).Desired, "it is half past twelve there")
	s.Zone = "Nowhere/Town"
	require.Contains(t, s.Desired(in).Reason, "not known", "the memory is of another zone")
}
