package memcloud_test

import (
	"context"
	"errors"
	"fmt"

	"github.com/scalr-go/scalr/provider"
	"github.com/scalr-go/scalr/provider/memcloud"
)

// A program under test launches a web server. The cloud loses the reply, the program tries again with the same token, and
// there is one instance. Then the instance dies, and the test sees what is left.
func Example() {
	ctx := context.Background()
	lost := errors.New("connection reset")
	cloud := memcloud.New(memcloud.Options{
		Quota: memcloud.Quota{Instances: 20},
		Fault: func(_ context.Context, c memcloud.Call) error {
			if c.Seq == 1 && c.After {
				return lost
			}
			return nil
		},
		OnState: func(i provider.Instance) { fmt.Println("the machine", i.Name, "is", i.State) },
	})

	www := provider.Launch{Token: "shop-www-1", Name: "www-1", Image: "debian-13", Tags: map[string]string{"farm": "shop"}}
	_, err := cloud.Launch(ctx, www)
	fmt.Println(err)
	i, err := cloud.Launch(ctx, www)
	fmt.Println(i.State, err)
	fmt.Println(len(cloud.World(nil).Instances), "instance after", cloud.Calls()["Launch"], "calls")

	cloud.Kill(i.ID, "spot reclaim")
	fmt.Println(cloud.World(nil).Len(), "left;", len(cloud.Changes()), "change by a call")
	// Output:
	// the machine www-1 is running
	// Launch shop-www-1: outcome unknown: reply lost: connection reset
	// running <nil>
	// 1 instance after 2 calls
	// the machine www-1 is terminated
	// 0 left; 1 change by a call
}
