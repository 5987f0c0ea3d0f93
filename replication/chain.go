package replication

import "time"

// relayOf gives the member that f follows and that follows another one itself, or nil if there is none.
func (s *state) relayOf(f *fact) *fact {
	g := s.byAddr(f.status().Source)
	if g == nil || g == f || g.good.ended == 0 || g.status().Source == "" || g.status().Source == f.Addr {
		return nil
	}
	return g
}

// under reports whether f follows the primary, or a member that does.
func (s *state) under(p, f *fact) bool {
	if f.status().Source == p.Addr {
		return true
	}
	g := s.relayOf(f)
	return g != nil && g.status().Source == p.Addr
}

// upstream gives the member that f is to follow while p is the primary: p, or the relay of its pool.
func (d *decider) upstream(p, f *fact) *fact {
	if !d.c.Relays || f.Pool == p.Pool || f.delay() > 0 || d.isStuck(f, StepDrain) {
		return p
	}
	if r := d.request; r != nil && r.to == f.ID {
		return p // it is to take over
	}
	if g := d.relayOf(f); g != nil && d.relays(p, g) && g.Pool == f.Pool && !d.deafTooLong(f) {
		return g
	}
	g := d.relay(p, f.Pool)
	if g == nil || g == f || d.tries[try{keyOf(f.Member), StepFollow, g.ID}].fail {
		return p
	}
	return g
}

// relay gives the member of a pool that the others there are to follow: one that is followed already, or the first by ID. It
// is nil while nobody there can be.
func (d *decider) relay(p *fact, pool string) (relay *fact) {
	followers := 0
	for _, g := range d.members {
		if n := d.followed(g); g.Pool == pool && d.relays(p, g) && g.status().Source == p.Addr && d.healthy(p, g) && (relay == nil || n > followers) {
			relay, followers = g, n
		}
	}
	return relay
}

// relays reports whether g can hand on what the primary writes. A look that it misses does not matter, nor that it does not
// follow the primary yet, after a change; but no relay follows another one.
func (d *decider) relays(p, g *fact) bool {
	return g != p && !d.down(g) && !d.excluded[g] && g.fault == nil && g.errant == 0 && g.delay() == 0 && !g.refills() &&
		!g.status().Empty && !g.status().Writable && (g.status().Source == p.Addr || d.relayOf(g) == nil) &&
		d.out.roles[g.ID] != RoleQuarantined && d.stale(g) <= d.c.MaxLag
}

func (d *decider) deafTooLong(f *fact) bool {
	return !f.deaf.IsZero() && d.now.Sub(f.deaf) >= d.grace()
}

// grace is how long a member that has been told to follow may take to connect.
func (d *decider) grace() time.Duration { return 2 * d.c.Timeout }

// moves plans for a replica of the primary to follow the relay instead, and reports whether it does. It applies what it has
// and waits until the relay has that too, since nobody can follow a server that lacks what it has.
func (d *decider) moves(p, f, relay *fact) bool {
	st := f.status()
	if relay == p || st.Source != p.Addr || st.Empty || d.request != nil {
		return false
	}
	draining := f.running != nil && f.running.Kind == StepDrain
	switch {
	case f.drained && d.counts(relay) && d.contains(relay.status().Applied, st.Received):
		d.step(StepFollow, f, relay.ID, "it has to get what %s writes through %s, the relay of its pool", p.ID, relay.ID)
	case f.drained: // the relay is about to have it
	case draining, st.Receives && st.Applies && d.healthy(p, f):
		d.step(StepDrain, f, "", "it is to follow %s, the relay of its pool", relay.ID)
	default:
		return false
	}
	return true
}

// chained reports whether f follows a relay that works, so that a change of primary does not concern it.
func (d *decider) chained(f *fact) bool {
	g := d.relayOf(f)
	return d.c.Relays && g != nil && !d.down(g) && !d.excluded[g] && g.Pool == f.Pool && f.status().Receives
}
