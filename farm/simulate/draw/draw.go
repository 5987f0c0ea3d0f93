// Package draw draws what a simulation has found: the load, the instances that were there for it, and those that the
// clairvoyant optimum has. It is a package of its own because it needs a library for plotting, and a simulation does not.
package draw

import (
	"errors"
	"image/color"
	"io"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/vg"

	"github.com/scalr-go/scalr/farm/simulate"
)

// SVG writes the picture of a result that has a series as SVG.
func SVG(w io.Writer, title string, r simulate.Result) error { return write(w, title, r, "svg") }

// PNG writes it as PNG.
func PNG(w io.Writer, title string, r simulate.Result) error { return write(w, title, r, "png") }

// most is how many points of a line are drawn: more than that the picture does not show.
const most = 4000

func write(w io.Writer, title string, r simulate.Result, format string) error {
	if len(r.Series) == 0 {
		return errors.New("draw: the result has no series; set Scenario.Series")
	}
	p := plot.New()
	p.Title.Text = title
	p.X.Label.Text, p.Y.Label.Text = "hours", "instances"
	p.Y.Min = 0
	p.Legend.Top, p.Legend.Left = true, true
	p.Add(plotter.NewGrid())
	for _, l := range []struct {
		name  string
		color color.Color
		width float64
		of    func(simulate.Point) float64
	}{
		{"paid", color.RGBA{R: 0xd9, G: 0x8c, B: 0x2b, A: 0xff}, 1, func(q simulate.Point) float64 { return float64(q.Count) }},
		{"serving", color.RGBA{R: 0x1f, G: 0x6f, B: 0xb4, A: 0xff}, 1.5, func(q simulate.Point) float64 { return float64(q.Ready) }},
		{"optimum", color.RGBA{R: 0x2c, G: 0x9a, B: 0x3f, A: 0xff}, 1, func(q simulate.Point) float64 { return float64(q.Optimum) }},
		{"needed by the load", color.RGBA{R: 0x55, G: 0x55, B: 0x55, A: 0xff}, 0.7, func(q simulate.Point) float64 { return float64(q.Need) }},
	} {
		line, err := plotter.NewLine(points(r.Series, l.of))
		if err != nil {
			return err
		}
		line.StepStyle = plotter.PostStep
		line.Color, line.Width = l.color, vg.Points(l.width)
		p.Add(line)
		p.Legend.Add(l.name, line)
	}
	out, err := p.WriterTo(28*vg.Centimeter, 12*vg.Centimeter, format)
	if err != nil {
		return err
	}
	_, err = out.WriteTo(w)
	return err
}

// points gives the line, with the highest of each stretch where there are too many: peaks are what matters.
func points(series []simulate.Point, of func(simulate.Point) float64) plotter.XYs {
	each := (len(series) + most - 1) / most
	var xys plotter.XYs
	for i := 0; i < len(series); i += each {
		y := 0.0
		for _, q := range series[i:min(i+each, len(series))] {
			y = max(y, of(q))
		}
		xys = append(xys, plotter.XY{X: series[i].At.Hours(), Y: y})
	}
	return xys
}
