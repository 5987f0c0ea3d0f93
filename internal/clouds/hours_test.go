package clouds

import (
	"context"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/scalr-go/scalr"
	"github.com/scalr-go/scalr/farm"
)

// TestHoursWithMariaDB closes and opens a farm whose database is real: whatever was acknowledged before it closed is there
// when it has opened, on both servers, and between only snapshots are kept.
func TestHoursWithMariaDB(t *testing.T) {
	m := onMariaDB(t)
	spec, config := databases("shop", 2, farm.Volume{}), m.config("shop")
	// It is open for twenty seconds, and closed for five.
	spec.Hours = &farm.Hours{Open: "*/25 * * * * *", Close: "20/25 * * * * *"}
	var mu sync.Mutex
	told := map[scalr.Kind]int{}
	config.Events = func(e scalr.Event) {
		mu.Lock()
		defer mu.Unlock()
		told[e.Kind]++
	}
	count := func(kind scalr.Kind) int {
		mu.Lock()
		defer mu.Unlock()
		return told[kind]
	}
	shop, err := farm.New(spec, config)
	require.NoError(t, err)
	ctx, stop := context.WithCancel(t.Context())
	ran := make(chan error, 1)
	go func() { ran <- shop.Run(ctx) }()
	defer func() { stop(); <-ran }()

	// on does something on the primary until it succeeds.
	on := func(statements ...string) {
		t.Helper()
		require.Eventually(t, func() bool {
			for _, s := range shop.Servers("db") {
				if !s.Ready || !s.Primary {
					continue
				}
				ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
				defer cancel()
				db, err := open(s)
				require.NoError(t, err)
				defer db.Close()
				for _, q := range statements {
					if _, err = db.ExecContext(ctx, q); err != nil {
						return false
					}
				}
				return true
			}
			return false
		}, patience, 50*time.Millisecond)
	}
	on("CREATE DATABASE IF NOT EXISTS shop", "CREATE TABLE IF NOT EXISTS shop.orders (id INT AUTO_INCREMENT PRIMARY KEY, what INT UNIQUE) ENGINE=InnoDB")
	on("INSERT IGNORE INTO shop.orders (what) VALUES (1)")
	closed, opened := count(farm.Closed), count(farm.Opened)
	require.Eventually(t, func() bool { return count(farm.Closed) > closed && count(farm.Opened) > opened }, patience, 50*time.Millisecond)
	require.Eventually(t, func() bool {
		all := shop.Servers("db")
		for _, s := range all {
			if n, err := rows(t.Context(), s); !s.Ready || err != nil || n != 1 {
				return false
			}
		}
		return len(all) == 2
	}, patience, 50*time.Millisecond)
	stop()
	ran <- <-ran
	shop, err = farm.New(spec, m.config("shop"))
	require.NoError(t, err)
	require.NoError(t, shop.Terminate(t.Context(), farm.TerminateOptions{DeleteVolumes: true}))
	for slot, list := range copies(t, m.cloud, "shop") {
		require.Len(t, list, 1, slot)
	}
}
