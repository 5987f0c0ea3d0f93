package zookeeper_test

import (
	"context"
	"fmt"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-zookeeper/zk"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/scalr-go/scalr/cronlock"
	"github.com/scalr-go/scalr/cronlock/cronlocktest"
	"github.com/scalr-go/scalr/cronlock/zookeeper"
	"github.com/scalr-go/scalr/internal/testenv"
)

func TestMain(m *testing.M) {
	code := 0
	err := testenv.Program(context.Background(), func(t testing.TB) error {
		program = t
		code = m.Run()
		return nil
	})
	if err == nil && code == 0 {
		err = goleak.Find()
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	os.Exit(code)
}

// program has the servers that tests share. They start with the first test that needs them.
var program testing.TB

// shared is an ensemble of three servers.
type shared struct {
	once sync.Once
	e    *testenv.Ensemble
}

var (
	calm shared // nobody disturbs it
	hurt shared // each test disturbs it, and leaves it healed
)

// ensemble gives the shared one, whole.
func (s *shared) ensemble(t testing.TB) *testenv.Ensemble {
	t.Helper()
	testenv.NeedZooKeeper(t)
	s.once.Do(func() {
		defer func() {
			if v := recover(); v != nil {
				t.Errorf("the servers do not start: %v", v)
			}
		}()
		s.e = testenv.ZooKeeper(program, 3)
	})
	require.NotNil(t, s.e, "the servers have not started")
	require.NoError(t, s.e.Ready(t.Context()))
	return s.e
}

// world is an ensemble and a root of a test's own on it.
type world struct {
	testing.TB
	*testenv.Ensemble
	root  string
	admin *zk.Conn
}

var roots atomic.Int32

func newWorld(t testing.TB, e *testenv.Ensemble) *world {
	w := &world{TB: t, Ensemble: e, root: fmt.Sprint("/test-", roots.Add(1))}
	admin, _, err := zk.Connect(e.Addrs(), 10*time.Second, zk.WithLogger(silent{}))
	require.NoError(t, err)
	w.admin = admin
	t.Cleanup(admin.Close)
	return w
}

type silent struct{}

func (silent) Printf(string, ...any) {}

func (w *world) open(change ...func(*zookeeper.Options)) *zookeeper.Client {
	w.Helper()
	o := zookeeper.Options{Servers: w.Addrs(), Timeout: 3 * time.Second, Root: w.root}
	for _, f := range change {
		f(&o)
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	c, err := zookeeper.Open(ctx, o)
	require.NoError(w, err)
	w.Cleanup(func() { c.Close() })
	return c
}

// names lists the children of a node below the root.
func (w *world) names(path string) []string {
	list, _, err := w.admin.Children(w.root + path)
	if err != nil {
		return nil
	}
	return list
}

// clean says what is left that should not be.
func (w *world) clean() {
	w.Helper()
	require.Eventually(w, func() bool {
		for _, lock := range w.names("/locks") {
			if len(w.names("/locks/"+lock)) > 0 {
				return false
			}
		}
		return len(w.names("/runners")) == 0
	}, 30*time.Second, 10*time.Millisecond, "nodes are left over")
}

// Conformance is that of sessions that really expire: the holder's connection is cut, in both directions, for longer than
// its timeout.
func TestConformance(t *testing.T) {
	e := calm.ensemble(t)
	t.Run("Locker", func(t *testing.T) {
		t.Parallel() // both wait most of the time
		cronlocktest.Run(t, func(t testing.TB) cronlocktest.Store {
			s := newSessions(newWorld(t, e))
			return cronlocktest.Store{
				Open: func() cronlock.Locker { return s.open() },
				Lose: s.loseLock,
				Waiting: func(name string) int {
					return max(0, len(s.names("/locks/"+strings.ReplaceAll(name, "/", "%2F")))-1)
				},
			}
		})
	})
	t.Run("Claimer", func(t *testing.T) {
		t.Parallel()
		cronlocktest.RunClaimer(t, func(t testing.TB) cronlocktest.ClaimStore {
			s := newSessions(newWorld(t, e))
			return cronlocktest.ClaimStore{Open: func() cronlock.Claimer { return s.open() }, Lose: s.loseRunner}
		})
	})
}

// sessions are clients whose connections can be cut one by one.
type sessions struct {
	*world
	mu  sync.Mutex
	all []*session
}

type session struct {
	client *zookeeper.Client
	link   *link
}

func newSessions(w *world) *sessions { return &sessions{world: w} }

func (s *sessions) open() *zookeeper.Client {
	l := &link{}
	c := s.world.open(func(o *zookeeper.Options) { o.Timeout, o.Dial = 3*time.Second, l.dial })
	s.mu.Lock()
	defer s.mu.Unlock()
	s.all = append(s.all, &session{c, l})
	return c
}

// cutOwner cuts the client whose session owns the node, until that session has expired.
func (s *sessions) cutOwner(path string) {
	s.Helper()
	_, stat, err := s.admin.Get(s.root + path)
	require.NoError(s, err)
	s.mu.Lock()
	all := s.all
	s.mu.Unlock()
	for _, x := range all {
		if x.client.SessionID() == stat.EphemeralOwner {
			x.link.cut()
			s.Cleanup(x.link.heal)
			go func() {
				for ok := true; ok; ok, _, _ = s.admin.Exists(s.root + path) {
					time.Sleep(5 * time.Millisecond)
				}
				x.link.heal()
			}()
			return
		}
	}
	s.Fatalf("no client has the session of %s", path)
}

func (s *sessions) loseLock(name string) {
	dir := "/locks/" + strings.ReplaceAll(name, "/", "%2F")
	first := ""
	for _, n := range s.names(dir) {
		if first == "" || n[len(n)-10:] < first[len(first)-10:] {
			first = n
		}
	}
	s.cutOwner(dir + "/" + first)
}

// loseRunner does it to a runner.
func (s *sessions) loseRunner(runner string) { s.cutOwner("/runners/" + runner) }
