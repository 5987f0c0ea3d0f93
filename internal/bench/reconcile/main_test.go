package main

import (
	"bytes"
	"encoding/json"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestRun holds what a pass over a farm at rest allocates and calls, which does not depend on how fast the machine is: one listing
// call, at most two allocations an instance, and no more memory an instance in a large farm than in a small one.
func TestRun(t *testing.T) {
	for _, owns := range []bool{false, true} {
		measure := func(n int) (s map[string]any) {
			var out bytes.Buffer
			require.NoError(t, run(&out, n, 3, false, owns, true, ""))
			require.NoError(t, json.Unmarshal(out.Bytes(), &s))
			require.Equal(t, true, s["summary"])
			require.EqualValues(t, n, s["instances"])
			require.Positive(t, s["pass_ms"])
			require.LessOrEqual(t, s["allocs_per_instance"], 2.)
			calls := 1.
			if owns {
				calls = 3 // those of volumes and addresses
			}
			require.Equal(t, calls, s["api_calls"], "listing calls a pass")
			return s
		}
		small, large := measure(1000), measure(10_000)
		for _, figure := range []string{"bytes_per_instance", "retained_bytes_per_instance"} {
			t.Logf("owns %v: %s: %v, then %v", owns, figure, small[figure], large[figure])
			require.LessOrEqual(t, large[figure], 1.5*small[figure].(float64), figure)
		}
	}
}
