package scale

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"time"
)

// Forecast provides for the load of the moment when an instance that is launched now will serve. It asks what became of the
// load in the time of a launch at this time of day on each of the last days, and at this minute of the last hours where that has
// foretold more than the present does (jobs that run every hour), goes on with the trend where trends have been worth
// something, widens both by the noise of the metric, and reckons with something that it has never seen: after n days one
// day in n+1 brings more than all of them. An instance is wanted if, over all these futures, it would be used for at least
// the share Use of the time; which is the least cost for a given number of requests that meet too little capacity.
//
// What it has learned it keeps in memory for two weeks; it begins anew after a restart, with the trend and a wide margin.
type Forecast struct {
	// Metric is the name of a sensor in the farm's Config.
	Metric string `json:"metric"`
	// Value is the metric of an instance that is fully used, beyond which clients notice; greater than 0. A margin need not be
	// part of it.
	Value float64 `json:"value"`
	// Total says that a sample is of the role as a whole: it is divided by the instances that serve.
	Total bool `json:"total,omitempty"`
	// Use is how much of the time an instance must be expected to be used to be worth its price: less is dearer and safer.
	// More than 0, at most 1; default 0.03.
	Use float64 `json:"use,omitempty"`
	// Boot is how long an instance takes from its launch until it serves, while it has not been measured; default 3 minutes.
	Boot time.Duration `json:"boot,omitempty"`
}

const (
	forecastDays   = 14
	forecastHours  = 12
	forecastSeen   = 240 // minutes, before the hours are judged
	forecastRecent = 8
	forecastWindow = 3 * time.Minute  // a lull must last so long
	forecastHold   = 15 * time.Minute // and what was launched is kept so long,
	forecastDrop   = 5 * time.Minute  // or so long if the load has fallen below
	forecastLow    = 0.6              // this share of the role, and is not one that jumps about:
	forecastJumps  = 0.4              // if in the time of a launch its logarithm changes by less on the average
	forecastAhead  = 5                // minutes beyond a launch in which an instance that is to go must not be wanted again,
	forecastStay   = 18               // and minutes from now, likewise
	forecastSpare  = 0.06             // of the load: what shrinking leaves beyond what is wanted, for the noise of the next minutes
	forecastBand   = 0.04             // of the role: what is not worth a change
	forecastFloor  = 0.1              // instances: added to the load before its logarithm is taken
)

// Check reports every fault of the policy's fields.
func (f Forecast) Check() error {
	var errs []error
	if f.Metric == "" {
		errs = append(errs, errors.New("metric is empty, want the name of a sensor"))
	}
	if !(f.Value > 0) || math.IsInf(f.Value, 0) {
		errs = append(errs, fmt.Errorf("value is %v, want more than 0", f.Value))
	}
	if !(f.Use >= 0 && f.Use <= 1) {
		errs = append(errs, fmt.Errorf("use is %v, want more than 0 and at most 1", f.Use))
	}
	if f.Boot < 0 || f.Boot > 6*time.Hour {
		errs = append(errs, fmt.Errorf("boot is %v, want 0 to 6h", f.Boot))
	}
	return errors.Join(errs...)
}

// Memory is how far back the policy wants to see its own advice.
func (f Forecast) Memory() time.Duration { return forecastWindow }

// Desired implements [Policy].
func (f Forecast) Desired(in Input) Decision {
	mean, ok := in.Of(f.Metric).Mean()
	switch {
	case !ok:
		return in.Hold("%s is missing: hold at %d", f.Metric, in.Count)
	case in.Ready == 0 && !f.Total:
		return in.Hold("nothing serves yet: hold at %d", in.Count)
	case !f.Total:
		mean *= float64(in.Ready)
	}
	load := max(min(mean/f.Value, 1e6), 0)
	boot := min(defaultTo(in.Boot, defaultTo(f.Boot, 3*time.Minute)), 6*time.Hour)
	ahead := int(math.Ceil(boot.Minutes())) + 1
	m := remembered(in.Memory).learn(in.Now, load, ahead)
	use := defaultTo(f.Use, 0.03)

	var room [3 * (forecastDays + forecastHours + forecastRecent)]future
	grow, days := m.futures(room[:0], 1, ahead)
	up := wanted(grow, m.level, m.growth, m.gamma(days), use, in.Min, in.Max)
	d := Decision{Desired: in.Count, Raw: up, Memory: m}
	why := fmt.Sprintf("%s is worth %.1f instances; over the %v of a launch, judged by %d days and the trend,", f.Metric, load, boot.Round(time.Second), days)
	if up > in.Count {
		d.Desired, d.Reason = up, fmt.Sprintf("%s %d would be used: grow from %d", why, up, in.Count)
		return d
	}
	stay, _ := m.futures(room[:0], 1, max(ahead+forecastAhead, forecastStay))
	d.Raw = max(up, wanted(stay, m.level+forecastSpare, m.growth, m.gamma(days), use, in.Min, in.Max))
	needed := max(in.highest(forecastWindow, d.Raw), in.Min)
	if in.Count-needed <= int(forecastBand*float64(in.Count)) {
		needed = max(needed, in.Count)
	}
	hold := forecastHold
	if float64(needed) < forecastLow*float64(in.Count) && m.errors[0] < forecastJumps {
		hold = forecastDrop
	}
	watched := in.Now.Sub(in.Since)
	switch {
	case needed >= in.Count:
		d.Reason = fmt.Sprintf("%s %d would be used: stay at %d", why, needed, in.Count)
	case !in.LastUp.IsZero() && in.Now.Sub(in.LastUp) <= hold:
		d.Reason = fmt.Sprintf("%s %d would be used, but the role grew less than %v ago: stay at %d", why, needed, hold, in.Count)
	case !in.Since.IsZero() && watched < forecastWindow:
		d.Reason = fmt.Sprintf("%s %d would be used, but the load has been watched for %v of %v only: stay at %d", why, needed, watched.Round(time.Second), forecastWindow, in.Count)
	default:
		d.Desired, d.Reason = needed, fmt.Sprintf("%s %d would be used: shrink from %d", why, needed, in.Count)
	}
	return d
}

// future is a load that may come, with its weight.
type future struct{ load, weight float64 }

// wanted is the most instances of which the last would be used for the given share over the futures: those that were seen, and
// one that was not, whose logarithm is beyond the trend by an exponential of mean gamma.
func wanted(seen []future, level, growth, gamma, use float64, least, most int) int {
	shift, weight := math.Exp(level), 1.0
	for _, f := range seen {
		weight += f.weight
	}
	base := math.Exp(level+growth) - forecastFloor
	low, high := 0, most
	for low < high {
		n := (low + high + 1) / 2
		a := float64(n - 1)
		sum := beyond(base, gamma, a)
		for _, f := range seen {
			sum += f.weight * max(0, min(1, f.load*shift-forecastFloor-a))
		}
		if sum/weight >= use {
			low = n
		} else {
			high = n - 1
		}
	}
	return max(low, least)
}

// beyond is the share of the instance that takes the load from a to a+1 that is used by a load of b·e^X, X exponential with
// the mean gamma: a Pareto distribution.
func beyond(b, gamma, a float64) float64 {
	if a+1 <= b {
		return 1
	}
	sum := max(b-a, 0)
	if b <= 0 {
		return sum
	}
	k := 1 - 1/gamma
	return sum + b/-k*(math.Pow(max(a, b)/b, k)-math.Pow((a+1)/b, k))
}

// minute is what is kept of one.
type minute struct {
	load   float32 // the logarithm of the load in instances
	smooth [2]float32
	trend  float32 // growth of the logarithm over a launch
}

// The bases that a future is reckoned from: the load of the last minutes, or a mean that forgets so fast. Which of them foretells
// best says the past.
var smoothing = [2]float64{20, 240}

const chunkSize = 32

// memory is what a forecast has learned. It is never changed: learn makes a new one.
type memory struct {
	first  int64 // the first minute, counted from 1970
	count  int   // closed minutes
	chunks []*[chunkSize]minute

	now    minute // the minute under way
	at     int64
	sum    float64
	passes int

	level  float64 // the logarithm of the load from which futures are reckoned
	base   int     // 0 for the last minutes, else smoothing[base-1]
	growth float64 // the trend, as far as trends are worth something

	noise    float64
	gain     [2]float64 // of trends: their product with what came, and with themselves
	errors   [3]float64 // of each base, a launch ahead
	hourly   float64    // the same of the load an hour ago
	greatest [3]float64
	ahead    int
}

func remembered(v any) *memory {
	m, ok := v.(*memory)
	if !ok || m == nil {
		return &memory{}
	}
	return m
}

// minute gives the i-th minute; the one under way is the last.
func (m *memory) minute(i int) *minute {
	if i == m.count {
		return &m.now
	}
	return &m.chunks[i/chunkSize][i%chunkSize]
}

// learn gives the memory after one more sample.
func (m *memory) learn(now time.Time, load float64, ahead int) *memory {
	next := *m
	next.ahead = ahead
	at := now.Unix() / 60
	if m.passes > 0 && (at < m.at || at-m.at > forecastDays*1440) {
		next = *remembered(nil) // the clock has gone back, or what is known is too old
		next.ahead = ahead
	}
	if next.passes == 0 {
		next.first, next.at = at, at
	}
	for next.at < at {
		next.close()
		next.at++
		next.sum, next.passes = 0, 0
		if next.at < at { // nothing is known of this one
			next.now.load = float32(math.NaN())
		}
	}
	next.sum += load
	next.passes++
	next.open()
	return &next
}

// close keeps the minute under way.
func (m *memory) close() {
	fresh := m.count%chunkSize == 0
	if fresh {
		m.chunks = append(slices.Clone(m.chunks), new([chunkSize]minute))
		if keep := (forecastDays*1440+1440)/chunkSize + 1; len(m.chunks) > keep {
			m.chunks = m.chunks[1:]
			m.count -= chunkSize
			m.first += chunkSize
		}
	}
	last := len(m.chunks) - 1
	c := *m.chunks[last]
	c[m.count%chunkSize] = m.now
	if !fresh {
		m.chunks = slices.Clone(m.chunks)
	}
	m.chunks[last] = &c
	m.count++
	m.judge()
}

// judge compares what was foretold for the minute that has just been closed with what came.
func (m *memory) judge() {
	t, before := m.count-1, m.count-1-m.ahead
	if before < 0 {
		return
	}
	is, was := m.minute(t), m.minute(before)
	l, then := float64(is.load), float64(was.load)
	if math.IsNaN(l) || math.IsNaN(then) {
		return
	}
	const day, week = 1. / 1440, 1. / (7 * 1440)
	if t >= 60 {
		if hour := float64(m.minute(t - 60).load); !math.IsNaN(hour) {
			m.hourly += day * (math.Abs(l-hour) - m.hourly)
		}
	}
	for b := range m.errors {
		from := then
		if b > 0 {
			from = float64(was.smooth[b-1])
		}
		m.errors[b] += day * (math.Abs(l-from) - m.errors[b])
		m.greatest[b] = max(m.greatest[b]*(1-week), l-from)
	}
	trend := float64(was.trend)
	m.gain[0] += day * (trend*(l-then) - m.gain[0])
	m.gain[1] += day * (trend*trend - m.gain[1])
}

// open works out what the minute under way says.
func (m *memory) open() {
	l := math.Log(m.sum/float64(m.passes) + forecastFloor)
	m.now = minute{load: float32(l)}
	t := m.count
	for b, minutes := range smoothing {
		v := l
		if t > 0 {
			if before := float64(m.minute(t - 1).smooth[b]); !math.IsNaN(before) {
				v = before + (l-before)*(1-math.Exp(-1/minutes))
			}
		}
		m.now.smooth[b] = float32(v)
	}
	const width = 10
	m.level, m.growth = l, 0
	if t >= width {
		var x, xx float64
		for j := range width + 1 {
			dx := float64(j) - width/2.
			x += dx * float64(m.minute(t-width+j).load)
			xx += dx * dx
		}
		a, b := float64(m.minute(t-1).load), float64(m.minute(t-2).load)
		if jump := math.Abs(l-2*a+b) / 2.45 * 1.25; !math.IsNaN(jump) && m.passes == 1 {
			m.noise += (jump - m.noise) / 60 // second differences have six times the variance
		}
		slope := max(0, x/xx-2*m.noise/math.Sqrt(xx)) // what noise alone would not make
		if math.IsNaN(slope) {
			slope = 0
		}
		m.now.trend = float32(slope * float64(m.ahead))
		// Until the past says otherwise, trends are worth something.
		const prior = 0.01
		worth := max(0, min(1, 3*(m.gain[0]+prior)/(m.gain[1]+prior)))
		m.growth = worth * float64(m.now.trend)
		if mean := (l + a + b) / 3; !math.IsNaN(mean) {
			m.level = mean + m.growth/float64(m.ahead)
		}
	}
	m.base = 0
	for b := 1; b < len(m.errors); b++ {
		if m.errors[b] < 0.98*m.errors[m.base] {
			m.base = b
		}
	}
	if m.base > 0 {
		m.level = float64(m.now.smooth[m.base-1])
	}
}

// gamma is how much what was never seen may be beyond the present, after so many days.
func (m *memory) gamma(days int) float64 {
	return min(max(m.greatest[m.base]/4, 0.03, 0.3/float64(days+2)), 0.9)
}

// futures gives what became of the load from the minute from to the minute to after this time of day on earlier days, as factors
// of the base, and after this minute of earlier hours, if the load goes by hours; where there are no days yet, after the last
// moments.
func (m *memory) futures(list []future, from, to int) (futures []future, days int) {
	for d := 1; d <= forecastDays; d++ {
		if g, ok := m.after(m.count-d*1440, from, to); ok {
			list = m.smear(list, g, 1)
			days++
		}
	}
	if m.count >= forecastSeen && m.hourly < m.errors[m.base] {
		for h := 1; h <= forecastHours; h++ {
			if g, ok := m.after(m.count-h*60, from, to); ok {
				list = m.smear(list, g, 0.5)
			}
		}
	}
	for i := range forecastRecent {
		if g, ok := m.after(m.count-(to+2)-i*to, from, to); ok {
			list = m.smear(list, g, 1/float64(forecastRecent*(days+1)*(days+1)))
		}
	}
	return list, days
}

// smear adds a future with the noise of the metric around it.
func (m *memory) smear(list []future, growth, weight float64) []future {
	growth = max(growth, m.growth, 0)
	for q := -1.0; q <= 1; q++ {
		list = append(list, future{math.Exp(growth + q*1.3*m.noise), weight / 3})
	}
	return list
}

// after gives the highest growth in the minutes after the i-th, against the base there.
func (m *memory) after(i, from, to int) (growth float64, ok bool) {
	const around = 2
	if i < around || i+to+around > m.count {
		return 0, false
	}
	mean := func(i int) float64 {
		sum := 0.0
		for j := i - around; j <= i+around; j++ {
			sum += float64(m.minute(j).load)
		}
		return sum / (2*around + 1)
	}
	highest := math.Inf(-1)
	sum := mean(i+from) * (2*around + 1)
	for h := from; h <= to; h++ {
		highest = max(highest, sum/(2*around+1))
		if h < to {
			sum += float64(m.minute(i+h+around+1).load) - float64(m.minute(i+h-around).load)
		}
	}
	base := mean(i)
	if m.base > 0 {
		base = float64(m.minute(i).smooth[m.base-1])
	}
	growth = highest - base
	return growth, !math.IsNaN(growth) && !math.IsInf(growth, 0)
}
