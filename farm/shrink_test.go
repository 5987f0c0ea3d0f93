package farm

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/scalr-go/scalr/farm/scale"
	"github.com/scalr-go/scalr/provider/memcloud"
)

// Four machines are launched ten, twenty and thirty minutes apart, and two of them go.
func TestWhichMachinesGo(t *testing.T) {
	for order, want := range map[Order][]string{
		HighestFirst: {"www-1", "www-2"},
		NewestFirst:  {"www-1", "www-2"},
		OldestFirst:  {"www-3", "www-4"},
		IdlestFirst:  {"www-1", "www-3"},
		PaidUpFirst:  {"www-1", "www-4"},
	} {
		t.Run(string(order), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				cloud := testCloud(memcloud.Options{BootTime: 20 * time.Second})
				spec, config := web(1, 4), testConfig(cloud, testZone())
				spec.Roles[0].Shrink = order
				spec.Roles[0].Scale = &Scale{Custom: "mine", Metric: "busy"}
				count := 1
				config.Policies = map[string]scale.Policy{"mine": scale.Func(func(scale.Input) scale.Decision {
					return scale.Decision{Desired: count, Raw: count, Reason: "it is told so"}
				})}
				config.Sensors = map[string]Sensor{"busy": SensorFunc(func(_ context.Context, _ string, servers []Server) (all []scale.Sample, _ error) {
					for _, s := range servers {
						if s.Index != 3 { // of which nothing is known
							all = append(all, scale.Sample{Instance: s.ID, Value: map[int]float64{1: 90, 2: 10, 4: 50}[s.Index], At: time.Now()})
						}
					}
					return append(all, scale.Sample{Value: 1, At: time.Now()}), nil
				})}
				f, err := New(spec, config)
				require.NoError(t, err)
				run := func(d time.Duration) {
					for end := time.Now().Add(d); time.Now().Before(end); time.Sleep(10 * time.Second) {
						_, _ = f.Reconcile(t.Context())
					}
				}
				for n, wait := range []time.Duration{10 * time.Minute, 20 * time.Minute, 35 * time.Minute, time.Minute} {
					count = n + 1
					run(wait)
				}
				count = 2
				run(10 * time.Minute)
				var names []string
				for _, s := range f.Servers("www") {
					names = append(names, s.Name)
				}
				require.Equal(t, want, names)
			})
		})
	}
	spec, config := web(1, 4), testConfig(testCloud(memcloud.Options{}), testZone())
	spec.Roles[0].Shrink = "random"
	_, err := New(spec, config)
	require.ErrorContains(t, err, `.shrink: is "random", want one of`)
	spec.Roles[0].Shrink = IdlestFirst
	_, err = New(spec, config)
	require.ErrorContains(t, err, "no metric that says which machine is idle")
}
