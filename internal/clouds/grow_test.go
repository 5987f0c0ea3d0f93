package clouds

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/scalr-go/scalr"
	"github.com/scalr-go/scalr/farm"
)

// A replica that is added gets its data from the newest snapshot of the role, which the provider makes into its volume, and what
// has been written since from the primary: nothing is copied over SQL.
func TestReplicaFromASnapshotWithMariaDB(t *testing.T) {
	m := onMariaDB(t)
	var mu sync.Mutex
	var seeds, follows []string
	m.events = func(e scalr.Event) {
		mu.Lock()
		defer mu.Unlock()
		switch {
		case strings.HasPrefix(e.Message, "seed "):
			seeds = append(seeds, e.Message)
		case strings.HasPrefix(e.Message, "follow db-3 "):
			follows = append(follows, e.Message)
		}
	}
	volume := farm.Volume{Snapshots: &farm.Snapshots{Every: 2 * time.Second, Keep: 2}, From: &farm.Source{}}
	run := func(n int) (shop *farm.Farm, stop func()) {
		shop, err := farm.New(databases("shop", n, volume), m.config("shop"))
		require.NoError(t, err)
		ctx, cancel := context.WithCancel(t.Context())
		ran := make(chan error, 1)
		go func() { ran <- shop.Run(ctx) }()
		return shop, func() { cancel(); <-ran }
	}
	shop, stop := run(2)
	on(t, shop, "CREATE DATABASE IF NOT EXISTS shop", "CREATE TABLE IF NOT EXISTS shop.orders (id INT PRIMARY KEY) ENGINE=InnoDB")
	for i := range 50 {
		on(t, shop, fmt.Sprintf("INSERT IGNORE INTO shop.orders VALUES (%d)", i))
	}
	has(t, shop, 2, 50)
	since := time.Now()
	require.Eventually(t, func() bool {
		for _, list := range copies(t, m.cloud, "shop") {
			for _, x := range list {
				if x.Ready && x.Created.After(since) {
					return true
				}
			}
		}
		return false
	}, patience, 50*time.Millisecond)
	for i := range 50 {
		on(t, shop, fmt.Sprintf("INSERT IGNORE INTO shop.orders VALUES (%d)", 50+i))
	}
	stop()

	shop, stop = run(3)
	has(t, shop, 3, 100)
	stop()
	mu.Lock()
	defer mu.Unlock()
	require.Empty(t, seeds, "nothing was copied over SQL")
	require.NotEmpty(t, follows)
	shop, err := farm.New(databases("shop", 3, volume), m.config("shop"))
	require.NoError(t, err)
	require.NoError(t, shop.Terminate(t.Context(), farm.TerminateOptions{DeleteVolumes: true, DeleteSnapshots: true}))
	require.True(t, left(t, m.cloud, "shop"), "nothing is left")
}
