//go:build linux

package local_test

import (
	"context"
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/scalr-go/scalr/internal/testenv"
	"github.com/scalr-go/scalr/provider"
	"github.com/scalr-go/scalr/provider/local"
)

func TestNewNamesEveryFault(t *testing.T) {
	_, err := local.New(local.Options{
		Prefix: netip.MustParsePrefix("10.0.0.0/8"),
		Quota:  -1,
		Images: map[string]local.Image{"x": {Port: 70000, Grace: -1}},
	})
	for _, want := range []string{"Options.Dir is empty", "Options.Prefix is 10.0.0.0/8", "Options.Quota is -1",
		"Options.Images[x].Command is nil", "Options.Images[x].Port is 70000", "Options.Images[x].Grace is -1ns"} {
		assert.ErrorContains(t, err, want)
	}
	for _, p := range []string{"127.0.0.0/7", "127.1.2.4/31", "::1/128"} {
		_, err := local.New(local.Options{Dir: testenv.Dir(t), Prefix: netip.MustParsePrefix(p)})
		assert.ErrorContains(t, err, "Options.Prefix", p)
	}
}

func TestLaunchRefusesWhatThereIsNot(t *testing.T) {
	c := cloud(t, sleepImage())
	for field, change := range map[string]func(*provider.Launch){
		"Network":        func(l *provider.Launch) { l.Network = "n" },
		"SecurityGroups": func(l *provider.Launch) { l.SecurityGroups = []string{"g"} },
		"KeyPair":        func(l *provider.Launch) { l.KeyPair = "k" },
		"Spot":           func(l *provider.Launch) { l.Spot = true },
		"Placement":      func(l *provider.Launch) { l.Placement = "elsewhere" },
	} {
		l := provider.Launch{Token: "t", Image: "it"}
		change(&l)
		_, err := c.Launch(t.Context(), l)
		assert.ErrorIs(t, err, provider.ErrInvalid)
		assert.ErrorContains(t, err, field)
	}
	_, err := c.Launch(t.Context(), provider.Launch{Token: "t", Image: "it", Volumes: []string{"v-none"}})
	require.ErrorIs(t, err, provider.ErrNotFound)
	all, err := c.Instances(t.Context(), nil)
	require.NoError(t, err)
	assert.Empty(t, all)
}

// A launch that fails leaves nothing, and its token can be used again.
func TestFailedLaunchIsTakenBack(t *testing.T) {
	fault := errors.New("no disk")
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	for name, im := range map[string]local.Image{
		"Prepare":    {Prepare: func(context.Context, local.Machine) error { return fault }, Command: sleepImage().Command},
		"NoProgram":  command("scalr-no-such-program"),
		"NoFile":     command("./nothing"),
		"NoArgument": command(),
		"Context": {Command: sleepImage().Command, Prepare: func(context.Context, local.Machine) error {
			cancel()
			return nil
		}},
	} {
		t.Run(name, func(t *testing.T) {
			c := cloud(t, im)
			v, err := c.CreateVolume(t.Context(), provider.VolumeSpec{Token: "v", SizeGB: 1})
			require.NoError(t, err)
			callCtx := t.Context()
			if name == "Context" {
				callCtx = ctx
			}
			_, err = c.Launch(callCtx, provider.Launch{Token: "t", Image: "it", Volumes: []string{v.ID}})
			switch name {
			case "Prepare":
				require.ErrorIs(t, err, fault)
			case "Context":
				require.ErrorIs(t, err, context.Canceled)
			default:
				require.ErrorIs(t, err, provider.ErrInvalid)
			}
			all, err := c.Instances(t.Context(), nil)
			require.NoError(t, err)
			assert.Empty(t, all)
			left, err := os.ReadDir(filepath.Dir(v.Device))
			require.NoError(t, err)
			assert.Len(t, left, 2, "the volume and the state")
			state, err := os.ReadDir(filepath.Join(filepath.Dir(v.Device), "state"))
			require.NoError(t, err)
			for _, f := range state {
				assert.False(t, strings.HasPrefix(f.Name(), "i-"), f.Name())
			}
			volumes, err := c.Volumes(t.Context(), nil)
			require.NoError(t, err)
			assert.Empty(t, volumes[0].Instance)
		})
	}
}

func TestTerminateDuringPrepare(t *testing.T) {
	preparing, goOn := make(chan string), make(chan bool)
	im := sleepImage()
	im.Prepare = func(_ context.Context, m local.Machine) error {
		preparing <- m.ID
		<-goOn
		return nil
	}
	c := cloud(t, im)
	type result struct {
		i   provider.Instance
		err error
	}
	launched, terminated := make(chan result), make(chan error)
	go func() {
		i, err := c.Launch(t.Context(), provider.Launch{Token: "t", Image: "it"})
		launched <- result{i, err}
	}()
	id := <-preparing
	assert.Equal(t, provider.Pending, find(t, c, id).State)
	assert.Equal(t, id, launch(t, c, "t").ID, "the same launch from elsewhere does not wait")
	go func() { terminated <- c.Terminate(t.Context(), id) }()
	until(t, "it is about to go", func() bool { return find(t, c, id).State == provider.Terminating })
	goOn <- true
	got := <-launched
	require.NoError(t, got.err)
	assert.Equal(t, provider.Terminated, got.i.State)
	require.NoError(t, <-terminated)
	assert.NoDirExists(t, c.Dir(id))
	assert.Empty(t, testenv.Processes(id))
}

func TestEnvironment(t *testing.T) {
	t.Setenv("SCALR_TEST_SECRET", "of the host")
	im := local.Image{Command: func(m local.Machine) local.Command {
		return local.Command{
			Args: []string{"/bin/sh", "-c", `env >env.part; readlink /proc/self/fd/0 >>env.part; mv env.part env; sleep 3600; true`},
			Env:  []string{"OWN=" + string(m.UserData), "SCALR_INSTANCE=forged"},
		}
	}}
	c := cloud(t, im)
	v, err := c.CreateVolume(t.Context(), provider.VolumeSpec{Token: "v", SizeGB: 1})
	require.NoError(t, err)
	i := launch(t, c, "t", func(l *provider.Launch) {
		l.Name, l.UserData, l.Volumes = "db-1", provider.Secret("data"), []string{v.ID}
	})
	file := filepath.Join(c.Dir(i.ID), "env")
	until(t, "it has written", func() bool { _, err := os.Stat(file); return err == nil })
	data, err := os.ReadFile(file)
	require.NoError(t, err)
	for _, want := range []string{"OWN=data", "SCALR_INSTANCE=" + i.ID, "SCALR_NAME=db-1", "SCALR_ADDR=" + i.Private.String(),
		"SCALR_DIR=" + c.Dir(i.ID), "SCALR_VOLUMES=" + v.Device, "HOME=" + c.Dir(i.ID), "PATH=" + os.Getenv("PATH"), "PWD=" + c.Dir(i.ID), "/dev/null"} {
		assert.Contains(t, "\n"+string(data), "\n"+want+"\n")
	}
	assert.NotContains(t, string(data), "of the host")
	st, err := os.Stat(c.Dir(i.ID))
	require.NoError(t, err)
	assert.Equal(t, os.FileMode(0o700), st.Mode().Perm())
	require.NoError(t, filepath.WalkDir(filepath.Join(filepath.Dir(c.Dir(i.ID)), "state"), func(path string, d os.DirEntry, _ error) error {
		st, err := d.Info()
		require.NoError(t, err)
		assert.Zero(t, st.Mode().Perm()&0o077, path)
		return nil
	}))
}

func TestPendingUntilThePortAccepts(t *testing.T) {
	im := local.Image{Port: 8080, Command: func(local.Machine) local.Command {
		return local.Command{Args: []string{"/bin/sh", "-c", `until test -e go; do sleep 0.01; done; exec "$0"`, self()}, Env: []string{"SCALR_TEST_PROGRAM=server"}}
	}}
	c := cloud(t, im)
	i := launch(t, c, "t")
	assert.Equal(t, provider.Pending, i.State)
	assert.Equal(t, provider.Pending, find(t, c, i.ID).State)
	require.NoError(t, os.WriteFile(filepath.Join(c.Dir(i.ID), "go"), nil, 0o600))
	untilState(t, c, i.ID, provider.Running)
	require.NoError(t, os.Remove(filepath.Join(c.Dir(i.ID), "go")))
	require.NoError(t, c.Reboot(t.Context(), i.ID))
	assert.Equal(t, provider.Pending, find(t, c, i.ID).State, "it counts from the last start")
}

func TestGrace(t *testing.T) {
	im := shell(`trap 'echo asked >>"$SCALR_VOLUMES/log"; exit 0' TERM; : >ready; while :; do sleep 0.01; done`)
	im.Grace = time.Minute
	c := cloud(t, im)
	v, err := c.CreateVolume(t.Context(), provider.VolumeSpec{Token: "v", SizeGB: 1})
	require.NoError(t, err)
	i := launch(t, c, "t", func(l *provider.Launch) { l.Volumes = []string{v.ID} })
	until(t, "it has set its trap", func() bool { _, err := os.Stat(filepath.Join(c.Dir(i.ID), "ready")); return err == nil })
	require.NoError(t, c.Terminate(t.Context(), i.ID))
	data, err := os.ReadFile(filepath.Join(v.Device, "log"))
	require.NoError(t, err)
	assert.Equal(t, "asked\n", string(data))
}

func TestStartOfAnUnknownImage(t *testing.T) {
	c := cloud(t, sleepImage())
	i := launch(t, c, "t")
	another := newCloud(t, local.Options{Dir: filepath.Dir(c.Dir(i.ID))})
	require.NoError(t, another.Stop(t.Context(), i.ID))
	require.ErrorIs(t, another.Start(t.Context(), i.ID), provider.ErrInvalid)
	assert.Equal(t, provider.Stopped, find(t, c, i.ID).State)
	require.NoError(t, c.Start(t.Context(), i.ID))
	require.ErrorIs(t, another.Reboot(t.Context(), i.ID), provider.ErrInvalid)
	assert.Equal(t, provider.Running, find(t, another, i.ID).State, "it was not touched")
}

// An ID of another kind is that of nothing: what bears it stays as it is.
func TestIDsHaveKinds(t *testing.T) {
	c := cloud(t, sleepImage())
	i := launch(t, c, "t")
	v, err := c.CreateVolume(t.Context(), provider.VolumeSpec{Token: "v", SizeGB: 1})
	require.NoError(t, err)
	s, err := c.CreateSnapshot(t.Context(), provider.SnapshotSpec{Token: "s", Volume: v.ID})
	require.NoError(t, err)
	ctx, cancel := testContext(t)
	defer cancel()
	for _, id := range []string{v.ID, s.ID} {
		assert.NoError(t, c.Terminate(ctx, id))
		assert.NoError(t, c.Stop(ctx, id))
		assert.ErrorIs(t, c.Start(ctx, id), provider.ErrNotFound)
		assert.ErrorIs(t, c.AttachVolume(ctx, v.ID, id), provider.ErrNotFound)
	}
	for _, id := range []string{i.ID, s.ID} {
		assert.NoError(t, c.DeleteVolume(ctx, id))
		assert.ErrorIs(t, c.AttachVolume(ctx, id, i.ID), provider.ErrNotFound)
		assert.ErrorIs(t, c.DetachVolume(ctx, id), provider.ErrNotFound)
	}
	for _, id := range []string{i.ID, v.ID} {
		assert.NoError(t, c.DeleteSnapshot(ctx, id))
	}
	for _, id := range []string{i.ID, v.ID, s.ID} {
		assert.DirExists(t, c.Dir(id))
	}
	volumes, err := c.Volumes(ctx, nil)
	require.NoError(t, err)
	require.Len(t, volumes, 1)
	assert.Equal(t, v.SizeGB, volumes[0].SizeGB)
	snapshots, err := c.Snapshots(ctx, nil)
	require.NoError(t, err)
	require.Len(t, snapshots, 1)
	assert.Equal(t, v.ID, snapshots[0].Volume)
	assert.Equal(t, provider.Running, find(t, c, i.ID).State)
	assert.NotEmpty(t, testenv.Processes(i.ID))
}

func TestIDsAreNoPaths(t *testing.T) {
	c := cloud(t, sleepImage())
	const id = "../../etc"
	require.NoError(t, c.Terminate(t.Context(), id))
	require.NoError(t, c.Stop(t.Context(), id))
	require.NoError(t, c.DeleteVolume(t.Context(), id))
	require.NoError(t, c.DeleteSnapshot(t.Context(), id))
	require.ErrorIs(t, c.Start(t.Context(), id), provider.ErrNotFound)
	require.ErrorIs(t, c.DetachVolume(t.Context(), id), provider.ErrNotFound)
	require.ErrorIs(t, c.AttachVolume(t.Context(), id, id), provider.ErrNotFound)
	require.ErrorIs(t, c.Signal(t.Context(), id, os.Kill), provider.ErrNotFound)
	_, err := c.RunCommand(t.Context(), id, provider.Command{Args: []string{"true"}})
	require.ErrorIs(t, err, provider.ErrNotFound)
	_, err = c.CreateSnapshot(t.Context(), provider.SnapshotSpec{Token: "t", Volume: id})
	require.ErrorIs(t, err, provider.ErrNotFound)
}
