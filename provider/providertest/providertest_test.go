package providertest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/scalr-go/scalr/provider"
	"github.com/scalr-go/scalr/provider/memcloud"
)

// slow is a cloud with every delay that there is.
var slow = memcloud.Options{
	BootTime: 30 * time.Second, BootSpread: 30 * time.Second, ReadyTime: 10 * time.Second, TerminateTime: 20 * time.Second,
	TerminatedLinger: time.Hour, ListLag: 5 * time.Second, Latency: 100 * time.Millisecond,
}

// world is a cloud in memory with machines that can be looked at.
type world struct {
	*memcloud.Cloud
	mu    sync.Mutex
	alive map[string]bool
	shell fakeShell
}

func newWorld(o memcloud.Options) *world {
	w := &world{alive: map[string]bool{}}
	o.Placements, o.Sizes, o.Images = []string{"a", "b"}, []string{"small", "large"}, []string{"debian"}
	o.Command = w.shell.run
	o.OnState = func(i provider.Instance) {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.alive[i.ID] = i.State == provider.Running || i.State == provider.Terminating
	}
	w.Cloud = memcloud.New(o)
	return w
}

func (w *world) subject() Subject {
	return Subject{
		Provider:       w.Cloud,
		Another:        func() provider.Provider { return w.Cloud },
		Launch:         provider.Launch{Image: "debian", Size: "large", Placement: "a", UserData: provider.Secret("#!/bin/sh")},
		OtherPlacement: "b",
		Wait:           5 * time.Minute,
		Alive: func(i provider.Instance) bool {
			w.mu.Lock()
			defer w.mu.Unlock()
			return w.alive[i.ID]
		},
		Write: func(_ context.Context, _ provider.Instance, v provider.Volume, data string) error {
			return w.SetContent(v.ID, data)
		},
		Read: func(_ context.Context, _ provider.Instance, v provider.Volume) (string, error) {
			return w.Content(v.ID), nil
		},
	}
}

func TestACloudWithEveryDelayKeepsTheRules(t *testing.T) {
	options := map[string]memcloud.Options{"slow": slow, "late volumes": slow, "no linger": slow, "instant": {}}
	late, brief := slow, slow
	late.LateVolumes, brief.TerminatedLinger = true, 0
	options["late volumes"], options["no linger"] = late, brief
	faulty := slow
	faulty.Fault = unreliable(0)
	options["faulty"] = faulty
	for name, o := range options {
		for _, c := range cases() {
			t.Run(name+"/"+c.name, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					w := newWorld(o)
					foreign := func() memcloud.World { return w.World(map[string]string{"owner": "somebody else"}) }
					w.CreateForeign(map[string]string{"owner": "somebody else"})
					before := foreign()
					s := w.subject()
					s.Faulty = name == "faulty"
					runCase(t, c, s)
					require.Equal(t, before, foreign(), "the suite touches only what it has made")
					require.Equal(t, before.Len(), w.World(nil).Len(), "the suite leaves nothing behind")
				})
			})
		}
	}
}

// unreliable fails one call in ten or so in each of four ways.
func unreliable(seed uint64) memcloud.Fault {
	return func(_ context.Context, c memcloud.Call) error {
		switch n := rand.New(rand.NewPCG(seed, uint64(c.Seq))).IntN(40); {
		case c.After && n < 4:
			return errors.New("connection reset")
		case c.After || n < 4:
			return nil
		case n < 8:
			return errors.New("connection refused")
		case n < 12:
			return provider.ErrThrottled
		case n < 16:
			return provider.ErrAmbiguous
		}
		return nil
	}
}

// recorder notes what a case finds.
type recorder struct {
	ctx      context.Context
	mu       sync.Mutex
	failures []string
	skipped  string
}

func (r *recorder) Helper()                  {}
func (r *recorder) Failed() bool             { return len(r.failures) > 0 }
func (r *recorder) Context() context.Context { return r.ctx }
func (r *recorder) Logf(string, ...any)      {}
func (r *recorder) Errorf(format string, args ...any) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.failures = append(r.failures, fmt.Sprintf(format, args...))
}
func (r *recorder) Fatalf(format string, args ...any) {
	r.Errorf(format, args...)
	runtime.Goexit()
}
func (r *recorder) Skipf(format string, args ...any) {
	r.skipped = fmt.Sprintf(format, args...)
	runtime.Goexit()
}

// record runs a case in a bubble and gives what it found.
func record(t *testing.T, name string, subject func() Subject) *recorder {
	all := cases()
	n := slices.IndexFunc(all, func(c testCase) bool { return c.name == name })
	require.GreaterOrEqual(t, n, 0, "there is no case %s", name)
	r := &recorder{}
	synctest.Test(t, func(t *testing.T) {
		r.ctx = t.Context()
		done := make(chan struct{})
		go func() {
			defer close(done)
			runCase(r, all[n], subject())
		}()
		<-done
		time.Sleep(100 * time.Hour) // for what a broken provider has left running
	})
	return r
}

func TestMisuseIsNamed(t *testing.T) {
	for _, c := range []struct {
		change func(*Subject)
		want   string
	}{
		{func(s *Subject) { s.Provider = nil }, "Subject.Provider"},
		{func(s *Subject) { s.Launch.Image = "" }, "Subject.Launch.Image"},
		{func(s *Subject) { s.Unchecked = map[string]string{"Launch/Walk": "x"} }, "Launch/Walk"},
	} {
		r := record(t, "Launch/Run", func() Subject {
			s := newWorld(slow).subject()
			c.change(&s)
			return s
		})
		require.Len(t, r.failures, 1)
		require.Contains(t, r.failures[0], c.want)
	}
}

func TestACaseCanBeLeftOut(t *testing.T) {
	r := record(t, "Launch/Run", func() Subject {
		s := newWorld(slow).subject()
		s.Unchecked = map[string]string{"Launch/Run": "it costs too much"}
		return s
	})
	require.Contains(t, r.skipped, "it costs too much")
	type bare struct{ provider.Provider }
	for _, c := range cases() {
		r := record(t, c.name, func() Subject {
			s := newWorld(slow).subject()
			s.Provider = bare{s.Provider}
			return s
		})
		require.Empty(t, r.failures)
		group, _, _ := strings.Cut(c.name, "/")
		require.Equal(t, !slices.Contains([]string{"Instances", "Launch", "Terminate"}, group), r.skipped != "", c.name)
	}
}

// fakeShell runs the programs that the suite runs, in virtual time.
type fakeShell struct {
	mu     sync.Mutex
	pids   map[string]int // by file
	alive  map[int]bool   // children
	orphan bool           // leaves children alive
}

func (f *fakeShell) run(ctx context.Context, _ provider.Instance, c provider.Command) (provider.CommandResult, error) {
	if c.Args != nil && c.Args[len(c.Args)-1] == "true" {
		return provider.CommandResult{}, nil
	}
	var input []byte
	if c.Stdin != nil { // all that reads its input is cat
		to := c.Stdout
		var kept bytes.Buffer
		if to == nil {
			to = &kept
		}
		done := make(chan error, 1)
		go func() {
			_, err := io.Copy(to, c.Stdin)
			done <- err
		}()
		select {
		case err := <-done:
			if err != nil {
				return provider.CommandResult{}, err
			}
		case <-ctx.Done():
			return provider.CommandResult{}, ctx.Err()
		}
		input = kept.Bytes()
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.pids == nil {
		f.pids, f.alive = map[string]int{}, map[int]bool{}
	}
	result := func(exit int, output string) (provider.CommandResult, error) {
		return provider.CommandResult{Exit: exit, Output: []byte(output)}, nil
	}
	truth := func(ok bool) (provider.CommandResult, error) {
		if ok {
			return result(0, "")
		}
		return result(1, "")
	}
	switch c.Args[0] {
	case "echo":
		return result(0, strings.Join(c.Args[1:], " ")+"\n")
	case "cat":
		return result(0, string(input))
	case "rm":
		delete(f.pids, c.Args[2])
		return result(0, "")
	case "sh":
		switch script := c.Args[2]; {
		case strings.HasPrefix(script, "echo \"$SCALR_TEST\""):
			_, value, _ := strings.Cut(c.Env[0], "=")
			return result(0, value+"\n")
		case strings.HasPrefix(script, "cat; "):
			return result(0, "done\n")
		case strings.HasPrefix(script, "cat >"):
			f.pids[c.Args[3]] = 1
			return result(0, "")
		case strings.HasPrefix(script, "! test -e"):
			return truth(f.pids[c.Args[3]] == 0)
		case script == "exit 3":
			return result(3, "")
		case script == "kill -9 $$":
			return result(-1, "")
		case strings.HasPrefix(script, "echo err"):
			return result(0, "out\nerr\n")
		case strings.HasPrefix(script, "dd "):
			return result(0, strings.Repeat("\x00", 1<<20)+"err\n")
		case strings.HasPrefix(script, "sleep 3600 &"):
			pid := len(f.pids) + 1
			f.pids[c.Args[3]], f.alive[pid] = pid, true
			f.mu.Unlock()
			<-ctx.Done()
			f.mu.Lock()
			f.alive[pid] = f.orphan
			return provider.CommandResult{}, ctx.Err()
		case strings.HasPrefix(script, "test -s"):
			return truth(f.pids[c.Args[3]] != 0)
		case strings.HasPrefix(script, "! kill -0"):
			return truth(!f.alive[f.pids[c.Args[3]]])
		}
	}
	return provider.CommandResult{}, fmt.Errorf("%q is no program", c.Args[0])
}
