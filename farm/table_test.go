package farm

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/scalr-go/scalr/provider"
)

// TestSlotTableIsAMap compares the table with a map of slots.
func TestSlotTableIsAMap(t *testing.T) {
	index := rapid.OneOf(rapid.IntRange(-2, 40), rapid.SampledFrom([]int{highest, highest + 7, -1 << 40, 1 << 40}))
	rapid.Check(t, func(t *rapid.T) {
		table, model := slotTable{}, map[slot]int{}
		for range rapid.IntRange(1, 60).Draw(t, "steps") {
			s := slot{rapid.SampledFrom([]string{"", "www", "db"}).Draw(t, "role"), index.Draw(t, "index")}
			switch rapid.IntRange(0, 2).Draw(t, "do") {
			case 0:
				mem := table.role(s.role).slot(s.index)
				require.Equal(t, s, mem.slot)
				require.Equal(t, s.name(), mem.name)
				mem.generation++
				mem.wants, mem.holder = true, &machine{}
				model[s]++
			case 1:
				if mem := table.get(s); model[s] == 0 {
					require.Nil(t, mem)
				} else {
					require.Equal(t, model[s], mem.generation)
				}
			case 2:
				before := table
				table = table.next()
				for mem := range before.all() {
					mem.generation = -1 // the copy is its own
				}
				for mem := range table.all() {
					require.False(t, mem.wants)
					require.Nil(t, mem.holder)
				}
			}
		}
		want := slices.SortedFunc(maps.Keys(model), func(a, b slot) int { return cmp.Or(cmp.Compare(a.role, b.role), cmp.Compare(a.index, b.index)) })
		var all, each []slot
		for mem := range table.all() {
			all = append(all, mem.slot)
		}
		for _, role := range sortedKeys(table) {
			for mem := range table.of(role) {
				each = append(each, mem.slot)
			}
		}
		require.Equal(t, want, all, "in order, and none twice")
		require.Equal(t, want, each)
		for range table.all() {
			break // an iteration may end early
		}
	})
}

// TestSlotTableAtItsBound asks for the last slot that has a place by its index, and the first that has none.
func TestSlotTableAtItsBound(t *testing.T) {
	table := slotTable{}
	for _, index := range []int{highest - 1, highest} {
		table.role("www").slot(index).generation = index
	}
	table = table.next()
	require.Equal(t, highest-1, table.get(slot{"www", highest - 1}).generation)
	require.Equal(t, highest, table.get(slot{"www", highest}).generation)
	require.Len(t, table["www"].low, highest)
	require.Len(t, table["www"].high, 1)
}

// TestPlacesInMemoryDecideNothing makes the passes of a farm whose machines come, go missing, end and fail, once as they are and
// once with the places in memory of its machines mixed up before each pass.
func TestPlacesInMemoryDecideNothing(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		spec := Spec{Name: "shop", Roles: []Role{{Name: "www", Serves: Web, Image: "web", Min: 4, Max: 4}, {Name: "app", Image: "app", Min: 3, Max: 9}}}.withDefaults()
		config := Config{Pools: []Pool{{Name: "a", Provider: &unasked{}}, {Name: "b", Provider: &unasked{}}}}.withDefaults()
		now := time.Unix(1e9, 0)
		start, plain, mixed := now, history{}.next(), history{}.next()
		states := rapid.SampledFrom([]provider.State{provider.Running, provider.Running, provider.Running, provider.Pending, provider.Stopped, provider.Failed, provider.Terminating, provider.Terminated})
		for range rapid.IntRange(2, 8).Draw(t, "passes") {
			now = now.Add(time.Duration(rapid.IntRange(1, 400).Draw(t, "seconds")) * time.Second)
			o := observation{at: now, clouds: config.clouds()}
			for i := range o.clouds {
				c := &o.clouds[i]
				if rapid.IntRange(0, 9).Draw(t, "unlisted") == 0 {
					c.instances.err = provider.ErrThrottled
					continue
				}
				for n := range 10 {
					if rapid.IntRange(0, 4).Draw(t, "absent") == 0 {
						continue
					}
					role := []string{"www", "app", "old"}[n%3]
					c.instances.items = append(c.instances.items, provider.Instance{ID: fmt.Sprintf("i-%x", (n*7)%11), State: states.Draw(t, "state"), Launched: start,
						Tags: tagsOf("shop", slot{role, (n*5)%6 + 1 - n/9*3}, c.pools[0].Name)})
				}
				slices.SortFunc(c.instances.items, func(a, b provider.Instance) int { return cmp.Compare(a.ID, b.ID) })
				c.instances.items = slices.CompactFunc(c.instances.items, func(a, b provider.Instance) bool { return a.ID == b.ID })
			}
			for i, m := range mixed.machines {
				m := *m
				m.place = rapid.IntRange(-1, len(mixed.machines)+1).Draw(t, "place")
				mixed.machines[i] = &m
			}
			p, next, events := decide(spec, &config, nil, o, plain)
			q, other, told := decide(spec, &config, nil, o, mixed)
			require.Equal(t, p.String(), q.String())
			require.Equal(t, p.Desired, q.Desired)
			require.Equal(t, events, told)
			require.Len(t, other.machines, len(next.machines))
			for i := range next.machines {
				a, b := *next.machines[i], *other.machines[i]
				require.Equal(t, a.at.holder == next.machines[i], b.at.holder == other.machines[i])
				a.at, b.at, a.place, b.place = nil, nil, 0, 0
				require.Equal(t, a, b)
			}
			plain, mixed = next, other
		}
	})
}

// unasked is a provider of which nothing is asked.
type unasked struct {
	provider.Provider
	_ byte // so that two are not one
}
