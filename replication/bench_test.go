package replication_test

import (
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/scalr-go/scalr/replication"
	"github.com/scalr-go/scalr/replication/memdb"
)

// BenchmarkFailover measures, in real time and with the default settings, how long it takes from the kill of a primary to
// the first row that its successor acknowledges.
func BenchmarkFailover(b *testing.B) {
	for _, policy := range []replication.Policy{replication.Availability, replication.Durability} {
		b.Run(policy.String(), func(b *testing.B) {
			options := memdb.Options{Latency: 500 * time.Microsecond, Delay: 500 * time.Microsecond}
			w := newWorld(b, 3, options, replication.Config{Policy: policy, Recoveries: 1 << 30})
			w.start()
			w.whole()
			var took []time.Duration
			for i := 0; b.Loop(); i++ {
				took = append(took, failover(w, time.Duration(i)*37*time.Millisecond%(200*time.Millisecond)))
			}
			w.stop()
			report(b, took)
		})
	}
}

// failover kills the primary a while after the set was whole, and waits for the first row of the next one.
func failover(w *world, wait time.Duration) time.Duration {
	top := w.whole()
	w.write(top.Primary, "row")
	time.Sleep(200*time.Millisecond + wait)
	w.db.Crash(w.addr(top.Primary))
	begin := time.Now()
	for {
		next := w.primary(top.Primary)
		if w.db.Write(w.ctx, w.addr(next.Primary), "next", "") == nil {
			break
		}
	}
	took := time.Since(begin)
	w.db.Start(w.addr(top.Primary))
	return took
}

func report(b *testing.B, took []time.Duration) {
	slices.Sort(took)
	b.ReportMetric(float64(took[len(took)/2].Milliseconds()), "median-ms")
	b.ReportMetric(float64(took[len(took)-1].Milliseconds()), "max-ms")
	b.ReportMetric(0, "ns/op")
}

// The time that a failover takes, whenever in the interval the kill comes.
func TestFailoverTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 3, slow, replication.Config{Recoveries: 1 << 30})
		w.start()
		var took []time.Duration
		for i := range 40 {
			took = append(took, failover(w, time.Duration(i)*5*time.Millisecond))
		}
		w.stop()
		slices.Sort(took)
		t.Logf("from %v over %v to %v", took[0], took[len(took)/2], took[len(took)-1])
		if longest := took[len(took)-1]; longest > 400*time.Millisecond {
			t.Errorf("it took up to %v", longest)
		}
	})
}
