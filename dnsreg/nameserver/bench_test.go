package nameserver

import (
	"context"
	"fmt"
	"net"
	"testing"
	"time"

	"github.com/miekg/dns"
	"github.com/stretchr/testify/require"

	"github.com/scalr-go/scalr/dnsreg"
)

// bigServer has a zone of n names with an address each.
func bigServer(b *testing.B, n int) *Server {
	b.Helper()
	s := newServer(b, "")
	changes := make([]dnsreg.Change, n)
	for i := range changes {
		r := address(i, i)
		changes[i] = dnsreg.Change{Name: r.Name, Type: r.Type, New: r}
	}
	require.NoError(b, s.Apply(context.Background(), zoneName, changes))
	return s
}

func address(i, v int) *dnsreg.RRset {
	return &dnsreg.RRset{Name: fmt.Sprintf("h%d.example.com.", i), Type: "A", TTL: 20 * time.Second,
		Values: []string{fmt.Sprintf("10.%d.%d.%d", v>>16&255, v>>8&255, v&255)}}
}

// BenchmarkRespond is a query without the socket.
func BenchmarkRespond(b *testing.B) {
	s := bigServer(b, 100_000)
	r := newResponder(s.zones)
	for what, name := range map[string]string{"address": "h77777.example.com.", "nxdomain": "nope.example.com.", "foreign": "example.net."} {
		msg, err := new(dns.Msg).SetQuestion(name, dns.TypeA).SetEdns0(1232, false).Pack()
		require.NoError(b, err)
		b.Run(what, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				r.respond(msg, false)
			}
		})
	}
}

// BenchmarkUDP is a query over a socket, the client's cost included.
func BenchmarkUDP(b *testing.B) {
	s := bigServer(b, 100_000)
	run(b, s)
	conn, err := net.Dial("udp", s.Addr().String())
	require.NoError(b, err)
	defer conn.Close()
	msg, err := new(dns.Msg).SetQuestion("h77777.example.com.", dns.TypeA).SetEdns0(1232, false).Pack()
	require.NoError(b, err)
	in := make([]byte, 1500)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := conn.Write(msg); err != nil {
			b.Fatal(err)
		}
		if _, err := conn.Read(in); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkApply is one change to zones of several sizes: it costs the same.
func BenchmarkApply(b *testing.B) {
	for _, size := range []int{1000, 100_000, 1_000_000} {
		b.Run(fmt.Sprint(size), func(b *testing.B) {
			s := bigServer(b, size)
			old := address(size/2, size/2)
			b.ReportAllocs()
			v := 0
			for b.Loop() {
				v++
				new := address(size/2, v)
				if err := s.Apply(context.Background(), zoneName, []dnsreg.Change{{Name: old.Name, Type: "A", Old: old, New: new}}); err != nil {
					b.Fatal(err)
				}
				old = new
			}
		})
	}
}

// BenchmarkLoad is a whole zone in one change set, and BenchmarkRecords its list.
func BenchmarkLoad(b *testing.B) {
	for b.Loop() {
		bigServer(b, 100_000)
	}
}

func BenchmarkRecords(b *testing.B) {
	s := bigServer(b, 100_000)
	for b.Loop() {
		if _, err := s.Records(context.Background(), zoneName); err != nil {
			b.Fatal(err)
		}
	}
}
