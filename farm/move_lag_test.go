package farm

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/scalr-go/scalr/provider/memcloud"
)

// A move waits, and says so, while every replica there is half a second behind, since writes would wait for as long.
func TestMoveWaitsForAReplicaThatIsNear(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newTwoClouds(t, memcloud.Options{BootTime: time.Second, ReadyTime: time.Second, TerminateTime: time.Second})
		spec := movingSpec()
		w.run(t, spec, &host{})
		w.settle(t, spec, "a", time.Minute)
		ctx, cancel := context.WithCancel(t.Context())
		wait := w.use(ctx, spec)
		moved, err := spec.Move(MoveOptions{Pools: []string{"b"}, Move: Move{Hold: true, DeleteVolumes: true}})
		require.NoError(t, err)
		w.run(t, moved, &host{})
		time.Sleep(time.Minute)
		delay := func(d time.Duration) {
			for _, s := range w.farm.Servers("db") {
				if s.Pool == "b" {
					w.db.Delay(s.Private.String()+":3306", d)
				}
			}
		}
		delay(500 * time.Millisecond)
		moved.Roles[0].Move.Hold, moved.Roles[1].Move.Hold = false, false
		w.run(t, moved, &host{})
		time.Sleep(time.Minute)
		p, err := w.farm.Plan(ctx)
		require.NoError(t, err)
		require.Empty(t, p.Steps, "%s", p)
		require.Regexp(t, `wait db: moves to pool b: waits until a replica there is less than 250ms behind: db-\d is \d{3}ms`, p.String())
		delay(0)
		w.settle(t, moved, "b", 2*time.Minute)
		cancel()
		wait()
		require.Less(t, w.pause, 500*time.Millisecond)
		w.stop()
	})
}
