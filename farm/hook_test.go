package farm

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/scalr-go/scalr"
	"github.com/scalr-go/scalr/provider"
	"github.com/scalr-go/scalr/provider/memcloud"
)

// ledger notes which hooks ran, and says what they return.
type ledger struct {
	mu   sync.Mutex
	ran  []string
	says map[string]error
}

func (l *ledger) note(what string) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.ran = append(l.ran, what)
	return l.says[what]
}

func (l *ledger) say(what string, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.says == nil {
		l.says = map[string]error{}
	}
	l.says[what] = err
}

func (l *ledger) list() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.ran)
}

func (l *ledger) counts() map[string]int {
	counts := map[string]int{}
	for _, what := range l.list() {
		counts[what]++
	}
	return counts
}

// hook is one that notes its name and the machines that it is given.
func (l *ledger) hook(name string, on scalr.Kind, target Target) Hook {
	return Hook{Name: name, On: []scalr.Kind{on}, Target: target, Do: func(_ context.Context, e scalr.Event, servers []Server) error {
		names := []string{name}
		for _, s := range servers {
			names = append(names, s.Name)
		}
		return l.note(strings.Join(names, " "))
	}}
}

// A machine serves only when its hooks have let it, one after another, and they are not asked again.
func TestHooksHoldWhatStarts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cloud := testCloud(memcloud.Options{})
		spec, config := web(2, 2), testConfig(cloud, testZone())
		var l ledger
		config.Hooks = []Hook{l.hook("mount", HostStarting, TheMachine), l.hook("deploy", HostStarting, TheMachine)}
		l.say("deploy www-1", errors.New("still copying the assets"))
		l.say("deploy www-2", errors.New("still copying the assets"))
		events := record(&config)
		f, err := New(spec, config)
		require.NoError(t, err)
		for range 4 {
			_, err = f.Reconcile(t.Context())
			require.NoError(t, err)
			time.Sleep(time.Second)
		}
		require.Empty(t, values(t, config, spec.Zone, "www.shop.example.", "A"))
		before := l.counts()
		p, err := f.Plan(t.Context())
		require.NoError(t, err)
		require.Contains(t, p.String(), "wait www-1: "+f.Servers("www")[0].ID+" does not serve yet: hook deploy: still copying the assets")
		require.Equal(t, before, l.counts(), "a plan asks nobody")
		require.Equal(t, 1, strings.Count(events.text(), "www-1 ["+f.Servers("www")[0].ID+"] hook deploy failed: still copying the assets"), events.text())
		l.say("deploy www-1", nil)
		turns(t, f, 3, func() bool { return len(values(t, config, spec.Zone, "www.shop.example.", "A")) == 1 })
		l.say("deploy www-2", nil)
		require.NoError(t, passes(t.Context(), f, 20, 2))
		require.Len(t, values(t, config, spec.Zone, "www.shop.example.", "A"), 2)
		require.Equal(t, 1, l.counts()["mount www-1"], "what has let a machine go on is not asked again")
		before = l.counts()
		_, err = f.Reconcile(t.Context())
		require.NoError(t, err)
		require.Equal(t, before, l.counts())

		// Another program asks again, and takes no name away for it.
		again, err := New(spec, config)
		require.NoError(t, err)
		p, err = again.Reconcile(t.Context())
		require.NoError(t, err)
		require.True(t, p.Empty(), "%s", p)
		require.Equal(t, before["deploy www-1"]+1, l.counts()["deploy www-1"])
	})
}

// A pass whose context ends waits for no hook, which goes on: another pass gets its answer.
func TestAPassThatEndsWaitsForNoHook(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var l ledger
		spec, config := web(1, 1), testConfig(testCloud(memcloud.Options{}), testZone())
		config.Hooks = []Hook{{Name: "deploy", On: []scalr.Kind{HostStarting}, Do: func(ctx context.Context, e scalr.Event, s []Server) error {
			select {
			case <-time.After(900 * time.Millisecond):
				return l.note("done")
			case <-ctx.Done():
				return context.Cause(ctx)
			}
		}}}
		f, err := New(spec, config)
		require.NoError(t, err)
		_, err = f.Reconcile(t.Context())
		require.NoError(t, err)
		time.Sleep(time.Second)
		ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
		defer cancel()
		began := time.Now()
		_, err = f.Reconcile(ctx)
		require.ErrorIs(t, err, context.DeadlineExceeded)
		require.Equal(t, 300*time.Millisecond, time.Since(began))
		time.Sleep(time.Second)
		_, err = f.Reconcile(t.Context())
		require.NoError(t, err)
		require.True(t, f.Servers("www")[0].Ready)
		require.Equal(t, []string{"done"}, l.list())
	})
}

// A hook that takes longer than many passes delays none of them, is run once, and is ended with its machine.
func TestHookOutlastsPasses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cloud := testCloud(memcloud.Options{})
		spec, config := web(2, 2), testConfig(cloud, testZone())
		spec.Roles[0].LaunchTimeout = 4 * time.Minute
		var l ledger
		takes := time.Duration(0)
		config.Hooks = []Hook{{Name: "deploy", On: []scalr.Kind{HostStarting}, Do: func(ctx context.Context, e scalr.Event, s []Server) error {
			_ = l.note("begun " + e.Subject)
			select {
			case <-time.After(takes):
				return nil
			case <-ctx.Done():
				_ = l.note("ended " + e.Subject)
				return context.Cause(ctx)
			}
		}}}
		events := record(&config)
		delayed := false
		pass := func(f *Farm) Plan {
			began := time.Now()
			p, err := f.Reconcile(t.Context())
			require.NoError(t, err)
			require.LessOrEqual(t, time.Since(began), hookPatience)
			delayed = delayed || time.Since(began) > 0
			time.Sleep(time.Second)
			return p
		}
		f, err := New(spec, config)
		require.NoError(t, err)
		takes = 3 * time.Minute
		pass(f)
		pass(f)
		delayed = false
		ids := []string{f.Servers("www")[0].ID, f.Servers("www")[1].ID}
		for range 20 {
			pass(f)
		}
		require.False(t, delayed, "but for the pass that asks")
		p, err := f.Plan(t.Context())
		require.NoError(t, err)
		require.Contains(t, p.String(), ids[0]+" does not serve yet: hook deploy has run for 22s")
		turns(t, f, 100, func() bool { return len(values(t, config, spec.Zone, "www.shop.example.", "A")) == 2 })
		require.ElementsMatch(t, []string{"begun " + ids[0], "begun " + ids[1]}, l.list())
		require.Contains(t, events.text(), "hook deploy has taken 3m0s map[hook:deploy on:host-starting]")

		// Another program asks again; what clients could find stays where it is meanwhile.
		synctest.Wait()
		f, err = New(spec, config)
		require.NoError(t, err)
		for range 20 {
			require.True(t, pass(f).Empty())
			require.Len(t, values(t, config, spec.Zone, "www.shop.example.", "A"), 2)
		}
		turns(t, f, 100, func() bool {
			return l.counts()["begun "+ids[0]] == 2 && strings.Count(events.text(), "hook deploy has taken") == 4
		})

		// One that takes too long goes with its machine.
		takes = time.Hour
		config.Hooks[0].Timeout = time.Hour
		f, err = New(spec, config)
		require.NoError(t, err)
		require.NoError(t, passes(t.Context(), f, 20, 2))
		cloud.Kill(ids[0], "power")
		turns(t, f, 20, func() bool { return len(f.Servers("www")) == 2 && f.Servers("www")[0].ID != ids[0] })
		slow := f.Servers("www")[0].ID
		turns(t, f, 20, func() bool { return l.counts()["begun "+slow] == 1 })
		turns(t, f, 300, func() bool { return l.counts()["ended "+slow] == 1 })
		require.NotContains(t, world(cloud), slow)
		require.NotContains(t, events.text(), "hook deploy failed")
		require.NoError(t, f.Terminate(t.Context(), TerminateOptions{}))
		synctest.Wait()
	})
}

// A machine that works is ended when its hooks let it go, or when its time is up; and is not taken back.
func TestHooksHoldWhatStops(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cloud := testCloud(memcloud.Options{})
		spec, config := web(1, 4), testConfig(cloud, testZone())
		spec.Roles[0].StopTimeout = time.Minute
		want := dial(&spec, &config)
		var l ledger
		config.Hooks = []Hook{{Name: "leave", On: []scalr.Kind{HostStopping}, Role: "www", Do: func(_ context.Context, _ scalr.Event, servers []Server) error {
			s := servers[0]
			if named := values(t, config, spec.Zone, "www.shop.example.", "A"); slices.Contains(named, s.Public.String()) {
				return errors.New("it is asked while clients can find it")
			}
			return l.note(s.ID)
		}}}
		events := record(&config)
		f, err := New(spec, config)
		require.NoError(t, err)
		*want = 3
		require.NoError(t, passes(t.Context(), f, 20, 2))
		going := f.Servers("www")[2].ID
		l.say(going, errors.New("2 uploads under way"))
		*want = 2
		turns(t, f, 20, func() bool { return l.counts()[going] > 0 })
		p, err := f.Plan(t.Context())
		require.NoError(t, err)
		require.Contains(t, p.String(), "at most: hook leave: 2 uploads under way: role www is to have 2 machines")

		// It is wanted again, and is left to go: another one comes.
		*want = 3
		turns(t, f, 20, func() bool {
			return len(values(t, config, spec.Zone, "www.shop.example.", "A")) == 3
		})
		require.Contains(t, world(cloud), going)
		require.Equal(t, "www-4", f.Servers("www")[3].Name)

		// It lets go.
		l.say(going, nil)
		turns(t, f, 5, func() bool { return !slices.Contains(world(cloud), going) })
		require.NotContains(t, events.kinds(), string(StopTimedOut))

		// One that never does is ended in the end.
		require.NoError(t, passes(t.Context(), f, 20, 2))
		going = f.Servers("www")[2].ID
		l.say(going, errors.New("2 uploads under way"))
		*want = 2
		turns(t, f, 20, func() bool { return l.counts()[going] > 0 })
		since := time.Now()
		turns(t, f, 100, func() bool { return !slices.Contains(world(cloud), going) })
		require.GreaterOrEqual(t, time.Since(since), spec.Roles[0].StopTimeout-4*time.Second)
		require.Contains(t, events.text(), "it has been held for 1m0s: it is ended: hook leave: 2 uploads under way")

		// The end of the farm asks nobody.
		before := l.counts()
		require.NoError(t, f.Terminate(t.Context(), TerminateOptions{}))
		require.Equal(t, before, l.counts())
	})
}

// A machine that a run of the program before this one had not let serve is not served by a later one before its hooks say so.
func TestHooksHoldAfterARestart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		spec, config := web(1, 1), testConfig(testCloud(memcloud.Options{}), testZone())
		config.Hooks = []Hook{{Name: "deploy", On: []scalr.Kind{HostStarting}, Do: func(ctx context.Context, _ scalr.Event, _ []Server) error {
			select {
			case <-ctx.Done():
				return context.Cause(ctx)
			case <-time.After(time.Minute):
				return nil
			}
		}}}
		for range 3 {
			f, err := New(spec, config)
			require.NoError(t, err)
			for range 5 {
				_, err = f.Reconcile(t.Context())
				require.NoError(t, err)
				require.Empty(t, values(t, config, spec.Zone, "www.shop.example.", "A"))
				time.Sleep(time.Second)
			}
		}
		synctest.Wait()
		time.Sleep(time.Minute) // until the last run has ended
	})
}

func TestHooksAreChecked(t *testing.T) {
	cloud := testCloud(memcloud.Options{})
	spec, config := web(1, 1), testConfig(cloud, testZone())
	do := func(context.Context, scalr.Event, []Server) error { return nil }
	config.Pools = append(config.Pools, Pool{Name: "bare", Provider: bare{cloud}})
	up := []scalr.Kind{HostUp}
	config.Hooks = []Hook{
		{On: up, Do: do},
		{Name: "a", Do: do},
		{Name: "a", On: []scalr.Kind{"host-upp", HookFailed, DataAtRisk}, Do: do},
		{Name: "b", On: up, Role: "db", Target: "all", Do: do, Timeout: -1},
		{Name: "c", On: up},
		{Name: "d", On: up, Do: do, Command: provider.Command{Args: []string{"true"}}},
		{Name: "e", On: up, Command: provider.Command{Args: []string{"true"}, Stdin: strings.NewReader("")}},
		{Name: "f", On: up, Command: provider.Command{Args: []string{"true"}}},
	}
	_, err := New(spec, config)
	require.Error(t, err)
	for _, want := range []string{
		`config.Hooks[0].Name: is empty`,
		`config.Hooks[1] (a).On: is empty`,
		`config.Hooks[2].Name: "a" is also the name of config.Hooks[1]`,
		`config.Hooks[2] (a).On: "host-upp" is no kind of event`,
		`config.Hooks[2] (a).On: "hook-failed" is no kind of event`,
		`config.Hooks[2] (a).On: "data-at-risk" is no kind of event`,
		`config.Hooks[3] (b).Role: the spec has no role "db"`,
		`config.Hooks[3] (b).Target: is "all"`,
		`config.Hooks[3] (b).Timeout: -1ns is negative`,
		`config.Hooks[4] (c): want one of Do and Command.Args`,
		`config.Hooks[5] (d): want one of Do and Command.Args`,
		`config.Hooks[6] (e).Command: has a stream`,
		`config.Hooks[7] (f).Command: the provider of pool "bare" runs no commands`,
	} {
		require.ErrorContains(t, err, want)
	}
}
