package provider_test

import (
	"context"
	"errors"
	"fmt"

	"github.com/scalr-go/scalr/provider"
	"github.com/scalr-go/scalr/provider/memcloud"
)

// launchSomewhere launches at the first placement that has capacity.
func launchSomewhere(ctx context.Context, p provider.Provider, l provider.Launch, placements ...string) (provider.Instance, error) {
	token := l.Token
	for _, l.Placement = range placements {
		l.Token = token + "-" + l.Placement // another placement is another request, and so wants another token
		i, err := p.Launch(ctx, l)
		if !errors.Is(err, provider.ErrCapacity) {
			return i, err
		}
		fmt.Println(err)
	}
	return provider.Instance{}, provider.Errorf("launchSomewhere", token, provider.ErrCapacity, "at none of %s", placements)
}

func Example() {
	ctx := context.Background()
	cloud := memcloud.New(memcloud.Options{Capacity: map[memcloud.Offering]int{{Placement: "a"}: 0}})

	l := provider.Launch{Token: "shop-www-1", Name: "www-1", Image: "debian-13", Tags: map[string]string{"farm": "shop"}}
	web, err := launchSomewhere(ctx, cloud, l, "a", "b")
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println("launched at", web.Placement)

	// A capability is asked for: not every cloud has addresses of its own.
	if addresses, ok := provider.As[provider.Addresses](cloud); ok {
		a, err := addresses.AllocateAddress(ctx, provider.AddressSpec{Token: "shop-www-1", Tags: l.Tags})
		if err == nil {
			err = addresses.AssociateAddress(ctx, a.ID, web.ID)
		}
		fmt.Println("address:", err)
	}

	// Whoever comes later finds everything again by its tags.
	list, _ := cloud.Instances(ctx, map[string]string{"farm": "shop"})
	for _, i := range list {
		fmt.Println(i.Name, i.State, "terminate:", cloud.Terminate(ctx, i.ID))
	}
	// Output:
	// Launch shop-www-1-a: no capacity: no room for size "" at placement ["a"]
	// launched at b
	// address: <nil>
	// www-1 running terminate: <nil>
}
