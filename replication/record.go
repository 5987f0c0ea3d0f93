package replication

import (
	"context"
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"sync"
	"time"
)

// Recorder is what an [Engine] may have besides. With it a [Manager] that ends leaves to the next one what no server knows of
// itself: which recovery is under way and what it costs, how the last one ended, when the latest ones were. So every recovery has
// its verdict, which is told (twice, if need be) and corrected whoever began it, and Config.Recoveries counts them all.
type Recorder interface {
	// Record keeps a text on the member's disk, in the place of the one before it, whatever the member is. It is no
	// transaction: replicas do not get it. It may be called while another method changes the member.
	Record(ctx context.Context, m Member, text string) error

	// Recorded gives the text that the member keeps; "" if there is none. A seed may leave it, take it away, or bring the
	// source's; data from outside the set brings none.
	Recorded(ctx context.Context, m Member) (text string, err error)
}

// record is what a Manager leaves to the next one of its set. Each member that has been the primary or followed one keeps a copy; a
// later one has a higher Number.
type record struct {
	Set        string      `json:"set,omitempty"` // Config.Name
	Number     uint64      `json:"number"`
	Recoveries []time.Time `json:"recoveries,omitempty"` // as in state
	Verdict    *Verdict    `json:"verdict,omitempty"`    // that was told last
	Former     []Member    `json:"former,omitempty"`     // servers that were primaries, and have not followed a later one yet
	// Draft is of the recovery that the promotion of Draft.To ends, which may have taken place or not. Only Draft.To has it.
	Draft    *Verdict `json:"draft,omitempty"`
	Lost     Member   `json:"lost,omitzero"`      // the server that Draft.From was
	Position Position `json:"position,omitempty"` // how far that is known to have been
}

// record gives what the next Manager is to know.
func (s *state) record() record {
	r := record{Set: s.set, Verdict: s.verdict, Draft: s.draft}
	for _, t := range s.recoveries {
		r.Recoveries = append(r.Recoveries, t.UTC())
	}
	server := func(k key) Member { return Member{ID: k.id, Addr: k.addr, Machine: k.machine} }
	if s.draft != nil {
		r.Lost, r.Position = server(s.lost), s.lostAt
	}
	for k := range s.former {
		if s.find(k) != nil {
			r.Former = append(r.Former, server(k))
		}
	}
	slices.SortFunc(r.Former, func(a, b Member) int { return strings.Compare(a.ID, b.ID) })
	return r
}

// text gives the record as the members are to keep it from now on.
func (s *state) text() string {
	s.knows = true
	r := s.record()
	if s.written != nil && s.written.same(r) {
		return s.left
	}
	defer func() { s.written = r.detach() }()
	for r.Number = s.number; ; r.Number++ {
		text, err := json.Marshal(r)
		if err != nil {
			panic(err) // it is plain data
		}
		if string(text) == s.left || r.Number > s.number {
			s.number, s.left = r.Number, string(text)
			return s.left
		}
	}
}

// same reports whether two records say the same, whatever their numbers.
func (r *record) same(o record) bool {
	server := func(a, b Member) bool { return keyOf(a) == keyOf(b) }
	verdict := func(a, b *Verdict) bool { return a == nil && b == nil || a != nil && b != nil && *a == *b }
	return slices.EqualFunc(r.Recoveries, o.Recoveries, time.Time.Equal) && slices.EqualFunc(r.Former, o.Former, server) &&
		verdict(r.Verdict, o.Verdict) && verdict(r.Draft, o.Draft) && server(r.Lost, o.Lost) && r.Position == o.Position
}

// detach gives a copy with verdicts of its own: the lists are its own already.
func (r record) detach() *record {
	for _, v := range []**Verdict{&r.Verdict, &r.Draft} {
		if *v != nil {
			*v = new(**v)
		}
	}
	return &r
}

// inherit takes in what a member keeps.
func (s *state) inherit(text string, now time.Time) {
	var r record
	if json.Unmarshal([]byte(text), &r) != nil || r.Number == 0 || r.Set != s.set {
		return
	}
	for _, t := range r.Recoveries {
		if t.After(now) {
			t = now // by another clock
		}
		if !slices.ContainsFunc(s.recoveries, t.Equal) {
			s.recoveries = append(s.recoveries, t)
		}
	}
	slices.SortFunc(s.recoveries, time.Time.Compare)
	if r.Number <= s.number {
		return
	}
	s.number, s.written = r.Number, nil
	if s.knows {
		return
	}
	s.left = text
	s.verdict, s.draft, s.lost, s.lostAt = r.Verdict, r.Draft, keyOf(r.Lost), r.Position
	clear(s.former)
	for _, m := range r.Former {
		if keyOf(m) != s.primary {
			s.former[keyOf(m)] = true
		}
	}
}

// lose says of which server the draft of a verdict is.
func (d *decider) lose(l lost) {
	if l.fact != nil {
		d.out.lost = keyOf(l.fact.Member)
	}
	if l.warm {
		d.out.lost, d.out.lostAt = d.primary, d.position
	}
}

// ask claims a member and reads what it keeps, again and again until both succeed. A claim waits for the first looks.
func (m *Manager) ask(ctx context.Context, member Member) {
	guard, _ := m.config.Engine.(Guard)
	recorder, _ := m.config.Engine.(Recorder)
	claimed, recalled := guard == nil || m.token == 0, recorder == nil
	for ctx.Err() == nil {
		recalled = recalled || m.recall(ctx, recorder, member)
		may, open := m.mayClaim(member)
		claimed = claimed || may && m.claim(ctx, guard, member)
		if claimed && recalled {
			return
		}
		pause := m.config.Interval
		if open {
			pause /= 16
		}
		t := time.NewTimer(pause)
		select {
		case <-t.C:
		case <-ctx.Done():
		}
		t.Stop()
	}
}

// unasked reports whether a member that answers is still to be claimed, or to say what it keeps.
func (m *Manager) unasked() bool {
	_, guarded := m.config.Engine.(Guard)
	_, records := m.config.Engine.(Recorder)
	return slices.ContainsFunc(m.state.members, func(f *fact) bool {
		return f.misses == 0 && (guarded && m.token > 0 && !f.claimed && !m.strange(f) || records && !f.recalled)
	})
}

// recall reads what a member keeps, and reports whether it need not be asked again.
func (m *Manager) recall(ctx context.Context, r Recorder, member Member) (done bool) {
	bounded, cancel := context.WithTimeout(ctx, 2*m.config.Timeout)
	text, err := r.Recorded(bounded, member)
	cancel()
	m.mu.Lock()
	defer m.mu.Unlock()
	f := m.state.find(keyOf(member))
	if ctx.Err() != nil || f == nil || errors.Is(err, ErrUnreachable) {
		return false
	}
	f.recalled = true
	if err == nil {
		f.keeps, f.unkept = text, nil
		m.state.inherit(text, time.Now())
	}
	m.ring()
	return err == nil || errors.Is(err, errors.ErrUnsupported)
}

// remind lets all members keep what the next Manager is to know, once it has been told.
func (m *Manager) remind(ctx context.Context, tasks *sync.WaitGroup) {
	m.mu.Lock()
	defer m.mu.Unlock()
	r, ok := m.config.Engine.(Recorder)
	p := m.state.find(m.state.primary)
	if !ok || p == nil || !p.answers() || !p.status().Writable || len(m.events) > 0 || m.unasked() {
		return
	}
	text, now := m.state.text(), time.Now()
	for _, f := range m.state.members {
		filled := f.refills() || f.running != nil && (f.running.Kind == StepImport || f.running.Kind == StepPromote)
		if f.keeps == text || f.keepless || f.keeping != nil || filled || !f.answers() || now.Sub(f.keptAt) < m.config.Interval {
			continue
		}
		if f != p && !m.state.kin[keyOf(f.Member)] {
			continue // it may be of another set
		}
		done := make(chan struct{})
		f.keeping = done
		member := m.marked(f.Member)
		tasks.Go(func() {
			bounded, cancel := context.WithTimeout(ctx, 2*m.config.Timeout)
			defer cancel()
			err := r.Record(bounded, member, text)
			m.mu.Lock()
			defer m.mu.Unlock()
			close(done)
			f.keeping = nil
			m.kept(f, text, err)
			m.ring()
		})
	}
}

// kept takes in whether a member keeps the text.
func (m *Manager) kept(f *fact, text string, err error) {
	f.keptAt, f.unkept = time.Time{}, nil
	switch {
	case err == nil:
		f.keeps = text
		return
	case errors.Is(err, ErrOvertaken):
		m.stop(err)
	case errors.Is(err, errors.ErrUnsupported):
		f.keepless = true
	case !silent(err):
		f.unkept = err
	}
	f.keeps, f.keptAt = "", time.Now()
}

// keep lets a member keep the text before it is promoted, so that whoever finds that it has been knows why. What it does not keep
// is no reason to leave the set without a primary.
func (m *Manager) keep(ctx context.Context, f *fact, member Member, text string) error {
	r, ok := m.config.Engine.(Recorder)
	m.mu.Lock()
	done, has := f.keeping, f.keeps == text || f.keepless
	m.mu.Unlock()
	if done != nil {
		select {
		case <-done:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	if !ok || has && done == nil {
		return nil
	}
	err := r.Record(ctx, member, text)
	m.mu.Lock()
	defer m.mu.Unlock()
	m.kept(f, text, err)
	if err == nil || ctx.Err() == nil && !silent(err) && !errors.Is(err, ErrOvertaken) {
		return nil
	}
	return err
}

// owes reports whether a step would change what the next Manager may have to count again, since the primary does not keep yet
// what it came to.
func (m *Manager) owes(f *fact, s Step) bool {
	_, ok := m.config.Engine.(Recorder)
	if p := m.state.find(m.state.primary); ok && p != nil && m.state.former[keyOf(f.Member)] && (s.Kind == StepFollow || s.Kind.refills()) {
		return m.unasked() || p.keeps != m.state.text() && !p.keepless && p.unkept == nil
	}
	return false
}
