package replication_test

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/scalr-go/scalr"
	"github.com/scalr-go/scalr/replication"
	"github.com/scalr-go/scalr/replication/memdb"
)

// tb is what a testing.T and a rapid.T have in common.
type tb interface {
	require.TestingT
	Helper()
	Logf(format string, args ...any)
	Failed() bool
	Cleanup(func())
	Context() context.Context
}

// world is a cluster, and a Manager that watches over it.
type world struct {
	t       tb
	db      *memdb.Cluster
	config  replication.Config
	members []replication.Member
	running atomic.Pointer[run]

	membership sync.Mutex
	stopper    func(addr string) func(context.Context) error
	ctx        context.Context
	token      uint64 // of the latest Manager's lease

	mu     sync.Mutex
	events []scalr.Event
	broken []string // rules that were broken
	hook   func(ctx context.Context, c memdb.Call) error
}

// slow is a network and disks that take their time, as real ones do.
var slow = memdb.Options{
	Latency: 2 * time.Millisecond, Delay: 3 * time.Millisecond, Apply: time.Millisecond, Copy: 200 * time.Millisecond,
	RelayLogsLost: true,
}

// newWorld starts n empty servers. It is for synctest bubbles and real time alike.
func newWorld(t tb, n int, options memdb.Options, config replication.Config) *world {
	w := &world{t: t, config: config, ctx: t.Context()}
	options.Hook = func(ctx context.Context, c memdb.Call) error {
		if r, ok := ctx.Value(runKey{}).(*run); ok {
			w.mu.Lock()
			still := r.still
			w.mu.Unlock()
			if still != nil {
				<-still
			}
		}
		if w.hook != nil {
			return w.hook(ctx, c)
		}
		return nil
	}
	w.db = memdb.New(options)
	w.config.Engine = w.db
	w.config.Name = "shop/db"
	w.config.Events = func(e scalr.Event) {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.events = append(w.events, e)
	}
	for i := range n {
		w.members = append(w.members, replication.Member{ID: id(i + 1), Addr: addr(i + 1), Machine: fmt.Sprintf("i-%d", i+1)})
		w.db.Start(addr(i + 1))
	}
	t.Cleanup(func() {
		if t.Failed() {
			for _, e := range w.events {
				t.Logf("%v", e)
			}
		}
	})
	return w
}

func id(n int) string   { return fmt.Sprintf("db-%d", n) }
func addr(n int) string { return fmt.Sprintf("10.0.0.%d:3306", n) }

// run is one life of a Manager.
type run struct {
	*replication.Manager
	stop   func()
	still  chan struct{} // its process stands still until this is closed; nil if it does not
	result error         // of RunUnder, when it has been stopped
}

// runKey is the key of the run among the values of its context.
type runKey struct{}

// standStill lets the process of the Manager stand still until the function is called, or the world ends.
func (w *world) standStill() (wake func()) {
	r := w.running.Load()
	w.mu.Lock()
	defer w.mu.Unlock()
	r.still = make(chan struct{})
	return sync.OnceFunc(func() { close(r.still) })
}

func (w *world) manager() *replication.Manager { return w.running.Load().Manager }

func (w *world) stop() { w.running.Load().stop() }

// start makes a Manager run.
func (w *world) start() {
	w.t.Helper()
	m, err := replication.New(w.config)
	require.NoError(w.t, err)
	w.membership.Lock()
	defer w.membership.Unlock()
	m.SetMembers(w.members, len(w.members))
	w.token++
	r := &run{Manager: m}
	ctx, cancel := context.WithCancel(context.WithValue(w.ctx, runKey{}, r))
	done := make(chan struct{})
	r.stop = func() { cancel(); <-done }
	w.running.Store(r) // before its first call, at which a test may end it
	token := w.token
	go func() { defer close(done); r.result = m.RunUnder(ctx, token) }()
}

// await waits for a moment that has to come.
func (w *world) await(what string, moment <-chan struct{}) {
	w.t.Helper()
	select {
	case <-moment:
	case <-time.After(time.Minute):
		require.FailNow(w.t, "waited in vain until "+what, "plan:\n%v", w.manager().Plan())
	}
}

// until waits for a topology.
func (w *world) until(what string, limit time.Duration, cond func(t replication.Topology) bool) replication.Topology {
	w.t.Helper()
	timeout := time.After(limit)
	for {
		top, changed := w.manager().Topology()
		if cond(top) {
			return top
		}
		select {
		case <-changed:
		case <-time.After(50 * time.Millisecond): // another Manager may run by then
		case <-timeout:
			require.FailNow(w.t, "waited in vain until "+what, "topology: %+v\nplan:\n%v", top, w.manager().Plan())
		}
	}
}

// whole reports whether one member is primary and all others are replicas that serve.
func whole(t replication.Topology) bool {
	n := 0
	for _, x := range t.Members {
		switch {
		case x.Role == replication.RolePrimary && x.Member.ID == t.Primary:
			n++
		case x.Role == replication.RoleReplica && x.Serves && x.Error == "":
		default:
			return false
		}
	}
	return n == 1
}

func (w *world) whole() replication.Topology {
	w.t.Helper()
	return w.until("the set is whole", time.Minute, whole)
}

func (w *world) primary(other string) replication.Topology {
	w.t.Helper()
	return w.until("there is another primary than "+other, time.Minute, func(t replication.Topology) bool {
		return t.Primary != "" && t.Primary != other
	})
}

func (w *world) addr(id string) string {
	w.membership.Lock()
	defer w.membership.Unlock()
	for _, m := range w.members {
		if m.ID == id {
			return m.Addr
		}
	}
	return ""
}

func (w *world) write(id, key string) {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(w.ctx, time.Minute)
	defer cancel()
	err := w.db.Write(ctx, w.addr(id), key, key)
	require.NoError(w.t, err, "%v", w.manager().Plan())
}

func (w *world) rows(id string) map[string]string {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(w.ctx, time.Minute)
	defer cancel()
	rows, err := w.db.Rows(ctx, w.addr(id))
	require.NoError(w.t, err)
	return rows
}

// settled waits until the set is whole, has nothing more to do, and all have the same data.
func (w *world) settled() replication.Topology {
	w.t.Helper()
	w.whole()
	time.Sleep(2 * time.Second)
	top, _ := w.manager().Topology()
	require.True(w.t, whole(top), "%+v", top)
	plan := w.manager().Plan()
	require.Empty(w.t, plan.Steps, "%v", plan)
	require.Empty(w.t, plan.Held, "%v", plan)
	for _, m := range w.members {
		require.Equal(w.t, w.rows(top.Primary), w.rows(m.ID), "%s has other data than the primary %s", m.ID, top.Primary)
	}
	return top
}

// bubble runs a test in virtual time, with a world that is ended with it.
func bubble(t *testing.T, n int, config replication.Config, f func(t *testing.T, w *world)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, n, slow, config)
		f(t, w)
		w.stop()
	})
}

func policies(t *testing.T, f func(t *testing.T, c replication.Config)) {
	for _, p := range []replication.Policy{replication.Availability, replication.Durability} {
		t.Run(p.String(), func(t *testing.T) { f(t, replication.Config{Policy: p}) })
	}
}

func TestFreshSet(t *testing.T) {
	policies(t, func(t *testing.T, c replication.Config) {
		bubble(t, 3, c, func(t *testing.T, w *world) {
			w.start()
			begin := time.Now()
			top := w.whole()
			t.Log("whole after", time.Since(begin))
			require.Equal(t, "db-1", top.Primary)
			require.EqualValues(t, 1, top.Epoch)
			for i := range 10 {
				w.write("db-1", fmt.Sprint(i))
			}
			w.settled()
			require.Nil(t, top.Verdict)
		})
	})
}

func TestKilled(t *testing.T) {
	policies(t, func(t *testing.T, c replication.Config) {
		bubble(t, 3, c, func(t *testing.T, w *world) {
			w.start()
			w.whole()
			for i := range 10 {
				w.write("db-1", fmt.Sprint(i))
			}
			time.Sleep(1234 * time.Millisecond)
			w.db.Crash(addr(1))
			begin := time.Now()
			top := w.primary("db-1")
			took := time.Since(begin)
			t.Log("primary after", took, top.Verdict)
			require.Less(t, took, 500*time.Millisecond)
			w.write(top.Primary, "x")
			w.db.Start(addr(1))
			top = w.settled()
			require.EqualValues(t, 2, top.Epoch)
			if c.Policy == replication.Durability {
				require.Equal(t, replication.LossNone, top.Verdict.Loss)
			}
			require.False(t, reflect.DeepEqual(top, replication.Topology{}))
		})
	})
}

// Nothing is decided while Config.Events hears of something, so a switchover that it waits for does not come; one that it leaves to
// somebody else does.
func TestEventsAreHeardBetweenDecisions(t *testing.T) {
	bubble(t, 3, replication.Config{}, func(t *testing.T, w *world) {
		var waited error
		var left sync.WaitGroup
		hear, done := w.config.Events, false
		w.config.Events = func(e scalr.Event) {
			hear(e)
			if e.Kind != replication.KindPrimary || e.Subject != "db-1" || done {
				return
			}
			done = true
			w.manager().SetMembers(w.members, len(w.members))
			if top, _ := w.manager().Topology(); top.Primary == "" {
				waited = errors.New("the event is of a topology that nobody knows")
				return
			}
			ctx, cancel := context.WithTimeout(w.ctx, time.Second)
			defer cancel()
			waited = w.manager().Switchover(ctx, "db-2")
			left.Go(func() {
				for top, _ := w.manager().Topology(); !whole(top); top, _ = w.manager().Topology() {
					time.Sleep(100 * time.Millisecond)
				}
				assert.NoError(t, w.manager().Switchover(w.ctx, "db-3"))
			})
		}
		w.start()
		w.until("db-3 is the primary", time.Minute, func(t replication.Topology) bool { return t.Primary == "db-3" })
		left.Wait()
		require.ErrorIs(t, waited, context.DeadlineExceeded)
		w.settled()
	})
}

func contains(s, sub string) bool { return strings.Contains(s, sub) }
