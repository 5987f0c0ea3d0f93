package designate_test

import (
	"fmt"

	"github.com/scalr-go/scalr/dnsreg/designate"
)

// Without a client there is nothing to talk to; the package's doc shows how one is made.
func ExampleNew() {
	_, err := designate.New(designate.Options{})
	fmt.Println(err)
	// Output:
	// designate: Client is nil, want a client of the dns service
}
