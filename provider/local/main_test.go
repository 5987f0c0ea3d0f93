//go:build linux

package local_test

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/scalr-go/scalr/internal/testenv"
	"github.com/scalr-go/scalr/provider"
	"github.com/scalr-go/scalr/provider/local"
)

// TestMain makes the test binary several programs: what its variable SCALR_TEST_PROGRAM says, or else the tests.
func TestMain(m *testing.M) {
	if name := os.Getenv("SCALR_TEST_PROGRAM"); name != "" {
		programs[name]()
		return
	}
	goleak.VerifyTestMain(m)
}

// programs are what instances and other host programs of the tests run.
var programs = map[string]func(){
	"server": server,
	"escape": escape,
	"writer": writer,
	"web":    web,
	"host":   host,
	"crowd":  crowd,
}

// program is the command that runs one of the programs.
func program(name string, args ...string) func(local.Machine) local.Command {
	return func(local.Machine) local.Command {
		return local.Command{Args: append([]string{self()}, args...), Env: []string{"SCALR_TEST_PROGRAM=" + name}}
	}
}

func self() string {
	path, err := os.Executable()
	if err != nil {
		panic(err)
	}
	return path
}

// server listens on port 8080 of the instance's address.
func server() {
	l, err := net.Listen("tcp", os.Getenv("SCALR_ADDR")+":8080")
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	for {
		conn, err := l.Accept()
		if err != nil {
			panic(err)
		}
		fmt.Fprintln(conn, os.Getenv("SCALR_INSTANCE"))
		conn.Close()
	}
}

func serverImage() local.Image { return local.Image{Port: 8080, Command: program("server")} }

func command(args ...string) local.Image {
	return local.Image{Command: func(local.Machine) local.Command { return local.Command{Args: args} }}
}

// shell is an image that runs a script. Scripts end with something else than the program that they wait for, so that the
// shell stays.
func shell(script string) local.Image { return command("/bin/sh", "-c", script) }

func sleepImage() local.Image { return command("sleep", "3600") }

// cloud is a cloud of the test's own with one image, "it".
func cloud(t testing.TB, im local.Image) *local.Cloud {
	return testenv.Cloud(t, map[string]local.Image{"it": im})
}

func launch(t testing.TB, c *local.Cloud, token string, change ...func(*provider.Launch)) provider.Instance {
	t.Helper()
	l := provider.Launch{Token: token, Image: "it"}
	for _, f := range change {
		f(&l)
	}
	i, err := c.Launch(t.Context(), l)
	require.NoError(t, err)
	return i
}

// find gives the instance as it is listed.
func find(t testing.TB, c *local.Cloud, id string) provider.Instance {
	t.Helper()
	all, err := c.Instances(t.Context(), nil)
	require.NoError(t, err)
	for _, i := range all {
		if i.ID == id {
			return i
		}
	}
	require.Fail(t, "not listed", id)
	return provider.Instance{}
}

// until waits for a condition, whatever time that takes.
func until(t testing.TB, what string, f func() bool) {
	t.Helper()
	require.Eventually(t, f, 30*time.Second, 5*time.Millisecond, what)
}

func untilState(t testing.TB, c *local.Cloud, id string, want provider.State) provider.Instance {
	t.Helper()
	var i provider.Instance
	until(t, "state "+string(want), func() bool {
		i = find(t, c, id)
		return i.State == want
	})
	return i
}

// withArgument finds the processes one of whose arguments it is, whatever their environment, but for supervisors.
func withArgument(arg string) (pids []int) {
	files, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	for _, f := range files {
		line, _ := os.ReadFile(f)
		line = append([]byte{0}, line...)
		if bytes.Contains(line, []byte("\x00"+arg+"\x00")) && !bytes.Contains(line, []byte("\x00scalr\x00")) {
			pid, _ := strconv.Atoi(strings.Split(f, "/")[2])
			pids = append(pids, pid)
		}
	}
	return pids
}

// runHost runs another host program, and gives how it ended and what it printed.
func runHost(t testing.TB, name string, env ...string) (string, *os.ProcessState) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, self())
	cmd.Env = append(append(os.Environ(), "SCALR_TEST_PROGRAM="+name), env...)
	out, err := cmd.CombinedOutput()
	if cmd.ProcessState == nil {
		require.NoError(t, err)
	}
	return string(out), cmd.ProcessState
}

func killedBy9(s *os.ProcessState) bool {
	ws, ok := s.Sys().(syscall.WaitStatus)
	return ok && ws.Signaled() && ws.Signal() == syscall.SIGKILL
}

func testContext(t testing.TB) (context.Context, context.CancelFunc) {
	return context.WithTimeout(t.Context(), time.Minute)
}
