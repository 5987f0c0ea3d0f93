package replication

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"
)

// act starts the steps of a decision, and withdraws those that it does not hold.
func (m *Manager) act(ctx context.Context, tasks *sync.WaitGroup, d decision, now time.Time) {
	wanted := map[try]bool{}
	for _, s := range d.steps {
		f := m.state.byID(s.Member)
		t := try{keyOf(f.Member), s.Kind, s.Other}
		wanted[t] = true
		if f.running == nil && !now.Before(m.state.tries[t].until) && !(s.Kind == StepPromote && m.unasked()) && !m.owes(f, s) {
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
	k, planned, text := keyOf(f.Member), false, ""
	var refusing []Member
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
		again := m.state.draft != nil // the same recovery goes on
		m.state.heir = k
		if d.leader != f { // whose promotion was broken off otherwise
			m.state.draft = d.draft
		}
		if d.draft != nil {
			m.state.lost, m.state.lostAt = d.lost, d.lostAt
		}
		if d.draft != nil && !again {
			m.state.recoveries = append(m.state.recoveries, time.Now())
			m.state.recoveries = m.state.recoveries[max(0, len(m.state.recoveries)-m.config.Recoveries):]
		}
		text, refusing = m.state.text(), m.refusing()
	case StepFollow:
		if s.Other == m.state.primary.id {
			m.state.followers[k] = true
		}
		f.told = keyOf(m.state.byID(s.Other).Member)
	case StepFence:
		if planned = d.chosen != "" && d.leader == f; planned {
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
		if planned {
			m.quiesce(ctx, member)
		}
		var err error
		if s.Kind == StepPromote {
			if err = m.claimAgain(ctx, refusing); err == nil {
				err = m.keep(ctx, f, member, text)
			}
		}
		if err == nil {
			err = m.do(ctx, f, s, member, other)
		}
		m.finish(f, s, err)
	})
}

// quiesceFor is how long transactions may go on that are open when a switchover begins. Who waits for them writes nothing
// meanwhile.
const quiesceFor = 50 * time.Millisecond

// quiesce lets open transactions end. Those that do not are cut off by the fence.
func (m *Manager) quiesce(ctx context.Context, member Member) {
	if q, ok := m.config.Engine.(Quiescer); ok {
		ctx, cancel := context.WithTimeout(ctx, quiesceFor)
		defer cancel()
		_ = q.Quiesce(ctx, member)
	}
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
	if s.Kind.refills() || s.Kind == StepImport {
		f.keeps = ""
	}
	if s.Kind != StepBackup { // which changes nothing
		f.settled, f.trouble = m.state.tick(), ""
	}
	defer func() { f.withdrew = false }()
	if s.Kind == StepFence && errors.Is(err, ErrUnsafe) { // also if it was withdrawn meanwhile
		f.leaks = err
	}
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
	case err == nil && s.Kind == StepFence:
		f.leaks = nil
	case err == nil && (s.Kind == StepFollow || s.Kind.refills() || s.Kind == StepImport):
		f.drained, f.diverged, f.fell = false, false, 0
		if s.Kind == StepFollow && f.against == m.state.primary {
			f.entry = m.state.position
		}
		if s.Kind != StepFollow {
			f.before, f.errant, f.counted = look{}, 0, ""
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
