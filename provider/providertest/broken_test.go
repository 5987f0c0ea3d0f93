package providertest

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/require"

	"github.com/scalr-go/scalr/provider"
	"github.com/scalr-go/scalr/provider/memcloud"
)

// cloud is what the broken providers embed: everything that they do not break works.
type cloud = *memcloud.Cloud

// broken says which rule a provider breaks, and which case has to find it.
type broken struct {
	name, by, rule string
	wrap           func(w *world) provider.Provider
	tweak          func(w *world, s *Subject) // instead of a wrapper, or beside it
}

func TestBrokenProvidersAreFound(t *testing.T) {
	for _, b := range slices.Concat(brokenInstances, brokenCapabilities, brokenDetails) {
		t.Run(strings.ReplaceAll(b.name, " ", "_"), func(t *testing.T) {
			r := record(t, b.by, func() Subject { return b.subject(slow) })
			require.NotEmpty(t, r.failures, "a provider where %s passes %s (skipped: %q)", b.name, b.by, r.skipped)
			require.Contains(t, r.failures[0], "broken rule: "+b.rule)
		})
	}
}

func (b broken) subject(o memcloud.Options) Subject {
	w := newWorld(o)
	s := w.subject()
	if b.wrap != nil {
		s.Provider = b.wrap(w)
		s.Another = func() provider.Provider { return b.wrap(w) }
	}
	if b.tweak != nil {
		b.tweak(w, &s)
	}
	return s
}

// The patience with a cloud that fails now and then must not hide a provider that breaks a rule.
func TestBrokenProvidersAreFoundBehindFaults(t *testing.T) {
	faulty := slow
	for _, b := range slices.Concat(brokenInstances, brokenCapabilities, brokenDetails) {
		found := false
		for seed := uint64(0); seed < 10 && !found; seed++ { // a fault may keep a provider from what it does wrong
			faulty.Fault = unreliable(seed)
			r := record(t, b.by, func() Subject {
				s := b.subject(faulty)
				s.Faulty = true
				return s
			})
			found = len(r.failures) > 0
		}
		require.True(t, found, "a provider where %s passes %s", b.name, b.by)
	}
	impatient := 0
	for _, c := range cases() {
		if r := record(t, c.name, func() Subject { return newWorld(faulty).subject() }); len(r.failures) > 0 {
			impatient++
		}
	}
	require.Greater(t, impatient, len(cases())/2, "the faults must be such that patience is needed")
}

// A case that fails must end what it has made all the same, also what no list showed at that moment.
func TestAFailedCaseLeavesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(slow)
		r := &recorder{ctx: t.Context()}
		done := make(chan struct{})
		go func() {
			defer close(done)
			runCase(r, testCase{"fails at once", func(s *suite) {
				s.launch()
				s.rule(false, "nothing", "")
			}}, w.subject())
		}()
		<-done
		require.Len(t, r.failures, 1)
		require.Zero(t, w.World(nil).Len())
	})
}

var brokenInstances = []broken{
	{name: "every call launches", by: "Instances/SameToken", rule: "the same token with the same parameters meets the same thing",
		wrap: func(w *world) provider.Provider { return &newTokens{cloud: w.Cloud} }},
	{name: "search and create race", by: "Instances/SameTokenAtOnce", rule: "many calls at once with one token make one thing",
		wrap: func(w *world) provider.Provider { return &racing{newTokens{cloud: w.Cloud}} }},
	{name: "tokens are compared by nothing else", by: "Instances/OtherParameters", rule: "the same token with other parameters is ErrInvalid",
		wrap: func(w *world) provider.Provider {
			return &forgiving{cloud: w.Cloud, seen: map[string]provider.Instance{}}
		}},
	{name: "a mismatch is not explained", by: "Instances/OtherParameters", rule: "the error names the parameter that differs",
		wrap: func(w *world) provider.Provider {
			return launchErr{w.Cloud, func(l provider.Launch, err error) error {
				return provider.Errorf("Launch", l.Token, provider.ErrInvalid, "idempotent parameter mismatch")
			}}
		}},
	{name: "bad tokens are mended", by: "Instances/BadRequest", rule: "a bad request is ErrInvalid",
		wrap: func(w *world) provider.Provider { return mending{w.Cloud} }},
	{name: "errors have no kind", by: "Instances/BadRequest", rule: "a bad request is ErrInvalid",
		wrap: func(w *world) provider.Provider {
			return launchErr{w.Cloud, func(_ provider.Launch, err error) error { return errors.New(err.Error()) }}
		}},
	{name: "errors are bare kinds", by: "Instances/BadRequest", rule: "errors are *provider.Error with the method in Op",
		wrap: func(w *world) provider.Provider {
			return launchErr{w.Cloud, func(provider.Launch, error) error { return provider.ErrInvalid }}
		}},
	{name: "lists are unsorted", by: "Instances/List", rule: "lists are sorted by ID",
		wrap: func(w *world) provider.Provider {
			return listing{w.Cloud, func(l []provider.Instance) []provider.Instance { slices.Reverse(l); return l }}
		}},
	{name: "only one page is read", by: "Instances/List", rule: "a list has everything that bears the tags",
		wrap: func(w *world) provider.Provider {
			return listing{w.Cloud, func(l []provider.Instance) []provider.Instance { return l[:min(len(l), 3)] }}
		}},
	{name: "any tag will do", by: "Instances/List", rule: "a list has only what bears all of the tags",
		wrap: func(w *world) provider.Provider { return anyTag{w.Cloud} }},
	{name: "maps in lists are shared", by: "Instances/List", rule: "the maps in a list belong to the caller",
		wrap: func(w *world) provider.Provider {
			cache := map[string]map[string]string{}
			return listing{w.Cloud, func(l []provider.Instance) []provider.Instance {
				for n, i := range l {
					if cache[i.ID] == nil {
						cache[i.ID] = i.Tags
					}
					l[n].Tags = cache[i.ID]
				}
				return l
			}}
		}},
	{name: "the request's map is kept", by: "Instances/List", rule: "a list has only what bears all of the tags",
		wrap: func(w *world) provider.Provider {
			return &keeping{cloud: w.Cloud, tags: map[string]map[string]string{}}
		}},
	{name: "the request's map is written to", by: "Instances/List", rule: "a call leaves the maps that it is given as they are",
		wrap: func(w *world) provider.Provider { return scribbling{w.Cloud} }},
	{name: "a second terminate fails", by: "Instances/EndTwice", rule: "ending what is gone is no error",
		wrap: func(w *world) provider.Provider { return &strict{cloud: w.Cloud, ended: map[string]bool{}} }},
	{name: "an unknown instance cannot be terminated", by: "Terminate/Unknown", rule: "terminating an unknown instance is no error",
		wrap: func(w *world) provider.Provider { return knowing{w.Cloud} }},
	{name: "terminate takes its siblings along", by: "Instances/EndTwice", rule: "only what a call names is ended",
		wrap: func(w *world) provider.Provider { return sweeping{w.Cloud} }},
	{name: "terminate only says so", by: "Terminate/Ends", rule: "a terminated instance gets Terminated, or is listed no more",
		wrap: func(w *world) provider.Provider { return idle{w.Cloud} }},
	{name: "a terminated machine works on", by: "Terminate/Ends", rule: "the machine of a terminated instance is off",
		tweak: func(_ *world, s *Subject) { s.Alive = func(provider.Instance) bool { return true } }},
	{name: "contexts are ignored", by: "Instances/ContextEnded", rule: "a call whose context has ended fails with the context's error",
		wrap: func(w *world) provider.Provider { return &deaf{cloud: w.Cloud} }},
	{name: "contexts are looked at afterwards", by: "Instances/ContextEnded", rule: "a call whose context had ended before has no effect",
		wrap: func(w *world) provider.Provider { return &deaf{cloud: w.Cloud, look: true} }},
	{name: "contexts do not keep terminate from its work", by: "Instances/ContextEnded", rule: "a call whose context had ended before has no effect",
		wrap: func(w *world) provider.Provider { return deafEnd{w.Cloud} }},
	{name: "a retry takes a new token", by: "Instances/LostReply", rule: "a call that lost its reply meets the same thing when it is made again",
		wrap: func(w *world) provider.Provider { return &retrying{cloud: w.Cloud} }},
	{name: "tokens are of one process", by: "Instances/AnotherProcess", rule: "another process meets, lists and ends the same things",
		wrap: func() func(w *world) provider.Provider {
			n := 0
			return func(w *world) provider.Provider { n++; return processes{w.Cloud, n} }
		}()},
	{name: "a terminated instance frees its token", by: "Launch/TokenOfTerminated", rule: "the token of a terminated instance meets the terminated instance",
		wrap: func(w *world) provider.Provider { return reviving{w.Cloud} }},
	{name: "an unknown size is taken for the default", by: "Launch/UnknownNames", rule: "a launch with a bad Size is ErrInvalid",
		wrap: func(w *world) provider.Provider { return sizing{w.Cloud} }},
	{name: "user data is in the error", by: "Launch/Secrets", rule: "no error shows the user data",
		wrap: func(w *world) provider.Provider {
			return launchErr{w.Cloud, func(l provider.Launch, err error) error { return fmt.Errorf("%w: %q", err, []byte(l.UserData)) }}
		}},
	{name: "nothing ever runs", by: "Launch/Run", rule: "an instance gets running",
		wrap: func(w *world) provider.Provider {
			return each(w, func(i *provider.Instance) { i.State = provider.Pending })
		}},
	{name: "a running instance has no address", by: "Launch/Run", rule: "a running instance has an address inside the cloud",
		wrap: func(w *world) provider.Provider {
			return each(w, func(i *provider.Instance) { i.Private = i.Private.Prev().Prev().Prev().Prev() })
		},
		tweak: func(w *world, s *Subject) {
			s.Provider = each(w, func(i *provider.Instance) {
				*i = provider.Instance{ID: i.ID, Name: i.Name, State: i.State, Image: i.Image,
					Size: i.Size, Placement: i.Placement, Launched: i.Launched, Tags: i.Tags}
			})
		}},
	{name: "names are lost", by: "Launch/Run", rule: "the list shows what was launched",
		wrap: func(w *world) provider.Provider { return each(w, func(i *provider.Instance) { i.Name = "" }) }},
}

// each changes every instance of a list.
func each(w *world, change func(*provider.Instance)) provider.Provider {
	return listing{w.Cloud, func(l []provider.Instance) []provider.Instance {
		for n := range l {
			change(&l[n])
		}
		return l
	}}
}

type newTokens struct {
	cloud
	mu sync.Mutex
	n  int
}

func (p *newTokens) Launch(ctx context.Context, l provider.Launch) (provider.Instance, error) {
	p.mu.Lock()
	p.n++
	l.Token += fmt.Sprint("-", p.n)
	p.mu.Unlock()
	return p.cloud.Launch(ctx, l)
}

type racing struct{ newTokens }

func (p *racing) Launch(ctx context.Context, l provider.Launch) (provider.Instance, error) {
	list, err := p.Instances(ctx, map[string]string{"token": l.Token})
	if err != nil || len(list) > 0 {
		return provider.Instance{}, err
	}
	return p.newTokens.Launch(ctx, l)
}

type forgiving struct {
	cloud
	mu   sync.Mutex
	seen map[string]provider.Instance
}

func (p *forgiving) Launch(ctx context.Context, l provider.Launch) (provider.Instance, error) {
	p.mu.Lock()
	i, ok := p.seen[l.Token]
	p.mu.Unlock()
	if ok {
		return i, nil
	}
	i, err := p.cloud.Launch(ctx, l)
	p.mu.Lock()
	p.seen[l.Token] = i
	p.mu.Unlock()
	return i, err
}

type launchErr struct {
	cloud
	change func(provider.Launch, error) error
}

func (p launchErr) Launch(ctx context.Context, l provider.Launch) (provider.Instance, error) {
	i, err := p.cloud.Launch(ctx, l)
	if err != nil {
		err = p.change(l, err)
	}
	return i, err
}

type mending struct{ cloud }

func (p mending) Launch(ctx context.Context, l provider.Launch) (provider.Instance, error) {
	l.Token = (l.Token + "x")[:min(len(l.Token)+1, 64)]
	return p.cloud.Launch(ctx, l)
}

type listing struct {
	cloud
	change func([]provider.Instance) []provider.Instance
}

func (p listing) Instances(ctx context.Context, tags map[string]string) ([]provider.Instance, error) {
	l, err := p.cloud.Instances(ctx, tags)
	return p.change(l), err
}

type anyTag struct{ cloud }

func (p anyTag) Instances(ctx context.Context, tags map[string]string) ([]provider.Instance, error) {
	l, err := p.cloud.Instances(ctx, nil)
	return slices.DeleteFunc(l, func(i provider.Instance) bool {
		for k, v := range tags {
			if i.Tags[k] == v {
				return false
			}
		}
		return true
	}), err
}

type keeping struct {
	cloud
	tags map[string]map[string]string
}

func (p *keeping) Launch(ctx context.Context, l provider.Launch) (provider.Instance, error) {
	i, err := p.cloud.Launch(ctx, l)
	p.tags[i.ID] = l.Tags
	return i, err
}

func (p *keeping) Instances(ctx context.Context, tags map[string]string) ([]provider.Instance, error) {
	l, err := p.cloud.Instances(ctx, nil)
	l = slices.DeleteFunc(l, func(i provider.Instance) bool { return !provider.Matches(i.Tags, tags) })
	for n, i := range l {
		l[n].Tags = maps.Clone(p.tags[i.ID])
	}
	return l, err
}

type scribbling struct{ cloud }

func (p scribbling) Launch(ctx context.Context, l provider.Launch) (provider.Instance, error) {
	l.Tags["Name"] = l.Name
	return p.cloud.Launch(ctx, l)
}

type strict struct {
	cloud
	ended map[string]bool
}

func (p *strict) Terminate(ctx context.Context, id string) error {
	if p.ended[id] {
		return provider.Errorf("Terminate", id, provider.ErrNotFound, "it has ended")
	}
	p.ended[id] = true
	return p.cloud.Terminate(ctx, id)
}

type knowing struct{ cloud }

func (p knowing) Terminate(ctx context.Context, id string) error {
	list, err := p.Instances(ctx, nil)
	if err == nil && !slices.ContainsFunc(list, func(i provider.Instance) bool { return i.ID == id }) {
		err = provider.Errorf("Terminate", id, provider.ErrNotFound, "no such instance")
	}
	return errors.Join(err, p.cloud.Terminate(ctx, id))
}

type sweeping struct{ cloud }

func (p sweeping) Terminate(ctx context.Context, id string) error {
	list, err := p.Instances(ctx, nil)
	for _, i := range list {
		err = errors.Join(err, p.cloud.Terminate(ctx, i.ID))
	}
	return err
}

type idle struct{ cloud }

func (idle) Terminate(context.Context, string) error { return nil }

type deaf struct {
	cloud
	look bool
}

func (p *deaf) Launch(ctx context.Context, l provider.Launch) (provider.Instance, error) {
	i, err := p.cloud.Launch(context.WithoutCancel(ctx), l)
	if p.look && ctx.Err() != nil {
		err = ctx.Err()
	}
	return i, err
}

type deafEnd struct{ cloud }

func (p deafEnd) Terminate(ctx context.Context, id string) error {
	return errors.Join(p.cloud.Terminate(context.WithoutCancel(ctx), id), ctx.Err())
}

type retrying struct {
	cloud
	tries int
}

func (p *retrying) Launch(ctx context.Context, l provider.Launch) (provider.Instance, error) {
	asked := l.Token
	l.Token = fmt.Sprint(asked, "-", p.tries)
	i, err := p.cloud.Launch(ctx, l)
	if err != nil {
		p.tries++
	}
	return i, err
}

type processes struct {
	cloud
	process int
}

func (p processes) Launch(ctx context.Context, l provider.Launch) (provider.Instance, error) {
	l.Token = fmt.Sprint(l.Token, "-", p.process)
	return p.cloud.Launch(ctx, l)
}

type reviving struct{ cloud }

func (p reviving) Launch(ctx context.Context, l provider.Launch) (provider.Instance, error) {
	i, err := p.cloud.Launch(ctx, l)
	if i.State.Gone() {
		l.Token += "-again"
		return p.cloud.Launch(ctx, l)
	}
	return i, err
}

type sizing struct{ cloud }

func (p sizing) Launch(ctx context.Context, l provider.Launch) (provider.Instance, error) {
	if l.Size != "small" {
		l.Size = "large"
	}
	return p.cloud.Launch(ctx, l)
}
