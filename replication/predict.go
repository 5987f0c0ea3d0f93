package replication

import (
	"cmp"
	"slices"
	"time"
)

// Plan says what the Manager would do now. Nothing is done.
func (m *Manager) Plan() Plan {
	m.mu.Lock()
	s := m.state.clone()
	m.mu.Unlock()
	return foresee(s, &m.config, time.Now())
}

// PlanLoss says what the Manager would do if the server of the member with this ID died now; "" is the primary. Nothing
// is done. The plan is empty for a member that there is not.
func (m *Manager) PlanLoss(id string) Plan {
	m.mu.Lock()
	s := m.state.clone()
	if id == "" {
		id = m.topology.Primary
	}
	m.mu.Unlock()
	now := time.Now()
	f := s.byID(id)
	if f == nil {
		return Plan{}
	}
	s.supposeDead(f, &m.config, now)
	return foresee(s, &m.config, now)
}

// foresee plans on from a state, taking it that each step does what it should.
func foresee(s *state, c *Config, now time.Time) Plan {
	s = s.clone()
	s.request = nil
	var plan Plan
	for phase := 1; phase <= 10; phase++ {
		d := decide(s, c, now)
		for _, h := range d.held {
			if !slices.Contains(plan.Held, h) {
				plan.Held = append(plan.Held, h)
			}
		}
		if d.done {
			s.request = nil
		}
		if len(d.steps) == 0 {
			break
		}
		if d.chosen != "" {
			s.hand(d.leader, d.chosen, now)
		}
		for _, step := range d.steps {
			step.Phase = phase
			plan.Steps = append(plan.Steps, step)
		}
		for _, step := range d.steps {
			s.suppose(step, c, now)
		}
	}
	return plan
}

// suppose changes the state as a step that works would.
func (s *state) suppose(step Step, c *Config, now time.Time) {
	f, other := s.byID(step.Member), s.byID(step.Other)
	st := &f.good.status
	f.running = nil
	s.tries[try{keyOf(f.Member), step.Kind, step.Other}] = tried{times: 1}
	switch step.Kind {
	case StepFence:
		st.Writable = false
	case StepStop:
		f.stopped = true
	case StepDrain:
		f.drained, st.Receives, st.Applied = true, false, st.Received
	case StepPromote:
		st.Writable, st.Source, st.Receives, st.SemiSync = true, "", false, step.SemiSync
	case StepFollow:
		st.Writable, st.Source, st.Receives, st.Applies, st.Imported = false, other.Addr, true, true, false
		st.Empty = other.status().Empty
		st.Delay = cmp.Or(f.Delay, st.Delay)
		st.Received, st.Applied = other.status().Applied, other.status().Applied
		f.drained, f.deaf, f.idle, f.current = false, time.Time{}, time.Time{}, now
	case StepSave:
		f.saved, f.file = st.Received, "a file"
	case StepSeed, StepRewind:
		st.Empty, st.Foreign, st.Source, st.Received, st.Applied = false, false, "", other.status().Applied, other.status().Applied
		f.diverged = false
	case StepImport:
		st.Empty, st.Foreign, st.Imported = false, false, true
	case StepBackup:
		s.shelf.taken = append(slices.Clone(s.shelf.taken), now)
	case StepSemiSyncOn, StepSemiSyncOff:
		st.SemiSync = step.Kind == StepSemiSyncOn
		st.Unacked, f.waits = 0, time.Time{}
	}
	for _, g := range s.members { // a look at everybody who answers
		if g.answers() || g == f && step.Kind != StepStop {
			l := g.good
			l.began, l.at = s.tick(), now
			l.ended = s.tick()
			g.before, g.good, g.settled = look{}, l, 0
		}
	}
	if step.Kind == StepPromote {
		s.crown(f)
	}
}

// suppose the server of a member dead: it refuses connections, and nobody hears it.
func (s *state) supposeDead(f *fact, c *Config, now time.Time) {
	f.misses, f.refused, f.refusing, f.ended = c.Misses, true, true, true
	f.missing, f.missingAt = s.tick(), now
	for _, g := range s.members {
		if g != f && g.answers() {
			if g.status().Source == f.Addr {
				g.good.status.Receives, g.deaf, g.idle = false, now.Add(-time.Hour), now.Add(-time.Hour)
			}
			g.good.began = s.tick()
			g.good.ended = s.tick()
		}
	}
}
