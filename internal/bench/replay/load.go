package main

import (
	"context"
	"encoding/json"
	"errors"
	"math"
	"net"
	"net/http"
	"strconv"
	"time"

	"github.com/scalr-go/scalr/examples/worldcup"
	"github.com/scalr-go/scalr/farm/replay"
	"github.com/scalr-go/scalr/farm/simulate"
	"github.com/scalr-go/scalr/provider/local"
)

// second is one line of the output: what has been since the last one.
type second struct {
	Minute    int     `json:"minute"` // of the trace
	Rate      float64 `json:"requests_per_second"`
	Instances int     `json:"instances"`
	Answers   int     `json:"answers"`
	Failed    int     `json:"failed"`
	P95       float64 `json:"ms_p95"`
}

// settle is how long the load of the first minute is sent before, so that the farm has the size for it.
const settle = 15 * time.Second

// send sends the load to the farm's balancer.
func send(ctx context.Context, cloud *local.Cloud, load worldcup.Load, o options, s *summary, out *json.Encoder) error {
	site, err := ready(ctx, cloud)
	if err != nil {
		return err
	}
	trace := simulate.Trace{Step: time.Minute, Requests: load}
	to := replay.Options{Site: site, Speed: o.Speed, Scale: o.Peak / trace.Peak()}
	first := simulate.Trace{Step: time.Duration(float64(settle) * o.Speed), Requests: []float64{load[0] * settle.Minutes() * o.Speed}}
	if _, err := replay.Run(ctx, first, to); err != nil {
		return err
	}
	launched := map[string]bool{}
	s.Fewest = math.MaxInt
	to.Each = func(r replay.Report) {
		n, lost := count(ctx, cloud, launched)
		if lost != nil {
			err = lost
			return
		}
		at := time.Duration(float64(r.From+r.Length/2) * o.Speed)
		rate := trace.Rate(min(int(at/trace.Step), len(load)-1)) * to.Scale
		s.Fewest, s.Most = min(s.Fewest, n), max(s.Most, n)
		s.InstanceS += float64(n) * r.Length.Seconds()
		s.NeededS += math.Ceil(rate/float64(capacity)) * r.Length.Seconds()
		if o.JSON {
			_ = out.Encode(second{Minute: o.From + int(at/time.Minute), Rate: math.Round(rate), Instances: n, Answers: r.Requests - r.Failed, Failed: r.Failed, P95: ms(r.P95)})
		}
	}
	r, failed := replay.Run(ctx, trace, to)
	s.Requests, s.Failed, s.Launched = r.Requests, r.Failed, len(launched)
	s.P50, s.P95, s.P99 = ms(r.P50), ms(r.P95), ms(r.P99)
	if r.Failed > 0 && o.JSON {
		_ = out.Encode(map[string]string{"failure": r.Failure})
	}
	return errors.Join(failed, err)
}

func ms(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }

// ready waits until the balancer answers, and gives its address.
func ready(ctx context.Context, cloud *local.Cloud) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	for {
		list, err := cloud.Balancers(ctx, nil)
		if err == nil && len(list) == 1 {
			site := "http://" + net.JoinHostPort(list[0].Host, strconv.Itoa(list[0].Port)) + "/"
			resp, failed := http.Get(site)
			if err = failed; err == nil {
				if err = resp.Body.Close(); resp.StatusCode == http.StatusOK {
					return site, err
				}
			}
		}
		select {
		case <-time.After(100 * time.Millisecond):
		case <-ctx.Done():
			return "", errors.Join(errors.New("the farm does not answer"), err)
		}
	}
}

// count counts the instances that there are, and remembers all that there were.
func count(ctx context.Context, cloud *local.Cloud, launched map[string]bool) (n int, err error) {
	list, err := cloud.Instances(ctx, nil)
	for _, i := range list {
		launched[i.ID] = true
		if !i.State.Gone() {
			n++
		}
	}
	return n, err
}
