package openstack

import (
	"cmp"
	"context"
	"errors"
	"net/url"
	"regexp"
	"strings"

	"github.com/gophercloud/gophercloud/v2"

	"github.com/scalr-go/scalr/provider"
)

// named is what has an ID and a name.
type named struct {
	ID       string
	Name     string
	Status   string
	External bool   `json:"router:external"`
	Network  string `json:"network_id"`
}

var uuid = regexp.MustCompile(`^[0-9a-fA-F]{8}-?([0-9a-fA-F]{4}-?){3}[0-9a-fA-F]{12}$`)

// lookUp finds what is called so, or has that ID. Of several of one name none is taken.
func (c *Cloud) lookUp(ctx context.Context, sc *gophercloud.ServiceClient, op, token, field, value, key string, path ...string) (named, error) {
	by := "name"
	if uuid.MatchString(value) {
		by = "id"
	}
	found, err := list[named](ctx, sc, key, url.Values{by: {value}}, path...)
	if err != nil {
		return named{}, err
	}
	var all []named
	for _, x := range found {
		if x.ID == value || x.Name == value {
			all = append(all, x)
		}
	}
	switch len(all) {
	case 0:
		return named{}, provider.Errorf(op, token, provider.ErrNotFound, "%s is %q, which does not exist", field, value)
	case 1:
		return all[0], nil
	}
	return named{}, provider.Errorf(op, token, provider.ErrInvalid, "%s is %q, a name that %d of them bear: want the ID of one", field, value, len(all))
}

// missing reports whether a look-up found nothing.
func missing(err error) bool { return errors.Is(err, provider.ErrNotFound) }

// bootable gives the ID of the image, which must be ready.
func (c *Cloud) bootable(ctx context.Context, l provider.Launch) (string, error) {
	image, err := c.lookUp(ctx, c.image, "Launch", l.Token, "Image", l.Image, "images", "images")
	if err == nil && image.Status != "active" {
		err = provider.Errorf("Launch", l.Token, nil, "Image is %q, which is not ready yet: %s", l.Image, image.Status)
	}
	return image.ID, err
}

// flavor gives the ID of the size. Nova filters flavors neither by name nor by ID.
func (c *Cloud) flavor(ctx context.Context, l provider.Launch) (string, error) {
	size := cmp.Or(l.Size, c.opts.Size)
	found, err := list[named](ctx, c.compute, "flavors", nil, "flavors")
	if err != nil {
		return "", err
	}
	var names []string
	for _, f := range found {
		if f.ID == size || f.Name == size {
			return f.ID, nil
		}
		names = append(names, f.Name)
	}
	return "", provider.Errorf("Launch", l.Token, provider.ErrInvalid, "Size is %q, want one of %s", size, strings.Join(names, ", "))
}

// networkOf gives the ID of a network, or of the network of a subnet. Nova gives a server an address of any subnet of its
// network, so a subnet stands for its network only where it is the only one.
func (c *Cloud) networkOf(ctx context.Context, op, token, network string) (string, error) {
	n, err := c.lookUp(ctx, c.network, op, token, "Network", network, "networks", "networks")
	if err == nil || !missing(err) {
		return n.ID, err
	}
	s, err2 := c.lookUp(ctx, c.network, op, token, "Network", network, "subnets", "subnets")
	if err2 != nil {
		if missing(err2) {
			err2 = provider.Errorf(op, token, provider.ErrInvalid, "Network is %q, want the name or ID of a network", network)
		}
		return "", err2
	}
	others, err := list[named](ctx, c.network, "subnets", url.Values{"network_id": {s.Network}}, "subnets")
	if err == nil && len(others) > 1 {
		err = provider.Errorf(op, token, provider.ErrInvalid, "Network is %q, one of the %d subnets of network %s: want a network, or its only subnet",
			network, len(others), s.Network)
	}
	return s.Network, err
}

// external gives the ID of the external network.
func (c *Cloud) external(ctx context.Context, token, network string) (string, error) {
	const op = "AllocateAddress"
	if network = cmp.Or(network, c.opts.ExternalNetwork); network != "" {
		n, err := c.lookUp(ctx, c.network, op, token, "Network", network, "networks", "networks")
		switch {
		case missing(err):
			return "", provider.Errorf(op, token, provider.ErrInvalid, "Network is %q, want the name or ID of an external network", network)
		case err == nil && !n.External:
			return "", provider.Errorf(op, token, provider.ErrInvalid, "Network is %q, which is no external network", network)
		}
		return n.ID, err
	}
	all, err := list[named](ctx, c.network, "networks", url.Values{"router:external": {"true"}}, "networks")
	if err != nil {
		return "", err
	}
	if len(all) != 1 {
		return "", provider.Errorf(op, token, provider.ErrInvalid, "Network is empty, and the cloud has %d external networks: want the name of one, or Options.ExternalNetwork", len(all))
	}
	return all[0].ID, nil
}
