package scale

import (
	"math"
	"slices"
	"time"
)

// expert is a way to foretell the load.
type expert int

const (
	present    expert = iota // as it is now
	trend                    // the mean of the last three minutes, and their trend
	short                    // a mean that forgets within minutes
	long                     // one within hours
	slow                     // and one within days
	hourly                   // as it went on after this minute of the last hours
	daily                    // as it went on after this time of the last days: each of them, from the present
	dailyTrend               // and from the trend
	experts
)

func (e expert) String() string {
	return [experts]string{"the present", "the trend", "the last minutes", "the last hours", "the last days", "the minute of the hour",
		"the time of day", "the trend and the time of day"}[e]
}

// What the load is foretold for.
const (
	grow = iota // the moment when an instance that is launched now will serve
	stay        // the time in which an instance that goes now must not be wanted again
	purposes
)

const (
	forecastFloor = 1.0 // instances: added to the load before its logarithm is taken; what comes and goes below one is no jump
	forecastDays  = 14
	forecastHours = 12
	forecastStay  = 18 // minutes from now, or
	forecastAhead = 5  // minutes beyond a launch, whichever is more: the time to stay
	forecastLags  = 4  // moments of it that are foretold

	// forecastKept is for how many minutes whatever has been wanted counts as there, when it is worked out what it would have cost.
	forecastKept = int(forecastHold / time.Minute)

	// forecastKeep is the share of that time for which an instance must be expected to be used to be kept, if nothing else asks for it.
	// It may be more than what growing asks for: what goes can be launched again before it is lacking.
	forecastKeep = 0.05

	perDay         = 1. / 1440        // what is learned of a minute fades like this: of trends,
	perTwoDays     = perDay / 2       // of what forecasts cost,
	perWeek        = perDay / 7       // of how far they were off, and of what was lacking in fact,
	perFortnight   = perWeek / 2      // of what would have been lacking,
	perMonth       = perFortnight / 2 // and of the highest load
	forecastJudged = 120 * perTwoDays // how much a forecast must have been judged to count
)

// smoothing is the time in minutes within which the means forget.
var smoothing = [...]float64{short: 20, long: 240, slow: 3 * 1440}

// minute is what is kept of one.
type minute struct {
	load   float32         // the logarithm of the load in instances, plus a floor
	bases  [hourly]float32 // what is foretold from
	slope  float32         // growth of the logarithm over a launch
	wants  [experts]uint16 // one more than each expert wanted, for a launch later; 0 if it could not tell
	wished [steps]uint16   // what would have been wanted at each step of the ladder
}

const chunkSize = 32

// memory is what a forecast has learned. It is never changed: learn makes a new one.
type memory struct {
	count  int // closed minutes
	chunks []*[chunkSize]minute

	now    minute // the minute under way
	at     int64  // counted from 1970
	sum    float64
	passes int
	last   time.Time

	ahead   int     // minutes of a launch
	use     float64 // the share of the time for which an instance that is wanted is used
	ladder  ladder
	highest float64 // the highest load
	noise   float64
	gain    [2]float64 // of trends: their product with what came, and with themselves
	spreads [daily][purposes]spread
	cost    [experts]float64 // what each would have cost a minute beyond what was needed, times
	judged  [experts]float64 // how much of the time it could tell
	regret  float64          // the logarithm of what is left beyond what is wanted when the role shrinks
}

func remembered(v any) *memory {
	m, ok := v.(*memory)
	if !ok || m == nil {
		return &memory{regret: forecastFirst}
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
func (m *memory) learn(in Input, load float64, ahead int, budget float64) *memory {
	at := in.Now.Unix() / 60
	if m.passes > 0 && (at < m.at || at-m.at > forecastDays*1440) {
		m = remembered(nil) // the clock has gone back, or what is known is too old
	}
	next := *m
	next.ahead, next.use = ahead, m.ladder.highest(budget)
	if next.passes == 0 {
		next.at = at
	}
	for next.at < at {
		next.close(in)
		next.at++
		next.sum, next.passes = 0, 0
		if next.at < at { // nothing is known of this one
			nan := float32(math.NaN())
			next.now = minute{load: nan, bases: [hourly]float32{nan, nan, nan, nan, nan}}
		}
	}
	next.sum += load
	next.highest = max(next.highest, load)
	next.passes++
	next.open()
	passed := max(0, min(in.Now.Sub(m.last).Minutes(), 1))
	next.last = in.Now
	if next.count > ahead {
		next.ladder.compare(budget, load, float64(in.Ready), passed)
	}
	if before := next.count - ahead; before >= 0 {
		for e := range daily {
			next.spreads[e][grow].add(math.Log(load+forecastFloor)-next.foretell(e, before, ahead), passed)
		}
	}
	return &next
}

// close keeps the minute under way.
func (m *memory) close(in Input) {
	in.Max = m.limit(in.Max)
	for e := range experts {
		m.now.wants[e] = 0
		if f := m.foreseen(e, grow, 0); f != nil {
			m.now.wants[e] = uint16(min(f.most(m.use, in)+1, math.MaxUint16))
		}
	}
	m.now.wished = m.wished(in)
	fresh := m.count%chunkSize == 0
	if fresh {
		m.chunks = append(slices.Clone(m.chunks), new([chunkSize]minute))
		if keep := (forecastDays+1)*1440/chunkSize + 1; len(m.chunks) > keep {
			m.chunks = m.chunks[1:]
			m.count -= chunkSize
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

// lag is the q-th of the moments in which an instance that goes must not be wanted again, in minutes from now.
func (m *memory) lag(q int) int {
	return max(m.ahead+forecastAhead, forecastStay) * q / forecastLags
}

// judge compares what was foretold for the minute that has just been closed with what came.
func (m *memory) judge() {
	m.regret = max(0, m.regret-forecastRegret*perDay*m.patience())
	t := m.count - 1
	l := float64(m.minute(t).load)
	for e := range daily {
		for k := range m.spreads[e] {
			m.spreads[e][k].forget(perWeek)
		}
		for q := 1; q <= forecastLags; q++ {
			if from := t - m.lag(q); from >= 0 {
				m.spreads[e][stay].add(l-m.foretell(e, from, m.lag(q)), 1./forecastLags)
			}
		}
	}
	before := t - m.ahead
	if before < 0 {
		return
	}
	was := m.minute(before)
	grown := l - float64(was.load)
	if math.IsNaN(grown) {
		return
	}
	slope := float64(was.slope)
	m.gain[0] += perDay * (slope*grown - m.gain[0])
	m.gain[1] += perDay * (slope*slope - m.gain[1])

	load := math.Exp(l) - forecastFloor
	m.highest -= m.highest * perMonth
	m.ladder.count(load, m.had(before))
	for e := range experts {
		if was.wants[e] > 0 {
			n := 0.0
			for i := max(0, before-forecastKept); i <= before; i++ {
				n = max(n, float64(m.minute(i).wants[e])-1)
			}
			m.judged[e] += perTwoDays * (1 - m.judged[e])
			m.cost[e] += perTwoDays * (m.use*max(0, n-load) + max(0, load-n) - m.cost[e])
		}
	}
}

// open works out what the minute under way says.
func (m *memory) open() {
	l := math.Log(m.sum/float64(m.passes) + forecastFloor)
	t := m.count
	m.now = minute{load: float32(l)}
	for e := short; e <= slow; e++ {
		minutes := smoothing[e]
		v := l
		if t > 0 {
			if before := float64(m.minute(t - 1).bases[e]); !math.IsNaN(before) {
				v = before + (l-before)*max(1-math.Exp(-1/minutes), 1/float64(t+1))
			}
		}
		m.now.bases[e] = float32(v)
	}
	m.now.bases[present], m.now.bases[trend] = float32(l), float32(l)
	const width = 10
	if t < width {
		return
	}
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
	if slope := x/xx - 2*m.noise/math.Sqrt(xx); slope > 0 { // more than noise alone would make
		m.now.slope = float32(slope * float64(m.ahead))
	}
	if mean := (l + a + b) / 3; !math.IsNaN(mean) {
		// Until the past says otherwise, trends are worth something.
		const prior = 0.01
		worth := max(0, min(1, (m.gain[0]+prior)/(m.gain[1]+prior)))
		m.now.bases[trend] = float32(mean + worth*float64(m.now.slope)*(1+1/float64(m.ahead)))
	}
}
