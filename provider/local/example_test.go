//go:build linux

package local_test

import (
	"context"
	"fmt"
	"os"

	"github.com/scalr-go/scalr/provider"
	"github.com/scalr-go/scalr/provider/local"
)

func Example() {
	ctx := context.Background()
	dir, _ := os.MkdirTemp("", "cloud")
	defer os.RemoveAll(dir)

	cloud, err := local.New(local.Options{
		Dir: dir,
		Images: map[string]local.Image{
			"sleeper": {Command: func(m local.Machine) local.Command { return local.Command{Args: []string{"sleep", "1000"}} }},
		},
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	i, err := cloud.Launch(ctx, provider.Launch{Token: "first", Name: "sleepy", Image: "sleeper"})
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(i.Name, "is", i.State)

	r, err := cloud.RunCommand(ctx, i.ID, provider.Command{Args: []string{"sh", "-c", "echo I am $SCALR_NAME"}})
	fmt.Printf("%s%v\n", r.Output, err)

	err = cloud.Terminate(ctx, i.ID)
	again, _ := cloud.Launch(ctx, provider.Launch{Token: "first", Name: "sleepy", Image: "sleeper"})
	fmt.Println(again.ID == i.ID, again.State, err)
	// Output:
	// sleepy is running
	// I am sleepy
	// <nil>
	// true terminated <nil>
}
