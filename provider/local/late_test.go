//go:build linux

package local_test

import (
	"context"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/scalr-go/scalr/internal/testenv"
	"github.com/scalr-go/scalr/provider"
)

// late is a context that ends right after it was asked for the first time.
type late struct {
	context.Context
	asked atomic.Int32
}

func newLate(t *testing.T) *late {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	return &late{Context: ctx}
}

func (l *late) Err() error {
	if l.asked.Add(1) == 1 {
		return nil
	}
	return l.Context.Err()
}

// What runs is not started again by a call whose context ends before it has found that out.
func TestCallThatEndsEarlyKillsNothing(t *testing.T) {
	c := cloud(t, sleepImage())
	i := launch(t, c, "one")
	b, err := c.CreateBalancer(t.Context(), provider.BalancerSpec{Token: "b", Name: "b", Protocol: "tcp", Port: 8000, TargetPort: 80})
	require.NoError(t, err)
	for name, id := range map[string]string{"instance": i.ID, "balancer": b.ID} {
		before := testenv.Processes(id)
		require.NotEmpty(t, before, name)
		_, err = c.Balancers(newLate(t), nil)
		require.ErrorIs(t, err, context.Canceled)
		require.ErrorIs(t, c.Start(newLate(t), i.ID), context.Canceled)
		require.Equal(t, before, testenv.Processes(id), name)
	}
}
