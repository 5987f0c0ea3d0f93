package replication

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/scalr-go/scalr"
)

// Manager keeps one set of members in order: see the package doc. Its methods are safe for concurrent use.
//
// It looks at every member in a loop of its own, so a member that hangs delays nobody. After each look it decides anew, by
// the facts alone, and starts the steps that the decision holds, on different members at the same time. A step that a newer
// decision does not hold any more is withdrawn. So a Manager may end at any instruction, and the next one goes on.
type Manager struct {
	config Config
	wake   chan struct{} // has room for one: there is news for Run
	shelve chan struct{} // has room for one: a backup has been taken

	mu       sync.Mutex
	state    *state
	running  bool
	token    uint64                  // of the lease, 0 if there is none
	stop     context.CancelCauseFunc // ends Run
	loops    map[key]*loop
	withdraw map[*fact]context.CancelFunc // ends the step that runs on the member
	topology Topology
	restored *Backup
	changed  chan struct{}
	events   []scalr.Event // to be emitted, in order
}

// New makes a Manager. It reports every fault of the config at once, by field, and makes no calls.
func New(config Config) (*Manager, error) {
	config, err := config.check()
	if err != nil {
		return nil, err
	}
	return &Manager{
		config:  config,
		wake:    make(chan struct{}, 1),
		shelve:  make(chan struct{}, 1),
		state:   newState(config.Name),
		changed: make(chan struct{}),
	}, nil
}

// SetMembers says who is there now, and how many the set is meant to have; that is at least as many as there are. A fresh
// set is initialised only when that many members answer. Members that are no longer named are watched no more; nothing is
// done to them. It may be called at any time and does not wait for anything.
func (m *Manager) SetMembers(members []Member, expected int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.state.setMembers(members, expected)
	m.publish(decide(m.state, &m.config, time.Now()))
	m.ring()
}

// MachineEnded says that a machine does nothing any more and never will again under this name: its provider lists it as
// terminated or failed. If the primary was on it, a replica takes over at once, without a replica's word for the loss and
// without Member.Fence. It may be called at any time and does not wait for anything.
func (m *Manager) MachineEnded(machine string) {
	if machine == "" {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if !m.state.ended[machine] {
		m.state.ended[machine] = true
		m.ring()
	}
}

// Run detects, recovers and publishes until the context ends, and returns the context's cause. Whatever it started has
// ended when it returns. It may be called again then, and begins without knowledge of the members, as a new Manager does.
// It is an error to call it while it runs.
//
// Two Managers must not run for one set at the same time: where several hosts could, each calls [Manager.RunUnder] under a
// lease.
func (m *Manager) Run(ctx context.Context) error { return m.RunUnder(ctx, 0) }

// RunUnder is Run under a lease: token is its fencing token, greater than that of every earlier lease for this set, such as a
// cronlock.Lease has. It ends with ErrOvertaken when a member has been claimed under a later one. The members are claimed
// before any is promoted, except for those that have nothing in common with the others, and those that answer and do not let themselves be
// claimed (a disk that stalls, say), which is tried once more just before. One of these may still be promoted by a Manager that wakes
// then: two take writes until the next look.
func (m *Manager) RunUnder(ctx context.Context, token uint64) error {
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	if err := m.begin(token, stop); err != nil {
		return err
	}
	var tasks sync.WaitGroup
	defer m.end(&tasks)
	defer stop(nil) // before it waits for the tasks
	if m.config.Backups != nil {
		tasks.Go(func() { m.keepBackups(ctx) })
	}
	tick := time.NewTicker(max(m.config.Interval/4, time.Millisecond))
	defer tick.Stop()
	for {
		for _, e := range m.pass(ctx, &tasks) {
			m.config.Events(e)
		}
		m.remind(ctx, &tasks)
		select {
		case <-m.wake:
		case <-tick.C:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

func (m *Manager) begin(token uint64, stop context.CancelCauseFunc) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.running {
		return errors.New("the Manager runs already")
	}
	m.running, m.token, m.stop = true, token, stop
	old := m.state
	m.state = newState(m.config.Name)
	m.state.started = time.Now()
	m.state.verdict, m.state.request = old.verdict, old.request
	m.state.published, m.state.shown = old.published, old.shown
	m.state.faults, m.state.expected, m.state.ended = old.faults, old.expected, old.ended
	for _, f := range old.members {
		m.state.members = append(m.state.members, &fact{Member: f.Member})
	}
	m.loops, m.withdraw = map[key]*loop{}, map[*fact]context.CancelFunc{}
	return nil
}

// end waits for all that Run has started.
func (m *Manager) end(tasks *sync.WaitGroup) {
	tasks.Wait()
	m.mu.Lock()
	defer m.mu.Unlock()
	m.running = false
	for _, f := range m.state.members {
		m.config.Engine.Close(f.Member)
	}
	if r := m.state.request; r != nil {
		r.answer(errors.New("the Manager has ended"))
		m.state.request = nil
	}
}

// ring tells Run that there is news.
func (m *Manager) ring() {
	select {
	case m.wake <- struct{}{}:
	default:
	}
}

// pass decides, publishes and starts what is to be done. It returns the events to emit.
func (m *Manager) pass(ctx context.Context, tasks *sync.WaitGroup) []scalr.Event {
	m.mu.Lock()
	defer m.mu.Unlock()
	now := time.Now()
	m.watch(ctx, tasks)
	d := decide(m.state, &m.config, now)
	if d.soon && !m.state.soon {
		m.kick(key{}) // some have been looked at just before
	}
	m.state.soon = d.soon
	m.note(d, now)
	m.publish(d)
	m.answer(d)
	m.act(ctx, tasks, d, now)
	events := m.events
	m.events = nil
	if m.config.Events == nil {
		return nil
	}
	return events
}

// Switchover makes the member with the ID the primary, or the best replica if to is empty, and returns when the topology
// says so. Run must be under way, and not wait for Config.Events to return from this. The old primary is fenced first and becomes a replica. A replica that is about to join is
// waited for. If the new one cannot take over within Config.StepTimeout, the old one stays, and Switchover says why. If the context ends first, the switchover is
// broken off where it is, and the Manager makes the member with the most data the primary.
func (m *Manager) Switchover(ctx context.Context, to string) error {
	done := make(chan error, 1)
	r := &request{to: to, began: time.Now(), done: done}
	m.mu.Lock()
	switch {
	case m.state.request != nil:
		m.mu.Unlock()
		return errors.New("another switchover is under way")
	case to != "" && m.state.byID(to) == nil:
		m.mu.Unlock()
		return fmt.Errorf("there is no member %q", to)
	}
	m.state.request = r
	m.ring()
	m.mu.Unlock()
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		m.mu.Lock()
		defer m.mu.Unlock()
		if m.state.request == r {
			m.state.request = nil
			m.ring()
		}
		return context.Cause(ctx)
	}
}
