package nameserver

import (
	"fmt"
	"net"
	"slices"
	"strings"
	"testing"

	"github.com/miekg/dns"
	"github.com/stretchr/testify/require"

	"github.com/scalr-go/scalr/dnsreg/internal/wire"
)

// show gives an answer in short: its code and flags, and what is in its sections, names relative to the zone, sorted.
func show(m *dns.Msg) string {
	var b strings.Builder
	b.WriteString(dns.RcodeToString[m.Rcode])
	for _, f := range []struct {
		name string
		set  bool
	}{{"aa", m.Authoritative}, {"tc", m.Truncated}, {"ra", m.RecursionAvailable}, {"ad", m.AuthenticatedData}, {"cd", m.CheckingDisabled}} {
		if f.set {
			b.WriteString(" " + f.name)
		}
	}
	for i, section := range [][]dns.RR{m.Answer, m.Ns, m.Extra} {
		var lines []string
		for _, rr := range section {
			if rr.Header().Rrtype == dns.TypeOPT {
				continue
			}
			line := strings.ReplaceAll(rr.String(), "\t", " ")
			line = strings.ReplaceAll(line, "."+zoneName, "")
			line = strings.ReplaceAll(line, " IN ", " ")
			lines = append(lines, strings.ReplaceAll(line, zoneName, "@"))
		}
		if i != 0 { // the order of CNAMEs counts
			slices.Sort(lines)
		}
		for _, line := range lines {
			b.WriteString([]string{"\n", "\nauthority ", "\nadditional "}[i] + line)
		}
	}
	return b.String()
}

const testZone = `
	www A 20 192.0.2.1
	www AAAA 20 2001:db8::1
	www TXT 20 hello
	a.b.c A 20 192.0.2.2
	alias CNAME 30 www.example.com.
	alias2 CNAME 30 alias.example.com.
	away CNAME 30 www.example.net.
	dangling CNAME 30 nope.example.com.
	empty CNAME 30 b.c.example.com.
	loop1 CNAME 30 loop2.example.com.
	loop2 CNAME 30 loop1.example.com.
	todeleg CNAME 30 x.sub.example.com.
	towild CNAME 30 q.wild.example.com.
	*.wild A 20 192.0.2.3
	*.wild MX 20 10 mail.example.com.
	here.wild TXT 20 x
	x.ent.wild TXT 20 x
	*.wildc CNAME 30 www.example.com.
	*.wildloop CNAME 30 a.wildloop.example.com.
	sub NS 60 ns.sub.example.com.
	sub NS 60 ns.example.com.
	sub NS 60 ns.example.net.
	sub TXT 20 hidden
	ns.sub A 60 192.0.2.53
	ns.sub AAAA 60 2001:db8::53
	deep.sub NS 60 ns.example.net.
	ns A 60 192.0.2.54
	_sip._tcp SRV 20 1 2 5060 www.example.com.
	mail MX 20 0 .`

const soa = "authority @ 20 SOA ns hostmaster 2 3600 600 1209600 20"

const referral = `
authority sub 60 NS ns
authority sub 60 NS ns.example.net.
authority sub 60 NS ns.sub
additional ns 60 A 192.0.2.54
additional ns.sub 60 A 192.0.2.53
additional ns.sub 60 AAAA 2001:db8::53`

// testAnswers are what testZone answers: the question's name without the zone's, its type, and the answer as show gives it.
var testAnswers = []struct{ name, typ, want string }{
	{"www", "A", "NOERROR aa\nwww 20 A 192.0.2.1"},
	{"www", "AAAA", "NOERROR aa\nwww 20 AAAA 2001:db8::1"},
	{"WwW", "A", "NOERROR aa\nWwW 20 A 192.0.2.1"},
	{"www", "MX", "NOERROR aa\n" + soa},
	{"www", "TYPE1000", "NOERROR aa\n" + soa},
	{"nope", "A", "NXDOMAIN aa\n" + soa},
	{"x.www", "A", "NXDOMAIN aa\n" + soa},
	{"", "NS", "NOERROR aa\n@ 3600 NS ns\nadditional ns 60 A 192.0.2.54"},
	{"", "SOA", "NOERROR aa\n@ 3600 SOA ns hostmaster 2 3600 600 1209600 20"},
	{"", "A", "NOERROR aa\n" + soa},
	{"_sip._tcp", "SRV", "NOERROR aa\n_sip._tcp 20 SRV 1 2 5060 www"},
	{"_tcp", "SRV", "NOERROR aa\n" + soa}, // an empty name above another one exists
	{"c", "A", "NOERROR aa\n" + soa},
	{"b.c", "A", "NOERROR aa\n" + soa},
	{"x.c", "A", "NXDOMAIN aa\n" + soa},
	{"mail", "MX", "NOERROR aa\nmail 20 MX 0 ."},

	{"alias", "A", "NOERROR aa\nalias 30 CNAME www\nwww 20 A 192.0.2.1"},
	{"alias", "CNAME", "NOERROR aa\nalias 30 CNAME www"},
	{"alias2", "TXT", "NOERROR aa\nalias2 30 CNAME alias\nalias 30 CNAME www\nwww 20 TXT \"hello\""},
	{"alias", "MX", "NOERROR aa\nalias 30 CNAME www\n" + soa},
	{"away", "A", "NOERROR aa\naway 30 CNAME www.example.net."},
	{"dangling", "A", "NXDOMAIN aa\ndangling 30 CNAME nope\n" + soa},
	{"empty", "A", "NOERROR aa\nempty 30 CNAME b.c\n" + soa},
	{"loop1", "A", "NOERROR aa\nloop1 30 CNAME loop2\nloop2 30 CNAME loop1"},
	{"todeleg", "A", "NOERROR aa\ntodeleg 30 CNAME x.sub" + referral},
	{"towild", "A", "NOERROR aa\ntowild 30 CNAME q.wild\nq.wild 20 A 192.0.2.3"},

	{"q.wild", "A", "NOERROR aa\nq.wild 20 A 192.0.2.3"},
	{"p.Q.wild", "A", "NOERROR aa\np.Q.wild 20 A 192.0.2.3"},
	{"q.wild", "MX", "NOERROR aa\nq.wild 20 MX 10 mail"},
	{"q.wild", "TXT", "NOERROR aa\n" + soa},
	{"*.wild", "A", "NOERROR aa\n*.wild 20 A 192.0.2.3"},
	{"x.*.wild", "A", "NXDOMAIN aa\n" + soa},    // the closest encloser is *.wild
	{"here.wild", "A", "NOERROR aa\n" + soa},    // a name that exists is not synthesised
	{"q.here.wild", "A", "NXDOMAIN aa\n" + soa}, // neither is one below it
	{"ent.wild", "A", "NOERROR aa\n" + soa},     // an empty one exists too
	{"q.ent.wild", "A", "NXDOMAIN aa\n" + soa},
	{"wild", "A", "NOERROR aa\n" + soa},
	{"q.wildc", "AAAA", "NOERROR aa\nq.wildc 30 CNAME www\nwww 20 AAAA 2001:db8::1"},
	{"q.wildc", "CNAME", "NOERROR aa\nq.wildc 30 CNAME www"},
	{"q.wildloop", "A", "NOERROR aa\nq.wildloop 30 CNAME a.wildloop\na.wildloop 30 CNAME a.wildloop"},

	{"sub", "A", "NOERROR" + referral},
	{"sub", "NS", "NOERROR" + referral},
	{"sub", "TXT", "NOERROR" + referral},
	{"sub", "ANY", "NOERROR" + referral},
	{"ns.sub", "A", "NOERROR" + referral},
	{"x.y.Sub", "A", "NOERROR" + strings.ReplaceAll(referral, "authority sub", "authority Sub")},
	{"x.deep.sub", "A", "NOERROR" + referral}, // the topmost cut counts
	{"sub", "DS", "NOERROR aa\n" + soa},
	{"x.sub", "DS", "NOERROR" + referral},

	{"www", "ANY", "NOERROR aa\nwww 3600 HINFO \"RFC8482\" \"\""},
	{"alias", "ANY", "NOERROR aa\nalias 30 CNAME www"},
	{"q.wild", "ANY", "NOERROR aa\nq.wild 3600 HINFO \"RFC8482\" \"\""},
	{"b.c", "ANY", "NOERROR aa\n" + soa},
	{"nope", "ANY", "NXDOMAIN aa\n" + soa},
	{"www", "AXFR", "REFUSED"},
	{"www", "IXFR", "REFUSED"},
	{"www", "MAILB", "NOTIMP"},
	{"www", "OPT", "FORMERR"},
}

func TestAnswers(t *testing.T) {
	s := newServer(t, testZone)
	for _, c := range testAnswers {
		typ, ok := dns.StringToType[c.typ]
		if !ok {
			_, err := fmt.Sscanf(c.typ, "TYPE%d", &typ)
			require.NoError(t, err)
		}
		name := zoneName
		if c.name != "" {
			name = c.name + "." + zoneName
		}
		m := ask(t, s, name, typ)
		require.Equal(t, c.want, show(m), "%s %s", name, c.typ)
		require.Equal(t, []dns.Question{{Name: name, Qtype: typ, Qclass: dns.ClassINET}}, m.Question)
	}
}

func TestForeignNamesAreRefused(t *testing.T) {
	s := newServer(t, testZone)
	for _, name := range []string{".", "com.", "example.net.", "notexample.com.", "example.com.net."} {
		require.Equal(t, "REFUSED", show(ask(t, s, name, dns.TypeA)), name)
	}
	q := new(dns.Msg).SetQuestion("www."+zoneName, dns.TypeA)
	for _, class := range []uint16{dns.ClassCHAOS, dns.ClassANY, dns.ClassNONE, 0} {
		q.Question[0].Qclass = class
		packed, err := q.Pack()
		require.NoError(t, err)
		require.Equal(t, "REFUSED", show(unpack(t, newResponder(s.zones).respond(packed, false))))
	}
}

func TestTheLongestZoneAnswers(t *testing.T) {
	s := newServer(t, "sub NS 60 ns.sub.example.com.\nother NS 60 ns.sub.example.com.", Zone{Name: "sub.example.com."})
	require.Equal(t, "NXDOMAIN aa\nauthority sub 20 SOA ns.sub hostmaster.sub", strings.SplitAfter(show(ask(t, s, "x.sub.example.com.", dns.TypeA)), "hostmaster.sub")[0])
	require.Equal(t, "NOERROR aa\nsub 3600 NS ns.sub", show(ask(t, s, "sub.example.com.", dns.TypeNS)))
	require.Equal(t, "NOERROR aa\n"+soa, show(ask(t, s, "sub.example.com.", dns.TypeDS)), "DS is the parent's")
	require.Equal(t, "NOERROR aa\n"+soa, show(ask(t, s, "example.com.", dns.TypeDS)), "there is no parent")
}

// Labels may hold any bytes, a dot too.
func TestOddLabels(t *testing.T) {
	s := newServer(t, testZone)
	require.Equal(t, "NXDOMAIN aa\n"+soa, show(ask(t, s, `www\.example.com.example.com.`, dns.TypeA)))
	require.Equal(t, "REFUSED", show(ask(t, s, `www\.example.com.`, dns.TypeA)))
	require.Equal(t, "NXDOMAIN aa\n"+soa, show(ask(t, s, `\000\255.example.com.`, dns.TypeA)))
	require.Equal(t, "NOERROR aa\n"+`\007\255.wild 20 A 192.0.2.3`, show(ask(t, s, `\007\255.wild.example.com.`, dns.TypeA)))
}

func TestAddressesRotate(t *testing.T) {
	var records strings.Builder
	for i := range 5 {
		fmt.Fprintf(&records, "www A 20 192.0.2.%d\n", i)
		fmt.Fprintf(&records, "www TXT 20 %s\n", strings.Repeat("x", i+1))
	}
	s := newServer(t, records.String())
	for _, typ := range []uint16{dns.TypeA, dns.TypeTXT} {
		first := make(map[string]int)
		for range 1000 {
			m := ask(t, s, "www.example.com.", typ)
			require.Len(t, m.Answer, 5)
			first[m.Answer[0].String()]++
		}
		require.Len(t, first, 5)
		for value, n := range first {
			require.Greater(t, n, 100, value)
		}
	}
}

func TestLongNamesAndBigSets(t *testing.T) {
	label := strings.Repeat("a", 63)
	long := label + "." + label + "." + label + "." + strings.Repeat("b", 61-len(zoneName))
	var records strings.Builder
	fmt.Fprintf(&records, "%s A 20 192.0.2.1\n", long)
	for i := range 4 {
		fmt.Fprintf(&records, "big TXT 20 %s%d\n", strings.Repeat("x", 15000), i)
	}
	fmt.Fprintf(&records, "tobig CNAME 20 big.example.com.\n")
	for i := range 1000 {
		fmt.Fprintf(&records, "manycut NS 20 %s%04d.manycut.example.com.\n", strings.Repeat("n", 20), i)
	}
	fmt.Fprintf(&records, "%s0999.manycut A 20 192.0.2.1\n", strings.Repeat("n", 20))
	s := newServer(t, records.String())
	require.Equal(t, "NOERROR aa\n"+long+" 20 A 192.0.2.1", show(ask(t, s, long+"."+zoneName, dns.TypeA)))
	require.Len(t, ask(t, s, "big.example.com.", dns.TypeTXT).Answer, 4)
	require.Len(t, ask(t, s, "tobig.example.com.", dns.TypeTXT).Answer, 5)

	// Names far behind in a message are written out where a pointer does not reach.
	for range 20 {
		m := ask(t, s, "x.manycut.example.com.", dns.TypeA)
		require.Len(t, m.Ns, 1000)
		require.Len(t, m.Extra, 1)
		require.Equal(t, strings.Repeat("n", 20)+"0999.manycut.example.com.", m.Extra[0].Header().Name)
	}
}

// What does not even go into a message over TCP is an error.
func TestAnswersThatFitNowhere(t *testing.T) {
	var records strings.Builder
	name := func(i int) string { return fmt.Sprintf("%s%02d", strings.Repeat(strings.Repeat("a", 60)+".", 3), i) }
	for i := range 13 {
		fmt.Fprintf(&records, "%s CNAME 20 %s.example.com.\n", name(i), name(i+1))
	}
	fmt.Fprintf(&records, "%s TXT 20 %s\n", name(13), strings.Repeat("x", 63700))
	s := newServer(t, records.String())
	require.Len(t, ask(t, s, name(12)+"."+zoneName, dns.TypeTXT).Answer, 2)
	m := ask(t, s, name(0)+"."+zoneName, dns.TypeTXT)
	require.Equal(t, dns.RcodeServerFailure, m.Rcode)
	require.Empty(t, m.Answer)
	require.False(t, m.Truncated)
}

func TestTruncation(t *testing.T) {
	var records strings.Builder
	for i := range 60 {
		fmt.Fprintf(&records, "many A 20 192.0.2.%d\n", i)
	}
	for i := range 12 {
		fmt.Fprintf(&records, "sub NS 20 ns%d.sub.example.com.\nns%d.sub A 20 192.0.2.%d\nns%d.sub AAAA 20 2001:db8::%d\n", i, i, i, i, i)
		fmt.Fprintf(&records, "side NS 20 ns%d.side2.example.com.\nns%d.side2 A 20 192.0.2.%d\nns%d.side2 AAAA 20 2001:db8::%d\n", i, i, i, i, i)
	}
	s := newServer(t, records.String())
	for _, c := range []struct {
		name      string
		size      uint16
		truncated bool
		max       int
	}{
		{"many", 0, true, 512},
		{"many", 100, true, 512},
		{"many", 512, true, 512},
		{"many", 1232, false, 1232},
		{"many", 4096, false, 1232},
		{"sub", 512, true, 512}, // glue that is needed must be there
		{"sub", 4096, false, 1232},
		{"side", 512, false, 512}, // glue that helps may be left out
		{"side", 4096, false, 1232},
	} {
		q := new(dns.Msg).SetQuestion(c.name+".example.com.", dns.TypeA)
		if c.size > 0 {
			q.SetEdns0(c.size, false)
		}
		packed, err := q.Pack()
		require.NoError(t, err)
		out := newResponder(s.zones).respond(packed, false)
		require.LessOrEqual(t, len(out), c.max)
		m := unpack(t, out)
		require.Equal(t, c.truncated, m.Truncated, "%s with %d", c.name, c.size)
		require.Equal(t, c.size > 0, m.IsEdns0() != nil)
		if c.truncated {
			require.Empty(t, m.Answer)
			require.Empty(t, m.Ns)
		}
		m = unpack(t, newResponder(s.zones).respond(packed, true))
		require.False(t, m.Truncated)
		require.NotEmpty(t, append(m.Answer, m.Ns...))
	}
}

// Whatever an answer holds, it is no longer than the client takes, and is whole if it fits.
func TestAnswersFitExactly(t *testing.T) {
	var records strings.Builder
	for i := range 31 {
		fmt.Fprintf(&records, "many A 20 192.0.2.%d\n", i) // with 12 + 22 bytes for the rest, an answer of 16 * 31
	}
	s := newServer(t, records.String())
	const whole = 12 + 22 + 31*16
	for _, edns := range []bool{false, true} {
		for size := whole - 3; size <= whole+optLen+3; size++ {
			q := new(dns.Msg).SetQuestion("many.example.com.", dns.TypeA)
			want, limit := whole, 512
			if edns {
				q.SetEdns0(uint16(size), false)
				want, limit = whole+optLen, size
			}
			packed, err := q.Pack()
			require.NoError(t, err)
			out := newResponder(s.zones).respond(packed, false)
			if limit < want {
				require.True(t, unpack(t, out).Truncated)
				require.LessOrEqual(t, len(out), limit)
			} else {
				require.False(t, unpack(t, out).Truncated, "%d", size)
				require.Len(t, out, want)
			}
		}
	}
}

func TestQueriesThatAreNone(t *testing.T) {
	s := newServer(t, testZone)
	q := new(dns.Msg).SetQuestion("www.example.com.", dns.TypeA)
	q.Id = 0x1234
	good, err := q.Pack()
	require.NoError(t, err)
	r := newResponder(s.zones)
	with := func(i int, b byte) []byte { m := slices.Clone(good); m[i] = b; return m }
	opt := []byte{0, 0, 41, 4, 208, 0, 0, 0, 0, 0, 0}
	plus := func(additional byte, records ...byte) []byte {
		m := append(slices.Clone(good), records...)
		m[11] = additional
		return m
	}
	for what, msg := range map[string][]byte{
		"nothing": nil, "a short header": good[:11], "an answer": with(2, 0x80),
	} {
		require.Nil(t, r.respond(msg, false), what)
	}
	for what, msg := range map[string][]byte{
		"no question":                 with(5, 0),
		"two questions":               with(5, 2),
		"a question that is cut off":  good[:len(good)-1],
		"a name that is cut off":      good[:20],
		"only a header":               good[:12],
		"a pointer in the question":   with(12, 0xc0),
		"a long label":                with(12, 64),
		"bytes after the end":         append(slices.Clone(good), 0),
		"a record that is not there":  with(11, 1),
		"an answer that is not there": with(7, 1),
		"two EDNS records":            plus(2, append(slices.Clone(opt), opt...)...),
		"an EDNS record with a name":  plus(1, append([]byte{1, 'a'}, opt...)...),
		"a broken EDNS option":        plus(1, 0, 0, 41, 4, 208, 0, 0, 0, 0, 0, 3, 0, 1, 0),
		"a long EDNS option":          plus(1, 0, 0, 41, 4, 208, 0, 0, 0, 0, 0, 4, 0, 1, 0, 9),
		"a record with a bad name":    plus(1, append([]byte{64}, opt...)...),
		"a record that is cut off":    plus(1, opt[:8]...),
		"a name over 255 bytes":       append(append(slices.Clone(good[:12]), []byte(strings.Repeat("\x3f"+strings.Repeat("a", 63), 4))...), 0, 0, 1, 0, 1),
	} {
		out := r.respond(msg, false)
		require.Len(t, out, 12, what)
		require.Equal(t, "FORMERR", show(unpack(t, out)), what)
		require.EqualValues(t, 0x1234, unpack(t, out).Id)
	}
	for opcode := range 16 {
		if opcode == dns.OpcodeQuery {
			continue
		}
		m := unpack(t, r.respond(with(2, byte(opcode)<<3), false))
		require.Equal(t, "NOTIMP", show(m))
		require.Equal(t, opcode, m.Opcode)
	}
	require.Equal(t, "NOERROR aa\nwww 20 A 192.0.2.1", show(unpack(t, r.respond(plus(1, opt...), false))))
	require.Equal(t, "NOERROR aa\nwww 20 A 192.0.2.1", show(unpack(t, r.respond(plus(1, 0xc0, 12, 0, 16, 0, 1, 0, 0, 0, 0, 0, 1, 0), false))))
}

func TestNamesInWireFormat(t *testing.T) {
	for _, name := range []string{".", "com.", "www.example.com.", "*.a."} {
		w := wire.AppendName(nil, name)
		require.Equal(t, name, wire.NameText(w))
		require.Equal(t, len(w), wire.NameLen(w))
		buf := make([]byte, 300)
		n, err := dns.PackDomainName(name, buf, 0, nil, false)
		require.NoError(t, err)
		require.Equal(t, buf[:n], w)
	}
	require.Equal(t, net.IP{192, 0, 2, 1}, net.IP(wire.AppendData(nil, dns.TypeA, "192.0.2.1")))
}
