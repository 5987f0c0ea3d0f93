//go:build linux

package local

import (
	"fmt"
	"os"
	"syscall"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

func TestMarkIsWhatTheKernelShows(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		soft, hard := rapid.Uint64().Draw(t, "soft"), rapid.Uint64().Draw(t, "hard")
		text := fmt.Sprintf("Limit                     Soft Limit           Hard Limit           Units     \n"+
			"Max core file size        0                    unlimited            bytes     \n"+
			"%-25s %-20d %-20d %-10s\nMax processes             96365                96365                processes \n", "Max resident set", soft, hard, "bytes")
		s, h, ok := rss([]byte(text))
		if !ok || s != soft || h != hard {
			t.Fatalf("read %d %d %t from %q", s, h, ok, text)
		}
		id, command := rapid.String().Draw(t, "id"), rapid.String().Draw(t, "command")
		i, c := instanceMark(id), commandMark(command, id)
		if i.hard != c.hard || c.soft >= c.hard || i.hard >= 1<<63-1 || c.soft == 0 {
			t.Fatalf("instance %+v, command %+v", i, c)
		}
	})
	_, _, ok := rss([]byte("\nMax resident set          unlimited            unlimited            bytes     \n"))
	assert.False(t, ok)
}

func TestStatOfAnyName(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		name := rapid.StringMatching(`.{0,15}`).Draw(rt, "name")
		line := fmt.Sprintf("77 (%s) S 5 77 77 0 -1 4194304 1 0 0 0 0 0 0 0 20 0 3 0 987654 1 1 1", name)
		s, err := parseStat(line)
		if err != nil || s != (stat{state: 'S', ppid: 5, threads: 3, start: 987654}) {
			rt.Fatalf("%+v %v", s, err)
		}
	})
}

// A process whose ID has been given to another one is not taken for it.
func TestIDUsedAgain(t *testing.T) {
	p, err := identify(os.Getpid())
	require.NoError(t, err)
	assert.True(t, p.alive())
	for _, other := range []procID{{p.PID, p.Start + 1, p.Boot}, {p.PID, p.Start, "another boot"}, {}} {
		assert.False(t, other.alive(), "%+v", other)
	}
	assert.ErrorIs(t, instanceMark("i-none").signal(os.Getpid(), syscall.SIGKILL), os.ErrProcessDone, "it does not bear the mark")
}
