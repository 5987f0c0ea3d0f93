//go:build linux

package local_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/scalr-go/scalr/internal/testenv"
	"github.com/scalr-go/scalr/provider"
	"github.com/scalr-go/scalr/provider/local"
)

// hostImage is what the host program and the tests have in common. Its preparation dies half-way if it is told to.
func hostImage(die func(string)) local.Image {
	return local.Image{
		Prepare: func(_ context.Context, m local.Machine) error {
			f, err := os.OpenFile(filepath.Join(m.Dir, "prepared"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
			if err != nil {
				return err
			}
			defer f.Close()
			fmt.Fprint(f, "half ")
			die("preparing")
			_, err = fmt.Fprint(f, "whole")
			return err
		},
		Command: func(m local.Machine) local.Command {
			return local.Command{Args: []string{"/bin/sh", "-c", `cat prepared >>runs; sleep 3600; true`, m.ID}}
		},
	}
}

// host does one thing to the cloud in a directory, and dies at one step of it.
func host() {
	passed := map[string]int{}
	die := func(step string) { // at "step", or for the second time at "step 2"
		passed[step]++
		if step == os.Getenv("DIE") || fmt.Sprint(step, " ", passed[step]) == os.Getenv("DIE") {
			syscall.Kill(os.Getpid(), syscall.SIGKILL)
			select {}
		}
	}
	c, err := local.New(local.Options{Dir: os.Getenv("DIR"), Images: map[string]local.Image{"it": hostImage(die)}})
	if err != nil {
		panic(err)
	}
	c.SetStep(die)
	ctx, id, other := context.Background(), os.Getenv("ID"), os.Getenv("OTHER")
	switch os.Getenv("DO") {
	case "Launch":
		_, err = c.Launch(ctx, crashLaunch)
	case "Terminate":
		err = c.Terminate(ctx, id)
	case "Stop":
		err = c.Stop(ctx, id)
	case "Reboot":
		err = c.Reboot(ctx, id)
	case "CreateSnapshot":
		_, err = c.CreateSnapshot(ctx, provider.SnapshotSpec{Token: "t", Volume: id})
	case "CreateVolume":
		size, _ := strconv.Atoi(os.Getenv("SIZE"))
		_, err = c.CreateVolume(ctx, provider.VolumeSpec{Token: "copy", Snapshot: id, SizeGB: size})
	case "DeleteVolume":
		err = c.DeleteVolume(ctx, id)
	case "CreateBalancer":
		_, err = c.CreateBalancer(ctx, httpSpec)
	case "RegisterTarget":
		err = c.RegisterTarget(ctx, id, other)
	case "DeregisterTarget":
		err = c.DeregisterTarget(ctx, id, other)
	case "DeleteBalancer":
		err = c.DeleteBalancer(ctx, id)
	}
	fmt.Println("did it:", err)
}

var crashLaunch = provider.Launch{Token: "t", Name: "crash", Image: "it", UserData: provider.Secret("secret"), Tags: map[string]string{"a": "b"}}

// dies lets a host program die at a step.
func dies(t *testing.T, dir, do, id, step string, env ...string) {
	t.Helper()
	out, state := runHost(t, "host", append(env, "DIR="+dir, "DO="+do, "ID="+id, "DIE="+step)...)
	require.True(t, killedBy9(state), "the host did not die at %s of %s: %s %s", step, do, state, out)
}

// crashCloud is the cloud that host programs die on.
func crashCloud(t *testing.T) (*local.Cloud, string) {
	c := cloud(t, hostImage(func(string) {}))
	return c, filepath.Dir(c.Dir("x"))
}

var launchSteps = []string{"intended", "preparing", "prepared", "spawned", "marked", "recorded", "started"}

func TestLaunchIsResumedAfterACrash(t *testing.T) {
	for _, step := range launchSteps {
		t.Run(step, func(t *testing.T) {
			c, dir := crashCloud(t)
			dies(t, dir, "Launch", "", step)

			all, err := c.Instances(t.Context(), nil)
			require.NoError(t, err)
			require.Len(t, all, 1, "what was intended is seen")
			was := all[0]
			assert.Equal(t, crashLaunch.Tags, was.Tags)
			if step == "started" {
				was = untilState(t, c, was.ID, provider.Running)
			} else {
				until(t, "the supervisor ends without its host", func() bool { return len(testenv.Processes(was.ID)) == 0 })
				was = untilState(t, c, was.ID, provider.Failed)
				assert.Equal(t, "the program that launched it ended before it had started", was.Reason)
				assert.NoFileExists(t, filepath.Join(c.Dir(was.ID), "runs"), "the program has not run")
			}

			i, err := c.Launch(t.Context(), crashLaunch)
			require.NoError(t, err)
			assert.Equal(t, was.ID, i.ID, "the token meets the instance")
			assert.Equal(t, was.Private, i.Private)
			assert.Equal(t, provider.Running, i.State)
			until(t, "the program runs", func() bool {
				runs, _ := os.ReadFile(filepath.Join(c.Dir(i.ID), "runs"))
				return string(runs) == "half whole"
			})
			until(t, "it runs once", func() bool { return len(withArgument(i.ID)) == 1 }) // and not only between fork and exec
			require.NoError(t, c.Terminate(t.Context(), i.ID))
			nothingLeft(t, c, i.ID)
		})
	}
}

func TestTerminateAfterACrashedLaunch(t *testing.T) {
	for _, step := range launchSteps {
		t.Run(step, func(t *testing.T) {
			c, dir := crashCloud(t)
			dies(t, dir, "Launch", "", step)
			all, err := c.Instances(t.Context(), nil)
			require.NoError(t, err)
			require.Len(t, all, 1)
			require.NoError(t, c.Terminate(t.Context(), all[0].ID))
			nothingLeft(t, c, all[0].ID)
		})
	}
}

func TestCrashOfWhoTerminates(t *testing.T) {
	for _, step := range []string{"terminating", "killed", "removed"} {
		t.Run(step, func(t *testing.T) {
			c, dir := crashCloud(t)
			i, err := c.Launch(t.Context(), crashLaunch)
			require.NoError(t, err)
			dies(t, dir, "Terminate", i.ID, step)
			untilState(t, c, i.ID, provider.Terminated) // a list completes it
			nothingLeft(t, c, i.ID)
		})
	}
}

func TestCrashOfWhoStops(t *testing.T) {
	c, dir := crashCloud(t)
	i, err := c.Launch(t.Context(), crashLaunch)
	require.NoError(t, err)
	dies(t, dir, "Stop", i.ID, "stopping")
	assert.Equal(t, provider.Stopped, find(t, c, i.ID).State)
	assert.Empty(t, testenv.Processes(i.ID), "a list completes it")
	require.NoError(t, c.Start(t.Context(), i.ID))
	untilState(t, c, i.ID, provider.Running)
}

func TestCrashOfWhoReboots(t *testing.T) {
	for _, step := range []string{"prepared", "spawned", "recorded", "started"} {
		t.Run(step, func(t *testing.T) {
			c, dir := crashCloud(t)
			i, err := c.Launch(t.Context(), crashLaunch)
			require.NoError(t, err)
			dies(t, dir, "Reboot", i.ID, step)
			require.NoError(t, c.Start(t.Context(), i.ID))
			until(t, "it runs once", func() bool { return len(withArgument(i.ID)) == 1 })
			assert.Equal(t, provider.Running, find(t, c, i.ID).State)
		})
	}
}

// nothingLeft checks that a terminated instance has left nothing but its record.
func nothingLeft(t *testing.T, c *local.Cloud, id string) {
	t.Helper()
	assert.Equal(t, provider.Terminated, find(t, c, id).State)
	assert.Empty(t, testenv.Processes(id))
	assert.Empty(t, withArgument(id))
	assert.NoDirExists(t, c.Dir(id))
	record, err := os.ReadFile(filepath.Join(filepath.Dir(c.Dir(id)), "state", id+".json"))
	require.NoError(t, err)
	assert.False(t, strings.Contains(string(record), "c2VjcmV0"), "the user data is forgotten") // base64 of "secret"
}

func TestSignalWaitsForTheProgram(t *testing.T) {
	c := cloud(t, sleepImage())
	signalled := make(chan error, 1)
	c.SetStep(func(step string) {
		if step == "recorded" {
			all, err := c.Instances(t.Context(), nil)
			assert.NoError(t, err)
			go func() { signalled <- c.Signal(t.Context(), all[0].ID, syscall.SIGKILL) }()
		}
	})
	i := launch(t, c, "t")
	require.NoError(t, <-signalled)
	assert.Equal(t, "killed by signal 9", untilState(t, c, i.ID, provider.Failed).Reason)
}
