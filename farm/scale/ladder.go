package scale

import "math"

// steps are how many shares of the time are tried: a half, and less by e with each step. An instance is wanted if it would be used
// for at least that share. One that would be used for more than half of the time is wanted in any case: if it had to be used all the
// time, what came once in days would take them all away.
const steps = 8

func share(step int) float64 { return math.Exp(-float64(step)) / 2 }

const (
	ladderUnseen = 60.0 // minutes: as if there had been so much load of the mean,
	ladderLacked = 0.04 // of which this part of its share was lacking at each step

	ladderUnproved = 1440.0 // minutes: as if so much load of the mean had come with as much lacking as was thought
	ladderCareful  = 0.5    // the least of the budget that is aimed at when more has been lacking,
	ladderBold     = 1.25   // and the most when less has been: the steps do not know what is kept for other reasons
)

// ladder is what would have been lacking, had instances been wanted from each share on. What was lacking in fact says little of any
// other share, and comes too seldom to go by alone: it moves the aim.
type ladder struct {
	minutes float64
	carried float64        // the load, in instance-minutes
	lacked  [steps]float64 // and what of it would have met too little

	thought float64 // what was to lack, by what was thought of the steps,
	missed  float64 // and what did
}

// compare counts what has met too little in fact, with so many instances that served.
func (l *ladder) compare(budget, load, ready, minutes float64) {
	l.thought += minutes * load * l.aim(budget)
	l.missed += minutes * max(0, load-ready)
}

// aim is the budget, or less of it if more has been lacking than was thought, since loads become harder to foretell or launches fail,
// or a little more than it if less has been.
func (l *ladder) aim(budget float64) float64 {
	unproved := ladderUnproved * budget * l.mean()
	return budget * max(ladderCareful, min((l.thought+unproved)/(l.missed+unproved), ladderBold))
}

// count counts the load of a minute, for which so many would have been there at each step.
func (l *ladder) count(load float64, had [steps]uint16) {
	l.minutes += 1 - l.minutes*perFortnight
	l.carried += load - l.carried*perFortnight
	l.thought -= l.thought * perWeek
	l.missed -= l.missed * perWeek
	for i, n := range had {
		l.lacked[i] += max(0, load-float64(n)) - l.lacked[i]*perFortnight
	}
}

// mean is the mean of the load, 1 while nothing is known of it.
func (l *ladder) mean() float64 {
	if l.carried <= 0 {
		return 1
	}
	return l.carried / l.minutes
}

// highest is the highest share at which the budget would have been kept, between two steps by the part that was lacking.
func (l *ladder) highest(budget float64) float64 {
	budget = l.aim(budget)
	mean := l.mean()
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
	f, _ := m.mixed(grow, 0)
	for i := range n {
		n[i] = uint16(min(f.most(share(i), in), math.MaxUint16))
	}
	return n
}

// had is what would have been there at each step if it had been launched up to the i-th minute.
func (m *memory) had(i int) (n [steps]uint16) {
	for j := max(0, i-forecastKept); j <= i; j++ {
		for step, want := range m.minute(j).wished {
			n[step] = max(n[step], want)
		}
	}
	return n
}
