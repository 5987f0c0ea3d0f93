package nameserver

import (
	"os"
	"runtime"
	"strconv"
	"testing"
	"time"

	"github.com/miekg/dns"
	"github.com/stretchr/testify/require"

	"github.com/scalr-go/scalr/dnsreg"
)

// A change allocates about as much in a large zone as in a small one: what it changes, and the way to it. It is answered, and
// goes to secondaries by itself. The long form sets DNS_NAMES=1000000.
func TestAChangeCostsWhatItChanges(t *testing.T) {
	names := 60_000
	if long := os.Getenv("DNS_NAMES"); long != "" {
		var err error
		names, err = strconv.Atoi(long)
		require.NoError(t, err)
	}
	cost := func(size int) uint64 {
		s := keyed(t, 1000)
		var before, after runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&before)
		changes := make([]dnsreg.Change, size)
		for i := range changes {
			r := address(i, i)
			changes[i] = dnsreg.Change{Name: r.Name, Type: r.Type, New: r}
		}
		begin := time.Now()
		require.NoError(t, s.Apply(t.Context(), zoneName, changes))
		loaded := time.Since(begin)
		changes = nil
		runtime.GC()
		runtime.ReadMemStats(&after)
		heap := (after.HeapAlloc - before.HeapAlloc) / uint64(size)

		const n = 200
		runtime.ReadMemStats(&before)
		begin = time.Now()
		for i := range n {
			old, new := address(i, i), address(i, i+size)
			require.NoError(t, s.Apply(t.Context(), zoneName, []dnsreg.Change{{Name: old.Name, Type: "A", Old: old, New: new}}))
		}
		took := time.Since(begin) / n
		runtime.ReadMemStats(&after)
		bytes := (after.TotalAlloc - before.TotalAlloc) / n

		last := address(n-1, n-1+size)
		answer := asked(t, s, new(dns.Msg).SetQuestion(last.Name, dns.TypeA), readKey, false)
		require.Equal(t, last.Values[0], answer[0].Answer[0].(*dns.A).A.String())
		require.Len(t, records(asked(t, s, ixfr(s.names[zoneName].snap.Load().serial-1), readKey, true)), 6, "4 SOA, what goes and what comes")
		begin = time.Now()
		list, err := s.Records(t.Context(), zoneName)
		require.NoError(t, err)
		require.Len(t, list, size+2)
		t.Logf("%d names: loaded in %v, %d bytes of heap each; a change takes %v and %d bytes; all are listed in %v", size, loaded,
			heap, took, bytes, time.Since(begin))
		return bytes
	}
	small, large := cost(300), cost(names)
	require.Less(t, large, 4*small)
}
