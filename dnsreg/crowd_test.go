package dnsreg_test

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/scalr-go/scalr/dnsreg"
)

// crowd is n addresses whose text is long.
func crowd(typ string, n int) (values []string) {
	for i := range n {
		b := netip.MustParseAddr("2001:db8:1234:5678:9abc:def0::").As16()
		binary.BigEndian.PutUint32(b[12:], uint32(0xde000000+i))
		if a := netip.AddrFrom16(b); typ == "AAAA" {
			values = append(values, a.String())
			continue
		}
		a := [4]byte{100 + byte(i>>14), 100 + byte(i>>7&127), 100 + byte(i&127), 200}
		values = append(values, netip.AddrFrom4(a).String())
	}
	return values
}

// An owner has as many addresses at one name as the name itself can have: its marks are no more than these.
func TestACrowdOfAddressesIsOwned(t *testing.T) {
	for _, owner := range []string{"a", "farm/shop", strings.Repeat("x", 63)} {
		for typ, most := range map[string]int{"A": 4000, "AAAA": 2285} {
			t.Run(fmt.Sprint(typ, len(owner)), func(t *testing.T) {
				m := memory()
				www := set("www."+zone, typ, 20*time.Second, crowd(typ, most)...)
				want := []dnsreg.RRset{www, set("one."+zone, typ, ttl, crowd(typ, 1)...)}
				_, err := dnsreg.Sync(t.Context(), m, zone, owner, want)
				require.NoError(t, err)
				list, err := m.Records(t.Context(), zone)
				require.NoError(t, err)
				canonical, err := dnsreg.Canonical(www)
				require.NoError(t, err)
				for _, r := range list {
					for _, v := range r.Values {
						require.LessOrEqual(t, len(v), 1000, "hosts bound a text")
					}
				}
				require.Equal(t, canonical, dnsreg.Owned(zone, owner, list)[1])
				made, err := dnsreg.Sync(t.Context(), m, zone, owner, want)
				require.NoError(t, err)
				require.Empty(t, made, "there is nothing more to do")

				// One comes to stand there that is a person's: it stays.
				persons := canonical
				persons.Values = append(crowd(typ, most+1)[most:], canonical.Values[1:]...)
				require.NoError(t, m.Apply(t.Context(), zone, []dnsreg.Change{{Name: www.Name, Type: typ, Old: &canonical, New: &persons}}))
				_, err = dnsreg.Sync(t.Context(), m, zone, owner, nil)
				require.NoError(t, err)
				list, err = m.Records(t.Context(), zone)
				require.NoError(t, err)
				require.Len(t, list, 3, "SOA, NS and the person's")
				require.Equal(t, persons.Values[:1], list[2].Values)

				_, err = dnsreg.Sync(t.Context(), m, zone, owner, []dnsreg.RRset{set("www."+zone, typ, ttl, crowd(typ, most+1)...)})
				require.ErrorContains(t, err, "www."+zone+" "+typ+": invalid: the values are")
			})
		}
	}
}

// What was marked value by value is the owner's as well, and is marked anew with the first change; so it is the other way round when the crowd
// has gone.
func TestMarksChangeTheirForm(t *testing.T) {
	m := memory()
	www := set("www."+zone, "A", ttl, crowd("A", 150)...)
	marks := set("_scalr.www."+zone, "TXT", ttl)
	for _, v := range www.Values {
		marks.Values = append(marks.Values, fmt.Sprintf("v=scalr1 owner=one type=A ttl=%d value=%s", ttl/time.Second, v))
	}
	marks.Values = append(marks.Values, "a person's", "v=scalr2 owner=two type=A ttl=20 addresses=wAACAQ", "v=scalr2 owner=one type=A ttl=20 addresses=", "v=scalr2 owner=one type=A ttl=20 addresses=wAACAsAAAgE")
	require.NoError(t, m.Apply(t.Context(), zone, []dnsreg.Change{{Name: www.Name, Type: "A", New: &www}, {Name: marks.Name, Type: "TXT", New: &marks}}))
	texts := func() (own, all int) {
		list, err := m.Records(t.Context(), zone)
		require.NoError(t, err)
		for _, r := range list {
			if r.Name != marks.Name {
				continue
			}
			for _, v := range marks.Values[150:] {
				require.Contains(t, r.Values, v, "it is not the owner's, since it is no mark of that form")
			}
			for _, v := range r.Values {
				if strings.HasPrefix(v, "v=scalr1 owner=one ") {
					own++
				}
			}
			all = len(r.Values) - 4
		}
		return own, all
	}
	for _, c := range []struct{ values, own, all int }{{150, 0, 1}, {151, 0, 1}, {101, 0, 1}, {100, 100, 100}, {1, 1, 1}, {300, 0, 2}, {0, 0, 0}} {
		var want []dnsreg.RRset
		if c.values > 0 {
			want = []dnsreg.RRset{set("www."+zone, "A", ttl, crowd("A", c.values)...)}
		}
		_, err := dnsreg.Sync(t.Context(), m, zone, "one", want)
		require.NoError(t, err)
		own, all := texts()
		require.Equal(t, c.own, own, "%d values", c.values)
		require.Equal(t, c.all, all, "%d values", c.values)
		list, err := m.Records(t.Context(), zone)
		require.NoError(t, err)
		if owned := dnsreg.Owned(zone, "one", list); c.values > 0 {
			require.Len(t, owned[0].Values, c.values)
		} else {
			require.Empty(t, owned)
		}
	}
}
