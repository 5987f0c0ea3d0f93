package replication

import "time"

// maintain plans for a set whose primary is well: everybody else is to follow it.
func (d *decider) maintain(p *fact) {
	d.out.leader = p
	d.out.primary = p.ID
	if st := p.status(); st.Source != "" {
		d.out.primary = ""
		d.addPromote(p, "its promotion was broken off: it takes writes and still says that it follows %s", d.name(st.Source))
	}
	for _, f := range d.members {
		if f != p {
			d.join(p, f)
		}
		if f.unkept != nil {
			d.hold("%s does not keep what the next Manager has to know of recoveries: %v", f.ID, f.unkept)
		}
	}
	d.semisync(p)
	d.switchover(p)
	d.backup(p)
}

// wantsSemiSync reports whether the set's writes are to wait for a replica: a set that is meant to be a single server has
// nobody to wait for.
func (d *decider) wantsSemiSync() bool { return d.c.Policy == Durability && d.expected > 1 }

func (d *decider) semisync(p *fact) {
	switch want, on := d.wantsSemiSync(), p.status().SemiSync; {
	case on && !want:
		d.step(StepSemiSyncOff, p, "", "the set is meant to go without replicas that acknowledge")
	case want && on:
		if p.waits.IsZero() || d.now.Sub(p.waits) < 2*d.c.Timeout {
			return
		}
		for _, f := range d.members {
			if st := f.status(); f != p && d.counts(f) && st.Source == p.Addr && st.Receives && f.before.status.Receives &&
				d.contains(st.Received, p.status().Applied) {
				d.step(StepSemiSyncOn, p, "", "%d commits have waited for %v, though %s has all that it wrote: an acknowledgement was lost",
					p.status().Unacked, d.now.Sub(p.waits).Round(time.Millisecond), f.ID)
				return
			}
		}
	case want && !on:
		for _, f := range d.members {
			if st := f.status(); f != p && d.counts(f) && st.Source == p.Addr && st.Receives {
				d.hold("%s acknowledges what no replica may have, until its writes wait for one", p.ID)
				d.step(StepSemiSyncOn, p, "", "%s follows, so that writes need not wait for ever", f.ID)
				return
			}
		}
		d.hold("%s acknowledges what no replica has: none follows yet", p.ID)
	}
}

// join brings one member closer to following the primary.
func (d *decider) join(p, f *fact) {
	if d.excluded[f] {
		return
	}
	st := f.status()
	switch {
	case f.fault != nil:
		d.out.roles[f.ID], d.out.errors[f.ID] = RoleDown, f.fault.Error()
		return
	case d.down(f):
		if d.former[keyOf(f.Member)] && !f.ended && !f.stopped && f.Fence != nil {
			d.step(StepStop, f, "", "it was the primary and may still take writes where it can be reached")
		}
		return
	case !f.answers() || f.refills():
		return
	case f.leaks != nil && f.Fence != nil:
		d.step(StepStop, f, "", "%v", f.leaks)
		return
	case st.Writable:
		d.forbid(f, "%s is the primary, and there must not be two", p.ID)
		return
	}
	if f.errant > 0 && d.under(p, f) && d.relation(f, p) == hasLess { // a person has taken them from it, or made the primary have them
		d.out.surplus = append(d.out.surplus, surplus{keyOf(f.Member), st.Received, 0, true})
	}
	up := d.upstream(p, f)
	follows := st.Source == up.Addr
	switch {
	case d.under(p, f) && !st.Empty && f.joined && d.relation(f, p) == hasMore:
		n, exact := d.foundSurplus(p, f)
		d.quarantine(f, "it follows %s and has %s that the primary lacks: somebody wrote to it; empty it or remove it", d.name(st.Source), transactions(n, exact))
	case follows && f.Delay > 0 && st.Delay == 0:
		d.step(StepFollow, f, up.ID, "it is to apply with a delay of %v", f.Delay)
	case follows && st.Receives && (st.Applies || st.Empty):
	case d.moves(p, f, up):
	case st.Empty && p.status().Empty:
		d.refollow(p, f, "it is empty and so is the primary")
	case st.Empty:
		src := d.source(p, f)
		d.step(StepSeed, f, src.ID, "it has no data")
	case d.diesOfFollowing(f) && d.relation(f, p) == hasLess:
		d.step(StepSeed, f, d.source(p, f).ID, "its server has died %d times when it was told to follow, and %s has all that it has", f.fell, p.ID)
	case follows && d.relation(f, p) != hasMore && !f.diverged:
		d.refollow(up, f, "it does not receive or apply: %s", st.Error)
	default:
		d.rejoin(p, f)
	}
}

// diesOfFollowing reports whether the server of a member has died each time when it was told to follow, and runs again: what it
// has is of no use to it.
func (d *decider) diesOfFollowing(f *fact) bool {
	st := f.status()
	return f.fell >= stuck && st.Uptime > 0 && f.good.at.Add(-st.Uptime).After(f.fellAt)
}

// forbid ends a member's writes: by the engine, or through its provider if that keeps failing.
func (d *decider) forbid(f *fact, format string, args ...any) {
	kind := StepFence
	if f.Fence != nil && d.isStuck(f, StepFence) {
		kind = StepStop
	}
	d.step(kind, f, "", format, args...)
}

// refollow tells a member to follow, unless it was told so and may need a moment to connect.
func (d *decider) refollow(up, f *fact, format string, args ...any) {
	if f.status().Source == up.Addr && !f.drained && (f.idle.IsZero() || d.now.Sub(f.idle) < d.grace()) {
		return
	}
	d.step(StepFollow, f, up.ID, format, args...)
}

// source picks where to copy from: a replica that is well, with Relays one in the same pool if there is any, of these the
// one that has least to do, or else the primary.
func (d *decider) source(p, f *fact) *fact {
	best, load := p, 0
	near := func(g *fact) bool { return d.c.Relays && g.Pool == f.Pool }
	for _, g := range d.members {
		if g == p || g == f || !d.healthy(p, g) {
			continue
		}
		n := 0
		for _, h := range d.members {
			if h.refills() && h.running.Other == g.ID {
				n++
			}
		}
		for _, s := range d.out.steps {
			if s.Kind.refills() && s.Other == g.ID {
				n++
			}
		}
		if best == p || near(g) && !near(best) || near(g) == near(best) && n < load {
			best, load = g, n
		}
	}
	return best
}

// healthy reports whether g is a replica of p, or of one that is, which is well and close behind.
func (d *decider) healthy(p, g *fact) bool {
	st := g.status()
	return d.counts(g) && !st.Writable && d.under(p, g) && st.Receives && st.Applies && !st.Empty &&
		d.stale(g) <= d.c.MaxLag && g.running == nil && d.out.roles[g.ID] != RoleQuarantined
}

// stale says how old the data of a replica may be.
func (d *decider) stale(g *fact) time.Duration { return d.now.Sub(g.current) }

func (d *decider) addPromote(f *fact, format string, args ...any) {
	d.step(StepPromote, f, "", format, args...)
	d.out.steps[len(d.out.steps)-1].SemiSync = d.wantsSemiSync()
}
