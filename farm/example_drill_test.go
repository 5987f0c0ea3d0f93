package farm_test

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/scalr-go/scalr/farm"
	"github.com/scalr-go/scalr/provider/memcloud"
)

// A farm whose volume is copied every day, and a drill that proves that the copy is good: a farm of its own is filled from it,
// serves, is checked and ended.
func ExampleDrill() {
	ctx := context.Background()
	cloud := memcloud.New(memcloud.Options{})
	config := farm.Config{Pools: []farm.Pool{{Name: "zone-a", Provider: cloud, Placement: "a"}},
		ListLag: time.Millisecond, Interval: 10 * time.Millisecond} // this cloud shows at once what has been created
	store := farm.Role{Name: "store", Image: "store-2", Min: 1, Max: 1,
		Volume: &farm.Volume{SizeGB: 10, Snapshots: &farm.Snapshots{Every: 24 * time.Hour, Keep: 7, MaxAge: 30 * 24 * time.Hour}}}
	shop, err := farm.New(farm.Spec{Name: "shop", Roles: []farm.Role{store}}, config)
	if err != nil {
		fmt.Println(err)
		return
	}
	for len(cloud.World(nil).Snapshots) == 0 {
		plan, err := shop.Reconcile(ctx)
		if err != nil {
			fmt.Println(err)
			return
		}
		for _, s := range plan.Steps {
			fmt.Println(s.Action, s.Role)
		}
	}

	store.Volume = &farm.Volume{SizeGB: 10, From: &farm.Source{Farm: "shop"}}
	report, err := farm.Drill{
		Spec:   farm.Spec{Name: "drill-shop", Roles: []farm.Role{store}},
		Config: config,
		Check: func(_ context.Context, f *farm.Farm) error {
			if len(f.Servers("store")) == 0 { // here: ask the server for what the backup should hold
				return errors.New("there is no server")
			}
			return nil
		},
	}.Run(ctx)
	for _, r := range report.Restored {
		fmt.Printf("%s-%d was filled from a snapshot of %s; error: %v\n", r.Role, r.Index, r.Source, err)
	}
	// Output:
	// create-volume store
	// launch-instance store
	// create-snapshot store
	// store-1 was filled from a snapshot of shop; error: <nil>
}
