package farm

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/scalr-go/scalr/provider"
)

// DrillPrefix begins the names of the farms of drills: no other farm is ended by a drill.
const DrillPrefix = "drill-"

// Drill proves backups: it starts a farm of its own from them, checks what it serves, and ends it.
type Drill struct {
	// Spec is the farm of the drill. Its name begins with "drill-", and at least one role that has machines fills its volumes from
	// another farm, with Volume.From, or is a database that gets its data from a backup file, by the Origin of its manager. Its zone, if it has one, is none that is in use.
	Spec Spec
	// Config is what it is made with. The managers of its databases are its own.
	Config Config
	// Check is asked once all roles serve; it returns nil if what it finds is what the backups should hold. Required.
	Check func(context.Context, *Farm) error
	// Timeout is how long the farm may take to serve, how long Check may take, and how long the end may take, each; default
	// 1 h.
	Timeout time.Duration
}

// DrillReport is what a drill has found.
type DrillReport struct {
	Farm string `json:"farm"`
	// Restored are the volumes that were filled from snapshots, and the databases that were filled from backup files, sorted by role
	// and index, once all roles served.
	Restored []Restored `json:"restored"`
	// Serving is how long it took from the first launch until all roles served; 0 if they did not.
	Serving time.Duration `json:"serving"`
	// Checked is how long the check took.
	Checked time.Duration `json:"checked"`
}

// Restored is a volume that was filled from a snapshot, or a database that was filled from a backup file.
type Restored struct {
	Role     string    `json:"role"`
	Index    int       `json:"index"`    // 0 for a database that was filled from a file
	Source   string    `json:"source"`   // the farm that took the snapshot; of a file, the set that it is of ("shop/db")
	Snapshot string    `json:"snapshot"` // its ID, or the path of the file
	Taken    time.Time `json:"taken"`    // zero if the snapshot has gone meanwhile
}

// Run makes the drill, and ends its farm whatever has come of it. The error says what has failed: the farm did not come to
// serve, the check was not passed, or the farm could not be ended. What an earlier drill of that name has left, whose program was
// killed, is ended first, so that nothing is left when one has come to its end. The sources are only read.
func (d Drill) Run(ctx context.Context) (report DrillReport, err error) {
	report.Farm = d.Spec.Name
	if err := d.check(); err != nil {
		return report, err
	}
	old, err := New(d.Spec, d.Config)
	if err != nil {
		return report, err
	}
	timeout := or(d.Timeout, time.Hour)
	end := func(f *Farm) error {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), timeout)
		defer cancel()
		return f.Terminate(ctx, TerminateOptions{DeleteVolumes: true, DeleteSnapshots: true, Force: true})
	}
	if err := end(old); err != nil {
		return report, fmt.Errorf("what an earlier drill has left: %w", err)
	}
	if ctx.Err() != nil {
		return report, context.Cause(ctx)
	}
	f, err := New(d.Spec, d.Config)
	if err != nil {
		return report, err
	}
	defer func() {
		if failed := end(f); failed != nil {
			err = errors.Join(err, fmt.Errorf("the farm of the drill could not be ended: %w", failed))
		}
	}()
	running, stop := context.WithCancel(ctx)
	ran := make(chan error, 1)
	go func() { ran <- f.Run(running) }()
	defer func() {
		stop()
		<-ran
	}()
	began := time.Now()
	if err := f.awaitService(ctx, timeout); err != nil {
		return report, err
	}
	report.Serving = time.Since(began)
	if report.Restored, err = f.restored(ctx); err != nil {
		return report, err
	}
	if !slices.ContainsFunc(report.Restored, func(r Restored) bool { return r.Source != d.Spec.Name }) {
		return report, errors.New("nothing was filled from another farm's snapshot or from a backup file: nothing is proved")
	}
	began = time.Now()
	checking, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	if err = d.Check(checking, f); err != nil {
		err = fmt.Errorf("the check was not passed: %w", err)
	}
	report.Checked = time.Since(began)
	return report, err
}

// check reports every fault of the drill that New does not find.
func (d Drill) check() error {
	var f faults
	if !strings.HasPrefix(d.Spec.Name, DrillPrefix) {
		f.add("drill.Spec.Name", "%q, want a name that begins with %q: the drill ends what has that name, with its volumes", d.Spec.Name, DrillPrefix)
	}
	if !slices.ContainsFunc(d.Spec.Roles, func(r Role) bool {
		m := d.Config.Databases[r.Name]
		return r.Min > 0 && r.Volume != nil && r.Volume.From != nil && r.Volume.From.Farm != "" && r.Volume.From.Farm != d.Spec.Name ||
			r.Serves == Database && m != nil && m.Origin().Backup != nil
	}) {
		f.add("drill.Spec.Roles", "no role with machines has a volume from another farm or a database from a backup, want at least one: "+
			"nothing would be proved")
	}
	if d.Check == nil {
		f.add("drill.Check", "is nil")
	}
	if d.Timeout < 0 {
		f.add("drill.Timeout", "%v is negative", d.Timeout)
	}
	return errors.Join(f...)
}

// awaitService waits until each role has its Min serving, and each database a primary.
func (f *Farm) awaitService(ctx context.Context, timeout time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	for {
		missing := f.missing()
		if len(missing) == 0 {
			return nil
		}
		sleep(ctx, f.config.Interval/10)
		if ctx.Err() != nil {
			return fmt.Errorf("the farm did not come to serve: %s: %w", strings.Join(missing, ", "), context.Cause(ctx))
		}
	}
}

// missing says what the last pass did not find to serve.
func (f *Farm) missing() (list []string) {
	for _, r := range f.spec.Roles {
		serving, primary := 0, false
		for _, s := range f.Servers(r.Name) {
			if s.Ready {
				serving++
			}
			primary = primary || s.Primary
		}
		n := len(list)
		if serving < r.Min {
			list = append(list, fmt.Sprintf("%d of %d machines of role %s serve", serving, r.Min, r.Name))
		} else if r.Serves == Database && !primary {
			list = append(list, fmt.Sprintf("role %s has no primary", r.Name))
		}
		if len(list) == n {
			continue
		}
		for _, m := range f.sets()[r.Name].Members {
			if m.Error != "" {
				list = append(list, m.Member.ID+": "+m.Error)
			}
		}
	}
	return list
}

// restored lists the farm's volumes that came of snapshots, and its databases that came of files.
func (f *Farm) restored(ctx context.Context) ([]Restored, error) {
	var found []Restored
	for role, t := range f.sets() {
		if b := t.Restored; b != nil {
			found = append(found, Restored{Role: role, Source: b.Set, Snapshot: b.File, Taken: b.Taken})
		}
	}
	clouds := f.config.clouds()
	for i := range clouds {
		volumes, ok := provider.As[provider.Volumes](clouds[i].provider)
		if !ok {
			continue
		}
		l := list(ctx, f, &clouds[i], "volumes", volumes.Volumes, map[string]string{TagFarm: f.spec.Name})
		if l.err != nil {
			return nil, l.err
		}
		taken := map[string]map[string]time.Time{} // by farm and snapshot
		for _, v := range l.items {
			from, id := v.Tags[TagSource], v.Tags[TagSnapshot]
			s, ok := slotOf(v.Tags)
			if !ok || id == "" || clouds[i].foreign(v.Tags) {
				continue
			}
			if taken[from] == nil {
				snapshots, ok := provider.As[provider.Snapshots](clouds[i].provider)
				if !ok {
					continue
				}
				l := list(ctx, f, &clouds[i], "snapshots", snapshots.Snapshots, map[string]string{TagFarm: from})
				if l.err != nil {
					return nil, l.err
				}
				taken[from] = map[string]time.Time{}
				for _, x := range l.items {
					taken[from][x.ID] = x.Created
				}
			}
			found = append(found, Restored{s.role, s.index, from, id, taken[from][id]})
		}
	}
	slices.SortFunc(found, func(a, b Restored) int { return cmp.Or(cmp.Compare(a.Role, b.Role), a.Index-b.Index) })
	return found, nil
}
