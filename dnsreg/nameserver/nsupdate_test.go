package nameserver

import (
	"encoding/base64"
	"fmt"
	"os/exec"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/scalr-go/scalr/dnsreg"
	"github.com/scalr-go/scalr/dnsreg/tsig"
	"github.com/scalr-go/scalr/internal/testenv"
)

// BIND's own client changes a zone, and what its prerequisites forbid is refused as it expects.
func TestNsupdateChangesAZone(t *testing.T) {
	nsupdate := testenv.Need(t, "nsupdate")[0]
	s, err := New(Options{Zones: []Zone{{Name: zoneName, Serial: 1, Updaters: []tsig.Key{writeKey}}}})
	require.NoError(t, err)
	run(t, s)
	update := func(lines string) (string, error) {
		cmd := exec.CommandContext(t.Context(), nsupdate)
		cmd.Stdin = strings.NewReader(fmt.Sprintf("server %s %d\nzone %s\nkey %s:%s %s\n%ssend\n", s.Addr().Addr(), s.Addr().Port(), zoneName,
			tsig.Algorithm, writeKey.Name, base64.StdEncoding.EncodeToString(writeKey.Secret), lines))
		out, err := cmd.CombinedOutput()
		return string(out), err
	}
	at := func(label string) (list []string) {
		all, err := s.Records(t.Context(), zoneName)
		require.NoError(t, err)
		for _, r := range all {
			if r.Name == label+"."+zoneName {
				list = append(list, dnsreg.Change{New: &r}.String())
			}
		}
		return list
	}
	for _, c := range []struct {
		lines, fault string
		label        string
		want         []string
	}{
		{"prereq nxdomain a.example.com.\nupdate add a.example.com. 60 A 192.0.2.1\nupdate add a.example.com. 60 TXT \"x y\" \"z\"\n", "", "a",
			[]string{"+ a.example.com. A 192.0.2.1 ttl=60s", `+ a.example.com. TXT "x yz" ttl=60s`}},
		{"prereq nxdomain a.example.com.\nupdate add a.example.com. 60 A 192.0.2.9\n", "YXDOMAIN", "a",
			[]string{"+ a.example.com. A 192.0.2.1 ttl=60s", `+ a.example.com. TXT "x yz" ttl=60s`}},
		{"prereq yxrrset a.example.com. A 192.0.2.8\nupdate delete a.example.com.\n", "NXRRSET", "a",
			[]string{"+ a.example.com. A 192.0.2.1 ttl=60s", `+ a.example.com. TXT "x yz" ttl=60s`}},
		{"update add a.example.com. 30 A 192.0.2.2\nupdate delete a.example.com. A 192.0.2.1\nupdate delete a.example.com. TXT\n", "", "a",
			[]string{"+ a.example.com. A 192.0.2.2 ttl=30s"}},
		{"update add a.example.com. 30 CNAME b.example.com.\n", "", "a", []string{"+ a.example.com. A 192.0.2.2 ttl=30s"}},
		{"update add a.example.com. 30 A 192.0.2.3\nupdate add a.example.com. 30 HINFO x y\n", "REFUSED", "a",
			[]string{"+ a.example.com. A 192.0.2.2 ttl=30s"}},
		{"update delete a.example.com.\nupdate add a.example.com. 30 CNAME B.example.com.\n", "", "a",
			[]string{"+ a.example.com. CNAME b.example.com. ttl=30s"}},
		{"update delete a.example.com.\n", "", "a", nil},
	} {
		out, err := update(c.lines)
		if c.fault == "" {
			require.NoError(t, err, out)
		} else {
			require.Error(t, err, c.lines)
			require.Contains(t, out, c.fault)
		}
		require.Equal(t, c.want, at(c.label), c.lines)
	}
	out, err := update("update delete example.com. NS\nupdate delete example.com.\n")
	require.NoError(t, err, out)
	all, err := s.Records(t.Context(), zoneName)
	require.NoError(t, err)
	require.Len(t, all, 2, "a zone keeps its SOA and NS")
}
