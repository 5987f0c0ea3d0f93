package dnsreg_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/scalr-go/scalr/dnsreg"
)

const (
	zone = "example.com."
	ttl  = 20 * time.Second
)

// parse reads RRsets out of lines such as "www A 20 192.0.2.1 192.0.2.2": the name relative to the zone ("@" for the zone
// itself), type, TTL in seconds, values. A TXT value is the rest of its line, and lines of one RRset add up.
func parse(t *testing.T, text string) []dnsreg.RRset {
	t.Helper()
	var sets []dnsreg.RRset
	for line := range strings.SplitSeq(text, "\n") {
		f := strings.SplitN(strings.TrimSpace(line), " ", 4)
		if len(f) < 4 {
			continue
		}
		name := zone
		if f[0] != "@" {
			name = f[0] + "." + zone
		}
		seconds, err := time.ParseDuration(f[2] + "s")
		require.NoError(t, err)
		values := []string{f[3]}
		if f[1] == "A" || f[1] == "AAAA" || f[1] == "NS" {
			values = strings.Fields(f[3])
		}
		if last := len(sets) - 1; last >= 0 && sets[last].Name == name && sets[last].Type == f[1] {
			sets[last].Values = append(sets[last].Values, values...)
			continue
		}
		sets = append(sets, set(name, f[1], seconds, values...))
	}
	return sets
}

// print gives changes as the lines of a diff, with names relative to the zone.
func print(changes []dnsreg.Change) string {
	var lines []string
	for _, c := range changes {
		for line := range strings.SplitSeq(c.String(), "\n") {
			lines = append(lines, strings.Replace(line, "."+zone, "", 1))
		}
	}
	return strings.Join(lines, "\n")
}

func trim(text string) string {
	var lines []string
	for line := range strings.SplitSeq(strings.TrimSpace(text), "\n") {
		lines = append(lines, strings.TrimSpace(line))
	}
	return strings.Join(lines, "\n")
}

func TestDiff(t *testing.T) {
	for _, c := range []struct{ name, have, want, diff, refused string }{
		{name: "nothing and nothing"},
		{name: "a first value comes with its mark",
			want: "www A 20 192.0.2.1",
			diff: `+ www A 192.0.2.1 ttl=20s
				+ _scalr.www TXT "v=scalr1 owner=shop type=A ttl=20 value=192.0.2.1" ttl=20s`},
		{name: "what is there already is no change",
			have: `www A 20 192.0.2.1
				_scalr.www TXT 300 v=scalr1 owner=shop type=A ttl=20 value=192.0.2.1`,
			want: "www A 20 192.0.2.1"},
		{name: "a value is replaced, and so is its mark; the marks' TTL stays",
			have: `www A 20 192.0.2.1
				_scalr.www TXT 300 v=scalr1 owner=shop type=A ttl=20 value=192.0.2.1`,
			want: "www A 20 192.0.2.2",
			diff: `- www A 192.0.2.1 ttl=20s
				+ www A 192.0.2.2 ttl=20s
				- _scalr.www TXT "v=scalr1 owner=shop type=A ttl=20 value=192.0.2.1" ttl=300s
				+ _scalr.www TXT "v=scalr1 owner=shop type=A ttl=20 value=192.0.2.2" ttl=300s`},
		{name: "who wants nothing takes everything of its own away",
			have: `www A 20 192.0.2.1
				www TXT 20 hello
				_scalr.www TXT 300 v=scalr1 owner=shop type=A ttl=20 value=192.0.2.1
				_scalr.www TXT 300 v=scalr1 owner=shop type=TXT ttl=20 value=hello`,
			diff: `- www A 192.0.2.1 ttl=20s
				- www TXT "hello" ttl=20s
				- _scalr.www TXT "v=scalr1 owner=shop type=A ttl=20 value=192.0.2.1" ttl=300s
				- _scalr.www TXT "v=scalr1 owner=shop type=TXT ttl=20 value=hello" ttl=300s`},
		{name: "values of others and what a person put stay",
			have: `www A 20 192.0.2.1 192.0.2.2 192.0.2.3
				_scalr.www TXT 300 v=scalr1 owner=shop type=A ttl=20 value=192.0.2.1
				_scalr.www TXT 300 v=scalr1 owner=blog type=A ttl=20 value=192.0.2.2`,
			diff: `- www A 192.0.2.1 ttl=20s
				- _scalr.www TXT "v=scalr1 owner=shop type=A ttl=20 value=192.0.2.1" ttl=300s`},
		{name: "a person's value that the owner wants too is not marked",
			have: `www A 3600 192.0.2.9`,
			want: `www A 20 192.0.2.9`},
		{name: "beside a person's value the TTL is lowered",
			have: `www A 3600 192.0.2.9`,
			want: `www A 20 192.0.2.1 192.0.2.9`,
			diff: `- www A 192.0.2.9 ttl=3600s
				+ www A 192.0.2.1 ttl=20s
				+ www A 192.0.2.9 ttl=20s
				+ _scalr.www TXT "v=scalr1 owner=shop type=A ttl=20 value=192.0.2.1" ttl=20s`},
		{name: "beside a person's value the TTL is not raised",
			have: `www A 5 192.0.2.9`,
			want: `www A 20 192.0.2.1`,
			diff: `+ www A 192.0.2.1 ttl=5s
				+ _scalr.www TXT "v=scalr1 owner=shop type=A ttl=20 value=192.0.2.1" ttl=20s`},
		{name: "a value that another owner has is marked for both",
			have: `www A 60 192.0.2.1
				_scalr.www TXT 300 v=scalr1 owner=blog type=A ttl=60 value=192.0.2.1`,
			want: `www A 60 192.0.2.1`,
			diff: `+ _scalr.www TXT "v=scalr1 owner=shop type=A ttl=60 value=192.0.2.1" ttl=300s`},
		{name: "a value of two owners stays when one goes",
			have: `www A 60 192.0.2.1
				_scalr.www TXT 300 v=scalr1 owner=blog type=A ttl=60 value=192.0.2.1
				_scalr.www TXT 300 v=scalr1 owner=shop type=A ttl=60 value=192.0.2.1`,
			diff: `- _scalr.www TXT "v=scalr1 owner=shop type=A ttl=60 value=192.0.2.1" ttl=300s`},
		{name: "the shortest TTL that an owner wants wins",
			have: `www A 20 192.0.2.1
				_scalr.www TXT 300 v=scalr1 owner=blog type=A ttl=20 value=192.0.2.1`,
			want: `www A 60 192.0.2.2`,
			diff: `+ www A 192.0.2.2 ttl=20s
				+ _scalr.www TXT "v=scalr1 owner=shop type=A ttl=60 value=192.0.2.2" ttl=300s`},
		{name: "when that owner goes the TTL is the shortest of the rest",
			have: `www A 20 192.0.2.1 192.0.2.2
				_scalr.www TXT 300 v=scalr1 owner=shop type=A ttl=20 value=192.0.2.1
				_scalr.www TXT 300 v=scalr1 owner=blog type=A ttl=60 value=192.0.2.2`,
			diff: `- www A 192.0.2.1 ttl=20s
				- www A 192.0.2.2 ttl=20s
				+ www A 192.0.2.2 ttl=60s
				- _scalr.www TXT "v=scalr1 owner=shop type=A ttl=20 value=192.0.2.1" ttl=300s`},
		{name: "another TTL is another mark",
			have: `www A 20 192.0.2.1
				_scalr.www TXT 300 v=scalr1 owner=shop type=A ttl=20 value=192.0.2.1`,
			want: `www A 60 192.0.2.1`,
			diff: `- www A 192.0.2.1 ttl=20s
				+ www A 192.0.2.1 ttl=60s
				- _scalr.www TXT "v=scalr1 owner=shop type=A ttl=20 value=192.0.2.1" ttl=300s
				+ _scalr.www TXT "v=scalr1 owner=shop type=A ttl=60 value=192.0.2.1" ttl=300s`},
		{name: "unknown text beside the marks stays",
			have: `www A 20 192.0.2.1
				_scalr.www TXT 300 v=scalr1 owner=shop type=A ttl=20 value=192.0.2.1
				_scalr.www TXT 300 v=scalr1 owner=shop type=A ttl=020 value=192.0.2.1
				_scalr.www TXT 300 v=scalr2 owner=shop
				_scalr.www TXT 300 do not touch`,
			diff: `- www A 192.0.2.1 ttl=20s
				- _scalr.www TXT "v=scalr1 owner=shop type=A ttl=20 value=192.0.2.1" ttl=300s`},
		{name: "a mark without its value: the value comes back",
			have: `_scalr.www TXT 300 v=scalr1 owner=shop type=A ttl=20 value=192.0.2.1`,
			want: `www A 20 192.0.2.1`,
			diff: `+ www A 192.0.2.1 ttl=20s`},
		{name: "a mark without its value that is not wanted: the mark goes",
			have: `_scalr.www TXT 300 v=scalr1 owner=shop type=A ttl=20 value=192.0.2.1`,
			diff: `- _scalr.www TXT "v=scalr1 owner=shop type=A ttl=20 value=192.0.2.1" ttl=300s`},
		{name: "the apex and a wildcard",
			want: `@ A 20 192.0.2.1
				* A 20 192.0.2.2`,
			diff: `+ * A 192.0.2.2 ttl=20s
				+ _scalr-any TXT "v=scalr1 owner=shop type=A ttl=20 value=192.0.2.2" ttl=20s
				+ example.com. A 192.0.2.1 ttl=20s
				+ _scalr TXT "v=scalr1 owner=shop type=A ttl=20 value=192.0.2.1" ttl=20s`},
		{name: "text that a host could alter is marked by its hash",
			want: `t TXT 20 say "hi"`,
			diff: `+ t TXT "say \"hi\"" ttl=20s
				+ _scalr.t TXT "v=scalr1 owner=shop type=TXT ttl=20 sha256=f65be999baf4fcd1360777c7c8a0473cefc28df82631cdfaf423f11389ac9a6c" ttl=20s`},
		{name: "data becomes a CNAME, removal first",
			have: `www TXT 20 x
				_scalr.www TXT 300 v=scalr1 owner=shop type=TXT ttl=20 value=x`,
			want: `www CNAME 20 lb.example.net.`,
			diff: `- www TXT "x" ttl=20s
				+ www CNAME lb.example.net. ttl=20s
				- _scalr.www TXT "v=scalr1 owner=shop type=TXT ttl=20 value=x" ttl=300s
				+ _scalr.www TXT "v=scalr1 owner=shop type=CNAME ttl=20 value=lb.example.net." ttl=300s`},
		{name: "a CNAME is replaced",
			have: `www CNAME 20 a.example.net.
				_scalr.www TXT 300 v=scalr1 owner=shop type=CNAME ttl=20 value=a.example.net.`,
			want: `www CNAME 20 b.example.net.`,
			diff: `- www CNAME a.example.net. ttl=20s
				+ www CNAME b.example.net. ttl=20s
				- _scalr.www TXT "v=scalr1 owner=shop type=CNAME ttl=20 value=a.example.net." ttl=300s
				+ _scalr.www TXT "v=scalr1 owner=shop type=CNAME ttl=20 value=b.example.net." ttl=300s`},
		{name: "the same CNAME of another owner is shared",
			have: `www CNAME 20 a.example.net.
				_scalr.www TXT 300 v=scalr1 owner=blog type=CNAME ttl=20 value=a.example.net.`,
			want: `www CNAME 20 a.example.net.`,
			diff: `+ _scalr.www TXT "v=scalr1 owner=shop type=CNAME ttl=20 value=a.example.net." ttl=300s`},
		{name: "another CNAME of another owner is in the way; other names are done",
			have: `www CNAME 20 a.example.net.
				_scalr.www TXT 300 v=scalr1 owner=blog type=CNAME ttl=20 value=a.example.net.`,
			want: `www CNAME 20 b.example.net.
				x A 20 192.0.2.1`,
			diff: `+ x A 192.0.2.1 ttl=20s
				+ _scalr.x TXT "v=scalr1 owner=shop type=A ttl=20 value=192.0.2.1" ttl=20s`,
			refused: `www.example.com. CNAME: a CNAME stands alone (RFC 1034, section 3.6.2), and there is CNAME "a.example.net." (owner blog has it)`},
		{name: "a person's data is in the way of a CNAME, and a person's CNAME in that of data",
			have: `a CAA 20 0 issue "ca.example.net"
				b CNAME 20 a.example.net.`,
			want: `a CNAME 20 b.example.net.
				b A 20 192.0.2.1
				b TXT 20 x`,
			refused: `a.example.com. CNAME: a CNAME stands alone (RFC 1034, section 3.6.2), and there is CAA "0 issue \"ca.example.net\"" (no owner's mark is on it); ` +
				`b.example.com. A: a CNAME stands alone (RFC 1034, section 3.6.2), and there is CNAME "a.example.net." (no owner's mark is on it); ` +
				`b.example.com. TXT: a CNAME stands alone (RFC 1034, section 3.6.2), and there is CNAME "a.example.net." (no owner's mark is on it)`},
		{name: "a refused name keeps what the owner has there",
			have: `www A 20 192.0.2.1
				_scalr.www TXT 300 v=scalr1 owner=shop type=A ttl=20 value=192.0.2.1`,
			want: `www A 20 192.0.2.1000
				x A 20 192.0.2.1`,
			diff: `+ x A 192.0.2.1 ttl=20s
				+ _scalr.x TXT "v=scalr1 owner=shop type=A ttl=20 value=192.0.2.1" ttl=20s`,
			refused: `www.example.com. A: invalid: value "192.0.2.1000" is not an IPv4 address`},
		{name: "what cannot be wanted",
			want: `@ CNAME 20 a.example.net.
				@ SOA 20 a. b. 1 2 3 4 5
				_scalr.x TXT 20 mine
				_scalr-any TXT 20 mine
				c CNAME 20 a.example.net.
				c A 20 192.0.2.1
				d A 20 192.0.2.1
				e A 20 192.0.2.1
				d A 20 192.0.2.2`,
			diff: `+ e A 192.0.2.1 ttl=20s
				+ _scalr.e TXT "v=scalr1 owner=shop type=A ttl=20 value=192.0.2.1" ttl=20s`,
			refused: `_scalr-any.example.com. TXT: invalid: the name is kept for marks; ` +
				`_scalr.x.example.com. TXT: invalid: the name is kept for marks; ` +
				`c.example.com. CNAME: invalid: a CNAME stands alone, other types are wanted at this name too; ` +
				`d.example.com. A: invalid: wanted twice; ` +
				`example.com. CNAME: invalid: a CNAME cannot be at the zone's own name; ` +
				`example.com. SOA: invalid: the SOA is the registrar's own`},
	} {
		t.Run(c.name, func(t *testing.T) {
			changes, err := dnsreg.Diff(zone, "shop", parse(t, c.have), parse(t, c.want))
			require.Equal(t, trim(c.diff), print(changes))
			if c.refused == "" {
				require.NoError(t, err)
				return
			}
			_, ok := errors.AsType[*dnsreg.RefusedError](err)
			require.True(t, ok, "%v", err)
			require.Equal(t, c.refused, err.Error())
		})
	}
}

func TestDiffNames(t *testing.T) {
	long := strings.Repeat("a", 60) + "."
	changes, err := dnsreg.Diff(zone, "shop", nil, []dnsreg.RRset{
		set("www.notexample.com.", "A", ttl, "192.0.2.1"),
		set("not..good.", "A", ttl, "192.0.2.1"),
		set(strings.Repeat(long, 3)+strings.Repeat("b", 55)+"."+zone, "A", ttl, "192.0.2.1"),
	})
	require.Empty(t, changes)
	require.ErrorIs(t, err, dnsreg.ErrInvalid)
	require.ErrorContains(t, err, `name "not..good.": invalid: has an empty label`)
	require.ErrorContains(t, err, "www.notexample.com. A: invalid: the name is not in zone example.com.")
	require.ErrorContains(t, err, "has 257 characters, want at most 253")
	refused, _ := errors.AsType[*dnsreg.RefusedError](err)
	require.Len(t, refused.Refused, 3)
}

func TestDiffRefusesBadArguments(t *testing.T) {
	want := []dnsreg.RRset{set("www.example.com.", "A", ttl, "192.0.2.1")}
	for _, c := range []struct{ zone, owner, want string }{
		{"", "shop", `zone: name "": invalid: is empty`},
		{".", "shop", `zone ".": invalid: the root and wildcards are no zones`},
		{"*.example.com.", "shop", "the root and wildcards are no zones"},
		{zone, "", `owner "": invalid: has 0 characters, want 1 to 63`},
		{zone, strings.Repeat("x", 64), "has 64 characters, want 1 to 63"},
		{zone, "my shop", `owner "my shop": invalid: has ' '`},
	} {
		changes, err := dnsreg.Diff(c.zone, c.owner, nil, want)
		require.Empty(t, changes)
		require.ErrorIs(t, err, dnsreg.ErrInvalid)
		require.ErrorContains(t, err, c.want)
	}
}

// A value stands in a mark as it is, unless a host could alter it on its way.
func TestMarksOfOddValues(t *testing.T) {
	for text, plain := range map[string]bool{
		"v=spf1 include:_spf.example.net ~all": true, "x": true, strings.Repeat("v", 128): true, "sha256=x": true, "value=x": true,
		"": false, " x": false, "x ": false, `a"b`: false, `a\b`: false, "a;b": false, "a\tb": false, "grün": false, strings.Repeat("v", 129): false,
	} {
		want := []dnsreg.RRset{set("t."+zone, "TXT", ttl, text)}
		changes, err := dnsreg.Diff(zone, "shop", nil, want)
		require.NoError(t, err)
		mark := changes[1].New.Values[0]
		require.Equal(t, plain, mark == "v=scalr1 owner=shop type=TXT ttl=20 value="+text, "%q: %s", text, mark)
		require.Equal(t, !plain, strings.HasPrefix(mark, "v=scalr1 owner=shop type=TXT ttl=20 sha256="), "%q: %s", text, mark)
		left, err := dnsreg.Diff(zone, "shop", []dnsreg.RRset{*changes[0].New, *changes[1].New}, want)
		require.NoError(t, err)
		require.Empty(t, left)
	}
}

// The longest mark there can be fits into one string of a TXT record.
func TestMarksAreShort(t *testing.T) {
	changes, err := dnsreg.Diff(zone, strings.Repeat("o", 63), nil, []dnsreg.RRset{
		set("t."+zone, "TXT", (1<<31-1)*time.Second, strings.Repeat("v", 128)),
		set("c."+zone, "CNAME", (1<<31-1)*time.Second, strings.Repeat(strings.Repeat("v", 60)+".", 3)),
	})
	require.NoError(t, err)
	require.Len(t, changes, 4)
	for _, c := range changes {
		if strings.HasPrefix(c.Name, "_scalr.") {
			require.LessOrEqual(t, len(c.New.Values[0]), 255)
		}
	}
}

func TestOwned(t *testing.T) {
	have := parse(t, `www A 20 192.0.2.1 192.0.2.2 192.0.2.3
		_scalr.www TXT 300 v=scalr1 owner=shop type=A ttl=60 value=192.0.2.1
		_scalr.www TXT 300 v=scalr1 owner=shop type=A ttl=60 value=192.0.2.4
		_scalr.www TXT 300 v=scalr1 owner=blog type=A ttl=20 value=192.0.2.2
		* TXT 60 a "b"
		_scalr-any TXT 300 v=scalr1 owner=shop type=TXT ttl=60 sha256=34838019aa8c62fc1e516dc70842c1cf60be9f8d3fde2191c628ce257ce2115b`)
	require.Equal(t, parse(t, "* TXT 60 a \"b\"\nwww A 60 192.0.2.1"), dnsreg.Owned("Example.com", "shop", have))
	require.Empty(t, dnsreg.Owned(zone, "mall", have))
	require.Empty(t, dnsreg.Owned("notexample.com.", "shop", have))
}
