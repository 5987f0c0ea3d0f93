// Command failover measures replication and its pool on three real MariaDB servers, with an application that writes as fast
// as it can.
//
//	go run ./internal/bench/failover -runs 20 -mode kill -policy durability -json
//
// In each run the primary meets a fault: it is killed, hangs (SIGSTOP), is cut off from everybody but some clients
// (partition), or is killed while its replicas have received everything and not applied it, and nobody writes (lag). In mode mixed
// each run draws one of these. In mode manager the Manager is cut off from the primary, and nothing may happen; in mode
// switchover the primary changes as planned; in mode reads, each run is a write and a read of one session. In mode chaos
// each run draws from more: replicas that die too, Managers that are killed in the middle of a recovery, a disk that is full.
//
// ms are from the fault to the first row that the new primary has acknowledged through the pool; in mode switchover they are
// the longest time without an acknowledgement. Acked are the rows that were acknowledged, also to an application that writes
// to each server directly and knows no better. Lost are those that the new primary lacks. Two_writable are the rows that a
// server acknowledged although another one had acknowledged a later row before. Rejoin_ms are from the moment that the old
// primary's server runs again until it is a replica that has everything; then all servers' checksums are compared. A bound is what is
// promised of the median ms (of the highest in mode switchover) and of the highest rejoin_ms; whether it is met does not fail the program,
// since machines differ. The summary comes also when a run has failed, which is in none of its numbers, and says so.
package main

import (
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

	"github.com/scalr-go/scalr/replication"
)

// options are the flags.
type options struct {
	runs    int
	time    time.Duration
	mode    string
	policy  replication.Policy
	writers int
	faults  []string // of mode chaos; empty for all that the network allows
	json    bool
}

var modes = []string{"kill", "hang", "partition", "lag", "mixed", "manager", "switchover", "reads", "chaos"}

func main() {
	var o options
	var policy, only string
	flag.IntVar(&o.runs, "runs", 10, "how many")
	flag.DurationVar(&o.time, "for", 0, "begin no further run after this time")
	flag.StringVar(&o.mode, "mode", "kill", fmt.Sprint(modes))
	flag.StringVar(&policy, "policy", "durability", "availability or durability")
	flag.StringVar(&only, "faults", "", fmt.Sprintf("what mode chaos draws from, by commas; all of %v when empty", faults))
	flag.IntVar(&o.writers, "writers", 4, "writers that use the pool")
	flag.BoolVar(&o.json, "json", false, "print every run and every event as a line of JSON, not only the summary")
	flag.Parse()
	o.policy = replication.Availability
	if policy == replication.Durability.String() {
		o.policy = replication.Durability
	}
	unknown := ""
	if only != "" {
		o.faults = strings.Split(only, ",")
		if i := slices.IndexFunc(o.faults, func(s string) bool { return !slices.Contains(faults, s) }); i >= 0 {
			unknown = o.faults[i]
		}
	}
	err := errors.Join(
		check(unknown == "", "-faults has %q, want some of %v", unknown, faults),
		check(slices.Contains(modes, o.mode), "-mode is %q, want one of %v", o.mode, modes),
		check(policy == o.policy.String(), "-policy is %q, want availability or durability", policy),
		check(o.runs > 0, "-runs is %d, want at least 1", o.runs),
		check(o.writers > 0, "-writers is %d, want at least 1", o.writers))
	if err == nil && needsNetwork(o.mode) && !apart() {
		os.Exit(enterNetwork())
	}
	if err == nil {
		err = run(o)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func check(ok bool, format string, args ...any) error {
	if ok {
		return nil
	}
	return fmt.Errorf(format, args...)
}

// needsNetwork reports whether the mode cuts connections, which is done in a network of its own.
func needsNetwork(mode string) bool {
	return mode == "chaos" || mode == "partition" || mode == "mixed" || mode == "manager"
}

// bench stands in for a test, so that testenv can run its servers: clean-ups run at the end.
type bench struct {
	testing.TB
	ctx      context.Context
	cleanups []func()
	failed   bool
}

var errGivenUp = errors.New("given up")

func (b *bench) Helper()                           {}
func (b *bench) Context() context.Context          { return b.ctx }
func (b *bench) Cleanup(f func())                  { b.cleanups = append(b.cleanups, f) }
func (b *bench) Failed() bool                      { return b.failed }
func (b *bench) Logf(format string, args ...any)   { fmt.Fprintf(os.Stderr, format+"\n", args...) }
func (b *bench) Errorf(format string, args ...any) { b.failed = true; b.Logf(format, args...) }
func (b *bench) Fatal(args ...any)                 { b.Errorf("%s", fmt.Sprint(args...)); panic(errGivenUp) }
func (b *bench) Fatalf(format string, args ...any) { b.Errorf(format, args...); panic(errGivenUp) }
func (b *bench) Skip(args ...any)                  { b.Fatal(args...) }

func run(o options) (err error) {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	b := &bench{ctx: ctx}
	sum := summary{Summary: true, Mode: o.mode, Policy: o.policy.String()}
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("%v", r)
		}
		for _, f := range slices.Backward(b.cleanups) {
			f()
		}
		if b.failed && err == nil {
			err = errGivenUp
		}
		err = errors.Join(err, sum.verdict())
		sum.finish(err)
		print(sum)
	}()
	f := begin(b, o)
	began := time.Now()
	for i := range o.runs {
		if o.time > 0 && time.Since(began) > o.time {
			break
		}
		run := f.run
		if o.mode == "chaos" {
			run = f.chaos
		}
		r, err := run(ctx, i)
		if err != nil {
			f.tell()
			r.Error = err.Error()
		}
		if o.json {
			print(r)
		}
		if err != nil {
			return fmt.Errorf("run %d: %w", i+1, err)
		}
		if r.NoVerdict > 0 {
			f.tell()
		}
		sum.add(r)
	}
	return nil
}

func print(v any) {
	line, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	fmt.Println(string(line))
}

// result is one run.
type result struct {
	Run        int            `json:"run"`
	Mode       string         `json:"mode"`
	Ms         float64        `json:"ms"`
	Rejoin     float64        `json:"rejoin_ms,omitempty"`
	Acked      int            `json:"acked"`
	Lost       int            `json:"lost"`
	TwoWrite   int            `json:"two_writable"`
	Errors     int            `json:"errors"` // statements that failed, but for ambiguous ones
	Ambiguous  int            `json:"ambiguous"`
	Stale      int            `json:"stale"`
	Failovers  int            `json:"failovers"`
	Verdict    string         `json:"verdict,omitempty"`
	NoVerdict  int            `json:"no_verdict"`  // recoveries that ended without one
	BadVerdict int            `json:"bad_verdict"` // that promised more than was true
	Marks      map[string]int `json:"marks,omitempty"`
	Error      string         `json:"error,omitempty"` // why it broke off
}

// summary is all runs.
type summary struct {
	Summary     bool    `json:"summary"`
	Mode        string  `json:"mode"`
	Policy      string  `json:"policy"`
	Runs        int     `json:"runs"`
	MedianMs    float64 `json:"median_ms"`
	MaxMs       float64 `json:"max_ms"`
	BoundMs     float64 `json:"bound_ms,omitempty"` // where something is promised
	Met         *bool   `json:"met,omitempty"`
	Acked       int     `json:"acked"`
	Lost        int     `json:"lost"`
	TwoWrite    int     `json:"two_writable"`
	RejoinMs    float64 `json:"rejoin_median_ms"`
	RejoinMax   float64 `json:"rejoin_max_ms"`
	RejoinBound float64 `json:"rejoin_bound_ms,omitempty"`
	RejoinMet   *bool   `json:"rejoin_met,omitempty"`
	Errors      int     `json:"errors"`
	Ambiguous   int     `json:"ambiguous"`
	Stale       int     `json:"stale"`
	Failovers   int     `json:"failovers"`
	NoVerdict   int     `json:"no_verdict"`
	BadVerdict  int     `json:"bad_verdict"`
	Error       string  `json:"error,omitempty"` // why there are no further runs

	ms, rejoin []float64
}

func (s *summary) add(r result) {
	s.Runs++
	s.Acked += r.Acked
	s.Lost += r.Lost
	s.TwoWrite += r.TwoWrite
	s.Errors += r.Errors
	s.Ambiguous += r.Ambiguous
	s.Stale += r.Stale
	s.Failovers += r.Failovers
	s.NoVerdict += r.NoVerdict
	s.BadVerdict += r.BadVerdict
	s.ms = append(s.ms, r.Ms)
	if r.Rejoin > 0 {
		s.rejoin = append(s.rejoin, r.Rejoin)
	}
}

func (s *summary) finish(err error) {
	if err != nil {
		s.Error = err.Error()
	}
	s.MedianMs, s.MaxMs = middle(s.ms)
	s.RejoinMs, s.RejoinMax = middle(s.rejoin)
	if len(s.ms) > 0 {
		switch s.Mode {
		case "kill":
			s.BoundMs, s.Met = 1000, new(s.MedianMs <= 1000)
		case "hang":
			s.BoundMs, s.Met = 3000, new(s.MedianMs <= 3000)
		case "switchover":
			s.BoundMs, s.Met = 150, new(s.MaxMs <= 150)
		}
	}
	if len(s.rejoin) > 0 && s.Mode != "chaos" { // where it is from the fault on
		s.RejoinBound, s.RejoinMet = 5000, new(s.RejoinMax <= 5000)
	}
}

// verdict is nil unless something happened that never may.
func (s *summary) verdict() error {
	return errors.Join(
		check(s.TwoWrite == 0, "%d rows were acknowledged by a second primary", s.TwoWrite),
		check(s.Lost == 0 || s.Policy != "durability", "%d acknowledged rows are lost under durability", s.Lost),
		check(s.NoVerdict == 0, "%d recoveries have no verdict", s.NoVerdict),
		check(s.BadVerdict == 0, "%d verdicts promise more than is true", s.BadVerdict),
		check(s.Errors == 0 || s.Mode != "switchover", "%d statements through the pool failed in planned changes of primary", s.Errors),
		check(s.Stale == 0, "%d reads are stale", s.Stale))
}

func middle(values []float64) (median, highest float64) {
	if len(values) == 0 {
		return 0, 0
	}
	slices.Sort(values)
	n := len(values)
	return (values[(n-1)/2] + values[n/2]) / 2, values[n-1]
}
