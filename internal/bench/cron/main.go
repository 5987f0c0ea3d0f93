// Command cron measures cronlock on a real ensemble of ZooKeeper servers: runners are processes that are killed, stopped and
// cut off, leaders are killed, and answers are lost, while every scheduled instant must be claimed exactly once.
//
//	go run ./internal/bench/cron -runners 20 -jobs 200 -for 60s -faults all -json
//
// The last line is a summary. Instants are those that were due; doubles are attempts that two runners made, or runs with
// more than one claim; misses are instants without a record in the end; past_deadline counts steps of work that
// were made while the run, or the lock, was somebody else's, or when the store had let its runner go; early are runs before their
// time; orphans are nodes that are left; a take-over is counted from the last step of the work that was given up. All calls of all runners
// that change a record are checked as one history with porcupine: unlinearizable are the runs whose records cannot have
// become so, and tokens_fallen the grants whose token did not rise.
//
// With -load there are no faults: three fleets show what runners and servers have to do for jobs that are registered, and for runs that
// are due.
//
//	go run ./internal/bench/cron -load -runners 50 -jobs 10000 -every 1h -timeout 10s -for 72s
//
// # Measured
//
// On two cores that had much else to do, with a ZooKeeper 3.8 ensemble of three and a tick of 250 ms:
//
// With -load as above, 50 runners and 2.77 runs due a second cost 64 ms of processor time and 173 requests a second with 1,000 jobs, and 69 ms
// and 169 requests with 10,000. Each further run that was due cost 9.3 ms, over all runners, and 7.8 requests; 1.000 transactions were
// sent for each claim and each end of a run. With nothing due the 50 runners cost 43 ms and 147 requests a second: leases, pings, and a look at
// the fleet and at what is open.
//
// With -for 3m -faults all, 20 runners and 200 jobs: 3,735 instants, none twice or missed, no work past its time, no token fallen, and
// 10,302 calls that are one history; 60 kills, 163 deaths at the moments that matter, 16 standstills, 21 cuts, 197 lost answers, 4 losses of the
// leader, 4 of a follower, 3 restarts of the servers in turn, and 3 losses of the quorum for 30 s.
// With -for 160s -every 1s -takes 0s -faults outage: 31,800 instants, a third of them while nobody lived; none twice or missed.
package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/scalr-go/scalr/internal/testenv"
)

// options are the flags.
type options struct {
	Runners, Jobs int
	For           time.Duration
	Every         time.Duration
	Takes         time.Duration
	Timeout       time.Duration
	Faults        string
	Locks         int
	JSON          bool
	Load          bool

	Root  string
	Began time.Time // for the zone of the fault dst
}

func main() {
	o := options{Root: "/bench"}
	flag.IntVar(&o.Runners, "runners", 20, "runner processes")
	flag.IntVar(&o.Jobs, "jobs", 200, "jobs")
	flag.DurationVar(&o.For, "for", time.Minute, "how long")
	flag.DurationVar(&o.Every, "every", 10*time.Second, "the period of each job: seconds that divide a minute, or minutes that divide an hour")
	flag.DurationVar(&o.Takes, "takes", 300*time.Millisecond, "how long a run takes")
	flag.DurationVar(&o.Timeout, "timeout", 4*time.Second, "of the sessions")
	flag.StringVar(&o.Faults, "faults", "all", "none, all (but outage), or a list of: "+strings.Join(allFaults, ", "))
	flag.IntVar(&o.Locks, "locks", 3, "locks for which all runners compete")
	flag.BoolVar(&o.JSON, "json", false, "print every event as a line of JSON, not only the summary")
	flag.BoolVar(&o.Load, "load", false, "compare what fleets cost with a tenth of the jobs, all of them, and more of them due; with -every 1h")
	runner := flag.String("runner", "", "be a runner, with this configuration")
	flag.Parse()
	if *runner != "" {
		be(*runner)
		return
	}
	if err := run(o); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// bench stands in for a test, so that testenv can run its servers: clean-ups run at the end.
type bench struct {
	testing.TB
	ctx      context.Context
	cleanups []func()
	failed   bool
}

var errGivenUp = errors.New("given up")

func (b *bench) Helper()                  {}
func (b *bench) Context() context.Context { return b.ctx }
func (b *bench) Cleanup(f func())         { b.cleanups = append(b.cleanups, f) }
func (b *bench) Failed() bool             { return b.failed }
func (b *bench) Logf(format string, args ...any) {
	fmt.Fprintf(os.Stderr, format+"\n", args...)
}
func (b *bench) Errorf(format string, args ...any) { b.failed = true; b.Logf(format, args...) }
func (b *bench) Fatal(args ...any)                 { b.Errorf("%s", fmt.Sprint(args...)); panic(errGivenUp) }
func (b *bench) Fatalf(format string, args ...any) { b.Errorf(format, args...); panic(errGivenUp) }
func (b *bench) Skip(args ...any)                  { b.Fatal(args...) }

func run(o options) (err error) {
	if err := o.check(); err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	b := &bench{ctx: ctx}
	defer func() {
		if v := recover(); v != nil && v != errGivenUp {
			panic(v)
		} else if v != nil {
			err = errGivenUp
		}
		for _, f := range slices.Backward(b.cleanups) {
			f()
		}
	}()
	if o.Load {
		return compare(ctx, o, testenv.ZooKeeper(b, 3))
	}
	s, err := measure(ctx, o, testenv.ZooKeeper(b, 3))
	if err != nil {
		return err
	}
	if err := json.NewEncoder(os.Stdout).Encode(s); err != nil {
		return err
	}
	return s.bad()
}

// bad is an error unless all is as it must be.
func (s summary) bad() error {
	if s.Doubles+s.Misses+s.PastDeadline+s.Tokens+s.Orphans+s.Early+s.Faults[crash]+s.Faults[leak]+len(s.Unlinearizable) > 0 {
		return errors.New("not every instant was run once, by who had the right to, with nothing left, nothing leaked and no runner crashed")
	}
	return nil
}

// measure runs a fleet on the ensemble, and weighs it.
func measure(ctx context.Context, o options, e *testenv.Ensemble) (summary, error) {
	f, err := newFleet(ctx, o, e)
	if err != nil {
		return summary{}, err
	}
	defer f.end()
	f.chaos(ctx)
	return f.judge(ctx)
}

// allFaults are what can be made to happen.
var allFaults = []string{
	"kill",     // runners, with SIGKILL
	"die",      // runners kill themselves before and after a claim, in the middle of a run, and before its end is recorded
	"stop",     // runners, with SIGSTOP, for longer than their lease
	"cut",      // runners from all servers
	"answers",  // are lost
	"skew",     // of clocks, by up to 5 s in both directions
	"step",     // of clocks, by as much, again and again
	"leader",   // is killed
	"follower", // is cut from the other servers, not from the runners
	"quorum",   // is lost for half a minute, or a quarter of the time
	"rolling",  // restart of the servers
	"dst",      // of the clocks that the schedules follow: set forward and back every 15 s, with each policy
	"outage",   // of all runners for a third of the time
}

// has reports whether the list of faults has one.
func (o options) has(fault string) bool {
	return o.Faults == "all" && fault != "outage" || slices.Contains(strings.Split(o.Faults, ","), fault)
}

func (o options) check() error {
	if o.Runners < 1 || o.Jobs < 1 {
		return fmt.Errorf("-runners %d, -jobs %d: want at least 1", o.Runners, o.Jobs)
	}
	for unit, whole := range map[time.Duration]time.Duration{time.Second: time.Minute, time.Minute: time.Hour} {
		if o.Every >= unit && o.Every%unit == 0 && o.Every <= whole && whole%o.Every == 0 {
			for f := range strings.SplitSeq(o.Faults, ",") {
				if f != "all" && f != "none" && !slices.Contains(allFaults, f) {
					return fmt.Errorf("-faults %q: want none, all or some of %s", f, strings.Join(allFaults, ", "))
				}
			}
			return nil
		}
	}
	return fmt.Errorf("-every %s: want seconds that divide a minute, or minutes that divide an hour", o.Every)
}

// summary is the last line.
type summary struct {
	Summary        bool           `json:"summary"`
	Instants       int            `json:"instants"`
	Doubles        int            `json:"doubles"`
	Misses         int            `json:"misses"`
	PastDeadline   int            `json:"past_deadline"`
	Orphans        int            `json:"orphans"`
	TakeoverMS     int64          `json:"takeover_ms_p50"`
	ClaimsPerS     float64        `json:"claims_per_s"`
	LatenessMS     int64          `json:"lateness_ms_p99"`
	LatenessP50    int64          `json:"lateness_ms_p50"`
	Early          int            `json:"early"`
	Spread         float64        `json:"spread"` // the busiest runner's runs against the average
	Lost           int            `json:"lost"`
	Holds          int            `json:"lock_holds"`
	Calls          int            `json:"history_calls"`         // checked with porcupine
	Unlinearizable []string       `json:"unlinearizable"`        // runs whose history could not be
	PerCall        float64        `json:"transactions_per_call"` // sent for each claim and each end of a run
	Tokens         int            `json:"tokens_fallen"`
	RunnerCPU      float64        `json:"runner_cpu_ms_per_s"` // of all runners; without faults that end them
	Requests       float64        `json:"zookeeper_requests_per_s"`
	Faults         map[string]int `json:"faults"`
}

func percentile[T cmp.Ordered](list []T, p int) (v T) {
	if len(list) > 0 {
		slices.Sort(list)
		v = list[min(len(list)-1, len(list)*p/100)]
	}
	return v
}
