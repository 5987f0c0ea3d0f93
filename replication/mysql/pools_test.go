package mysql_test

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/scalr-go/scalr/replication"
)

// pools runs members in the east, of which the first is the primary, and as many in the west.
func pools(t *testing.T, each int, c replication.Config) *set {
	t.Helper()
	nodes := start(t, 2*each)
	for i, n := range nodes {
		n.Member.Pool = map[bool]string{true: "east", false: "west"}[i < each]
	}
	s := manageOn(t, nodes, c)
	require.Equal(t, "db-1", s.primary())
	return s
}

// vanish makes servers hang, or dead, all at once.
func vanish(t *testing.T, fault string, nodes ...*node) {
	t.Helper()
	for _, n := range nodes {
		require.NoError(t, n.Hang(t.Context()))
	}
	for _, n := range nodes {
		if fault == "kill" {
			require.NoError(t, n.Kill(t.Context()))
		}
	}
}

// more waits until so many more rows have been acknowledged.
func (s *set) more(t *testing.T, n int) {
	t.Helper()
	count := func() int { s.mu.Lock(); defer s.mu.Unlock(); return len(s.acked) }
	before := count()
	within(t, "writers write", func() bool { return count() >= before+n })
}

// takesOver waits until there is another primary than the one before, and says who it is.
func (s *set) takesOver(t *testing.T, before string) string {
	t.Helper()
	p := ""
	within(t, "another one is the primary", func() bool { p = s.primary(); return p != "" && p != before })
	return p
}

// held waits until the topology says the words of something that is not done.
func (s *set) held(t *testing.T, words string) {
	t.Helper()
	var top replication.Topology
	within(t, "it is said: "+words, func() bool {
		top, _ = s.manager.Topology()
		return strings.Contains(strings.Join(top.Held, "\n"), words)
	})
	t.Log(top.Held)
}

// The pool of the primary disappears whole, killed or hung: the other one takes over, and when it is back its members follow
// without a person. What is missing is what the verdict says, and exactly that once the old primary is back.
func TestManagerLosesAPool(t *testing.T) {
	s := pools(t, 2, replication.Config{})
	stop := s.write(4)
	defer stop()
	for _, fault := range []string{"kill", "hang"} {
		t.Run(fault, func(t *testing.T) {
			old := s.primary()
			pool := s.node(old).Member.Pool
			gone := s.pool(pool)
			s.more(t, 200)
			vanish(t, fault, gone...)
			heir := s.node(s.takesOver(t, old))
			require.NotEqual(t, pool, heir.Member.Pool)
			s.after(t, old)
			top, _ := s.manager.Topology()
			require.Equal(t, old, top.Verdict.From)
			require.Equal(t, replication.LossAtLeast, top.Verdict.Loss, top.Verdict.String())
			require.False(t, top.Verdict.Until.IsZero(), "it is not said what is there for certain")
			t.Log(top.Verdict)
			s.more(t, 50)
			for _, n := range gone {
				if fault == "kill" || n.Member.ID == old { // which has been stopped
					require.NoError(t, n.Start(t.Context()))
				} else {
					require.NoError(t, n.Resume(t.Context()))
				}
			}
			s.whole(t)
			require.Equal(t, heir.Member.ID, s.primary(), "it stays the primary")
			top, _ = s.manager.Topology()
			require.Equal(t, replication.LossExact, top.Verdict.Loss, top.Verdict.String())
			t.Log(top.Verdict)
			require.LessOrEqual(t, s.lost(t), int(top.Verdict.Lost))
			s.forget()
		})
	}
	// Under Durability another member that is gone too may have acknowledged something alone: it is said who, and nobody takes over.
	// When the pool is back the set goes on.
	t.Run("durability", func(t *testing.T) {
		s.stop()
		s.run(t, config, replication.Config{Policy: replication.Durability})
		s.whole(t)
		old := s.node(s.primary())
		within(t, "writes wait for a replica", func() bool { return observe(t, s.engine, old).SemiSync })
		at := observe(t, s.engine, old).Applied
		within(t, "the Manager has seen that", func() bool {
			top, _ := s.manager.Topology()
			x, _ := top.Member(old.Member.ID)
			return s.engine.Compare(x.Position, at) == replication.Ahead
		})
		gone := s.pool(old.Member.Pool)
		vanish(t, "kill", gone...)
		s.held(t, " cannot be seen and may be the only one that has some acknowledged transaction")
		require.Empty(t, s.primary())
		for _, n := range gone {
			require.NoError(t, n.Start(t.Context()))
		}
		s.whole(t)
		s.more(t, 50)
		top, _ := s.manager.Topology()
		require.Equal(t, replication.LossNone, top.Verdict.Loss, top.Verdict.String())
		t.Log(top.Verdict)
		stop()
		require.Zero(t, s.lost(t))
		s.equal(t)
	})
}

// pool gives the members of a pool.
func (s *set) pool(name string) (nodes []*node) {
	for _, n := range s.nodes {
		if n.Member.Pool == name {
			nodes = append(nodes, n)
		}
	}
	return nodes
}

// forget lets what has been acknowledged until now be lost, of which the verdict has been compared.
func (s *set) forget() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.acked = nil
}

// Under Durability a pool takes over for one that disappears, since nothing was acknowledged that it lacks.
func TestManagerLosesAPoolUnderDurability(t *testing.T) {
	s := pools(t, 1, replication.Config{Policy: replication.Durability})
	stop := s.write(4)
	defer stop()
	for _, fault := range []string{"kill", "hang"} {
		t.Run(fault, func(t *testing.T) {
			s.more(t, 200)
			old := s.primary()
			vanish(t, fault, s.node(old))
			s.takesOver(t, old) // and its writes wait until the other pool is back
			top, _ := s.manager.Topology()
			require.Equal(t, replication.LossNone, top.Verdict.Loss, top.Verdict.String())
			t.Log(top.Verdict)
			require.Zero(t, s.lost(t))
			require.NoError(t, s.node(old).Start(t.Context()))
			s.more(t, 50)
			s.whole(t)
			require.NotEqual(t, old, s.primary(), "it stays the primary")
		})
	}
	stop()
	require.Zero(t, s.lost(t))
	s.equal(t)
}
