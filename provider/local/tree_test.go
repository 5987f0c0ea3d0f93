//go:build linux

package local_test

import (
	"fmt"
	"os"
	"os/exec"
	"os/signal"
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

// escape tries to get away: it leaves two daemons behind, whose parents have ended, in sessions of their own, one of them
// without any environment, and ignores requests to end. So do the daemons. All carry its argument.
func escape() {
	signal.Ignore(syscall.SIGTERM, syscall.SIGHUP)
	daemon := `trap '' TERM HUP; setsid --fork sh -c 'trap "" TERM HUP; while :; do sleep 1; done' "$0"`
	for _, args := range [][]string{{"sh", "-c", daemon, os.Args[1]}, {"env", "-i", "PATH=" + os.Getenv("PATH"), "setsid", "sh", "-c", daemon, os.Args[1]}} {
		if err := exec.Command(args[0], args[1:]...).Run(); err != nil {
			panic(err)
		}
	}
	if len(os.Args) > 2 {
		os.Exit(0) // leaves the daemons alone
	}
	select {}
}

func escapeImage(args ...string) local.Image {
	return local.Image{Command: func(m local.Machine) local.Command {
		return local.Command{Args: append([]string{self(), "arg-" + m.ID}, args...), Env: []string{"SCALR_TEST_PROGRAM=escape"}}
	}}
}

// untilCount waits until so many processes have the argument. There are more for a moment, between fork and exec.
func untilCount(t *testing.T, arg string, want int, what string) {
	t.Helper()
	until(t, what, func() bool { return len(withArgument(arg)) == want })
}

func TestWholeTreeIsKilled(t *testing.T) {
	for name, end := range map[string]func(*local.Cloud, string) error{
		"Terminate": func(c *local.Cloud, id string) error { return c.Terminate(t.Context(), id) },
		"Stop":      func(c *local.Cloud, id string) error { return c.Stop(t.Context(), id) },
		"ByAnother": func(c *local.Cloud, id string) error {
			another, err := local.New(local.Options{Dir: filepath.Dir(c.Dir(id))})
			require.NoError(t, err)
			return another.Terminate(t.Context(), id)
		},
	} {
		t.Run(name, func(t *testing.T) {
			im := escapeImage()
			im.Grace = 50 * time.Millisecond
			c := cloud(t, im)
			i, other := launch(t, c, "a"), launch(t, c, "b")
			untilCount(t, "arg-"+i.ID, 3, "it has its daemons")
			untilCount(t, "arg-"+other.ID, 3, "the other one has")
			require.NoError(t, end(c, i.ID))
			assert.Empty(t, withArgument("arg-"+i.ID))
			assert.Empty(t, testenv.Processes(i.ID))
			untilCount(t, "arg-"+other.ID, 3, "nobody else is killed")
			require.NoError(t, c.Stop(t.Context(), other.ID))
			assert.Empty(t, withArgument("arg-"+other.ID))
		})
	}
}

func TestDaemonsAloneAreKilled(t *testing.T) {
	c := cloud(t, escapeImage("leave"))
	i := launch(t, c, "a")
	i = untilState(t, c, i.ID, provider.Failed)
	assert.Equal(t, "exit status 0", i.Reason)
	untilCount(t, "arg-"+i.ID, 2, "the daemons live")
	require.NoError(t, c.Start(t.Context(), i.ID))
	until(t, "the program has run again", func() bool { return find(t, c, i.ID).State == provider.Failed })
	untilCount(t, "arg-"+i.ID, 2, "those of the first start are gone")
	require.NoError(t, c.Terminate(t.Context(), i.ID))
	assert.Empty(t, withArgument("arg-"+i.ID))
}

func TestCommandIsKilledWithItsTree(t *testing.T) {
	c := cloud(t, sleepImage())
	i := launch(t, c, "a")
	ctx, cancel := testContext(t)
	done := make(chan error)
	go func() {
		_, err := c.RunCommand(ctx, i.ID, provider.Command{Args: []string{self(), "arg-" + i.ID}, Env: []string{"SCALR_TEST_PROGRAM=escape"}})
		done <- err
	}()
	untilCount(t, "arg-"+i.ID, 3, "the command has its daemons")
	cancel()
	require.ErrorIs(t, <-done, ctx.Err())
	assert.Empty(t, withArgument("arg-"+i.ID))
	assert.Equal(t, provider.Running, find(t, c, i.ID).State, "the instance is not killed")

	// What a command leaves behind belongs to the instance.
	r, err := c.RunCommand(t.Context(), i.ID, provider.Command{Args: []string{self(), "arg-" + i.ID, "leave"}, Env: []string{"SCALR_TEST_PROGRAM=escape"}})
	require.NoError(t, err)
	assert.Zero(t, r.Exit, string(r.Output))
	untilCount(t, "arg-"+i.ID, 2, "the daemons live")
	require.NoError(t, c.Terminate(t.Context(), i.ID))
	assert.Empty(t, withArgument("arg-"+i.ID))
}

func TestReasons(t *testing.T) {
	for script, want := range map[string]string{
		`echo one; echo two >&2; echo; exit 3`: "exit status 3: two",
		`exit 0`:                               "exit status 0",
		`kill -9 $$`:                           "killed by signal 9",
		`kill -SEGV $$`:                        "killed by signal 11",
		`head -c 5000 /dev/zero; exit 1`:       "exit status 1: " + strings.Repeat("\x00", 200),
	} {
		t.Run(script, func(t *testing.T) {
			c := cloud(t, shell(script))
			i := untilState(t, c, launch(t, c, "a").ID, provider.Failed)
			assert.Equal(t, want, i.Reason)
		})
	}
}

func TestSupervisorKilled(t *testing.T) {
	c := cloud(t, shell(`sleep 3600; true`))
	i := launch(t, c, "a")
	var pids []string
	until(t, "supervisor, shell and sleep run", func() bool {
		pids = testenv.Processes(i.ID)
		return len(pids) == 3
	})
	kill := func(p string) {
		var pid int
		fmt.Sscan(p, &pid)
		require.NoError(t, syscall.Kill(pid, syscall.SIGKILL))
	}
	kill(pids[0])
	until(t, "it is gone", func() bool { return len(testenv.Processes(i.ID)) == 2 })
	assert.Equal(t, provider.Running, find(t, c, i.ID).State, "its program lives on")
	kill(pids[1])
	kill(pids[2])
	i = untilState(t, c, i.ID, provider.Failed)
	assert.Equal(t, "its supervisor was killed, and its exit status is unknown", i.Reason)
}

func TestNoZombies(t *testing.T) {
	c := cloud(t, command("true"))
	for n := range 3 {
		untilState(t, c, launch(t, c, fmt.Sprint("t", n)).ID, provider.Failed)
	}
	files, err := filepath.Glob("/proc/[0-9]*/stat")
	require.NoError(t, err)
	for _, f := range files {
		stat, _ := os.ReadFile(f)
		assert.NotContains(t, string(stat), fmt.Sprintf(") Z %d ", os.Getpid()))
	}
}

func TestOutlivesItsHost(t *testing.T) {
	c, dir := crashCloud(t)
	out, state := runHost(t, "host", "DIR="+dir, "DO=Launch")
	require.True(t, state.Success(), out)
	all, err := c.Instances(t.Context(), nil)
	require.NoError(t, err)
	require.Len(t, all, 1)
	assert.Equal(t, provider.Running, all[0].State)
	require.NoError(t, c.Signal(t.Context(), all[0].ID, syscall.SIGKILL))
	i := untilState(t, c, all[0].ID, provider.Failed)
	assert.Equal(t, "killed by signal 9", i.Reason, "the exit status is known, though its host is gone")
}
