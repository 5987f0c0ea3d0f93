package clouds

import (
	"context"
	"errors"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/scalr-go/scalr"
	"github.com/scalr-go/scalr/dnsreg"
	"github.com/scalr-go/scalr/farm"
	"github.com/scalr-go/scalr/internal/testenv"
	"github.com/scalr-go/scalr/provider"
)

// badImage updates web servers to an image whose machines do not come to serve, and to one that does not exist: the update stops at
// the first, and the role goes on whole, of what it had. A machine is given up that does not serve within the time-out.
func badImage(t *testing.T, s subject, name, missing string, timeout time.Duration) {
	cloud := s.cloud()
	var zone dnsreg.Registrar
	var mu sync.Mutex
	told := map[scalr.Kind]int{}
	launched := map[string]bool{} // of what does not serve
	var events []scalr.Event
	t.Cleanup(func() {
		for _, e := range events {
			if t.Failed() {
				t.Log(e)
			}
		}
	})
	bad, images := "", map[string]string{} // of instances
	program := func(spec farm.Spec) *farm.Farm {
		config := s.config(cloud)
		if zone == nil {
			zone = config.DNS
		}
		config.DNS = zone
		config.Events = func(e scalr.Event) {
			mu.Lock()
			defer mu.Unlock()
			told[e.Kind]++
			events = append(events, e)
		}
		config.Checks = map[string]func(context.Context, farm.Server) error{"serves": func(ctx context.Context, s farm.Server) error {
			mu.Lock()
			image := images[s.ID]
			mu.Unlock()
			if image == "" {
				in, err := cloud.Instances(ctx, map[string]string{farm.TagFarm: spec.Name})
				if err != nil {
					return err
				}
				mu.Lock()
				for _, in := range in {
					images[in.ID] = in.Image
				}
				image = images[s.ID]
				mu.Unlock()
			}
			if image == bad {
				return errors.New("it does not serve")
			}
			return nil
		}}
		f, err := farm.New(spec, config)
		require.NoError(t, err)
		return f
	}
	spec := some(name, 1)
	spec.Roles[0].Min, spec.Roles[0].Max, spec.Roles[0].Size, spec.Roles[0].Pools = 3, 3, "small", nil
	spec.Roles[0].Health, spec.Roles[0].LaunchTimeout = &farm.Health{Custom: "serves"}, timeout
	spec.Roles[0].Update = &farm.Update{}
	require.NoError(t, rest(t.Context(), program(spec)))
	before := look(t, cloud, spec.Name)
	require.NoError(t, before.settled(spec))
	shelf, _ := provider.As[provider.Images](cloud)
	image, err := shelf.CreateImage(t.Context(), provider.ImageSpec{Token: "bad-" + name, Name: "bad-" + name, Instance: before.Instances["www-1"][0]})
	require.NoError(t, err)

	for name, id := range map[string]string{"does not serve": image.ID, "does not exist": missing} {
		t.Run(name, func(t *testing.T) {
			bad = id
			before := look(t, cloud, spec.Name)
			mu.Lock()
			clear(told)
			clear(launched)
			mu.Unlock()
			spec := spec
			spec.Roles = slices.Clone(spec.Roles)
			spec.Roles[0].Image = bad
			f := program(spec)
			s.proxy.SetFault((&host{lose: 5}).fault)
			defer s.proxy.SetFault(nil)
			ctx, cancel := context.WithTimeout(t.Context(), patience)
			defer cancel()
			serving := func() (n int) {
				for _, x := range f.Servers("www") {
					if x.Ready {
						n++
					}
				}
				return n
			}
			for {
				p, err := f.Reconcile(ctx)
				require.NoError(t, ctx.Err(), "%v\n%s", err, p)
				require.GreaterOrEqual(t, serving(), 2, "all others serve")
				list, err := cloud.Instances(ctx, map[string]string{farm.TagFarm: spec.Name})
				if err != nil {
					continue
				}
				for _, in := range list {
					if in.Image == bad {
						launched[in.ID] = true
					}
				}
				mu.Lock()
				failed := told[farm.UpdateFailed] > 0
				mu.Unlock()
				if failed && serving() == 3 && strings.Contains(p.String(), "are outdated and stay so") && len(p.Steps) == 0 {
					break
				}
				time.Sleep(50 * time.Millisecond)
			}
			require.Len(t, launched, map[string]int{"does not serve": 1}[name], "one machine is tried, and no more")
			s.proxy.SetFault(nil)
			after := look(t, cloud, spec.Name)
			require.NoError(t, after.settled(spec))
			require.Equal(t, before.Addresses, after.Addresses)
			kept := 0
			for slot := range maps.Keys(before.Instances) {
				if slices.Equal(before.Instances[slot], after.Instances[slot]) {
					kept++
				}
			}
			require.Equal(t, 2, kept, "one machine has made way, and no more")
			mu.Lock()
			defer mu.Unlock()
			require.Equal(t, 1, told[farm.UpdateFailed])
		})
	}
	f := program(spec)
	require.NoError(t, rest(t.Context(), f))
	require.NoError(t, f.Terminate(t.Context(), farm.TerminateOptions{}))
	require.True(t, look(t, cloud, spec.Name).empty())
	require.NoError(t, shelf.DeleteImage(t.Context(), image.ID))
}

func TestBadImageOnEC2(t *testing.T) {
	badImage(t, onEC2(t, testenv.Moto(t, testenv.MotoOptions{})), "shop", "ami-00000000000000bad", 3*time.Second)
}

func TestBadImageOnOpenStack(t *testing.T) {
	testenv.OpenStack(t)
	badImage(t, onOpenStack(t, &hosts{}), own("bad"), "00000000-0000-0000-0000-000000000bad", time.Minute)
}
