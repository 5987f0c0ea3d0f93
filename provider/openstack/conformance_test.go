package openstack_test

import (
	"fmt"
	"hash/fnv"
	"net/http"
	"testing"
	"time"

	"github.com/gophercloud/gophercloud/v2/openstack/config/clouds"
	"github.com/stretchr/testify/require"

	"github.com/scalr-go/scalr/internal/faultproxy"
	"github.com/scalr-go/scalr/internal/testenv"
	"github.com/scalr-go/scalr/provider"
	"github.com/scalr-go/scalr/provider/openstack"
	"github.com/scalr-go/scalr/provider/providertest"
)

// open signs in as a process of its own would.
func open(t testing.TB, cloud string) *openstack.Cloud {
	t.Helper()
	c, err := openstack.New(t.Context(), openstack.Options{Cloud: cloud, Network: "private"})
	require.NoError(t, err)
	return c
}

// behind signs in through a proxy.
func behind(t testing.TB, p *faultproxy.Proxy) *openstack.Cloud {
	t.Helper()
	auth, _, _, err := clouds.Parse(clouds.WithCloudName("scalr"))
	require.NoError(t, err)
	auth.IdentityEndpoint = p.URL("identity") + "/v3"
	c, err := openstack.New(t.Context(), openstack.Options{Auth: &auth, Network: "private"})
	require.NoError(t, err)
	return c
}

func subject(c *openstack.Cloud) providertest.Subject {
	return providertest.Subject{Provider: c,
		Launch:         provider.Launch{Image: "debian", Size: "small", Placement: "alpha", UserData: provider.Secret("#!/bin/sh")},
		OtherPlacement: "beta", Volume: provider.VolumeSpec{SizeGB: 1}, Wait: 3 * time.Minute}
}

func TestConformance(t *testing.T) {
	testenv.OpenStack(t)
	c := open(t, "scalr")
	providertest.Run(t, func(t *testing.T) providertest.Subject {
		s := subject(c)
		s.Another = func() provider.Provider { return open(t, "scalr") }
		return s
	})
}

// TestConformanceBehindFaults loses replies and requests, throttles, fails and delays: one request in ten, drawn from what
// it is and its number.
func TestConformanceBehindFaults(t *testing.T) {
	testenv.OpenStack(t)
	p := faultproxy.New(t, faultproxy.Options{Targets: testenv.OpenStackServices(), Rewrite: true})
	c := behind(t, p)
	p.SetFault(func(r faultproxy.Request) faultproxy.Fault {
		if r.Target == "identity" {
			return faultproxy.Fault{}
		}
		h := fnv.New64a()
		fmt.Fprint(h, r.Operation, r.Number)
		switch n := h.Sum64() % 100; {
		case n < 3:
			return faultproxy.Lose
		case n < 4:
			return faultproxy.Refuse
		case n < 6:
			return faultproxy.Status(http.StatusServiceUnavailable, "unavailable")
		case n < 8:
			return faultproxy.Fault{Response: faultproxy.Response{Status: http.StatusTooManyRequests,
				Header: http.Header{"Retry-After": {"1"}}, Body: []byte(`{"overLimit": {"message": "too fast"}}`)}}
		case n < 10:
			return faultproxy.Fault{Late: 300 * time.Millisecond}
		}
		return faultproxy.Fault{}
	})
	providertest.Run(t, func(t *testing.T) providertest.Subject {
		s := subject(c)
		s.Faulty, s.Another = true, func() provider.Provider { return behind(t, p) }
		return s
	})
}
