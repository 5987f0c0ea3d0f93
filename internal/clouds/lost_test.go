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
)

// Databases on the disks of their machines, which go with them: New says what that asks for. A machine that is lost, that of a replica or
// that of the primary, is replaced, and the new member gets the data from another one by itself.
func TestLostMachinesWithoutVolumesWithMariaDB(t *testing.T) {
	m := onMariaDB(t)
	spec := databases("shop", 2, farm.Volume{})
	spec.Roles[0].Volume = nil
	config, warned := m.config("shop"), ""
	config.Events = func(e scalr.Event) {
		if e.Kind == farm.DataAtRisk {
			warned = e.Message
		}
	}
	shop, err := farm.New(spec, config)
	require.NoError(t, err)
	require.Contains(t, warned, "backups")
	ctx, stop := context.WithCancel(t.Context())
	ran := make(chan error, 1)
	go func() { ran <- shop.Run(ctx) }()
	defer func() { stop(); <-ran }()
	on(t, shop, "CREATE DATABASE shop", "CREATE TABLE shop.orders (id INT PRIMARY KEY)")
	n := 0
	for _, primary := range []bool{false, true} {
		for range 20 {
			on(t, shop, fmt.Sprintf("INSERT IGNORE INTO shop.orders VALUES (%d)", n))
			n++
		}
		has(t, shop, 2, n)
		var lost farm.Server
		for _, s := range shop.Servers("db") {
			if s.Primary == primary {
				lost = s
			}
		}
		require.NoError(t, m.cloud.Terminate(t.Context(), lost.ID))
		require.Eventually(t, func() bool {
			all := shop.Servers("db")
			return len(all) == 2 && !slices.ContainsFunc(all, func(s farm.Server) bool { return s.ID == lost.ID || !s.Ready })
		}, patience, 50*time.Millisecond)
		has(t, shop, 2, n)
	}
	stop()
	ran <- <-ran
	require.NoError(t, shop.Terminate(t.Context(), farm.TerminateOptions{}))
	require.True(t, left(t, m.cloud, "shop"))
}
