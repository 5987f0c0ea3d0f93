package mysql_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/scalr-go/scalr/replication"
)

// A pool gets what the primary writes through its relay, also when the primary or the relay dies under writers.
func TestManagerKeepsARelay(t *testing.T) {
	nodes := start(t, 4)
	for i, pool := range []string{"east", "east", "west", "west"} {
		nodes[i].Member.Pool = pool
	}
	s := manageOn(t, nodes, replication.Config{Policy: replication.Durability, Relays: true})
	stop := s.write(4)
	defer func() { stop() }()
	relay, other := nodes[2], nodes[3]
	chained := func() bool {
		for range 2 {
			st, err := s.engine.Observe(t.Context(), other.Member)
			if err == nil && st.Source == relay.Addr && st.Receives && st.Applies {
				return true
			}
			relay, other = other, relay
		}
		return false
	}
	within(t, "one of the west follows the other", chained)
	written := func(n int) func() bool {
		return func() bool { s.mu.Lock(); defer s.mu.Unlock(); return len(s.acked) > n }
	}
	within(t, "writers write", written(200))

	before := relay
	stop() // so that one of the pool of the primary has as much as any other
	for _, n := range nodes[1:] {
		caughtUp(t, s.engine, n, nodes[0])
	}
	require.NoError(t, nodes[0].Kill(t.Context()))
	stop = s.write(4)
	s.after(t, "db-1")
	require.Equal(t, "db-2", s.primary())
	s.mu.Lock()
	acked := len(s.acked)
	s.mu.Unlock()
	within(t, "writers write to the new primary", written(acked+200))
	within(t, "one of the west follows the other", chained)
	require.Equal(t, before, relay, "a change of primary does not concern who follows the relay")

	require.NoError(t, relay.Kill(t.Context()))
	within(t, "the other one follows the primary", func() bool {
		st, err := s.engine.Observe(t.Context(), other.Member)
		return err == nil && st.Source == nodes[1].Addr && st.Receives
	})
	require.NoError(t, nodes[0].Start(t.Context()))
	require.NoError(t, relay.Start(t.Context()))
	s.whole(t)
	within(t, "one of the west follows the other", chained)
	stop()
	require.Zero(t, s.lost(t))
	s.equal(t)
	top, _ := s.manager.Topology()
	require.Equal(t, replication.LossNone, top.Verdict.Loss, top.Verdict.String())
	t.Log(top.Verdict)
}
