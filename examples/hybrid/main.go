// Hybrid runs one farm over two clouds, Amazon EC2 and OpenStack, by one spec: web servers spread over both, application
// servers with disks in the cloud that comes first. It does so twice, with the other cloud first the second time, and ends a
// web server in between to show that its address moves to its successor. In the end nothing is left in either cloud.
//
//	go run ./examples/hybrid          for a person
//	go run ./examples/hybrid -json    one JSON object a line, the last of them the summary
//
// EC2 is what AWS_ENDPOINT_URL, the AWS_* variables and the shared files say. Without AWS_ENDPOINT_URL it is a moto_server
// (Python package moto[server]) that the example starts on 127.0.0.1: it never bills an account by accident. OpenStack is
// what OS_CLOUD and clouds.yaml, or OS_AUTH_URL and its like, say; `make test-openstack` shows how to have one on this machine.
// Where a cloud is missing the example says so and exits 2.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"time"

	"github.com/scalr-go/scalr/examples/show"
)

var errMissing = errors.New("a cloud is missing")

func main() {
	asJSON := flag.Bool("json", false, "print JSON lines")
	var o options
	flag.StringVar(&o.ec2Image, "ec2-image", "ami-0123456789abcdef0", "the image of EC2's machines")
	flag.StringVar(&o.ec2Size, "ec2-size", "t3.small", "their type")
	flag.StringVar(&o.region, "region", "eu-central-1", "EC2's region, of which zone a is used")
	flag.StringVar(&o.osImage, "os-image", "debian", "the image of OpenStack's machines")
	flag.StringVar(&o.osSize, "os-size", "small", "their flavor")
	flag.StringVar(&o.osNetwork, "os-network", "private", "their network")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	ctx, cancel := context.WithTimeout(ctx, 10*time.Minute)
	defer cancel()
	err := run(ctx, show.New(os.Stdout, *asJSON), o)
	if err == nil {
		return
	}
	fmt.Fprintln(os.Stderr, "hybrid:", err)
	if errors.Is(err, errMissing) {
		os.Exit(2)
	}
	os.Exit(1)
}
