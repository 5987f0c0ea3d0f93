package replication

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"time"

	"github.com/scalr-go/scalr"
)

// KindImported is an event: a new set has its first data. Subject is the member, Attrs have the "source" (its address, the
// backup's path, or "volume") and the "position" of the copy, in the other set's notation.
const KindImported scalr.Kind = "data-imported"

// Origin is where a new set gets its first data from: another set, so that a twin for development gets production's, or a
// backup of one, or of its own when all of its servers were lost.
//
// When all members of the set are there and empty, one of them receives a consistent copy, is scrubbed, and becomes the
// primary; the others are seeded from it. Nothing of the set serves before, and nobody is told of a primary. What breaks
// off, because the Manager, the member or the source dies, begins again with a new copy; a copy that is complete is marked
// so in the member itself, and is not made twice. A set that has data is never filled.
//
// The two sets have nothing in common afterwards. The copy has a history of its own, the set's members follow nobody else,
// and no account of the source can log in to it: those of the set's applications are opened or created by Scrub, or later
// on the primary.
type Origin struct {
	// Engine speaks to the source, with credentials that are valid there. It is used for reading only, and must not be the
	// set's own Engine, whose credentials are to be the set's alone. Required, unless there is a Backup or Volumes.
	Engine Engine
	// Source says which server to copy from. It is asked before each try, within Config.StepTimeout. [Manager.Source] of
	// the other set's Manager names a replica, so that the primary feels nothing. Required, unless there is a Backup or Volumes.
	// With Volumes it may be there without an Engine: it says then whose volume a farm copies (farm.Source.Now).
	Source func(context.Context) (Member, error)
	// Backup gives the path of the backup file to restore, instead of Engine and Source: as [LatestBackup] does, say. It is
	// asked before each try, within Config.StepTimeout. A file that is torn or was altered is refused before anything is done.
	Backup func(context.Context) (string, error)
	// Volumes makes the set's what the members' own volumes hold, when these were filled from snapshots of the source's
	// (farm.CloneOptions.Snapshots): one member's data is scrubbed and becomes the set's, and nothing is copied but for the
	// others, which are seeded from it. Such a member is Status.Foreign: locked before its first connection. Where none is,
	// the data is copied by Engine and Source, which are optional then; without an Engine the set waits for a member that is. The
	// set's Engine must be an [Adopter].
	Volumes bool
	// Scrub changes the copy before anybody else may see it: it takes out what must not leave production, and opens the
	// accounts of applications. The member refuses the writes of everybody but administrators then. If it fails, the copy
	// is thrown away, and made again later; with Volumes there is no other copy, and Scrub is run again on what it has left. It is bounded by its context, which ends when the member or the source no longer answers.
	// Optional.
	Scrub func(context.Context, Member) error
}

// Importer is what an [Engine] may have besides. A set with an [Origin] that is another set needs it.
type Importer interface {
	// Import replaces the data of the member by a consistent copy of the data of a server in another set, which origin
	// speaks to, and calls scrub, unless it is nil, when the copy is complete. It returns the position of the copy at the
	// source, which is only read.
	//
	// While it is under way, scrubbing included, and after it has broken off, the member is Empty, follows nobody, takes no
	// writes but an administrator's, and cannot be promoted. Then it has a position that shares no transaction with any
	// other set's, and is Imported until it follows another member or is seeded: whatever its set has came from it.
	Import(ctx context.Context, m Member, origin Engine, source Member, scrub func(context.Context, Member) error,
		progress func(Progress)) (Position, error)
}

// Adopter is what an [Engine] may have besides. A set with [Origin.Volumes] needs it.
type Adopter interface {
	// Adopts says why the engine could not tell another set's data from the set's own, or nil if it can. It makes no calls.
	Adopts() error

	// Adopt makes the data of a member that is Status.Foreign the set's: it calls scrub, unless it is nil, and gives the data a history
	// of its own, as Import does. It returns the position at the source that the data is of. Until it has ended, and after it
	// has broken off, the member is Empty and Foreign, as it was before, and what scrub has changed may stay changed.
	Adopt(ctx context.Context, m Member, scrub func(context.Context, Member) error, progress func(Progress)) (Position, error)
}

// check adds the faults of the origin.
func (o *Origin) check(set Engine, fault func(format string, args ...any)) {
	if o == nil {
		return
	}
	if o.Backup != nil {
		if _, ok := set.(Backuper); !ok && set != nil {
			fault("Origin.Backup is set, but the Engine (%T) restores no backups", set)
		}
		if o.Engine != nil || o.Source != nil {
			fault("Origin has a Backup and an Engine or a Source, want one or the other")
		}
		if o.Volumes {
			fault("Origin has a Backup and Volumes, want one or the other")
		}
		return
	}
	if o.Volumes {
		if a, ok := set.(Adopter); !ok && set != nil {
			fault("Origin.Volumes is set, but the Engine (%T) cannot adopt", set)
		} else if ok && a.Adopts() != nil {
			fault("Origin.Volumes is set, but the Engine cannot adopt: %w", a.Adopts())
		}
		if o.Engine == nil {
			return
		}
	}
	if _, ok := set.(Importer); !ok && set != nil {
		fault("Origin is set, but the Engine (%T) cannot import", set)
	}
	switch {
	case o.Engine == nil:
		fault("Origin.Engine is nil, want an engine for the servers of the other set")
	case set != nil && reflect.ValueOf(set).Comparable() && reflect.ValueOf(o.Engine).Comparable() && o.Engine == set:
		fault("Origin.Engine is the set's own Engine, want another one, with the other set's credentials")
	}
	if o.Source == nil {
		fault("Origin.Source is nil, want a function that names a server of the other set")
	}
}

// Source gives a member to copy from: of the replicas that serve, the one that is least behind, or the primary if there
// is none. Without either it is ErrNoPrimary.
func (t Topology) Source() (Member, error) {
	var best *MemberState
	for i := range t.Members {
		m := &t.Members[i]
		if m.Role == RoleReplica && m.Serves && m.Error == "" && (best == nil || m.Lag < best.Lag) {
			best = m
		}
	}
	if best != nil {
		return best.Member, nil
	}
	if p, ok := t.Member(t.Primary); ok {
		return p.Member, nil
	}
	return Member{}, ErrNoPrimary
}

// Source is [Topology.Source] of the topology as it is now. It waits for nothing.
func (m *Manager) Source(context.Context) (Member, error) {
	t, _ := m.Topology()
	return t.Source()
}

// Origin gives Config.Origin, which is not to be changed; the zero value is none.
func (m *Manager) Origin() Origin {
	if m.config.Origin == nil {
		return Origin{}
	}
	return *m.config.Origin
}

// BacksUp reports whether the set is copied to files on a schedule: whether there are [Config.Backups].
func (m *Manager) BacksUp() bool { return m.config.Backups != nil }

// imports fills a member from the origin.
func (m *Manager) imports(ctx context.Context, member Member, progress func(Progress)) error {
	o := m.config.Origin
	if o.Backup != nil {
		return m.restores(ctx, member, progress)
	}
	m.mu.Lock()
	f := m.state.find(keyOf(member))
	adopts := o.Volumes && f != nil && f.status().Foreign
	m.mu.Unlock()
	if adopts {
		at, err := m.config.Engine.(Adopter).Adopt(ctx, member, o.Scrub, progress)
		if err == nil {
			m.imported(member, "volume", at, "the data of its volume")
		}
		return err
	}
	if o.Engine == nil {
		return errors.New("its volume holds no data of another set any more")
	}
	bounded, cancel := context.WithTimeout(ctx, m.config.StepTimeout)
	source, err := o.Source(bounded)
	cancel()
	if err != nil {
		return fmt.Errorf("finding a server to copy from: %w", err)
	}
	m.mu.Lock()
	own := m.state.byAddr(source.Addr) != nil
	m.mu.Unlock()
	if own {
		return fmt.Errorf("Origin.Source named %s (%s), which is a member of this set", source.ID, source.Addr)
	}
	at, err := m.config.Engine.(Importer).Import(ctx, member, o.Engine, source, o.Scrub, progress)
	if err != nil {
		return err
	}
	m.imported(member, source.Addr, at, "the data of "+source.ID)
	return nil
}

// restores fills a member from a backup.
func (m *Manager) restores(ctx context.Context, member Member, progress func(Progress)) error {
	o := m.config.Origin
	bounded, cancel := context.WithTimeout(ctx, m.config.StepTimeout)
	path, err := o.Backup(bounded)
	cancel()
	if err != nil {
		return fmt.Errorf("finding a backup to restore: %w", err)
	}
	b, err := RestoreBackup(ctx, m.config.Engine.(Backuper), member, path, o.Scrub, progress)
	if err != nil {
		return err
	}
	m.mu.Lock()
	m.restored = &b
	m.mu.Unlock()
	m.imported(member, path, b.Position, fmt.Sprintf("the data of the backup of %s, taken %s,", b.Set, b.Taken.Format(time.RFC3339)))
	return nil
}

// imported tells that a new set has its first data.
func (m *Manager) imported(member Member, source string, at Position, what string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.emit(KindImported, member.ID, fmt.Sprintf("%s has %s as of %s", member.ID, what, at), nil)
	m.events[len(m.events)-1].Attrs = map[string]string{"source": source, "position": string(at)}
}

// importing plans how a new set gets its first data: on the member that is being filled; or on one that has it on its volume, if
// that is asked for; or on the preferred one.
func (d *decider) importing(preferred *fact) {
	to, has := preferred, preferred.status().Foreign
	if o := d.c.Origin; o.Volumes {
		for _, f := range d.members {
			if f.status().Foreign && (!has || f.Prefer > to.Prefer) {
				to, has = f, true
			}
		}
		if !has && o.Engine == nil {
			d.hold("the set is new, and none of its members has the data of another set on its volume")
			return
		}
	}
	for _, f := range d.members {
		if f.running != nil && f.running.Kind == StepImport {
			to = f
		}
	}
	d.step(StepImport, to, "", "the set is new, and gets its first data from its origin")
}
