// Package nameserver is an authoritative DNS server to embed, over UDP and TCP, that is itself a [dnsreg.Registrar]: what
// Apply has changed is answered from the next query on.
//
// # Answers
//
// It answers for its own zones only and refuses everything else; it never asks anybody. Answers are those of RFC 1034, 1035
// and 2308 (what does not exist is told apart from what has no such type, with the SOA), with wildcards (RFC 4592), CNAMEs
// followed within the zone, referrals with glue, EDNS (RFC 6891), and truncation with TCP to fall back on (RFC 7766). A
// question for ANY is answered by RFC 8482. The addresses of a name come in an order that changes from answer to answer, so
// that clients spread over them. What a client gets for odd queries is what RFC 8906 asks for.
//
// # Secondaries and updates
//
// Other name servers (BIND, Knot, NSD) serve a zone as its secondaries: they are told of each change (NOTIFY, RFC 1996) and
// transfer what is new (IXFR, RFC 1995) or the whole zone (AXFR, RFC 5936), over TCP. Others change it by dynamic updates
// (RFC 2136), package rfc2136 among them. All of that is signed by TSIG (RFC 8945, hmac-sha256): without a key that the
// zone names, transfers and updates are refused. A question that is signed gets a signed answer.
//
// # Views
//
// A zone can answer clients of some networks otherwise ([Zone.Inside]) out of one set of records: what stands at "int-www"
// is what they get for "www", and others get what stands at "ext-www".
//
// # Changes
//
// Each zone is an immutable snapshot behind an atomic pointer: a query sees all of a change set or nothing of it, and never
// waits. The names are in a persistent hash trie, so that a change costs what it changes, whatever the size of the zone. The
// SOA's serial goes up by one with each change set (RFC 1982). Everything is in memory: a program that starts again starts
// with empty zones, and its owners put their records back with [dnsreg.Sync]. They do that before [Server.Run]: until then
// queries wait and secondaries are told nothing, so that nobody ever gets an empty zone.
package nameserver

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"runtime"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/scalr-go/scalr/dnsreg"
	"github.com/scalr-go/scalr/dnsreg/internal/wire"
	"github.com/scalr-go/scalr/dnsreg/tsig"
)

// Options says where to listen and for which zones to answer.
type Options struct {
	// Listen is host:port for UDP and TCP. The host is an address of this machine, or empty for all of them; port 0 takes a
	// free one. Default "127.0.0.1:0".
	Listen string
	// Zones are what it is authoritative for. At least one.
	Zones []Zone
	// Catalog lists the zones for secondaries. Optional.
	Catalog *Catalog
	// Readers is how many UDP sockets share the port, each with a goroutine of its own (SO_REUSEPORT, on Linux; elsewhere
	// there is one). Default: one less than there are processors, for the embedding program to have one, but at least 1 and at
	// most 8.
	Readers int
	// MaxTCP is how many TCP connections may be open at once; more wait to be accepted. Default 256.
	MaxTCP int
	// TCPTimeout is how long a TCP connection may take to send a query, between queries too, and to take an answer. Default
	// 10 s.
	TCPTimeout time.Duration
	// MaxAnswers is how many answers about one name a client's network (/24 of IPv4, /56 of IPv6) gets over UDP in a second;
	// of what is above, every second one tells it to ask over TCP, and the others are not sent. So nobody can flood others by
	// asking in their name. Clients on this machine and those with a key are not bounded. Default 200; -1 is no bound.
	MaxAnswers int
}

// Zone is a zone to be authoritative for.
type Zone struct {
	// Name is the zone's name: "example.com.". Required.
	Name string
	// NameServers are the names of the zone's name servers, the primary first: its NS RRset and the SOA's first field. Those
	// within the zone need addresses, which are records like others. Default: "ns." before the zone's name.
	NameServers []string
	// Contact is the mailbox of who is responsible, as a mail address or as a name. Default: hostmaster at the zone's name.
	Contact string
	// NegativeTTL is how long a resolver may remember that a name or type does not exist, in whole seconds. Default 20 s.
	NegativeTTL time.Duration
	// Serial is the SOA's first serial. Default: the seconds since 1970, so that it goes up from one start to the next, unless
	// there was more than one change set a second in between: secondaries would keep what they have.
	Serial uint32
	// Secondaries are name servers that are told of each change and may transfer the zone. Optional.
	Secondaries []Secondary
	// Updaters may change the zone by dynamic updates (RFC 2136), and transfer it. Optional.
	Updaters []tsig.Key
	// Inside are the networks whose clients are told inside names: where the zone has "int-www" beside or in place of "www",
	// they get its records when they ask for "www", and all others get those of "ext-www". Where neither is, and from
	// secondaries, everybody gets those of "www" itself. Optional.
	Inside []netip.Prefix
	// History is how many change sets are kept, so that a secondary transfers those that it has not seen in place of the
	// whole zone. Default 1000.
	History int
}

// Secondary is a name server that gets a zone from this one.
type Secondary struct {
	// Addr is host:port of where it is told of changes (NOTIFY, RFC 1996), over UDP. It is told again, ever less often, up
	// to every 30 s, until it confirms. Required.
	Addr string
	// Key signs what either side says to the other. Required.
	Key tsig.Key
}

// apexTTL is the TTL of a zone's own SOA and NS.
const apexTTL = time.Hour

// Server is the name server. It is safe for concurrent use.
type Server struct {
	opts  Options
	zones map[string]*zone // by name in wire format
	names map[string]*zone // by name as text
	addr  netip.AddrPort
	any   bool     // it listens on all addresses of the machine
	limit *limiter // nil if there is no bound
	udp   []udpSocket
	tcp   *net.TCPListener

	mu      sync.Mutex
	started bool
	closed  bool
	conns   map[net.Conn]bool
}

var _ dnsreg.Registrar = (*Server)(nil)

// New makes a server and opens its sockets, so that its address is known; queries wait there until Run. A server that is
// never run is closed with Close. The error names the option that is wrong, or says why a socket could not be opened.
func New(o Options) (*Server, error) {
	if err := o.defaults(); err != nil {
		return nil, err
	}
	s := &Server{opts: o, zones: make(map[string]*zone), names: make(map[string]*zone), conns: make(map[net.Conn]bool)}
	if o.MaxAnswers > 0 {
		s.limit = newLimiter(o.MaxAnswers)
	}
	for _, spec := range o.Zones {
		if s.names[spec.Name] != nil {
			return nil, fmt.Errorf("nameserver: Zones has %s twice", spec.Name)
		}
		z, err := newZone(spec)
		if err != nil {
			return nil, fmt.Errorf("nameserver: %w", err)
		}
		s.names[spec.Name] = z
		s.zones[string(wire.AppendName(nil, spec.Name))] = z
	}
	if o.Catalog != nil {
		spec, err := o.Catalog.check(o.Zones)
		if err != nil {
			return nil, err
		}
		z, err := newZone(spec)
		if err == nil {
			z.hidden = true
			err = z.fill(o.Zones)
		}
		if err != nil {
			return nil, fmt.Errorf("nameserver: Catalog: %w", err)
		}
		s.zones[string(wire.AppendName(nil, spec.Name))] = z
	}
	if err := s.listen(); err != nil {
		return nil, err
	}
	return s, nil
}

// defaults fills in what is not set, and checks what is.
func (o *Options) defaults() error {
	if o.Listen == "" {
		o.Listen = "127.0.0.1:0"
	}
	if len(o.Zones) == 0 {
		return errors.New("nameserver: Zones is empty, want at least one")
	}
	for _, f := range []struct {
		name  string
		value *int
		def   int
	}{{"Readers", &o.Readers, min(max(runtime.GOMAXPROCS(0)-1, 1), 8)}, {"MaxTCP", &o.MaxTCP, 256}} {
		if *f.value < 0 {
			return fmt.Errorf("nameserver: %s is %d, want 1 or more, or 0 for the default", f.name, *f.value)
		}
		if *f.value == 0 {
			*f.value = f.def
		}
	}
	switch {
	case o.MaxAnswers < -1 || o.MaxAnswers > maxPerSecond:
		return fmt.Errorf("nameserver: MaxAnswers is %d, want 1 to %d, or -1 for no bound, or 0 for the default", o.MaxAnswers, maxPerSecond)
	case o.MaxAnswers == 0:
		o.MaxAnswers = 200
	}
	switch {
	case o.TCPTimeout < 0:
		return fmt.Errorf("nameserver: TCPTimeout is %v, want more than 0, or 0 for the default", o.TCPTimeout)
	case o.TCPTimeout == 0:
		o.TCPTimeout = 10 * time.Second
	}
	o.Zones = slices.Clone(o.Zones)
	for i := range o.Zones {
		if err := o.Zones[i].defaults(fmt.Sprintf("nameserver: Zones[%d]", i)); err != nil {
			return err
		}
	}
	return nil
}

func (z *Zone) defaults(where string) error {
	var err error
	if z.Name, err = dnsreg.CanonicalName(z.Name); err != nil {
		return fmt.Errorf("%s.Name: %w", where, err)
	}
	if z.Name == "." || strings.HasPrefix(z.Name, "*.") {
		return fmt.Errorf("%s.Name is %q, want a zone that is not the root and no wildcard", where, z.Name)
	}
	if len(z.NameServers) == 0 {
		z.NameServers = []string{"ns." + z.Name}
	}
	z.NameServers = slices.Clone(z.NameServers)
	for i, n := range z.NameServers {
		if z.NameServers[i], err = dnsreg.CanonicalName(n); err != nil {
			return fmt.Errorf("%s.NameServers[%d]: %w", where, i, err)
		}
	}
	if z.Contact == "" {
		z.Contact = "hostmaster." + z.Name
	}
	mailbox, domain, ok := strings.Cut(z.Contact, "@")
	if ok && strings.Contains(mailbox, ".") {
		return fmt.Errorf("%s.Contact is %q, want no dot before the @", where, z.Contact)
	}
	if ok {
		z.Contact = mailbox + "." + domain
	}
	if z.Contact, err = dnsreg.CanonicalName(z.Contact); err != nil {
		return fmt.Errorf("%s.Contact: %w", where, err)
	}
	if z.NegativeTTL < 0 || z.NegativeTTL%time.Second != 0 || z.NegativeTTL > 24*time.Hour {
		return fmt.Errorf("%s.NegativeTTL is %v, want whole seconds up to 24h, or 0 for the default", where, z.NegativeTTL)
	}
	if z.NegativeTTL == 0 {
		z.NegativeTTL = 20 * time.Second
	}
	if z.History < 0 {
		return fmt.Errorf("%s.History is %d, want 1 or more, or 0 for the default", where, z.History)
	}
	if z.History == 0 {
		z.History = 1000
	}
	z.Inside = slices.Clone(z.Inside)
	for i, p := range z.Inside {
		if !p.IsValid() || p.Addr().Is4In6() {
			return fmt.Errorf("%s.Inside[%d] is %v, want a network of IPv4 or IPv6", where, i, p)
		}
	}
	z.Secondaries, z.Updaters = slices.Clone(z.Secondaries), slices.Clone(z.Updaters)
	for i, s := range z.Secondaries {
		if _, port, err := net.SplitHostPort(s.Addr); err != nil || port == "" {
			return fmt.Errorf("%s.Secondaries[%d].Addr is %q, want host:port", where, i, s.Addr)
		}
		if err := s.Key.Check(); err != nil {
			return fmt.Errorf("%s.Secondaries[%d].Key: %w", where, i, err)
		}
	}
	for i, k := range z.Updaters {
		if err := k.Check(); err != nil {
			return fmt.Errorf("%s.Updaters[%d]: %w", where, i, err)
		}
	}
	if z.Serial == 0 {
		z.Serial = uint32(time.Now().Unix())
	}
	return nil
}

// responder gives one for a reader.
func (s *Server) responder() *responder {
	r := newResponder(s.zones)
	r.limits = s.limit
	return r
}

// Addr is where the server listens, for UDP and TCP.
func (s *Server) Addr() netip.AddrPort { return s.addr }

// Capabilities says that change sets are atomic and conditional, of any size and with any TTL.
func (s *Server) Capabilities() dnsreg.Capabilities {
	return dnsreg.Capabilities{Atomic: true, Preconditions: true}
}

// Records lists the zone.
func (s *Server) Records(ctx context.Context, zone string) ([]dnsreg.RRset, error) {
	z, err := s.zone(ctx, zone)
	if err != nil {
		return nil, err
	}
	return z.snap.Load().records(), nil
}

// Apply makes all changes or none. They are answered when it returns.
func (s *Server) Apply(ctx context.Context, zone string, changes []dnsreg.Change) error {
	if len(changes) == 0 {
		return nil
	}
	z, err := s.zone(ctx, zone)
	if err != nil {
		return err
	}
	if changes, err = dnsreg.CanonicalChanges(z.name, changes); err != nil {
		return err
	}
	return z.apply(changes)
}

func (s *Server) zone(ctx context.Context, name string) (*zone, error) {
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	name, err := dnsreg.CanonicalName(name)
	if err != nil {
		return nil, err
	}
	z := s.names[name]
	if z == nil {
		return nil, fmt.Errorf("%s: %w", name, dnsreg.ErrNoZone)
	}
	return z, nil
}
