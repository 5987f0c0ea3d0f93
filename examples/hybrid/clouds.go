package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"strconv"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"

	"github.com/scalr-go/scalr/farm"
	"github.com/scalr-go/scalr/provider/ec2"
	"github.com/scalr-go/scalr/provider/openstack"
)

// options are what the spec's names mean in each cloud.
type options struct {
	region, ec2Image, ec2Size  string
	osImage, osSize, osNetwork string
}

// clouds gives a pool in each cloud. The spec's image "debian" and its size "small" are what each calls so itself.
func (o options) clouds(ctx context.Context) (onEC2, onOpenStack farm.Pool, end func(), err error) {
	end = func() {}
	fail := func(err error) (farm.Pool, farm.Pool, func(), error) {
		end()
		return farm.Pool{}, farm.Pool{}, nil, err
	}
	if os.Getenv("OS_CLOUD") == "" && os.Getenv("OS_AUTH_URL") == "" {
		return fail(fmt.Errorf("%w: neither OS_CLOUD nor OS_AUTH_URL is set", errMissing))
	}
	open := ec2.Options{Region: o.region}
	if os.Getenv("AWS_ENDPOINT_URL") == "" {
		var url string
		if url, end, err = moto(ctx); err != nil {
			end = func() {}
			return fail(fmt.Errorf("%w: AWS_ENDPOINT_URL is not set, and there is no moto_server: %w", errMissing, err))
		}
		open.ListLag = time.Second
		open.Config = &aws.Config{BaseEndpoint: &url, Credentials: credentials.NewStaticCredentialsProvider("nobody", "nothing", "")}
	}
	amazon, err := ec2.New(ctx, open)
	if err != nil {
		return fail(err)
	}
	stack, err := openstack.New(ctx, openstack.Options{Network: o.osNetwork})
	if err != nil {
		return fail(err)
	}
	onEC2 = farm.Pool{Name: "ec2", Provider: amazon, Placement: o.region + "a",
		Images: map[string]string{"debian": o.ec2Image}, Sizes: map[string]string{"small": o.ec2Size}}
	onOpenStack = farm.Pool{Name: "openstack", Provider: stack,
		Images: map[string]string{"debian": o.osImage}, Sizes: map[string]string{"small": o.osSize}}
	return onEC2, onOpenStack, end, nil
}

// moto starts a moto_server of the example's own, and gives its address and what ends it.
func moto(ctx context.Context) (url string, end func(), err error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", nil, err
	}
	port := l.Addr().(*net.TCPAddr).Port
	if err := l.Close(); err != nil {
		return "", nil, err
	}
	server := exec.Command("moto_server", "-H", "127.0.0.1", "-p", strconv.Itoa(port))
	if err := server.Start(); err != nil {
		return "", nil, err
	}
	exited := make(chan error, 1)
	go func() { exited <- server.Wait() }()
	end = func() {
		_ = server.Process.Kill()
		<-exited
	}
	url = "http://127.0.0.1:" + strconv.Itoa(port)
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	for {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, url+"/moto-api/", nil)
		if err != nil {
			return "", nil, err
		}
		if resp, err := http.DefaultClient.Do(req); err == nil {
			return url, end, resp.Body.Close()
		}
		select {
		case err := <-exited:
			return "", nil, cmp.Or(err, errors.New("it has ended"))
		case <-ctx.Done():
			end()
			return "", nil, context.Cause(ctx)
		case <-time.After(50 * time.Millisecond):
		}
	}
}
