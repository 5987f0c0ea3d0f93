package memdb

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/scalr-go/scalr/replication"
)

// call is enter for the Engine's methods, with the hook around it.
func (c *Cluster) call(ctx context.Context, op string, m replication.Member, work func(s *server, now time.Time) (time.Time, bool, error)) error {
	f := func(s *server, now time.Time) (time.Time, bool, error) {
		switch {
		case op != "Observe" && op != "Backup" && op != "Recorded" && m.Token != 0 && m.Token < s.token:
			return time.Time{}, true, replication.ErrOvertaken
		case s.stalled && op == "Observe" && s.writable:
			return time.Time{}, true, replication.ErrStalled
		case s.stalled && op != "Observe" && op != "Recorded":
			return time.Time{}, false, nil
		}
		return work(s, now)
	}
	if hook := c.options.Hook; hook != nil {
		if err := hook(ctx, Call{Op: op, Addr: m.Addr}); err != nil {
			return err
		}
		if err := c.enter(ctx, Manager, m.Addr, f); err != nil {
			return err
		}
		return hook(ctx, Call{Op: op, Addr: m.Addr, Done: true})
	}
	return c.enter(ctx, Manager, m.Addr, f)
}

// alter is call for what changes the server at once.
func (c *Cluster) alter(ctx context.Context, op string, m replication.Member, f func(s *server, now time.Time) error) error {
	return c.call(ctx, op, m, func(s *server, now time.Time) (time.Time, bool, error) {
		err := f(s, now)
		c.touch(now)
		return time.Time{}, true, err
	})
}

// touch is for changes under the lock: see change.
func (c *Cluster) touch(now time.Time) {
	c.link(now)
	c.advance(now)
	close(c.changed)
	c.changed = make(chan struct{})
}

// Observe implements replication.Engine.
func (c *Cluster) Observe(ctx context.Context, m replication.Member) (replication.Status, error) {
	var st replication.Status
	err := c.call(ctx, "Observe", m, func(s *server, now time.Time) (time.Time, bool, error) {
		st = replication.Status{
			Server:   s.name,
			Version:  s.version,
			Delay:    s.delay,
			Empty:    len(s.log) == 0 && !s.imported || s.filling,
			Imported: s.imported,
			Foreign:  s.foreign,
			Writable: s.writable,
			Source:   s.source,
			Receives: s.source != "" && s.receiving && (!s.linked.IsZero() || s.silent && now.Sub(s.heard) < c.options.Heartbeat),
			Applies:  s.source != "",
			Received: position(s.log),
			Applied:  position(s.log[:s.applied]),
			Error:    s.trouble,
			Acked:    s.hasAcked,
			Uptime:   now.Sub(s.started),
		}
		if s.filling {
			st.Received, st.Applied = "", ""
		}
		if s.writable && s.semisync {
			st.SemiSync, st.Unacked = true, len(s.log)-s.acked
		}
		for _, r := range c.servers {
			if s.writable && r.source == s.addr && !r.linked.IsZero() {
				st.Waiters++
			}
		}
		if ahead := c.ahead(s); len(ahead) > s.applied {
			st.Lag = now.Sub(ahead[s.applied].born)
		}
		return time.Time{}, true, nil
	})
	if err != nil {
		return replication.Status{}, err
	}
	return st, nil
}

// ahead is the log that s should have applied, as far as s can know.
func (c *Cluster) ahead(s *server) []txn {
	if src := c.servers[s.source]; src != nil && !s.linked.IsZero() {
		return src.sends()
	}
	return s.log
}

// Claim implements replication.Guard.
func (c *Cluster) Claim(ctx context.Context, m replication.Member) error {
	return c.alter(ctx, "Claim", m, func(s *server, now time.Time) error {
		s.token = m.Token
		return nil
	})
}

// Record implements replication.Recorder. The text outlives the data.
func (c *Cluster) Record(ctx context.Context, m replication.Member, text string) error {
	return c.alter(ctx, "Record", m, func(s *server, now time.Time) error {
		s.record = text
		return nil
	})
}

// Recorded implements replication.Recorder.
func (c *Cluster) Recorded(ctx context.Context, m replication.Member) (text string, err error) {
	err = c.call(ctx, "Recorded", m, func(s *server, now time.Time) (time.Time, bool, error) {
		text = s.record
		return time.Time{}, true, nil
	})
	return text, err
}

// Fence implements replication.Engine.
func (c *Cluster) Fence(ctx context.Context, m replication.Member) error {
	return c.alter(ctx, "Fence", m, func(s *server, now time.Time) error {
		s.writable = false
		s.session++
		return nil
	})
}

// Drain implements replication.Engine.
func (c *Cluster) Drain(ctx context.Context, m replication.Member) (replication.Position, error) {
	var p replication.Position
	first := true
	err := c.call(ctx, "Drain", m, func(s *server, now time.Time) (time.Time, bool, error) {
		if first {
			first, s.receiving, s.delay = false, false, 0
			c.touch(now)
		}
		p = position(s.log)
		if s.applied < len(s.log) {
			return c.appliesNext(s), false, nil
		}
		return time.Time{}, true, nil
	})
	if err != nil {
		return "", err
	}
	return p, nil
}

// Promote implements replication.Engine.
func (c *Cluster) Promote(ctx context.Context, m replication.Member, semisync bool) error {
	return c.alter(ctx, "Promote", m, func(s *server, now time.Time) error {
		if s.filling {
			return fmt.Errorf("%w: it holds a part of a copy", replication.ErrUnsafe)
		}
		if s.source != "" {
			s.truncate(s.applied)
		}
		if !s.writable {
			s.acked = len(s.log)
		}
		s.writable, s.source, s.receiving = true, "", false
		s.token = max(s.token, m.Token)
		s.setSemiSync(semisync)
		return nil
	})
}

// SetSemiSync implements replication.Engine.
func (c *Cluster) SetSemiSync(ctx context.Context, m replication.Member, on bool) error {
	return c.alter(ctx, "SetSemiSync", m, func(s *server, now time.Time) error {
		if s.writable {
			s.setSemiSync(on)
		}
		return nil
	})
}

func (s *server) setSemiSync(on bool) {
	if on && s.semisync && s.acked < len(s.log) {
		s.session++ // what waits is ended
	}
	if s.semisync, s.deaf = on, false; !on {
		s.acked = len(s.log)
	}
}

// Follow implements replication.Engine.
func (c *Cluster) Follow(ctx context.Context, m, primary replication.Member) error {
	return c.alter(ctx, "Follow", m, func(s *server, now time.Time) error {
		if m.Addr == primary.Addr {
			return errors.New("a server cannot follow itself")
		}
		if m.Delay < 0 {
			return fmt.Errorf("its Member.Delay is %v, want at least 0", m.Delay)
		}
		keep := s.log
		if c.options.RelayLogsLost && s.source != primary.Addr {
			keep = s.log[:s.applied]
		}
		p := c.servers[primary.Addr]
		if p != nil && p.source == m.Addr {
			return fmt.Errorf("the primary %s follows it: promote the primary first", primary.ID)
		}
		if p != nil && p.up && !p.hung && !c.cuts[pair(m.Addr, primary.Addr)] && !follows(keep, p.sends()) {
			return replication.ErrDiverged
		}
		if s.writable {
			s.writable = false
			s.session++
		}
		if s.source != primary.Addr {
			s.truncate(len(keep))
			s.linked, s.silent = time.Time{}, false
		}
		s.semisync, s.source, s.receiving, s.imported = false, primary.Addr, true, false
		s.delay = cmp.Or(m.Delay, s.delay)
		return nil
	})
}

// Seed implements replication.Engine.
func (c *Cluster) Seed(ctx context.Context, m, source replication.Member, progress func(replication.Progress)) (replication.Position, error) {
	var copied []txn
	err := c.enter(ctx, Manager, source.Addr, func(s *server, now time.Time) (time.Time, bool, error) {
		copied = append(copied, s.log[:s.applied]...)
		return time.Time{}, true, nil
	})
	if err != nil {
		return "", err
	}
	total := int64(len(copied))
	report := func(done int64) {
		if progress != nil {
			progress(replication.Progress{Done: done, Total: total, Unit: "rows", What: "transactions"})
		}
	}
	report(0)
	var ready time.Time
	var name string
	err = c.call(ctx, "Seed", m, func(s *server, now time.Time) (time.Time, bool, error) {
		switch src := c.servers[source.Addr]; {
		case ready.IsZero():
			c.erase(s)
			s.session++
			ready, name = now.Add(c.options.Copy), s.name
			c.touch(now)
		case s.name != name:
			return time.Time{}, true, errors.New("another seed has begun")
		case src == nil || !src.up:
			return time.Time{}, true, errors.New("the source of the seed went away")
		}
		if now.Before(ready) {
			return ready, false, nil
		}
		s.log = copied
		for i := range s.log {
			s.log[i].at, s.log[i].logged = now, now
		}
		s.applied = len(s.log)
		c.touch(now)
		return time.Time{}, true, nil
	})
	if err != nil {
		return "", err
	}
	report(total)
	return position(copied), nil
}

// Import implements replication.Importer. The origin is a Cluster: another one, as a rule. The scrub hook changes the copy
// by Inject.
func (c *Cluster) Import(ctx context.Context, m replication.Member, origin replication.Engine, source replication.Member,
	scrub func(context.Context, replication.Member) error, progress func(replication.Progress)) (replication.Position, error) {
	from, ok := origin.(interface{ cluster() *Cluster })
	if !ok {
		return "", fmt.Errorf("the origin's engine is %T, want a *memdb.Cluster", origin)
	}
	copied, err := from.cluster().other(ctx, source)
	if err != nil {
		return "", fmt.Errorf("the source %s: %w", source.ID, err)
	}
	return position(copied), c.fill(ctx, "Import", m, copied, scrub, progress)
}

// fill makes a server one with what another one had.
func (c *Cluster) fill(ctx context.Context, op string, m replication.Member, copied []txn,
	scrub func(context.Context, replication.Member) error, progress func(replication.Progress)) error {
	var name string
	// step does f on the server, unless another one has begun to fill it.
	step := func(f func(s *server, now time.Time) (time.Time, bool, error)) error {
		return c.call(ctx, op, m, func(s *server, now time.Time) (time.Time, bool, error) {
			if s.name != name {
				return time.Time{}, true, errors.New("another one has begun")
			}
			return f(s, now)
		})
	}
	report := func(done int) {
		if progress != nil {
			progress(replication.Progress{Done: int64(done), Total: int64(len(copied)), Unit: "rows", What: "transactions"})
		}
	}
	err := c.alter(ctx, op, m, func(s *server, now time.Time) error {
		if s.writable {
			return fmt.Errorf("%w: it takes writes: fence it first", replication.ErrUnsafe)
		}
		c.erase(s)
		s.session++
		s.filling, name = true, s.name
		return nil
	})
	if err != nil {
		return err
	}
	report(0)
	var ready time.Time
	err = step(func(s *server, now time.Time) (time.Time, bool, error) {
		if ready.IsZero() {
			ready = now.Add(c.options.Copy)
		}
		if now.Before(ready) {
			return ready, false, nil
		}
		for _, x := range copied {
			s.commit(x.key, x.value, now)
		}
		s.applied, s.acked = len(s.log), len(s.log)
		return time.Time{}, true, nil
	})
	if err != nil {
		return err
	}
	report(len(copied))
	if scrub != nil {
		if err := scrub(ctx, m); err != nil {
			return fmt.Errorf("scrubbing the copy: %w", err)
		}
	}
	return step(func(s *server, now time.Time) (time.Time, bool, error) {
		s.filling, s.imported = false, true
		c.touch(now)
		return time.Time{}, true, nil
	})
}

// Adopts implements replication.Adopter.
func (c *Cluster) Adopts() error { return nil }

// Adopt implements replication.Adopter. The scrub hook changes the data by Inject.
func (c *Cluster) Adopt(ctx context.Context, m replication.Member, scrub func(context.Context, replication.Member) error,
	progress func(replication.Progress)) (at replication.Position, err error) {
	var name string
	err = c.alter(ctx, "Adopt", m, func(s *server, now time.Time) error {
		if !s.foreign {
			return errors.New("it does not start on another set's data, or has it no more")
		}
		name, at = s.name, s.foreignAt
		return nil
	})
	if err != nil {
		return "", err
	}
	if scrub != nil {
		if err := scrub(ctx, m); err != nil {
			return "", fmt.Errorf("scrubbing the copy: %w", err)
		}
	}
	return at, c.alter(ctx, "Adopt", m, func(s *server, now time.Time) error {
		if s.name != name {
			return errors.New("another one has begun")
		}
		log := s.log
		c.erase(s)
		for _, x := range log {
			s.commit(x.key, x.value, now)
		}
		s.applied, s.acked, s.imported = len(s.log), len(s.log), true
		return nil
	})
}

func (c *Cluster) cluster() *Cluster { return c }

// Close implements replication.Engine.
func (c *Cluster) Close(replication.Member) error { return nil }
