package replication

import (
	"context"
	"errors"
	"fmt"
	"slices"
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

// loop is the goroutine that looks at one member.
type loop struct {
	end  context.CancelFunc
	kick chan struct{} // has room for one: look at once
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
		state:   newState(),
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

func (m *Manager) run(ctx context.Context, token uint64, stop context.CancelCauseFunc) error {
	if err := m.begin(token, stop); err != nil {
		return err
	}
	var tasks sync.WaitGroup
	defer m.end(&tasks)
	defer stop(nil)
	if m.config.Backups != nil {
		tasks.Go(func() { m.keepBackups(ctx) })
	}
	tick := time.NewTicker(max(m.config.Interval/4, time.Millisecond))
	defer tick.Stop()
	for {
		for _, e := range m.pass(ctx, &tasks) {
			m.config.Events(e)
		}
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
	m.state = newState()
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

// watch starts and ends loops, so that there is one for each member.
func (m *Manager) watch(ctx context.Context, tasks *sync.WaitGroup) {
	for k, l := range m.loops {
		if m.state.find(k) == nil {
			l.end()
			delete(m.loops, k)
		}
	}
	for _, f := range m.state.members {
		if m.loops[keyOf(f.Member)] == nil {
			ctx, end := context.WithCancel(ctx)
			l := &loop{end, make(chan struct{}, 1)}
			m.loops[keyOf(f.Member)] = l
			member := m.marked(f.Member)
			tasks.Go(func() {
				defer m.config.Engine.Close(member)
				m.look(ctx, member, l)
			})
			if g, ok := m.config.Engine.(Guard); ok && m.token > 0 {
				tasks.Go(func() { m.claim(ctx, g, member) })
			}
			if w, ok := m.config.Engine.(Watcher); ok {
				tasks.Go(func() { m.hold(ctx, w, member, l) })
			}
		}
	}
}

// hold lets a member be looked at as soon as a connection to it breaks.
func (m *Manager) hold(ctx context.Context, w Watcher, member Member, l *loop) {
	for ctx.Err() == nil {
		if err := w.Watch(ctx, member); ctx.Err() == nil && silent(err) {
			select {
			case l.kick <- struct{}{}:
			default:
			}
		}
		t := time.NewTimer(m.config.Interval)
		select {
		case <-t.C:
		case <-ctx.Done():
		}
		t.Stop()
	}
}

// look looks at a member until the context ends.
func (m *Manager) look(ctx context.Context, member Member, l *loop) {
	for ctx.Err() == nil {
		begin := time.Now()
		m.mu.Lock()
		v := look{began: m.state.tick()}
		m.mu.Unlock()
		bounded, cancel := context.WithTimeout(ctx, m.config.Timeout)
		v.status, v.err = m.config.Engine.Observe(bounded, member)
		late := bounded.Err() != nil
		cancel()
		if ctx.Err() != nil {
			return
		}
		if late && v.err != nil && !silent(v.err) {
			v.err = fmt.Errorf("%w: %w", ErrHung, v.err)
		}
		t := time.NewTimer(max(m.looked(member, v)-time.Since(begin), time.Millisecond))
		select {
		case <-t.C:
		case <-l.kick:
		case <-ctx.Done():
		}
		t.Stop()
	}
}

// looked takes in a look, and gives the time from its beginning to the next one.
func (m *Manager) looked(member Member, v look) time.Duration {
	m.mu.Lock()
	defer m.mu.Unlock()
	v.ended, v.at = m.state.tick(), time.Now()
	k := keyOf(member)
	f := m.state.find(k)
	if f == nil {
		return m.config.Interval
	}
	m.state.learn(k, v, func(a, b Position) bool {
		o := m.config.Engine.Compare(a, b)
		return o == Equal || o == Ahead
	})
	if f.misses == 1 && k == m.state.primary {
		m.kick(k) // what do the others see?
	}
	m.ring()
	missed := f.misses > 0 && f.misses < m.config.Misses
	switch {
	case missed && errors.Is(v.err, ErrRefused), // a positive answer, and a quick one
		v.err == nil && m.state.soon:
		return m.config.Interval / 16
	case missed:
		return m.config.Interval / 4
	}
	return m.config.Interval
}

// kick makes all loops but one look at once.
func (m *Manager) kick(but key) {
	for k, l := range m.loops {
		if k == but {
			continue
		}
		select {
		case l.kick <- struct{}{}:
		default:
		}
	}
}

// act starts the steps of a decision, and withdraws those that it does not hold.
func (m *Manager) act(ctx context.Context, tasks *sync.WaitGroup, d decision, now time.Time) {
	wanted := map[try]bool{}
	for _, s := range d.steps {
		f := m.state.byID(s.Member)
		t := try{keyOf(f.Member), s.Kind, s.Other}
		wanted[t] = true
		if f.running == nil && !now.Before(m.state.tries[t].until) && !(s.Kind == StepPromote && m.claims()) {
			m.start(ctx, tasks, f, s, d)
		}
	}
	for f, withdraw := range m.withdraw {
		if f.running == nil || m.state.find(keyOf(f.Member)) != f ||
			!slices.ContainsFunc(d.steps, func(s Step) bool { return s.Member == f.ID && m.state.underWay(f, s) }) {
			f.withdrew = true
			withdraw()
		}
	}
	for _, f := range m.state.members {
		if f.answers() && !slices.ContainsFunc(d.steps, func(s Step) bool { return s.Member == f.ID }) {
			f.trouble = ""
		}
	}
	for t, tried := range m.state.tries {
		forget := tried.until
		if tried.fail {
			forget = forget.Add(5 * time.Second) // so that what is tried instead gets its time
		}
		if !wanted[t] && now.After(forget) {
			delete(m.state.tries, t)
		}
	}
}

// start makes a step be under way.
func (m *Manager) start(ctx context.Context, tasks *sync.WaitGroup, f *fact, s Step, d decision) {
	k := keyOf(f.Member)
	switch s.Kind {
	case StepDrain, StepSeed, StepSave, StepRewind, StepImport, StepBackup:
		ctx, m.withdraw[f] = context.WithCancel(ctx)
	case StepStop:
		ctx, m.withdraw[f] = context.WithTimeout(ctx, m.config.StopTimeout)
	default:
		ctx, m.withdraw[f] = context.WithTimeout(ctx, m.config.StepTimeout)
	}
	switch s.Kind {
	case StepPromote:
		m.state.heir, m.state.heirSync, m.state.draft = k, s.SemiSync, d.draft
		if d.draft != nil {
			m.state.recoveries = append(m.state.recoveries, time.Now())
			m.state.recoveries = m.state.recoveries[max(0, len(m.state.recoveries)-m.config.Recoveries):]
		}
	case StepFollow:
		if s.Other == m.state.primary.id {
			m.state.followers[k] = true
		}
		f.told = keyOf(m.state.byID(s.Other).Member)
	case StepFence:
		if d.chosen != "" && d.leader == f {
			m.state.hand(f, d.chosen, time.Now())
		}
	}
	member, other := m.marked(f.Member), Member{}
	if o := m.state.byID(s.Other); o != nil {
		other = m.marked(o.Member)
	}
	f.running, f.against = &s, keyOf(other)
	m.emit(KindStep, s.Member, s.String(), nil)
	tasks.Go(func() {
		m.finish(f, s, m.do(ctx, f, s, member, other))
	})
}

// do calls the engine.
func (m *Manager) do(ctx context.Context, f *fact, s Step, member, other Member) (err error) {
	e := m.config.Engine
	progress := func(p Progress) {
		m.mu.Lock()
		defer m.mu.Unlock()
		f.progress = p
	}
	switch s.Kind {
	case StepFence:
		return e.Fence(ctx, member)
	case StepStop:
		return member.Fence(ctx)
	case StepDrain:
		_, err = e.Drain(ctx, member)
		return err
	case StepPromote:
		return e.Promote(ctx, member, s.SemiSync)
	case StepFollow:
		return e.Follow(ctx, member, other)
	case StepSeed:
		_, err = e.Seed(ctx, member, other, progress)
		return err
	case StepSave:
		return m.save(ctx, f, member, other)
	case StepRewind:
		m.mu.Lock()
		at := f.saved
		m.mu.Unlock()
		return e.(Rewinder).Rewind(ctx, member, other, at, progress)
	case StepImport:
		return m.imports(ctx, member, progress)
	case StepBackup:
		return m.backup(ctx, member, progress)
	case StepSemiSyncOn, StepSemiSyncOff:
		return e.SetSemiSync(ctx, member, s.Kind == StepSemiSyncOn)
	}
	return fmt.Errorf("no such step: %s", s.Kind)
}

// finish takes in how a step ended.
func (m *Manager) finish(f *fact, s Step, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.withdraw[f]()
	delete(m.withdraw, f)
	f.running, f.progress = nil, Progress{}
	if s.Kind != StepBackup { // which changes nothing
		f.settled, f.trouble = m.state.tick(), ""
	}
	defer func() { f.withdrew = false }()
	if errors.Is(err, ErrOvertaken) {
		m.stop(fmt.Errorf("%s: %w", s, err))
	}
	switch {
	case s.Kind == StepBackup:
		m.backedUp(f, err)
	case err == nil && s.Kind == StepStop:
		f.stopped = true
	case err == nil && s.Kind == StepDrain:
		f.drained = true
	case err == nil && (s.Kind == StepFollow || s.Kind.refills() || s.Kind == StepImport):
		f.drained, f.diverged, f.fell = false, false, 0
		if s.Kind != StepFollow {
			f.before, f.errant = look{}, 0
			f.saved, f.file, f.stays = "", "", ""
		}
	case err != nil && !f.withdrew:
		relay := m.config.Relays && f.against != m.state.primary && f.against != m.state.heir // what it lacks the primary may have
		f.diverged = f.diverged || s.Kind == StepFollow && errors.Is(err, ErrDiverged) && !relay
		if s.Kind == StepFollow && silent(err) {
			f.fell, f.fellAt = f.fell+1, time.Now()
		}
		if s.Kind == StepRewind {
			f.stays = err.Error()
		}
		f.trouble = fmt.Sprintf("%s failed: %v", s.Kind, err)
		m.emit(KindStepFailed, s.Member, s.String(), err)
	}
	t := try{keyOf(f.Member), s.Kind, s.Other}
	tried := m.state.tries[t]
	tried.times, tried.fail = tried.times+1, err != nil && !f.withdrew
	tried.until = time.Now().Add(pause(s.Kind, tried.times))
	m.state.tries[t] = tried
	m.kick(key{})
	m.ring()
}

// pause is how long a step waits after it has been tried so many times.
func pause(kind StepKind, times int) time.Duration {
	limit := 10 * time.Second
	switch kind {
	case StepFence, StepStop, StepDrain, StepPromote:
		limit = time.Second // the set has no primary meanwhile, or two
	case StepBackup:
		limit = time.Minute
	}
	return min(100*time.Millisecond<<min(times-1, 10), limit)
}

// Switchover makes the member with the ID the primary, or the best replica if to is empty, and returns when the topology
// says so. Run must be under way. The old primary is fenced first and becomes a replica. A replica that is about to join is
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
