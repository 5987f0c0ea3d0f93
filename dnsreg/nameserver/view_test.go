package nameserver

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/miekg/dns"
	"github.com/stretchr/testify/require"
)

// Clients of the inside networks get what "int-" before the name has, others what "ext-" has, and everybody what is at the
// name itself where there is neither.
func TestViews(t *testing.T) {
	s := newServer(t, `
int-www A 20 10.0.0.1
ext-www A 20 192.0.2.1
www A 20 192.0.2.9
www TXT 20 both
int-only A 20 10.0.0.2
int-alias CNAME 20 www.example.com.
alias CNAME 20 elsewhere.example.net.
int-x.deep A 20 10.0.0.3
plain A 20 192.0.2.5
*.wild A 20 192.0.2.6
int-q.wild A 20 10.0.0.6`, Zone{Name: "other.example.org."})
	z := s.names[zoneName]
	r := newResponder(s.zones)
	ask := func(from, name string, typ uint16) string {
		q, err := new(dns.Msg).SetQuestion(name, typ).Pack()
		require.NoError(t, err)
		r.from = netip.MustParseAddr(from)
		m := unpack(t, r.respond(q, false))
		var text strings.Builder
		text.WriteString(dns.RcodeToString[m.Rcode])
		for _, rr := range m.Answer {
			f := strings.Fields(rr.String())
			text.WriteString(" " + strings.TrimSuffix(f[0], "."+zoneName) + "=" + f[4])
		}
		return text.String()
	}
	const in, in6, out = "10.1.2.3", "fd00::1", "198.51.100.7"
	require.Equal(t, "NOERROR www=192.0.2.9", ask(in, "www."+zoneName, dns.TypeA), "without views")
	z.inside = []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("fd00::/8")}
	for _, c := range []struct{ from, name, want string }{
		{in, "www", "NOERROR www=10.0.0.1"},
		{"::ffff:" + in, "www", "NOERROR www=10.0.0.1"},
		{in6, "www", "NOERROR www=10.0.0.1"},
		{out, "www", "NOERROR www=192.0.2.1"},
		{out, "WWW", "NOERROR WWW=192.0.2.1"},
		{in, "int-www", "NOERROR int-www=10.0.0.1"},
		{out, "int-www", "NOERROR int-www=10.0.0.1"},
		{in, "only", "NOERROR only=10.0.0.2"},
		{out, "only", "NXDOMAIN"},
		{in, "alias", "NOERROR alias=www.example.com. www=10.0.0.1"},
		{out, "alias", "NOERROR alias=elsewhere.example.net."},
		{in, "x.deep", "NOERROR x.deep=10.0.0.3"},
		{in, "plain", "NOERROR plain=192.0.2.5"},
		{out, "plain", "NOERROR plain=192.0.2.5"},
		{in, "q.wild", "NOERROR q.wild=10.0.0.6"},
		{out, "q.wild", "NOERROR q.wild=192.0.2.6"},
		{in, "nope", "NXDOMAIN"},
		{in, strings.Repeat("a", 63), "NXDOMAIN"},
	} {
		require.Equal(t, c.want, ask(c.from, c.name+"."+zoneName, dns.TypeA), "%s asks for %s", c.from, c.name)
	}
	require.Equal(t, "NOERROR www=\"both\"", ask(in, "www."+zoneName, dns.TypeTXT), "types that the view does not have are those of the name")
	require.Equal(t, "NOERROR", ask(in, "only."+zoneName, dns.TypeTXT), "a name that is there in the view is not denied")

	_, err := New(Options{Zones: []Zone{{Name: zoneName, Inside: []netip.Prefix{{}}}}})
	require.EqualError(t, err, "nameserver: Zones[0].Inside[0] is invalid Prefix, want a network of IPv4 or IPv6")
	_, err = New(Options{Zones: []Zone{{Name: zoneName}}, MaxAnswers: -2})
	require.EqualError(t, err, "nameserver: MaxAnswers is -2, want 1 to 1048573, or -1 for no bound, or 0 for the default")
}
