// Package openstack is a provider.Provider for OpenStack clouds: servers (Nova) with power and images (Glance), volumes and
// snapshots (Cinder), floating IPs (Neutron) and load balancers (Octavia). It needs the interfaces of the release Stein (2019)
// or a later one.
//
//	cloud, err := openstack.New(ctx, openstack.Options{Cloud: "ord"}) // as clouds.yaml has it
//
// It works with a project's own rights: no role of administration is needed ("member", and "load-balancer_member" where
// Octavia asks for it).
//
// # How a thing is made once
//
// OpenStack has no client tokens, takes the same name twice, and may make a server although it answered 503. So everything
// bears its token, is looked for by it before it is made and after, whatever the answer was, and of several the oldest is kept
// and the others are deleted. Calls with one token wait for each other. What was asked for stands beside the token as a short
// hash of each parameter, so that the same token with other parameters is refused by whichever process is asked. The token
// of a server is known for a day after its end, or until the cloud purges its deleted servers.
//
// # Tags
//
// Tags are metadata of servers, volumes and snapshots and properties of images; keys are of letters, digits and "-_:. ",
// which is what Nova takes, and do not begin with "scalr:". Servers, floating IPs and load balancers bear string tags too, by
// which lists are filtered at the cloud. A floating IP gets its tags in a second call: one that lost it is recognised by its
// description.
//
// # What it does not do
//
// Servers boot from images, not from volumes. A volume with snapshots cannot be deleted at Cinder: DeleteVolume hides it from
// lists, and the end of its last snapshot deletes it. Octavia knows no end of draining: a member that drains has the
// weight 0 and is removed by the balancer's first change after its time. A balancer listens from its first target on. Stop
// asks the server's operating system first, for as long as the cloud says (shutdown_timeout, 60 s by default).
package openstack

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net/http"
	"os"
	"sync"
	"time"

	"github.com/gophercloud/gophercloud/v2"
	"github.com/gophercloud/gophercloud/v2/openstack"
	"github.com/gophercloud/gophercloud/v2/openstack/config/clouds"

	"github.com/scalr-go/scalr/provider"
)

// Options say which cloud, and what is taken where a request leaves it open.
type Options struct {
	// Cloud is a name in clouds.yaml. Empty takes the variable OS_CLOUD or, where that is empty too, OS_AUTH_URL and the other
	// variables of the OpenStack client. Files and variables are read once, by New.
	Cloud string
	// Auth replaces both. Its AllowReauth is set.
	Auth *gophercloud.AuthOptions
	// Region replaces the region of clouds.yaml or OS_REGION_NAME. Empty takes the catalog's first.
	Region string

	// Network is the network of servers and balancers, by name or ID. Empty leaves it to Nova, which takes the project's
	// only one.
	Network string
	// ExternalNetwork is where floating IPs come from, by name or ID. Empty takes the only external network.
	ExternalNetwork string
	// Size is the flavor of servers, by name or ID.
	Size string

	// Transport makes the requests. Nil means one of the cloud's own, which waits at most a minute for an answer and knows the
	// certificates that clouds.yaml names.
	Transport http.RoundTripper
}

// Cloud is one region of an OpenStack cloud, as one project sees it. It is safe for concurrent use. Pools of one region
// share one, so that they also share what is known of throttling.
type Cloud struct {
	opts                                      Options
	compute, network, volume, image, balancer *gophercloud.ServiceClient
	locks                                     locks
	unheard                                   sync.Map // by what once is asked for: until when a lost request may take effect
}

var (
	_ provider.Provider  = (*Cloud)(nil)
	_ provider.Power     = (*Cloud)(nil)
	_ provider.Volumes   = (*Cloud)(nil)
	_ provider.Snapshots = (*Cloud)(nil)
	_ provider.Addresses = (*Cloud)(nil)
	_ provider.Balancers = (*Cloud)(nil)
	_ provider.Traffic   = (*Cloud)(nil)
	_ provider.Images    = (*Cloud)(nil)
)

// The versions of the interfaces: servers with tags and their flavor's name, and lists that say so when a cell is down (2.69,
// Stein); snapshots filtered by metadata (3.22, Ocata).
const (
	computeVersion = "2.69"
	volumeVersion  = "3.22"
)

// New signs in. Wrong credentials are ErrAuth; an unknown cloud or region is ErrInvalid. A service that the region does not
// have makes its capability fail with errors.ErrUnsupported; Nova, Neutron and Glance are required.
func New(ctx context.Context, o Options) (*Cloud, error) {
	const op = "New"
	auth, endpoint, certs, err := o.credentials()
	if err != nil {
		return nil, &provider.Error{Op: op, Kind: provider.ErrInvalid, Err: err}
	}
	endpoint.Region = cmp.Or(o.Region, endpoint.Region)
	auth.AllowReauth = auth.TokenID == ""
	if o.Transport == nil {
		t := http.DefaultTransport.(*http.Transport).Clone()
		t.ResponseHeaderTimeout, t.TLSClientConfig = time.Minute, certs
		o.Transport = t
	}
	client, err := openstack.NewClient(auth.IdentityEndpoint)
	if err != nil {
		return nil, provider.Errorf(op, "", provider.ErrInvalid, "auth_url is %q: %w", auth.IdentityEndpoint, err)
	}
	client.HTTPClient = http.Client{Transport: &gate{next: o.Transport}}
	client.RetryBackoffFunc, client.MaxBackoffRetries = backOff, 5
	client.RetryFunc = again
	if err := openstack.Authenticate(ctx, client, auth); err != nil {
		return nil, fail(ctx, op, "", err)
	}
	c := &Cloud{opts: o, locks: locks{held: map[string]chan struct{}{}}}
	for _, s := range []struct {
		name     string
		to       **gophercloud.ServiceClient
		open     func(*gophercloud.ProviderClient, gophercloud.EndpointOpts) (*gophercloud.ServiceClient, error)
		version  string
		optional bool
	}{
		{"compute", &c.compute, openstack.NewComputeV2, computeVersion, false},
		{"network", &c.network, openstack.NewNetworkV2, "", false},
		{"image", &c.image, openstack.NewImageV2, "", false},
		{"block-storage", &c.volume, openstack.NewBlockStorageV3, volumeVersion, true},
		{"load-balancer", &c.balancer, openstack.NewLoadBalancerV2, "", true},
	} {
		sc, err := s.open(client, endpoint)
		switch {
		case err == nil:
			sc.Microversion = s.version
			*s.to = sc
		case s.optional && absent(err):
		case absent(err):
			return nil, provider.Errorf(op, "", provider.ErrInvalid, "Region is %q, which has no %s service in the catalog", endpoint.Region, s.name)
		default:
			return nil, fail(ctx, op, "", err)
		}
	}
	return c, nil
}

// absent reports whether the catalog does not have a service.
func absent(err error) bool {
	if _, ok := errors.AsType[*gophercloud.ErrEndpointNotFound](err); ok {
		return true
	}
	_, ok := errors.AsType[gophercloud.ErrEndpointNotFound](err)
	return ok
}

// credentials reads clouds.yaml or the variables.
func (o Options) credentials() (gophercloud.AuthOptions, gophercloud.EndpointOpts, *tls.Config, error) {
	env := gophercloud.EndpointOpts{Region: os.Getenv("OS_REGION_NAME"), Availability: gophercloud.Availability(cmp.Or(os.Getenv("OS_INTERFACE"), "public"))}
	switch name := cmp.Or(o.Cloud, os.Getenv("OS_CLOUD")); {
	case o.Auth != nil:
		return *o.Auth, env, nil, nil
	case name != "":
		auth, endpoint, certs, err := clouds.Parse(clouds.WithCloudName(name))
		if err != nil {
			err = fmt.Errorf("Cloud is %q: %w", name, err)
		}
		return auth, endpoint, certs, err
	case os.Getenv("OS_AUTH_URL") == "":
		return gophercloud.AuthOptions{}, env, nil, errors.New("Cloud is empty, and so are OS_CLOUD and OS_AUTH_URL, want one of them")
	}
	auth, err := openstack.AuthOptionsFromEnv()
	if err != nil {
		return auth, env, nil, fmt.Errorf("of the variables OS_*: %w", err)
	}
	return auth, env, nil, nil
}

// has fails where the region does not have a service.
func has(op, id, name string, sc *gophercloud.ServiceClient) error {
	if sc == nil {
		return provider.Errorf(op, id, errors.ErrUnsupported, "the catalog has no %s service", name)
	}
	return nil
}
