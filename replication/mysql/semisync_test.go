package mysql_test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/scalr-go/scalr"
	"github.com/scalr-go/scalr/replication"
)

// asynchronous are the ways to make a primary acknowledge what no replica has.
var asynchronous = map[string]string{
	"time-out":          "SET GLOBAL rpl_semi_sync_master_timeout = 1",
	"off":               "SET GLOBAL rpl_semi_sync_master_enabled = OFF",
	"no replica needed": "SET GLOBAL rpl_semi_sync_master_wait_no_slave = OFF",
	"after the commit":  "SET GLOBAL rpl_semi_sync_master_wait_point = AFTER_COMMIT",
}

// said counts the events of a kind with the words.
func (s *set) said(kind scalr.Kind, words string) (n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, e := range s.events {
		if e.Kind == kind && strings.Contains(e.Message, words) {
			n++
		}
	}
	return n
}

// is waits until the topology says that a member has a role.
func (s *set) is(t *testing.T, n *node, role replication.Role) {
	t.Helper()
	within(t, fmt.Sprint(n.Member.ID, " is ", role), func() bool {
		top, _ := s.manager.Topology()
		x, _ := top.Member(n.Member.ID)
		return x.Role == role
	})
}

// Somebody lets a primary go on without replicas that acknowledge. It is said, as an event too. As soon as a replica follows, writes
// wait for it again; before that, nobody is promoted who may lack what was acknowledged meanwhile.
func TestManagerWatchesSemiSync(t *testing.T) {
	s := manage(t, 3, replication.Config{Policy: replication.Durability, Patience: 500 * time.Millisecond})
	primary, replicas := s.nodes[0], s.nodes[1:]
	require.Equal(t, primary.Member.ID, s.primary())
	for name, statement := range asynchronous {
		t.Run(name+", replicas follow", func(t *testing.T) {
			const words = "db-1 acknowledges what no replica may have"
			before := s.said(replication.KindHeld, words)
			exec(t, primary.admin(t), statement)
			within(t, "it is said, and semi-sync is on again", func() bool {
				return s.said(replication.KindHeld, words) > before && observe(t, s.engine, primary).SemiSync
			})
			s.whole(t)
			within(t, "nothing is held any more", func() bool { // so that it is said anew, when it happens again
				top, _ := s.manager.Topology()
				return len(top.Held) == 0
			})
		})
	}
	for row, c := range []struct{ name, fault string }{{"off", "hang"}, {"time-out", "kill"}} {
		t.Run(c.name+", replicas "+c.fault, func(t *testing.T) {
			vanish(t, c.fault, replicas...)
			for _, n := range replicas {
				s.is(t, n, replication.RoleDown)
			}
			if c.name == "off" { // which lets what waits go on, as a time-out does not
				ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
				defer cancel()
				_, err := primary.app(t).ExecContext(ctx, "INSERT INTO app.t VALUES (1, 'waits')")
				require.ErrorIs(t, err, context.DeadlineExceeded, "a write waits for a replica")
			}
			const words = "db-1 acknowledges what no replica has"
			before := s.said(replication.KindHeld, words)
			exec(t, primary.admin(t), asynchronous[c.name])
			exec(t, primary.app(t), fmt.Sprintf("INSERT INTO app.t VALUES (%d, 'alone')", 10+row))
			s.held(t, words)
			require.Equal(t, before+1, s.said(replication.KindHeld, words))

			require.NoError(t, primary.Kill(t.Context()))
			for _, n := range replicas {
				if c.fault == "hang" {
					require.NoError(t, n.Resume(t.Context()))
				} else {
					require.NoError(t, n.Start(t.Context()))
				}
			}
			s.held(t, "db-1 acknowledged transactions that no replica may have")
			for _, n := range replicas {
				s.is(t, n, replication.RoleReplica)
			}
			require.Empty(t, s.primary())
			require.NoError(t, primary.Start(t.Context()))
			s.whole(t)
			require.Equal(t, "db-1", s.primary(), "it alone has what was acknowledged")
			require.Equal(t, "1", one(t, primary.admin(t), fmt.Sprint("SELECT COUNT(*) FROM app.t WHERE i = ", 10+row)))
			require.True(t, observe(t, s.engine, primary).SemiSync)
		})
	}
	s.equal(t)
}
