package farm

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/scalr-go/scalr"
	"github.com/scalr-go/scalr/farm/scale"
	"github.com/scalr-go/scalr/provider"
	"github.com/scalr-go/scalr/provider/memcloud"
)

// TestScalingUnderFaults lets a farm follow a load that jumps, while its metric is missing at times, calls fail, machines are lost and
// the host program is started anew. It never shrinks within the policy's window after it grew, nor without the metric, and never
// wants fewer than its least; and when the faults are over it has what the load needs, though one zone has no machines at all.
func TestScalingUnderFaults(t *testing.T) {
	const window = 3 * time.Minute
	rapid.Check(t, func(rt *rapid.T) {
		rapid.SyncTest(rt, func(rt *rapid.T) {
			cloud := testCloud(memcloud.Options{BootTime: time.Duration(rapid.IntRange(0, 60).Draw(rt, "boot")) * time.Second,
				BootSpread: 10 * time.Second, TerminateTime: 5 * time.Second, Seed: rapid.Uint64().Draw(rt, "seed")})
			cloud.SetCapacity("a", "", 0)
			least := rapid.IntRange(1, 3).Draw(rt, "min")
			spec, config := web(least, 8), testConfig(cloud, testZone())
			spec.Roles[0].Scale = &Scale{Target: &scale.Target{Metric: "rps", Value: 100, Total: true, Window: window}}
			load, missing := 0.0, false
			config.Sensors = map[string]Sensor{"rps": SensorFunc(func(context.Context, string, []Server) ([]scale.Sample, error) {
				if missing {
					return nil, errors.New("no answer")
				}
				return []scale.Sample{{Value: load, At: time.Now()}}, nil
			})}
			var grew time.Time
			var wrong error
			config.Events = func(e scalr.Event) {
				switch {
				case e.Kind == ScaleUp:
					grew = e.Time
				case e.Kind == ScaleDown && missing:
					wrong = fmt.Errorf("shrinks without its metric: %s", e.Message)
				case e.Kind == ScaleDown && !grew.IsZero() && e.Time.Sub(grew) <= window:
					wrong = fmt.Errorf("shrinks %v after it grew: %s", e.Time.Sub(grew), e.Message)
				}
			}
			faults := []error{provider.ErrAmbiguous, provider.ErrThrottled, provider.ErrCapacity, provider.ErrQuota, errors.New("502 bad gateway")}
			var f *Farm
			for range rapid.IntRange(2, 6).Draw(rt, "jumps") {
				load = float64(rapid.IntRange(0, 1000).Draw(rt, "load"))
				missing = rapid.IntRange(0, 3).Draw(rt, "missing") == 0
				share, dice := rapid.IntRange(0, 30).Draw(rt, "faults in a hundred"), rapid.Uint64().Draw(rt, "dice")
				cloud.SetFault(func(_ context.Context, c memcloud.Call) error {
					n := hash(dice, c.Method, c.ID, fmt.Sprint(c.After), fmt.Sprint(time.Now().Unix()))
					if int(n%100) < share {
						return faults[int(n/100)%len(faults)]
					}
					return nil
				})
				if f == nil || rapid.IntRange(0, 4).Draw(rt, "started anew") == 0 {
					var err error
					if f, err = New(spec, config); err != nil {
						rt.Fatal(err)
					}
				}
				if list := world(cloud); len(list) > 0 && rapid.IntRange(0, 3).Draw(rt, "lost") == 0 {
					_ = cloud.Kill(list[rapid.IntRange(0, len(list)-1).Draw(rt, "victim")], "reclaimed")
				}
				for range rapid.IntRange(1, 30).Draw(rt, "passes") {
					p, _ := f.Reconcile(rt.Context())
					if want, ok := p.Desired["www"]; wrong == nil && ok && (want.Count < least || want.Count > 8) {
						wrong = fmt.Errorf("wants %d, not %d to 8: %s", want.Count, least, want.Reason)
					}
					if wrong != nil {
						rt.Fatal(wrong)
					}
					time.Sleep(10 * time.Second)
				}
			}
			cloud.SetFault(nil)
			missing, load = false, float64(rapid.IntRange(0, 1000).Draw(rt, "last load"))
			for range 60 {
				if _, _ = f.Reconcile(rt.Context()); wrong != nil {
					rt.Fatal(wrong)
				}
				time.Sleep(10 * time.Second)
			}
			ready := 0
			for _, s := range f.Servers("www") {
				if s.Ready {
					ready++
				}
			}
			// A tenth more than the target is no reason to grow.
			need, enough := max(least, min(8, int(load+99)/100)), max(least, min(8, int(load+109)/110))
			if ready < enough || ready > need {
				rt.Fatalf("%d serve, want %d to %d", ready, enough, need)
			}
		})
	})
}
