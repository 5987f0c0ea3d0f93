// Package fanout keeps one zone on several registrars: at two DNS hosts, say, so that names still answer when one is down.
//
// One registrar leads: a [Fanout] is a [dnsreg.Registrar] that reads and changes the lead, with the lead's errors and
// preconditions. The others follow: whatever the owners have on the lead is put on each by [dnsreg.Sync], with the same
// marks of ownership, so that what others keep there stays. A follower is compared as a whole each time: one that was down, or
// was changed by hand, has everything again after one pass, whatever it missed.
//
// A lead that has nothing of an owner's is believed only once the Fanout has seen it have something: one that began anew, as
// the embedded name server does, is not to empty the others. Until then what a follower has of this owner's stays, and its
// Status says so.
//
// Each follower goes at its own pace. One that fails is left alone for a while, twice as long each time up to a bound,
// however much changes meanwhile; then it is tried once.
package fanout

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/scalr-go/scalr/dnsreg"
)

// Options says what is copied where.
type Options struct {
	// Zone is the zone's name. Required.
	Zone string
	// Owners are those whose records are copied. At least one.
	Owners []string
	// Lead is the registrar that changes are made on. Required.
	Lead dnsreg.Registrar
	// Followers are the others. At least one.
	Followers []Follower
	// Interval is how often a follower is compared with the lead when nothing changes through the Fanout. Default 1 min.
	Interval time.Duration
	// Timeout bounds one pass over a follower. Default 30 s.
	Timeout time.Duration
	// MaxPause is the longest that a follower that fails is left alone; the first time it is 1 s. Default 1 min.
	MaxPause time.Duration
}

// Follower is a registrar that has the zone too.
type Follower struct {
	Name      string // for Status. Required, each its own.
	Registrar dnsreg.Registrar
}

// Fanout keeps the followers like the lead while Run runs. It is safe for concurrent use.
type Fanout struct {
	dnsreg.Registrar // the lead
	opts             Options

	mu        sync.Mutex
	seen      map[string]bool // owners who have had something on the lead
	serial    uint64          // how many change sets went to the lead
	followers []*follower
}

var _ dnsreg.Registrar = (*Fanout)(nil)

type follower struct {
	Follower
	wake chan struct{}
	// under the Fanout's lock:
	serial   uint64    // of what is in place
	behind   time.Time // since when it is not the latest
	failures int       // in a row
	retry    time.Time // it is left alone until then
	err      error
}

// Status is how far a follower is.
type Status struct {
	Name     string
	Serial   uint64        // how many change sets of those that went through the Fanout are in place
	Latest   uint64        // how many there were
	Lag      time.Duration // for how long it has not had the latest; 0 if it has
	Failures int           // in a row
	Retry    time.Time     // when it is tried again, after failures
	Err      error         // of the last pass; nil if it went well
}

// New checks the options; the error names the one that is wrong. It makes no calls.
func New(o Options) (*Fanout, error) {
	zone, err := dnsreg.CanonicalName(o.Zone)
	switch {
	case err != nil:
		return nil, fmt.Errorf("fanout: Zone: %w", err)
	case len(o.Owners) == 0:
		return nil, errors.New("fanout: Owners is empty, want at least one")
	case o.Lead == nil:
		return nil, errors.New("fanout: Lead is missing")
	case len(o.Followers) == 0:
		return nil, errors.New("fanout: Followers is empty, want at least one")
	}
	o.Zone, o.Owners = zone, slices.Clone(o.Owners)
	for i, owner := range o.Owners {
		if _, err := dnsreg.Diff(zone, owner, nil, nil); err != nil {
			return nil, fmt.Errorf("fanout: Owners[%d]: %w", i, err)
		}
	}
	for _, d := range []struct {
		name  string
		value *time.Duration
		def   time.Duration
	}{{"Interval", &o.Interval, time.Minute}, {"Timeout", &o.Timeout, 30 * time.Second}, {"MaxPause", &o.MaxPause, time.Minute}} {
		if *d.value < 0 {
			return nil, fmt.Errorf("fanout: %s is %v, want more than 0, or 0 for the default", d.name, *d.value)
		}
		if *d.value == 0 {
			*d.value = d.def
		}
	}
	f := &Fanout{Registrar: o.Lead, opts: o, seen: make(map[string]bool)}
	names := make(map[string]bool)
	for i, to := range o.Followers {
		if to.Name == "" || names[to.Name] || to.Registrar == nil {
			return nil, fmt.Errorf("fanout: Followers[%d] is %q, want a name of its own and a registrar", i, to.Name)
		}
		names[to.Name] = true
		f.followers = append(f.followers, &follower{Follower: to, wake: make(chan struct{}, 1)})
	}
	return f, nil
}

// Records lists the zone on the lead.
func (f *Fanout) Records(ctx context.Context, zone string) ([]dnsreg.RRset, error) {
	have, err := f.Registrar.Records(ctx, zone)
	if name, bad := dnsreg.CanonicalName(zone); err == nil && bad == nil && name == f.opts.Zone {
		for _, owner := range f.opts.Owners {
			if !f.known(owner) {
				f.owned(owner, have)
			}
		}
	}
	return have, err
}

// owned gives what the owner has on the lead, and remembers that it has something.
func (f *Fanout) owned(owner string, have []dnsreg.RRset) []dnsreg.RRset {
	list := dnsreg.Owned(f.opts.Zone, owner, have)
	if len(list) > 0 {
		f.mu.Lock()
		f.seen[owner] = true
		f.mu.Unlock()
	}
	return list
}

func (f *Fanout) known(owner string) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.seen[owner]
}

// Apply makes the changes on the lead, and returns what the lead says. The followers get them from Run.
func (f *Fanout) Apply(ctx context.Context, zone string, changes []dnsreg.Change) error {
	err := f.Registrar.Apply(ctx, zone, changes)
	if len(changes) == 0 {
		return err
	}
	f.mu.Lock() // after an error too: some may have been made
	f.serial++
	for _, to := range f.followers {
		if to.behind.IsZero() {
			to.behind = time.Now()
		}
		select {
		case to.wake <- struct{}{}:
		default:
		}
	}
	f.mu.Unlock()
	return err
}

// Status says how far the followers are, in their order.
func (f *Fanout) Status() []Status {
	f.mu.Lock()
	defer f.mu.Unlock()
	list := make([]Status, len(f.followers))
	for i, to := range f.followers {
		list[i] = Status{Name: to.Name, Serial: to.serial, Latest: f.serial, Failures: to.failures, Retry: to.retry, Err: to.err}
		if !to.behind.IsZero() {
			list[i].Lag = time.Since(to.behind)
		}
	}
	return list
}

// Run keeps the followers like the lead until the context ends, and returns nil then.
func (f *Fanout) Run(ctx context.Context) error {
	var wg sync.WaitGroup
	for _, to := range f.followers {
		wg.Go(func() { f.follow(ctx, to) })
	}
	wg.Wait()
	return nil
}

// follow runs one follower's passes.
func (f *Fanout) follow(ctx context.Context, to *follower) {
	for {
		wake := to.wake
		pause := f.pass(ctx, to)
		if pause > 0 {
			wake = nil // what changes meanwhile waits: the next pass has it
		} else {
			pause = f.opts.Interval
		}
		t := time.NewTimer(pause)
		select {
		case <-t.C:
		case <-wake:
		case <-ctx.Done():
		}
		t.Stop()
		if ctx.Err() != nil {
			return
		}
	}
}

// pass brings a follower up to date once, and gives how long to leave it alone.
func (f *Fanout) pass(ctx context.Context, to *follower) time.Duration {
	f.mu.Lock()
	serial := f.serial
	f.mu.Unlock()
	start := time.Now()
	err := f.copy(ctx, to)
	f.mu.Lock()
	defer f.mu.Unlock()
	to.err = err
	if err != nil {
		pause := min(time.Second<<min(to.failures, 30), f.opts.MaxPause)
		to.failures++
		to.retry = time.Now().Add(pause)
		return pause
	}
	to.failures, to.retry, to.serial = 0, time.Time{}, serial
	if to.behind = (time.Time{}); f.serial > serial { // what came meanwhile may be in place or not
		to.behind = start
	}
	return 0
}

// copy makes a follower hold what the owners have on the lead.
func (f *Fanout) copy(ctx context.Context, to *follower) error {
	ctx, cancel := context.WithTimeout(ctx, f.opts.Timeout)
	defer cancel()
	have, err := f.Registrar.Records(ctx, f.opts.Zone)
	if err != nil {
		return fmt.Errorf("lead: %w", err)
	}
	var errs []error
	for _, owner := range f.opts.Owners {
		want := f.owned(owner, have)
		if len(want) == 0 && !f.known(owner) {
			errs = append(errs, f.spare(ctx, to, owner))
			continue
		}
		if _, err := dnsreg.Sync(ctx, to.Registrar, f.opts.Zone, owner, want); err != nil {
			errs = append(errs, fmt.Errorf("%s for %s: %w", to.Name, owner, err))
		}
	}
	return errors.Join(errs...)
}

// spare leaves a follower what it has of an owner's who has had nothing on the lead so far; that there is something is an
// error.
func (f *Fanout) spare(ctx context.Context, to *follower, owner string) error {
	have, err := to.Registrar.Records(ctx, f.opts.Zone)
	if err != nil {
		return fmt.Errorf("%s for %s: records of %s: %w", to.Name, owner, f.opts.Zone, err)
	}
	if n := len(dnsreg.Owned(f.opts.Zone, owner, have)); n > 0 {
		return fmt.Errorf("%s for %s: the lead has had nothing of this owner's yet: %d RRsets stay", to.Name, owner, n)
	}
	return nil
}
