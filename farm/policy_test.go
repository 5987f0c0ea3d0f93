package farm

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/scalr-go/scalr/farm/scale"
	"github.com/scalr-go/scalr/provider/memcloud"
)

// A role that follows two metrics over a schedule, within a rate.
func TestSeveralPolicies(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cloud := testCloud(memcloud.Options{BootTime: 20 * time.Second})
		spec, config := web(1, 20), testConfig(cloud, testZone())
		load := map[string]float64{"rps": 100, "queue": 0}
		var broken string
		config.Sensors = map[string]Sensor{}
		for name := range load {
			config.Sensors[name] = SensorFunc(func(context.Context, string, []Server) ([]scale.Sample, error) {
				if name == broken {
					return nil, errors.New("no answer")
				}
				return []scale.Sample{{Value: load[name], At: time.Now()}}, nil
			})
		}
		began := time.Now().UTC() // a bubble begins at midnight
		spec.Roles[0].Scale = &Scale{MaxOf: []Scale{
			{Target: &scale.Target{Metric: "rps", Value: 100, Total: true, Window: time.Minute}},
			{Target: &scale.Target{Metric: "queue", Value: 50, Total: true, Window: time.Minute}},
			{Custom: "mine", Metric: "queue"},
			{Schedule: &scale.Schedule{Windows: []scale.Window{{From: "01:00", To: "02:00", Least: 5}}}},
		}, Limit: &scale.Limit{Up: scale.Rate{By: 4, Per: time.Minute}}}
		asked := 0
		config.Policies = map[string]scale.Policy{"mine": scale.Func(func(in scale.Input) scale.Decision {
			asked++
			require.Len(t, in.Samples, 1)
			require.Equal(t, "queue", in.Samples[0].Metric)
			return scale.Decision{Desired: 1, Raw: 1, Reason: "little"}
		})}
		f, err := New(spec, config)
		require.NoError(t, err)
		count := func() int { return len(f.Servers("www")) }
		until := func(d time.Duration) {
			for time.Since(began) < d {
				_, _ = f.Reconcile(t.Context())
				time.Sleep(5 * time.Second)
			}
		}
		until(3 * time.Minute)
		require.Equal(t, 1, count())
		require.Positive(t, asked)
		load["queue"] = 600
		until(3*time.Minute + 30*time.Second)
		require.Equal(t, 5, count(), "no more than 4 within a minute")
		until(8 * time.Minute)
		require.Equal(t, 12, count())
		broken, load["queue"] = "queue", 0
		until(20 * time.Minute)
		require.Equal(t, 12, count(), "what is missing shrinks nothing")
		broken = ""
		until(40 * time.Minute)
		require.Equal(t, 1, count())
		until(65 * time.Minute)
		require.Equal(t, 5, count(), "the schedule")
		until(130 * time.Minute)
		require.Equal(t, 1, count())
		plan, err := f.Reconcile(t.Context())
		require.NoError(t, err)
		require.Contains(t, plan.Desired["www"].Reason, "the others")
	})
}

// What was wrong with Scalr's own rule: its cool-downs were read and never written, and one instance that was stuck while it
// booted blocked its role.
func TestThresholdInAFarm(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cloud := testCloud(memcloud.Options{BootTime: 20 * time.Second})
		spec, config := web(2, 20), testConfig(cloud, testZone())
		spec.Roles[0].Scale = &Scale{Threshold: &scale.Threshold{Metric: "load", Low: 2, High: 5, CoolDown: 3 * time.Minute}}
		load := 3.0
		config.Sensors = map[string]Sensor{"load": SensorFunc(func(_ context.Context, _ string, servers []Server) (all []scale.Sample, _ error) {
			for _, s := range servers {
				all = append(all, scale.Sample{Instance: s.ID, Value: load, At: time.Now()})
			}
			return all, nil
		})}
		stuck := "" // never gets ready
		spec.Roles[0].Health = &Health{Custom: "mine"}
		config.Checks = map[string]func(context.Context, Server) error{"mine": func(_ context.Context, s Server) error {
			if s.Name == stuck {
				return errors.New("it boots")
			}
			return nil
		}}
		f, err := New(spec, config)
		require.NoError(t, err)
		run := func(d time.Duration) int {
			for end := time.Now().Add(d); time.Now().Before(end); time.Sleep(10 * time.Second) {
				_, _ = f.Reconcile(t.Context())
			}
			return len(f.Servers("www"))
		}
		require.Equal(t, 2, run(2*time.Minute))
		load = 9
		require.Equal(t, 3, run(2*time.Minute))
		require.Equal(t, 4, run(2*time.Minute), "after the cool-down")
		stuck = "www-5"
		require.Equal(t, 5, run(3*time.Minute))
		require.Equal(t, 5, run(3*time.Minute), "it waits for the one that boots")
		require.Greater(t, run(6*time.Minute), 5, "but not for ever")
		require.Greater(t, run(30*time.Minute), 7)
	})
}

func TestPoliciesAreChecked(t *testing.T) {
	spec, config := web(1, 20), testConfig(testCloud(memcloud.Options{}), testZone())
	spec.Roles[0].Scale = &Scale{MaxOf: []Scale{{Target: &scale.Target{Metric: "rps", Value: -1}}, {}, {Custom: "none"}, {MaxOf: []Scale{}},
		{Step: &scale.Step{Metric: "rps"}, Metric: "x"}}, Limit: &scale.Limit{DownFor: -1}}
	_, err := New(spec, config)
	for _, want := range []string{
		".scale.max_of[0]: value is -1", `.scale.max_of[0]: config.Sensors["rps"] is missing`, ".scale.max_of[1]: has 0 policies",
		`.scale.max_of[2]: config.Policies["none"] is missing`, ".scale.max_of[3].max_of: is empty", ".scale.max_of[4]: up and down are empty",
		`.scale.max_of[4].metric: is "x", but only a custom policy`, ".scale.limit: down_for is -1ns",
	} {
		require.ErrorContains(t, err, want)
	}
}
