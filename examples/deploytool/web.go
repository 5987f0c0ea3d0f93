package main

import (
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"strconv"
	"time"

	"github.com/scalr-go/scalr/provider/local"
)

const webPort = 8080

// images are what machines can run: this program as a web server, of two versions, and one that ends at once, to see an
// update given up.
func images() (map[string]local.Image, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	all := map[string]local.Image{}
	for _, name := range []string{"web-1.0", "web-1.1", "web-broken"} {
		all[name] = local.Image{Port: webPort, Command: func(m local.Machine) local.Command {
			return local.Command{Args: []string{self, "-web", m.Image}}
		}}
	}
	return all, nil
}

// serve is the web server: it says which version it is, at the machine's own address.
func serve(image string) error {
	if image == "web-broken" {
		return errors.New("this version does not start")
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", func(http.ResponseWriter, *http.Request) {})
	mux.HandleFunc("GET /{$}", func(out http.ResponseWriter, _ *http.Request) {
		fmt.Fprintf(out, "%s on %s\n", image, os.Getenv("SCALR_NAME"))
	})
	server := &http.Server{Addr: net.JoinHostPort(os.Getenv("SCALR_ADDR"), strconv.Itoa(webPort)), Handler: mux,
		ReadHeaderTimeout: 5 * time.Second}
	return server.ListenAndServe()
}
