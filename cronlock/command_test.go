//go:build unix

package cronlock_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/scalr-go/scalr/cronlock"
)

// buffer is written by a program's output and read by the test.
type buffer struct {
	mu sync.Mutex
	b  strings.Builder
}

func (b *buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *buffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

func TestCommand(t *testing.T) {
	var out buffer
	at := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	run := cronlock.Run{Claim: cronlock.Claim{Key: cronlock.Key{Job: "j", At: at}, Attempt: 2, Token: 77}, Output: &out}
	require.NoError(t, cronlock.Command("sh", "-c", "echo $SCALR_JOB $SCALR_AT $SCALR_ATTEMPT $SCALR_TOKEN")(t.Context(), run))
	require.Equal(t, "j 2026-01-02T03:04:05Z 2 77\n", out.String())
	require.ErrorContains(t, cronlock.Command("sh", "-c", "exit 3")(t.Context(), run), "exit status 3")
	require.ErrorContains(t, cronlock.Command("no-such-program-at-all")(t.Context(), run), "no-such-program-at-all")
}

// A program is a job; Cron.Output says where its output goes.
func ExampleCommand() {
	job := cronlock.Job{Name: "report", Run: cronlock.Command("sh", "-c", "echo the report of $SCALR_AT")}
	at := time.Date(2026, 1, 2, 3, 0, 0, 0, time.UTC)
	run := cronlock.Run{Claim: cronlock.Claim{Key: cronlock.Key{Job: "report", At: at}, Attempt: 1}, Output: os.Stdout}
	fmt.Println(job.Run(context.Background(), run))
	// Output:
	// the report of 2026-01-02T03:00:00Z
	// <nil>
}

// The whole group ends with the context, and at once after a lost lease.
func TestCommandEndsItsGroup(t *testing.T) {
	for name, c := range map[string]struct {
		cause  error
		script string
		polite bool
	}{
		"told to":    {errStopped, `trap 'echo bye; exit 0' TERM; sleep 1000 & echo pid $!; wait`, true},
		"lost lease": {cronlock.ErrLost, `trap 'echo bye; exit 0' TERM; sleep 1000 & echo pid $!; wait`, false},
	} {
		t.Run(name, func(t *testing.T) {
			var out buffer
			ctx, cancel := context.WithCancelCause(t.Context())
			done := make(chan error)
			go func() { done <- cronlock.Command("sh", "-c", c.script)(ctx, cronlock.Run{Output: &out}) }()
			for !strings.Contains(out.String(), "\n") {
				time.Sleep(time.Millisecond)
			}
			pid := 0
			for _, d := range strings.Fields(out.String())[1] {
				pid = pid*10 + int(d-'0')
			}
			cancel(c.cause)
			require.ErrorIs(t, <-done, c.cause)
			require.Equal(t, c.polite, strings.Contains(out.String(), "bye"))
			for gone := false; !gone; time.Sleep(time.Millisecond) { // killed; init has to bury it
				stat, err := os.ReadFile("/proc/" + strings.Fields(out.String())[1] + "/stat")
				gone = errors.Is(err, os.ErrNotExist) || strings.Contains(string(stat), ") Z ") || errors.Is(syscall.Kill(pid, 0), syscall.ESRCH)
			}
		})
	}
}
