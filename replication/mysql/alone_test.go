package mysql_test

import (
	"context"
	"errors"
	"net"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/scalr-go/scalr/replication"
)

// partition is a network that loses what an engine sends to some addresses.
type partition struct{ cut sync.Map }

func (p *partition) dial(ctx context.Context, network, addr string) (net.Conn, error) {
	if _, lost := p.cut.Load(addr); lost {
		<-ctx.Done()
		return nil, context.Cause(ctx)
	}
	conn, err := (&net.Dialer{}).DialContext(ctx, network, addr)
	return parted{conn, p, addr}, err
}

type parted struct {
	net.Conn
	partition *partition
	addr      string
}

func (c parted) Write(b []byte) (int, error) {
	if _, lost := c.partition.cut.Load(c.addr); lost {
		return len(b), nil
	}
	return c.Conn.Write(b)
}

// A Manager that sees nobody any more, or nobody who has lost sight of the primary too, does nothing. Of a primary that hangs, and
// whose machine cannot be stopped, Config.Unfenced decides.
func TestManagerCannotReachOrStop(t *testing.T) {
	nodes := start(t, 3)
	for _, n := range nodes {
		n.Member.Fence = func(context.Context) error { return errors.New("the provider does not answer") }
	}
	var p partition
	by := config
	by.DialContext = p.dial
	s := manageWith(t, nodes, by, replication.Config{Unfenced: replication.UnfencedWait})
	old := nodes[0]
	require.Equal(t, "db-1", s.primary())
	app := old.app(t)
	promotions := func() int { return s.said(replication.KindStep, "promote ") }

	t.Run("cut off", func(t *testing.T) {
		s.equal(t)
		steps := s.seen()
		defer p.cut.Clear()
		p.cut.Store(old.Addr, true)
		s.held(t, "still receives from it: it is the Manager's own network that is in doubt")
		require.Equal(t, "db-1", s.primary())
		for _, n := range nodes {
			p.cut.Store(n.Addr, true)
		}
		for _, n := range nodes[1:] {
			s.is(t, n, replication.RoleDown)
		}
		s.held(t, "db-1 is lost, and no replica with data answers")
		exec(t, app, "INSERT INTO app.t VALUES (1, 'nobody sees it')")
		require.Equal(t, "db-1", s.primary(), "who reads the topology goes on")
		p.cut.Clear()
		s.equal(t)
		top, _ := s.manager.Topology()
		require.EqualValues(t, 1, top.Epoch)
		require.Nil(t, top.Verdict)
		require.Empty(t, s.steps(steps))
	})
	t.Run("wait", func(t *testing.T) {
		before := promotions()
		require.NoError(t, old.Hang(t.Context()))
		s.held(t, "db-1 can be neither reached nor stopped, and Config.Unfenced says to wait")
		require.Empty(t, s.primary())
		require.NoError(t, old.Resume(t.Context()))
		s.whole(t)
		require.Equal(t, "db-1", s.primary())
		require.Equal(t, before, promotions())
		exec(t, app, "INSERT INTO app.t VALUES (2, 'it has never been anybody else')")
		s.equal(t)
	})
	t.Run("go on", func(t *testing.T) {
		s.stop()
		s.stop = s.run(t, by, replication.Config{Unfenced: replication.UnfencedGoOn})
		s.whole(t)
		require.NoError(t, old.Hang(t.Context()))
		heir := s.node(s.takesOver(t, "db-1"))
		top, _ := s.manager.Topology()
		require.Equal(t, replication.LossAtLeast, top.Verdict.Loss)
		exec(t, heir.app(t), "INSERT INTO app.t VALUES (3, '')")
		require.NoError(t, old.Resume(t.Context()))
		s.equal(t)
		_, err := app.ExecContext(t.Context(), "INSERT INTO app.t VALUES (4, '')")
		require.ErrorContains(t, err, "read-only")
		require.Equal(t, heir.Member.ID, s.primary())
	})
}
