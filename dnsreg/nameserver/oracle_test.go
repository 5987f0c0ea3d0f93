package nameserver

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/scalr-go/scalr/dnsreg"
)

// oracle answers out of a plain list of RRsets, following the words of the RFCs and nothing of the server's structures.
type oracle map[[2]string]dnsreg.RRset // by name and type

func (o oracle) has(name string) bool {
	for k := range o {
		if k[0] == name || strings.HasSuffix(k[0], "."+name) {
			return true
		}
	}
	return false
}

// up gives a name and what is above it, up to the zone, the name first.
func up(name string) []string {
	list := []string{name}
	for name != zoneName {
		_, name, _ = strings.Cut(name, ".")
		list = append(list, name)
	}
	return list
}

func (o oracle) rrs(owner string, r dnsreg.RRset) (list []string) {
	for _, v := range r.Values {
		if r.Type == "TXT" {
			v = `"` + v + `"`
		}
		rr, err := dns.NewRR(fmt.Sprintf("%s %d IN %s %s", owner, r.TTL/time.Second, r.Type, v))
		if err != nil {
			panic(err)
		}
		list = append(list, rr.String())
	}
	slices.Sort(list)
	return list
}

type oracleAnswer struct {
	rcode                  int
	aa                     bool
	answer, ns, additional []string
}

func (o oracle) addresses(ns dnsreg.RRset) (list []string) {
	for _, target := range ns.Values {
		for _, typ := range []string{"A", "AAAA"} {
			if g, ok := o[[2]string{target, typ}]; ok {
				list = append(list, o.rrs(target, g)...)
			}
		}
	}
	slices.Sort(list)
	return list
}

func (o oracle) answer(qname, qtype string) (a oracleAnswer) {
	soa := o[[2]string{zoneName, "SOA"}]
	soa.TTL = 20 * time.Second
	name := qname
	seen := map[string]bool{}
	for {
		seen[name] = true
		if a.answer != nil {
			a.aa = true
		}
		for _, n := range slices.Backward(up(name)) {
			ns, ok := o[[2]string{n, "NS"}]
			if n == zoneName || !ok || qtype == "DS" && n == name {
				continue
			}
			a.ns = o.rrs(n, ns)
			a.additional = o.addresses(ns)
			return a
		}
		a.aa = true
		node := name
		if !o.has(name) {
			for _, n := range up(name) {
				if o.has(n) {
					node = "*." + n
					break
				}
			}
			if !o.has(node) {
				a.rcode, a.ns = dns.RcodeNameError, o.rrs(zoneName, soa)
				return a
			}
		}
		if r, ok := o[[2]string{node, qtype}]; ok {
			a.answer = append(a.answer, o.rrs(name, r)...)
			if qtype == "NS" {
				a.additional = o.addresses(r)
			}
			return a
		}
		if r, ok := o[[2]string{node, "CNAME"}]; ok {
			a.answer = append(a.answer, o.rrs(name, r)...)
			name = r.Values[0]
			if qtype == "ANY" || seen[name] || name != zoneName && !strings.HasSuffix(name, "."+zoneName) {
				return a
			}
			continue
		}
		for k := range o {
			if k[0] == node && qtype == "ANY" {
				a.answer = append(a.answer, fmt.Sprintf("%s\t3600\tIN\tHINFO\t\"RFC8482\" \"\"", name))
				return a
			}
		}
		a.ns = o.rrs(zoneName, soa)
		return a
	}
}

func texts(rrs []dns.RR, sorted bool) (list []string) {
	for _, rr := range rrs {
		list = append(list, rr.String())
	}
	if sorted {
		slices.Sort(list)
	}
	return list
}

func drawOwner(t *rapid.T) string {
	name := rapid.StringMatching(`((\*|a|b|c)\.)?((a|b|c)\.){0,3}`).Draw(t, "name")
	return name + zoneName
}

// The server's answers are those of the oracle, whichever changes led to what the zone holds.
func TestAnswersEqualTheOracles(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s, err := New(Options{Zones: []Zone{{Name: zoneName, Serial: 1}}, Readers: 1})
		require.NoError(t, err)
		defer s.Close()
		o := make(oracle)
		have, err := s.Records(t.Context(), zoneName)
		require.NoError(t, err)
		for _, r := range have {
			o[[2]string{r.Name, r.Type}] = r
		}
		for range rapid.IntRange(0, 40).Draw(t, "changes") {
			name := drawOwner(t)
			r := dnsreg.RRset{Name: name, Type: rapid.SampledFrom([]string{"A", "TXT", "CNAME", "NS", "MX", "AAAA"}).Draw(t, "type"), TTL: time.Duration(rapid.IntRange(0, 9).Draw(t, "ttl")) * time.Second}
			n := rapid.IntRange(0, 2).Draw(t, "values")
			for i := range n {
				target := strings.TrimPrefix(drawOwner(t), "*.")
				switch r.Type {
				case "A":
					r.Values = append(r.Values, fmt.Sprintf("192.0.2.%d", i))
				case "AAAA":
					r.Values = append(r.Values, fmt.Sprintf("2001:db8::%d", i+1))
				case "TXT":
					r.Values = append(r.Values, strings.Repeat("x", i+1))
				case "MX":
					r.Values = append(r.Values, fmt.Sprintf("%d %s", i, target))
				case "NS":
					r.Values = append(r.Values, rapid.SampledFrom([]string{target, "ns.example.net."}).Draw(t, "target"))
				case "CNAME":
					r.Values = []string{rapid.SampledFrom([]string{target, "www.example.net."}).Draw(t, "target")}
				}
			}
			c := dnsreg.Change{Name: name, Type: r.Type}
			if old, ok := o[[2]string{name, r.Type}]; ok {
				c.Old = &old
			}
			if n > 0 {
				if r, err = dnsreg.Canonical(r); err != nil {
					continue
				}
				c.New = &r
			}
			if c.Old == nil && c.New == nil {
				continue
			}
			if s.Apply(t.Context(), zoneName, []dnsreg.Change{c}) != nil {
				continue // a CNAME beside data, or no NS for the zone
			}
			delete(o, [2]string{name, r.Type})
			if c.New != nil {
				o[[2]string{name, r.Type}] = *c.New
			}
		}
		have, err = s.Records(t.Context(), zoneName)
		require.NoError(t, err)
		for _, r := range have {
			if r.Type == "SOA" {
				o[[2]string{r.Name, r.Type}] = r
			}
		}
		require.ElementsMatch(t, slices.Collect(maps.Values(o)), have)

		names := map[string]bool{zoneName: true}
		for k := range o {
			for _, n := range up(k[0]) {
				names[n], names["a."+n], names["x.y."+n] = true, true, true
			}
		}
		for name := range names {
			for _, typ := range []string{"A", "TXT", "NS", "DS", "CNAME", "ANY"} {
				m := ask(t, s, name, dns.StringToType[typ])
				want := o.answer(name, typ)
				got := oracleAnswer{m.Rcode, m.Authoritative, texts(m.Answer, false), texts(m.Ns, true), texts(m.Extra, true)}
				if n := len(got.answer); n > 0 && len(want.answer) == n {
					// Only the last RRset of an answer can have several records, in any order.
					slices.SortFunc(got.answer, func(a, b string) int { return slices.Index(want.answer, a) - slices.Index(want.answer, b) })
				}
				require.Equal(t, want, got, "%s %s in %v", name, typ, slices.Collect(maps.Values(o)))
			}
		}
	})
}
