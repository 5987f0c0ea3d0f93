//go:build linux

package local_test

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"net/netip"
	"os"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/scalr-go/scalr/internal/testenv"
	"github.com/scalr-go/scalr/provider"
	"github.com/scalr-go/scalr/provider/local"
)

// Whatever several callers do at once, with two clouds in one directory: in the end each instance is what its processes
// are, there is one for each token, and terminating them leaves nothing.
func TestAnythingAtOnce(t *testing.T) {
	checks := flag.Lookup("rapid.checks")
	was := checks.Value.String()
	require.NoError(t, checks.Value.Set("10")) // each one takes up to half a second
	defer checks.Value.Set(was)

	type op struct{ what, who string }
	ops := rapid.Custom(func(t *rapid.T) op {
		return op{
			rapid.SampledFrom([]string{"Launch", "Launch", "Launch", "Terminate", "Stop", "Start", "Reboot", "Crash", "Snapshot", "Impatient"}).Draw(t, "what"),
			rapid.SampledFrom([]string{"a", "b"}).Draw(t, "who"),
		}
	})
	rapid.Check(t, func(rt *rapid.T) {
		scripts := rapid.SliceOfN(rapid.SliceOfN(ops, 1, 8), 3, 3).Draw(rt, "scripts")
		dir := testenv.Dir(t)
		var clouds []*local.Cloud
		defer func() { // also if the check fails
			all, _ := clouds[0].Instances(context.Background(), nil)
			for _, i := range all {
				clouds[0].Terminate(context.Background(), i.ID)
			}
			os.RemoveAll(dir)
		}()
		for range 2 {
			c, err := local.New(local.Options{Dir: dir, Images: map[string]local.Image{"it": sleepImage()}})
			if err != nil {
				rt.Fatal(err)
			}
			clouds = append(clouds, c)
		}
		volumes := map[string]string{}
		for _, who := range []string{"a", "b"} {
			v, err := clouds[0].CreateVolume(t.Context(), provider.VolumeSpec{Token: who, SizeGB: 1})
			if err != nil {
				rt.Fatal(err)
			}
			volumes[who] = v.ID
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		do := func(c *local.Cloud, n int, o op) error {
			l := provider.Launch{Token: o.who, Name: o.who, Image: "it", Volumes: []string{volumes[o.who]}}
			all, err := c.Instances(ctx, nil)
			if err != nil {
				return err
			}
			id := "i-none"
			for _, i := range all {
				if i.Name == o.who {
					id = i.ID
				}
			}
			switch o.what {
			case "Launch":
				_, err = c.Launch(ctx, l)
			case "Impatient":
				ctx, cancel := context.WithTimeout(ctx, time.Duration(n)*5*time.Millisecond)
				defer cancel()
				if _, err = c.Launch(ctx, l); errors.Is(err, context.DeadlineExceeded) {
					err = nil
				}
			case "Terminate":
				err = c.Terminate(ctx, id)
			case "Stop":
				err = c.Stop(ctx, id)
			case "Start":
				err = c.Start(ctx, id)
			case "Reboot":
				err = c.Reboot(ctx, id)
			case "Crash":
				if err = c.Signal(ctx, id, syscall.SIGKILL); err != nil && strings.Contains(err.Error(), "no process") {
					err = nil
				}
			case "Snapshot":
				_, err = c.CreateSnapshot(ctx, provider.SnapshotSpec{Token: fmt.Sprint(n), Volume: volumes[o.who]})
				if errors.Is(err, provider.ErrInvalid) {
					err = nil // another one has used the token
				}
			}
			// What another caller did at once may have overruled this one.
			if errors.Is(err, provider.ErrNotFound) || err != nil && strings.Contains(err.Error(), "meanwhile") {
				err = nil
			}
			return err
		}
		errs := make([]error, len(scripts))
		var wg sync.WaitGroup
		for s, script := range scripts {
			wg.Go(func() {
				for n, o := range script {
					if err := do(clouds[s%2], n, o); err != nil {
						errs[s] = errors.Join(errs[s], fmt.Errorf("%s %s: %w", o.what, o.who, err))
					}
				}
			})
		}
		wg.Wait()
		if err := errors.Join(errs...); err != nil {
			rt.Fatal(err)
		}
		// A supervisor outlives a crash of its program by a moment.
		var all []provider.Instance
		var err error
		for range 500 {
			if all, err = clouds[0].Instances(ctx, nil); err == nil {
				err = consistent(all)
			}
			if err == nil {
				break
			}
			time.Sleep(10 * time.Millisecond)
		}
		if err != nil {
			rt.Fatal(err)
		}
		for _, i := range all {
			if err := clouds[1].Terminate(ctx, i.ID); err != nil {
				rt.Fatal(err)
			}
			if p := testenv.Processes(i.ID); len(p) > 0 {
				rt.Fatalf("%s was terminated and has %s", i, p)
			}
		}
	})
}

// consistent says what is wrong with a list.
func consistent(all []provider.Instance) error {
	names, addrs := map[string]bool{}, map[netip.Addr]bool{}
	for _, i := range all {
		if names[i.Name] || addrs[i.Private] {
			return fmt.Errorf("doubled: %s", all)
		}
		names[i.Name], addrs[i.Private] = true, true
		processes := testenv.Processes(i.ID)
		switch i.State {
		case provider.Running:
			if len(processes) == 0 {
				return fmt.Errorf("%s has no process", i)
			}
		case provider.Stopped, provider.Failed, provider.Terminated:
			if len(processes) > 0 {
				return fmt.Errorf("%s %s has %s", i, i.Reason, processes)
			}
		default:
			return fmt.Errorf("%s, and nobody is at work on it", i)
		}
	}
	return nil
}
