package farm

import (
	"context"
	"maps"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/scalr-go/scalr"
	"github.com/scalr-go/scalr/provider"
	"github.com/scalr-go/scalr/provider/memcloud"
)

// Hooks follow events: on the machine, its role and the farm, in the order of events, and no pass waits for them.
func TestHooksFollowEvents(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var commands ledger
		cloud := testCloud(memcloud.Options{Command: func(ctx context.Context, i provider.Instance, c provider.Command) (provider.CommandResult, error) {
			var env []string
			for _, v := range c.Env {
				if strings.HasPrefix(v, "SCALR_EVENT") || strings.HasPrefix(v, "SCALR_NAME") {
					env = append(env, strings.TrimPrefix(v, "SCALR_"))
				}
			}
			slices.Sort(env)
			_ = commands.note(c.Args[0] + " " + strings.Join(env, " "))
			if c.Args[0] == "hang" {
				<-ctx.Done()
				return provider.CommandResult{}, context.Cause(ctx)
			}
			return provider.CommandResult{}, nil
		}})
		spec, config := web(2, 3), testConfig(cloud, testZone())
		spec.Roles = append(spec.Roles, Role{Name: "app", Image: "app", Min: 1, Max: 1})
		var l ledger
		command := func(name string, on scalr.Kind, target Target) Hook {
			return Hook{Name: name, On: []scalr.Kind{on}, Role: "www", Target: target, Command: provider.Command{Args: []string{name}}, Timeout: time.Minute}
		}
		config.Hooks = []Hook{
			l.hook("up", HostUp, TheMachine), l.hook("role", HostUp, TheRole), l.hook("down", HostDown, TheMachine),
			l.hook("launched", scalr.Kind(LaunchInstance), TheFarm), l.hook("terminated", Terminated, TheFarm),
			command("config", HostUp, TheMachine), command("reload", HostDown, TheRole), command("hang", HostDown, TheFarm),
			command("nowhere", HostDown, TheMachine),
		}
		events := record(&config)
		f, err := New(spec, config)
		require.NoError(t, err)
		require.NoError(t, passes(t.Context(), f, 20, 2))
		synctest.Wait()
		counts := l.counts()
		require.Equal(t, map[string]int{"up www-1": 1, "up www-2": 1, "up app-1": 1, "role www-1 www-2": 2, "role app-1": 1},
			maps.Collect(func(yield func(string, int) bool) {
				for what, n := range counts {
					if !strings.HasPrefix(what, "launched") && !yield(what, n) {
						return
					}
				}
			}))
		ids := []string{f.Servers("www")[0].ID, f.Servers("www")[1].ID}
		slices.Sort(commands.ran)
		require.Equal(t, []string{
			"config EVENT=host-up EVENT_INDEX=1 EVENT_ROLE=www EVENT_SUBJECT=" + ids[0] + " NAME=www-1",
			"config EVENT=host-up EVENT_INDEX=2 EVENT_ROLE=www EVENT_SUBJECT=" + ids[1] + " NAME=www-2",
		}, commands.list())

		began := time.Now()
		cloud.Kill(ids[0], "power")
		require.NoError(t, passes(t.Context(), f, 20, 2))
		require.Less(t, time.Since(began), time.Minute, "passes wait for no hook")
		time.Sleep(time.Minute)
		synctest.Wait()
		require.Contains(t, commands.list(), "reload EVENT=host-down EVENT_INDEX=1 EVENT_ROLE=www EVENT_SUBJECT="+ids[0]+" NAME=www-2")
		require.Contains(t, strings.Join(commands.list(), "\n"), "hang EVENT=host-down EVENT_INDEX=1 EVENT_ROLE=www EVENT_SUBJECT="+ids[0]+" NAME=www-2")
		require.Contains(t, events.text(), "hook hang failed: it has not ended within 1m0s: ")
		require.Contains(t, events.text(), "hook nowhere failed: the machine is not there: the command was not run")
		require.Contains(t, l.list(), "down", "a machine that is gone is given to nobody")
		require.NoError(t, f.Terminate(t.Context(), TerminateOptions{}))
		require.Contains(t, l.list(), "terminated", "the end waits for what follows it")
	})
}

// The runs of one hook for one target do not overlap; too many that wait are dropped, and told.
func TestHookTakesOneEventAfterAnother(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		spec, config := web(1, 1), testConfig(testCloud(memcloud.Options{}), testZone())
		var l ledger
		config.Hooks = []Hook{{Name: "slow", On: []scalr.Kind{HostDown}, Target: TheRole, Do: func(_ context.Context, e scalr.Event, _ []Server) error {
			_ = l.note("begin " + e.Subject)
			time.Sleep(time.Second)
			_ = l.note("end " + e.Subject)
			return nil
		}}}
		events := record(&config)
		f, err := New(spec, config)
		require.NoError(t, err)
		var want []string
		for i := range hookLine + 5 {
			id := "i-" + strings.Repeat("x", i)
			f.emit(scalr.Event{Time: time.Now(), Kind: HostDown, Role: "www", Index: 1, Subject: id})
			synctest.Wait()
			if i <= hookLine {
				want = append(want, "begin "+id, "end "+id)
			}
		}
		f.hooks.wait()
		require.Equal(t, want, l.list())
		require.Contains(t, events.text(), "hook slow failed: 4 events came while 100 waited for it: it is not run for them")
	})
}

// The runs of hooks end with Run, which waits for them; and Run makes its next pass as soon as a machine is let go.
func TestHooksEndWithRun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		spec, config := web(1, 1), testConfig(testCloud(memcloud.Options{}), testZone())
		config.Interval = time.Hour
		var l ledger
		wait := func(name string, on scalr.Kind, d time.Duration) Hook {
			return Hook{Name: name, On: []scalr.Kind{on}, Timeout: 24 * time.Hour, Do: func(ctx context.Context, _ scalr.Event, _ []Server) error {
				_ = l.note(name + " begins")
				select {
				case <-time.After(d):
					return l.note(name + " is done")
				case <-ctx.Done():
					time.Sleep(time.Second)
					return l.note(name + " ends")
				}
			}}
		}
		config.Hooks = []Hook{wait("deploy", HostStarting, 5*time.Minute), wait("watch", HostUp, 10*time.Hour)}
		f, err := New(spec, config)
		require.NoError(t, err)
		for range 2 {
			ctx, cancel := context.WithCancel(t.Context())
			done := make(chan struct{})
			go func() { defer close(done); _ = f.Run(ctx) }()
			var letGo time.Time
			for len(l.list()) < 3 {
				if time.Sleep(time.Second); letGo.IsZero() && slices.Contains(l.list(), "deploy is done") {
					letGo = time.Now()
				}
			}
			require.True(t, letGo.IsZero() || time.Since(letGo) < 2*time.Second, "the pass comes as soon as the machine is let go")
			require.ElementsMatch(t, []string{"deploy begins", "deploy is done", "watch begins"}, l.list())
			cancel()
			<-done
			require.Equal(t, "watch ends", l.list()[3])
			l.ran = nil
		}
	})
}

// What follows the end of the farm is done before Run returns.
func TestHooksFollowTheEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		spec, config := web(1, 1), testConfig(testCloud(memcloud.Options{}), testZone())
		spec.End = &End{At: time.Now().Add(time.Hour)}
		var l ledger
		config.Hooks = []Hook{{Name: "farewell", On: []scalr.Kind{Terminated}, Do: func(ctx context.Context, _ scalr.Event, _ []Server) error {
			time.Sleep(time.Minute)
			if ctx.Err() != nil {
				return ctx.Err()
			}
			return l.note("farewell")
		}}}
		f, err := New(spec, config)
		require.NoError(t, err)
		require.NoError(t, f.Run(t.Context()))
		require.Equal(t, []string{"farewell"}, l.list())
	})
}
