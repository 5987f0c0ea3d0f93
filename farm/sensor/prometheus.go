package sensor

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"sync"
	"time"

	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"

	"github.com/scalr-go/scalr/farm"
	"github.com/scalr-go/scalr/farm/scale"
)

// Value is what [Node] reads.
type Value string

// The values of a node_exporter.
const (
	CPU        Value = "cpu"         // used, in percent of all cores, between two readings
	Load       Value = "load"        // the load average of 15 minutes, as Scalr took it
	FreeMemory Value = "free-memory" // that programs can have, in percent
	Sent       Value = "sent"        // bytes a second that leave the machine, but for the loopback, between two readings
)

// most bounds an answer.
const most = 16 << 20

// Node reads a value from the node_exporter of each instance. It must not be copied after its first use.
type Node struct {
	// Value is what to read; default CPU.
	Value Value
	// Port is where node_exporter listens; default 9100.
	Port int
	// Client makes the requests; nil means a plain one.
	Client *http.Client
	// Timeout bounds the reading of one instance; default 2 s.
	Timeout time.Duration

	each Each
	mu   sync.Mutex
	seen map[string]reading // by instance
}

// reading is what counters stood at.
type reading struct {
	at        time.Time
	part, all float64
}

var _ farm.Sensor = (*Node)(nil)

// Read implements [farm.Sensor]. A counter's first reading gives no sample.
func (n *Node) Read(ctx context.Context, _ string, servers []farm.Server) ([]scale.Sample, error) {
	n.each.Timeout = n.Timeout
	return n.each.read(ctx, servers, n.ask)
}

func (n *Node) ask(ctx context.Context, s farm.Server) (float64, error) {
	port := n.Port
	if port == 0 {
		port = 9100
	}
	body, err := get(ctx, n.Client, "http://"+net.JoinHostPort(s.Private.String(), strconv.Itoa(port))+"/metrics")
	if err != nil {
		return 0, err
	}
	defer body.Close()
	parser := expfmt.NewTextParser(model.UTF8Validation)
	families, err := parser.TextToMetricFamilies(io.LimitReader(body, most))
	if err != nil {
		return 0, fmt.Errorf("node_exporter: %w", err)
	}
	now := time.Now()
	switch n.Value {
	case Load:
		return one(families, "node_load15")
	case FreeMemory:
		free, err := one(families, "node_memory_MemAvailable_bytes")
		all, e := one(families, "node_memory_MemTotal_bytes")
		return 100 * free / all, errors.Join(err, e)
	case Sent:
		f, ok := families["node_network_transmit_bytes_total"]
		if !ok {
			return 0, errors.New("node_exporter gives no node_network_transmit_bytes_total")
		}
		r := reading{at: now}
		for _, m := range f.Metric {
			if label(m, "device") != "lo" {
				r.part += value(m)
			}
		}
		before, err := n.before(s.ID, r)
		return (r.part - before.part) / now.Sub(before.at).Seconds(), err
	case CPU, "":
		f, ok := families["node_cpu_seconds_total"]
		if !ok {
			return 0, errors.New("node_exporter gives no node_cpu_seconds_total")
		}
		r := reading{at: now}
		for _, m := range f.Metric {
			r.all += value(m)
			if mode := label(m, "mode"); mode != "idle" && mode != "iowait" {
				r.part += value(m)
			}
		}
		before, err := n.before(s.ID, r)
		if err == nil && r.all == before.all {
			err = ErrNotYet
		}
		return 100 * (r.part - before.part) / (r.all - before.all), err
	}
	return 0, fmt.Errorf("value is %q, want %s, %s, %s or %s", n.Value, CPU, Load, FreeMemory, Sent)
}

// before gives the reading before this one. Counters that have gone back, after a reboot, begin anew.
func (n *Node) before(id string, r reading) (reading, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.seen == nil {
		n.seen = map[string]reading{}
	}
	for other, old := range n.seen {
		if r.at.Sub(old.at) > time.Hour {
			delete(n.seen, other) // it is gone
		}
	}
	before, ok := n.seen[id]
	n.seen[id] = r
	if !ok || r.part < before.part || r.all < before.all || !r.at.After(before.at) {
		return before, ErrNotYet
	}
	return before, nil
}

func one(families map[string]*dto.MetricFamily, name string) (float64, error) {
	f := families[name]
	if f == nil || len(f.Metric) == 0 {
		return 0, fmt.Errorf("node_exporter gives no %s", name)
	}
	return value(f.Metric[0]), nil
}

func value(m *dto.Metric) float64 {
	switch {
	case m.Counter != nil:
		return m.Counter.GetValue()
	case m.Gauge != nil:
		return m.Gauge.GetValue()
	}
	return m.Untyped.GetValue()
}

func label(m *dto.Metric, name string) string {
	for _, l := range m.Label {
		if l.GetName() == name {
			return l.GetValue()
		}
	}
	return ""
}

// Query asks a Prometheus server for an instant vector of one element, which is the value of the role as a whole; or, with
// Instance, for one element an instance.
type Query struct {
	// URL is the server's: "http://prometheus:9090".
	URL string
	// Query is the expression.
	Query string
	// Instance is the label whose value is the private address of an instance, with or without a port: "instance". Empty
	// means that the result is of the role as a whole.
	Instance string
	// Client makes the requests, with the credentials that the server wants; nil means a plain one.
	Client *http.Client
}

var _ farm.Sensor = Query{}

// Read implements [farm.Sensor]. No element is a missing value.
func (q Query) Read(ctx context.Context, _ string, servers []farm.Server) ([]scale.Sample, error) {
	body, err := get(ctx, q.Client, q.URL+"/api/v1/query?query="+url.QueryEscape(q.Query))
	if err != nil {
		return nil, err
	}
	defer body.Close()
	var answer struct {
		Status, Error string
		Data          struct {
			ResultType string       `json:"resultType"`
			Result     model.Vector `json:"result"`
		}
	}
	if err := json.NewDecoder(io.LimitReader(body, most)).Decode(&answer); err != nil {
		return nil, fmt.Errorf("prometheus: %w", err)
	}
	if answer.Status != "success" {
		return nil, fmt.Errorf("prometheus: %s", answer.Error)
	}
	if answer.Data.ResultType != "vector" {
		return nil, fmt.Errorf("prometheus: the query gives a %s, want an instant vector", answer.Data.ResultType)
	}
	if q.Instance == "" {
		if n := len(answer.Data.Result); n > 1 {
			return nil, fmt.Errorf("prometheus: the query gives %d elements, want one", n)
		}
	}
	var samples []scale.Sample
	for _, e := range answer.Data.Result {
		s := scale.Sample{Value: float64(e.Value), At: e.Timestamp.Time()}
		if q.Instance != "" {
			host := string(e.Metric[model.LabelName(q.Instance)])
			if h, _, err := net.SplitHostPort(host); err == nil {
				host = h
			}
			for _, server := range servers {
				if server.Private.String() == host {
					s.Instance = server.ID
				}
			}
			if s.Instance == "" {
				continue // of somebody else
			}
		}
		samples = append(samples, s)
	}
	return samples, nil
}

// ResponseTime measures how long each instance takes to answer a GET of the path at the role's port, its body included, in
// milliseconds. An answer of 500 or above is no answer.
func ResponseTime(path string, timeout time.Duration) *Each {
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	return &Each{Timeout: timeout, Ask: func(ctx context.Context, s farm.Server) (float64, error) {
		began := time.Now()
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+net.JoinHostPort(s.Private.String(), strconv.Itoa(s.Port))+path, nil)
		if err != nil {
			return 0, err
		}
		resp, err := client.Do(req)
		if err != nil {
			return 0, err
		}
		defer resp.Body.Close()
		if resp.StatusCode >= 500 {
			return 0, fmt.Errorf("GET %s answered %s", path, resp.Status)
		}
		if _, err := io.Copy(io.Discard, io.LimitReader(resp.Body, most)); err != nil {
			return 0, err
		}
		return float64(time.Since(began)) / float64(time.Millisecond), nil
	}}
}

func get(ctx context.Context, client *http.Client, url string) (io.ReadCloser, error) {
	if client == nil {
		client = &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, err
	}
	resp, err := client.Do(req)
	if err != nil {
		return nil, err
	}
	if resp.StatusCode != http.StatusOK {
		resp.Body.Close()
		return nil, fmt.Errorf("%s answered %s", req.URL.Host, resp.Status)
	}
	return resp.Body, nil
}
