package providertest_test

import (
	"context"
	"testing"
	"time"

	"github.com/scalr-go/scalr/provider"
	"github.com/scalr-go/scalr/provider/memcloud"
	"github.com/scalr-go/scalr/provider/providertest"
)

// A driver's test: one more line of Subject for each thing that the suite can check only with its help.
func ExampleRun() {
	TestConformance := func(t *testing.T) {
		providertest.Run(t, func(t *testing.T) providertest.Subject {
			cloud := memcloud.New(memcloud.Options{BootTime: time.Second, Placements: []string{"a", "b"}})
			return providertest.Subject{
				Provider:       cloud,
				Launch:         provider.Launch{Image: "debian-13", Placement: "a"},
				OtherPlacement: "b",
				Write: func(_ context.Context, _ provider.Instance, v provider.Volume, data string) error {
					return cloud.SetContent(v.ID, data)
				},
				Read: func(_ context.Context, _ provider.Instance, v provider.Volume) (string, error) {
					return cloud.Content(v.ID), nil
				},
				Unchecked: map[string]string{"Commands/Run": "its machines run no commands"},
			}
		})
	}
	_ = TestConformance // in a file of its own: func TestConformance(t *testing.T)
	// Output:
}
