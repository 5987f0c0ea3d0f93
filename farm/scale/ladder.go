package scale

import (
	"math"
	"time"
)

// steps are how many shares of the time are tried: e to the power of 0, -1 and so on. An instance is wanted if it would be used for
// at least that share.
const steps = 8

func share(step int) float64 { return math.Exp(-float64(step)) }

const (
	ladderUnseen = 60.0 // minutes: as if there had been so much load of the mean,
	ladderLacked = 0.1  // of which this part of its share was lacking at each step
)

// ladder is what would have been lacking, had instances been wanted from each share on. What was lacking in fact would say
// little of any other share, and comes too seldom to go by.
type ladder struct {
	minutes float64
	carried float64        // the load, in instance-minutes
	lacked  [steps]float64 // and what of it would have met too little
}

// count counts the load of a minute, for which so many would have been there at each step.
func (l *ladder) count(load float64, had [steps]uint16) {
	l.minutes += 1 - l.minutes*perWeek
	l.carried += load - l.carried*perWeek
	for i, n := range had {
		l.lacked[i] += max(0, load-float64(n)) - l.lacked[i]*perWeek
	}
}

// highest is the highest share at which the budget would have been kept, between two steps by the part that was lacking.
func (l *ladder) highest(budget float64) float64 {
	mean := 1.0
	if l.carried > 0 {
		mean = l.carried / l.minutes
	}
	above := 0.0
	for i := range steps {
		lacked := (l.lacked[i] + ladderUnseen*mean*ladderLacked*share(i)) / (l.carried + ladderUnseen*mean)
		switch {
		case lacked > budget:
			above = lacked
		case i == 0:
			return share(i)
		default:
			return share(i) * math.Exp(math.Log(budget/lacked)/math.Log(above/lacked))
		}
	}
	return share(steps - 1)
}

// wished works out what would be wanted at each step.
func (m *memory) wished(in Input) (n [steps]uint16) {
	at := *m
	for i := range n {
		at.use = share(i)
		want, _ := at.best(in, grow, 0)
		n[i] = uint16(min(want, math.MaxUint16))
	}
	return n
}

// had is what would have been there at each step if it had been launched up to the i-th minute: it is kept for some minutes at
// least.
func (m *memory) had(i int) (n [steps]uint16) {
	const keptFor = int(forecastDrop / time.Minute)
	for j := max(0, i-keptFor); j <= i; j++ {
		for step, want := range m.minute(j).wished {
			n[step] = max(n[step], want)
		}
	}
	return n
}
