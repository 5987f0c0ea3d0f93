package ec2_test

import (
	"fmt"
	"hash/fnv"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/scalr-go/scalr/internal/faultproxy"
	"github.com/scalr-go/scalr/internal/testenv"
	"github.com/scalr-go/scalr/provider"
	"github.com/scalr-go/scalr/provider/ec2"
	"github.com/scalr-go/scalr/provider/providertest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	region = "eu-central-1"
	zone   = region + "a"
)

// config is the SDK's configuration for a server that stands for AWS.
func config(url string) *aws.Config {
	return &aws.Config{Region: region, BaseEndpoint: aws.String(url), Credentials: credentials.NewStaticCredentialsProvider("key", "secret", "")}
}

func newCloud(t testing.TB, url string, o ec2.Options) *ec2.Cloud {
	t.Helper()
	if o.Config == nil {
		o.Config = config(url)
	}
	c, err := ec2.New(t.Context(), o)
	require.NoError(t, err)
	ec2.Hasten(c)
	return c
}

// subject is EC2 as moto and the proxy give it.
func subject(t *testing.T, url string, o ec2.Options, wait time.Duration) providertest.Subject {
	return providertest.Subject{
		Provider: newCloud(t, url, o),
		Another:  func() provider.Provider { return newCloud(t, url, o) },
		Launch: provider.Launch{Image: testenv.MotoImage, Size: "t3.small", Placement: zone, SecurityGroups: []string{"default"},
			UserData: provider.Secret("#!/bin/sh")},
		OtherPlacement: region + "b",
		Balancer:       provider.BalancerSpec{Protocol: "http", Port: 80, HealthPath: "/health"},
		Wait:           wait,
	}
}

func TestConformance(t *testing.T) {
	a := testenv.Moto(t, testenv.MotoOptions{})
	providertest.Run(t, func(t *testing.T) providertest.Subject {
		return subject(t, a.URL(), ec2.Options{ListLag: time.Second}, time.Minute)
	})
}

// TestConformanceWithFaults does the same where replies are lost, calls are throttled or fail, what is new is not shown for
// a while, and pages come late.
func TestConformanceWithFaults(t *testing.T) {
	a := testenv.Moto(t, testenv.MotoOptions{Layers: []faultproxy.Layer{faultproxy.Young(300 * time.Millisecond)}})
	a.Proxy.SetFault(func(r faultproxy.Request) faultproxy.Fault {
		// One call in six, whichever: what becomes of it depends on what it is and on how many there were.
		h := fnv.New32a()
		fmt.Fprint(h, r.Service, r.Operation, r.Number)
		switch h.Sum32() % 24 {
		case 0:
			return faultproxy.Lose
		case 1:
			return faultproxy.Throttled(r)
		case 2:
			return faultproxy.Status(503, "busy")
		case 3:
			return faultproxy.AWSError(r.Service, 500, "InternalError", "An internal error has occurred")
		}
		return faultproxy.Fault{Late: time.Duration(h.Sum32()%5) * time.Millisecond}
	})
	providertest.Run(t, func(t *testing.T) providertest.Subject {
		s := subject(t, a.URL(), ec2.Options{ListLag: time.Second}, 2*time.Minute)
		s.Faulty = true
		return s
	})
	require.Positive(t, a.Proxy.Count("ec2", "RunInstances"))
}
