package simulate

import (
	"context"
	"errors"
	"slices"
	"strconv"
	"time"

	"github.com/scalr-go/scalr/farm"
	"github.com/scalr-go/scalr/farm/scale"
	"github.com/scalr-go/scalr/provider"
)

// nowhere is a provider that is never asked.
type nowhere struct{}

var errNowhere = errors.New("a rehearsal makes no calls")

func (*nowhere) Launch(context.Context, provider.Launch) (provider.Instance, error) {
	return provider.Instance{}, errNowhere
}
func (*nowhere) Instances(context.Context, map[string]string) ([]provider.Instance, error) {
	return nil, errNowhere
}
func (*nowhere) Terminate(context.Context, string) error { return errNowhere }

const (
	role   = "role"
	metric = "load"
)

// rehearsal makes a farm with one role.
func (r *run) rehearsal() error {
	sensor := farm.SensorFunc(func(context.Context, string, []farm.Server) ([]scale.Sample, error) { return nil, errNowhere })
	f, err := farm.NewRehearsal(farm.Spec{Name: "simulation", Roles: []farm.Role{{Name: role, Image: "image", Min: r.Min, Max: r.Max,
		LaunchTimeout: r.LaunchTimeout, Drain: -1, Scale: &farm.Scale{Custom: "policy", Metric: metric}}}}, farm.Config{
		Pools:    []farm.Pool{{Name: "pool", Provider: &nowhere{}}},
		Policies: map[string]scale.Policy{"policy": r.Policy}, Sensors: map[string]farm.Sensor{metric: sensor},
		ListLag: time.Millisecond, MetricAge: max(3*time.Minute, 2*r.Interval)})
	if err != nil {
		return err
	}
	r.farm = f
	for i := range r.instances {
		r.instances[i].seen = r.instance(farm.Step{Role: role, Index: i + 1, Generation: 1, Pool: "pool"}, r.trace.Start)
	}
	return nil
}

// instance makes the instance of a launch.
func (r *run) instance(s farm.Step, at time.Time) provider.Instance {
	r.ids++
	return provider.Instance{ID: "i-" + strconv.Itoa(r.ids), State: provider.Pending, Tags: r.farm.Tags(s), Launched: at}
}

// rehearse makes the farm's decision and does what it says.
func (r *run) rehearse(at time.Time, samples []scale.Sample) scale.Decision {
	facts := farm.Facts{Time: at, Samples: map[string][]scale.Sample{role: samples}}
	for i, in := range r.instances {
		if i < r.ready {
			in.seen.State = provider.Running
		}
		facts.Instances = append(facts.Instances, in.seen)
	}
	plan, _ := r.farm.Pass(facts)
	for _, s := range plan.Steps {
		switch s.Action {
		case farm.LaunchInstance:
			if !r.launch() {
				r.farm.Did(s, provider.Instance{}, &provider.Error{Op: "Launch", Kind: provider.ErrCapacity}, at)
				continue
			}
			last := &r.instances[len(r.instances)-1]
			last.seen = r.instance(s, at)
			r.farm.Did(s, last.seen, nil, at)
		case farm.TerminateInstance:
			if i := slices.IndexFunc(r.instances, func(in instance) bool { return in.seen.ID == s.Subject }); i >= 0 {
				r.end(i)
				r.farm.Did(s, provider.Instance{}, nil, at)
			}
		}
	}
	want := plan.Desired[role]
	r.role.Desired = want.Count
	return scale.Decision{Desired: want.Count, Reason: want.Reason}
}
