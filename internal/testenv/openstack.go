package testenv

import (
	"os"
	"testing"
)

// OpenStack gives the address of the name server of the OpenStack that `make test-openstack` runs; without that the test is
// skipped. Its clouds.yaml (OS_CLIENT_CONFIG_FILE) has "scalr", a project of an ordinary user with the availability zones
// alpha and beta, the networks private and public, the sizes small, large and huge (which no host has room for) and the image
// debian; "empty", a project whose quotas are zero; and "admin". It is one and the same for all tests of a run: what a test
// makes bears a mark of its own.
func OpenStack(t testing.TB) (dns string) {
	t.Helper()
	dns = os.Getenv("SCALR_TEST_OPENSTACK")
	if dns == "" {
		t.Skip("needs the OpenStack of make test-openstack")
	}
	return dns
}

// OpenStackServices are its services' base URLs, for a proxy in front of them.
func OpenStackServices() map[string]string {
	return map[string]string{
		"identity": "http://127.0.0.1:25050", "compute": "http://127.0.0.1:25774", "network": "http://127.0.0.1:25696",
		"image": "http://127.0.0.1:25292", "volume": "http://127.0.0.1:25776", "balancer": "http://127.0.0.1:25876",
		"dns": "http://127.0.0.1:25901",
	}
}
