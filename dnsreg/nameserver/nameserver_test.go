package nameserver

import (
	"context"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/scalr-go/scalr/dnsreg"
	"github.com/scalr-go/scalr/dnsreg/dnsregtest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const zoneName = "example.com."

// parse reads RRsets out of lines such as "www A 20 192.0.2.1": the name relative to the zone ("@" for the zone itself),
// type, TTL in seconds, one value. Lines of one RRset add up.
func parse(t require.TestingT, text string) []dnsreg.RRset {
	var sets []dnsreg.RRset
lines:
	for line := range strings.SplitSeq(text, "\n") {
		f := strings.SplitN(strings.TrimSpace(line), " ", 4)
		if len(f) < 4 {
			continue
		}
		r := dnsreg.RRset{Name: zoneName, Type: f[1], Values: []string{f[3]}}
		if f[0] != "@" {
			r.Name = f[0] + "." + zoneName
		}
		ttl, err := time.ParseDuration(f[2] + "s")
		require.NoError(t, err)
		r.TTL = ttl
		for i := range sets {
			if sets[i].Name == r.Name && sets[i].Type == r.Type {
				sets[i].Values = append(sets[i].Values, f[3])
				continue lines
			}
		}
		sets = append(sets, r)
	}
	return sets
}

// newServer makes a server for the zone that holds these records. Values at the apex of type NS replace the zone's own.
func newServer(t testing.TB, records string, more ...Zone) *Server {
	t.Helper()
	s, err := New(Options{Zones: append([]Zone{{Name: zoneName, Serial: 1}}, more...)})
	require.NoError(t, err)
	t.Cleanup(func() { s.Close() })
	load(t, s, parse(t, records))
	return s
}

func load(t require.TestingT, s *Server, sets []dnsreg.RRset) {
	have, err := s.Records(context.Background(), zoneName)
	require.NoError(t, err)
	var changes []dnsreg.Change
	for _, r := range sets {
		c := dnsreg.Change{Name: r.Name, Type: r.Type, New: &r}
		for _, h := range have {
			if h.Name == r.Name && h.Type == r.Type {
				c.Old = &h
			}
		}
		changes = append(changes, c)
	}
	require.NoError(t, s.Apply(context.Background(), zoneName, changes))
}

// run serves until the end of the test.
func run(t testing.TB, s *Server) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		select {
		case err := <-done:
			require.NoError(t, err)
		case <-time.After(10 * time.Second):
			t.Error("Run does not end with its context")
		}
	})
}

func TestConformance(t *testing.T) {
	dnsregtest.Run(t, func(t *testing.T) (dnsreg.Registrar, string) { return newServer(t, ""), zoneName })
}

func TestConformanceInOneZone(t *testing.T) {
	s := newServer(t, "")
	before := s.names[zoneName].snap.Load()
	dnsregtest.Run(t, func(t *testing.T) (dnsreg.Registrar, string) { return s, "Example.com." })
	after := s.names[zoneName].snap.Load()
	require.Equal(t, before.size, after.size)
	require.Zero(t, after.cuts)
	require.Zero(t, after.apex.kids, "empty names are left")
	require.Len(t, after.names.slots, 1)
}

func TestOptions(t *testing.T) {
	one := []Zone{{Name: zoneName}}
	for want, o := range map[string]Options{
		"nameserver: Zones is empty":                                                  {},
		`nameserver: Zones[0].Name: name "": invalid: is empty`:                       {Zones: []Zone{{}}},
		`nameserver: Zones[0].Name is ".", want a zone that is not the root`:          {Zones: []Zone{{Name: "."}}},
		"nameserver: Zones has example.com. twice":                                    {Zones: []Zone{{Name: zoneName}, {Name: "EXAMPLE.com"}}},
		`Zones[0].NameServers[1]: name "-": invalid`:                                  {Zones: []Zone{{Name: zoneName, NameServers: []string{"a", "-"}}}},
		"example.com. NS: invalid: value \".\" is the root":                           {Zones: []Zone{{Name: zoneName, NameServers: []string{"."}}}},
		`Zones[0].Contact is "a.b@example.com", want no dot before the @`:             {Zones: []Zone{{Name: zoneName, Contact: "a.b@example.com"}}},
		`Zones[0].Contact: name "a b": invalid`:                                       {Zones: []Zone{{Name: zoneName, Contact: "a b"}}},
		"Zones[0].NegativeTTL is 1.5s, want whole seconds":                            {Zones: []Zone{{Name: zoneName, NegativeTTL: 1500 * time.Millisecond}}},
		"nameserver: Readers is -1, want 1 or more, or 0 for the default":             {Zones: one, Readers: -1},
		"nameserver: MaxTCP is -1":                                                    {Zones: one, MaxTCP: -1},
		"nameserver: TCPTimeout is -1s":                                               {Zones: one, TCPTimeout: -time.Second},
		`nameserver: Listen "127.0.0.1": listen tcp: address 127.0.0.1: missing port`: {Zones: one, Listen: "127.0.0.1"},
	} {
		s, err := New(o)
		require.ErrorContains(t, err, want)
		require.Nil(t, s)
	}
}

func TestZoneOptions(t *testing.T) {
	s, err := New(Options{Zones: []Zone{{Name: "Example.COM", NameServers: []string{"ns2.example.net", "NS1.example.net."},
		Contact: "dns@example.net", NegativeTTL: 2 * time.Hour, Serial: 4294967294}}})
	require.NoError(t, err)
	defer s.Close()
	soa := func(serial string) string {
		return "ns2.example.net. dns.example.net. " + serial + " 3600 600 1209600 7200"
	}
	list, err := s.Records(t.Context(), zoneName)
	require.NoError(t, err)
	require.Equal(t, []dnsreg.RRset{
		{Name: zoneName, Type: "NS", TTL: time.Hour, Values: []string{"ns1.example.net.", "ns2.example.net."}},
		{Name: zoneName, Type: "SOA", TTL: time.Hour, Values: []string{soa("4294967294")}},
	}, list)

	// The serial goes up with each change set, around the corner too, and only if something changed.
	for _, serial := range []string{"4294967295", "1", "2"} {
		load(t, s, parse(t, "www TXT 20 "+serial))
		load(t, s, parse(t, "www TXT 20 "+serial))
		list, err = s.Records(t.Context(), zoneName)
		require.NoError(t, err)
		require.Equal(t, []string{soa(serial)}, list[1].Values)
	}

	// The TTL of a negative answer is not longer than the SOA's own (RFC 2308, section 5).
	m := ask(t, s, "nope.example.com.", dns.TypeA)
	require.EqualValues(t, 3600, m.Ns[0].Header().Ttl)
}

func TestASecondServerOnAPortIsAnError(t *testing.T) {
	s := newServer(t, "")
	_, err := New(Options{Listen: s.Addr().String(), Zones: []Zone{{Name: zoneName}}})
	require.ErrorContains(t, err, "address already in use")
}

func TestRunAndClose(t *testing.T) {
	s := newServer(t, "www A 20 192.0.2.1")
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	require.NoError(t, s.Run(ctx))
	require.ErrorContains(t, s.Run(t.Context()), "Run was called before")
	require.NoError(t, s.Close())
	_, err := net.DialTimeout("tcp", s.Addr().String(), time.Second)
	require.Error(t, err, "it listens still")
	load(t, s, parse(t, "www A 20 192.0.2.2"))
	list, err := s.Records(t.Context(), zoneName)
	require.NoError(t, err)
	require.Equal(t, []string{"192.0.2.2"}, list[2].Values)

	s = newServer(t, "")
	require.NoError(t, s.Close())
	require.ErrorContains(t, s.Run(t.Context()), "the server is closed")

	s = newServer(t, "")
	done := make(chan error, 1)
	go func() { done <- s.Run(context.Background()) }()
	for !s.isStarted() {
		time.Sleep(time.Millisecond)
	}
	require.NoError(t, s.Close())
	require.NoError(t, <-done)
}

func (s *Server) isStarted() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.started
}

// ask puts a question to the server without a socket.
func ask(t require.TestingT, s *Server, name string, typ uint16) *dns.Msg {
	q := new(dns.Msg).SetQuestion(name, typ)
	packed, err := q.Pack()
	require.NoError(t, err)
	return unpack(t, newResponder(s.zones).respond(packed, true))
}

func unpack(t require.TestingT, packed []byte) *dns.Msg {
	m := new(dns.Msg)
	require.NoError(t, m.Unpack(packed))
	return m
}
