package memcloud_test

import (
	"fmt"
	"net/netip"
	"testing"

	"github.com/scalr-go/scalr/provider"
	"github.com/scalr-go/scalr/provider/memcloud"
)

// BenchmarkInstances lists a farm's instances: all of the cloud's, and one in a hundred.
func BenchmarkInstances(b *testing.B) {
	for _, n := range []int{1_000, 100_000} {
		c := memcloud.New(memcloud.Options{})
		for i := range n {
			tags := map[string]string{"scalr-farm": "shop", "scalr-role": "www", "scalr-index": fmt.Sprint(i), "scalr-generation": "1",
				"scalr-hundredth": fmt.Sprint(i % 100)}
			if _, err := c.Launch(b.Context(), provider.Launch{Token: fmt.Sprint("t", i), Image: "debian", Tags: tags}); err != nil {
				b.Fatal(err)
			}
		}
		for _, tags := range []map[string]string{{"scalr-farm": "shop"}, {"scalr-farm": "shop", "scalr-hundredth": "7"}} {
			list, err := c.Instances(b.Context(), tags)
			if err != nil {
				b.Fatal(err)
			}
			b.Run(fmt.Sprintf("%d_of_%d", len(list), n), func(b *testing.B) {
				b.ReportAllocs()
				for b.Loop() {
					if _, err := c.Instances(b.Context(), tags); err != nil {
						b.Fatal(err)
					}
				}
			})
		}
	}
}

// BenchmarkLaunch launches into a cloud that grows.
func BenchmarkLaunch(b *testing.B) {
	c := memcloud.New(memcloud.Options{Public: netip.MustParsePrefix("100.64.0.0/10")})
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		if _, err := c.Launch(b.Context(), provider.Launch{Token: fmt.Sprint("t", i), Image: "debian"}); err != nil {
			b.Fatal(err)
		}
	}
}
