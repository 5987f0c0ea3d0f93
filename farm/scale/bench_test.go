package scale

import (
	"math"
	"testing"
	"time"
)

// BenchmarkForecast is one decision of a role that has been watched for two weeks.
func BenchmarkForecast(b *testing.B) {
	f := Forecast{Metric: "m", Value: 100}
	load := func(i int) float64 { return 20 + 10*math.Sin(float64(i)/200) + 3*math.Sin(float64(i)) }
	_, memory := play(f, noon, 14*1440, 3*time.Minute, load, nil)
	in := Input{Min: 1, Max: 100, Count: 30, Ready: 30, Boot: 3 * time.Minute, Memory: memory, Now: noon.Add(14 * 24 * time.Hour)}
	in.Samples = []Sample{{Value: 70, At: in.Now}}
	b.ReportAllocs()
	for b.Loop() {
		f.Desired(in)
	}
}
