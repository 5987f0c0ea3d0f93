package farm

import (
	"context"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/scalr-go/scalr/cronlock"
	"github.com/scalr-go/scalr/provider/memcloud"
)

// Three programs divide twelve farms. One of them dies, and the others take up its farms; each farm is run by one program
// at any time, and no program runs more than it has room for.
func TestFarmsAreDivided(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cloud := memcloud.New(memcloud.Options{})
		locks := &cronlock.Memory{}
		const farms, hosts, most = 12, 3, 6
		var stops []context.CancelFunc
		done := make(chan error, hosts)
		var mine [hosts][]*Farm
		for h := range hosts {
			for i := range farms {
				config := Config{Pools: []Pool{{Name: "a", Provider: cloud}}, Locker: locks, ListLag: time.Second}
				f, err := New(Spec{Name: fmt.Sprint("farm-", i), Roles: []Role{{Name: "www", Image: "web", Min: 1, Max: 1}}}, config)
				require.NoError(t, err)
				mine[h] = append(mine[h], f)
			}
			ctx, stop := context.WithCancel(t.Context())
			stops = append(stops, stop)
			go func() { done <- RunAll(ctx, most, mine[h]...) }()
		}
		runs := func() (each [hosts]int) {
			by := map[string]int{}
			for h := range hosts {
				for _, f := range mine[h] {
					if len(f.Servers("")) > 0 {
						by[f.spec.Name]++
						each[h]++
					}
				}
				require.LessOrEqual(t, each[h], most)
			}
			for name, n := range by {
				require.Equal(t, 1, n, name)
			}
			return each
		}
		time.Sleep(time.Minute)
		each := runs()
		require.Equal(t, farms, each[0]+each[1]+each[2])
		busiest := 0
		for h := range each {
			if each[h] > each[busiest] {
				busiest = h
			}
		}
		stops[busiest]()
		require.ErrorIs(t, <-done, context.Canceled)
		for _, f := range mine[busiest] {
			f.forget()
			f.servers = roster{} // the program is gone
		}
		time.Sleep(time.Minute)
		each = runs()
		require.Zero(t, each[busiest])
		require.Equal(t, farms, each[0]+each[1]+each[2])
		require.Len(t, cloud.World(nil).Instances, farms)
		for _, stop := range stops {
			stop()
		}
		<-done
		<-done
	})
}

func TestRunAllRefuses(t *testing.T) {
	f, err := New(web(1, 1), testConfig(testCloud(memcloud.Options{}), testZone()))
	require.NoError(t, err)
	require.ErrorContains(t, RunAll(t.Context(), -1, f), "most is -1")
	err = RunAll(t.Context(), 0, f, f)
	require.ErrorContains(t, err, "farms[0] (shop): its config has no Locker")
	require.ErrorContains(t, err, "farms[1]: farm shop is there twice")
}
