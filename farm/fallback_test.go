package farm

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/scalr-go/scalr/provider"
	"github.com/scalr-go/scalr/provider/memcloud"
)

func TestFallbackAndReturn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cloud := testCloud(memcloud.Options{Capacity: map[memcloud.Offering]int{{Placement: "a", Size: "large"}: 1, {Placement: "b", Size: "large"}: 1}})
		spec, config := web(3, 5), testConfig(cloud, testZone())
		spec.Roles[0].Size, spec.Roles[0].Fallback = "large", []string{"small"}
		f, err := New(spec, config)
		require.NoError(t, err)
		require.NoError(t, passes(t.Context(), f, 100, 2))
		where := map[string]int{}
		for _, in := range cloud.World(map[string]string{TagFarm: "shop"}).Instances {
			where[in.Size+" in "+in.Placement]++
		}
		require.Equal(t, map[string]int{"large in a": 1, "large in b": 1, "small in a": 1}, where, "next placement, then next size")

		// The back-off ends: when there is room again, a new machine takes the first choice.
		cloud.SetCapacity("a", "large", 5)
		time.Sleep(2 * time.Minute)
		for _, in := range cloud.World(map[string]string{TagFarm: "shop"}).Instances {
			if in.Size == "small" {
				require.NoError(t, cloud.Fail(in.ID, "hardware"))
			}
		}
		require.NoError(t, passes(t.Context(), f, 100, 2))
		where = map[string]int{}
		for _, in := range cloud.World(map[string]string{TagFarm: "shop"}).Instances {
			where[in.Size+" in "+in.Placement]++
		}
		require.Equal(t, map[string]int{"large in a": 2, "large in b": 1}, where)
	})
}

// TestRetryThatIsRefusedIsNoAnswer loses the reply of a launch and refuses its retry: the machine may be there all the same, so
// that no other pool is tried.
func TestRetryThatIsRefusedIsNoAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cloud := testCloud(memcloud.Options{ListLag: 8 * time.Second})
		calls := 0
		cloud.SetFault(func(_ context.Context, c memcloud.Call) error {
			if c.Method != "Launch" {
				return nil
			}
			if c.After && calls == 0 {
				calls++
				return errors.New("connection reset")
			}
			if !c.After && calls == 1 {
				calls++
				return provider.ErrCapacity
			}
			return nil
		})
		f, err := New(web(1, 1), testConfig(cloud, testZone()))
		require.NoError(t, err)
		require.NoError(t, passes(t.Context(), f, 100, 5))
		launches := 0
		for _, c := range cloud.Changes() {
			if c.Method == "Launch" && c.Tags[TagFarm] == "shop" {
				launches++
			}
		}
		require.Equal(t, 1, launches)
	})
}

// TestErrorsWithoutAReasonFallBack has a pool that answers every launch with a server error.
func TestErrorsWithoutAReasonFallBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		bad, good := testCloud(memcloud.Options{}), testCloud(memcloud.Options{})
		bad.SetFault(func(_ context.Context, c memcloud.Call) error {
			if c.Method == "Launch" && !c.After {
				return errors.New("500 internal server error")
			}
			return nil
		})
		config := testConfig(bad, testZone())
		config.Pools[1] = Pool{Name: "b", Provider: good, Placement: "b"}
		f, err := New(web(2, 2), config)
		require.NoError(t, err)
		require.NoError(t, passes(t.Context(), f, 100, 2))
		require.Len(t, world(good), 2)
		require.LessOrEqual(t, bad.Calls()["Launch"], 12)
	})
}

// TestAPoolThatHasNoNameForAnImage moves a role to a cloud of which nobody has said what its image is called there: the plan says so before
// anything is launched, and afterwards what the cloud answers.
func TestAPoolThatHasNoNameForAnImage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		here, there := testCloud(memcloud.Options{Images: []string{"ami-1"}}), testCloud(memcloud.Options{Images: []string{"other"}})
		spec, config := web(1, 1), testConfig(here, testZone())
		config.Pools = []Pool{{Name: "a", Provider: here, Images: map[string]string{"web": "ami-1"}}, {Name: "b", Provider: there}}
		spec.Roles[0].Pools, spec.Roles[0].Move = []string{"a"}, &Move{}
		f, err := New(spec, config)
		require.NoError(t, err)
		p, err := f.Plan(t.Context())
		require.NoError(t, err)
		require.NotContains(t, p.String(), "as it is called")
		require.NoError(t, passes(t.Context(), f, 100, 2))

		spec.Roles[0].Pools = []string{"b"}
		f, err = New(spec, config)
		require.NoError(t, err)
		p, err = f.Plan(t.Context())
		require.NoError(t, err)
		require.Contains(t, p.String(), `launch-instance www-2 in b: slot www-2 is empty; image "web" is taken as it is called, since Images of pool b does not name it, as that of pool a does`)
		_, err = f.Reconcile(t.Context())
		require.ErrorIs(t, err, provider.ErrInvalid)
		p, err = f.Plan(t.Context())
		require.NoError(t, err)
		require.Contains(t, p.String(), `wait www-2: in b: invalid: Image is "web", want one of ["other"] until `)
		require.Len(t, world(here), 1, "what serves stays")
		require.Empty(t, world(there))

		config.Pools[1].Images = map[string]string{"web": "other"}
		f, err = New(spec, config)
		require.NoError(t, err)
		p, err = f.Plan(t.Context())
		require.NoError(t, err)
		require.NotContains(t, p.String(), "as it is called")
	})
}
