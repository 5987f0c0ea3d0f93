package replication

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/scalr-go/scalr"
)

// The kinds of events about backups. Attrs have the "file", of one that was taken the "position" too; Subject is the member
// that it was, or should have been, read from.
const (
	KindBackupTaken   scalr.Kind = "backup-taken"   // it is complete and on disk
	KindBackupFailed  scalr.Kind = "backup-failed"  // it was not taken, or not removed; either is tried again
	KindBackupRemoved scalr.Kind = "backup-removed" // its time was over, or it was what is left of one that broke off
)

// Backuper is what an [Engine] may have besides. A set with [Config.Backups] needs it, and one whose [Origin] is a backup.
type Backuper interface {
	// Backup writes a consistent copy of all of the member's data to w, and returns its position. The member is only read,
	// serves meanwhile, and replicates as before. What it writes holds no passwords of accounts, nor hashes of them.
	Backup(ctx context.Context, m Member, w io.Writer, progress func(Progress)) (Position, error)

	// Restore replaces the data of the member by what Backup wrote, all of which it reads from r, and calls scrub, unless it
	// is nil, when that is complete. It returns the position that Backup returned.
	//
	// The rules are those of [Importer.Import]: until it has ended, and after it has broken off, because of what it reads
	// too, the member is Empty and follows nobody. Then it is Imported, with a position that shares no transaction with any
	// other set's, the one included that the backup is of.
	Restore(ctx context.Context, m Member, r io.Reader, scrub func(context.Context, Member) error, progress func(Progress)) (Position, error)
}

// Backups is when a set is copied to files, and how long these are kept. It needs no volumes and no provider: see
// farm.Snapshots for those.
//
// A backup is read from the replica that is least behind, and from the primary only where no replica has served for
// Config.Patience, or the set is meant to be one server. None is taken during a recovery or a switchover; one that is under
// way then is broken off, and made again. The files are the only record of what was taken when: a Manager that starts anew
// goes on by their names, and their time is that of their host's clock. One on another host knows the files only if both hosts
// have the directory. KindBackupTaken names each file, so that it can be copied to where a fire does not reach it.
//
// A file bears the set's name and the time when it was begun, has a checksum, may be read by its owner only, and appears
// when it is complete and on disk. It holds data of users. To restore one, see [Origin] and [RestoreBackup].
type Backups struct {
	// Dir is the directory, on the Manager's host. It is not created: where a disk is not mounted, nothing is written
	// instead of it. Several sets may share one. Required.
	Dir string
	// Every is the time from the beginning of one backup to that of the next, at least 1 s. The first one is taken as soon as
	// there is data, and one that was missed as soon as it can be.
	Every time.Duration
	// Keep is how many are kept; 0 means that their number is no limit.
	Keep int
	// MaxAge is how old one may become; 0 means that its age is no limit. At least one of Keep and MaxAge is set. The newest
	// one stays however old it is.
	MaxAge time.Duration
}

// check adds the faults of the backups.
func (b *Backups) check(c *Config, fault func(format string, args ...any)) {
	if b == nil {
		return
	}
	if _, ok := c.Engine.(Backuper); !ok && c.Engine != nil {
		fault("Backups is set, but the Engine (%T) makes no backups", c.Engine)
	}
	if c.Name == "" {
		fault("Name is empty, want a name for the files of Backups")
	}
	if b.Dir == "" {
		fault("Backups.Dir is empty, want a directory")
	}
	if b.Every < time.Second {
		fault("Backups.Every is %v, want at least 1s", b.Every)
	}
	if b.Keep < 0 {
		fault("Backups.Keep is %d, want 0 or more", b.Keep)
	}
	if b.MaxAge < 0 {
		fault("Backups.MaxAge is %v, want 0 or more", b.MaxAge)
	}
	if b.Keep == 0 && b.MaxAge == 0 {
		fault("Backups has neither Keep nor MaxAge, want at least one: the files would add up for ever")
	}
}

// shelf is what is known of the set's files.
type shelf struct {
	seen   bool        // the directory has been read
	err    string      // why it could not be
	taken  []time.Time // when the complete ones were taken, the oldest first
	filed  uint64      // counts those that this Manager has taken: a list that was read before one of them is old
	writes string      // the name of the file that is being written
	failed string      // why the last try failed
	bare   time.Time   // since when one is due and no replica serves that it could be read from
}

// newest says when the last backup was taken. What lies ahead of now comes of a clock that was wrong.
func (s *shelf) newest(now time.Time) (at time.Time, ok bool) {
	for _, at := range slices.Backward(s.taken) {
		if !at.After(now) {
			return at, true
		}
	}
	return time.Time{}, false
}

// expired says which of the backups, the oldest first, are too many or too old, and why.
func (b *Backups) expired(taken []time.Time, now time.Time) map[time.Time]string {
	why := map[time.Time]string{}
	taken = slices.DeleteFunc(slices.Clone(taken), func(at time.Time) bool { return at.After(now) })
	for i, at := range taken {
		newer := len(taken) - 1 - i
		switch age := now.Sub(at); {
		case newer == 0:
		case b.Keep > 0 && newer >= b.Keep:
			why[at] = fmt.Sprintf("there are %d newer ones, and %d are kept", newer, b.Keep)
		case b.MaxAge > 0 && age >= b.MaxAge:
			why[at] = fmt.Sprintf("it is %v old, and is kept for %v", age.Round(time.Second), b.MaxAge)
		}
	}
	return why
}

// backup plans for a backup that is due, of a set whose primary is well.
func (d *decider) backup(p *fact) {
	b, s := d.c.Backups, &d.shelf
	if b == nil || d.draft != nil || d.request != nil || d.out.primary != p.ID || p.status().Empty ||
		slices.ContainsFunc(d.members, func(f *fact) bool { return f.running != nil && f.running.Kind == StepBackup }) {
		return
	}
	if s.err != "" {
		d.hold("no backups are taken: %s", s.err)
		return
	}
	due, reason := d.started, "there is no backup yet"
	if last, ok := s.newest(d.now); ok {
		due = last.Add(b.Every)
		reason = fmt.Sprintf("the last backup is of %s, and there is one every %v", last.Format(time.RFC3339), b.Every)
	}
	if !s.seen || d.now.Before(due) {
		return
	}
	if s.failed != "" {
		d.hold("a backup has been due since %s: %s", due.UTC().Format(time.RFC3339), s.failed)
	}
	from := d.readable(p)
	if from == nil {
		d.out.bare = true
		if d.expected == 1 || !s.bare.IsZero() && d.now.Sub(s.bare) >= d.c.Patience {
			from = p
		}
	}
	if from == nil {
		d.hold("a backup has been due since %s: it waits for a replica that serves", due.UTC().Format(time.RFC3339))
		return
	}
	if from.running == nil {
		d.step(StepBackup, from, "", "%s", reason)
	}
}

// readable gives the replica to read a backup from.
func (d *decider) readable(p *fact) (best *fact) {
	less := func(f, g *fact) bool {
		stuck := func(f *fact) int {
			if d.isStuck(f, StepBackup) {
				return 1
			}
			return 0
		}
		return cmp.Or(cmp.Compare(stuck(f), stuck(g)), cmp.Compare(d.stale(f).Round(time.Second), d.stale(g).Round(time.Second))) < 0
	}
	for _, g := range d.members {
		if g != p && d.healthy(p, g) && (best == nil || less(g, best)) {
			best = g
		}
	}
	return best
}

// backup takes one.
func (m *Manager) backup(ctx context.Context, member Member, progress func(Progress)) error {
	var b Backup
	began := time.Now().UTC()
	name := backupName(m.config.Name, began)
	m.mu.Lock()
	m.state.shelf.writes = name
	m.mu.Unlock()
	file, err := writeWhole(filepath.Join(m.config.Backups.Dir, name), func(w io.Writer) (err error) {
		b, err = writeBackup(w, Backup{Set: m.config.Name, Taken: began, Member: member.ID}, func(w io.Writer) (Position, error) {
			return m.config.Engine.(Backuper).Backup(ctx, member, w, progress)
		})
		return err
	})
	m.mu.Lock()
	defer m.mu.Unlock()
	m.state.shelf.writes = ""
	if err != nil {
		return err
	}
	m.state.shelf.filed++
	m.state.shelf.taken = append(slices.Clone(m.state.shelf.taken), began)
	m.emit(KindBackupTaken, member.ID, fmt.Sprintf("%s is a copy of %s, %d bytes uncompressed", file, member.ID, b.Bytes), nil)
	m.events[len(m.events)-1].Attrs = map[string]string{"file": file, "position": string(b.Position)}
	select {
	case m.shelve <- struct{}{}:
	default:
	}
	return nil
}

// backedUp notes how a backup has ended. That it failed is nothing that ails the member.
func (m *Manager) backedUp(f *fact, err error) {
	switch {
	case err == nil:
		m.state.shelf.failed = ""
	case !f.withdrew:
		m.state.shelf.failed = fmt.Sprintf("reading one from %s failed: %v", f.ID, err)
		m.emit(KindBackupFailed, f.ID, "no backup was taken", err)
	}
}

// keepBackups reads the directory now and then, and removes what is over, until the context ends.
func (m *Manager) keepBackups(ctx context.Context) {
	b := m.config.Backups
	for ctx.Err() == nil {
		m.mu.Lock()
		filed := m.state.shelf.filed
		m.mu.Unlock()
		taken, parts, err := listBackups(b.Dir, m.config.Name)
		over := b.expired(taken, time.Now())
		m.mu.Lock()
		s := &m.state.shelf
		again := s.filed != filed
		if !again {
			s.seen, s.err, s.taken = s.seen || err == nil, "", taken
			if err != nil {
				s.err = err.Error()
			}
			m.ring()
		}
		parts = slices.DeleteFunc(parts, func(name string) bool { return name == s.writes+partEnding })
		m.mu.Unlock()
		if again {
			continue
		}
		for _, name := range parts {
			m.removeBackup(name, "it is what is left of one that broke off")
		}
		for _, at := range slices.SortedFunc(maps.Keys(over), time.Time.Compare) {
			m.removeBackup(backupName(m.config.Name, at), over[at])
		}
		t := time.NewTimer(min(b.Every/4, time.Minute))
		select {
		case <-t.C:
		case <-m.shelve:
		case <-ctx.Done():
		}
		t.Stop()
	}
}

// removeBackup removes a file.
func (m *Manager) removeBackup(name, why string) {
	file := filepath.Join(m.config.Backups.Dir, name)
	err := os.Remove(file)
	if errors.Is(err, fs.ErrNotExist) {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	kind := KindBackupRemoved
	if err != nil {
		kind, why = KindBackupFailed, "it could not be removed, though "+why
	}
	m.emit(kind, "", why, err)
	m.events[len(m.events)-1].Attrs = map[string]string{"file": file}
	m.ring()
}
