package cache_test

import (
	"context"
	"fmt"
	"time"

	"github.com/scalr-go/scalr/cache"
)

// A page is read from the database once, and again when it was written.
func ExampleOf() {
	type Page struct{ Title string }
	database := map[string]Page{"42": {"Hello"}}
	load := func(context.Context) (Page, error) {
		fmt.Println("loading page 42")
		return database["42"], nil
	}

	ctx := context.Background()
	pages := &cache.Of[Page]{Store: new(cache.Memory), Prefix: "page:", TTL: time.Minute}
	for range 2 {
		page, err := pages.Get(ctx, "42", load)
		fmt.Println(page.Title, err)
	}

	database["42"] = Page{"Hello again"}
	if err := pages.Delete(ctx, "42"); err != nil {
		fmt.Println(err)
	}
	page, err := pages.Get(ctx, "42", load)
	fmt.Println(page.Title, err)
	// Output:
	// loading page 42
	// Hello <nil>
	// Hello <nil>
	// loading page 42
	// Hello again <nil>
}
