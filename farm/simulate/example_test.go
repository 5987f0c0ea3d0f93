package simulate_test

import (
	"fmt"
	"time"

	"github.com/scalr-go/scalr/farm/scale"
	"github.com/scalr-go/scalr/farm/simulate"
)

// Load that doubles for ten minutes, on a cloud that takes three to boot.
func ExampleRun() {
	trace := simulate.Trace{Step: time.Minute}
	for i := range 60 {
		load := 1200.0
		if i >= 20 && i < 30 {
			load = 2400
		}
		trace.Requests = append(trace.Requests, load)
	}
	r, err := simulate.Run(trace, simulate.Scenario{
		Policy:      scale.Target{Metric: "cpu", Value: 80},
		PerInstance: 5, // requests a second
		Min:         1,
		Cloud:       simulate.Cloud{Boot: 3 * time.Minute},
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Printf("paid %.2f, the optimum %.2f instance-hours; %.1f %% of the requests met too little for %v\n", r.Paid, r.Optimum, 100*r.Excess, r.Violating)
	// Output: paid 6.25, the optimum 4.67 instance-hours; 4.3 % of the requests met too little for 4m0s
}
