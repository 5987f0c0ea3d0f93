package nameserver

import (
	"encoding/base64"
	"fmt"
	"maps"
	"slices"
	"testing"
	"time"

	"github.com/miekg/dns"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/scalr-go/scalr/dnsreg"
	"github.com/scalr-go/scalr/dnsreg/internal/wire"
	"github.com/scalr-go/scalr/dnsreg/tsig"
)

var (
	readKey  = tsig.Key{Name: "reader.", Secret: []byte("reader-reader-reader-reader-1234")}
	writeKey = tsig.Key{Name: "writer.", Secret: []byte("writer-writer-writer-writer-1234")}
)

func keyed(t require.TestingT, history int) *Server {
	s, err := New(Options{Zones: []Zone{
		{Name: zoneName, Serial: 1, History: history, Secondaries: []Secondary{{Addr: "127.0.0.1:1", Key: readKey}}, Updaters: []tsig.Key{writeKey}},
		{Name: "other.example.", Serial: 1},
	}})
	require.NoError(t, err)
	s.Close()
	return s
}

// asked sends a question, signed unless the key has no name, and gives the messages that come back, verified.
func asked(t require.TestingT, s *Server, m *dns.Msg, key tsig.Key, stream bool) (list []*dns.Msg) {
	r := newResponder(s.zones)
	packed, err := m.Pack()
	require.NoError(t, err)
	x := tsig.Exchange{Key: key}
	if key.Name != "" {
		packed = x.Sign(packed, time.Now())
	}
	take := func(msg []byte) error {
		if key.Name != "" {
			if body, err := x.Verify(msg, time.Now()); err == nil {
				msg = body
			} else {
				require.Equal(t, dns.RcodeNotAuth, int(msg[3]&15), "%v", err)
			}
		}
		list = append(list, unpack(t, slices.Clone(msg)))
		return nil
	}
	answer := r.respond(packed, stream)
	if r.transfer != nil {
		require.True(t, stream)
		require.NoError(t, r.sendTransfer(take))
		if key.Name != "" {
			require.NoError(t, x.Complete())
		}
	} else if answer != nil {
		_ = take(answer)
	}
	return list
}

func records(list []*dns.Msg) (rrs []dns.RR) {
	for _, m := range list {
		rrs = append(rrs, m.Answer...)
	}
	return rrs
}

func ixfr(serial uint32) *dns.Msg {
	return new(dns.Msg).SetIxfr(zoneName, serial, "ns."+zoneName, "hostmaster."+zoneName)
}

// copyOf is a secondary's copy of a zone: its records as text.
type copyOf map[string]bool

// take brings the copy up to date as RFC 1995 says, and gives the serial.
func (c copyOf) take(t require.TestingT, rrs []dns.RR) (uint32, bool) {
	first := rrs[0].(*dns.SOA)
	if len(rrs) == 1 {
		return first.Serial, false
	}
	require.Equal(t, first.String(), rrs[len(rrs)-1].String())
	if second, ok := rrs[1].(*dns.SOA); !ok || len(rrs) == 2 || second.Serial == first.Serial {
		clear(c)
		for _, rr := range rrs[:len(rrs)-1] {
			require.False(t, c[rr.String()], "twice: %s", rr)
			c[rr.String()] = true
		}
		return first.Serial, true
	}
	adding := true
	for _, rr := range rrs[1 : len(rrs)-1] {
		if _, ok := rr.(*dns.SOA); ok {
			adding = !adding
		}
		require.Equal(t, !adding, c[rr.String()], "%v %s", adding, rr)
		if adding {
			c[rr.String()] = true
		} else {
			delete(c, rr.String())
		}
	}
	return first.Serial, false
}

// A secondary that follows by incremental transfers, at any pace, has what one has that transfers the whole zone.
func TestIncrementalTransfersGiveTheZone(t *testing.T) {
	incremental, whole := 0, 0
	rapid.Check(t, func(t *rapid.T) {
		s := keyed(t, rapid.IntRange(1, 6).Draw(t, "history"))
		mine := copyOf{}
		serial, _ := mine.take(t, records(asked(t, s, new(dns.Msg).SetAxfr(zoneName), readKey, true)))
		for range rapid.IntRange(1, 12).Draw(t, "rounds") {
			for range rapid.IntRange(0, 4).Draw(t, "changes") {
				var want []dnsreg.RRset
				for _, label := range []string{"a", "b", "c.b", "*"} {
					if n := rapid.IntRange(0, 3).Draw(t, label); n > 0 {
						r := dnsreg.RRset{Name: label + "." + zoneName, Type: "A", TTL: time.Duration(rapid.IntRange(1, 2).Draw(t, "ttl")) * time.Second}
						for i := range n {
							r.Values = append(r.Values, fmt.Sprintf("192.0.2.%d", i+rapid.IntRange(0, 2).Draw(t, "value")))
						}
						slices.Sort(r.Values)
						r.Values = slices.Compact(r.Values)
						want = append(want, r)
					}
				}
				_, err := dnsreg.Sync(t.Context(), s, zoneName, "test", want)
				require.NoError(t, err)
			}
			rrs := records(asked(t, s, ixfr(serial), readKey, true))
			old := serial
			var all bool
			serial, all = mine.take(t, rrs)
			require.Equal(t, s.names[zoneName].snap.Load().serial, serial)
			if all {
				whole++
			} else if old != serial {
				incremental++
			}
			fresh := copyOf{}
			fresh.take(t, records(asked(t, s, new(dns.Msg).SetAxfr(zoneName), readKey, true)))
			require.Equal(t, slices.Sorted(maps.Keys(fresh)), slices.Sorted(maps.Keys(mine)))
		}
	})
	require.NotZero(t, incremental)
	require.NotZero(t, whole)
}

// The history forgets by number and by size, and what a secondary has missed is then the whole zone.
func TestTheHistoryIsBounded(t *testing.T) {
	s := keyed(t, 3)
	z := s.names[zoneName]
	for i := range 10 {
		load(t, s, []dnsreg.RRset{{Name: fmt.Sprintf("n%d.%s", i, zoneName), Type: "A", TTL: time.Minute, Values: []string{"192.0.2.1"}}})
	}
	require.Len(t, z.snap.Load().history, 3)
	for serial, want := range map[uint32]int{11: 1, 10: 5, 8: 11, 7: 13, 12: 1, 1: 13} {
		require.Len(t, records(asked(t, s, ixfr(serial), readKey, true)), want, "since %d", serial)
	}
	require.Len(t, records(asked(t, s, ixfr(9), readKey, false)), 1, "over UDP there is the serial only")
	big := slices.Repeat([]string{""}, 60)
	for i := range big {
		big[i] = fmt.Sprintf("%01000d", i)
	}
	s = keyed(t, 1<<20)
	name := "big." + zoneName
	old := &dnsreg.RRset{Name: name, Type: "TXT", TTL: time.Second, Values: big}
	load(t, s, []dnsreg.RRset{*old})
	for i := range 400 {
		new := *old
		new.TTL = time.Duration(i+2) * time.Second
		require.NoError(t, s.Apply(t.Context(), zoneName, []dnsreg.Change{{Name: name, Type: "TXT", Old: old, New: &new}}))
		old = &new
	}
	snap := s.names[zoneName].snap.Load()
	sum := 0
	for _, d := range snap.history {
		sum += d.bytes()
	}
	require.Equal(t, snap.kept, sum)
	require.LessOrEqual(t, sum, maxHistory)
	require.Less(t, len(snap.history), 400)
}

// A large zone goes out in many messages, each signed.
func TestALargeZoneIsTransferred(t *testing.T) {
	s := keyed(t, 1)
	var sets []dnsreg.RRset
	for i := range 20000 {
		sets = append(sets, dnsreg.RRset{Name: fmt.Sprintf("n%d.%s", i, zoneName), Type: "A", TTL: time.Minute, Values: []string{"192.0.2.1"}})
	}
	load(t, s, sets)
	list := asked(t, s, new(dns.Msg).SetAxfr(zoneName), readKey, true)
	require.Greater(t, len(list), 5)
	require.Len(t, records(list), 20003)
}

func TestTransfersAndUpdatesNeedAKey(t *testing.T) {
	s := keyed(t, 0)
	before := s.names[zoneName].snap.Load()
	update := func(zone string) *dns.Msg {
		m := new(dns.Msg).SetUpdate(zone)
		rr, _ := dns.NewRR("a." + zone + " 1 A 192.0.2.1")
		m.Insert([]dns.RR{rr})
		return m
	}
	none, stranger := tsig.Key{}, tsig.Key{Name: "stranger.", Secret: readKey.Secret}
	liar := tsig.Key{Name: writeKey.Name, Secret: readKey.Secret}
	for _, c := range []struct {
		what string
		m    *dns.Msg
		key  tsig.Key
		want int
	}{
		{"AXFR", new(dns.Msg).SetAxfr(zoneName), none, dns.RcodeRefused},
		{"IXFR", ixfr(1), none, dns.RcodeRefused},
		{"AXFR", new(dns.Msg).SetAxfr(zoneName), stranger, dns.RcodeNotAuth},
		{"AXFR", new(dns.Msg).SetAxfr(zoneName), liar, dns.RcodeNotAuth},
		{"AXFR of a zone that names no key", new(dns.Msg).SetAxfr("other.example."), readKey, dns.RcodeRefused},
		{"AXFR of a name in the zone", new(dns.Msg).SetAxfr("a." + zoneName), readKey, dns.RcodeNotAuth},
		{"update", update(zoneName), none, dns.RcodeRefused},
		{"update", update(zoneName), stranger, dns.RcodeNotAuth},
		{"update", update(zoneName), liar, dns.RcodeNotAuth},
		{"update by a reader", update(zoneName), readKey, dns.RcodeRefused},
		{"update of another's zone", update("other.example."), writeKey, dns.RcodeRefused},
		{"update of an unknown zone", update("unknown.example."), writeKey, dns.RcodeNotAuth},
		{"question", new(dns.Msg).SetQuestion(zoneName, dns.TypeSOA), stranger, dns.RcodeNotAuth},
		{"question", new(dns.Msg).SetQuestion(zoneName, dns.TypeSOA), readKey, dns.RcodeSuccess},
	} {
		for _, stream := range []bool{true, false} {
			list := asked(t, s, c.m, c.key, stream)
			require.Len(t, list, 1, "%s with %v", c.what, c.key)
			require.Equal(t, c.want, list[0].Rcode, "%s with %v", c.what, c.key)
			require.True(t, len(list[0].Answer) == 0 || c.want == dns.RcodeSuccess)
		}
	}
	require.Same(t, before, s.names[zoneName].snap.Load(), "the zone has changed")
	require.Equal(t, dns.RcodeSuccess, asked(t, s, update(zoneName), writeKey, true)[0].Rcode)
	require.NotSame(t, before, s.names[zoneName].snap.Load())

	// a message played back later
	packed, err := update(zoneName).Pack()
	require.NoError(t, err)
	late := (&tsig.Exchange{Key: writeKey}).Sign(packed, time.Now().Add(-tsig.Fudge-time.Minute))
	answer := newResponder(s.zones).respond(late, true)
	require.Equal(t, dns.RcodeNotAuth, int(answer[3]&15))
	require.NotContains(t, base64.StdEncoding.EncodeToString(answer), base64.StdEncoding.EncodeToString(writeKey.Secret))
}

// Who has a key may still send records whose data are cut: they are refused, whatever the update says of them.
func TestRecordsThatAreCutAreRefused(t *testing.T) {
	s := keyed(t, 0)
	before := s.names[zoneName].snap.Load()
	for _, class := range []uint16{dns.ClassINET, dns.ClassNONE} {
		for typ, data := range map[uint16]string{dns.TypeMX: "\x00\x01", dns.TypeSRV: "\x00\x01\x00\x02\x00\x03", dns.TypeA: "\x01", dns.TypeSOA: "\x00"} {
			for _, section := range []int{answers, authority} { // of prerequisites, and of what to do
				msg, err := new(dns.Msg).SetUpdate(zoneName).Pack()
				require.NoError(t, err)
				msg = wire.AppendName(msg, "a."+zoneName)
				msg = append(msg, 0, byte(typ), byte(class>>8), byte(class), 0, 0, 0, 0, 0, byte(len(data)))
				msg = append(msg, data...)
				msg[section+1] = 1
				answer := newResponder(s.zones).respond((&tsig.Exchange{Key: writeKey}).Sign(msg, time.Now()), true)
				require.True(t, class == dns.ClassNONE || answer[3]&15 != dns.RcodeSuccess, "%d", typ) // to remove what cannot be there is fine
			}
		}
	}
	require.Same(t, before, s.names[zoneName].snap.Load())
}

func TestKeysAndSecondariesAreChecked(t *testing.T) {
	for want, z := range map[string]Zone{
		`nameserver: Zones[0].Secondaries[0].Addr is "x", want host:port`:                             {Name: "a.", Secondaries: []Secondary{{Addr: "x", Key: readKey}}},
		`nameserver: Zones[0].Secondaries[0].Key: key: name "": invalid: is empty`:                    {Name: "a.", Secondaries: []Secondary{{Addr: "x:1"}}},
		`nameserver: Zones[0].Updaters[0]: key k.: invalid: the secret has 0 bytes, want at least 16`: {Name: "a.", Updaters: []tsig.Key{{Name: "k."}}},
		`nameserver: Zones[0].History is -1, want 1 or more, or 0 for the default`:                    {Name: "a.", History: -1},
	} {
		_, err := New(Options{Zones: []Zone{z}})
		require.EqualError(t, err, want)
	}
}
