//go:build linux

package local

import (
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/scalr-go/scalr/provider"
)

// fakeHAProxy does what HAProxy 2.6 was seen to do with the commands.
type fakeHAProxy map[string]server

func (f fakeHAProxy) tell(t *rapid.T, command string) {
	name := func(word int) string {
		_, name, _ := strings.Cut(strings.Fields(command)[word], backend+"/")
		return name
	}
	change := func(word int, how func(*server)) {
		s, known := f[name(word)]
		if !known {
			t.Fatalf("%s: no such server", command)
		}
		how(&s)
		f[name(word)] = s
	}
	switch {
	case strings.HasPrefix(command, "add server "):
		if _, known := f[name(2)]; known {
			t.Fatalf("%s: it is there", command)
		}
		f[name(2)] = server{maintained: true}
	case strings.HasPrefix(command, "enable health "):
		change(2, func(*server) {})
	case strings.HasSuffix(command, " state drain"):
		change(2, func(s *server) { s.draining, s.up, s.maintained = true, s.up || s.maintained, false })
	case strings.HasSuffix(command, " state ready"):
		change(2, func(s *server) { s.up, s.maintained, s.draining = s.up || s.maintained, false, false })
	case strings.HasSuffix(command, " state maint"):
		change(2, func(s *server) { *s = server{maintained: true, sessions: s.sessions} })
	case strings.HasSuffix(command, " health down"):
		change(2, func(s *server) { s.up = s.up && s.maintained })
	case strings.HasPrefix(command, "shutdown sessions server "):
		change(3, func(s *server) { s.sessions = 0 })
	case strings.HasPrefix(command, "del server "):
		change(2, func(s *server) {
			if !s.maintained {
				t.Fatalf("%s: it is not in maintenance", command)
			}
		})
		if f[name(2)].sessions == 0 {
			delete(f, name(2))
		}
	default:
		t.Fatalf("%s: unknown command", command)
	}
}

// From whatever a program has left that died on the way, HAProxy's servers become the targets; none gets a connection before
// a check has succeeded, or while it is being drained.
func TestCommandsLeadToTheTargets(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		names := []string{"i-1", "i-2", "i-3"}
		var b balancer
		had := fakeHAProxy{}
		for _, n := range names {
			if rapid.Bool().Draw(t, "target") {
				b.Targets = append(b.Targets, target{Instance: n, Addr: netip.MustParseAddr("127.0.0.1"), Draining: rapid.Bool().Draw(t, "draining")})
			}
			if rapid.Bool().Draw(t, "known") {
				s := server{maintained: rapid.Bool().Draw(t, "maintained"), draining: rapid.Bool().Draw(t, "drained"), sessions: rapid.IntRange(0, 2).Draw(t, "sessions")}
				if !s.maintained {
					s.checked = rapid.Bool().Draw(t, "checked")
					s.up = rapid.Bool().Draw(t, "up") && (s.checked || s.draining)
				}
				had[n] = s
			}
		}
		proven := map[string]bool{} // a check has succeeded
		for n, s := range had {
			proven[n] = s.checked && s.up
		}
		for range 3 {
			commands := b.commands(had)
			stop := rapid.IntRange(0, len(commands)).Draw(t, "dies after")
			for _, command := range commands[:stop] {
				had.tell(t, command)
				for n, s := range had {
					if s.up && !s.maintained && !s.draining && !proven[n] {
						t.Fatalf("%s: %s gets connections, and no check has succeeded", command, n)
					}
					proven[n] = proven[n] && s.up
				}
			}
		}
		for range 2 { // a server whose connections have just been told to end may be removed the second time
			for _, command := range b.commands(had) {
				had.tell(t, command)
			}
		}
		if left := b.commands(had); len(left) > 0 {
			t.Fatalf("it never ends: %q", left)
		}
		for _, n := range names {
			s, known := had[n]
			at := b.find(n)
			switch {
			case at < 0 && known:
				t.Fatalf("%s is no target, and has been left", n)
			case at >= 0 && b.Targets[at].Draining && known && !s.draining && !s.maintained:
				t.Fatalf("%s is to be drained", n)
			case at >= 0 && !b.Targets[at].Draining && (!known || s.draining || s.maintained):
				t.Fatalf("%s is to get connections, and is %+v", n, s)
			}
		}
	})
}

func TestEndOfDraining(t *testing.T) {
	now := time.Now()
	later, draining := now.Add(time.Second), server{draining: true}
	for _, x := range []struct {
		what string
		t    target
		s    server
		gone bool // HAProxy does not know it
		want bool
	}{
		{what: "registered", t: target{}, s: server{}},
		{what: "no connections, but it may get some", t: target{Draining: true, Until: later}, s: server{}},
		{what: "no connections", t: target{Draining: true, Until: later}, s: draining, want: true},
		{what: "a connection", t: target{Draining: true, Until: later}, s: server{draining: true, sessions: 1}},
		{what: "no more time", t: target{Draining: true, Until: now}, s: server{draining: true, sessions: 1}, want: true},
		{what: "unknown", t: target{Draining: true, Until: later}, gone: true, want: true},
	} {
		assert.Equal(t, x.want, x.t.ended(x.s, !x.gone, now), x.what)
	}
}

func TestParseServers(t *testing.T) {
	states := `1
# be_id be_name srv_id srv_name srv_addr srv_op_state srv_admin_state srv_uweight
3 targets 1 i-1 127.0.0.1 2 0 1
3 targets 2 i-2 127.0.0.2 0 8 1
3 targets 3 i-3 127.0.0.3 0 1 1
3 targets 4 i-4 127.0.0.4 0 0 1
`
	stats := `# pxname,svname,scur,status,check_status,check_code,last_chk,check_desc,
targets,i-1,2,UP 1/2,* L7OK,200,OK,Layer7 check passed,
targets,i-2,0,DOWN,L7STS,500,"Internal, so to speak",Layer7 wrong status,
targets,i-3,0,MAINT,,,,,
targets,i-4,0,DOWN,* INI,,,Initializing,
targets,i-5,0,UP,L4OK,,,Layer4 check passed,
`
	got, err := parseServers(states, stats)
	require.NoError(t, err)
	assert.Equal(t, map[string]server{
		"i-1": {up: true, checked: true, sessions: 2},
		"i-2": {draining: true, checked: true, reason: "Layer7 wrong status, code 500: Internal, so to speak"},
		"i-3": {maintained: true},
		"i-4": {},
	}, got)
	for _, bad := range [][2]string{
		{"", stats}, {"2\n", stats}, {"1\n# srv_name srv_admin_state\ni-1", stats}, {"1\n# srv_name srv_admin_state\ni-1 x", stats},
		{"1\ni-1 0", stats}, {states, ""}, {states, "# svname,scur\ni-1,x"},
	} {
		_, err := parseServers(bad[0], bad[1])
		assert.Error(t, err, "%q", bad)
	}
}

func TestHAProxyVersion(t *testing.T) {
	for version, ok := range map[string]bool{
		"2.6.12-1+deb12u4": true, "3.0.11-1+deb13u2": true, "10.0-dev1": true, "2.5.9": false, "1.8.0": false, "": false,
	} {
		err := checkVersion("Name: HAProxy\nVersion: " + version + "\nRelease_date: 2026/10/17\n")
		assert.Equal(t, ok, err == nil, "%s: %v", version, err)
	}
}

func TestConfigIsOneLineEach(t *testing.T) {
	b := balancer{Spec: provider.BalancerSpec{Protocol: "http", Port: 80, HealthPath: `/it's"#`}}
	lines := strings.Split(b.config(Machine{Dir: "/a dir", Addr: netip.MustParseAddr("127.77.0.1")}), "\n")
	assert.Contains(t, lines, "\tbind 127.77.0.1:80")
	assert.Contains(t, lines, "\tstats socket '/a dir/haproxy.sock' mode 600 level admin")
	assert.True(t, slices.ContainsFunc(lines, func(l string) bool { return strings.Contains(l, ` uri '/it'\''s"#' `) }))
	assert.Equal(t, 80, b.targetPort())
	b.Spec.TargetPort = 8080
	assert.Equal(t, "8080", strconv.Itoa(b.targetPort()))
}
