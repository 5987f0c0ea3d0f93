package scale_test

import (
	"fmt"
	"time"

	"github.com/scalr-go/scalr/farm/scale"
)

// Four instances at 90 % CPU, and 60 are aimed at: six would be right.
func ExampleTarget() {
	now := time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC)
	in := scale.Input{Now: now, Min: 2, Max: 10, Count: 4, Ready: 4}
	for _, id := range []string{"a", "b", "c", "d"} {
		in.Samples = append(in.Samples, scale.Sample{Instance: id, Value: 90, At: now})
	}
	fmt.Println(scale.Target{Metric: "cpu", Value: 60}.Desired(in).Reason)
	// Output: cpu is 90 an instance over 4, target 60: grow from 4 to 6
}
