// Command autoscaler is a custom autoscaler: a farm on a cloud in memory, a sensor that reads a queue, and a policy that is one
// function: as many workers as empty the queue within a minute, in words.
//
//	go run ./examples/autoscaler
package main

import (
	"context"
	"fmt"
	"os"
	"time"

	"github.com/scalr-go/scalr/farm"
	"github.com/scalr-go/scalr/farm/scale"
	"github.com/scalr-go/scalr/farm/sensor"
	"github.com/scalr-go/scalr/provider/memcloud"
)

// perWorker is how many jobs a worker does in a minute.
const perWorker = 100

// policy wants the queue to be empty within a minute, and halves the role at most.
func policy(in scale.Input) scale.Decision {
	length, ok := in.Mean()
	if !ok {
		return in.Hold("the queue cannot be read: hold at %d", in.Count)
	}
	want := max((int(length)+perWorker-1)/perWorker, in.Count/2, in.Min)
	return scale.Decision{Desired: want, Raw: want, Reason: fmt.Sprintf("%.0f jobs wait, and a worker does %d a minute: want %d", length, perWorker, want)}
}

func main() {
	if err := run(context.Background()); err != nil {
		fmt.Fprintln(os.Stderr, "autoscaler:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context) error {
	length := 0.0
	workers, err := farm.New(farm.Spec{Name: "jobs", Roles: []farm.Role{
		{Name: "worker", Image: "worker-1.0", Min: 1, Max: 8, Drain: -1, Scale: &farm.Scale{Custom: "queue", Metric: "jobs"}},
	}}, farm.Config{
		Pools:    []farm.Pool{{Name: "zone-a", Provider: memcloud.New(memcloud.Options{}), Placement: "a"}},
		Policies: map[string]scale.Policy{"queue": scale.Func(policy)},
		Sensors:  map[string]farm.Sensor{"jobs": sensor.Whole(func(context.Context, string) (float64, error) { return length, nil })},
		ListLag:  time.Millisecond, // this cloud shows at once what has been created
	})
	if err != nil {
		return err
	}
	for _, length = range []float64{50, 350, 720, 720, 120, 0, 0} {
		plan, err := workers.Reconcile(ctx)
		if err != nil {
			return err
		}
		fmt.Printf("%s\n", plan.Desired["worker"].Reason)
		for _, s := range plan.Steps {
			fmt.Printf("    %s %s-%d\n", s.Action, s.Role, s.Index)
		}
	}
	return workers.Terminate(ctx, farm.TerminateOptions{})
}
