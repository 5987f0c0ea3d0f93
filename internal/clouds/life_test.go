package clouds

import (
	"context"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/scalr-go/scalr"
	"github.com/scalr-go/scalr/farm"
	"github.com/scalr-go/scalr/internal/faultproxy"
	"github.com/scalr-go/scalr/internal/testenv"
	"github.com/scalr-go/scalr/provider"
)

// hours are those of a farm that changes over in two hours, and is open now, or closed.
func hours(open bool) *farm.Hours {
	at := func(d time.Duration) string {
		t := time.Now().UTC().Add(d)
		return fmt.Sprintf("TZ=UTC %d %d * * *", t.Minute(), t.Hour())
	}
	past, next := at(-2*time.Hour), at(2*time.Hour)
	if open {
		return &farm.Hours{Open: past, Close: next}
	}
	return &farm.Hours{Open: next, Close: past}
}

// life closes a farm and opens it, lets its end come, and restores another one from what it leaves, by hosts of which one is killed at
// each kind of change, after its effect. While it is closed, and when it has ended, there is one snapshot and nothing else; what is
// launched afterwards has a volume that has been filled from it.
func life(t *testing.T, h *hosts, names [2]string, open func() provider.Provider, config func(provider.Provider) farm.Config) {
	cloud := open()
	become := func(what string, spec farm.Spec, done func(*farm.Farm) bool) (killed int) {
		t.Helper()
		h.once = map[string]bool{}
		killed, _ = h.work(t, func(ctx context.Context) error {
			ctx, cancel := context.WithTimeout(ctx, patience)
			defer cancel()
			c := config(open())
			c.Interval = 100 * time.Millisecond
			var f *farm.Farm
			reached := make(chan struct{}, 1)
			c.Events = func(e scalr.Event) {
				if e.Kind == farm.Closed {
					reached <- struct{}{}
				}
			}
			f, err := farm.New(spec, c)
			require.NoError(t, err)
			ran := make(chan error, 1)
			go func() { ran <- f.Run(ctx) }()
			for {
				select {
				case err := <-ran: // it has ended, or the host has been killed
					return err
				case <-reached:
					cancel()
					<-ran
					return nil
				case <-time.After(20 * time.Millisecond):
					if done != nil && done(f) {
						cancel()
						<-ran
						return nil
					}
				}
			}
		})
		h.once = nil
		t.Logf("%s: killed %d hosts", what, killed)
		return killed
	}
	v, _ := provider.As[provider.Volumes](cloud)
	serves := func(f *farm.Farm) bool {
		servers := f.Servers("app")
		if len(servers) != 1 || !servers[0].Ready {
			return false
		}
		volumes, err := v.Volumes(t.Context(), map[string]string{farm.TagFarm: f.Spec().Name})
		return err == nil && len(volumes) == 1 && volumes[0].Instance == servers[0].ID
	}
	// kept is the one thing that there is of a farm: a last snapshot.
	kept := func(name, of string) provider.Snapshot {
		t.Helper()
		require.True(t, look(t, cloud, name).empty(), "left over: %+v", look(t, cloud, name))
		by := copies(t, cloud, name)
		require.Len(t, by, 1)
		require.Len(t, by["app-1"], 1)
		last := by["app-1"][0]
		require.True(t, last.Ready)
		require.NotEmpty(t, last.Tags[farm.TagFinal])
		require.Equal(t, of, last.Volume)
		return last
	}
	// filled is the one volume that there is of a farm.
	filled := func(name, from string) string {
		t.Helper()
		volumes, err := v.Volumes(t.Context(), map[string]string{farm.TagFarm: name})
		require.NoError(t, err)
		require.Len(t, volumes, 1)
		require.Equal(t, from, volumes[0].Tags[farm.TagSnapshot])
		has := look(t, cloud, name)
		require.Equal(t, map[string][]string{"app-1": {volumes[0].Instance}}, has.Instances)
		return volumes[0].ID
	}

	spec := store(names[0], farm.Volume{})
	spec.Roles[0].Size, spec.Roles[0].Min, spec.Roles[0].Max = "small", 1, 1
	f, err := farm.New(spec, config(open()))
	require.NoError(t, err)
	require.NoError(t, rest(t.Context(), f))
	first := filled(spec.Name, "")

	spec.Hours = hours(false)
	require.GreaterOrEqual(t, become("close", spec, nil), 3)
	last := kept(spec.Name, first)

	spec.Hours = hours(true)
	require.GreaterOrEqual(t, become("open", spec, serves), 2) // where a launch attaches the volume there is nothing else
	second := filled(spec.Name, last.ID)
	require.NotEqual(t, first, second)

	spec.End = &farm.End{At: time.Now(), TerminateOptions: farm.TerminateOptions{DeleteVolumes: true, FinalSnapshot: true}}
	require.GreaterOrEqual(t, become("end", spec, nil), 3)
	last = kept(spec.Name, second)

	twin := store(names[1], farm.Volume{From: &farm.Source{Farm: spec.Name}})
	twin.Roles[0].Size, twin.Roles[0].Min, twin.Roles[0].Max = "small", 1, 1
	require.GreaterOrEqual(t, become("restore", twin, serves), 2)
	filled(twin.Name, last.ID)
	require.Equal(t, last.ID, kept(spec.Name, second).ID)
	f, err = farm.New(twin, config(open()))
	require.NoError(t, err)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	require.NoError(t, f.Terminate(ctx, farm.TerminateOptions{DeleteVolumes: true}))
	require.True(t, look(t, cloud, twin.Name).empty())
	require.Empty(t, copies(t, cloud, twin.Name))
	s, _ := provider.As[provider.Snapshots](cloud)
	require.NoError(t, s.DeleteSnapshot(t.Context(), last.ID))
}

func TestLifeOfAFarmByKilledHostsOnEC2(t *testing.T) {
	h := &hosts{}
	a := testenv.Moto(t, testenv.MotoOptions{Layers: []faultproxy.Layer{h.layer}})
	a.Proxy.SetFault(h.fault)
	s := onEC2(t, a)
	life(t, h, [2]string{"shop", "dev"}, s.cloud, s.config)
}

func TestLifeOfAFarmByKilledHostsOnOpenStack(t *testing.T) {
	testenv.OpenStack(t)
	h := &hosts{}
	s := onOpenStack(t, h)
	life(t, h, [2]string{own("crash"), own("dev")}, s.cloud, s.config)
}

// takenBack moves web servers up to the point of no return, by a host that is killed when it begins to end the first of them, and takes
// them back, by hosts that are killed at each of their changes, after its effect: here is what was here, and has been all the while, the
// names lead there again, and there is nothing there.
func takenBack(t *testing.T, h *hosts, proxy *faultproxy.Proxy, spec farm.Spec, clouds func() (farm.Config, provider.Provider, provider.Provider)) {
	config, here, there := clouds()
	zone := config.DNS
	program := func(spec farm.Spec) *farm.Farm {
		config, here, there = clouds()
		config.DNS = zone
		f, err := farm.New(spec, config)
		require.NoError(t, err)
		return f
	}
	names := func() map[string][]string {
		records, err := zone.Records(t.Context(), spec.Zone)
		require.NoError(t, err)
		values := map[string][]string{}
		for _, r := range records {
			if r.Type == "A" || r.Type == "CNAME" {
				values[r.Name+" "+r.Type] = slices.Sorted(slices.Values(r.Values))
			}
		}
		return values
	}
	require.NoError(t, rest(t.Context(), program(spec)))
	before, led := look(t, here, spec.Name), names()
	require.NotEmpty(t, led)

	ctx, kill := context.WithCancelCause(t.Context())
	defer kill(nil)
	proxy.SetFault(func(r faultproxy.Request) faultproxy.Fault {
		switch {
		case ctx.Err() != nil:
			return faultproxy.Refuse
		case r.Operation == "TerminateInstances":
			kill(errKilled)
			return faultproxy.Refuse
		}
		return faultproxy.Fault{}
	})
	moving := program(move(t, spec))
	for ctx.Err() == nil {
		require.ErrorIs(t, cmpOr(rest(ctx, moving), errKilled), errKilled)
	}
	proxy.SetFault(h.fault)
	require.Equal(t, before.Instances, look(t, here, spec.Name).Instances)
	other := look(t, there, spec.Name)
	require.Len(t, other.Instances, len(before.Instances))
	for name, values := range names() {
		require.NotEqual(t, led[name], values, "%s still leads here", name)
	}

	back, err := spec.Move(farm.MoveOptions{Pools: []string{"here"}})
	require.NoError(t, err)
	var f *farm.Farm
	killed, all := h.work(t, func(ctx context.Context) error {
		f = program(back)
		for {
			switch err := rest(ctx, f); {
			case err != nil:
				return err
			case look(t, there, spec.Name).empty():
				return nil
			case ctx.Err() != nil:
				return context.Cause(ctx)
			}
		}
	})
	delete(all, "members") // of the balancer that is here, if that is one of an OpenStack
	require.Empty(t, all, "nothing is made to go back")
	require.GreaterOrEqual(t, killed, 3)
	after := look(t, here, spec.Name)
	require.NoError(t, after.settled(spec))
	require.Empty(t, after.ended)
	require.Equal(t, before, after)
	require.Equal(t, led, names())
	require.True(t, look(t, there, spec.Name).empty())

	end, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	require.NoError(t, f.Terminate(end, farm.TerminateOptions{}))
	require.True(t, look(t, here, spec.Name).empty())
}

func cmpOr(err, other error) error {
	if err != nil {
		return err
	}
	return other
}

func TestMoveIsTakenBackOnEC2(t *testing.T) {
	h := &hosts{}
	a := testenv.Moto(t, testenv.MotoOptions{Layers: []faultproxy.Layer{h.layer}})
	takenBack(t, h, a.Proxy, some("shop", 1), func() (farm.Config, provider.Provider, provider.Provider) { return inTwoRegions(t, a) })
}

func TestMoveToOpenStackIsTakenBack(t *testing.T) {
	testenv.OpenStack(t)
	h := &hosts{}
	a := testenv.Moto(t, testenv.MotoOptions{Layers: []faultproxy.Layer{h.layer}})
	amazon, stack := onEC2(t, a), onOpenStack(t, h)
	spec := some(own("crash"), 1)
	spec.Roles[0].Size = "small"
	takenBack(t, h, a.Proxy, spec, func() (farm.Config, provider.Provider, provider.Provider) {
		here, there := amazon.cloud(), stack.cloud()
		pool := amazon.config(here).Pools[0]
		pool.Name = "here"
		return slow(pool, onStack("there", "beta", there)), here, there
	})
}
