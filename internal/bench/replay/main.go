// Command replay puts a farm of web servers behind a real HAProxy, both on this machine, and plays an hour of the World Cup's
// load (see package worldcup) back against it, sixty times as fast: a minute of the trace is a second, and so are the farm's
// times. The farm scales the servers by what they say of themselves.
//
//	go run ./internal/bench/replay -json
//
// A server works on two requests at a time, for 20 ms each: it serves 100 a second, and is meant to get 60. The load is an
// open one: a request is sent when the trace says so, whatever became of the others, and its time counts from then.
//
// The last line is a summary: ms_p50, ms_p95 and ms_p99 of the answers, failed requests, how many instances there were, what
// they cost (instance_s), what those cost that the load needs at 100 requests a second (needed_s), and what was left over.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/signal"
	"strconv"
	"sync"
	"syscall"
	"time"

	"github.com/scalr-go/scalr/dnsreg"
	"github.com/scalr-go/scalr/examples/worldcup"
	"github.com/scalr-go/scalr/farm"
	"github.com/scalr-go/scalr/farm/scale"
	"github.com/scalr-go/scalr/farm/sensor"
	"github.com/scalr-go/scalr/provider/local"
)

const (
	workers  = 2
	work     = 20 * time.Millisecond
	capacity = workers * int(time.Second/work) // requests a second
	target   = 60
	port     = 8080
)

type options struct {
	From    int     // the first minute of the trace
	Minutes int     // how many
	Speed   float64 // how much faster
	Peak    float64 // requests a second at the trace's highest minute
	JSON    bool
}

// summary is the last line.
type summary struct {
	Summary   bool    `json:"summary"`
	Requests  int     `json:"requests"`
	Failed    int     `json:"failed"`
	P50       float64 `json:"ms_p50"`
	P95       float64 `json:"ms_p95"`
	P99       float64 `json:"ms_p99"`
	Fewest    int     `json:"instances_min"`
	Most      int     `json:"instances_max"`
	Launched  int     `json:"launched"`
	InstanceS float64 `json:"instance_s"`
	NeededS   float64 `json:"needed_s"`
	LeftOver  int     `json:"left_over"`
}

func main() {
	var o options
	flag.IntVar(&o.From, "from", 106, "the first minute of the half day to play back")
	flag.IntVar(&o.Minutes, "minutes", 60, "how many minutes of it")
	flag.Float64Var(&o.Speed, "speed", 60, "how much faster than it was")
	flag.Float64Var(&o.Peak, "peak", 400, "requests a second of ours at the highest minute of those")
	flag.BoolVar(&o.JSON, "json", false, "print a line of JSON each second, not only the summary")
	serve := flag.Bool("serve", false, "be a web server (the farm does that)")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	err := error(nil)
	if *serve {
		err = serveWeb()
	} else {
		err = run(ctx, o)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "replay:", err)
		os.Exit(1)
	}
}

// serveWeb is one web server.
func serveWeb() error {
	slots := make(chan struct{}, workers)
	var mu sync.Mutex
	served := 0
	mux := http.NewServeMux()
	mux.HandleFunc("/", func(w http.ResponseWriter, _ *http.Request) {
		slots <- struct{}{}
		time.Sleep(work)
		<-slots
		mu.Lock()
		served++
		mu.Unlock()
		fmt.Fprintln(w, os.Getenv("SCALR_INSTANCE"))
	})
	mux.HandleFunc("/healthz", func(http.ResponseWriter, *http.Request) {})
	mux.HandleFunc("/served", func(w http.ResponseWriter, _ *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		fmt.Fprint(w, served)
	})
	return http.ListenAndServe(os.Getenv("SCALR_ADDR")+":"+strconv.Itoa(port), mux)
}

// rates reads how many requests a second each server has answered since it was asked last.
func rates() *sensor.Each {
	type reading struct {
		served int
		at     time.Time
	}
	var mu sync.Mutex
	last := map[string]reading{}
	return &sensor.Each{Timeout: time.Second, Ask: func(ctx context.Context, s farm.Server) (float64, error) {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, fmt.Sprintf("http://%s:%d/served", s.Private, port), nil)
		if err != nil {
			return 0, err
		}
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			return 0, err
		}
		defer resp.Body.Close()
		body, err := io.ReadAll(io.LimitReader(resp.Body, 32))
		if err != nil {
			return 0, err
		}
		now := reading{at: time.Now()}
		if now.served, err = strconv.Atoi(string(body)); err != nil {
			return 0, err
		}
		mu.Lock()
		defer mu.Unlock()
		before, known := last[s.ID]
		last[s.ID] = now
		if !known {
			return 0, sensor.ErrNotYet
		}
		return float64(now.served-before.served) / now.at.Sub(before.at).Seconds(), nil
	}}
}

// site is the cloud and the farm.
func site(dir string, o options) (*local.Cloud, *farm.Farm, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, nil, err
	}
	www := local.Image{Port: port, Command: func(local.Machine) local.Command { return local.Command{Args: []string{self, "-serve"}} }}
	cloud, err := local.New(local.Options{Dir: dir, Images: map[string]local.Image{"www": www}})
	if err != nil {
		return nil, nil, err
	}
	minute := time.Duration(float64(time.Minute) / o.Speed)
	spec := farm.Spec{Name: "shop", Zone: "shop.example.", TTL: time.Second, Roles: []farm.Role{{
		Name: "www", Serves: farm.Web, Image: "www", Port: port, Min: 2, Max: 16, Main: true,
		Health:   &farm.Health{Path: "/healthz"},
		Balancer: &farm.Balancer{Protocol: "http", Port: 8000, HealthPath: "/healthz", Drain: 5 * time.Second},
		Scale:    &farm.Scale{Target: &scale.Target{Metric: "rate", Value: target, Window: 5 * minute}},
	}}}
	f, err := farm.New(spec, farm.Config{
		Pools:     []farm.Pool{{Name: "local", Provider: cloud}},
		DNS:       &dnsreg.Memory{Zones: []string{"shop.example."}},
		Sensors:   map[string]farm.Sensor{"rate": rates()},
		Interval:  minute / 4,
		MetricAge: 3 * minute,
		ListLag:   time.Millisecond,
	})
	return cloud, f, err
}

func run(ctx context.Context, o options) (err error) {
	s, err := play(ctx, o, json.NewEncoder(os.Stdout))
	if err != nil {
		return err
	}
	return json.NewEncoder(os.Stdout).Encode(s)
}

// play makes the farm, plays the load back, and ends the farm.
func play(ctx context.Context, o options, out *json.Encoder) (s summary, err error) {
	day := worldcup.Day()
	if o.From < 0 || o.Minutes < 1 || o.From+o.Minutes > len(day) || o.Speed <= 0 || o.Peak <= 0 {
		return s, fmt.Errorf("-from %d -minutes %d -speed %v -peak %v: want minutes of the %d that there are, and more than 0", o.From, o.Minutes, o.Speed, o.Peak, len(day))
	}
	dir, err := os.MkdirTemp("", "replay")
	if err != nil {
		return s, err
	}
	defer os.RemoveAll(dir)
	cloud, f, err := site(dir, o)
	if err != nil {
		return s, err
	}
	running, stop := context.WithCancel(ctx)
	ended := make(chan error, 1)
	go func() { ended <- f.Run(running) }()
	s.Summary = true
	err = send(ctx, cloud, day[o.From:o.From+o.Minutes], o, &s, out)
	stop()
	<-ended
	end, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Minute)
	defer cancel()
	if e := f.Terminate(end, farm.TerminateOptions{}); e != nil {
		return s, errors.Join(err, fmt.Errorf("ending the farm: %w", e))
	}
	if err != nil {
		return s, err
	}
	s.LeftOver, err = leftOver(end, cloud)
	return s, err
}

func leftOver(ctx context.Context, cloud *local.Cloud) (n int, err error) {
	instances, err := cloud.Instances(ctx, nil)
	if err != nil {
		return 0, err
	}
	for _, i := range instances {
		if !i.State.Gone() {
			n++
		}
	}
	balancers, err := cloud.Balancers(ctx, nil)
	return n + len(balancers), err
}
