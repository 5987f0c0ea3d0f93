package nameserver

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/miekg/dns"
	"github.com/stretchr/testify/require"

	"github.com/scalr-go/scalr/dnsreg"
	"github.com/scalr-go/scalr/internal/testenv"
)

func TestClientOfALibrary(t *testing.T) {
	s := newServer(t, testZone+"\nbig TXT 20 "+strings.Repeat("x", 2000))
	run(t, s)
	for _, network := range []string{"udp", "tcp"} {
		c := &dns.Client{Net: network, Timeout: 10 * time.Second}
		m, _, err := c.Exchange(new(dns.Msg).SetQuestion("alias2.example.com.", dns.TypeA), s.Addr().String())
		require.NoError(t, err)
		require.Equal(t, "NOERROR aa\nalias2 30 CNAME alias\nalias 30 CNAME www\nwww 20 A 192.0.2.1", show(m))
		m, _, err = c.Exchange(new(dns.Msg).SetQuestion("big.example.com.", dns.TypeTXT), s.Addr().String())
		require.NoError(t, err)
		require.Equal(t, network == "udp", m.Truncated)
	}
}

func TestResolverOfTheStandardLibrary(t *testing.T) {
	s := newServer(t, testZone+"\nmany A 20 192.0.2.1\nmany A 20 192.0.2.2\nbig TXT 20 "+strings.Repeat("x", 2000))
	run(t, s)
	r := &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, network, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, network, s.Addr().String())
	}}
	addrs, err := r.LookupHost(t.Context(), "many.example.com.")
	require.NoError(t, err)
	require.ElementsMatch(t, []string{"192.0.2.1", "192.0.2.2"}, addrs)
	texts, err := r.LookupTXT(t.Context(), "big.example.com.") // by TCP, since UDP has no room
	require.NoError(t, err)
	require.Equal(t, []string{strings.Repeat("x", 2000)}, texts)
	_, err = r.LookupHost(t.Context(), "nope.example.com.")
	notFound, ok := errors.AsType[*net.DNSError](err)
	require.True(t, ok && notFound.IsNotFound, "%v", err)
}

func TestDig(t *testing.T) {
	dig := testenv.Need(t, "dig")[0]
	s := newServer(t, testZone+"\nbig TXT 20 "+strings.Repeat("x", 2000)+"\nquote TXT 20 say \"hi\"; \\ back")
	run(t, s)
	for _, c := range []struct{ args, want string }{
		{"www A", "192.0.2.1"},
		{"alias2 AAAA", "alias.example.com.\nwww.example.com.\n2001:db8::1"},
		{"any.wild MX", "10 mail.example.com."},
		{"_sip._tcp SRV", "1 2 5060 www.example.com."},
		{"quote TXT", `"say \"hi\"; \\ back"`},
		{"www A +tcp", "192.0.2.1"},
		{"big TXT", `"` + strings.Repeat("x", 255) + `"`}, // by TCP after a truncated answer
	} {
		name, rest, _ := strings.Cut(c.args, " ")
		out := runDig(t, dig, s, append([]string{"+short", name + ".example.com."}, strings.Fields(rest)...)...)
		require.True(t, strings.HasPrefix(out, c.want), "%s: %s", c.args, out)
	}
	out := runDig(t, dig, s, "nope.example.com.", "A", "+norecurse")
	for _, want := range []string{"status: NXDOMAIN", "flags: qr aa;", "EDNS: version: 0, flags:; udp: 1232", "hostmaster.example.com. 2 3600"} {
		require.Contains(t, out, want)
	}
	require.NotContains(t, out, "WARNING")
	require.Contains(t, runDig(t, dig, s, "x.sub.example.com.", "A", "+norecurse"), "ADDITIONAL: 4")
	require.Contains(t, runDig(t, dig, s, "www.example.net."), "status: REFUSED")
	require.Contains(t, runDig(t, dig, s, "AXFR", "example.com."), "Transfer failed")
	require.Contains(t, runDig(t, dig, s, "+edns=1", "+noednsnegotiation", "www.example.com."), "status: BADVERS")
	require.Contains(t, runDig(t, dig, s, "+opcode=7", "+noedns", "www.example.com."), "status: NOTIMP")
	require.Contains(t, runDig(t, dig, s, "ANY", "www.example.com."), `HINFO	"RFC8482" ""`)
}

func runDig(t *testing.T, dig string, s *Server, args ...string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	args = append([]string{"-r", "@" + s.Addr().Addr().String(), "-p", fmt.Sprint(s.Addr().Port()), "+timeout=5", "+tries=2"}, args...)
	out, err := exec.CommandContext(ctx, dig, args...).CombinedOutput()
	require.NoError(t, err, "%s", out)
	return string(out)
}

// Several queries over one connection are answered in order, also when they come in pieces.
func TestTCPPipelining(t *testing.T) {
	s := newServer(t, testZone)
	run(t, s)
	conn, err := net.Dial("tcp", s.Addr().String())
	require.NoError(t, err)
	defer conn.Close()
	require.NoError(t, conn.SetDeadline(time.Now().Add(20*time.Second)))
	var all []byte
	for i := range 20 {
		q := new(dns.Msg).SetQuestion("www.example.com.", dns.TypeA)
		q.Id = uint16(i)
		packed, err := q.Pack()
		require.NoError(t, err)
		all = append(binary.BigEndian.AppendUint16(all, uint16(len(packed))), packed...)
	}
	for piece := range slices.Chunk(all, 100) {
		_, err = conn.Write(piece)
		require.NoError(t, err)
	}
	in := &dns.Conn{Conn: conn}
	for i := range 20 {
		m, err := in.ReadMsg()
		require.NoError(t, err)
		require.EqualValues(t, i, m.Id)
		require.Len(t, m.Answer, 1)
	}
}

func TestTCPQueriesOfAnySize(t *testing.T) {
	s := newServer(t, testZone)
	run(t, s)
	for _, size := range []int{400, 2000, 60000} {
		q := new(dns.Msg).SetQuestion("www.example.com.", dns.TypeA).SetEdns0(1232, false)
		q.IsEdns0().Option = append(q.IsEdns0().Option, &dns.EDNS0_PADDING{Padding: make([]byte, size)})
		packed, err := q.Pack()
		require.NoError(t, err)
		require.Equal(t, "NOERROR aa\nwww 20 A 192.0.2.1", show(unpack(t, exchange(t, s, "tcp", packed))))
		if size < 60000 {
			require.Equal(t, "NOERROR aa\nwww 20 A 192.0.2.1", show(unpack(t, exchange(t, s, "udp", packed))))
		}
	}
}

// A connection that is accepted while the server closes is closed too.
func TestNoConnectionIsHeldAfterClose(t *testing.T) {
	s := newServer(t, "")
	near, far := net.Pipe()
	defer near.Close()
	defer far.Close()
	require.True(t, s.hold(near))
	s.release(near)
	require.Zero(t, s.open())
	require.NoError(t, s.Close())
	require.False(t, s.hold(near))
}

// closedByServer reports that the other side has ended the connection within a bounded time.
func closedByServer(conn net.Conn) error {
	if err := conn.SetDeadline(time.Now().Add(20 * time.Second)); err != nil {
		return err
	}
	_, err := conn.Read(make([]byte, 1))
	if errors.Is(err, os.ErrDeadlineExceeded) || err == nil {
		return fmt.Errorf("the connection is open still: %w", err)
	}
	return nil
}

func TestTCPClientsThatDoNotAskAreEnded(t *testing.T) {
	s, err := New(Options{Zones: []Zone{{Name: zoneName}}, TCPTimeout: 50 * time.Millisecond})
	require.NoError(t, err)
	run(t, s)
	for what, send := range map[string][]byte{
		"nothing": nil, "half a length": {0}, "half a message": {0, 50, 1, 2, 3}, "no message": {0, 0}, "a short one": {0, 3, 1, 2, 3},
		"an answer": {0, 12, 0, 0, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0},
	} {
		t.Run(what, func(t *testing.T) {
			conn, err := net.Dial("tcp", s.Addr().String())
			require.NoError(t, err)
			defer conn.Close()
			_, err = conn.Write(send)
			require.NoError(t, err)
			require.NoError(t, closedByServer(conn))
		})
	}
}

// A client that sends a byte now and then does not keep its connection: the time is for the whole message.
func TestTCPSlowClientIsEnded(t *testing.T) {
	s, err := New(Options{Zones: []Zone{{Name: zoneName}}, TCPTimeout: 200 * time.Millisecond})
	require.NoError(t, err)
	run(t, s)
	conn, err := net.Dial("tcp", s.Addr().String())
	require.NoError(t, err)
	defer conn.Close()
	end := time.Now().Add(20 * time.Second)
	for time.Now().Before(end) {
		if _, err := conn.Write([]byte{1}); err != nil {
			return
		}
		time.Sleep(20 * time.Millisecond)
	}
	t.Error("the connection is open still")
}

func TestTCPConnectionsAreBounded(t *testing.T) {
	s, err := New(Options{Zones: []Zone{{Name: zoneName}}, MaxTCP: 3})
	require.NoError(t, err)
	run(t, s)
	query := append([]byte{0, 12}, make([]byte, 12)...)
	var conns []net.Conn
	for range 3 {
		conn, err := net.Dial("tcp", s.Addr().String())
		require.NoError(t, err)
		defer conn.Close()
		require.NoError(t, conn.SetDeadline(time.Now().Add(20*time.Second)))
		_, err = conn.Write(query)
		require.NoError(t, err)
		_, err = io.ReadFull(conn, make([]byte, 14))
		require.NoError(t, err)
		conns = append(conns, conn)
	}
	waits, err := net.Dial("tcp", s.Addr().String()) // the kernel takes it; the server does not
	require.NoError(t, err)
	defer waits.Close()
	_, err = waits.Write(query)
	require.NoError(t, err)
	require.NoError(t, waits.SetDeadline(time.Now().Add(100*time.Millisecond)))
	_, err = waits.Read(make([]byte, 14))
	require.ErrorIs(t, err, os.ErrDeadlineExceeded)
	require.Equal(t, 3, s.open())

	require.NoError(t, conns[1].Close())
	require.NoError(t, waits.SetDeadline(time.Now().Add(20*time.Second)))
	_, err = io.ReadFull(waits, make([]byte, 14))
	require.NoError(t, err)
}

// open says how many TCP connections are held.
func (s *Server) open() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.conns)
}

// Open connections do not keep Run from ending.
func TestRunEndsWithOpenConnections(t *testing.T) {
	s := newServer(t, "")
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	conn, err := net.Dial("tcp", s.Addr().String())
	require.NoError(t, err)
	defer conn.Close()
	_, err = conn.Write([]byte{0})
	require.NoError(t, err)
	for s.open() == 0 {
		time.Sleep(time.Millisecond)
	}
	cancel()
	select {
	case err := <-done:
		require.NoError(t, err)
	case <-time.After(8 * time.Second):
		t.Error("Run waits for the client")
	}
	require.NoError(t, closedByServer(conn))
}

// While change sets are applied, no client sees a part of one: two names always point to the same machine.
func TestClientsNeverSeeHalfAChangeSet(t *testing.T) {
	s := newServer(t, "a A 20 192.0.2.0\nb A 20 192.0.2.0\nboth CNAME 20 a.example.com.")
	run(t, s)
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	var wg sync.WaitGroup
	var queries atomic.Int64
	for i := range 3 {
		wg.Go(func() {
			network := []string{"udp", "tcp", "udp"}[i]
			conn, err := dns.DialTimeout(network, s.Addr().String(), 10*time.Second)
			if err != nil {
				t.Error(err)
				return
			}
			defer conn.Close()
			// One message holds the CNAME and what it points to, which move in one change set: never an answer without both.
			q := new(dns.Msg).SetQuestion("both.example.com.", dns.TypeA)
			for ctx.Err() == nil {
				if err := conn.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
					t.Error(err)
				}
				if err := conn.WriteMsg(q); err != nil {
					t.Error(err)
					return
				}
				m, err := conn.ReadMsg()
				if err != nil {
					t.Error(err)
					return
				}
				queries.Add(1)
				if len(m.Answer) != 2 || m.Rcode != dns.RcodeSuccess {
					t.Errorf("half a change set: %v", m)
					return
				}
			}
		})
	}
	set := func(name, typ, value string) *dnsreg.RRset {
		return &dnsreg.RRset{Name: name + "." + zoneName, Type: typ, TTL: 20 * time.Second, Values: []string{value}}
	}
	c := func(old, new *dnsreg.RRset) dnsreg.Change {
		if new == nil {
			return dnsreg.Change{Name: old.Name, Type: old.Type, Old: old}
		}
		return dnsreg.Change{Name: new.Name, Type: new.Type, Old: old, New: new}
	}
	// The target is removed and the CNAME points to another one, made in the same set, again and again.
	from := set("a", "A", "192.0.2.0")
	for i := 1; i < 300 || queries.Load() < 300; i++ {
		name := fmt.Sprintf("t%d", i)
		to := set(name, "A", fmt.Sprintf("192.0.2.%d", i%250))
		require.NoError(t, s.Apply(ctx, zoneName, []dnsreg.Change{
			c(from, nil),
			c(set("both", "CNAME", from.Name), set("both", "CNAME", to.Name)),
			c(nil, to),
		}))
		from = to
		if t.Failed() {
			break
		}
	}
	stop()
	wg.Wait()
}

// Concurrent owners sync while clients ask; at the end everything is as each wants it.
func TestOwnersSyncConcurrently(t *testing.T) {
	s := newServer(t, "")
	run(t, s)
	var wg sync.WaitGroup
	for i := range 4 {
		wg.Go(func() {
			owner := fmt.Sprintf("farm-%d", i)
			for n := range 10 {
				want := []dnsreg.RRset{{Name: "www.example.com.", Type: "A", TTL: 20 * time.Second, Values: []string{fmt.Sprintf("192.0.%d.%d", i, n)}}}
				for {
					if _, err := dnsreg.Sync(t.Context(), s, zoneName, owner, want); err == nil {
						break
					} else if !errors.Is(err, dnsreg.ErrConflict) {
						t.Error(err)
						return
					}
				}
			}
		})
	}
	wg.Wait()
	m := ask(t, s, "www.example.com.", dns.TypeA)
	require.ElementsMatch(t, []string{"192.0.0.9", "192.0.1.9", "192.0.2.9", "192.0.3.9"}, func() (list []string) {
		for _, rr := range m.Answer {
			list = append(list, rr.(*dns.A).A.String())
		}
		return list
	}())
}

// Who asks before Run waits, and gets what was put there before it: never an empty zone.
func TestNobodySeesAZoneBeforeItIsFull(t *testing.T) {
	s, err := New(Options{Zones: []Zone{{Name: zoneName, Serial: 1}}})
	require.NoError(t, err)
	q, err := new(dns.Msg).SetQuestion("www."+zoneName, dns.TypeA).Pack()
	require.NoError(t, err)
	udp, err := net.Dial("udp", s.Addr().String())
	require.NoError(t, err)
	defer udp.Close()
	tcp, err := net.Dial("tcp", s.Addr().String())
	require.NoError(t, err)
	defer tcp.Close()
	for _, conn := range []net.Conn{&dns.Conn{Conn: udp}, &dns.Conn{Conn: tcp}} {
		_, err = conn.Write(q)
		require.NoError(t, err)
	}
	load(t, s, parse(t, "www A 20 192.0.2.1"))
	run(t, s)
	for _, conn := range []*dns.Conn{{Conn: udp}, {Conn: tcp}} {
		require.NoError(t, conn.SetReadDeadline(time.Now().Add(20*time.Second)))
		m, err := conn.ReadMsg()
		require.NoError(t, err)
		require.Len(t, m.Answer, 1)
	}
}
