package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/scalr-go/scalr"
	"github.com/scalr-go/scalr/farm"
	"github.com/scalr-go/scalr/farm/journal"
	"github.com/scalr-go/scalr/provider"
	"github.com/scalr-go/scalr/provider/local"
)

// pools are where machines can be, both of them on this machine: in a state directory each, with addresses each. A tool for real clouds
// has an EC2 region here, say, and an OpenStack.
var pools = []struct{ name, dir string }{{"local", "machines"}, {"other", "machines-2"}}

// prices are those of a cloud that is made up: what machines of this one cost nobody bills. They are also the sizes that there are.
var prices = farm.Prices{Sizes: map[string]float64{"": 0.04, "small": 0.02, "large": 0.08}, VolumeGB: 0.0002}

var errGivenUp = errors.New("the update was given up: its first machine did not come to serve")

// site is a farm with what it is made with. Nothing of it outlives a command but what stands in the state directory: the
// machines, which bear the farm's tags, and the journal.
type site struct {
	doc     *document
	clouds  []*local.Cloud // one for each of pools
	farm    *farm.Farm
	journal *journal.File
	out     *progress
	givenUp bool   // an update was
	closed  func() // is called when the farm has been put away
	toEnd   int    // the machines that the farm's end is to end
	ended   int    // and those that it has ended

	close func() error
}

// open makes a farm of a spec file. Like farm.New it launches nothing.
func open(state string, doc *document, out *progress) (*site, error) {
	images, err := images()
	if err != nil {
		return nil, err
	}
	s := &site{doc: doc, out: out, journal: &journal.File{Path: filepath.Join(state, "journal")}}
	config := farm.Config{}
	for _, p := range pools {
		cloud, err := local.New(local.Options{Dir: filepath.Join(state, p.dir), Images: images})
		if err != nil {
			return nil, err
		}
		s.clouds = append(s.clouds, cloud)
		config.Pools = append(config.Pools, farm.Pool{Name: p.name, Provider: cloud, Prices: &prices})
	}
	writer := journal.NewWriter(s.journal)
	config.Events = func(e scalr.Event) {
		writer.Event(e)
		s.note(e)
	}
	// These clouds show at once what there is, and a launch that failed may be tried again soon.
	config.ListLag, config.Grace, config.Backoff, config.Interval = time.Millisecond, time.Second, time.Second, time.Second
	if s.farm, err = farm.New(doc.spec, config); err != nil {
		err = doc.locate(err)
	}
	if err = errors.Join(doc.check(images), err); err != nil {
		return nil, err
	}
	ctx, stop := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	var failed error
	wg.Go(func() { failed = writer.Run(ctx) })
	s.close = func() error {
		stop()
		wg.Wait()
		return failed
	}
	return s, nil
}

// check reports what a spec may ask for and this tool has not.
func (d *document) check(images map[string]local.Image) error {
	var faults []error
	if d.spec.Zone != "" {
		faults = append(faults, d.fault(d.at["zone"], "spec.zone: is %q, but names need a name server that outlives a command: leave it out", d.spec.Zone))
	}
	for i, r := range d.spec.Roles {
		if _, ok := images[r.Image]; !ok && r.Image != "" {
			faults = append(faults, d.fault(d.at[fmt.Sprintf("roles[%d].image", i)], "spec.roles[%d] (%s).image: there is no %q, want one of %q",
				i, r.Name, r.Image, slices.Sorted(maps.Keys(images))))
		}
		for k, size := range append([]string{r.Size}, r.Fallback...) {
			at := fmt.Sprintf("roles[%d].size", i)
			if k > 0 {
				at = fmt.Sprintf("roles[%d].fallback[%d]", i, k-1)
			}
			if _, ok := prices.Sizes[size]; !ok {
				faults = append(faults, d.fault(d.at[at], "spec.%s: role %s: there is no %q, want one of %q or none", at, r.Name, size,
					slices.Sorted(maps.Keys(prices.Sizes))[1:]))
			}
		}
	}
	return errors.Join(faults...)
}

// note is the sink of events.
func (s *site) note(e scalr.Event) {
	switch {
	case e.Kind == farm.UpdateFailed:
		s.givenUp = true
	case e.Kind == farm.Closed && s.closed != nil:
		s.closed()
	case e.Kind == scalr.Kind(farm.TerminateInstance) && s.toEnd > 0:
		s.ended++
		s.out.draw([]bar{{"ended", s.ended, s.toEnd, e.Message}})
	}
	s.out.event(e)
}

// machines lists what the farm has, by its tags.
func (s *site) machines(ctx context.Context) ([]provider.Instance, error) {
	all, err := each(s.clouds, func(c *local.Cloud) ([]provider.Instance, error) { return c.Instances(ctx, s.tags()) })
	return slices.DeleteFunc(all, func(i provider.Instance) bool { return i.State.Gone() }), err
}

// volumes lists the farm's volumes likewise.
func (s *site) volumes(ctx context.Context) ([]provider.Volume, error) {
	return each(s.clouds, func(c *local.Cloud) ([]provider.Volume, error) { return c.Volumes(ctx, s.tags()) })
}

func (s *site) tags() map[string]string { return map[string]string{farm.TagFarm: s.doc.spec.Name} }

// each joins what the clouds say.
func each[T any](clouds []*local.Cloud, ask func(*local.Cloud) ([]T, error)) (all []T, err error) {
	for _, c := range clouds {
		some, err := ask(c)
		if err != nil {
			return nil, err
		}
		all = append(all, some...)
	}
	return all, nil
}

// settle makes passes until the farm rests: nothing is to be done, nothing is waited for, and every role serves.
func (s *site) settle(ctx context.Context) error {
	defer s.out.draw(nil)
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for {
		p, err := s.farm.Reconcile(ctx) // what fails is told as an event and tried again
		if errors.Is(err, farm.ErrClosed) {
			return s.putAway(ctx)
		}
		if errors.Is(err, farm.ErrEnded) {
			return s.endNow(ctx)
		}
		if ctx.Err() == nil {
			bars, serving := s.bars(ctx, p)
			s.out.draw(bars)
			if p.Empty() && serving && (len(p.Waits) == 0 || s.givenUp) {
				if s.givenUp {
					return errGivenUp
				}
				return nil
			}
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return fmt.Errorf("%w; the next apply goes on from here:\n%s", context.Cause(ctx), strings.TrimRight(p.String(), "\n"))
		}
	}
}

// putAway lets the farm close: it is outside of the spec's hours. Whoever applies the spec within them opens it again.
func (s *site) putAway(ctx context.Context) error {
	running, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	s.closed = func() { stop(farm.ErrClosed) }
	if err := s.farm.Run(running); !errors.Is(err, farm.ErrClosed) {
		return err
	}
	return nil
}

// endNow lets the farm end: the end that its spec has is over.
func (s *site) endNow(ctx context.Context) error {
	if _, err := s.farm.PlanTerminate(ctx, s.doc.spec.End.TerminateOptions); err != nil {
		return err
	}
	return s.farm.Run(ctx)
}

// bars counts the machines of each role that serve and have the role's image, and reports whether all that should serve do.
func (s *site) bars(ctx context.Context, p farm.Plan) (bars []bar, serving bool) {
	machines, err := s.machines(ctx)
	serving = err == nil
	for _, r := range s.doc.spec.Roles {
		b := bar{role: r.Name, want: p.Desired[r.Name].Count, note: r.Image}
		serve := 0
		for _, server := range s.farm.Servers(r.Name) {
			if !server.Ready || server.Warm {
				continue
			}
			serve++
			if r.Move != nil && !slices.Contains(r.Pools, server.Pool) {
				continue // it is to move
			}
			if slices.ContainsFunc(machines, func(m provider.Instance) bool { return m.ID == server.ID && m.Image == r.Image }) {
				b.done++
			}
		}
		for _, w := range p.Waits {
			if w.Role == r.Name {
				b.note = w.Reason
			}
		}
		serving = serving && serve >= b.want
		bars = append(bars, b)
	}
	return bars, serving
}

// lock keeps other commands from changing farms in the same state directory. The kernel releases it when the program ends.
func lock(state string) (release func() error, err error) {
	f, err := os.OpenFile(filepath.Join(state, "lock"), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		return nil, errors.Join(fmt.Errorf("-state %s: another command is at work there: %w", state, err), f.Close())
	}
	return f.Close, nil
}
