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
