// Package replay sends load as it was to a site, and says how the site took it: to a twin, before a change is made to its parent.
//
// The load is a trace ([simulate.Trace]), which [simulate.ReadCSV] reads from figures and [ReadLog] from a web server's access log, with what
// was asked for. It is an open one: a request is sent when the trace says so, whatever became of those before it, and its latency counts
// from then, so that a site that gets slow is not asked less.
package replay

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"net/http"
	"net/url"
	"sync"
	"time"

	"github.com/scalr-go/scalr/farm/simulate"
)

// Options say where load goes to, and how fast. Only Site is required.
type Options struct {
	// Site is where requests go to: "http://www.qa.shop.example", say. It is all that they know: no redirect is followed, since one may
	// lead elsewhere.
	Site string
	// Paths are what is asked for, with queries, one after the other and over again; default the path of Site.
	Paths []string
	// Speed is how many times faster than it was the load comes: with 60 an hour takes a minute, and the rate is that of the trace.
	// More than 0; default 1.
	Speed float64
	// Scale multiplies the rate. More than 0; default 1.
	Scale float64
	// Timeout bounds each request; default 10 s.
	Timeout time.Duration
	// Transport makes the requests; nil means one of the replay's own, which keeps connections.
	Transport http.RoundTripper
	// Each is told each second how that second went, one call after another. Requests are sent meanwhile. Optional.
	Each func(Report)
}

// most is how many requests are under way at once at most.
const most = 10_000

// errMost is why a request beyond that was not sent.
var errMost = fmt.Errorf("%d requests are under way, and have no answer yet: it was not sent", most)

// check reports every fault, sets what is not given, and gives the URLs that are asked for.
func (o *Options) check(t simulate.Trace) (urls []string, err error) {
	var faults []error
	site, err := url.Parse(o.Site)
	if err != nil {
		site = &url.URL{} // its error has the text, and a secret perhaps
	}
	if site.Scheme != "http" && site.Scheme != "https" || site.Host == "" || site.User != nil {
		faults = append(faults, fmt.Errorf("replay: Site is %q, want a URL such as http://www.qa.shop.example, without a user", site.Redacted()))
	} else if site.Fragment = ""; len(o.Paths) == 0 {
		urls = append(urls, site.String())
	}
	for i, p := range o.Paths {
		u, err := url.ParseRequestURI(p)
		if err != nil || p[0] != '/' {
			faults = append(faults, fmt.Errorf("replay: Paths[%d] is %q, want a path that begins with /, and no host", i, p))
		} else if len(faults) == 0 {
			u.Scheme, u.Host = site.Scheme, site.Host
			urls = append(urls, u.String())
		}
	}
	for name, v := range map[string]*float64{"Speed": &o.Speed, "Scale": &o.Scale} {
		if !(*v >= 0) || math.IsInf(*v, 0) {
			faults = append(faults, fmt.Errorf("replay: %s is %v, want more than 0", name, *v))
		} else if *v == 0 {
			*v = 1
		}
	}
	if o.Timeout < 0 {
		faults = append(faults, fmt.Errorf("replay: Timeout is %v, want more than 0", o.Timeout))
	} else if o.Timeout == 0 {
		o.Timeout = 10 * time.Second
	}
	return urls, errors.Join(append(faults, t.Check())...)
}

// Run sends a trace's load to a site until its end, waits for what is under way, and reports. When the context ends, it reports what
// has been answered until then, and the error is the context's cause.
func Run(ctx context.Context, trace simulate.Trace, o Options) (Report, error) {
	urls, err := o.check(trace)
	if err != nil {
		return Report{}, err
	}
	transport := o.Transport
	if transport == nil {
		own := &http.Transport{MaxIdleConnsPerHost: 256, DisableCompression: true}
		defer own.CloseIdleConnections()
		transport = own
	}
	r := &run{o: o, urls: urls, transport: transport, began: time.Now(), free: make(chan struct{}, most)}
	err = r.send(ctx, trace)
	r.under.Wait()
	r.tell()
	r.all.Length = time.Since(r.began)
	return r.all.report(), err
}

// run is a replay under way.
type run struct {
	o         Options
	urls      []string
	transport http.RoundTripper
	began     time.Time
	free      chan struct{} // has what is under way
	under     sync.WaitGroup

	mu        sync.Mutex
	all, last tally // from the beginning, and since the last call of Each
}

// send sends requests until the trace is over.
func (r *run) send(ctx context.Context, trace simulate.Trace) error {
	length := time.Duration(float64(trace.Length()) / r.o.Speed)
	// due is how many requests are to have been sent when so much has passed.
	step, before := 0, 0.0
	due := func(passed time.Duration) float64 {
		at := float64(passed) * r.o.Speed / float64(trace.Step)
		for ; step < len(trace.Requests) && at >= float64(step+1); step++ {
			before += trace.Requests[step]
		}
		n := before
		if step < len(trace.Requests) {
			n += (at - float64(step)) * trace.Requests[step]
		}
		return n * r.o.Scale / r.o.Speed
	}
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	told, sent, had, last := r.began, 0, 0.0, time.Duration(0)
	for {
		passed := min(time.Since(r.began), length)
		n := due(passed)
		for ; float64(sent) < n-1e-6; sent++ {
			// A replay that was held up itself sends late what was due meanwhile; the latency counts from then all the same.
			late := time.Duration((n - max(float64(sent), had)) / (n - had) * float64(passed-last))
			r.ask(ctx, r.urls[sent%len(r.urls)], r.began.Add(passed-late))
		}
		had, last = n, passed
		if time.Since(told) >= time.Second {
			told = time.Now()
			r.tell()
		}
		if passed == length {
			return nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// ask sends a request, and notes what became of it.
func (r *run) ask(ctx context.Context, url string, due time.Time) {
	select {
	case r.free <- struct{}{}:
	default:
		r.note(0, 0, errMost)
		return
	}
	r.under.Go(func() {
		defer func() { <-r.free }()
		bounded, cancel := context.WithTimeout(ctx, r.o.Timeout)
		defer cancel()
		status, err := r.get(bounded, url)
		if ctx.Err() == nil {
			r.note(time.Since(due), status, err)
		}
	})
}

func (r *run) get(ctx context.Context, url string) (status int, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return 0, err
	}
	resp, err := r.transport.RoundTrip(req)
	if err != nil {
		return 0, err
	}
	defer resp.Body.Close()
	_, err = io.Copy(io.Discard, resp.Body)
	return resp.StatusCode, err
}

func (r *run) note(took time.Duration, status int, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.all.note(took, status, err)
	r.last.note(took, status, err)
}

// tell gives what has been since the last call.
func (r *run) tell() {
	r.mu.Lock()
	last := r.last
	r.last = tally{From: last.From + time.Since(r.began.Add(last.From))}
	r.mu.Unlock()
	last.Length = r.last.From - last.From
	if r.o.Each != nil && last.Length > 0 {
		r.o.Each(last.report())
	}
}
