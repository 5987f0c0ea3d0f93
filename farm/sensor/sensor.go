// Package sensor reads the metrics that scaling policies go by: from node_exporter on each instance ([Node]), from a Prometheus
// server ([Query]), by the time that an answer takes ([ResponseTime]), from balancers ([Requests]), from memcached ([Memcached]), from a
// database ([SQL], [Lag]), and by any function ([Each], [Whole]). Its folder aws holds those of CloudWatch and SQS.
//
// A value that cannot be had is missing: it is left out, never filled in. A sample carries the time at which it was true; where
// an instance does not answer, the sensor repeats its last sample with its old time, and the farm drops it when it is
// older than its Config.MetricAge. Each instance is asked at the same time as the others and has a time-out of its own: one
// that is slow delays a pass by no more than that.
package sensor

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"sync"
	"time"

	"github.com/scalr-go/scalr/farm"
	"github.com/scalr-go/scalr/farm/scale"
)

// Each reads one value from each instance. The zero value of all but Ask is its default. It must not be copied after its
// first use, and is safe for concurrent use.
type Each struct {
	// Ask asks one instance; it must heed its context.
	Ask func(context.Context, farm.Server) (float64, error)
	// Timeout bounds the question to one instance; default 2 s.
	Timeout time.Duration
	// Parallel is how many are asked at once; default 32.
	Parallel int

	mu   sync.Mutex
	last map[string]scale.Sample // by instance
}

var _ farm.Sensor = (*Each)(nil)

// ErrNotYet: the value is the difference of two readings, and this is the first.
var ErrNotYet = errors.New("this is the first reading of a counter")

// Read implements [farm.Sensor].
func (e *Each) Read(ctx context.Context, _ string, servers []farm.Server) ([]scale.Sample, error) {
	return e.read(ctx, servers, e.Ask)
}

func (e *Each) read(ctx context.Context, servers []farm.Server, ask func(context.Context, farm.Server) (float64, error)) ([]scale.Sample, error) {
	timeout, parallel := e.Timeout, e.Parallel
	if timeout <= 0 {
		timeout = 2 * time.Second
	}
	if parallel <= 0 {
		parallel = 32
	}
	slots := make(chan struct{}, parallel)
	fresh := make([]scale.Sample, len(servers))
	errs := make([]error, len(servers))
	var group sync.WaitGroup
	for i, s := range servers {
		select {
		case slots <- struct{}{}:
		case <-ctx.Done():
			errs[i] = ctx.Err()
			continue
		}
		group.Go(func() {
			defer func() { <-slots }()
			ctx, cancel := context.WithTimeout(ctx, timeout)
			defer cancel()
			v, err := ask(ctx, s)
			if err == nil && (math.IsNaN(v) || math.IsInf(v, 0)) {
				err = fmt.Errorf("%v is no value", v)
			}
			fresh[i], errs[i] = scale.Sample{Instance: s.ID, Value: v, At: time.Now()}, err
		})
	}
	group.Wait()

	e.mu.Lock()
	defer e.mu.Unlock()
	last := make(map[string]scale.Sample, len(servers))
	var samples []scale.Sample
	var failed []error
	for i, s := range servers {
		sample := fresh[i]
		if errs[i] != nil {
			if !errors.Is(errs[i], ErrNotYet) {
				failed = append(failed, fmt.Errorf("%s: %w", s.Name, errs[i]))
			}
			old, ok := e.last[s.ID]
			if !ok {
				continue
			}
			sample = old
		}
		last[s.ID] = sample
		samples = append(samples, sample)
	}
	e.last = last // what is known of instances that are gone goes with them
	return samples, errors.Join(failed...)
}

// Whole makes a sensor of a function that gives one value for the role as a whole: a queue's length, a balancer's requests
// a second. Policies that take it set Total.
func Whole(read func(ctx context.Context, role string) (float64, error)) farm.Sensor {
	return farm.SensorFunc(func(ctx context.Context, role string, _ []farm.Server) ([]scale.Sample, error) {
		v, err := read(ctx, role)
		if err != nil {
			return nil, err
		}
		if math.IsNaN(v) || math.IsInf(v, 0) {
			return nil, fmt.Errorf("%v is no value", v)
		}
		return []scale.Sample{{Value: v, At: time.Now()}}, nil
	})
}

// Percentile makes one sample of those of the instances: that below which the share p of them is, 0 to 1. It is missing if fewer
// than half of the instances have one, and as old as the oldest.
func Percentile(s farm.Sensor, p float64) farm.Sensor {
	return farm.SensorFunc(func(ctx context.Context, role string, servers []farm.Server) ([]scale.Sample, error) {
		samples, err := s.Read(ctx, role, servers)
		if len(samples) == 0 || 2*len(samples) < len(servers) {
			return nil, err
		}
		oldest := slices.MinFunc(samples, func(a, b scale.Sample) int { return a.At.Compare(b.At) })
		slices.SortFunc(samples, func(a, b scale.Sample) int {
			switch {
			case a.Value < b.Value:
				return -1
			case a.Value > b.Value:
				return 1
			}
			return 0
		})
		at := int(math.Ceil(max(0, min(1, p))*float64(len(samples)))) - 1
		return []scale.Sample{{Value: samples[max(at, 0)].Value, At: oldest.At}}, err
	})
}

// Smooth gives the exponential mean of each instance's samples, which forgets two thirds of what was within the window. It is safe
// for concurrent use.
func Smooth(s farm.Sensor, window time.Duration) farm.Sensor {
	var mu sync.Mutex
	means := map[[2]string]scale.Sample{} // by role and instance
	return farm.SensorFunc(func(ctx context.Context, role string, servers []farm.Server) ([]scale.Sample, error) {
		samples, err := s.Read(ctx, role, servers)
		mu.Lock()
		defer mu.Unlock()
		next := map[[2]string]scale.Sample{}
		for key, mean := range means {
			if key[0] != role {
				next[key] = mean
			}
		}
		for i, sample := range samples {
			key := [2]string{role, sample.Instance}
			if mean, ok := means[key]; ok && window > 0 {
				keep := math.Exp(-float64(max(sample.At.Sub(mean.At), 0)) / float64(window))
				sample.Value = mean.Value*keep + sample.Value*(1-keep)
			}
			next[key], samples[i] = sample, sample
		}
		means = next
		return samples, err
	})
}
