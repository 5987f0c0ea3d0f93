package dnsreg

import (
	"slices"
	"strings"
)

// Owned gives what the owner has in the zone: the RRsets that bear its marks, each with only the values that are the
// owner's and the TTL that it asked for, canonical and sorted by name and type. It is pure; have is what the registrar
// lists. An owner that cannot say now what a name should hold passes what it has there to [Diff] again, and the name stays
// as it is.
func Owned(zone, owner string, have []RRset) []RRset {
	zone, err := canonicalZone(zone)
	if err != nil {
		return nil
	}
	names := make(map[string]*state)
	gather(zone, owner, have, names)
	var owned []RRset
	for name, st := range names {
		for typ, r := range st.have {
			marks := st.owners(typ)
			mine := RRset{Name: name, Type: typ}
			for _, v := range r.Values {
				for _, m := range marks[valueKey(v)] {
					if m.owner == owner {
						mine.Values = append(mine.Values, v)
						mine.TTL = m.ttl
						break
					}
				}
			}
			if len(mine.Values) > 0 {
				owned = append(owned, mine)
			}
		}
	}
	slices.SortFunc(owned, func(a, b RRset) int { return strings.Compare(a.Name+" "+a.Type, b.Name+" "+b.Type) })
	return owned
}
