package draw_test

import (
	"bytes"
	"fmt"
	"image/png"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/scalr-go/scalr/farm/scale"
	"github.com/scalr-go/scalr/farm/simulate"
	"github.com/scalr-go/scalr/farm/simulate/draw"
)

func result(t testing.TB) simulate.Result {
	trace := simulate.Trace{Step: time.Minute}
	for i := range 9000 {
		trace.Requests = append(trace.Requests, float64(600+i%700))
	}
	r, err := simulate.Run(trace, simulate.Scenario{Policy: scale.Target{Metric: "load", Value: 70}, PerInstance: 2, Min: 1, Series: true})
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func TestPicture(t *testing.T) {
	var svg, img bytes.Buffer
	require.NoError(t, draw.SVG(&svg, "a target of 70 %", result(t)))
	require.Contains(t, svg.String(), "<svg")
	require.Contains(t, svg.String(), "a target of 70 %")
	require.NoError(t, draw.PNG(&img, "a target of 70 %", result(t)))
	picture, err := png.Decode(&img)
	require.NoError(t, err)
	require.Greater(t, picture.Bounds().Dx(), 2*picture.Bounds().Dy())

	require.ErrorContains(t, draw.SVG(&svg, "", simulate.Result{}), "no series")
}

func Example() {
	trace := simulate.Trace{Step: time.Minute, Requests: []float64{600, 600, 1200, 1200, 600, 600}}
	r, err := simulate.Run(trace, simulate.Scenario{Policy: scale.Target{Metric: "load", Value: 80}, PerInstance: 5, Min: 1, Series: true})
	if err != nil {
		fmt.Println(err)
		return
	}
	var picture bytes.Buffer
	fmt.Println(draw.SVG(&picture, "what if", r), picture.Len() > 1000)
	// Output: <nil> true
}
