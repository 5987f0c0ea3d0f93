package farm

import (
	"context"
	"errors"
	"maps"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/scalr-go/scalr/provider"
	"github.com/scalr-go/scalr/provider/memcloud"
)

// noting is a cloud that keeps what its machines were launched with.
type noting struct {
	*memcloud.Cloud
	data map[string]string // by instance
}

func (n *noting) Launch(ctx context.Context, l provider.Launch) (provider.Instance, error) {
	in, err := n.Cloud.Launch(ctx, l)
	if err == nil {
		n.data[in.ID] = string(l.UserData)
	}
	return in, err
}

// Bad user data is taken back as a bad image is, where the spec says what it was; what cannot be taken back is told, and the machine
// does not pass for one of the old build.
func TestBadUserDataIsTakenBack(t *testing.T) {
	build := func(in provider.Instance) string { return in.Tags[TagBuild] }
	for name, c := range map[string]struct {
		change func(*Role, *Config)
		before *Made
		image  string
		data   string
		same   bool // the build that the others have
	}{
		"with Before": {func(r *Role, _ *Config) { r.UserData = "bad" }, &Made{Image: "web", UserData: "good"}, "web", "good", true},
		"by version": {func(r *Role, c *Config) {
			r.UserData, r.Version = "", "2"
			c.UserData = func(m Machine) ([]byte, error) {
				return []byte(map[string]string{"": "good", "2": "bad"}[m.Version]), nil
			}
		}, &Made{Image: "web", UserData: "good"}, "web", "good", true},
		"with Before of another image": {func(r *Role, _ *Config) { r.UserData, r.Image = "bad", "web-2" }, &Made{Image: "web", UserData: "good"}, "web", "good", true},
		"image alone, without Before":  {func(r *Role, _ *Config) { r.Image = "broken-web" }, nil, "web", "good", true},
		"both, without Before":         {func(r *Role, _ *Config) { r.Image, r.UserData = "broken-web", "new" }, nil, "web", "new", false},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				cloud := &noting{testCloud(memcloud.Options{BootTime: 10 * time.Second}), map[string]string{}}
				r := &rolling{cloud: cloud.Cloud, spec: web(3, 3)}
				r.config = testConfig(cloud, testZone())
				r.events = record(&r.config)
				role := &r.spec.Roles[0]
				role.UserData, role.Update, role.Health, role.LaunchTimeout = "good", &Update{}, &Health{Custom: "check"}, time.Minute
				r.config.Checks = map[string]func(context.Context, Server) error{"check": func(_ context.Context, s Server) error {
					for _, in := range cloud.World(nil).Instances {
						if in.ID == s.ID && (strings.HasPrefix(in.Image, "broken") || cloud.data[in.ID] == "bad") {
							return errors.New("exec format error")
						}
					}
					return nil
				}}
				r.start(t)
				require.NoError(t, passes(t.Context(), r.farm, 200, 2))
				first := world(r.cloud)
				good := build(r.cloud.World(map[string]string{TagFarm: "shop"}).Instances[0])
				c.change(role, &r.config)
				role.Update.Before = c.before
				r.start(t)
				turns(t, r.farm, 1000, func() bool {
					return slices.Contains(r.events.kinds(), string(UpdateFailed)) && maps.Equal(r.images(), map[string]int{"web": 3})
				})
				for _, in := range r.cloud.World(map[string]string{TagFarm: "shop"}).Instances {
					if !slices.Contains(first, in.ID) {
						require.Equal(t, c.image, in.Image)
						require.Equal(t, c.data, cloud.data[in.ID])
						require.Equal(t, c.same, build(in) == good, "%s", in.Tags)
					}
				}
				require.Equal(t, !c.same, strings.Contains(r.events.text(), "Update.Before does not say what it was"), r.events.text())
				for range 100 {
					p, err := r.farm.Reconcile(t.Context())
					require.NoError(t, err)
					require.True(t, p.Empty(), "%s", p)
					time.Sleep(10 * time.Second)
				}
				// The spec is taken back as well: only what is not as it was is replaced.
				role.Image, role.UserData, role.Version, role.Update.Before, r.config.UserData = "web", "good", "", nil, nil
				r.start(t)
				require.NoError(t, passes(t.Context(), r.farm, 200, 2))
				kept := 0
				for _, in := range r.cloud.World(map[string]string{TagFarm: "shop"}).Instances {
					require.Equal(t, "good", cloud.data[in.ID])
					if slices.Contains(first, in.ID) {
						kept++
					}
				}
				require.Equal(t, 2, kept)
			})
		})
	}
}
