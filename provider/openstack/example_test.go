package openstack_test

import (
	"context"
	"errors"
	"fmt"

	"github.com/gophercloud/gophercloud/v2"

	"github.com/scalr-go/scalr/farm"
	"github.com/scalr-go/scalr/provider"
	"github.com/scalr-go/scalr/provider/openstack"
)

// A region is one provider; each of its availability zones is a pool.
func ExampleNew() {
	ctx := context.Background()
	cloud, err := openstack.New(ctx, openstack.Options{Region: "ord", Network: "private", Auth: &gophercloud.AuthOptions{
		IdentityEndpoint: "http://127.0.0.1:1/v3", // where nothing listens; without Auth, clouds.yaml and OS_* are read
		Username:         "shop", Password: "secret", DomainName: "Default", TenantName: "shop",
	}})
	if err != nil {
		fmt.Println("wrong credentials:", errors.Is(err, provider.ErrAuth))
		return
	}
	_ = farm.Config{Pools: []farm.Pool{
		{Name: "ord-a", Provider: cloud, Placement: "a"},
		{Name: "ord-b", Provider: cloud, Placement: "b"},
	}}
	// Output:
	// wrong credentials: false
}
