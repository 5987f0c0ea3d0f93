package nameserver

import (
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/miekg/dns"
	"github.com/stretchr/testify/require"
)

// The view is that of the address which the client really has, over UDP and TCP. Linux has all of 127.0.0.0/8.
func TestViewsOfRealClients(t *testing.T) {
	s, err := New(Options{Zones: []Zone{{Name: zoneName, Serial: 1, Inside: []netip.Prefix{netip.MustParsePrefix("127.0.0.2/32")}}}})
	require.NoError(t, err)
	load(t, s, parse(t, "int-www A 20 10.0.0.1\next-www A 20 192.0.2.1"))
	run(t, s)
	for from, want := range map[string]string{"127.0.0.2": "10.0.0.1", "127.0.0.1": "192.0.2.1", "127.0.0.3": "192.0.2.1"} {
		for network, local := range map[string]net.Addr{"udp": &net.UDPAddr{IP: net.ParseIP(from)}, "tcp": &net.TCPAddr{IP: net.ParseIP(from)}} {
			c := &dns.Client{Net: network, Timeout: 20 * time.Second, Dialer: &net.Dialer{LocalAddr: local}}
			m, _, err := c.ExchangeContext(t.Context(), new(dns.Msg).SetQuestion("www."+zoneName, dns.TypeA), s.Addr().String())
			require.NoError(t, err)
			require.Len(t, m.Answer, 1, "%s from %s", network, from)
			require.Equal(t, want, m.Answer[0].(*dns.A).A.String(), "%s from %s", network, from)
		}
	}
}
