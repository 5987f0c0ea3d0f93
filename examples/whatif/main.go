// Command whatif says what scaling policies would have cost on your own load: a CSV of times and requests in, a table and a
// picture out.
//
//	go run ./examples/whatif -trace load.csv -per-instance 50 -boot 3m -picture whatif.svg
//
// Without a trace it takes half a day of the 1998 World Cup's web site.
package main

import (
	"flag"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/scalr-go/scalr/examples/worldcup"
	"github.com/scalr-go/scalr/farm/scale"
	"github.com/scalr-go/scalr/farm/simulate"
	"github.com/scalr-go/scalr/farm/simulate/draw"
)

func main() {
	path := flag.String("trace", "", "a CSV file: seconds or date, requests since the last line")
	per := flag.Float64("per-instance", 0, "requests a second that an instance can take; 0 means a 50th of the peak")
	boot := flag.Duration("boot", 3*time.Minute, "how long an instance takes to come up")
	budget := flag.Float64("budget", 0.001, "the share of the requests that may meet too little capacity")
	billing := flag.Duration("billing", time.Second, "what is paid for at a time: 1s, 1h")
	picture := flag.String("picture", "", "where to write the picture, .svg or .png")
	flag.Parse()
	if err := run(os.Stdout, *path, *per, *budget, simulate.Cloud{Boot: *boot, Billing: *billing}, *picture); err != nil {
		fmt.Fprintln(os.Stderr, "whatif:", err)
		os.Exit(1)
	}
}

func load(path string) (simulate.Trace, error) {
	if path == "" {
		return simulate.Trace{Step: time.Minute, Requests: worldcup.Day()}, nil
	}
	f, err := os.Open(path)
	if err != nil {
		return simulate.Trace{}, err
	}
	defer f.Close()
	return simulate.ReadCSV(f)
}

func run(w io.Writer, path string, per, budget float64, cloud simulate.Cloud, picture string) error {
	trace, err := load(path)
	if err != nil {
		return err
	}
	if per == 0 {
		per = trace.Peak() / 50
	}
	s := simulate.Scenario{PerInstance: per, Min: 1, Cloud: cloud}
	fmt.Fprintf(w, "%v of load, at most %.0f requests a second; an instance takes %.1f and boots in %v\n\n", trace.Length(), trace.Peak(), per, cloud.Boot)
	fmt.Fprintf(w, "%-12s %8s %15s %9s %11s %10s %10s\n", "policy", "knob", "instance-hours", "÷ optimum", "too little", "launches", "reversals")
	for _, f := range []simulate.Family{
		{Name: "target", Low: 10, High: 100, Policy: func(k float64) scale.Policy { return scale.Target{Metric: "cpu", Value: k} }},
		{Name: "threshold", Low: 10, High: 100, Policy: func(k float64) scale.Policy {
			return scale.Threshold{Metric: "cpu", Low: 0.4 * k, High: k}
		}},
		{Name: "forecast", Low: budget, High: budget, Policy: func(k float64) scale.Policy {
			return scale.Forecast{Metric: "cpu", Value: 100, Budget: k}
		}},
	} {
		knob, r, err := simulate.Tune(trace, s, f, budget)
		note := ""
		if err != nil {
			if r.Length == 0 {
				return err
			}
			note = "  no setting keeps the budget"
		}
		fmt.Fprintf(w, "%-12s %8.4g %15.1f %9.2f %10.3f%% %10d %10d%s\n", f.Name, knob, r.Paid, r.CostRatio, 100*r.Excess, r.Launches, r.Reversals, note)
		if f.Name == "forecast" && picture != "" {
			s.Policy, s.Series = f.Policy(knob), true
			if r, err = simulate.Run(trace, s); err != nil {
				return err
			}
			return save(picture, r)
		}
	}
	return nil
}

func save(path string, r simulate.Result) (err error) {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	defer func() {
		if e := f.Close(); err == nil {
			err = e
		}
	}()
	title := fmt.Sprintf("forecast: %.2f times the optimum, %.2f %% of the requests met too little", r.CostRatio, 100*r.Excess)
	if strings.HasSuffix(path, ".png") {
		return draw.PNG(f, title, r)
	}
	return draw.SVG(f, title, r)
}
