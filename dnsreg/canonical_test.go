package dnsreg_test

import (
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/scalr-go/scalr/dnsreg"
)

func set(name, typ string, ttl time.Duration, values ...string) dnsreg.RRset {
	return dnsreg.RRset{Name: name, Type: typ, TTL: ttl, Values: values}
}

func TestCanonical(t *testing.T) {
	long := strings.Repeat("a", 63)
	for _, c := range []struct{ in, want dnsreg.RRset }{
		{set("WWW.Example.COM", "A", 0, "192.0.2.1"), set("www.example.com.", "A", 0, "192.0.2.1")},
		{set("a.", "A", time.Second, "192.0.2.2", "192.0.2.10", "192.0.2.2"), set("a.", "A", time.Second, "192.0.2.10", "192.0.2.2")},
		{set("a.", "AAAA", 1<<31*time.Second-time.Second, "2001:0DB8::0001", "2001:db8:0:0:0:0:0:1"), set("a.", "AAAA", 1<<31*time.Second-time.Second, "2001:db8::1")},
		{set("a.", "AAAA", 0, "::ffff:192.0.2.1"), set("a.", "AAAA", 0, "::ffff:192.0.2.1")},
		{set("_dmarc.example.com.", "TXT", 0, "b", "a", ""), set("_dmarc.example.com.", "TXT", 0, "", "a", "b")},
		{set("*.example.com.", "CNAME", 0, "Web.Example.com."), set("*.example.com.", "CNAME", 0, "web.example.com.")},
		{set("a.", "MX", 0, "010  Mail.", "0 ."), set("a.", "MX", 0, "0 .", "10 mail.")},
		{set("_x._tcp.a.", "SRV", 0, "1 02\t8080 T."), set("_x._tcp.a.", "SRV", 0, "1 2 8080 t.")},
		{set("a.", "NS", 0, "Ns2.a.", "ns1.A."), set("a.", "NS", 0, "ns1.a.", "ns2.a.")},
		{set("a.", "SOA", 0, "NS.a. H.a. 1 2 3 4 05"), set("a.", "SOA", 0, "ns.a. h.a. 1 2 3 4 5")},
		{set(strings.Repeat(long+".", 3)+strings.Repeat("b", 61), "A", 0, "192.0.2.1"), set(strings.Repeat(long+".", 3)+strings.Repeat("b", 61)+".", "A", 0, "192.0.2.1")},
	} {
		got, err := dnsreg.Canonical(c.in)
		require.NoError(t, err, "%v", c.in)
		require.Equal(t, c.want, got)
		again, err := dnsreg.Canonical(got)
		require.NoError(t, err)
		require.Equal(t, got, again)
	}
}

func TestCanonicalFaults(t *testing.T) {
	long := strings.Repeat("a", 63)
	for _, c := range []struct {
		in   dnsreg.RRset
		want string
	}{
		{set("", "A", 0, "192.0.2.1"), `name "": invalid: is empty`},
		{set("a..b.", "A", 0, "192.0.2.1"), `name "a..b.": invalid: has an empty label`},
		{set(".a.", "A", 0, "192.0.2.1"), `name ".a.": invalid: has an empty label`},
		{set(long+"a.b.", "A", 0, "192.0.2.1"), `has a label of 64 characters, want at most 63`},
		{set(strings.Repeat(long+".", 3)+strings.Repeat("b", 62), "A", 0, "192.0.2.1"), `has 254 characters, want at most 253`},
		{set("a b.", "A", 0, "192.0.2.1"), `name "a b.": invalid: has a label with " ", want letters, digits, hyphens and underscores`},
		{set("grün.", "A", 0, "192.0.2.1"), `invalid: has a label with`},
		{set("a.*.b.", "A", 0, "192.0.2.1"), `has a label with "*"`},
		{set("*a.b.", "A", 0, "192.0.2.1"), `has a label with "*"`},
		{set("-a.b.", "A", 0, "192.0.2.1"), `has a label with a hyphen at its end, "-a"`},
		{set("a-.b.", "A", 0, "192.0.2.1"), `has a label with a hyphen at its end, "a-"`},
		{set("a.", "a", 0, "192.0.2.1"), `a. a: invalid: the type is not one of A, AAAA,`},
		{set("a.", "A", 0), `a. A: invalid: no values, want at least one`},
		{set("a.", "A", -time.Second, "192.0.2.1"), `a. A: invalid: TTL -1s is not 0 to 2147483647 seconds`},
		{set("a.", "A", 1<<31*time.Second, "192.0.2.1"), `is not 0 to 2147483647 seconds`},
		{set("a.", "A", 1500*time.Millisecond, "192.0.2.1"), `a. A: invalid: TTL 1.5s is not whole seconds`},
		{set("a.", "A", 0, "192.0.2.256"), `a. A: invalid: value "192.0.2.256" is not an IPv4 address`},
		{set("a.", "A", 0, "192.0.02.1"), `is not an IPv4 address`},
		{set("a.", "A", 0, "2001:db8::1"), `is not an IPv4 address`},
		{set("a.", "AAAA", 0, "192.0.2.1"), `is not an IPv6 address`},
		{set("a.", "AAAA", 0, "fe80::1%eth0"), `is not an IPv6 address`},
		{set("a.", "CNAME", 0, "b"), `a. CNAME: invalid: value "b" is not absolute, want a name with the trailing dot`},
		{set("a.", "CNAME", 0, "."), `is the root, want a name`},
		{set("a.", "CNAME", 0, "*.b."), `has a label with "*"`},
		{set("a.", "CNAME", 0, "b.", "c."), `2 values, want one`},
		{set("a.", "CNAME", 0, "A."), `value "A." is the name itself`},
		{set("a.", "NS", 0, "192.0.2.1"), `is not absolute`},
		{set("*.a.", "NS", 0, "b."), `a wildcard has no NS`},
		{set("a.", "MX", 0, "mail."), `value "mail." has 1 fields, want preference and a name`},
		{set("a.", "MX", 0, "65536 mail."), `has the preference "65536", want 0 to 65535`},
		{set("a.", "MX", 0, "10 mail"), `value "10 mail" has a name that is not absolute`},
		{set("a.", "SRV", 0, "1 2 mail."), `has 3 fields, want priority, weight, port and a name`},
		{set("a.", "SRV", 0, "1 2 -3 mail."), `has the port "-3", want 0 to 65535`},
		{set("a.", "SOA", 0, "a. b. 1 2 3 4"), `has 6 fields, want two names and five numbers`},
		{set("a.", "SOA", 0, "a. b. 1 2 3 4 4294967296"), `has the number "4294967296"`},
		{set("a.", "TXT", 0, strings.Repeat("x", 65000)), `the values are 65267 bytes in a DNS message, want at most 64000`},
	} {
		_, err := dnsreg.Canonical(c.in)
		require.ErrorIs(t, err, dnsreg.ErrInvalid, "%v", c.in)
		require.ErrorContains(t, err, c.want)
	}
}

func TestCanonicalNeverFlaps(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		in := dnsreg.RRset{
			Name:   rapid.StringMatching(`([a-zA-Z0-9_*-]{0,4}\.){0,3}`).Draw(t, "name"),
			Type:   rapid.SampledFrom([]string{"A", "AAAA", "CNAME", "TXT", "SRV", "MX", "NS", "SOA"}).Draw(t, "type"),
			TTL:    time.Duration(rapid.Int64Range(-1, 1<<31).Draw(t, "ttl")) * time.Second,
			Values: rapid.SliceOf(rapid.StringMatching(`[0-9]{1,3}(\.[0-9]{1,3}){3}|([0-9A-F:]{1,4}:){1,7}[0-9A-F]{1,4}|([0-9]{1,6} ){0,3}[a-zA-Z.]{0,5}`)).Draw(t, "values"),
		}
		c, err := dnsreg.Canonical(in)
		if err != nil {
			require.ErrorIs(t, err, dnsreg.ErrInvalid)
			return
		}
		again, err := dnsreg.Canonical(c)
		require.NoError(t, err)
		require.Equal(t, c, again)
		shuffled := in
		shuffled.Values = rapid.Permutation(append(in.Values, in.Values...)).Draw(t, "order")
		shuffled.Name = strings.ToUpper(in.Name)
		other, err := dnsreg.Canonical(shuffled)
		require.NoError(t, err)
		require.True(t, c.Equal(other), "%v and %v", c, other)
	})
}

func TestChangeString(t *testing.T) {
	old := set("www.example.com.", "A", 20*time.Second, "192.0.2.1", "192.0.2.2")
	new := set("www.example.com.", "A", 20*time.Second, "192.0.2.2", "192.0.2.3")
	slow := set("www.example.com.", "A", time.Hour, "192.0.2.1", "192.0.2.2")
	txt := set("t.example.com.", "TXT", 0, `a "b"`)
	for want, c := range map[string]dnsreg.Change{
		"- www.example.com. A 192.0.2.1 ttl=20s\n+ www.example.com. A 192.0.2.3 ttl=20s": {Old: &old, New: &new},
		"- www.example.com. A 192.0.2.1 ttl=20s\n- www.example.com. A 192.0.2.2 ttl=20s\n" +
			"+ www.example.com. A 192.0.2.1 ttl=3600s\n+ www.example.com. A 192.0.2.2 ttl=3600s": {Old: &old, New: &slow},
		"- www.example.com. A 192.0.2.1 ttl=20s\n- www.example.com. A 192.0.2.2 ttl=20s": {Old: &old},
		`+ t.example.com. TXT "a \"b\"" ttl=0s`:                                          {New: &txt},
		"":                                                                               {Old: &old, New: &old},
	} {
		require.Equal(t, want, c.String())
	}
}
