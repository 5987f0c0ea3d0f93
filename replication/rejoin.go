package replication

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"path/filepath"
	"time"

	"github.com/scalr-go/scalr"
)

// KindSaved is an event: what a member has and the primary lacks has been saved before it is taken from the member.
// Attrs have the "file" and the "position" that it ends with.
const KindSaved scalr.Kind = "surplus-saved"

// Rewinder is what an [Engine] may have besides. A set with a [Config.Salvage] needs it.
type Rewinder interface {
	// Save writes the transactions that the member has and the primary lacks to w, whole and in their order, in a form that a
	// person can read and the software's own client can repeat. It returns the member's position, which they end with. What
	// the member has received is applied first; it is only read otherwise, and so is the primary.
	Save(ctx context.Context, m, primary Member, w io.Writer) (Position, error)

	// Rewind takes back the transactions that the member has and the source lacks, and compares all of the member's data
	// with the source's; Follow comes next. It refuses a member that is not at the position, where its transactions have been
	// saved. The source is only read.
	//
	// A member that cannot be rewound (a table was made or dropped, say) is as it was after the error. From the first change
	// until the data has been found equal the member is Empty and follows nobody, and so it is after that has broken off.
	Rewind(ctx context.Context, m, source Member, at Position, progress func(Progress)) error
}

// rejoin brings in a member that has data and does not follow the primary: a replica of the old primary, or the old
// primary itself.
func (d *decider) rejoin(p, f *fact) {
	switch d.relation(f, p) {
	case unknown:
		return
	case hasLess:
		if f.diverged {
			d.step(StepSeed, f, d.source(p, f).ID, "it cannot follow as it is, and %s has all that it has", p.ID)
			return
		}
		if d.former[keyOf(f.Member)] { // it has come back with nothing of its own
			d.out.surplus = append(d.out.surplus, surplus{keyOf(f.Member), f.status().Received, 0, true})
		}
		d.step(StepFollow, f, p.ID, "%s is the primary", p.ID)
		return
	}
	n, exact := d.foundSurplus(p, f)
	own := transactions(n, exact)
	// The rungs of a ladder: the first one that holds is taken, and each costs more than the one before.
	switch {
	case !d.kin[keyOf(f.Member)] && !d.related(f.status().Received, p.status().Applied):
		d.quarantine(f, "it holds data that is not of this set (%s): empty it or remove it", own)
	case !f.diverged:
		d.step(StepFollow, f, p.ID, "%s is the primary; %s of its own may be taken back", p.ID, own)
	case d.c.Salvage == "":
		d.step(StepSeed, f, d.source(p, f).ID, "it has %s that the primary lacks, and they have been counted", own)
	case f.file == "" || !d.contains(f.saved, f.status().Received):
		d.step(StepSave, f, p.ID, "it has %s that the primary lacks: they are saved before they are taken from it", own)
	case f.stays == "":
		d.step(StepRewind, f, d.source(p, f).ID, "it has %s that the primary lacks, which are in %s", own, f.file)
	default:
		d.step(StepSeed, f, d.source(p, f).ID, "it has %s that the primary lacks, which are in %s, and cannot be rewound: %s", own, f.file, f.stays)
	}
}

// foundSurplus counts and reports what f has and the primary lacks.
func (d *decider) foundSurplus(p, f *fact) (n uint64, exact bool) {
	at := f.status().Received
	n, exact = d.c.Engine.Count(at, p.status().Applied)
	d.out.surplus = append(d.out.surplus, surplus{keyOf(f.Member), at, n, exact})
	return n, exact
}

// refills reports whether a step of this kind replaces a member's data, which is Empty meanwhile.
func (k StepKind) refills() bool { return k == StepSeed || k == StepRewind }

// refills reports whether such a step is under way.
func (f *fact) refills() bool { return f.running != nil && f.running.Kind.refills() }

// checkSalvage adds the faults of Config.Salvage.
func (c *Config) checkSalvage(fault func(format string, args ...any)) {
	if _, ok := c.Engine.(Rewinder); c.Salvage != "" && c.Engine != nil && !ok {
		fault("Salvage is %q, but the Engine (%T) cannot save transactions", c.Salvage, c.Engine)
	}
}

// save saves what a member has and the primary lacks.
func (m *Manager) save(ctx context.Context, f *fact, member, primary Member) error {
	var at Position
	name := fmt.Sprintf("%s-%s", url.PathEscape(member.ID), time.Now().UTC().Format("20060102T150405.000000000Z"))
	file, err := writeWhole(filepath.Join(m.config.Salvage, name), func(w io.Writer) (err error) {
		at, err = m.config.Engine.(Rewinder).Save(ctx, member, primary, w)
		return err
	})
	if err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	f.saved, f.file = at, file
	m.emit(KindSaved, member.ID, fmt.Sprintf("what %s has and %s lacks is in %s", member.ID, primary.ID, file), nil)
	m.events[len(m.events)-1].Attrs = map[string]string{"file": file, "position": string(at)}
	if v := m.state.verdict; v != nil && v.From == f.ID && m.state.former[keyOf(f.Member)] {
		c := *v
		c.Saved = file
		m.state.verdict = &c
		m.judge(c)
	}
	return nil
}

// partEnding is what the name of a file ends with that is not complete.
const partEnding = ".part"

// writeWhole makes a new file that only its owner may read, and that is there only when it is complete and on disk.
func writeWhole(path string, write func(io.Writer) error) (string, error) {
	f, err := os.OpenFile(path+partEnding, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return "", err
	}
	err = write(f)
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		os.Remove(f.Name())
		return "", err
	}
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return "", err
	}
	return path, errors.Join(dir.Sync(), dir.Close())
}
