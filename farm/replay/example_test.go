package replay_test

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"

	"github.com/scalr-go/scalr/farm/replay"
	"github.com/scalr-go/scalr/farm/simulate"
)

// Three minutes of load are sent to a twin, each in a fifth of a second.
func Example() {
	twin := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { fmt.Fprintln(w, "hello") }))
	defer twin.Close()
	trace, err := simulate.ReadCSV(strings.NewReader("t_s,requests\n0,1500\n60,3000\n120,6000\n"))
	if err != nil {
		fmt.Println(err)
		return
	}
	report, err := replay.Run(context.Background(), trace, replay.Options{Site: twin.URL, Paths: []string{"/", "/orders"}, Speed: 300})
	fmt.Println(report.Requests, "requests,", report.Failed, "failed,", err)
	// Output: 35 requests, 0 failed, <nil>
}
