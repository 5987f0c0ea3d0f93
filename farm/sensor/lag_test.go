package sensor_test

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/scalr-go/scalr/farm"
	"github.com/scalr-go/scalr/farm/sensor"
	"github.com/scalr-go/scalr/replication"
	"github.com/scalr-go/scalr/replication/memdb"
)

func TestLag(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		db := memdb.New(memdb.Options{Apply: 2 * time.Second})
		var members []replication.Member
		var servers []farm.Server
		for _, id := range []string{"db-1", "db-2", "db-3"} {
			db.Start(id + ":3306")
			members = append(members, replication.Member{ID: id, Addr: id + ":3306", Machine: "i-" + id})
			servers = append(servers, farm.Server{ID: "i-" + id})
		}
		m, err := replication.New(replication.Config{Name: "test/db", Engine: db})
		require.NoError(t, err)
		m.SetMembers(members, 3)
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- m.Run(ctx) }()
		defer func() { cancel(); <-done }()
		time.Sleep(5 * time.Second)
		top, _ := m.Topology()
		require.Equal(t, "db-1", top.Primary)
		require.NoError(t, db.Write(t.Context(), "db-1:3306", "k", "v"))
		time.Sleep(1500 * time.Millisecond)
		db.Crash("db-3:3306")
		time.Sleep(400 * time.Millisecond)
		samples, err := sensor.Lag(m).Read(t.Context(), "db", servers[1:])
		require.NoError(t, err)
		require.NotEmpty(t, samples)
		require.Equal(t, "i-db-2", samples[0].Instance)
		require.InDelta(t, 1.8, samples[0].Value, 0.2)
		time.Sleep(5 * time.Second)
		samples, err = sensor.Lag(m).Read(t.Context(), "db", servers)
		require.NoError(t, err)
		require.Len(t, samples, 1, "neither the primary nor one that is down")
		require.Zero(t, samples[0].Value)
	})
}
