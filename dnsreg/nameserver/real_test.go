package nameserver

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"
	"github.com/stretchr/testify/require"

	"github.com/scalr-go/scalr/dnsreg"
	"github.com/scalr-go/scalr/internal/testenv"
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
			if r.Type == "TXT" { // in strings of at most 255 bytes
				var parts []string
				for part := range slices.Chunk([]byte(v), 255) {
					parts = append(parts, `"`+string(part)+`"`)
				}
				v = strings.Join(parts, " ")
			}
			fmt.Fprintf(&b, "%s %d IN %s %s\n", r.Name, r.TTL/time.Second, r.Type, v)
		}
	}
	return b.String()
}

// realServer runs one of testenv.NameServers with the zone of our server, and gives its address when it has loaded it.
func realServer(t *testing.T, program string, ours *Server) string {
	t.Helper()
	real := testenv.NameServer(t, program, testenv.DNS{Zone: zoneName, File: zoneFile(t, ours)})
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	client := &dns.Client{Net: "tcp", Timeout: 10 * time.Second}
	for {
		m, _, err := client.ExchangeContext(ctx, new(dns.Msg).SetQuestion(zoneName, dns.TypeSOA), real.Addr)
		if err == nil && m.Rcode == dns.RcodeSuccess {
			return real.Addr
		}
		select {
		case <-time.After(20 * time.Millisecond):
		case <-ctx.Done():
			t.Fatalf("%v %v\n%s", err, m, real.Output())
		}
	}
}

// differs are questions that one server alone answers otherwise: with SERVFAIL, and the same CNAMEs.
var differs = map[string][]string{"named": {"loop1 A", "q.wildloop A"}}

// Our answers are those of NSD, Knot and BIND for the same zone.
func TestAnswersEqualThoseOfRealServers(t *testing.T) {
	ours := newServer(t, testZone)
	for _, program := range testenv.NameServers {
		t.Run(program, func(t *testing.T) {
			client := &dns.Client{Net: "tcp", Timeout: 10 * time.Second}
			addr := realServer(t, program, ours)
			for _, q := range testAnswers {
				typ, ok := dns.StringToType[q.typ]
				if !ok || typ == dns.TypeANY || typ >= 250 || typ == dns.TypeOPT {
					continue
				}
				name := zoneName
				if q.name != "" {
					name = q.name + "." + zoneName
				}
				theirs, _, err := client.ExchangeContext(t.Context(), new(dns.Msg).SetQuestion(name, typ), addr)
				require.NoError(t, err)
				if slices.Contains(differs[program], q.name+" "+q.typ) {
					require.Equal(t, dns.RcodeServerFailure, theirs.Rcode)
					theirs.Rcode = dns.RcodeSuccess
				}
				want, got := comparable(theirs), comparable(ask(t, ours, name, typ))
				require.Equal(t, want, got, "%s %s: want what %s says", name, q.typ, program)
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
