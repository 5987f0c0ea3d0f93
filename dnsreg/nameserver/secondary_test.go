package nameserver

import (
	"context"
	"fmt"
	"net"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/miekg/dns"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/scalr-go/scalr/dnsreg"
	"github.com/scalr-go/scalr/dnsreg/tsig"
	"github.com/scalr-go/scalr/internal/testenv"
)

// until asks a server until it answers with exactly these addresses, and gives how long that took.
func until(t testing.TB, addr, name string, want ...string) time.Duration {
	t.Helper()
	client := &dns.Client{Timeout: time.Second}
	q := new(dns.Msg).SetQuestion(name, dns.TypeA)
	start := time.Now()
	var last *dns.Msg
	var lastErr error
	for time.Since(start) < 20*time.Second {
		m, _, err := client.ExchangeContext(t.Context(), q, addr)
		last, lastErr = m, err
		if err == nil {
			var got []string
			for _, rr := range m.Answer {
				got = append(got, rr.(*dns.A).A.String())
			}
			slices.Sort(got)
			if slices.Equal(got, want) {
				return time.Since(start)
			}
		}
		time.Sleep(200 * time.Microsecond)
	}
	t.Fatalf("%s: %v %v, want %v", addr, last, lastErr, want)
	return 0
}

// Real secondaries follow every change, one that was away catches up, and they have what the primary has.
func TestRealSecondariesFollow(t *testing.T) {
	for _, program := range testenv.NameServers {
		t.Run(program, func(t *testing.T) {
			leak := goleak.IgnoreCurrent()
			t.Cleanup(func() { goleak.VerifyNone(t, leak) })
			testenv.Need(t, program)
			port := testenv.FreePort(t)
			addr := net.JoinHostPort("127.0.0.1", strconv.Itoa(port))
			s, err := New(Options{Zones: []Zone{{Name: zoneName, Serial: 1, Secondaries: []Secondary{{Addr: addr, Key: readKey}}}}})
			require.NoError(t, err)
			load(t, s, parse(t, "start A 20 192.0.2.1"))
			run(t, s)
			secondary := testenv.NameServer(t, program, testenv.DNS{Zone: zoneName, Key: readKey, Primary: s.Addr().String(), Port: port})
			until(t, addr, "start."+zoneName, "192.0.2.1")

			name := "www." + zoneName
			var old *dnsreg.RRset
			var took []time.Duration
			change := func(i int) {
				new := &dnsreg.RRset{Name: name, Type: "A", TTL: time.Second, Values: []string{fmt.Sprintf("192.0.2.%d", i+1)}}
				require.NoError(t, s.Apply(t.Context(), zoneName, []dnsreg.Change{{Name: name, Type: "A", Old: old, New: new}}))
				old = new
			}
			for i := range 40 {
				change(i)
				took = append(took, until(t, addr, name, old.Values[0]))
			}
			slices.Sort(took)
			t.Logf("%s: update to answer, median %v, worst %v", program, took[len(took)/2], took[len(took)-1])

			require.NoError(t, secondary.Hang(t.Context()))
			for i := range 5 {
				change(100 + i)
			}
			require.NoError(t, secondary.Resume(t.Context()))
			until(t, addr, name, old.Values[0])
		})
	}
}

// A secondary is told again until it confirms, with its key, and of what is new meanwhile.
func TestASecondaryIsToldUntilItConfirms(t *testing.T) {
	defer goleak.VerifyNone(t, goleak.IgnoreCurrent())
	conn, err := net.ListenPacket("udp", "127.0.0.1:0")
	require.NoError(t, err)
	defer conn.Close()
	s, err := New(Options{Zones: []Zone{{Name: zoneName, Serial: 1, Secondaries: []Secondary{{Addr: conn.LocalAddr().String(), Key: readKey}}}}})
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() { _ = s.Run(ctx) })
	defer func() { cancel(); wg.Wait() }()

	buf := make([]byte, 65535)
	told := func() (serial uint32, answer func(key tsig.Key, rcode int)) {
		require.NoError(t, conn.SetReadDeadline(time.Now().Add(20*time.Second)))
		n, from, err := conn.ReadFrom(buf)
		require.NoError(t, err)
		x, body, err := tsig.Receive([]tsig.Key{readKey}, buf[:n], time.Now())
		require.NoError(t, err)
		m := unpack(t, body)
		require.Equal(t, dns.OpcodeNotify, m.Opcode)
		require.True(t, m.Authoritative)
		require.Equal(t, dns.Question{Name: zoneName, Qtype: dns.TypeSOA, Qclass: dns.ClassINET}, m.Question[0])
		return m.Answer[0].(*dns.SOA).Serial, func(key tsig.Key, rcode int) {
			reply, err := new(dns.Msg).SetRcode(m, rcode).Pack()
			require.NoError(t, err)
			x.Key = key
			_, err = conn.WriteTo(x.Sign(reply, time.Now()), from)
			require.NoError(t, err)
		}
	}
	serial, _ := told() // no answer
	require.Equal(t, uint32(1), serial)
	_, answer := told()
	answer(writeKey, dns.RcodeSuccess) // somebody else's answer
	_, answer = told()
	answer(readKey, dns.RcodeRefused)
	serial, answer = told()
	require.Equal(t, uint32(1), serial)
	answer(readKey, dns.RcodeSuccess)
	load(t, s, parse(t, "a A 20 192.0.2.1"))
	serial, answer = told()
	require.Equal(t, uint32(2), serial)
	answer(readKey, dns.RcodeSuccess)
	require.NoError(t, conn.SetReadDeadline(time.Now().Add(500*time.Millisecond)))
	_, _, err = conn.ReadFrom(buf)
	require.Error(t, err, "told again although it has confirmed")
}
