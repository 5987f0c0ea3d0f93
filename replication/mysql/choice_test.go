package mysql_test

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/scalr-go/scalr/provider/local"
	"github.com/scalr-go/scalr/replication"
)

// aloof are members that an engine cannot tell to follow.
type aloof struct{ addrs sync.Map }

func (d *aloof) dial(ctx context.Context, network, addr string) (net.Conn, error) {
	conn, err := (&net.Dialer{}).DialContext(ctx, network, addr)
	return aloofConn{conn, d, addr}, err
}

type aloofConn struct {
	net.Conn
	aloof *aloof
	addr  string
}

func (c aloofConn) Write(b []byte) (int, error) {
	if _, is := c.aloof.addrs.Load(c.addr); is {
		b = bytes.ReplaceAll(b, []byte("MASTER_HOST="), []byte("MASTER_HOSX="))
	}
	return c.Conn.Write(b)
}

// misses lets replicas receive nothing any more until the function is called.
func (d *aloof) misses(t *testing.T, nodes ...*node) (again func()) {
	t.Helper()
	for _, n := range nodes {
		d.addrs.Store(n.Addr, true)
		exec(t, n.admin(t), "STOP SLAVE IO_THREAD")
	}
	return d.addrs.Clear
}

// what is a step's text without its reason, which depends on how far others are by then.
func what(step string) string {
	step, _, _ = strings.Cut(step, ": ")
	return step
}

// steps says what has been begun since so many events.
func (s *set) steps(since int) (steps []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, e := range s.events[since:] {
		if e.Kind == replication.KindStep {
			steps = append(steps, what(e.Message))
		}
	}
	return steps
}

func (s *set) seen() int { s.mu.Lock(); defer s.mu.Unlock(); return len(s.events) }

// fall kills the primary, waits for the next one and starts the old one again.
func (s *set) fall(t *testing.T) (next string) {
	t.Helper()
	old := s.primary()
	require.NoError(t, s.node(old).Kill(t.Context()))
	next = s.takesOver(t, old)
	require.NoError(t, s.node(old).Start(t.Context()))
	return next
}

// Who becomes the primary: of members with the same data the one that is preferred, or else one whose software is older, since the
// others can follow it; and whoever has more data before all of these. If it happens too often, nobody for a while.
func TestManagerChooses(t *testing.T) {
	nodes := startOn(t, 3, func(m local.Machine) string {
		return map[bool]string{true: "version = 11.4.2-MariaDB"}[m.Name == "server-2"]
	})
	var d aloof
	by := config
	by.DialContext = d.dial
	s := manageWith(t, nodes, by, replication.Config{Recoveries: 100})
	st := observe(t, s.engine, nodes[1])
	require.Equal(t, "11.4.2-MariaDB", st.Version)
	prefer := func(id string) {
		var members []replication.Member
		for _, n := range nodes {
			m := n.Member
			m.Prefer = map[bool]int{true: 1}[m.ID == id]
			members = append(members, m)
		}
		s.manager.SetMembers(members, len(members))
	}
	to := func(t *testing.T, id string) {
		t.Helper()
		s.whole(t)
		if s.primary() != id {
			require.NoError(t, s.manager.Switchover(t.Context(), id))
			s.whole(t)
		}
	}
	insert := func(t *testing.T, rows ...int) {
		t.Helper()
		for _, i := range rows {
			exec(t, s.node(s.primary()).app(t), fmt.Sprintf("INSERT INTO app.t VALUES (%d, '')", i))
		}
	}
	t.Run("the older version, in a switchover", func(t *testing.T) {
		to(t, "db-1")
		require.NoError(t, s.manager.Switchover(t.Context(), ""))
		require.Equal(t, "db-3", s.primary())
	})
	t.Run("the older version, in a recovery as PlanLoss says", func(t *testing.T) {
		to(t, "db-1")
		s.equal(t)
		var plan replication.Plan
		within(t, "there is nothing to do, and all have been seen since the last step", func() bool {
			plan = s.manager.PlanLoss("")
			now := s.manager.Plan()
			return len(now.Steps)+len(now.Held) == 0 && len(plan.Steps) > 0
		})
		require.Empty(t, s.manager.PlanLoss("db-3").Steps)
		before := s.seen()
		t.Log(plan)
		var steps []string
		for _, step := range plan.Steps {
			step.Phase = 0
			steps = append(steps, what(step.String()))
		}
		require.Contains(t, steps, "promote db-3")
		require.NoError(t, nodes[0].Kill(t.Context()))
		require.Equal(t, "db-3", s.takesOver(t, "db-1"))
		within(t, "as many steps have begun", func() bool { return len(s.steps(before)) >= len(steps) })
		require.NoError(t, nodes[0].Start(t.Context()))
		require.ElementsMatch(t, steps, s.steps(before)[:len(steps)])
	})
	t.Run("the preferred one, though its version is newer", func(t *testing.T) {
		to(t, "db-1")
		s.equal(t)
		prefer("db-2")
		require.Equal(t, "db-2", s.fall(t))
	})
	t.Run("the one that has most, though another is preferred", func(t *testing.T) {
		to(t, "db-1")
		prefer("db-2")
		again := d.misses(t, nodes[1])
		defer again()
		insert(t, 1, 2)
		caughtUp(t, s.engine, nodes[2], nodes[0])
		require.Equal(t, "db-3", s.fall(t))
		again()
		s.equal(t)
		require.Equal(t, "2", one(t, nodes[1].admin(t), "SELECT COUNT(*) FROM app.t"))
	})
	t.Run("one that lacks something, and it is said how much", func(t *testing.T) {
		to(t, "db-1")
		again := d.misses(t, nodes[1:]...)
		defer again()
		insert(t, 11, 12, 13, 14, 15)
		at := observe(t, s.engine, nodes[0]).Applied
		within(t, "the Manager has seen them", func() bool {
			top, _ := s.manager.Topology()
			return top.Members[0].Position == at
		})
		require.NoError(t, nodes[0].Kill(t.Context()))
		require.Equal(t, "db-2", s.takesOver(t, "db-1"))
		top, _ := s.manager.Topology()
		require.Equal(t, replication.LossAtLeast, top.Verdict.Loss)
		require.EqualValues(t, 5, top.Verdict.Lost)
		t.Log(top.Verdict)
		insert(t, 21)
		again()
		before := s.said(replication.KindVerdict, "5 transactions are missing")
		require.NoError(t, nodes[0].Start(t.Context()))
		s.equal(t)
		top, _ = s.manager.Topology()
		require.Equal(t, replication.LossExact, top.Verdict.Loss, top.Verdict.String())
		require.EqualValues(t, 5, top.Verdict.Lost)
		t.Log(top.Verdict)
		require.Equal(t, before+1, s.said(replication.KindVerdict, "5 transactions are missing"), "the correction is told, once")
		require.Equal(t, 1, s.said(replication.KindSurplus, "it has 5 transactions that the primary db-2 lacks"))
		require.Equal(t, "1,2,21", one(t, nodes[0].admin(t), "SELECT GROUP_CONCAT(i ORDER BY i) FROM app.t"))
	})
	t.Run("nobody for a while, after too many", func(t *testing.T) {
		const window = 4 * time.Second
		const words = "1 recoveries within 4s are enough: the next one waits until the first of them is older"
		s.stop()
		s.run(t, by, replication.Config{Recoveries: 1, Window: window})
		for range 20 { // if this machine is slow
			s.whole(t)
			p := s.node(s.primary())
			require.NoError(t, p.Kill(t.Context()))
			within(t, "somebody takes over, or it is said that nobody does", func() bool {
				now := s.primary()
				return now != "" && now != p.Member.ID || s.said(replication.KindHeld, words) > 0
			})
			require.NoError(t, p.Start(t.Context()))
			if s.said(replication.KindHeld, words) > 0 {
				break
			}
		}
		require.Positive(t, s.said(replication.KindHeld, words))
		s.equal(t)
		var last, before time.Time
		s.mu.Lock()
		defer s.mu.Unlock()
		for _, e := range s.events {
			if e.Kind == replication.KindStep && strings.HasPrefix(e.Message, "promote ") && !strings.Contains(e.Message, "as planned") {
				last, before = e.Time, last
			}
		}
		require.GreaterOrEqual(t, last.Sub(before), window-100*time.Millisecond)
	})
}
