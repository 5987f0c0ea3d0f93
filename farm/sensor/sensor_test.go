package sensor_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/scalr-go/scalr/farm"
	"github.com/scalr-go/scalr/farm/scale"
	"github.com/scalr-go/scalr/farm/sensor"
	"github.com/scalr-go/scalr/internal/testenv"
)

func server(id string) farm.Server {
	return farm.Server{ID: id, Name: "www-" + id, Private: netip.MustParseAddr("127.0.0.1"), Ready: true}
}

func listen(t *testing.T, h http.HandlerFunc) (farm.Server, *httptest.Server) {
	web := httptest.NewServer(h)
	t.Cleanup(web.Close)
	s := server("a")
	s.Port = int(netip.MustParseAddrPort(web.Listener.Addr().String()).Port())
	return s, web
}

func TestNodeExporter(t *testing.T) {
	scrape := 0
	s, _ := listen(t, func(w http.ResponseWriter, _ *http.Request) {
		scrape++
		fmt.Fprintf(w, "# TYPE node_cpu_seconds_total counter\n"+
			"node_cpu_seconds_total{cpu=\"0\",mode=\"idle\"} %d\nnode_cpu_seconds_total{cpu=\"0\",mode=\"user\"} %d\n"+
			"node_load15 1.5\nnode_memory_MemAvailable_bytes 25\nnode_memory_MemTotal_bytes 100\n", 100+30*scrape, 100+10*scrape)
	})
	read := func(n *sensor.Node) ([]scale.Sample, error) {
		return n.Read(t.Context(), "www", []farm.Server{s})
	}
	cpu := &sensor.Node{Port: s.Port}
	samples, err := read(cpu)
	require.NoError(t, err)
	require.Empty(t, samples, "a counter wants two readings")
	samples, err = read(cpu)
	require.NoError(t, err)
	require.InDelta(t, 25, samples[0].Value, 1e-9)

	samples, err = read(&sensor.Node{Port: s.Port, Value: sensor.Load})
	require.NoError(t, err)
	require.InDelta(t, 1.5, samples[0].Value, 1e-9)
	samples, err = read(&sensor.Node{Port: s.Port, Value: sensor.FreeMemory})
	require.NoError(t, err)
	require.InDelta(t, 25, samples[0].Value, 1e-9)

	samples, err = read(&sensor.Node{Port: s.Port, Value: sensor.Sent})
	require.ErrorContains(t, err, "gives no node_network_transmit_bytes_total")
	require.Empty(t, samples, "missing is missing")
	_, err = read(&sensor.Node{Port: s.Port, Value: "heat"})
	require.ErrorContains(t, err, `value is "heat"`)
}

func TestQuery(t *testing.T) {
	answer := ""
	s, web := listen(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/api/v1/query" || r.URL.Query().Get("query") != "sum(rate(x[1m]))" {
			http.NotFound(w, r)
			return
		}
		fmt.Fprint(w, answer)
	})
	q := sensor.Query{URL: web.URL, Query: "sum(rate(x[1m]))"}
	answer = `{"status":"success","data":{"resultType":"vector","result":[{"metric":{},"value":[1435781451.781,"7.5"]}]}}`
	samples, err := q.Read(t.Context(), "www", nil)
	require.NoError(t, err)
	require.Equal(t, 7.5, samples[0].Value)
	require.Equal(t, int64(1435781451), samples[0].At.Unix(), "it is as old as Prometheus says")

	answer = `{"status":"success","data":{"resultType":"vector","result":[]}}`
	samples, err = q.Read(t.Context(), "www", nil)
	require.NoError(t, err)
	require.Empty(t, samples)

	answer = `{"status":"success","data":{"resultType":"vector","result":[{"metric":{"instance":"127.0.0.1:9100"},"value":[1,"1"]},{"metric":{"instance":"10.0.0.1:9100"},"value":[1,"2"]}]}}`
	_, err = q.Read(t.Context(), "www", nil)
	require.ErrorContains(t, err, "gives 2 elements")
	q.Instance = "instance"
	samples, err = q.Read(t.Context(), "www", []farm.Server{s})
	require.NoError(t, err)
	require.Len(t, samples, 1, "others' instances do not count")
	require.Equal(t, "a", samples[0].Instance)

	answer = `{"status":"error","error":"parse error"}`
	_, err = q.Read(t.Context(), "www", nil)
	require.ErrorContains(t, err, "parse error")
}

func TestResponseTime(t *testing.T) {
	broken := false
	s, _ := listen(t, func(w http.ResponseWriter, _ *http.Request) {
		if broken {
			w.WriteHeader(http.StatusBadGateway)
		}
	})
	e := sensor.ResponseTime("/", 30*time.Second)
	first, err := e.Read(t.Context(), "www", []farm.Server{s})
	require.NoError(t, err)
	require.Positive(t, first[0].Value)
	broken = true
	again, err := e.Read(t.Context(), "www", []farm.Server{s})
	require.ErrorContains(t, err, "502")
	require.Equal(t, first, again, "the last sample, with its age")
}

// TestOneSlowInstance has one that never answers: the others' samples are there, and the call ends.
func TestOneSlowInstance(t *testing.T) {
	e := &sensor.Each{Timeout: 10 * time.Millisecond, Ask: func(ctx context.Context, s farm.Server) (float64, error) {
		if s.ID == "b" {
			<-ctx.Done()
			return 0, ctx.Err()
		}
		return 1, nil
	}}
	samples, err := e.Read(t.Context(), "www", []farm.Server{server("a"), server("b"), server("c")})
	require.ErrorIs(t, err, context.DeadlineExceeded)
	require.Len(t, samples, 2)
}

func TestPercentileAndSmooth(t *testing.T) {
	at := time.Now()
	var samples []scale.Sample
	plain := farm.SensorFunc(func(context.Context, string, []farm.Server) ([]scale.Sample, error) {
		return append([]scale.Sample(nil), samples...), nil
	})
	for i := range 10 {
		samples = append(samples, scale.Sample{Instance: strconv.Itoa(i), Value: float64(10 - i), At: at.Add(time.Duration(i))})
	}
	got, err := sensor.Percentile(plain, 0.9).Read(t.Context(), "www", make([]farm.Server, 10))
	require.NoError(t, err)
	require.Equal(t, []scale.Sample{{Value: 9, At: at}}, got)
	got, err = sensor.Percentile(plain, 0.9).Read(t.Context(), "www", make([]farm.Server, 30))
	require.NoError(t, err)
	require.Empty(t, got, "most are missing")

	smooth := sensor.Smooth(plain, time.Minute)
	samples = []scale.Sample{{Instance: "a", Value: 10, At: at}}
	_, _ = smooth.Read(t.Context(), "www", nil)
	samples = []scale.Sample{{Instance: "a", Value: 20, At: at.Add(time.Minute)}}
	got, _ = smooth.Read(t.Context(), "www", nil)
	require.InDelta(t, 16.32, got[0].Value, 0.01)
}

func TestMemcached(t *testing.T) {
	m := testenv.Memcached(t, 1)[0]
	s := farm.Server{ID: "m", Name: "cache-1", Private: netip.MustParseAddr(m.Host), Port: m.Port}
	samples, err := sensor.Memcached("curr_connections", 30*time.Second).Read(t.Context(), "cache", []farm.Server{s})
	require.NoError(t, err)
	require.GreaterOrEqual(t, samples[0].Value, 1.0)
	_, err = sensor.Memcached("heat", 30*time.Second).Read(t.Context(), "cache", []farm.Server{s})
	require.ErrorContains(t, err, `no stat "heat"`)
}

func ExampleWhole() {
	queue := sensor.Whole(func(context.Context, string) (float64, error) { return 42, nil })
	samples, _ := queue.Read(context.Background(), "worker", nil)
	fmt.Println(samples[0].Value)
	broken := sensor.Whole(func(context.Context, string) (float64, error) { return 0, errors.New("no answer") })
	fmt.Println(broken.Read(context.Background(), "worker", nil))
	// Output:
	// 42
	// [] no answer
}
