// Command dns measures package nameserver beside BIND and Knot: the same zone, the same questions by dnsperf, in turn in one
// run; and how long a change takes until a real secondary answers with it.
//
//	go run ./internal/bench/dns -json
//
// It needs the Debian packages dnsperf, bind9, knot and nsd. The last line is a summary: cpu_us_per_query is the processor
// time (user and system) that our server spends on a query, ratio_named and ratio_knot are that over theirs, of the same
// run; propagation_ms_p50 is the median time from a change of the zone to the answer of a secondary that is told by NOTIFY
// and transfers what is new.
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
	"syscall"
	"testing"
	"time"

	"github.com/scalr-go/scalr/internal/testenv"
)

// options are the flags.
type options struct {
	Records int
	Rounds  int
	For     time.Duration
	Changes int
	JSON    bool
}

// summary is the last line.
type summary struct {
	Summary       bool               `json:"summary"`
	CPU           float64            `json:"cpu_us_per_query"`
	RatioNamed    float64            `json:"ratio_named"`
	RatioKnot     float64            `json:"ratio_knot"`
	QPS           map[string]float64 `json:"queries_per_second"`
	PropagationMS map[string]float64 `json:"propagation_ms_p50"`
}

func main() {
	var o options
	flag.IntVar(&o.Records, "records", 100_000, "A records in the zone, each with a name of its own")
	flag.IntVar(&o.Rounds, "rounds", 3, "how often the servers take their turn")
	flag.DurationVar(&o.For, "for", 4*time.Second, "how long a turn is, in whole seconds")
	flag.IntVar(&o.Changes, "changes", 100, "changes for each secondary")
	flag.BoolVar(&o.JSON, "json", false, "print every turn as a line of JSON, not only the summary")
	serve := flag.Bool("serve", false, "be our server, with a zone of this many records")
	profile := flag.String("cpuprofile", "", "with -serve, write a profile to this file")
	flag.Parse()
	var err error
	if *serve {
		err = serveZone(o.Records, *profile)
	} else {
		err = run(o)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "dns:", err)
		os.Exit(1)
	}
}

func run(o options) error {
	switch {
	case o.Records < 1 || o.Rounds < 1 || o.Changes < 1:
		return errors.New("-records, -rounds and -changes: want at least 1")
	case o.For < time.Second || o.For%time.Second != 0:
		return fmt.Errorf("-for %v: want whole seconds, at least 1", o.For)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	out := json.NewEncoder(os.Stdout)
	s := summary{Summary: true, QPS: map[string]float64{}, PropagationMS: map[string]float64{}}
	err := testenv.Program(ctx, func(t testing.TB) error {
		turns, err := load(t, o)
		if err != nil {
			return err
		}
		cpu := map[string]float64{}
		for _, program := range programs {
			var costs, rates []float64
			for _, turn := range turns {
				if turn.Server == program {
					costs, rates = append(costs, turn.CPU), append(rates, turn.QPS)
				}
			}
			cpu[program], s.QPS[program] = median(costs), median(rates)
		}
		s.CPU, s.RatioNamed, s.RatioKnot = cpu[ours], cpu[ours]/cpu["named"], cpu[ours]/cpu["knotd"]
		if o.JSON {
			for _, turn := range turns {
				if err := out.Encode(turn); err != nil {
					return err
				}
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	for key, program := range map[string]string{"nsd": "nsd", "knot": "knotd", "named": "named"} {
		err := testenv.Program(ctx, func(t testing.TB) error {
			took, err := propagation(t, program, o.Changes)
			s.PropagationMS[key] = float64(median(took)) / float64(time.Millisecond)
			return err
		})
		if err != nil {
			return err
		}
	}
	return out.Encode(s)
}

func median[T cmp.Ordered](list []T) T {
	list = slices.Sorted(slices.Values(list))
	return list[len(list)/2]
}
