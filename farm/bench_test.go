package farm

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/scalr-go/scalr/provider"
)

// BenchmarkDecide measures the decision alone for a farm at rest.
func BenchmarkDecide(b *testing.B) {
	for _, n := range []int{1000, 10_000, 100_000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			spec := Spec{Name: "shop", Roles: []Role{{Name: "www", Serves: Web, Image: "web", Min: n, Max: n}}}.withDefaults()
			config := Config{Pools: []Pool{{Name: "a"}}}.withDefaults()
			now := time.Now()
			o := observation{at: now, clouds: config.clouds()}
			for i := range n {
				o.clouds[0].instances.items = append(o.clouds[0].instances.items, provider.Instance{ID: fmt.Sprintf("i-%08x", uint32(i)*2654435761),
					State: provider.Running, Launched: now, Tags: map[string]string{TagFarm: "shop", TagRole: "www",
						TagIndex: strconv.Itoa(i + 1), TagGeneration: "1", TagPool: "a"}})
			}
			slices.SortFunc(o.clouds[0].instances.items, func(a, b provider.Instance) int { return cmp.Compare(a.ID, b.ID) })
			p, h, _ := decide(spec, &config, nil, o, history{}.next())
			if !p.Empty() {
				b.Fatal(p)
			}
			b.ReportAllocs()
			for b.Loop() {
				_, h, _ = decide(spec, &config, nil, o, h)
			}
		})
	}
}
