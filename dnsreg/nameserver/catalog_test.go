package nameserver

import (
	"fmt"
	"net"
	"strconv"
	"testing"
	"time"

	"github.com/miekg/dns"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/scalr-go/scalr/dnsreg"
	"github.com/scalr-go/scalr/dnsreg/tsig"
	"github.com/scalr-go/scalr/internal/testenv"
)

// A real secondary that knows the catalog only serves every zone, and follows each.
func TestRealSecondariesFollowACatalog(t *testing.T) {
	const catalog, zones = "catalog.invalid.", 50
	for _, program := range []string{"named", "knotd"} {
		t.Run(program, func(t *testing.T) {
			leak := goleak.IgnoreCurrent()
			t.Cleanup(func() { goleak.VerifyNone(t, leak) })
			testenv.Need(t, program)
			port := testenv.FreePort(t)
			addr := net.JoinHostPort("127.0.0.1", strconv.Itoa(port))
			to := []Secondary{{Addr: addr, Key: readKey}}
			o := Options{Catalog: &Catalog{Name: catalog, Secondaries: to}}
			for i := range zones {
				o.Zones = append(o.Zones, Zone{Name: fmt.Sprintf("z%d.example.", i), Secondaries: to})
			}
			s, err := New(o)
			require.NoError(t, err)
			run(t, s)
			testenv.NameServer(t, program, testenv.DNS{Zone: catalog, Key: readKey, Primary: s.Addr().String(), Port: port, Catalog: true})
			for i := range zones {
				name := "www." + o.Zones[i].Name
				new := dnsreg.RRset{Name: name, Type: "A", TTL: time.Second, Values: []string{"192.0.2.1"}}
				require.NoError(t, s.Apply(t.Context(), o.Zones[i].Name, []dnsreg.Change{{Name: name, Type: "A", New: &new}}))
				until(t, addr, name, "192.0.2.1")
			}
		})
	}
}

// The catalog is for those who have its key, and for nobody else; and it is no zone to change.
func TestTheCatalogIsKeptFromOthers(t *testing.T) {
	const catalog = "catalog.invalid."
	to := []Secondary{{Addr: "127.0.0.1:1", Key: readKey}}
	s, err := New(Options{Zones: []Zone{{Name: zoneName}}, Catalog: &Catalog{Name: catalog, Secondaries: to}})
	require.NoError(t, err)
	defer s.Close()
	soa, err := new(dns.Msg).SetQuestion(catalog, dns.TypeSOA).Pack()
	require.NoError(t, err)
	require.Equal(t, dns.RcodeRefused, unpack(t, newResponder(s.zones).respond(soa, true)).Rcode)
	x := tsig.Exchange{Key: readKey}
	require.Len(t, unpack(t, newResponder(s.zones).respond(x.Sign(soa, time.Now()), true)).Answer, 1)
	_, err = s.Records(t.Context(), catalog)
	require.ErrorIs(t, err, dnsreg.ErrNoZone)

	for want, c := range map[string]Catalog{
		"nameserver: Catalog.Secondaries is empty, want at least one":            {Name: catalog},
		"nameserver: Catalog.Name is example.com., which is in Zones too":        {Name: zoneName, Secondaries: to},
		"nameserver: Catalog.Name: name \"\": invalid: is empty":                 {Secondaries: to},
		"nameserver: Catalog.Secondaries[0].Addr is \"nowhere\", want host:port": {Name: catalog, Secondaries: []Secondary{{Addr: "nowhere"}}},
	} {
		_, err := New(Options{Zones: []Zone{{Name: zoneName}}, Catalog: &c})
		require.EqualError(t, err, want)
	}
}
