package farm

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/scalr-go/scalr/cache"
	"github.com/scalr-go/scalr/farm/scale"
	"github.com/scalr-go/scalr/provider"
	"github.com/scalr-go/scalr/provider/memcloud"
	"github.com/scalr-go/scalr/replication"
)

// bare is a provider without capabilities.
type bare struct{ provider.Provider }

// odd is a provider that cannot be compared.
type odd struct {
	provider.Provider
	_ func()
}

// TestNewReportsEveryFault gives New a spec and a config with a fault in each place, and wants one error that lists them
// all, and no call.
func TestNewReportsEveryFault(t *testing.T) {
	cloud := memcloud.New(memcloud.Options{})
	_, err := New(Spec{
		Name: "Shop!", Zone: "shop_example", TTL: 1500 * time.Millisecond, End: &End{},
		Roles: []Role{
			{Name: "www", Serves: "web2", Image: "i", Min: 3, Max: 2, After: []string{"db", "nobody"}, Main: true, Aliases: []string{"db", "a b"}},
			{Name: "db", Serves: Database, Image: "", Min: 0, Max: 1, After: []string{"cache"}, Volume: &Volume{}, Health: &Health{},
				Balancer: &Balancer{Protocol: "tcp", Port: 1, HealthPath: "x", Drain: -1}},
			{Name: "cache", Serves: Cache, Image: "i", Min: 1, Max: 1, After: []string{"www"}, Main: true, Pools: []string{"far"}, LaunchTimeout: -1},
			{Name: "cache", Image: "i", Min: 1, Max: 1},
			{Name: "app", Image: "i", Min: 1, Max: 1, Port: 70000, Volume: &Volume{SizeGB: 1}, Address: true, Pools: []string{"bare"},
				Balancer: &Balancer{Protocol: "udp"}, Health: &Health{Path: "x", Custom: "y"},
				Scale: &Scale{Target: &scale.Target{Value: -1}}},
			{Name: "www-1", Image: "i", Min: 1, Max: 1, Scale: &Scale{}},
			{Name: "x", Image: "i", Min: 1, Max: 1, Scale: &Scale{Threshold: &scale.Threshold{Metric: "load", Low: 5, High: 2}}, Health: &Health{Custom: "none"}},
			{Name: "y", Image: "i", Min: 1, Max: 1, Scale: &Scale{Custom: "mine"}, Health: &Health{}, Update: &Update{Before: &Made{}}},
		},
	}, Config{
		Pools:     []Pool{{Name: "a", Provider: cloud}, {Name: "a", Provider: cloud}, {Name: "bare", Provider: bare{}}, {Name: "nil", Provider: (*memcloud.Cloud)(nil)}, {Name: "odd", Provider: odd{}}},
		Caches:    map[string]cache.Follower{"memcached": nil},
		Databases: map[string]*replication.Manager{"sql": nil},
		Interval:  -time.Second, ShrinkLimit: 2, Parallel: -1,
	})
	require.Error(t, err)
	for _, want := range []string{
		`spec.name: "Shop!" is no DNS label`,
		`spec.zone: "shop_example" is not absolute`,
		`spec.zone: "shop_example" is no domain name: label "shop_example"`,
		`spec.ttl: 1.5s is no TTL`,
		`spec.end.at: is missing`,
		`spec.roles[7] (y).update.before.image: is empty`,
		`config.Pools[1].Name: "a" is also the name of config.Pools[0]`,
		`config.Pools[3].Provider: is nil`,
		`config.Pools[4].Provider: farm.odd cannot be compared`,
		`spec.roles[1] (db).balancer: is set, but a database's clients`,
		`spec.roles[1] (db).balancer.health_path: "x"`,
		`spec.roles[1] (db).balancer.drain: -1ns is negative`,
		`config.DNS: is nil, but spec.zone is`,
		`config.Interval: -1s is negative`,
		`config.Parallel: -1 is negative`,
		`config.ShrinkLimit: 2 is no share`,
		`config.Databases["sql"]: the spec has no role`,
		`config.Caches["memcached"]: the spec has no role`,
		`spec.roles[0] (www).serves: "web2" is no service`,
		`spec.roles[0] (www).min: min is 3 and max is 2`,
		`spec.roles[0] (www).aliases: "a b" is no DNS label`,
		`spec.roles[0] (www).after: "nobody" is no role`,
		`spec.roles[1] (db).image: is empty`,
		`spec.roles[1] (db): it serves a database, but config.Databases["db"] has no replication.Manager`,
		`spec.roles[1] (db).health: is set`,
		`spec.roles[1] (db).min: 0, want at least 1 for a database`,
		`spec.roles[1] (db).volume.size_gb: 0`,
		`spec.roles[1] (db).name: "db" is a name of role www too`,
		`spec.roles[2] (cache).main: "the zone's apex" is a name of role www too`,
		`spec.roles[2] (cache).pools: "far" is no pool`,
		`spec.roles[2] (cache).launch_timeout: -1ns is negative`,
		`spec.roles[3] (cache).name: "cache" is also the name of spec.roles[2]`,
		`spec.roles[4] (app).port: 70000 is no port`,
		`spec.roles[4] (app).volume: the provider of pool "bare" (farm.bare) has no such capability`,
		`spec.roles[4] (app).address: the provider of pool "bare"`,
		`spec.roles[4] (app).balancer: the provider of pool "bare"`,
		`spec.roles[4] (app).balancer.protocol: "udp", want http or tcp`,
		`spec.roles[4] (app).balancer.port: 0 is no port`,
		`spec.roles[4] (app).health: has both`,
		`spec.roles[4] (app).scale: metric is empty`,
		`spec.roles[4] (app).scale: value is -1`,
		`spec.roles[5] (www-1): the name "www-1" looks like a machine of role www`,
		`spec.roles[5] (www-1).scale: has 0 policies`,
		`spec.roles[6] (x).scale: low is 5 and high is 2`,
		`spec.roles[6] (x).scale: config.Sensors["load"] is missing`,
		`spec.roles[6] (x).health.custom: config.Checks["none"] is missing`,
		`spec.roles[7] (y).scale: config.Policies["mine"] is missing`,
		`spec.roles[7] (y).port: is missing`,
		`the launch order has a cycle: www after db after cache after www`,
	} {
		require.ErrorContains(t, err, want)
	}
	require.Empty(t, cloud.Calls())

	_, err = New(Spec{Name: "shop"}, Config{})
	require.ErrorContains(t, err, "spec.roles: there are none")
	require.ErrorContains(t, err, "config.Pools: there are none")
}

// TestTheTestSpecIsGood keeps the other tests honest: their spec has no fault to begin with.
func TestTheTestSpecIsGood(t *testing.T) {
	_, err := New(testSpec(), testConfig(memcloud.New(memcloud.Options{}), testZone()))
	require.NoError(t, err)
}

func TestPlanShowsAndDoesNothing(t *testing.T) {
	cloud, config := testCloud(memcloud.Options{}), testConfig(nil, testZone())
	config.Pools[0].Provider, config.Pools[1].Provider = cloud, cloud
	f, err := New(testSpec(), config)
	require.NoError(t, err)
	before := cloud.World(nil)
	p, err := f.Plan(t.Context())
	require.NoError(t, err)
	require.Equal(t, before, cloud.World(nil))
	require.Contains(t, p.String(), "create-volume app-1 in a: slot app-1 wants a volume of 1 GB for its machine\n")
	require.Contains(t, p.String(), "wait www-1: waits for role app: 0 of 2 serve\n")
	for _, s := range p.Steps {
		require.NotEmpty(t, s.Reason)
	}
	again, err := f.Plan(t.Context())
	require.NoError(t, err)
	again.Time = p.Time
	require.Equal(t, p, again)
	first, err := f.Reconcile(t.Context())
	require.NoError(t, err)
	require.Contains(t, first.String(), "looks for a volume of an earlier run", "what a pass does first")
}

// TestUserDataStaysSecret looks for the secret in every plan, event and error of a farm.
func TestUserDataStaysSecret(t *testing.T) {
	const secret = "correct horse battery staple"
	cloud, zone := testCloud(memcloud.Options{Quota: memcloud.Quota{Instances: 5}}), testZone()
	config := testConfig(cloud, zone)
	config.ListLag = time.Microsecond
	config.UserData = func(Machine) ([]byte, error) { return []byte(secret), nil }
	events := record(&config)
	f, err := New(testSpec(), config)
	require.NoError(t, err)
	var told strings.Builder
	for range 4 {
		p, err := f.Reconcile(context.Background())
		told.WriteString(p.String())
		if err != nil {
			told.WriteString(err.Error())
		}
	}
	require.Contains(t, told.String(), "quota")
	told.WriteString(events.text())
	require.NotContains(t, told.String(), secret)
	require.NotContains(t, told.String(), "horse")
}
