package simulate

import (
	"math"
	"time"
)

// needs gives how many instances each step of the trace needs, and at least so many.
func needs(t Trace, perInstance float64, least int) []int {
	list := make([]int, len(t.Requests))
	for i := range list {
		list[i] = max(need(t.Rate(i), perInstance), least)
	}
	return list
}

// need is how many instances a rate needs. A rate that is a multiple of what an instance can take needs no more than that.
func need(rate, perInstance float64) int { return int(math.Ceil(rate/perInstance - 1e-9)) }

// optimum is what somebody who knows the future pays, in seconds of instances, to have every request of the steps served at
// the least cost: the k-th instance is busy while the load needs k, and between two such times it is either kept or ended and
// booted again, whichever is less. It is exact while billing is by the second and boots take the same time.
func optimum(needs []int, step, boot time.Duration) (seconds float64) {
	var ended []int // by layer: the step at which it was last busy's end
	at, busy := 0, 0
	var idle time.Duration
	for i, n := range needs {
		busy += n
		for ; at > n; at-- {
			ended[at-1] = i
		}
		for ; at < n; at++ {
			if at == len(ended) {
				ended = append(ended, i)
				continue // its first time: whoever knows the future has booted it before
			}
			idle += min(time.Duration(i-ended[at])*step, boot)
		}
	}
	return float64(busy)*step.Seconds() + idle.Seconds()
}

// optimal gives how many instances the optimum has in each step, those that boot included.
func optimal(needs []int, step, boot time.Duration) []int {
	n := len(needs)
	count := make([]int, n)
	most := 0
	for i, k := range needs {
		count[i], most = k, max(most, k)
	}
	lead := int(math.Ceil(float64(boot) / float64(step)))
	ended := make([]int, most)
	for k := range ended {
		ended[k] = -1
	}
	at := 0
	for i, k := range needs {
		for ; at > k; at-- {
			ended[at-1] = i
		}
		for ; at < k; at++ {
			if from := ended[at]; from >= 0 {
				for j := max(from, i-lead); j < i; j++ {
					count[j]++
				}
			}
		}
	}
	return count
}
