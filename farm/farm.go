// Package farm runs farms: named sets of roles whose machines are launched, named, scaled, replaced and ended as a [Spec]
// says, on the pools, name servers, databases and caches of a [Config].
//
// # One pass
//
// [Farm.Reconcile] makes one pass: it observes (lists what the providers hold under the farm's tags, asks the health
// checks, the sensors, the database managers and the zone), decides, and acts. To decide is a pure function of the spec,
// the facts, what the farm remembers, and the time: [Farm.Plan] shows its result and does nothing. Each step and each
// thing that waits carries its reason in words. [Farm.Run] makes passes until it is told to stop.
//
// # The tags are the record
//
// Everything that a farm creates bears its name, role, index and pool. The program may die at any instruction and start
// again anywhere: the next pass finds what is there. A launch takes a token that is derived from what it asks for, so that
// a launch whose answer was lost meets the same machine again. What bears the farm's tags and no slot wants is kept for a
// grace period and then ended. What does not bear them is not even listed.
//
// # Facts are distrusted
//
// A list that failed is no empty list. A machine that one list lacks is missing, not dead. A metric that is missing is
// missing, not zero. When many machines vanish from a list at once nothing is ended and nothing replaced there, and the
// plan says so. While nobody serves a name, the name keeps what it has.
//
// # Backups
//
// Volume.Snapshots copies the volumes of a role on a schedule, Volume.From fills new ones from what was copied, and a [Drill]
// proves that this works. These are snapshots as their clouds make them: see [Snapshots] for what they hold of a running server.
// The record is in the snapshots' tags, so that a program that is killed and started again neither doubles nor forgets one.
//
// # Databases
//
// A role that serves a database is bound to a replication.Manager, which decides who the primary is, in a loop of its own
// that is faster than the farm's. The farm tells the manager who the members are and how to stop their machines, runs it
// (in Run), moves the names when it says that the primary has changed, and never ends the primary before a replica has
// taken over. A member that the farm launches is seeded by the manager's engine; what that runs on the machines (mysql.Machines) goes
// through the pools' providers, with Member.Pool and Member.Machine as the farm gives them.
//
// # Twins
//
// [Spec.Clone] makes the spec of a twin: the same farm once more, for development, say, with names, machines and an end of
// its own. Its database gets the parent's data, scrubbed, by the Origin in the Config of its replication.Manager: copied, or on its volumes from
// the beginning, which are filled from a snapshot. It can have [Hours], outside of which only its snapshots are kept.
//
// # Moves
//
// [Spec.Move] makes the spec of the same farm in other pools, of another cloud say. A farm that is run by it launches its machines
// there, switches its databases over, waits until no resolver leads to the machines where it was, and ends these: see [Move].
package farm

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/scalr-go/scalr"
	"github.com/scalr-go/scalr/cache"
)

// ErrEnded: the farm has been terminated, or is about to be, or Spec.End has passed.
var ErrEnded = errors.New("the farm is terminated")

// Farm is a farm that is kept as its spec says. Its methods are safe for concurrent use; passes are made one at a time.
type Farm struct {
	spec    Spec
	config  Config
	hours   *hours // nil: always
	hooks   *hooks
	token   uint64            // of the lease under which it is run; 0 without one
	closing *TerminateOptions // how it is put away when it closes

	turn     chan struct{}             // held for the length of a pass, with told and followed
	told     map[string]bool           // the missing facts that have been told of
	followed map[string][]cache.Server // what each cache's follower was told

	mu      sync.Mutex  // guards what follows, never held across a call
	last    observation // of the last pass
	history history     // changed by whoever has the turn
	servers roster
	ending  *TerminateOptions
	running *running

	telling sync.Mutex // makes events come one after another
}

// New checks the spec and the config and makes a Farm. It makes no calls. What is allowed and unsafe is told as an event: see
// [DataAtRisk]. The error lists every fault of both, each with
// its field, its value and the rule.
func New(spec Spec, config Config) (*Farm, error) {
	err := check(spec, config)
	if err == nil {
		err = claim(spec.Name, &config)
	}
	if err != nil {
		return nil, fmt.Errorf("farm %q:\n%w", spec.Name, err)
	}
	config.Pools, config.Hooks = slices.Clone(config.Pools), slices.Clone(config.Hooks)
	f := &Farm{spec: spec.detach().withDefaults(), config: config.withDefaults(), turn: make(chan struct{}, 1), closing: closing(), hooks: newHooks()}
	if spec.Hours != nil {
		h, _ := spec.Hours.read("", "")
		f.hours = &h
	}
	f.forget()
	f.warn()
	return f, nil
}

// warn tells of databases on their machines' own disks that lack what makes that safe: replicas against the loss of a machine,
// backups against that of all of them. Where the farm is put away or ends with a last snapshot, there is nothing to take one of.
func (f *Farm) warn() {
	for _, r := range f.spec.Roles {
		if r.Serves != Database || r.Volume != nil {
			continue
		}
		var wants []string
		if r.Min < 2 {
			wants = append(wants, fmt.Sprintf("a replica (Min is %d)", r.Min))
		}
		if m := f.config.Databases[r.Name]; m == nil || !m.BacksUp() {
			wants = append(wants, "backups (replication.Config.Backups)")
		}
		tell := func(message string) {
			f.emit(scalr.Event{Time: time.Now(), Kind: DataAtRisk, Farm: f.spec.Name, Role: r.Name,
				Message: "its data is on its machines' own disks, which go with them: " + message})
		}
		if len(wants) > 0 {
			tell("it wants " + strings.Join(wants, " and ") + ", or a Volume")
		}
		if f.spec.Hours != nil {
			tell("it is gone whenever the farm closes (Spec.Hours)")
		}
		if f.spec.End != nil && f.spec.End.FinalSnapshot {
			tell("the farm's end keeps no snapshot of it (Spec.End.FinalSnapshot)")
		}
	}
}

// forget makes the next pass begin like the first one.
func (f *Farm) forget() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.history, f.last, f.told, f.followed = history{}.next(), observation{}, nil, map[string][]cache.Server{}
}

// Spec gives a copy of the farm's spec, with the defaults written out.
func (f *Farm) Spec() Spec { return f.spec.detach() }

// role gives the role of that name, or nil.
func (f *Farm) role(name string) *Role {
	for i := range f.spec.Roles {
		if f.spec.Roles[i].Name == name {
			return &f.spec.Roles[i]
		}
	}
	return nil
}

// emit tells of an event, one after another, and lets the hooks follow it.
func (f *Farm) emit(e scalr.Event) {
	f.telling.Lock()
	defer f.telling.Unlock()
	if f.config.Events != nil {
		f.config.Events(e)
	}
	f.notice(e)
}

// take waits for the turn to make a pass.
func (f *Farm) take(ctx context.Context) error {
	select {
	case f.turn <- struct{}{}:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

func (f *Farm) give() { <-f.turn }

// Plan says what a pass would do now. It observes, and does nothing. Before the first pass it says what one would do that has waited for
// Config.ListLag: a volume that an earlier run of the program may have created is looked for as long before another one is.
func (f *Farm) Plan(ctx context.Context) (Plan, error) {
	if err := f.take(ctx); err != nil {
		return Plan{}, err
	}
	defer f.give()
	end := f.ends()
	if end == nil {
		end = f.due()
	}
	h := f.history
	if h.started.IsZero() {
		h.started = time.Now().Add(-f.config.ListLag)
	}
	p, err := f.plan(ctx, end, h)
	p.Due = f.coming()
	return p, err
}

// plan observes and decides.
func (f *Farm) plan(ctx context.Context, end *TerminateOptions, h history) (Plan, error) {
	o := f.observe(ctx, end, false)
	if ctx.Err() != nil {
		return Plan{}, context.Cause(ctx) // what was seen then is no fact
	}
	p, _, _ := decide(f.spec, &f.config, end, o, h)
	return p, errors.Join(o.errs...)
}

// ends says how the farm is being ended; nil while it is not.
func (f *Farm) ends() *TerminateOptions {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.ending
}

// over reports whether Spec.End has passed, by the wall clock.
func (f *Farm) over() bool { return f.spec.End != nil && !time.Now().Before(f.spec.End.At.Round(0)) }

// Reconcile makes one pass and returns its plan, with the error of each step that failed. The error joins these and the
// facts that could not be had. It is for programs that have a loop of their own: they run the managers of their databases
// themselves and make sure that no other program runs the farm.
func (f *Farm) Reconcile(ctx context.Context) (Plan, error) {
	switch ends := f.ends(); {
	case f.over() || ends != nil && ends != f.closing:
		return Plan{}, ErrEnded
	case ends != nil || f.closed():
		return Plan{}, ErrClosed
	}
	return f.pass(ctx)
}

// pass observes, decides and acts.
func (f *Farm) pass(ctx context.Context) (Plan, error) {
	if err := f.take(ctx); err != nil {
		return Plan{}, err
	}
	defer f.give()
	end := f.ends()
	o := f.observe(ctx, end, true)
	if ctx.Err() != nil {
		return Plan{}, context.Cause(ctx) // what was seen then is no fact
	}
	p := f.settle(o, end)
	f.tellFaults(o.errs)
	err := f.follow(&p)
	if cause := f.act(ctx, &p); cause != nil {
		return p, cause
	}
	errs := append(o.errs, err)
	for _, s := range p.Steps {
		if s.err != nil {
			errs = append(errs, fmt.Errorf("%s %s-%d: %w", s.Action, s.Role, s.Index, s.err))
		}
	}
	return p, errors.Join(errs...)
}

// settle decides and takes over what was decided.
func (f *Farm) settle(o observation, end *TerminateOptions) Plan {
	p, next, events := decide(f.spec, &f.config, end, o, f.history)
	f.mu.Lock()
	f.history, f.last, f.servers = next, o, p.servers
	f.mu.Unlock()
	for _, e := range events {
		f.emit(e)
	}
	return p
}

// publish moves the names after a change of primary, from the facts of the last pass. It lists nothing, does nothing else, and
// waits for no pass that is under way, so that it takes as long as the registrar takes.
func (f *Farm) publish(ctx context.Context) error {
	end := f.ends()
	f.mu.Lock()
	o, h := f.last, f.history.next()
	h.machines = slices.Clone(h.machines)
	f.mu.Unlock()
	if f.spec.Zone == "" || o.at.IsZero() || end != nil {
		return nil
	}
	o.sets, o.at = f.sets(), time.Now()
	if o.zone, o.zoneErr = f.readZone(ctx); o.zoneErr != nil {
		return o.zoneErr
	}
	p, _, _ := decide(f.spec, &f.config, nil, o, h)
	for i := range p.Steps {
		if s := &p.Steps[i]; s.Action == ChangeNames {
			return f.do(ctx, &p, s)
		}
	}
	return nil
}

// tellFaults tells of facts that could not be had, and not again while the text is the same.
func (f *Farm) tellFaults(errs []error) {
	now := map[string]bool{}
	for _, err := range errs {
		text := err.Error()
		now[text] = true
		if !f.told[text] {
			f.emit(scalr.Event{Time: time.Now(), Kind: PassFailed, Farm: f.spec.Name, Message: "a fact is missing in this pass", Err: text})
		}
	}
	f.told = now
}

// Servers gives the machines that hold a slot of the role, as the last pass saw them, sorted by index; of all roles if the
// name is empty.
func (f *Farm) Servers(role string) []Server {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.servers.of(role)
}
