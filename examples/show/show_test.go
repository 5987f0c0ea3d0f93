package show_test

import (
	"os"

	"github.com/scalr-go/scalr"
	"github.com/scalr-go/scalr/examples/show"
)

func ExampleShow_Event() {
	s := show.New(os.Stdout, true)
	s.Event(scalr.Event{Kind: "host-up", Role: "www", Index: 1, Message: "serves"})
	// Output: {"time":"0001-01-01T00:00:00Z","kind":"host-up","role":"www","index":1,"message":"serves"}
}
