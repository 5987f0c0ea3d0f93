package scale

import "math"

// foretell gives the logarithm of the load that was foretold in the i-th minute for so many minutes later; NaN where nothing was.
func (m *memory) foretell(e expert, i, lag int) float64 {
	if e < hourly {
		return float64(m.minute(i).bases[e])
	}
	sum, n := 0.0, 0.0
	for h := 1; h <= forecastHours; h++ {
		if from := i - h*60; from >= 0 && from+lag+around <= i {
			if v := m.around(from+lag) - float64(m.minute(from).bases[long]); !math.IsNaN(v) {
				sum += v
				n++
			}
		}
	}
	return float64(m.minute(i).bases[long]) + sum/n
}

const around = 2

// around is the mean about the i-th minute.
func (m *memory) around(i int) float64 {
	sum := 0.0
	for j := i - around; j <= i+around; j++ {
		sum += float64(m.minute(max(j, 0)).load)
	}
	return sum / (2*around + 1)
}

// foreseen is the share of the time for which the instance that takes the load from a to a+1 is expected to be used.
type foreseen func(a float64) float64

// most is the most instances of which the last would be used for that share of the time; where nothing is foreseen, the least that
// there may be.
func (f foreseen) most(share float64, in Input) int {
	low, high := 0, in.Max
	if f == nil {
		return in.Min
	}
	for low < high {
		n := (low + high + 1) / 2
		if f(float64(n-1)) >= share {
			low = n
		} else {
			high = n - 1
		}
	}
	return max(low, in.Min)
}

const (
	mixtureSharp = 7.0  // an expert that would have cost 10 % more than the best one, beyond what was needed, counts half, and one that
	mixtureLeast = 0.05 // would have cost 43 % more, which counts as much as this of the best one, does not
	mixtureSlack = 0.01 // of what the load costs: who is as close as this to what was needed is as good as the best
)

// mixed is what the experts expect together, and which counts most: of late, the cheaper an expert would have been, the more it
// counts; but who did not expect at all what is there already has nothing to say about what follows. With so much to spare in the
// logarithm of the load. Nil where even the trend is not known.
func (m *memory) mixed(purpose int, spare float64) (f foreseen, best expert) {
	var cost [experts]float64
	least := math.Inf(1)
	for e := range experts {
		if m.judged[e] > forecastJudged {
			cost[e] = m.cost[e] / m.judged[e]
			least = min(least, cost[e])
		}
	}
	var all []foreseen
	var weights []float64
	total, most, slack := 0.0, 0.0, mixtureSlack*m.use*m.ladder.mean()
	for e := range experts {
		weight := math.Exp(-mixtureSharp * (cost[e] - least) / (least + slack))
		if m.judged[e] > forecastJudged && weight >= mixtureLeast && m.expected(e) {
			if f := m.foreseen(e, purpose, spare); f != nil {
				all, weights = append(all, f), append(weights, weight)
				total += weight
				if weight > most {
					best, most = e, weight
				}
			}
		}
	}
	if len(all) == 0 {
		return m.foreseen(trend, purpose, spare), trend
	}
	return func(a float64) float64 {
		sum := 0.0
		for i, f := range all {
			sum += weights[i] * f(a)
		}
		return sum / total
	}, best
}

// expected reports whether the load has been as far above what an expert foretold as it is now, or further, for a minute a day at
// least.
func (m *memory) expected(e expert) bool {
	if e == present || e == trend || e >= daily {
		return true // they begin from what is there now
	}
	now := math.Exp(float64(m.now.bases[trend])) - forecastFloor
	return m.spreads[e][grow].seen(math.Exp(m.foretell(e, m.count, m.ahead)), max(now-1, 0)) >= perDay
}

// foreseen is what one expert expects; nil if it cannot tell.
func (m *memory) foreseen(e expert, purpose int, spare float64) foreseen {
	lags := []int{m.ahead}
	if purpose == stay {
		lags = []int{m.lag(1), m.lag(2), m.lag(3), m.lag(4)}
	}
	var days []float64 // what came after this time of each of the last days
	level := func(l float64) float64 { return math.Exp(l + spare) }
	if e >= daily {
		if e == daily { // what it begins from
			e = present
		} else {
			e = trend
		}
		for d := 1; d <= forecastDays; d++ {
			for _, lag := range lags {
				then := m.count - d*1440
				if then < 0 || then+lag+around > m.count {
					continue
				}
				if v := level(float64(m.now.bases[e]) + m.around(then+lag) - m.around(then)); !math.IsNaN(v) {
					days = append(days, v-forecastFloor)
				}
			}
		}
		if len(days) == 0 {
			return nil
		}
	}
	levels := make([]float64, 0, forecastLags)
	for _, lag := range lags {
		v := level(m.foretell(e, m.count, lag))
		if math.IsNaN(v) {
			return nil
		}
		levels = append(levels, v)
		if e < hourly {
			break // it is the same for each
		}
	}
	s := &m.spreads[e][purpose]
	weight := float64(len(days)) / float64(len(lags))
	return func(a float64) float64 {
		used, seen := 0.0, 0.0
		for _, v := range levels {
			used += s.used(v, a)
		}
		for _, load := range days {
			seen += max(0, min(1, load-a))
		}
		return (used/float64(len(levels)) + seen/float64(len(lags))) / (1 + weight)
	}
}
