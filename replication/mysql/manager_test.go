package mysql_test

import (
	"context"
	"database/sql"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	sqldriver "github.com/go-sql-driver/mysql"
	"github.com/stretchr/testify/require"

	"github.com/scalr-go/scalr"
	"github.com/scalr-go/scalr/replication"
	"github.com/scalr-go/scalr/replication/mysql"
)

// set is a Manager over real servers, with an application that writes as fast as it can.
type set struct {
	nodes   []*node
	engine  *mysql.Engine
	manager *replication.Manager
	stop    func() // ends the Manager

	mu     sync.Mutex
	acked  []int
	next   int
	ackAt  time.Time // of the last acknowledged row
	ackBy  string    // the member that acknowledged it
	events []scalr.Event
}

// manage runs n servers under a Manager until the end of the test, and waits for the first primary with all replicas.
func manage(t testing.TB, n int, c replication.Config) *set {
	t.Helper()
	return manageOn(t, start(t, n), c)
}

func manageOn(t testing.TB, nodes []*node, c replication.Config) *set {
	t.Helper()
	return manageWith(t, nodes, config, c)
}

// manageWith is manageOn with an engine of its own.
func manageWith(t testing.TB, nodes []*node, by mysql.Config, c replication.Config) *set {
	t.Helper()
	s := &set{nodes: nodes}
	s.stop = s.run(t, by, c)
	s.whole(t)
	db := s.node(s.primary()).app(t)
	exec(t, db, "CREATE SCHEMA app", "CREATE TABLE app.t (i INT PRIMARY KEY, v VARCHAR(100))")
	require.NoError(t, db.Close())
	return s
}

// run runs a Manager until the end of the test, or until it is stopped.
func (s *set) run(t testing.TB, by mysql.Config, c replication.Config) (stop func()) {
	s.engine = engine(t, by, s.nodes...)
	c.Name, c.Engine = "test/db", s.engine
	c.Events = func(e scalr.Event) {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.events = append(s.events, e)
	}
	var err error
	s.manager, err = replication.New(c)
	require.NoError(t, err)
	var members []replication.Member
	for _, n := range s.nodes {
		members = append(members, n.Member)
	}
	s.manager.SetMembers(members, len(members))
	ctx, cancel := context.WithCancel(context.Background())
	done, manager := make(chan error, 1), s.manager
	go func() { done <- manager.Run(ctx) }()
	stop = sync.OnceFunc(func() {
		cancel()
		require.ErrorIs(t, <-done, context.Canceled)
	})
	t.Cleanup(func() {
		stop()
		if t.Failed() {
			for _, e := range s.events {
				t.Log(e)
			}
			s.events = nil
		}
	})
	return stop
}

func (s *set) primary() string {
	t, _ := s.manager.Topology()
	return t.Primary
}

func (s *set) node(id string) *node {
	for _, n := range s.nodes {
		if n.Member.ID == id {
			return n
		}
	}
	return nil
}

// whole waits until there is a primary and everybody else follows it closely.
func (s *set) whole(t testing.TB) {
	t.Helper()
	for deadline := time.Now().Add(60 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		top, _ := s.manager.Topology()
		replicas := 0
		for _, m := range top.Members {
			if m.Role == replication.RoleReplica && m.Serves {
				replicas++
			}
		}
		if top.Primary != "" && replicas == len(s.nodes)-1 {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("the set does not become whole: %+v", top)
		}
	}
}

// write runs writers that follow the topology until the function is called, which waits for them.
func (s *set) write(writers int) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	for range writers {
		wg.Go(func() {
			for ctx.Err() == nil {
				s.writeTo(ctx, s.primary())
				time.Sleep(time.Millisecond)
			}
		})
	}
	return func() { cancel(); wg.Wait() }
}

// writeTo writes to one server until it fails.
func (s *set) writeTo(ctx context.Context, id string) {
	n := s.node(id)
	if n == nil {
		return
	}
	c := sqldriver.NewConfig()
	c.User, c.Passwd, c.Net, c.Addr = appUser, appPassword, "tcp", n.Addr
	c.Timeout, c.ReadTimeout = 200*time.Millisecond, time.Second
	connector, err := sqldriver.NewConnector(c)
	if err != nil {
		return
	}
	db := sql.OpenDB(connector)
	defer db.Close()
	for ctx.Err() == nil {
		s.mu.Lock()
		s.next++
		i := s.next
		s.mu.Unlock()
		if _, err := db.ExecContext(ctx, fmt.Sprintf("INSERT INTO app.t VALUES (%d, 'some text')", i)); err != nil {
			return
		}
		s.mu.Lock()
		s.acked = append(s.acked, i)
		if s.ackBy != id {
			s.ackAt, s.ackBy = time.Now(), id
		}
		s.mu.Unlock()
	}
}

// after waits for the first row that another member has acknowledged, and says when that was.
func (s *set) after(t testing.TB, old string) time.Time {
	t.Helper()
	var at time.Time
	within(t, "another member acknowledges a row", func() bool {
		s.mu.Lock()
		defer s.mu.Unlock()
		at = s.ackAt
		return s.ackBy != old
	})
	return at
}

// lost counts the acknowledged rows that the primary lacks.
func (s *set) lost(t testing.TB) int {
	t.Helper()
	s.mu.Lock()
	acked := slices.Clone(s.acked)
	s.mu.Unlock()
	db := s.node(s.primary()).admin(t)
	rows, err := db.Query("SELECT i FROM app.t")
	require.NoError(t, err)
	defer rows.Close()
	have := map[int]bool{}
	for rows.Next() {
		var i int
		require.NoError(t, rows.Scan(&i))
		have[i] = true
	}
	require.NoError(t, rows.Err())
	lost := 0
	for _, i := range acked {
		if !have[i] {
			lost++
		}
	}
	t.Logf("%d acknowledged, %d lost", len(acked), lost)
	return lost
}

// equal waits until everybody has what the primary has, and compares.
func (s *set) equal(t testing.TB) {
	t.Helper()
	s.whole(t)
	primary := s.node(s.primary())
	for _, n := range s.nodes {
		if n != primary {
			caughtUp(t, s.engine, n, primary)
		}
	}
	for _, n := range s.nodes {
		require.Equal(t, checksums(t, primary), checksums(t, n), n.Member.ID)
	}
}

// The primary is killed under writers: a replica takes over, no acknowledged row is lost, and the old one comes back.
func TestManagerFailsOver(t *testing.T) {
	for _, fault := range []string{"kill", "hang"} {
		t.Run(fault, func(t *testing.T) {
			s := manage(t, 3, replication.Config{Policy: replication.Durability})
			stop := s.write(4)
			defer stop()
			within(t, "writers write", func() bool { s.mu.Lock(); defer s.mu.Unlock(); return len(s.acked) > 200 })
			old := s.primary()
			began := time.Now()
			if fault == "kill" {
				require.NoError(t, s.node(old).Kill(t.Context()))
			} else {
				require.NoError(t, s.node(old).Hang(t.Context()))
			}
			t.Logf("%s: %v until the new primary acknowledged", fault, s.after(t, old).Sub(began))
			require.NoError(t, s.node(old).Start(t.Context()))
			s.whole(t)
			stop()
			require.Zero(t, s.lost(t))
			s.equal(t)
			top, _ := s.manager.Topology()
			require.NotNil(t, top.Verdict)
			require.Equal(t, replication.LossNone, top.Verdict.Loss, top.Verdict.String())
			t.Log(top.Verdict)
		})
	}
}

// A planned change of primary loses nothing and leaves everybody equal.
func TestManagerSwitchesOver(t *testing.T) {
	for _, policy := range []replication.Policy{replication.Availability, replication.Durability} {
		t.Run(policy.String(), func(t *testing.T) {
			s := manage(t, 3, replication.Config{Policy: policy})
			stop := s.write(4)
			defer stop()
			within(t, "writers write", func() bool { s.mu.Lock(); defer s.mu.Unlock(); return len(s.acked) > 200 })
			old := s.primary()
			began := time.Now()
			require.NoError(t, s.manager.Switchover(t.Context(), ""))
			t.Logf("%v until the new primary acknowledged", s.after(t, old).Sub(began))
			stop()
			require.Zero(t, s.lost(t))
			s.equal(t)
		})
	}
}

// A member without data is seeded and follows.
func TestManagerSeedsANewMember(t *testing.T) {
	s := manage(t, 2, replication.Config{})
	for range 20 {
		exec(t, s.node(s.primary()).app(t), fmt.Sprintf("INSERT INTO app.t VALUES (%d, '')", s.next))
		s.next++
	}
	late := start(t, 1)[0]
	late.Member.ID = "db-3"
	t.Cleanup(func() { require.NoError(t, s.engine.Close(late.Member)) })
	s.nodes = append(s.nodes, late)
	var members []replication.Member
	for _, n := range s.nodes {
		members = append(members, n.Member)
	}
	s.manager.SetMembers(members, 3)
	s.equal(t)
}

// BenchmarkFailover measures the time from a kill to the first row that the new primary acknowledges, in ms.
func BenchmarkFailover(b *testing.B) {
	for _, policy := range []replication.Policy{replication.Availability, replication.Durability} {
		b.Run(policy.String(), func(b *testing.B) {
			s := manage(b, 3, replication.Config{Policy: policy, Recoveries: 1000})
			stop := s.write(4)
			defer stop()
			var took []float64
			for b.Loop() {
				within(b, "writers write", func() bool { s.mu.Lock(); defer s.mu.Unlock(); return s.ackBy == s.primary() })
				time.Sleep(time.Second)
				old := s.primary()
				began := time.Now()
				if err := s.node(old).Kill(context.Background()); err != nil {
					b.Fatal(err)
				}
				took = append(took, float64(s.after(b, old).Sub(began).Milliseconds()))
				if err := s.node(old).Start(context.Background()); err != nil {
					b.Fatal(err)
				}
				s.whole(b)
			}
			stop()
			slices.Sort(took)
			b.ReportMetric(took[len(took)/2], "median-ms")
			b.ReportMetric(took[len(took)-1], "max-ms")
			b.ReportMetric(float64(s.lost(b)), "lost")
			b.ReportMetric(0, "ns/op")
		})
	}
}
