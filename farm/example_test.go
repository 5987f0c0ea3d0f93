package farm_test

import (
	"context"
	"fmt"
	"time"

	"github.com/scalr-go/scalr/dnsreg"
	"github.com/scalr-go/scalr/farm"
	"github.com/scalr-go/scalr/provider/memcloud"
)

// A farm of two web servers on a cloud in memory: what would be done is shown, done, and there is nothing more to do.
func Example() {
	ctx := context.Background()
	shop, err := farm.New(farm.Spec{
		Name: "shop", Zone: "shop.example.",
		Roles: []farm.Role{{Name: "www", Serves: farm.Web, Image: "web-1.4", Size: "large", Min: 2, Max: 2, Main: true}},
	}, farm.Config{
		Pools:   []farm.Pool{{Name: "zone-a", Provider: memcloud.New(memcloud.Options{}), Placement: "a"}},
		DNS:     &dnsreg.Memory{Zones: []string{"shop.example."}},
		ListLag: time.Millisecond, // this cloud shows at once what has been created
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	plan, _ := shop.Plan(ctx)
	fmt.Print(plan)
	for !plan.Empty() {
		if plan, err = shop.Reconcile(ctx); err != nil {
			fmt.Println(err)
			return
		}
	}
	for _, s := range shop.Servers("www") {
		fmt.Println(s.Name, s.State, "ready:", s.Ready)
	}
	// Output:
	// launch-instance www-1 large in zone-a: slot www-1 is empty
	// launch-instance www-2 large in zone-a: slot www-2 is empty
	// www-1 running ready: true
	// www-2 running ready: true
}

// The twin of a farm: half as large, on smaller machines, and gone after a day, with the data in its volumes.
func ExampleSpec_Clone() {
	shop := farm.Spec{
		Name: "shop", Zone: "shop.example.",
		Roles: []farm.Role{
			{Name: "db", Serves: farm.Database, Image: "mariadb-11", Size: "m5.xlarge", Min: 3, Max: 3, Volume: &farm.Volume{SizeGB: 100}},
			{Name: "www", Serves: farm.Web, Image: "web-1.4", Size: "m5.large", Min: 4, Max: 20, Main: true, After: []string{"db"}},
		},
	}
	dev, warnings, err := shop.Clone("dev", farm.CloneOptions{
		Zone:  "dev.shop.example.",
		Scale: 0.5,
		End:   &farm.End{At: time.Date(2026, 12, 1, 8, 0, 0, 0, time.UTC), TerminateOptions: farm.TerminateOptions{DeleteVolumes: true}},
		Roles: map[string]farm.CloneRole{"www": {Size: "t4g.small"}},
		Arch: func(size string) string {
			if size == "t4g.small" {
				return "arm64"
			}
			return "x86_64"
		},
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	for _, r := range dev.Roles {
		fmt.Println(dev.Name, r.Name, r.Size, r.Min, r.Max)
	}
	fmt.Println(warnings)

	_, _, err = shop.Clone("dev", farm.CloneOptions{Zone: "www.shop.example."})
	fmt.Println(err)
	// Output:
	// dev db m5.xlarge 2 2
	// dev www t4g.small 2 10
	// [role www: size t4g.small is arm64 and the parent's m5.large is x86_64: image web-1.4 may not boot]
	// clone of farm "shop":
	// options.Zone: "www.shop.example.": the parent would have the name www.shop.example. too, for its role www, want a zone that is none of its names
}
