package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// TestRun measures a small trace: two days of a sine, with a rush each noon.
func TestRun(t *testing.T) {
	var csv strings.Builder
	csv.WriteString("t_s,requests\n")
	for i := range 2 * 288 {
		load := 1000 + 800*math.Sin(float64(i)/288*2*math.Pi)
		if i%288 > 140 && i%288 < 150 {
			load += 1500
		}
		fmt.Fprintf(&csv, "%d,%.0f\n", i*300, load)
	}
	path := filepath.Join(t.TempDir(), "trace.csv")
	require.NoError(t, os.WriteFile(path, []byte(csv.String()), 0o600))
	o := options{trace: path, train: 0.5, instances: 20, json: true}
	require.NoError(t, o.parse("3m", "0.01"))
	var out bytes.Buffer
	require.NoError(t, run(o, &out))

	lines := strings.Split(strings.TrimSpace(out.String()), "\n")
	require.Len(t, lines, 7, "the default, five baselines and the summary")
	policies := map[string]row{}
	for _, l := range lines[:6] {
		var r row
		require.NoError(t, json.Unmarshal([]byte(l), &r))
		policies[r.Policy] = r
		require.Greater(t, r.CostRatio, 0.5, r.Policy)
		require.Equal(t, (3 * time.Minute).Seconds(), r.BootS)
	}
	require.Contains(t, policies, "default")
	require.True(t, policies["static-peak"].Kept)
	require.LessOrEqual(t, policies["static-peak"].Excess, 0.01, "both days are the same")
	require.Less(t, policies["static-peak"].Knob, 19., "what the budget allows to lack")
	require.Greater(t, policies["static-peak"].CostRatio, policies["hpa"].CostRatio)
	var s summary
	require.NoError(t, json.Unmarshal([]byte(lines[6]), &s))
	require.True(t, s.Summary)
	require.Len(t, s.Compared, 1)
}

func TestOptions(t *testing.T) {
	var o options
	err := o.parse("soon", "2")
	require.ErrorContains(t, err, `-boot: "soon" is no duration`)
	require.ErrorContains(t, err, `-budget: "2" is no share`)
	require.ErrorContains(t, err, "-trace: is missing")
}
