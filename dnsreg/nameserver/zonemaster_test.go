package nameserver

import (
	"context"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"
	"github.com/stretchr/testify/require"

	"github.com/scalr-go/scalr/internal/testenv"
)

// fakeRoot answers for the root and "com.", and refers to the zone's two name servers.
func fakeRoot(t *testing.T, addr string, servers map[string]string) {
	t.Helper()
	rr := func(text string) dns.RR {
		r, err := dns.NewRR(text)
		require.NoError(t, err)
		return r
	}
	handler := dns.HandlerFunc(func(w dns.ResponseWriter, q *dns.Msg) {
		m := new(dns.Msg).SetReply(q)
		name, typ := strings.ToLower(q.Question[0].Name), q.Question[0].Qtype
		top := "."
		if dns.IsSubDomain("com.", name) {
			top = "com."
		}
		soa := rr(top + " 3600 IN SOA root.com. hostmaster.com. 1 3600 600 1209600 3600")
		switch {
		case dns.IsSubDomain(zoneName, name) && (name != zoneName || typ != dns.TypeDS):
			for ns, a := range servers {
				m.Ns = append(m.Ns, rr(zoneName+" 3600 IN NS "+ns))
				m.Extra = append(m.Extra, rr(ns+" 3600 IN A "+a))
			}
		case name == top && typ == dns.TypeSOA:
			m.Authoritative, m.Answer = true, []dns.RR{soa}
		case name == top && typ == dns.TypeNS:
			m.Authoritative, m.Answer = true, []dns.RR{rr(top + " 3600 IN NS root.com.")}
			m.Extra = []dns.RR{rr("root.com. 3600 IN A " + strings.TrimSuffix(addr, ":53"))}
		case name == "root.com." && typ == dns.TypeA:
			m.Authoritative, m.Answer = true, []dns.RR{rr("root.com. 3600 IN A " + strings.TrimSuffix(addr, ":53"))}
		default:
			m.Authoritative, m.Ns = true, []dns.RR{soa}
			if name != top && name != "root.com." && name != zoneName {
				m.Rcode = dns.RcodeNameError
			}
		}
		_ = w.WriteMsg(m)
	})
	for _, network := range []string{"udp", "tcp"} {
		started := make(chan struct{})
		s := &dns.Server{Addr: addr, Net: network, Handler: handler, NotifyStartedFunc: func() { close(started) }}
		done := make(chan error, 1)
		go func() { done <- s.ListenAndServe() }()
		select {
		case <-started:
			t.Cleanup(func() { _ = s.Shutdown(); <-done })
		case err := <-done:
			t.Fatalf("there is no port 53 for the test: %v", err)
		}
	}
}

// Zonemaster finds no fault in a zone and its servers. It takes minutes and asks on port 53, so that it runs only if told, as root and
// with the Debian package zonemaster-cli.
func TestZonemaster(t *testing.T) {
	if os.Getenv("DNS_ZONEMASTER") == "" {
		t.Skip("DNS_ZONEMASTER is not set")
	}
	program, err := exec.LookPath("zonemaster-cli")
	require.NoError(t, err)
	servers := map[string]string{"ns1." + zoneName: "127.53.0.2", "ns2." + zoneName: "127.53.0.3"}
	for _, addr := range servers {
		s, err := New(Options{Listen: net.JoinHostPort(addr, "53"), Zones: []Zone{{Name: zoneName, NameServers: []string{"ns1." + zoneName, "ns2." + zoneName}}}})
		if err != nil {
			t.Fatal(err)
		}
		load(t, s, parse(t, "ns1 A 3600 127.53.0.2\nns2 A 3600 127.53.0.3\n@ MX 3600 10 mail.example.com.\nmail A 20 127.53.0.9\nwww A 20 192.0.2.1"))
		run(t, s)
	}
	fakeRoot(t, "127.53.0.1:53", servers)
	hints := filepath.Join(testenv.Dir(t), "hints")
	require.NoError(t, os.WriteFile(hints, []byte(". 3600 IN NS root.com.\nroot.com. 3600 IN A 127.53.0.1\n"), 0o600))
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	for _, module := range []string{"Basic", "Syntax", "Consistency", "Delegation", "Nameserver", "Zone"} {
		out, err := exec.CommandContext(ctx, program, "--hints", hints, "--no-ipv6", "--level", "NOTICE", "--no-time", "--test", module, strings.TrimSuffix(zoneName, ".")).CombinedOutput()
		t.Logf("%s: %v\n%s", module, err, out)
		require.NoError(t, err)
		for line := range strings.Lines(string(out)) {
			require.False(t, strings.HasPrefix(line, "WARNING") || strings.HasPrefix(line, "ERROR") || strings.HasPrefix(line, "CRITICAL"), line)
		}
	}
}
