package replication_test

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/scalr-go/scalr/replication"
	"github.com/scalr-go/scalr/replication/memdb"
)

// What the old primary wrote last is still on its way when it is fenced: the switchover looks for it more often than
// members are looked at otherwise, since nobody can write meanwhile.
func TestSwitchoverDoesNotWaitForTheInterval(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const interval = 4 * time.Second
		w := newWorld(t, 3, memdb.Options{Latency: time.Millisecond, Delay: interval / 8, Apply: time.Millisecond}, replication.Config{Interval: interval})
		w.start()
		w.whole()
		w.write("db-1", "last")
		began := time.Now()
		require.NoError(t, w.manager().Switchover(w.ctx, "db-2"))
		require.Less(t, time.Since(began), interval/2)
		require.Contains(t, w.rows("db-2"), "last")
		w.stop()
	})
}
