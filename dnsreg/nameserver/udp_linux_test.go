//go:build linux && !mips && !mipsle && !mips64 && !mips64le

package nameserver

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"testing"

	"github.com/stretchr/testify/require"
)

// Go's poller would wake a thread for each message that comes in, at the cost of an answer, if it knew the socket.
func TestThePollerDoesNotKnowTheSocket(t *testing.T) {
	polled := func(fd int) bool {
		fds, err := filepath.Glob("/proc/self/fd/*")
		require.NoError(t, err)
		found, polls := false, 0
		for _, path := range fds {
			if to, err := os.Readlink(path); err != nil || to != "anon_inode:[eventpoll]" {
				continue
			}
			info, err := os.ReadFile("/proc/self/fdinfo/" + filepath.Base(path))
			require.NoError(t, err)
			polls++
			found = found || regexp.MustCompile(fmt.Sprintf(`(?m)^tfd: +%d `, fd)).Match(info)
		}
		require.Positive(t, polls, "the process has no poller")
		return found
	}
	conn, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	require.NoError(t, err)
	raw, err := conn.SyscallConn()
	require.NoError(t, err)
	require.NoError(t, raw.Control(func(fd uintptr) { require.True(t, polled(int(fd)), "one of package net is known to it") }))
	s, err := newUDPSocket(conn, false)
	require.NoError(t, err)
	defer s.Close()
	require.False(t, polled(s.(*batches).fd))
}
