package rfc2136

import (
	"slices"
	"strings"
	"testing"

	"github.com/miekg/dns"
	"github.com/stretchr/testify/require"

	"github.com/scalr-go/scalr/dnsreg"
)

// Whatever a transfer holds, it is an error, or a list that is sorted, in which everything that can be changed is canonical
// and fits into an update.
func FuzzTransfer(f *testing.F) {
	const zone = "farm.example."
	pack := func(records ...string) []byte {
		m := new(dns.Msg)
		for _, text := range records {
			rr, err := dns.NewRR(text)
			require.NoError(f, err)
			m.Answer = append(m.Answer, rr)
		}
		b, err := m.Pack()
		require.NoError(f, err)
		return b
	}
	soa := "farm.example. 1 SOA ns. h. 1 2 3 4 5"
	f.Add(pack(soa, "a.farm.example. 1 A 192.0.2.1", `A.farm.example. 2 TXT "x" "y"`, `a\.b.farm.example. 1 CAA 0 issue "x"`, soa))
	f.Add(pack(soa, `a.farm.example. 1 CNAME a\.b.example.`, "a.farm.example. 1 RRSIG A 8 3 1 20300101000000 20200101000000 1 farm.example. AAAA", soa))
	f.Add(pack(soa))
	f.Add(pack("a.farm.example. 1 A 192.0.2.1"))
	f.Fuzz(func(t *testing.T, msg []byte) {
		m := new(dns.Msg)
		if m.Unpack(msg) != nil {
			return
		}
		l := lister{sets: make(map[setKey]*dnsreg.RRset), texts: make(map[setKey][][]byte)}
		for _, rr := range m.Answer {
			if l.add(zone, rr) != nil {
				return
			}
		}
		list := l.list()
		require.True(t, slices.IsSortedFunc(list, func(a, b dnsreg.RRset) int { return strings.Compare(a.Name+" "+a.Type, b.Name+" "+b.Type) }))
		for _, r := range list {
			c, err := dnsreg.Canonical(r)
			if err != nil {
				continue // it stays as it is
			}
			require.Equal(t, c, r)
			changes, err := dnsreg.CanonicalChanges(zone, []dnsreg.Change{{Name: r.Name, Type: r.Type, Old: &r, New: &r}})
			if err != nil {
				continue // a SOA, or a name that is not the zone's
			}
			update, err := update(zone, changes, l.texts)
			if err != nil {
				require.ErrorIs(t, err, dnsreg.ErrInvalid)
				continue
			}
			require.NoError(t, new(dns.Msg).Unpack(update))
		}
	})
}
