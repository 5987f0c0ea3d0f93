package nameserver

import (
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// exchange sends a message to the server over a real socket and gives what comes back, as bytes.
func exchange(t testing.TB, s *Server, network string, msg []byte) []byte {
	t.Helper()
	return exchangeWith(t, s.Addr().String(), network, msg)
}

func exchangeWith(t require.TestingT, addr, network string, msg []byte) []byte {
	conn, err := net.Dial(network, addr)
	require.NoError(t, err)
	defer conn.Close()
	require.NoError(t, conn.SetDeadline(time.Now().Add(10*time.Second)))
	if network == "udp" {
		_, err = conn.Write(msg)
		require.NoError(t, err)
		in := make([]byte, dns.MaxMsgSize)
		n, err := conn.Read(in)
		require.NoError(t, err)
		return in[:n]
	}
	_, err = conn.Write(append(binary.BigEndian.AppendUint16(nil, uint16(len(msg))), msg...))
	require.NoError(t, err)
	var size [2]byte
	_, err = io.ReadFull(conn, size[:])
	require.NoError(t, err)
	in := make([]byte, binary.BigEndian.Uint16(size[:]))
	_, err = io.ReadFull(conn, in)
	require.NoError(t, err)
	return in
}

// compliance is one check of how a server behaves.
type compliance struct {
	name   string
	ask    func(m *dns.Msg)
	tcp    bool
	rcode  int
	answer bool // the SOA is in it
	edns   bool // an EDNS record is in it
	do     bool
	tc     bool
	rd     bool
}

// rfc8906 are the checks of RFC 8906, section 8, and of the compliance tester that grew out of it (genreport).
func rfc8906() []compliance {
	edns := func(f func(o *dns.OPT, m *dns.Msg)) func(m *dns.Msg) {
		return func(m *dns.Msg) {
			o := &dns.OPT{Hdr: dns.RR_Header{Name: ".", Rrtype: dns.TypeOPT}}
			o.SetUDPSize(4096)
			m.Extra = append(m.Extra, o)
			if f != nil {
				f(o, m)
			}
		}
	}
	version1 := func(o *dns.OPT) { o.SetVersion(1) }
	unknownOption := func(o *dns.OPT) { o.Option = append(o.Option, &dns.EDNS0_LOCAL{Code: 100, Data: []byte{1, 2}}) }
	const unknownFlag = 0x40 // of the flags in an OPT's TTL
	option := func(opts ...dns.EDNS0) func(m *dns.Msg) {
		return edns(func(o *dns.OPT, _ *dns.Msg) { o.Option = opts })
	}
	nsid := &dns.EDNS0_NSID{Code: dns.EDNS0NSID}
	cookie := &dns.EDNS0_COOKIE{Code: dns.EDNS0COOKIE, Cookie: "0102030405060708"}
	expire := &dns.EDNS0_EXPIRE{Code: dns.EDNS0EXPIRE, Empty: true}
	subnet := &dns.EDNS0_SUBNET{Code: dns.EDNS0SUBNET, Family: 1, SourceNetmask: 24, Address: net.IP{192, 0, 2, 0}}
	keepalive := &dns.EDNS0_TCP_KEEPALIVE{Code: dns.EDNS0TCPKEEPALIVE}

	return []compliance{
		{name: "8.1.1 is the server there: SOA", answer: true},
		{name: "8.1.1 a type that is there is told from one that is not", ask: func(m *dns.Msg) { m.Question[0].Qtype = dns.TypeA }},
		{name: "8.1.2 an unknown type", ask: func(m *dns.Msg) { m.Question[0].Qtype = 1000 }},
		{name: "8.1.3.1 CD is set", ask: func(m *dns.Msg) { m.CheckingDisabled = true }, answer: true},
		{name: "8.1.3.2 AD is set", ask: func(m *dns.Msg) { m.AuthenticatedData = true }, answer: true},
		{name: "8.1.3.3 the reserved bit is set", ask: func(m *dns.Msg) { m.Zero = true }, answer: true},
		{name: "8.1.3.4 RD is set", ask: func(m *dns.Msg) { m.RecursionDesired = true }, answer: true, rd: true},
		{name: "AA is set", ask: func(m *dns.Msg) { m.Authoritative = true }, answer: true},
		{name: "TC is set", ask: func(m *dns.Msg) { m.Truncated = true }, answer: true},
		{name: "RA is set", ask: func(m *dns.Msg) { m.RecursionAvailable = true }, answer: true},
		{name: "8.1.4 an unknown opcode, header only", ask: func(m *dns.Msg) { m.Opcode, m.Question = 15, nil }, rcode: dns.RcodeNotImplemented},
		{name: "an unknown opcode with all flags", ask: func(m *dns.Msg) {
			m.Opcode, m.RecursionDesired, m.AuthenticatedData, m.CheckingDisabled, m.Zero, m.Truncated = 15, true, true, true, true, true
		}, rcode: dns.RcodeNotImplemented, rd: true},
		{name: "8.1.5 TCP", tcp: true, answer: true},
		{name: "8.2.1 EDNS version 0", ask: edns(nil), answer: true, edns: true},
		{name: "8.2.2 EDNS version 1", ask: edns(func(o *dns.OPT, _ *dns.Msg) { version1(o) }), rcode: dns.RcodeBadVers, edns: true},
		{name: "8.2.3 an unknown EDNS option", ask: edns(func(o *dns.OPT, _ *dns.Msg) { unknownOption(o) }), answer: true, edns: true},
		{name: "8.2.4 unknown EDNS flags", ask: edns(func(o *dns.OPT, _ *dns.Msg) { o.Hdr.Ttl |= unknownFlag }), answer: true, edns: true},
		{name: "8.2.5 EDNS version 1 with unknown flags", ask: edns(func(o *dns.OPT, _ *dns.Msg) { version1(o); o.Hdr.Ttl |= unknownFlag }),
			rcode: dns.RcodeBadVers, edns: true},
		{name: "8.2.6 EDNS version 1 with an unknown option", ask: edns(func(o *dns.OPT, _ *dns.Msg) { version1(o); unknownOption(o) }),
			rcode: dns.RcodeBadVers, edns: true},
		{name: "8.2.7 a truncated answer has EDNS too", ask: edns(func(o *dns.OPT, m *dns.Msg) {
			o.SetUDPSize(512)
			m.Question[0] = dns.Question{Name: "big.example.com.", Qtype: dns.TypeTXT, Qclass: dns.ClassINET}
		}), edns: true, tc: true},
		{name: "8.2.8 DO is set", ask: edns(func(o *dns.OPT, _ *dns.Msg) { o.SetDo() }), answer: true, edns: true, do: true},
		{name: "8.2.9 EDNS version 1 with DO", ask: edns(func(o *dns.OPT, _ *dns.Msg) { version1(o); o.SetDo() }),
			rcode: dns.RcodeBadVers, edns: true, do: true},
		{name: "8.2.10 several EDNS options", ask: option(nsid, cookie, expire, subnet), answer: true, edns: true},
		{name: "EDNS option NSID", ask: option(nsid), answer: true, edns: true},
		{name: "EDNS option COOKIE", ask: option(cookie), answer: true, edns: true},
		{name: "EDNS option EXPIRE", ask: option(expire), answer: true, edns: true},
		{name: "EDNS option SUBNET", ask: option(subnet), answer: true, edns: true},
		{name: "EDNS option KEEPALIVE over TCP", ask: option(keepalive), tcp: true, answer: true, edns: true},
		{name: "EDNS with the smallest size", ask: edns(func(o *dns.OPT, _ *dns.Msg) { o.SetUDPSize(512) }), answer: true, edns: true},
		{name: "EDNS with a size that is too small", ask: edns(func(o *dns.OPT, _ *dns.Msg) { o.SetUDPSize(0) }), answer: true, edns: true},
		{name: "EDNS over TCP with a small size is not truncated", tcp: true, ask: edns(func(o *dns.OPT, m *dns.Msg) {
			o.SetUDPSize(512)
			m.Question[0] = dns.Question{Name: "big.example.com.", Qtype: dns.TypeTXT, Qclass: dns.ClassINET}
		}), edns: true},
	}
}

// faults are those that a check finds.
type faults []string

func (f *faults) Errorf(format string, args ...any) { *f = append(*f, fmt.Sprintf(format, args...)) }

// check asks a server over real sockets.
func (c compliance) check(t *testing.T, addr string) (found faults) {
	t.Helper()
	q := new(dns.Msg).SetQuestion(zoneName, dns.TypeSOA)
	q.RecursionDesired = false
	if c.ask != nil {
		c.ask(q)
	}
	network := "udp"
	if c.tcp {
		network = "tcp"
	}
	packed, err := q.Pack()
	require.NoError(t, err)
	m := unpack(t, exchangeWith(t, addr, network, packed))

	assert.Equal(&found, q.Id, m.Id)
	assert.True(&found, m.Response)
	assert.Equal(&found, q.Opcode, m.Opcode)
	assert.Equal(&found, c.rcode, m.Rcode)
	assert.Equal(&found, c.rcode == dns.RcodeSuccess, m.Authoritative, "AA")
	assert.Equal(&found, c.tc, m.Truncated, "TC")
	assert.Equal(&found, c.rd, m.RecursionDesired, "RD")
	assert.False(&found, m.RecursionAvailable, "RA")
	assert.False(&found, m.AuthenticatedData, "AD")
	assert.False(&found, m.CheckingDisabled, "CD")
	assert.False(&found, m.Zero, "the reserved bit")
	if q.Opcode == dns.OpcodeQuery {
		assert.Equal(&found, q.Question, m.Question)
	}
	soa := len(m.Answer) == 1 && m.Answer[0].Header().Rrtype == dns.TypeSOA
	assert.Equal(&found, c.answer, soa, "SOA in the answer")
	o := m.IsEdns0()
	assert.Equal(&found, c.edns, o != nil, "EDNS")
	if o != nil {
		assert.Zero(&found, o.Version())
		assert.EqualValues(&found, maxUDP, o.UDPSize())
		assert.Equal(&found, c.do, o.Do(), "DO")
		assert.Zero(&found, o.Hdr.Ttl&0x7fff, "unknown EDNS flags")
		assert.Empty(&found, o.Option, "EDNS options that it does not know")
	}
	return found
}

// TestRFC8906 holds our server to every check. NSD, with the same zone, tells whether they are asked for rightly.
func TestRFC8906(t *testing.T) {
	ours := newServer(t, "big TXT 20 "+strings.Repeat("x", 600))
	run(t, ours)
	nsd := realServer(t, "nsd", ours)
	differs := 0
	for _, c := range rfc8906() {
		t.Run(c.name, func(t *testing.T) {
			require.Empty(t, c.check(t, ours.Addr().String()))
			if found := c.check(t, nsd); len(found) > 0 {
				differs++
				t.Logf("NSD: %s", found)
			}
		})
	}
	require.LessOrEqual(t, differs, len(rfc8906())/10, "of the checks NSD does not pass these")
}
