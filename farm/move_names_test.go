package farm

import (
	"context"
	"errors"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/scalr-go/scalr/dnsreg"
	"github.com/scalr-go/scalr/provider/memcloud"
)

// refusing is a zone that takes no changes for a while.
type refusing struct {
	*dnsreg.Memory
	refuses bool
}

func (r *refusing) Apply(ctx context.Context, zone string, changes []dnsreg.Change) error {
	if r.refuses {
		return errors.New("503")
	}
	return r.Memory.Apply(ctx, zone, changes)
}

// TestDrainBeginsWhenTheNamesAreGone: the time that clients have begins when the zone has been changed, not when it should have been.
func TestDrainBeginsWhenTheNamesAreGone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cloud := testCloud(memcloud.Options{BootTime: time.Second})
		zone := &refusing{Memory: testZone()}
		spec, config := web(2, 2), testConfig(cloud, zone)
		spec.TTL = 30 * time.Second
		f, err := New(spec, config)
		require.NoError(t, err)
		require.NoError(t, passes(t.Context(), f, 100, 2))
		zone.refuses = true
		spec.Roles[0].Min = 1
		f, err = New(spec, config)
		require.NoError(t, err)
		for range 60 {
			_, err = f.Reconcile(t.Context())
			require.ErrorContains(t, err, "503")
			time.Sleep(2 * time.Second)
		}
		zone.refuses = false
		for range 14 {
			_, err = f.Reconcile(t.Context())
			require.NoError(t, err)
			require.Len(t, world(cloud), 2)
			time.Sleep(2 * time.Second)
		}
		require.NoError(t, passes(t.Context(), f, 100, 2))
		require.Len(t, world(cloud), 1)
	})
}

// TestMoveWaitsOutTheOldTTL moves a role by a spec with a shorter TTL than resolvers have been told before.
func TestMoveWaitsOutTheOldTTL(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cloud := testCloud(memcloud.Options{BootTime: time.Second})
		spec, config := web(2, 2), testConfig(cloud, testZone())
		spec.TTL, spec.Roles[0].Pools = 10*time.Minute, []string{"a"}
		f, err := New(spec, config)
		require.NoError(t, err)
		require.NoError(t, passes(t.Context(), f, 100, 2))
		old := world(cloud)

		spec.TTL, spec.Roles[0].Drain = time.Second, -1
		spec, err = spec.Move(MoveOptions{Pools: []string{"b"}})
		require.NoError(t, err)
		f, err = New(spec, config)
		require.NoError(t, err)
		changed := time.Now()
		turns(t, f, 1000, func() bool {
			return !slices.ContainsFunc(world(cloud), func(id string) bool { return slices.Contains(old, id) })
		})
		require.GreaterOrEqual(t, time.Since(changed), 10*time.Minute)
		require.Less(t, time.Since(changed), 11*time.Minute)
	})
}

// TestMoveWaitsForNameServersThatAreBehind moves a farm whose name servers are a minute behind the zone. To know of them takes
// somebody who asks them.
func TestMoveWaitsForNameServersThatAreBehind(t *testing.T) {
	for _, asked := range []bool{true, false} {
		for _, balanced := range []bool{false, true} {
			synctest.Test(t, func(t *testing.T) {
				w := newTwoClouds(t, memcloud.Options{BootTime: 5 * time.Second})
				spec := movingSpec()
				spec.Roles = spec.Roles[1:]
				spec.Roles[0].After = nil
				if balanced {
					spec.Roles[0].Balancer, spec.Roles[0].Main = &Balancer{Protocol: "tcp", Port: 80}, false
				}
				w.run(t, spec, &host{})
				w.settle(t, spec, "a", time.Minute)
				ctx, cancel := context.WithCancel(t.Context())
				wait := w.use(ctx, spec)
				time.Sleep(2 * time.Minute)
				w.mu.Lock()
				w.behind = time.Minute
				w.mu.Unlock()
				moved, err := spec.Move(MoveOptions{Pools: []string{"b"}})
				require.NoError(t, err)
				if asked {
					w.config.NameServers = []NameServer{w.ask}
				}
				w.run(t, moved, &host{})
				w.settle(t, moved, "b", 10*time.Minute)
				time.Sleep(2 * time.Minute)
				cancel()
				wait()
				require.Equal(t, asked, len(w.wrong) == 0, "%v", w.wrong)
				w.stop()
			})
		}
	}
}
