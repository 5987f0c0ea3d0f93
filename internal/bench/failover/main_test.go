package main

import (
	"encoding/json"
	"errors"
	"testing"

	"github.com/stretchr/testify/require"
)

// A summary says what was promised and whether it was kept, and why there are no more runs; how fast it was fails nobody.
func TestSummary(t *testing.T) {
	for _, c := range []struct {
		mode        string
		ms          []float64
		rejoin      float64
		bound       any
		met         any
		rejoinBound any
		rejoinMet   any
	}{
		{"kill", []float64{900, 950, 3000}, 4999, 1000.0, true, 5000.0, true},
		{"kill", []float64{900, 1050, 3000}, 5001, 1000.0, false, 5000.0, false},
		{"hang", []float64{2900, 2950}, 10, 3000.0, true, 5000.0, true},
		{"hang", []float64{2900, 3950}, 10, 3000.0, false, 5000.0, true},
		{"switchover", []float64{50, 60, 151}, 0, 150.0, false, nil, nil},
		{"switchover", []float64{50, 60, 149}, 0, 150.0, true, nil, nil},
		{"lag", []float64{50}, 70, nil, nil, 5000.0, true},
		{"chaos", []float64{50}, 7000, nil, nil, nil, nil},
		{"kill", nil, 0, nil, nil, nil, nil},
	} {
		s := summary{Summary: true, Mode: c.mode, Policy: "durability"}
		for _, ms := range c.ms {
			s.add(result{Ms: ms, Rejoin: c.rejoin})
		}
		s.finish(nil)
		require.NoError(t, s.verdict())
		line, err := json.Marshal(s)
		require.NoError(t, err)
		var got map[string]any
		require.NoError(t, json.Unmarshal(line, &got))
		for name, want := range map[string]any{"bound_ms": c.bound, "met": c.met, "rejoin_bound_ms": c.rejoinBound, "rejoin_met": c.rejoinMet,
			"error": nil} {
			require.Equal(t, want, got[name], "%s of %s", name, line)
		}
	}
	s := summary{}
	s.finish(errors.New("run 2: the set is not whole"))
	line, err := json.Marshal(s)
	require.NoError(t, err)
	require.Contains(t, string(line), `"error":"run 2: the set is not whole"`)
}
