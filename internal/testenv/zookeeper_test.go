package testenv_test

import (
	"context"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/scalr-go/scalr/internal/testenv"
)

// The ensemble survives its leader and knows it when a server is cut off.
func TestZooKeeper(t *testing.T) {
	e := testenv.ZooKeeper(t, 3)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	first, err := e.Leader(ctx)
	require.NoError(t, err)
	require.NoError(t, e.Servers[first].Kill(ctx))
	second, err := e.Leader(ctx)
	require.NoError(t, err)
	require.NotEqual(t, first, second)
	require.NoError(t, e.Servers[first].Start(ctx))
	require.NoError(t, e.Ready(ctx))

	follower := slices.Index([]bool{second != 0, second != 1, second != 2}, true)
	e.Cut(follower)
	for e.Mode(ctx, follower) != "" && ctx.Err() == nil {
		time.Sleep(50 * time.Millisecond)
	}
	require.NoError(t, ctx.Err(), "a server without a quorum does not serve")
	e.Heal()
	require.NoError(t, e.Ready(ctx))
}
