//go:build linux

package local_test

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/scalr-go/scalr/internal/testenv"
	"github.com/scalr-go/scalr/provider"
	"github.com/scalr-go/scalr/provider/local"
	"github.com/scalr-go/scalr/provider/providertest"
)

func TestConformance(t *testing.T) {
	unchecked := map[string]string{"Volumes/OtherPlacement": "there is one placement"}
	if _, err := local.FindProgram("haproxy", "haproxy"); err != nil && os.Getenv("CI") != "true" {
		for _, name := range []string{"SameToken", "SameTokenAtOnce", "OtherParameters", "BadRequest", "List", "EndTwice", "ContextEnded",
			"LostReply", "AnotherProcess", "Targets", "Refused"} {
			unchecked["Balancers/"+name] = err.Error()
		}
	}
	providertest.Run(t, func(t *testing.T) providertest.Subject {
		o := local.Options{Dir: testenv.Dir(t), Images: map[string]local.Image{"server": serverImage()}, Sizes: []string{"small"}}
		c := newCloud(t, o)
		return providertest.Subject{
			Provider: c,
			Another:  func() provider.Provider { return newCloud(t, o) },
			Launch:   provider.Launch{Image: "server", Size: "small"},
			Alive:    func(i provider.Instance) bool { return len(testenv.Processes(i.ID)) > 0 },
			// Data is written by a process of the instance, to where its directory has the volume, and read where the
			// volume says that it is.
			Write: func(ctx context.Context, i provider.Instance, v provider.Volume, data string) error {
				r, err := c.RunCommand(ctx, i.ID, provider.Command{Args: []string{"tee", "volumes/" + v.ID + "/data"}, Stdin: strings.NewReader(data)})
				if err == nil && r.Exit != 0 {
					err = errors.New(string(r.Output))
				}
				return err
			},
			Read: func(_ context.Context, _ provider.Instance, v provider.Volume) (string, error) {
				data, err := os.ReadFile(filepath.Join(v.Device, "data"))
				if errors.Is(err, fs.ErrNotExist) {
					return "", nil
				}
				return string(data), err
			},
			Balancer:  provider.BalancerSpec{Port: 8081, TargetPort: 8080},
			Unchecked: unchecked,
		}
	})
}

func newCloud(t *testing.T, o local.Options) *local.Cloud {
	c, err := local.New(o)
	require.NoError(t, err)
	return c
}
