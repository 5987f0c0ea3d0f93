package nameserver

import (
	"fmt"
	"maps"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

func contents(t *table) map[string]int {
	m := make(map[string]int)
	t.each(func(n *node) bool { m[n.name] = n.kids; return true })
	return m
}

// Every version of a table holds what was put into it, whatever happens to later ones, also where hashes collide.
func TestTableIsPersistent(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		hash := rapid.SampledFrom([]func(i int) uint64{
			func(i int) uint64 { return uint64(i) * 0x9e3779b97f4a7c15 },
			func(i int) uint64 { return uint64(i % 3) },                  // the same hash
			func(i int) uint64 { return uint64(i) << 58 },                // the same but for the last bits
			func(i int) uint64 { return uint64(i%2) << 63 },              // the same but for the last bit
			func(i int) uint64 { return uint64(i%40)<<30 | uint64(i%7) }, // long common ways
		}).Draw(t, "hash")
		type version struct {
			table *table
			want  map[string]int
		}
		versions := []version{{new(table), map[string]int{}}}
		for range rapid.IntRange(1, 30).Draw(t, "versions") {
			from := rapid.SampledFrom(versions).Draw(t, "from")
			next := version{from.table, maps.Clone(from.want)}
			e := new(edit)
			for n := range rapid.IntRange(0, 12).Draw(t, "changes") {
				i := rapid.IntRange(0, 50).Draw(t, "i")
				name := fmt.Sprint(i)
				if _, ok := next.want[name]; ok && rapid.Bool().Draw(t, "remove") {
					delete(next.want, name)
					next.table = next.table.remove(e, 0, &node{name: name, hash: hash(i)})
				} else {
					next.want[name] = n
					next.table = next.table.put(e, 0, &node{name: name, hash: hash(i), kids: n})
				}
			}
			versions = append(versions, next)
		}
		for _, v := range versions {
			require.Equal(t, v.want, contents(v.table))
			for i := range 51 {
				name := fmt.Sprint(i)
				n := v.table.find(hash(i), []byte(name))
				kids, ok := v.want[name]
				require.Equal(t, ok, n != nil, name)
				if ok {
					require.Equal(t, kids, n.kids)
				}
			}
		}
	})
}

func TestTableStops(t *testing.T) {
	var tab *table
	for i := range 1000 {
		tab = tab.put(nil, 0, &node{name: fmt.Sprint(i), hash: uint64(i) * 0x9e3779b97f4a7c15})
	}
	var names []string
	tab.each(func(n *node) bool { names = append(names, n.name); return len(names) < 10 })
	require.Len(t, slices.Compact(slices.Sorted(slices.Values(names))), 10)
}
