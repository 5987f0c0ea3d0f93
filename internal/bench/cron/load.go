package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/scalr-go/scalr/internal/testenv"
)

// load is what one fleet costs: all its runners, and all the servers.
type load struct {
	Jobs        int     `json:"jobs"`
	DuePerS     float64 `json:"due_per_s"`
	CPU         float64 `json:"runner_cpu_ms_per_s"`
	Requests    float64 `json:"zookeeper_requests_per_s"` // pings and leases included
	PerCall     float64 `json:"transactions_per_call"`
	LatenessP50 int64   `json:"lateness_ms_p50"`
	LatenessMS  int64   `json:"lateness_ms_p99"`
}

// loads is the last line of the comparison.
type loads struct {
	Summary bool `json:"summary"`
	Runners int  `json:"runners"`
	// A tenth of the jobs and all of them, with as much due; and all of them, with six times as much due.
	Few    load `json:"few"`
	Many   load `json:"many"`
	Busier load `json:"busier"`
	// What ten times the jobs cost in addition, with as much due.
	RegisteredCPU      float64 `json:"registered_x10_cpu"` // as a factor
	RegisteredRequests float64 `json:"registered_x10_requests"`
	// What is due costs, from the two fleets with all jobs; and what the fleet costs with nothing due.
	CPUPerRun      float64 `json:"cpu_ms_per_run"`
	RequestsPerRun float64 `json:"requests_per_run"`
	IdleCPU        float64 `json:"idle_cpu_ms_per_s"`
	IdleRequests   float64 `json:"idle_requests_per_s"`
}

// compare measures three fleets, one after the other, and says what their loads grow with.
func compare(ctx context.Context, o options, e *testenv.Ensemble) error {
	if o.Jobs < 10 || o.Every != time.Hour {
		return fmt.Errorf("-load with -jobs %d -every %s: want at least 10 jobs, and 1h: a tenth of them has 6m, and six times as much is due with 10m", o.Jobs, o.Every)
	}
	fleet := func(n, jobs int, every time.Duration) (load, error) {
		o := o
		o.Root, o.Jobs, o.Every, o.Faults, o.Locks = fmt.Sprint("/bench-", n), jobs, every, "none", 0
		s, err := measure(ctx, o, e)
		if err != nil {
			return load{}, err
		}
		if err := json.NewEncoder(os.Stdout).Encode(s); err != nil {
			return load{}, err
		}
		return load{jobs, s.ClaimsPerS, s.RunnerCPU, s.Requests, s.PerCall, s.LatenessP50, s.LatenessMS}, s.bad()
	}
	l := loads{Summary: true, Runners: o.Runners}
	var errs [3]error
	l.Few, errs[0] = fleet(1, o.Jobs/10, 6*time.Minute)
	l.Many, errs[1] = fleet(2, o.Jobs, time.Hour)
	l.Busier, errs[2] = fleet(3, o.Jobs, 10*time.Minute)
	if err := errors.Join(errs[:]...); err != nil {
		return err
	}
	l.RegisteredCPU, l.RegisteredRequests = l.Many.CPU/l.Few.CPU, l.Many.Requests/l.Few.Requests
	more := l.Busier.DuePerS - l.Many.DuePerS
	l.CPUPerRun, l.RequestsPerRun = (l.Busier.CPU-l.Many.CPU)/more, (l.Busier.Requests-l.Many.Requests)/more
	l.IdleCPU, l.IdleRequests = l.Many.CPU-l.CPUPerRun*l.Many.DuePerS, l.Many.Requests-l.RequestsPerRun*l.Many.DuePerS
	return json.NewEncoder(os.Stdout).Encode(l)
}
