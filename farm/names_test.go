package farm

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/scalr-go/scalr/dnsreg"
	"github.com/scalr-go/scalr/farm/scale"
	"github.com/scalr-go/scalr/provider/memcloud"
)

func TestNamesFollowTheMachines(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cloud := testCloud(memcloud.Options{BootTime: 10 * time.Second})
		spec, config := testSpec(), testConfig(cloud, testZone())
		spec.Roles[0].Balancer = nil
		f, err := New(spec, config)
		require.NoError(t, err)
		require.NoError(t, passes(t.Context(), f, 100, 2))
		servers := f.Servers("www")
		require.Len(t, servers, 2)
		var public, private []string
		for _, s := range servers {
			require.True(t, s.Ready)
			require.NotEqual(t, s.Public, s.Private)
			public, private = append(public, s.Public.String()), append(private, s.Private.String())
			require.Equal(t, []string{s.Public.String()}, values(t, config, spec.Zone, s.Name+".shop.example.", "A"))
		}
		slices.Sort(public)
		slices.Sort(private)
		require.Equal(t, public, values(t, config, spec.Zone, "www.shop.example.", "A"))
		require.Equal(t, public, values(t, config, spec.Zone, "shop.example.", "A"))
		require.Equal(t, private, values(t, config, spec.Zone, "int-www.shop.example.", "A"))

		// The index owns the address: its next machine has the same name at the same address.
		before := servers[0]
		require.NoError(t, cloud.Kill(before.ID, "reclaimed"))
		require.NoError(t, passes(t.Context(), f, 100, 20))
		after := f.Servers("www")[0]
		require.NotEqual(t, before.ID, after.ID)
		require.Equal(t, before.Public, after.Public)
		require.Equal(t, before.Index, after.Index)

		// While nobody serves, the names of the service keep what they have.
		for _, s := range f.Servers("www") {
			require.NoError(t, cloud.Fail(s.ID, "hardware"))
		}
		cloud.SetCapacity("", "", 0)
		for range 5 {
			_, _ = f.Reconcile(t.Context())
			time.Sleep(5 * time.Second)
		}
		require.Equal(t, public, values(t, config, spec.Zone, "www.shop.example.", "A"))
	})
}

func TestBalancerGetsTheMachines(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cloud := testCloud(memcloud.Options{BootTime: 10 * time.Second, ReadyTime: 5 * time.Second})
		spec, config := testSpec(), testConfig(cloud, testZone())
		spec.Roles[0].Scale = &Scale{Custom: "mine"}
		want := 3
		config.Policies = map[string]scale.Policy{"mine": scale.Func(func(scale.Input) scale.Decision { return scale.Decision{Desired: want} })}
		f, err := New(spec, config)
		require.NoError(t, err)
		require.NoError(t, passes(t.Context(), f, 100, 2))
		balancers := cloud.World(map[string]string{TagFarm: "shop"}).Balancers
		require.Len(t, balancers, 1)
		require.Len(t, balancers[0].Targets, 3)
		records, err := config.DNS.Records(t.Context(), spec.Zone)
		require.NoError(t, err)
		require.True(t, slices.ContainsFunc(records, func(r dnsreg.RRset) bool {
			return r.Name == "www.shop.example." && slices.ContainsFunc(r.Values, func(v string) bool { return strings.TrimSuffix(v, ".") == balancers[0].Host })
		}), "%v %v", records, balancers[0].Host)

		want = 2
		require.NoError(t, passes(t.Context(), f, 100, 2))
		require.Len(t, cloud.World(map[string]string{TagFarm: "shop"}).Balancers[0].Targets, 2)
		var order []string
		for _, c := range cloud.Changes() {
			if c.Method == "DeregisterTarget" || c.Method == "Terminate" {
				order = append(order, c.Method)
			}
		}
		require.Equal(t, []string{"DeregisterTarget", "Terminate"}, order)
	})
}

// TestDrainComesBeforeTheEnd shrinks a role: first the name goes, and the machine stays for as long as resolvers may keep it.
func TestDrainComesBeforeTheEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cloud := testCloud(memcloud.Options{})
		spec, config := web(1, 3), testConfig(cloud, testZone())
		want := 3
		spec.Roles[0].Scale, spec.Roles[0].Drain = &Scale{Custom: "mine"}, 30*time.Second
		config.Policies = map[string]scale.Policy{"mine": scale.Func(func(scale.Input) scale.Decision { return scale.Decision{Desired: want} })}
		f, err := New(spec, config)
		require.NoError(t, err)
		require.NoError(t, passes(t.Context(), f, 100, 2))
		want = 1
		start := time.Now()
		for time.Since(start) < 29*time.Second {
			_, err := f.Reconcile(t.Context())
			require.NoError(t, err)
			require.Len(t, values(t, config, spec.Zone, "www.shop.example.", "A"), 1)
			require.Len(t, world(cloud), 3)
			time.Sleep(2 * time.Second)
		}
		want = 2 // one that is on its way out is taken back before a new one is launched
		require.NoError(t, passes(t.Context(), f, 100, 2))
		require.Len(t, world(cloud), 2)
		launches := 0
		for _, c := range cloud.Changes() {
			if c.Method == "Launch" && c.Tags[TagFarm] == "shop" {
				launches++
			}
		}
		require.Equal(t, 3, launches)
	})
}

// TestSuccessorInheritsTheAddress leaves the slots 2 and 3 of a role, and loses 3: its successor takes slot 3, though 1 is free.
func TestSuccessorInheritsTheAddress(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cloud := testCloud(memcloud.Options{})
		spec, config := web(2, 3), testConfig(cloud, testZone())
		want := 3
		spec.Roles[0].Address, spec.Roles[0].Scale = true, &Scale{Custom: "mine"}
		spec.Roles[0].Health = &Health{Custom: "check", Failures: 100}
		sick := ""
		config.Checks = map[string]func(context.Context, Server) error{"check": func(_ context.Context, s Server) error {
			if s.ID == sick {
				return errors.New("is sick")
			}
			return nil
		}}
		config.Policies = map[string]scale.Policy{"mine": scale.Func(func(scale.Input) scale.Decision { return scale.Decision{Desired: want} })}
		f, err := New(spec, config)
		require.NoError(t, err)
		require.NoError(t, passes(t.Context(), f, 100, 2))
		sick = f.Servers("www")[0].ID
		_, err = f.Reconcile(t.Context())
		require.NoError(t, err)
		want = 2
		require.NoError(t, passes(t.Context(), f, 100, 2))
		third := f.Servers("www")[1]
		require.Equal(t, "www-3", third.Name)
		require.NoError(t, cloud.Fail(third.ID, "hardware"))
		require.NoError(t, passes(t.Context(), f, 100, 2))
		require.Equal(t, "www-3", f.Servers("www")[1].Name)
		require.Equal(t, third.Public, f.Servers("www")[1].Public)
	})
}

// overtaken is a zone that somebody else brings up to date just before it is read for the second time.
type overtaken struct {
	dnsreg.Registrar
	reads  int
	before func()
}

func (o *overtaken) Records(ctx context.Context, zone string) ([]dnsreg.RRset, error) {
	if o.reads++; o.reads == 2 {
		o.before()
	}
	return o.Registrar.Records(ctx, zone)
}

// Names that have been changed by the time of their step are told of once, by whoever has changed them.
func TestChangedNamesAreToldOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cloud := memcloud.New(memcloud.Options{})
		spec := Spec{Name: "shop", Zone: "shop.example.", Roles: []Role{{Name: "www", Serves: Web, Image: "web", Min: 1, Max: 1}}}
		config := Config{Pools: []Pool{{Name: "a", Provider: cloud}}, DNS: testZone()}
		first, err := New(spec, config)
		require.NoError(t, err)
		_, err = first.Reconcile(t.Context())
		require.NoError(t, err)
		time.Sleep(time.Minute)
		told := record(&config)
		config.DNS = &overtaken{Registrar: config.DNS, before: func() {
			_, err := first.Reconcile(t.Context())
			require.NoError(t, err)
			require.NotEmpty(t, values(t, config, "shop.example.", "www.shop.example.", "A"))
		}}
		second, err := New(spec, config)
		require.NoError(t, err)
		p, err := second.Reconcile(t.Context())
		require.NoError(t, err)
		require.Len(t, p.Steps, 1)
		require.Equal(t, ChangeNames, p.Steps[0].Action)
		require.Empty(t, p.Steps[0].Changes)
		require.NotContains(t, told.kinds(), string(ChangeNames))
	})
}
