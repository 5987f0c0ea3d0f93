package designate_test

import (
	"context"
	"crypto/rand"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/gophercloud/gophercloud/v2"
	"github.com/gophercloud/gophercloud/v2/openstack"
	"github.com/gophercloud/gophercloud/v2/openstack/config"
	"github.com/gophercloud/gophercloud/v2/openstack/config/clouds"
	"github.com/gophercloud/gophercloud/v2/openstack/dns/v2/zones"
	"github.com/miekg/dns"
	"github.com/stretchr/testify/require"

	"github.com/scalr-go/scalr/dnsreg"
	"github.com/scalr-go/scalr/dnsreg/designate"
	"github.com/scalr-go/scalr/dnsreg/dnsregtest"
	"github.com/scalr-go/scalr/internal/testenv"
)

// client signs in.
func client(t *testing.T) *gophercloud.ServiceClient {
	t.Helper()
	auth, endpoint, certs, err := clouds.Parse(clouds.WithCloudName("scalr"))
	require.NoError(t, err)
	auth.AllowReauth = true
	c, err := config.NewProviderClient(t.Context(), auth, config.WithTLSConfig(certs))
	require.NoError(t, err)
	sc, err := openstack.NewDNSV2(c, endpoint)
	require.NoError(t, err)
	return sc
}

// newZone makes a zone that ends with the test.
func newZone(t *testing.T, sc *gophercloud.ServiceClient) string {
	t.Helper()
	name := "scalr-" + strings.ToLower(rand.Text()[:10]) + ".test."
	z, err := zones.Create(t.Context(), sc, zones.CreateOpts{Name: name, Email: "hostmaster@example.test", TTL: 3600}).Extract()
	require.NoError(t, err)
	t.Cleanup(func() { zones.Delete(context.WithoutCancel(t.Context()), sc, z.ID) })
	require.Eventually(t, func() bool {
		z, err := zones.Get(t.Context(), sc, z.ID).Extract()
		return err == nil && z.Status == "ACTIVE"
	}, 2*time.Minute, 200*time.Millisecond)
	return name
}

func TestConformance(t *testing.T) {
	testenv.OpenStack(t)
	sc := client(t)
	zone := newZone(t, sc)
	dnsregtest.Run(t, func(t *testing.T) (dnsreg.Registrar, string) {
		r, err := designate.New(designate.Options{Client: sc, Timeout: 3 * time.Minute})
		require.NoError(t, err)
		return r, zone
	})
}

// TestNameServersAnswerWhenApplyReturns asks the BIND behind Designate.
func TestNameServersAnswerWhenApplyReturns(t *testing.T) {
	server := testenv.OpenStack(t)
	sc := client(t)
	zone := newZone(t, sc)
	r, err := designate.New(designate.Options{Client: sc, Timeout: 3 * time.Minute})
	require.NoError(t, err)
	var old *dnsreg.RRset
	for n := range 3 {
		set := &dnsreg.RRset{Name: "www." + zone, Type: "A", TTL: 20 * time.Second, Values: []string{fmt.Sprintf("192.0.2.%d", n+1)}}
		text := &dnsreg.RRset{Name: fmt.Sprintf("t%d.%s", n, zone), Type: "TXT", TTL: 20 * time.Second, Values: []string{strings.Repeat(`say "hi"; \`, 60)}}
		require.NoError(t, r.Apply(t.Context(), zone, []dnsreg.Change{{Name: set.Name, Type: "A", Old: old, New: set}, {Name: text.Name, Type: "TXT", New: text}}))
		q := new(dns.Msg)
		q.SetQuestion(set.Name, dns.TypeA)
		a, _, err := new(dns.Client).ExchangeContext(t.Context(), q, server)
		require.NoError(t, err)
		require.Len(t, a.Answer, 1)
		require.Equal(t, set.Values[0], a.Answer[0].(*dns.A).A.String())
		q.SetQuestion(text.Name, dns.TypeTXT)
		a, _, err = (&dns.Client{Net: "tcp"}).ExchangeContext(t.Context(), q, server)
		require.NoError(t, err)
		require.Len(t, a.Answer, 1)
		old = set
	}
}
