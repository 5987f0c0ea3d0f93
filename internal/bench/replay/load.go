package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"net/http"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/scalr-go/scalr/examples/worldcup"
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

// answers collects what became of requests.
type answers struct {
	mu     sync.Mutex
	ms     []float64
	failed int
	why    error
	from   int // of ms, where the current second begins
	told   int // of failed
}

func (a *answers) add(took time.Duration, err error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if err != nil {
		a.failed++
		a.why = err
		return
	}
	a.ms = append(a.ms, float64(took.Microseconds())/1000)
}

// since gives the times and the failures since the last call.
func (a *answers) since() (ms []float64, failed int) {
	a.mu.Lock()
	defer a.mu.Unlock()
	ms, failed = slices.Clone(a.ms[a.from:]), a.failed-a.told
	a.from, a.told = len(a.ms), a.failed
	return ms, failed
}

// settle is how long the load of the first minute is sent before, so that the farm has the size for it.
const settle = 15 * time.Second

// replay sends the load to the farm's balancer.
func replay(ctx context.Context, cloud *local.Cloud, load worldcup.Load, o options, s *summary, out *json.Encoder) error {
	site, err := ready(ctx, cloud)
	if err != nil {
		return err
	}
	client := &http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{MaxIdleConnsPerHost: 256}}
	defer client.CloseIdleConnections()
	scaled := o.Peak / load.Peak()
	length := time.Duration(float64(o.Minutes) * float64(time.Minute) / o.Speed)
	rate := func(passed time.Duration) float64 { return load.At(passed, length) * scaled }

	var group sync.WaitGroup
	a, launched := &answers{}, map[string]bool{}
	begin, sent, due := time.Now().Add(settle), 0, 0.0
	last, told, warm := time.Now(), begin, true
	s.Fewest = math.MaxInt
	for now := last; now.Sub(begin) < length; now = time.Now() {
		due += rate(now.Sub(begin)) * now.Sub(last).Seconds()
		last = now
		if warm && now.After(begin) {
			warm, a, due, sent = false, &answers{}, 0, 0
		}
		for ; float64(sent) < due; sent++ {
			to := a
			group.Go(func() { to.add(ask(ctx, client, site, now)) })
		}
		if now.Sub(told) >= time.Second {
			n, err := count(ctx, cloud, launched)
			if err != nil {
				return err
			}
			r := rate(now.Sub(begin))
			s.Fewest, s.Most = min(s.Fewest, n), max(s.Most, n)
			s.InstanceS += float64(n) * now.Sub(told).Seconds()
			s.NeededS += math.Ceil(r/float64(capacity)) * now.Sub(told).Seconds()
			told = now
			ms, failed := a.since()
			if o.JSON {
				line := second{Minute: o.From + int(now.Sub(begin).Seconds()*o.Speed/60), Rate: math.Round(r), Instances: n, Answers: len(ms), Failed: failed, P95: percentile(ms, 0.95)}
				if err := out.Encode(line); err != nil {
					return err
				}
			}
		}
		select {
		case <-time.After(2 * time.Millisecond):
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	group.Wait()
	s.Requests, s.Failed, s.Launched = sent, a.failed, len(launched)
	s.P50, s.P95, s.P99 = percentile(a.ms, 0.5), percentile(a.ms, 0.95), percentile(a.ms, 0.99)
	if a.failed > 0 && o.JSON {
		_ = out.Encode(map[string]string{"failure": a.why.Error()})
	}
	return nil
}

// ready waits until the balancer answers, and gives its address.
func ready(ctx context.Context, cloud *local.Cloud) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	for {
		list, err := cloud.Balancers(ctx, nil)
		if err == nil && len(list) == 1 {
			site := "http://" + net.JoinHostPort(list[0].Host, strconv.Itoa(list[0].Port)) + "/"
			if _, err = ask(ctx, http.DefaultClient, site, time.Now()); err == nil {
				return site, nil
			}
		}
		select {
		case <-time.After(100 * time.Millisecond):
		case <-ctx.Done():
			return "", errors.Join(errors.New("the farm does not answer"), err)
		}
	}
}

// ask sends one request and says how long after it was due its answer was there.
func ask(ctx context.Context, client *http.Client, site string, due time.Time) (time.Duration, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, site, nil)
	if err != nil {
		return 0, err
	}
	resp, err := client.Do(req)
	if err != nil {
		return 0, err
	}
	defer resp.Body.Close()
	if _, err := io.Copy(io.Discard, resp.Body); err != nil {
		return 0, err
	}
	if resp.StatusCode != http.StatusOK {
		return 0, fmt.Errorf("status %s", resp.Status)
	}
	return time.Since(due), nil
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

func percentile(ms []float64, share float64) float64 {
	if len(ms) == 0 {
		return 0
	}
	ms = slices.Sorted(slices.Values(ms))
	return ms[min(int(share*float64(len(ms))), len(ms)-1)]
}
