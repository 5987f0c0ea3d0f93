//go:build linux

package local_test

import (
	"context"
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/scalr-go/scalr/internal/testenv"
	"github.com/scalr-go/scalr/provider"
	"github.com/scalr-go/scalr/provider/local"
)

// writer writes ever larger numbers to two files in turn, as a database writes its log before its data.
func writer() {
	var files [2]*os.File
	for n, name := range []string{"a", "z"} {
		f, err := os.OpenFile(filepath.Join(os.Getenv("SCALR_VOLUMES"), name), os.O_CREATE|os.O_RDWR, 0o600)
		if err != nil {
			panic(err)
		}
		files[n] = f
	}
	for n := uint64(1); ; n++ {
		for _, f := range files {
			if _, err := f.WriteAt(binary.BigEndian.AppendUint64(nil, n), 0); err != nil {
				panic(err)
			}
		}
	}
}

func readNumber(t *testing.T, path string) uint64 {
	data, err := os.ReadFile(path)
	if err != nil || len(data) < 8 {
		return 0
	}
	return binary.BigEndian.Uint64(data)
}

// writerCloud is a cloud whose one instance runs writer on a volume that takes a while to copy between the two files.
func writerCloud(t *testing.T) (c *local.Cloud, i provider.Instance, v provider.Volume) {
	c = cloud(t, local.Image{Command: program("writer")})
	v, err := c.CreateVolume(t.Context(), provider.VolumeSpec{Token: "v", SizeGB: 1})
	require.NoError(t, err)
	for n := range 4 {
		require.NoError(t, os.WriteFile(filepath.Join(v.Device, fmt.Sprint("m", n)), make([]byte, 8<<20), 0o600))
	}
	i = launch(t, c, "i", func(l *provider.Launch) { l.Volumes = []string{v.ID} })
	progresses(t, v)
	return c, i, v
}

// progresses waits until the writer has written on.
func progresses(t *testing.T, v provider.Volume) {
	t.Helper()
	n := readNumber(t, filepath.Join(v.Device, "z"))
	until(t, "the writer writes", func() bool { return readNumber(t, filepath.Join(v.Device, "z")) > n+100 })
}

func TestSnapshotIsOfOneInstant(t *testing.T) {
	c, _, v := writerCloud(t)
	for n := range 3 {
		s, err := c.CreateSnapshot(t.Context(), provider.SnapshotSpec{Token: fmt.Sprint("s", n), Volume: v.ID})
		require.NoError(t, err)
		a, z := readNumber(t, filepath.Join(c.Dir(s.ID), "a")), readNumber(t, filepath.Join(c.Dir(s.ID), "z"))
		assert.Positive(t, z)
		assert.Contains(t, []uint64{z, z + 1}, a, "the first file is at most one ahead of the second")
		progresses(t, v)
	}
}

// Programs that fork all the time stand still all the same, though a parent waits for a vfork without being stopped.
func TestSnapshotOfForkingPrograms(t *testing.T) {
	c := cloud(t, shell(`cd "$SCALR_VOLUMES"; for n in 1 2 3 4; do while :; do /bin/true; echo x >>a$n; echo x >>z$n; done & done; wait; true`))
	v, err := c.CreateVolume(t.Context(), provider.VolumeSpec{Token: "v", SizeGB: 1})
	require.NoError(t, err)
	i := launch(t, c, "i", func(l *provider.Launch) { l.Volumes = []string{v.ID} })
	until(t, "all have begun", func() bool { _, err := os.Stat(filepath.Join(v.Device, "z4")); return err == nil })
	for k := range 12 {
		s, err := c.CreateSnapshot(t.Context(), provider.SnapshotSpec{Token: fmt.Sprint("s", k), Volume: v.ID})
		require.NoError(t, err)
		for n := range 4 {
			a, _ := os.ReadFile(filepath.Join(c.Dir(s.ID), fmt.Sprint("a", n+1)))
			z, _ := os.ReadFile(filepath.Join(c.Dir(s.ID), fmt.Sprint("z", n+1)))
			assert.Contains(t, []int{len(z), len(z) + 2}, len(a))
		}
	}
	assert.Equal(t, provider.Running, find(t, c, i.ID).State)
}

func TestSnapshotLeavesTheHungHanging(t *testing.T) {
	c, i, v := writerCloud(t)
	require.NoError(t, c.Signal(t.Context(), i.ID, syscall.SIGSTOP))
	require.Contains(t, states(i.ID), "T")
	_, err := c.CreateSnapshot(t.Context(), provider.SnapshotSpec{Token: "s", Volume: v.ID})
	require.NoError(t, err)
	assert.Contains(t, states(i.ID), "T")
	require.NoError(t, c.Signal(t.Context(), i.ID, syscall.SIGCONT))
	progresses(t, v)
}

// While a snapshot is taken, nothing can begin to write to the volume, but what writes can be stopped.
func TestSnapshotHoldsTheVolume(t *testing.T) {
	c, i, v := writerCloud(t)
	other := launch(t, c, "other", func(l *provider.Launch) { l.Image = "it" })
	during := func(f func(ctx context.Context)) {
		c.SetStep(func(step string) {
			if step == "frozen" {
				c.SetStep(func(string) {})
				ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
				defer cancel()
				f(ctx)
			}
		})
	}
	during(func(ctx context.Context) {
		require.ErrorIs(t, c.Reboot(ctx, i.ID), context.DeadlineExceeded)
		require.NoError(t, c.Stop(t.Context(), i.ID))
		require.Empty(t, states(i.ID))
		ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
		defer cancel()
		require.ErrorIs(t, c.Start(ctx, i.ID), context.DeadlineExceeded)
	})
	_, err := c.CreateSnapshot(t.Context(), provider.SnapshotSpec{Token: "attached", Volume: v.ID})
	require.NoError(t, err)

	require.NoError(t, c.DetachVolume(t.Context(), v.ID))
	during(func(ctx context.Context) {
		require.ErrorIs(t, c.AttachVolume(ctx, v.ID, other.ID), context.DeadlineExceeded)
	})
	_, err = c.CreateSnapshot(t.Context(), provider.SnapshotSpec{Token: "free", Volume: v.ID})
	require.NoError(t, err)
	during(func(ctx context.Context) {
		_, err := c.Launch(ctx, provider.Launch{Token: "late", Image: "it", Volumes: []string{v.ID}})
		require.ErrorIs(t, err, context.DeadlineExceeded)
	})
	_, err = c.CreateSnapshot(t.Context(), provider.SnapshotSpec{Token: "free-again", Volume: v.ID})
	require.NoError(t, err)

	// Nor can a snapshot begin while something is about to write.
	c.SetStep(func(step string) {
		if step == "spawned" {
			ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
			defer cancel()
			_, err := c.CreateSnapshot(ctx, provider.SnapshotSpec{Token: "during-boot", Volume: v.ID})
			require.ErrorIs(t, err, context.DeadlineExceeded)
		}
	})
	require.NoError(t, c.Terminate(t.Context(), i.ID))
	i = launch(t, c, "next", func(l *provider.Launch) { l.Volumes = []string{v.ID} })
	c.SetStep(func(string) {})
	progresses(t, v)

	// A command that begins meanwhile waits for the snapshot, as the machine does.
	during(func(ctx context.Context) {
		_, err := c.RunCommand(ctx, i.ID, provider.Command{Args: []string{"true"}})
		require.ErrorIs(t, err, context.DeadlineExceeded)
	})
	_, err = c.CreateSnapshot(t.Context(), provider.SnapshotSpec{Token: "command", Volume: v.ID})
	require.NoError(t, err)
}

func TestCrashOfWhoTakesASnapshot(t *testing.T) {
	c, i, v := writerCloud(t)
	dies(t, filepath.Dir(c.Dir(i.ID)), "CreateSnapshot", v.ID, "frozen")
	until(t, "the processes go on by themselves", func() bool { return !strings.Contains(states(i.ID), "T") })
	progresses(t, v)
	all, err := c.Snapshots(t.Context(), nil)
	require.NoError(t, err)
	require.Len(t, all, 1)
	assert.False(t, all[0].Ready)
	_, err = c.CreateVolume(t.Context(), provider.VolumeSpec{Token: "early", Snapshot: all[0].ID})
	require.ErrorContains(t, err, "not ready yet")

	s, err := c.CreateSnapshot(t.Context(), provider.SnapshotSpec{Token: "t", Volume: v.ID})
	require.NoError(t, err)
	assert.Equal(t, all[0].ID, s.ID)
	assert.True(t, s.Ready)
	dies(t, filepath.Dir(c.Dir(i.ID)), "CreateVolume", s.ID, "filled")
	volumes, err := c.Volumes(t.Context(), nil)
	require.NoError(t, err)
	require.Len(t, volumes, 2)
	w, err := c.CreateVolume(t.Context(), provider.VolumeSpec{Token: "copy", Snapshot: s.ID})
	require.NoError(t, err)
	assert.True(t, w.Ready)
	volumes, err = c.Volumes(t.Context(), nil)
	require.NoError(t, err)
	assert.Len(t, volumes, 2)
	assert.Equal(t, readNumber(t, filepath.Join(c.Dir(s.ID), "a")), readNumber(t, filepath.Join(w.Device, "a")))
}

// Whoever finds a volume in a list waits until it is ready: a list completes what nobody is at work on, since nobody else may.
func TestCrashOfWhoMakesAVolume(t *testing.T) {
	c, dir := crashCloud(t)
	dies(t, dir, "CreateVolume", "", "filled", "SIZE=1")
	all, err := c.Volumes(t.Context(), nil)
	require.NoError(t, err)
	require.Len(t, all, 1)
	assert.True(t, all[0].Ready)
	again, err := c.CreateVolume(t.Context(), provider.VolumeSpec{Token: "copy", SizeGB: 1})
	require.NoError(t, err)
	assert.Equal(t, all[0].ID, again.ID)
	require.NoError(t, os.WriteFile(filepath.Join(again.Device, "data"), nil, 0o600))

	dies(t, dir, "DeleteVolume", again.ID, "deleting")
	all, err = c.Volumes(t.Context(), nil)
	require.NoError(t, err)
	assert.Empty(t, all)
	assert.NoDirExists(t, again.Device)
}

func TestVolumeIsTakenBackWhereItCannotBeCompleted(t *testing.T) {
	c, dir := crashCloud(t)
	v, err := c.CreateVolume(t.Context(), provider.VolumeSpec{Token: "v", SizeGB: 1})
	require.NoError(t, err)
	s, err := c.CreateSnapshot(t.Context(), provider.SnapshotSpec{Token: "s", Volume: v.ID})
	require.NoError(t, err)
	dies(t, dir, "CreateVolume", s.ID, "filled")
	require.NoError(t, c.DeleteSnapshot(t.Context(), s.ID))
	all, err := c.Volumes(t.Context(), nil)
	require.NoError(t, err)
	require.Len(t, all, 1)
	assert.Equal(t, v.ID, all[0].ID)
}

func TestVolumeInUseIsNotDetached(t *testing.T) {
	c, i, v := writerCloud(t)
	require.ErrorContains(t, c.DetachVolume(t.Context(), v.ID), "stop the instance first")
	link := filepath.Join(testenv.Dir(t), "link")
	require.NoError(t, os.Symlink(filepath.Dir(v.Device), link))
	another := newCloud(t, local.Options{Dir: link})
	require.ErrorContains(t, another.DetachVolume(t.Context(), v.ID), "stop the instance first")
	require.NoError(t, c.Stop(t.Context(), i.ID))
	require.NoError(t, c.DetachVolume(t.Context(), v.ID))
	require.NoFileExists(t, filepath.Join(c.Dir(i.ID), "volumes", v.ID))
}

// states are the states of the instance's processes, as one letter each.
func states(id string) string {
	files, _ := filepath.Glob("/proc/[0-9]*/environ")
	var b strings.Builder
	for _, f := range files {
		if env, _ := os.ReadFile(f); strings.Contains(string(env), "SCALR_INSTANCE="+id+"\x00") {
			stat, _ := os.ReadFile(filepath.Join(filepath.Dir(f), "stat"))
			if _, rest, ok := strings.Cut(string(stat), ") "); ok {
				b.WriteByte(rest[0])
			}
		}
	}
	return b.String()
}
