package sensor_test

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/scalr-go/scalr/farm"
	"github.com/scalr-go/scalr/farm/scale"
	"github.com/scalr-go/scalr/farm/sensor"
	"github.com/scalr-go/scalr/internal/testenv"
	"github.com/scalr-go/scalr/provider"
	"github.com/scalr-go/scalr/provider/local"
)

// eventually reads until there are samples, which a program that has just begun may not have.
func eventually(t *testing.T, s farm.Sensor, servers ...farm.Server) []scale.Sample {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(50 * time.Millisecond) {
		samples, err := s.Read(t.Context(), "www", servers)
		if err == nil && len(samples) > 0 {
			return samples
		}
		if time.Now().After(deadline) {
			t.Fatalf("no sample: %v", err)
		}
	}
}

// A node_exporter and a Prometheus that reads it tell of this machine what the machine itself does.
func TestRealExporterAndPrometheus(t *testing.T) {
	programs := testenv.Need(t, "prometheus-node-exporter", "prometheus")
	nodePort, promPort := testenv.FreePort(t), testenv.FreePort(t)
	var node string // the address of the exporter
	cloud := testenv.Cloud(t, map[string]local.Image{
		"node": {Command: func(m local.Machine) local.Command {
			return local.Command{Args: []string{programs[0], fmt.Sprintf("--web.listen-address=%s:%d", m.Addr, nodePort)}}
		}},
		"prometheus": {
			Prepare: func(_ context.Context, m local.Machine) error {
				config := fmt.Sprintf("global:\n  scrape_interval: 100ms\n  scrape_timeout: 100ms\nscrape_configs:\n- job_name: node\n  static_configs:\n  - targets: ['%s:%d']\n", node, nodePort)
				return os.WriteFile(filepath.Join(m.Dir, "prometheus.yml"), []byte(config), 0o600)
			},
			Command: func(m local.Machine) local.Command {
				return local.Command{Args: []string{programs[1], "--config.file=prometheus.yml", "--storage.tsdb.path=data",
					fmt.Sprintf("--web.listen-address=%s:%d", m.Addr, promPort)}}
			},
		},
	})
	launch := func(image string) farm.Server {
		i, err := cloud.Launch(t.Context(), provider.Launch{Token: image, Name: image, Image: image, Size: "small"})
		require.NoError(t, err)
		return farm.Server{ID: i.ID, Name: image, Private: i.Private}
	}
	one := launch("node")
	node = one.Private.String()
	read := func(v sensor.Value) float64 {
		t.Helper()
		samples := eventually(t, &sensor.Node{Value: v, Port: nodePort}, one)
		require.Equal(t, one.ID, samples[0].Instance)
		return samples[0].Value
	}
	loads, err := os.ReadFile("/proc/loadavg")
	require.NoError(t, err)
	load, err := strconv.ParseFloat(strings.Fields(string(loads))[2], 64)
	require.NoError(t, err)
	require.InDelta(t, load, read(sensor.Load), 1, "the third number of /proc/loadavg")
	free := read(sensor.FreeMemory)
	require.True(t, free > 0 && free < 100, "%v %% of the memory are free", free)
	require.GreaterOrEqual(t, read(sensor.Sent), 0.0)

	// One core is kept busy between two readings.
	cpu := &sensor.Node{Port: nodePort}
	_, err = cpu.Read(t.Context(), "www", []farm.Server{one})
	require.NoError(t, err)
	for end := time.Now().Add(time.Second); time.Now().Before(end); {
	}
	used := eventually(t, cpu, one)[0].Value
	require.True(t, used > 30/float64(runtime.NumCPU()) && used <= 100.5, "%v %% of the cores are used", used)

	url := "http://" + net.JoinHostPort(launch("prometheus").Private.String(), strconv.Itoa(promPort))
	samples := eventually(t, sensor.Query{URL: url, Query: "node_load15", Instance: "instance"}, one)
	require.Equal(t, one.ID, samples[0].Instance)
	require.InDelta(t, load, samples[0].Value, 1)
	require.WithinDuration(t, time.Now(), samples[0].At, time.Minute)
	samples = eventually(t, sensor.Query{URL: url, Query: "sum(node_load15)"})
	require.Empty(t, samples[0].Instance)
	samples, err = sensor.Query{URL: url, Query: "node_load15", Instance: "instance"}.Read(t.Context(), "www",
		[]farm.Server{{ID: "i-other", Private: netip.MustParseAddr("127.0.0.9")}})
	require.NoError(t, err)
	require.Empty(t, samples, "an instance that the server does not know")
	_, err = sensor.Query{URL: url, Query: "sum("}.Read(t.Context(), "www", nil)
	require.ErrorContains(t, err, "400")
	_, err = sensor.Query{URL: url, Query: "node_cpu_seconds_total"}.Read(t.Context(), "www", nil)
	require.ErrorContains(t, err, "elements, want one")
}
