package nameserver

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"
	"github.com/stretchr/testify/require"

	"github.com/scalr-go/scalr/dnsreg"
	"github.com/scalr-go/scalr/internal/testenv"
	"github.com/scalr-go/scalr/provider"
	"github.com/scalr-go/scalr/provider/local"
)

// zoneFile gives the zone as a master file.
func zoneFile(t *testing.T, s *Server) string {
	list, err := s.Records(t.Context(), zoneName)
	require.NoError(t, err)
	soa := slices.IndexFunc(list, func(r dnsreg.RRset) bool { return r.Type == "SOA" })
	list[0], list[soa] = list[soa], list[0]
	var b strings.Builder
	for _, r := range list {
		for _, v := range r.Values {
			if r.Type == "TXT" {
				v = `"` + v + `"`
			}
			fmt.Fprintf(&b, "%s %d IN %s %s\n", r.Name, r.TTL/time.Second, r.Type, v)
		}
	}
	return b.String()
}

// realServers are how to run other name servers with the same zone.
var realServers = []struct {
	program string
	config  func(dir string, port int) string
	args    func(program, dir string) []string
	differs []string // questions that it alone answers otherwise
}{
	{
		program: "nsd",
		config: func(dir string, port int) string {
			return fmt.Sprintf(`server:
 ip-address: 127.0.0.1@%d
 username: ""
 database: ""
 pidfile: "%[2]s/nsd.pid"
 xfrdfile: "%[2]s/xfrd.state"
 zonelistfile: "%[2]s/zone.list"
 xfrdir: "%[2]s"
 zonesdir: "%[2]s"
 minimal-responses: yes
 server-count: 1
remote-control:
 control-enable: no
zone:
 name: %[3]s
 zonefile: "%[2]s/zone"
`, port, dir, zoneName)
		},
		args: func(program, dir string) []string { return []string{program, "-d", "-c", dir + "/config"} },
	},
	{
		program: "knotd",
		config: func(dir string, port int) string {
			return fmt.Sprintf(`server:
 rundir: "%[2]s"
 listen: 127.0.0.1@%[1]d
database:
 storage: "%[2]s"
zone:
 - domain: %[3]s
   storage: "%[2]s"
   file: zone
   journal-content: none
   zonefile-load: whole
   semantic-checks: off
`, port, dir, zoneName)
		},
		args: func(program, dir string) []string { return []string{program, "-c", dir + "/config"} },
	},
	{
		program: "named",
		config: func(dir string, port int) string {
			return fmt.Sprintf(`options {
 directory "%[2]s"; pid-file "%[2]s/pid"; session-keyfile "%[2]s/key"; managed-keys-directory "%[2]s"; lock-file none;
 listen-on port %[1]d { 127.0.0.1; }; listen-on-v6 { none; }; recursion no; dnssec-validation no; minimal-responses yes;
};
controls {};
zone "%[3]s" { type primary; file "zone"; check-integrity no; check-mx ignore; check-names ignore; notify no; };
`, port, dir, zoneName)
		},
		args:    func(program, dir string) []string { return []string{program, "-f", "-c", dir + "/config", "-n", "1"} },
		differs: []string{"loop1 A", "q.wildloop A"}, // SERVFAIL, with the same CNAMEs
	},
}

// Our answers are those of NSD, Knot and BIND for the same zone.
func TestAnswersEqualThoseOfRealServers(t *testing.T) {
	ours := newServer(t, testZone)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	port := l.Addr().(*net.TCPAddr).Port
	require.NoError(t, l.Close())
	file := zoneFile(t, ours)
	for _, real := range realServers {
		t.Run(real.program, func(t *testing.T) {
			program := testenv.Need(t, real.program)[0]
			c := testenv.Cloud(t, map[string]local.Image{"server": {
				Prepare: func(_ context.Context, m local.Machine) error {
					if err := os.WriteFile(filepath.Join(m.Dir, "zone"), []byte(file), 0o600); err != nil {
						return err
					}
					return os.WriteFile(filepath.Join(m.Dir, "config"), []byte(real.config(m.Dir, port)), 0o600)
				},
				Command: func(m local.Machine) local.Command { return local.Command{Args: real.args(program, m.Dir)} },
			}})
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			inst, err := c.Launch(ctx, provider.Launch{Token: "server", Name: "server", Image: "server"})
			require.NoError(t, err)
			client := &dns.Client{Net: "tcp", Timeout: 10 * time.Second}
			addr := fmt.Sprintf("127.0.0.1:%d", port)
			exchange := func(name string, typ uint16) (*dns.Msg, error) {
				m, _, err := client.ExchangeContext(ctx, new(dns.Msg).SetQuestion(name, typ), addr)
				return m, err
			}
			for { // until it is up and has loaded the zone
				m, err := exchange(zoneName, dns.TypeSOA)
				if err == nil && m.Rcode == dns.RcodeSuccess {
					break
				}
				select {
				case <-time.After(20 * time.Millisecond):
				case <-ctx.Done():
					log, _ := os.ReadFile(filepath.Join(c.Dir(inst.ID), "output.log"))
					t.Fatalf("%v %v\n%s", err, m, log)
				}
			}
			for _, q := range testAnswers {
				typ, ok := dns.StringToType[q.typ]
				if !ok || typ == dns.TypeANY || typ >= 250 || typ == dns.TypeOPT {
					continue
				}
				name := zoneName
				if q.name != "" {
					name = q.name + "." + zoneName
				}
				theirs, err := exchange(name, typ)
				require.NoError(t, err)
				if slices.Contains(real.differs, q.name+" "+q.typ) {
					require.Equal(t, dns.RcodeServerFailure, theirs.Rcode)
					theirs.Rcode = dns.RcodeSuccess
				}
				want, got := comparable(theirs), comparable(ask(t, ours, name, typ))
				require.Equal(t, want, got, "%s %s: want what %s says", name, q.typ, real.program)
			}
		})
	}
}

// comparable gives an answer without what servers are free to differ in: the order, the case, and addresses that are not
// needed, which are those of names that are not below a cut.
func comparable(m *dns.Msg) string {
	m = m.Copy()
	m.Extra = slices.DeleteFunc(m.Extra, func(rr dns.RR) bool {
		return !strings.HasSuffix(strings.ToLower(rr.Header().Name), ".sub."+zoneName)
	})
	lines := strings.Split(strings.ToLower(show(m)), "\n")
	slices.Sort(lines[1:])
	return strings.Join(lines, "\n")
}
