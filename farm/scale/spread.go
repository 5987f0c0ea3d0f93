package scale

import "math"

// spread is how the load was distributed around a forecast: the weight of each distance of its logarithm, in steps that are fine
// near the forecast and widen with the distance.
type spread struct {
	weight [128]float32
	total  float32 // in minutes
}

const (
	spreadFine = 0.05 // the distance at which the steps begin to widen
	spreadWide = 12   // steps to it, about
)

// factors are what the forecast is multiplied with to come to each distance.
var factors = func() (f [len(spread{}.weight)]float64) {
	for i := range f {
		f[i] = math.Exp(spreadFine * math.Sinh(float64(i-len(f)/2)/spreadWide))
	}
	return f
}()

// add counts a load that was so far from the forecast; nothing where one of them is not known.
func (s *spread) add(distance, weight float64) {
	if math.IsNaN(distance) {
		return
	}
	i := len(s.weight)/2 + int(math.Round(spreadWide*math.Asinh(distance/spreadFine)))
	s.weight[max(0, min(i, len(s.weight)-1))] += float32(weight)
	s.total += float32(weight)
}

func (s *spread) forget(share float32) {
	for i := range s.weight {
		s.weight[i] *= 1 - share
	}
	s.total *= 1 - share
}

const (
	spreadUnseen = 30.0 // minutes: a spread is as sure of what it has seen as if it had not seen this much of it,
	spreadTail   = 0.2  // in which the logarithm of the load is beyond the forecast by an exponential of this mean
)

// used is the share of the time in which the load is expected to use the instance that takes it from a to a+1, where the load
// is foretold to be level (with the floor of its logarithm).
func (s *spread) used(level, a float64) float64 {
	return (s.minutes(level, a) + spreadUnseen*beyond(level, spreadTail, a)) / (float64(s.total) + spreadUnseen)
}

// seen is the share of the time in which it has been so.
func (s *spread) seen(level, a float64) float64 {
	return s.minutes(level, a) / max(float64(s.total), 1)
}

func (s *spread) minutes(level, a float64) (sum float64) {
	for i := len(s.weight) - 1; i >= 0; i-- {
		load := factors[i]*level - forecastFloor - a
		if load <= 0 {
			break
		}
		sum += float64(s.weight[i]) * min(1, load)
	}
	return sum
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
