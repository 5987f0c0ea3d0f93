package farm

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/scalr-go/scalr"
	"github.com/scalr-go/scalr/farm/scale"
	"github.com/scalr-go/scalr/provider"
)

// Rehearsal makes the decisions of a farm about facts that somebody else makes up, at times that somebody else says: a
// simulation, or a test of a policy. It is the same decision that a [Farm] makes of what it observes, and it makes no calls.
// A Rehearsal is not safe for concurrent use.
type Rehearsal struct {
	spec    Spec
	config  Config
	clouds  []cloud
	history history
}

// Facts is what one pass of a rehearsal sees.
type Facts struct {
	Time time.Time
	// Instances is what the pools hold, each with the tags of its launch; [Rehearsal.Tags] makes them. A machine serves as
	// soon as it is Running.
	Instances []provider.Instance
	// Samples are what the sensors say, by role.
	Samples map[string][]scale.Sample
}

// NewRehearsal checks the spec and the config as [New] does. Of the config, the providers, sensors, checks and hooks are never asked,
// so that any will do. A role may have machines and a policy, and nothing that a machine is connected to: no volume, no
// address, no balancer, no health check and no database; and the farm no zone.
func NewRehearsal(spec Spec, config Config) (*Rehearsal, error) {
	err := check(spec, config)
	for i, r := range spec.Roles {
		if r.Volume != nil || r.Address || r.Balancer != nil || r.Health != nil || r.Serves == Database {
			err = errors.Join(err, fmt.Errorf("spec.roles[%d] (%s): has a volume, an address, a balancer, a health check or a "+
				"database, which cannot be rehearsed", i, r.Name))
		}
	}
	if spec.Zone != "" {
		err = errors.Join(err, fmt.Errorf("spec.zone: is %q, want none: names cannot be rehearsed", spec.Zone))
	}
	if err != nil {
		return nil, fmt.Errorf("farm %q:\n%w", spec.Name, err)
	}
	config.Pools, config.Hooks = slices.Clone(config.Pools), nil
	r := &Rehearsal{spec: spec.detach().withDefaults(), config: config.withDefaults(), history: history{}.next()}
	r.clouds = r.config.clouds()
	return r, nil
}

// Pass decides about the facts and remembers what a farm would. Times must not go back from one pass to the next.
func (r *Rehearsal) Pass(f Facts) (Plan, []scalr.Event) {
	o := observation{at: f.Time, clouds: slices.Clone(r.clouds), samples: f.Samples}
	for i := range o.clouds {
		c := &o.clouds[i]
		for _, in := range f.Instances {
			if slices.ContainsFunc(c.pools, func(p *Pool) bool { return p.Name == in.Tags[TagPool] }) {
				c.instances.items = append(c.instances.items, in)
			}
		}
		slices.SortFunc(c.instances.items, func(a, b provider.Instance) int { return cmp.Compare(a.ID, b.ID) })
	}
	p, next, events := decide(r.spec, &r.config, nil, o, r.history)
	r.history = next
	return p, events
}

// Did tells what became of a step: for a launch, the instance or the error. A step of which nothing is told was not tried.
func (r *Rehearsal) Did(s Step, in provider.Instance, err error, at time.Time) {
	switch {
	case s.Action == LaunchInstance:
		again := r.history.launching(&s, at)
		r.history.launched(&r.config, &s, in, err, again, at)
	case s.Action == TerminateInstance && err == nil:
		r.history.terminated(&r.config, &s, at)
	}
}

// Tags are the tags of the instance that a step launches.
func (r *Rehearsal) Tags(s Step) map[string]string { return launchTags(r.spec.Name, &s) }
