package nameserver

import (
	"net"
	"os"
	"os/exec"
	"syscall"
	"testing"
	"time"

	"github.com/miekg/dns"
	"github.com/stretchr/testify/require"

	"github.com/scalr-go/scalr/internal/testenv"
)

// A server that listens on all addresses answers from the one that was asked: a client takes no answer from another one.
// The test runs itself again in a network of its own, so that it listens to nobody else.
func TestAllAddresses(t *testing.T) {
	if os.Getenv("SCALR_TEST_OWN_NETWORK") == "" {
		ip := testenv.Need(t, "ip")[0]
		cmd := exec.Command("/bin/sh", "-c", `"$0" link set lo up && exec "$1" -test.run '^TestAllAddresses$' -test.v`, ip, os.Args[0])
		cmd.Env = append(os.Environ(), "SCALR_TEST_OWN_NETWORK=1")
		cmd.SysProcAttr = &syscall.SysProcAttr{
			Cloneflags:  syscall.CLONE_NEWNET | syscall.CLONE_NEWUSER,
			UidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}},
			GidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}},
		}
		out, err := cmd.CombinedOutput()
		if _, ran := err.(*exec.ExitError); err != nil && !ran {
			testenv.Missing(t, "this machine gives no network of its own: "+err.Error())
		}
		require.NoError(t, err, "%s", out)
		require.Contains(t, string(out), "PASS: TestAllAddresses")
		return
	}
	for _, listen := range []string{":0", "0.0.0.0:0", "[::]:0"} {
		s, err := New(Options{Listen: listen, Zones: []Zone{{Name: zoneName}}})
		require.NoError(t, err)
		run(t, s)
		for _, addr := range []string{"127.0.0.1", "127.0.0.2", "127.1.2.3", "::1"} {
			for _, network := range []string{"udp", "tcp"} {
				c := &dns.Client{Net: network, Timeout: 5 * time.Second}
				m, _, err := c.Exchange(new(dns.Msg).SetQuestion(zoneName, dns.TypeSOA), net.JoinHostPort(addr, port(s)))
				require.NoError(t, err, "%s %s %s", listen, network, addr)
				require.Len(t, m.Answer, 1)
			}
		}
	}
}

func port(s *Server) string {
	_, p, _ := net.SplitHostPort(s.Addr().String())
	return p
}
