package nameserver

import (
	"runtime"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/scalr-go/scalr/dnsreg"
)

// A change allocates about as much in a large zone as in a small one: what it changes, and the way to it.
func TestAChangeCostsWhatItChanges(t *testing.T) {
	cost := func(size int) uint64 {
		s := newServer(t, "")
		changes := make([]dnsreg.Change, size)
		for i := range changes {
			r := address(i, i)
			changes[i] = dnsreg.Change{Name: r.Name, Type: r.Type, New: r}
		}
		require.NoError(t, s.Apply(t.Context(), zoneName, changes))
		const n = 200
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		for i := range n {
			old, new := address(i, i), address(i, i+size)
			require.NoError(t, s.Apply(t.Context(), zoneName, []dnsreg.Change{{Name: old.Name, Type: "A", Old: old, New: new}}))
		}
		runtime.ReadMemStats(&after)
		return (after.TotalAlloc - before.TotalAlloc) / n
	}
	small, large := cost(300), cost(60_000)
	t.Logf("%d bytes in a zone of 300 names, %d in one of 60000", small, large)
	require.Less(t, large, 4*small)
}
