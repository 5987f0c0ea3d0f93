package replication

import (
	"fmt"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/scalr-go/scalr"
)

// The kinds of events that a Manager emits.
const (
	KindPrimary    scalr.Kind = "primary-changed"   // Subject is the new primary, empty if there is none
	KindMember     scalr.Kind = "member-changed"    // a member's role or readiness has changed; Attrs has them
	KindStep       scalr.Kind = "recovery-step"     // a step has begun
	KindStepFailed scalr.Kind = "recovery-failed"   // a step has failed; it is tried again if it is still needed
	KindHeld       scalr.Kind = "recovery-held"     // something should be done and is not
	KindVerdict    scalr.Kind = "recovery-verdict"  // a recovery has ended, or its verdict has been corrected
	KindSurplus    scalr.Kind = "surplus-found"     // a member has transactions that the primary lacks
	KindSwitchover scalr.Kind = "switchover-failed" // a planned change of primary did not take place
)

// emit notes an event for Run to hand on.
func (m *Manager) emit(kind scalr.Kind, subject, message string, err error) {
	farm, role, ok := strings.Cut(m.config.Name, "/")
	if !ok {
		farm, role = "", m.config.Name
	}
	e := scalr.Event{Time: time.Now(), Kind: kind, Farm: farm, Role: role, Subject: subject, Message: message}
	if err != nil {
		e.Err = err.Error()
	}
	m.events = append(m.events, e)
}

// note keeps what a decision has found out.
func (m *Manager) note(d decision, now time.Time) {
	s := m.state
	if d.leader != nil && s.primary != keyOf(d.leader.Member) {
		s.crown(d.leader)
	}
	if d.leader != nil && s.draft != nil {
		if v := s.draft; v.To == d.leader.ID && d.primary == v.To {
			v.Epoch, v.Took = m.topology.Epoch+1, now.Sub(v.Began)
			s.verdict, s.found = v, false
			if s.lost != (key{}) && s.lost != s.primary {
				s.former[s.lost] = true
			}
			m.judge(*v)
		}
		if d.primary != "" {
			s.draft = nil
		}
	}
	for _, x := range d.surplus {
		m.count(d, x)
	}
	since(&s.shelf.bare, now, d.bare)
}

// judge tells a verdict.
func (m *Manager) judge(v Verdict) {
	m.emit(KindVerdict, v.To, v.String(), nil)
	attrs := map[string]string{"from": v.From, "loss": string(v.Loss), "lost": fmt.Sprint(v.Lost)}
	if !v.Until.IsZero() {
		attrs["until"] = v.Until.UTC().Format(time.RFC3339Nano)
	}
	m.events[len(m.events)-1].Attrs = attrs
}

// answer ends a switchover that has come to its end.
func (m *Manager) answer(d decision) {
	r := m.state.request
	if r == nil || !d.done {
		return
	}
	m.state.request = nil
	if d.answer != nil {
		m.emit(KindSwitchover, r.to, "the primary stays", d.answer)
	}
	r.answer(d.answer)
}

// count reports a surplus once, and corrects the verdict by it. Where the primary was found to be one, a surplus may be all that tells
// that another member has been the primary meanwhile, and under Availability that has acknowledged it alone.
func (m *Manager) count(d decision, x surplus) {
	f := m.state.find(x.member)
	if m.state.under(d.leader, f) && f.joined {
		f.errant = x.n
	}
	if f.counted == x.at {
		return
	}
	if x.n > 0 { // one that has nothing of its own has left nothing behind
		f.counted = x.at
		m.emit(KindSurplus, f.ID, fmt.Sprintf("it has %s that the primary %s lacks", transactions(x.n, x.exact), d.leader.ID), nil)
	}
	switch v := m.state.verdict; {
	case v != nil && v.From == f.ID && m.state.former[x.member]:
		if v.Loss != LossAtLeast {
			return
		}
		c := *v
		if x.exact && x.n >= c.Lost {
			c.Loss = LossExact
		}
		c.Lost = max(c.Lost, x.n)
		m.state.verdict = &c
		m.judge(c)
	case m.state.found && x.n > 0 && f.status().Source == "" && m.config.Policy == Availability && !m.state.former[x.member]:
		if all, _ := m.config.Engine.Count(x.at, ""); all == x.n {
			return // it is of another set
		}
		c := Verdict{Epoch: m.topology.Epoch, From: f.ID, To: d.leader.ID, Began: time.Now(), Loss: LossAtLeast, Lost: x.n,
			Reason: "it took writes when the Manager began to look, and what the other one has it lacks"}
		if x.exact {
			c.Loss = LossExact
		}
		m.state.verdict, m.state.former[x.member] = &c, true
		m.judge(c)
	}
}

// publish makes the topology say what is so.
func (m *Manager) publish(d decision) {
	old, now := m.topology, time.Now()
	t := Topology{Epoch: old.Epoch, Primary: d.primary, Held: d.held, Verdict: m.state.verdict, Restored: m.restored}
	t.Backup, _ = m.state.shelf.newest(now)
	if m.state.shown = t.Primary != ""; m.state.shown {
		is := keyOf(m.state.byID(t.Primary).Member)
		if t.Primary != old.Primary || is != m.state.published {
			t.Epoch++
		}
		m.state.published = is
	}
	for _, f := range m.state.members {
		t.Members = append(t.Members, m.describe(f, d, now))
	}
	m.topology = t
	if reflect.DeepEqual(shape(old), shape(t)) {
		return
	}
	close(m.changed)
	m.changed = make(chan struct{})
	m.tell(old, t)
}

// describe says what one member is.
func (m *Manager) describe(f *fact, d decision, now time.Time) MemberState {
	st := f.status()
	x := MemberState{Member: f.Member, Lag: st.Lag, Position: st.Applied, Progress: f.progress, Error: d.errors[f.ID]}
	x.Member.Fence = nil
	down := m.state.down(f, &m.config)
	switch {
	case d.roles[f.ID] != "":
		x.Role = d.roles[f.ID]
	case f.ID == d.primary:
		x.Role = RolePrimary
	case f.running != nil && (f.running.Kind.refills() || f.running.Kind == StepImport):
		x.Role = RoleSeeding
	case f.fault != nil, down:
		x.Role = RoleDown
	case f.good.ended == 0:
		x.Role = RoleUnknown
	case st.Source != "" && (d.leader == nil || m.state.under(d.leader, f)) && (!st.Empty || st.Receives || d.leader == nil):
		x.Role = RoleReplica
	default:
		x.Role = RoleJoining
	}
	switch {
	case x.Error != "":
	case f.fault != nil:
		x.Error = f.fault.Error()
	case f.misses > 0 && f.lastErr != nil:
		x.Error = f.lastErr.Error()
	case f.trouble != "":
		x.Error = f.trouble
	case x.Role == RoleReplica && !(st.Receives && st.Applies):
		x.Error = st.Error
	}
	limit := m.config.MaxLag
	if was, ok := m.topology.Member(f.ID); ok && was.Role == RoleReplica && !was.Serves {
		limit /= 2 // or one that is about as far behind would come and go with each look
	}
	x.Serves = x.Role == RolePrimary || x.Role == RoleReplica && !down && now.Sub(f.current) <= limit
	return x
}

// shape is what of a topology is worth waking somebody for.
func shape(t Topology) Topology {
	t = t.clone()
	for i := range t.Members {
		t.Members[i].Lag, t.Members[i].Position, t.Members[i].Progress = 0, "", Progress{}
	}
	return t
}

// tell emits what has changed between two topologies.
func (m *Manager) tell(old, t Topology) {
	if t.Primary != old.Primary || t.Epoch != old.Epoch {
		message := t.Primary + " takes writes"
		if t.Primary == "" {
			message = old.Primary + " takes no writes any more"
		}
		m.emit(KindPrimary, t.Primary, message, nil)
	}
	for _, x := range t.Members {
		y, _ := old.Member(x.Member.ID)
		if x.Role == y.Role && x.Serves == y.Serves {
			continue
		}
		message := fmt.Sprintf("%s is %s", x.Member.ID, x.Role)
		if why := x.Why(); why != "" {
			message += " (" + why + ")"
		}
		m.emit(KindMember, x.Member.ID, message, nil)
		m.events[len(m.events)-1].Attrs = map[string]string{"role": string(x.Role), "serves": fmt.Sprint(x.Serves)}
	}
	for _, h := range t.Held {
		if !slices.Contains(old.Held, h) {
			m.emit(KindHeld, "", h, nil)
		}
	}
}

// Topology says what is so now, and gives a channel that is closed at the next change of anything but lags and positions.
func (m *Manager) Topology() (Topology, <-chan struct{}) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.topology.clone(), m.changed
}
