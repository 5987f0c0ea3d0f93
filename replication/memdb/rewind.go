package memdb

import (
	"context"
	"fmt"
	"io"
	"time"

	"github.com/scalr-go/scalr/replication"
)

// common is how many transactions at the beginning of two logs are the same.
func common(a, b []txn) int {
	n := 0
	for n < min(len(a), len(b)) && a[n].origin == b[n].origin && a[n].seq == b[n].seq {
		n++
	}
	return n
}

// other gives what another server has.
func (c *Cluster) other(ctx context.Context, m replication.Member) (log []txn, err error) {
	err = c.enter(ctx, Manager, m.Addr, func(s *server, now time.Time) (time.Time, bool, error) {
		log = append(log, s.log[:s.applied]...)
		return time.Time{}, true, nil
	})
	return log, err
}

// Save implements replication.Rewinder. It writes a line "key=value" for each transaction.
func (c *Cluster) Save(ctx context.Context, m, primary replication.Member, w io.Writer) (replication.Position, error) {
	theirs, err := c.other(ctx, primary)
	if err != nil {
		return "", err
	}
	var own []txn
	var at replication.Position
	err = c.call(ctx, "Save", m, func(s *server, now time.Time) (time.Time, bool, error) {
		if s.writable {
			return time.Time{}, true, fmt.Errorf("%w: it takes writes: fence it first", replication.ErrUnsafe)
		}
		if s.applied < len(s.log) {
			return c.appliesNext(s), false, nil
		}
		own, at = append(own, s.log[common(s.log, theirs):]...), position(s.log)
		return time.Time{}, true, nil
	})
	for _, x := range own {
		if err == nil {
			_, err = fmt.Fprintf(w, "%s=%s\n", x.key, x.value)
		}
	}
	if err != nil {
		return "", err
	}
	return at, nil
}

// Rewind implements replication.Rewinder. It takes as long as a copy.
func (c *Cluster) Rewind(ctx context.Context, m, source replication.Member, at replication.Position, progress func(replication.Progress)) error {
	theirs, err := c.other(ctx, source)
	if err != nil {
		return err
	}
	if progress != nil {
		progress(replication.Progress{What: "undoing"})
	}
	var ready time.Time
	var name string
	return c.call(ctx, "Rewind", m, func(s *server, now time.Time) (time.Time, bool, error) {
		switch {
		case ready.IsZero() && s.writable:
			return time.Time{}, true, fmt.Errorf("%w: it takes writes: fence it first", replication.ErrUnsafe)
		case ready.IsZero() && position(s.log) != at:
			return time.Time{}, true, fmt.Errorf("it is at %s, and what it has up to %s has been saved", position(s.log), at)
		case ready.IsZero():
			s.truncate(common(s.log, theirs))
			s.session++
			s.filling, s.semisync, s.source, s.receiving = true, false, "", false
			ready, name = now.Add(c.options.Copy), s.name
			c.touch(now)
		case s.name != name:
			return time.Time{}, true, fmt.Errorf("a seed has begun")
		}
		if now.Before(ready) {
			return ready, false, nil
		}
		s.filling = false
		c.touch(now)
		return time.Time{}, true, nil
	})
}
