//go:build linux

package local_test

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/scalr-go/scalr/internal/testenv"
	"github.com/scalr-go/scalr/provider"
	"github.com/scalr-go/scalr/provider/local"
)

func BenchmarkLaunchTerminate(b *testing.B) {
	c, err := local.New(local.Options{Dir: testenv.Dir(b), Images: map[string]local.Image{"sleep": sleepImage()}})
	require.NoError(b, err)
	n := 0
	for b.Loop() {
		n++
		i, err := c.Launch(b.Context(), provider.Launch{Token: fmt.Sprint("t", n), Image: "sleep"})
		require.NoError(b, err)
		require.NoError(b, c.Terminate(b.Context(), i.ID))
	}
}

func BenchmarkInstances(b *testing.B) {
	c, err := local.New(local.Options{Dir: testenv.Dir(b), Images: map[string]local.Image{"sleep": sleepImage()}})
	require.NoError(b, err)
	for n := range 20 {
		i, err := c.Launch(b.Context(), provider.Launch{Token: fmt.Sprint("t", n), Image: "sleep"})
		require.NoError(b, err)
		defer c.Terminate(b.Context(), i.ID)
	}
	for b.Loop() {
		_, err := c.Instances(b.Context(), nil)
		require.NoError(b, err)
	}
}
