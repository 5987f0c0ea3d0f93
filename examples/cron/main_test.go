package main

import (
	"os"
	"os/exec"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/scalr-go/scalr/internal/testenv"
)

// TestMain makes the test binary the example itself, where it is started as that.
func TestMain(m *testing.M) {
	if os.Getenv("SCALR_EXAMPLE") != "" {
		main()
		return
	}
	os.Exit(m.Run())
}

var (
	started = regexp.MustCompile(`runs the report of (\S+), attempt (\d+)`)
	history = regexp.MustCompile(`(?m)^(\d\d:\d\d:\d\d) (\S+) +attempt \d+ by \S+$`)
)

// In both forms one of the runners is ended, and the instants go on, none of them twice.
func TestExample(t *testing.T) {
	for name, c := range map[string]struct {
		args func(t *testing.T) []string
		want string
	}{
		"memory": {func(*testing.T) []string { return nil }, "cutting off runners/"},
		"zookeeper": {func(t *testing.T) []string {
			return []string{"-zookeeper", strings.Join(testenv.ZooKeeper(t, 3).Addrs(), ",")}
		}, "kill -9 runner 1"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel() // both wait most of the time
			cmd := exec.Command(os.Args[0], append([]string{"-for", "12s"}, c.args(t)...)...)
			cmd.Env = append(os.Environ(), "SCALR_EXAMPLE=1")
			out, err := cmd.CombinedOutput()
			text := string(out)
			require.NoError(t, err, text)
			before, after, ok := strings.Cut(text, c.want)
			require.True(t, ok, text)
			seen := map[string]bool{}
			for _, m := range started.FindAllStringSubmatch(text, -1) {
				run := m[1] + " " + m[2]
				require.False(t, seen[run], "%s twice:\n%s", run, text)
				seen[run] = true
			}
			require.Regexp(t, started, before)
			require.Regexp(t, started, after, "the others go on")
			recorded := map[string]bool{}
			for _, m := range history.FindAllStringSubmatch(text, -1) {
				require.False(t, recorded[m[1]], text)
				recorded[m[1]] = true
				require.Contains(t, []string{"succeeded", "requested", "running", "failed"}, m[2], text)
			}
			require.GreaterOrEqual(t, len(recorded), 3, text)
		})
	}
}
