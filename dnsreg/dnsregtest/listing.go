package dnsregtest

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/scalr-go/scalr/dnsreg"
)

// listing is what Records gives.
var listing = []check{
	{rule: "every type is listed as it was written, with its TTL", run: func(e *env) {
		sets := []*dnsreg.RRset{
			e.set("a", "A", "192.0.2.1", "192.0.2.10", "192.0.2.9"),
			e.set("a", "AAAA", "2001:db8::1", "2001:db8::2:0:1"),
			e.set("c", "CNAME", "a.example.org."),
			e.set("m", "MX", "10 mail.example.org.", "20 mail2.example.org."),
			e.set("n", "MX", "0 ."),
			e.set("_http._tcp.s", "SRV", "1 2 8080 a.example.org.", "0 0 65535 b.example.org."),
			e.set("t", "TXT", "v=spf1 -all", "hello"),
			e.set("d", "NS", "ns1.example.org.", "ns2.example.org."),
			e.set("", "A", "192.0.2.1"),
		}
		for i, s := range sets {
			s.TTL = e.ttl + time.Duration(i)*time.Second
		}
		e.create(sets...)
		e.holds(sets...)
	}},
	{rule: "the list is sorted by name and type, and canonical", run: func(e *env) {
		e.create(e.set("b", "TXT", "x"), e.set("b", "A", "192.0.2.2", "192.0.2.1"), e.set("a", "AAAA", "2001:DB8:0::1"),
			&dnsreg.RRset{Name: strings.ToUpper(e.name("c")), Type: "CNAME", TTL: e.ttl, Values: []string{"A.Example.ORG."}})
		all, err := e.r.Records(e.t.Context(), e.zone)
		require.NoError(e.t, err)
		require.True(e.t, slices.IsSortedFunc(all, func(a, b dnsreg.RRset) int {
			return cmp.Or(strings.Compare(a.Name, b.Name), strings.Compare(a.Type, b.Type))
		}), "not sorted: %v", all)
		for _, r := range e.records() {
			c, err := dnsreg.Canonical(r)
			require.NoError(e.t, err)
			require.Equal(e.t, c, r, "not canonical")
		}
		e.holds(e.set("a", "AAAA", "2001:db8::1"), e.set("b", "A", "192.0.2.1", "192.0.2.2"), e.set("b", "TXT", "x"),
			e.set("c", "CNAME", "a.example.org."))
	}},
	{rule: "a TXT value of any length and any bytes comes back as it was", run: func(e *env) {
		sets := []*dnsreg.RRset{
			e.set("long", "TXT", strings.Repeat("0123456789", 60)),
			e.set("edge", "TXT", strings.Repeat("x", 255), strings.Repeat("y", 256)),
			e.set("marks", "TXT", `say "hi"`, `back\slash`, `semi;colon`, `a\"b`, `"`, `\010`, ` spaces  inside `, `$x @y (z)`),
			e.set("bytes", "TXT", "tab\tnewline\nnull\x00end", "grüße", "\xff\xfe"),
		}
		e.create(sets...)
		e.holds(sets...)
	}},
	{rule: "a wildcard is listed by its asterisk", run: func(e *env) {
		sets := []*dnsreg.RRset{e.set("*", "A", "192.0.2.1"), e.set("*.deep", "TXT", "x"), e.set("deep", "A", "192.0.2.2")}
		e.create(sets...)
		e.holds(sets...)
	}},
	{rule: "what stands below a delegation is listed", run: func(e *env) {
		sets := []*dnsreg.RRset{e.set("sub", "NS", "ns."+e.name("sub")), e.set("ns.sub", "A", "192.0.2.1"),
			e.set("_mark.sub", "TXT", "x")}
		e.create(sets...)
		e.holds(sets...)
	}},
	{rule: "a list of many RRsets is complete", run: func(e *env) {
		var sets []*dnsreg.RRset
		for i := range 250 {
			sets = append(sets, e.set(fmt.Sprintf("n%03d", i), "A", fmt.Sprintf("192.0.2.%d", i)))
		}
		e.create(sets...)
		e.holds(sets...)
	}},
	{rule: "lists and arguments belong to the caller", run: func(e *env) {
		s := e.set("a", "A", "192.0.2.1", "192.0.2.2")
		e.create(s)
		want := e.set("a", "A", "192.0.2.1", "192.0.2.2")
		s.Values[0], s.TTL = "192.0.2.99", 9*e.ttl
		e.holds(want)
		list := e.records()
		list[0].Values[0] = "192.0.2.98"
		e.holds(want)
	}},
	{rule: "an unknown zone is ErrNoZone", run: func(e *env) {
		const unknown = "no-such-zone.invalid."
		_, err := e.r.Records(e.t.Context(), unknown)
		require.ErrorIs(e.t, err, dnsreg.ErrNoZone)
		s := dnsreg.RRset{Name: "a." + unknown, Type: "A", TTL: e.ttl, Values: []string{"192.0.2.1"}}
		require.ErrorIs(e.t, e.r.Apply(e.t.Context(), unknown, []dnsreg.Change{change(nil, &s)}), dnsreg.ErrNoZone)
	}},
	{rule: "a context that has ended fails the call and changes nothing", run: func(e *env) {
		ctx, cancel := context.WithCancel(e.t.Context())
		cancel()
		_, err := e.r.Records(ctx, e.zone)
		require.ErrorIs(e.t, err, context.Canceled)
		err = e.r.Apply(ctx, e.zone, []dnsreg.Change{change(nil, e.set("a", "A", "192.0.2.1"))})
		require.ErrorIs(e.t, err, context.Canceled)
		e.holds()
	}},
	{rule: "capabilities stay the same", run: func(e *env) {
		before := e.r.Capabilities()
		e.create(e.set("a", "A", "192.0.2.1"))
		require.Equal(e.t, before, e.r.Capabilities())
		require.GreaterOrEqual(e.t, before.MaxChanges, 0)
		require.GreaterOrEqual(e.t, before.MinTTL, time.Duration(0))
	}},
}
