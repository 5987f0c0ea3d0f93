package testenv

import (
	"context"
	"encoding/base64"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/scalr-go/scalr/dnsreg/tsig"
	"github.com/scalr-go/scalr/provider/local"
)

// DNS says which zone a name server shall have, and from where.
type DNS struct {
	// Zone is its name.
	Zone string
	// Key may transfer the zone, and update it on a primary that is Dynamic.
	Key tsig.Key
	// File is the zone as a master file, for a primary.
	File string
	// Dynamic makes a primary take updates (RFC 2136).
	Dynamic bool
	// Crowded lets a name have any number of records of a type; BIND takes 100 by itself.
	Crowded bool
	// Primary is host:port of where a secondary gets the zone, and whose NOTIFY it follows. Empty for a primary.
	Primary string
	// Catalog makes a secondary (named or knotd) take Zone as a catalog (RFC 9432), and serve the zones that it lists.
	Catalog bool
	// Notify is host:port of a secondary that a primary tells about changes. Optional.
	Notify string
	// Forward makes it a resolver (named) that asks these servers, host:port, and caches what they say. It has no zone then.
	Forward []string
	// Port is where it listens, on 127.0.0.1; see [FreePort]. 0 takes a free one.
	Port int
}

// FreePort gives a port on 127.0.0.1 that nobody uses now.
func FreePort(t testing.TB) int {
	t.Helper()
	for {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		port := l.Addr().(*net.TCPAddr).Port
		u, err := net.ListenPacket("udp", l.Addr().String())
		l.Close()
		if err == nil {
			u.Close()
			return port
		}
	}
}

// NameServers are the programs that [NameServer] runs. NSD takes no updates.
var NameServers = []string{"named", "knotd", "nsd"}

// NameServer runs one of [NameServers]. It accepts connections when NameServer returns; the zone may come later. It
// listens on 127.0.0.1, since BIND listens only on addresses that an interface has.
func NameServer(t testing.TB, program string, d DNS) *Server {
	t.Helper()
	path := Need(t, program)[0]
	if d.Port == 0 {
		d.Port = FreePort(t)
	}
	config, args := named, []string{path, "-f", "-n", "1", "-c", "config"}
	switch program {
	case "knotd":
		config, args = knotd, []string{path, "-c", "config"}
	case "nsd":
		config, args = nsd, []string{path, "-d", "-c", "config"}
	}
	c := Cloud(t, map[string]local.Image{"server": {
		Prepare: func(_ context.Context, m local.Machine) error {
			if d.File != "" {
				if err := os.WriteFile(filepath.Join(m.Dir, "zone"), []byte(d.File), 0o600); err != nil {
					return err
				}
			}
			return os.WriteFile(filepath.Join(m.Dir, "config"), []byte(config(d, m.Dir)), 0o600)
		},
		Command: func(m local.Machine) local.Command {
			args[len(args)-1] = filepath.Join(m.Dir, "config")
			return local.Command{Args: args}
		},
	}})
	s := launch(t, c, 1, d.Port, false)[0]
	s.Host = "127.0.0.1"
	s.Addr = net.JoinHostPort(s.Host, strconv.Itoa(d.Port))
	for deadline := time.Now().Add(patience); ; time.Sleep(10 * time.Millisecond) {
		c, err := net.Dial("tcp", s.Addr)
		if err == nil {
			c.Close()
			return s
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s: %v\n%s", program, err, s.Output())
		}
	}
}

// port gives the port of an address, or 0.
func port(addr string) string {
	_, p, err := net.SplitHostPort(addr)
	if err != nil {
		return "0"
	}
	return p
}

func (d DNS) secret() string { return base64.StdEncoding.EncodeToString(d.Key.Secret) }

// resolver is the configuration of a named that forwards and caches.
func resolver(d DNS, dir string) string {
	var servers strings.Builder
	for _, addr := range d.Forward {
		fmt.Fprintf(&servers, " 127.0.0.1 port %s;", port(addr))
	}
	return fmt.Sprintf(`options {
 directory "%[1]s"; pid-file "%[1]s/pid"; session-keyfile "%[1]s/key"; managed-keys-directory "%[1]s"; lock-file none;
 listen-on port %[2]d { 127.0.0.1; }; listen-on-v6 { none; }; recursion yes; allow-query { any; }; dnssec-validation no;
 forward only; forwarders {%[3]s };
};
controls {};
`, dir, d.Port, servers.String())
}

func named(d DNS, dir string) string {
	if len(d.Forward) > 0 {
		return resolver(d, dir)
	}
	key, access, notify := "", "allow-transfer { none; };", "notify no;"
	if d.Key.Name != "" {
		key = fmt.Sprintf("key \"%s\" { algorithm %s; secret \"%s\"; };\n", d.Key.Name, tsig.Algorithm, d.secret())
		access = fmt.Sprintf("allow-transfer { key \"%s\"; };", d.Key.Name)
	}
	if d.Notify != "" {
		notify = fmt.Sprintf("notify explicit; also-notify { 127.0.0.1 port %s key \"%s\"; };", port(d.Notify), d.Key.Name)
	}
	zone := "type primary; file \"zone\"; check-integrity no; check-mx ignore; check-names ignore;"
	switch {
	case d.Primary != "":
		zone = fmt.Sprintf("type secondary; file \"zone\"; masterfile-format text; primaries { 127.0.0.1 port %s key \"%s\"; }; allow-notify { key \"%s\"; };",
			port(d.Primary), d.Key.Name, d.Key.Name)
	case d.Dynamic:
		zone += fmt.Sprintf(" update-policy { grant %s zonesub ANY; };", d.Key.Name)
	}
	if d.Crowded {
		zone += " max-records-per-type 0;"
	}
	catalog := ""
	if d.Catalog {
		catalog = fmt.Sprintf(" catalog-zones { zone \"%s\" default-primaries { 127.0.0.1 port %s key \"%s\"; } in-memory yes min-update-interval 1; };\n",
			d.Zone, port(d.Primary), d.Key.Name)
	}
	return fmt.Sprintf(`options {
 directory "%[1]s"; pid-file "%[1]s/pid"; session-keyfile "%[1]s/key"; managed-keys-directory "%[1]s"; lock-file none;
 listen-on port %[2]d { 127.0.0.1; }; listen-on-v6 { none; }; recursion no; dnssec-validation no; minimal-responses yes;
 notify-delay 0; serial-query-rate 1000; notify-rate 1000; startup-notify-rate 1000;
%[8]s};
controls {};
%[3]szone "%[4]s" { %[5]s %[6]s %[7]s };
`, dir, d.Port, key, d.Zone, zone, access, notify, catalog)
}

func knotd(d DNS, dir string) string {
	key, remote, zone := "", "", ""
	if d.Key.Name != "" {
		key = fmt.Sprintf(`key:
 - id: %[1]s
   algorithm: %[2]s
   secret: "%[3]s"
acl:
 - id: change
   key: %[1]s
   action: [transfer, update]
 - id: told
   key: %[1]s
   action: notify
`, d.Key.Name, tsig.Algorithm, d.secret())
		zone = "   acl: change\n"
	}
	peer := func(addr string) {
		remote = fmt.Sprintf("remote:\n - id: peer\n   address: 127.0.0.1@%s\n   key: %s\n", port(addr), d.Key.Name)
	}
	switch {
	case d.Primary != "":
		peer(d.Primary)
		zone = "   acl: told\n   master: peer\n   zonefile-sync: -1\n"
	case d.Notify != "":
		peer(d.Notify)
		zone += "   notify: peer\n"
	}
	if !d.Dynamic && d.Primary == "" {
		zone += "   journal-content: none\n   zonefile-load: whole\n"
	}
	if d.Catalog {
		remote += "template:\n - id: member\n" + zone
		zone += "   catalog-role: interpret\n   catalog-template: member\n"
	}
	return fmt.Sprintf(`server:
 rundir: "%[1]s"
 listen: 127.0.0.1@%[2]d
database:
 storage: "%[1]s"
%[3]s%[4]szone:
 - domain: %[5]s
   storage: "%[1]s"
   file: zone
   semantic-checks: off
%[6]s`, dir, d.Port, key, remote, d.Zone, zone)
}

func nsd(d DNS, dir string) string {
	key, zone := "", ""
	if d.Key.Name != "" {
		key = fmt.Sprintf("key:\n name: \"%s\"\n algorithm: %s\n secret: \"%s\"\n", d.Key.Name, tsig.Algorithm, d.secret())
	}
	if d.Primary != "" {
		zone = fmt.Sprintf(" allow-notify: 127.0.0.1 %[1]s\n request-xfr: 127.0.0.1@%[2]s %[1]s\n", d.Key.Name, port(d.Primary))
	}
	return fmt.Sprintf(`server:
 ip-address: 127.0.0.1@%[1]d
 username: ""
 database: ""
 pidfile: "%[2]s/nsd.pid"
 xfrdfile: "%[2]s/xfrd.state"
 zonelistfile: "%[2]s/zone.list"
 xfrdir: "%[2]s"
 zonesdir: "%[2]s"
 xfrd-reload-timeout: 0
 minimal-responses: yes
 server-count: 1
remote-control:
 control-enable: no
%[3]szone:
 name: %[4]s
 zonefile: "%[2]s/zone"
%[5]s`, d.Port, dir, key, d.Zone, zone)
}
