package openstack

import (
	"cmp"
	"context"
	"net/netip"
	"net/url"
	"slices"
	"strings"

	"github.com/gophercloud/gophercloud/v2/openstack/networking/v2/extensions/attributestags"
	"github.com/gophercloud/gophercloud/v2/openstack/networking/v2/extensions/layer3/floatingips"

	"github.com/scalr-go/scalr/provider"
)

// A floating IP is made by one call and gets its tags by another. Between the two its description, which the first sets, says
// whose it is: "scalr TOKEN SIGNATURE TAGS", the tags as far as they fit. The string tag complete ends that.
const (
	complete = own + "complete=1"
	mostText = 255 // characters of a description
)

// floating is what the driver reads of a floating IP.
type floating struct {
	ID          string
	Addr        netip.Addr `json:"floating_ip_address"`
	Description string
	Port        string   `json:"port_id"`
	Created     string   `json:"created_at"`
	Strings     []string `json:"tags"`
	PortDetails *struct {
		Device string `json:"device_id"`
	} `json:"port_details"`

	tags        map[string]string
	token, spec string
	half        bool // without its tags yet
}

func (f *floating) address() provider.Address {
	a := provider.Address{ID: f.ID, Addr: f.Addr, Tags: f.tags}
	if f.Port != "" && f.PortDetails != nil {
		a.Instance = f.PortDetails.Device
	}
	return a
}

// describe is the description of a floating IP to be made.
func describe(s provider.AddressSpec) string {
	text := "scalr " + s.Token + " " + signature(s)
	v := url.Values{}
	for k, t := range s.Tags {
		v.Set(k, t)
	}
	if all := text + " " + v.Encode(); len(all) <= mostText {
		return all
	}
	return text
}

// read takes the tags out of the description and the string tags.
func (f *floating) read() {
	words := strings.Split(f.Description, " ")
	if len(words) >= 3 && words[0] == "scalr" {
		f.token, f.spec = words[1], words[2]
	}
	f.tags, _ = unmark(f.Strings)
	f.half = f.token != "" && !slices.Contains(f.Strings, complete)
	if f.half && len(words) == 4 {
		v, _ := url.ParseQuery(words[3])
		f.tags = map[string]string{}
		for k := range v {
			f.tags[k] = v.Get(k)
		}
	}
}

// floatings lists floating IPs by string tags, and those that have not got theirs yet; the oldest first.
func (c *Cloud) floatings(ctx context.Context, want []string) ([]floating, error) {
	q := url.Values{}
	if len(want) > 0 {
		q.Set("tags", strings.Join(want, ","))
	}
	all, err := list[floating](ctx, c.network, "floatingips", q, "floatingips")
	if err != nil {
		return nil, err
	}
	if len(want) > 0 {
		bare, err := list[floating](ctx, c.network, "floatingips", url.Values{"not-tags": {complete}}, "floatingips")
		if err != nil {
			return nil, err
		}
		all = append(all, bare...)
	}
	for i := range all {
		all[i].read()
	}
	slices.SortFunc(all, func(a, b floating) int {
		return cmp.Or(strings.Compare(a.Created, b.Created), strings.Compare(a.ID, b.ID))
	})
	return slices.CompactFunc(all, func(a, b floating) bool { return a.ID == b.ID }), nil
}

// AllocateAddress makes a floating IP.
func (c *Cloud) AllocateAddress(ctx context.Context, s provider.AddressSpec) (provider.Address, error) {
	const op = "AllocateAddress"
	if err := s.Check(); err != nil {
		return provider.Address{}, err
	}
	if err := checkTags(op, s.Token, s.Tags); err != nil {
		return provider.Address{}, err
	}
	byToken := own + "token=" + s.Token
	f, err := once(ctx, c, thing[floating]{op: op, token: s.Token,
		find: func(ctx context.Context) ([]floating, error) {
			all, err := c.floatings(ctx, []string{byToken})
			return slices.DeleteFunc(all, func(f floating) bool { return f.token != s.Token }), err
		},
		drop: func(ctx context.Context, f floating) error { return c.release(ctx, f.ID) },
		post: func(ctx context.Context) error {
			network, err := c.external(ctx, s.Token, s.Network)
			if err != nil {
				return definite(ctx, op, s.Token, err)
			}
			return floatingips.Create(ctx, c.network, floatingips.CreateOpts{FloatingNetworkID: network, Description: describe(s)}).Err
		},
	})
	if err == nil {
		err = sameSpec(op, f.ID, s, f.spec)
	}
	if err != nil {
		return provider.Address{}, err
	}
	if f.half {
		all := slices.Concat([]string{complete, byToken}, marks(s.Tags, otherTag), pieces(s.Tags, otherTag))
		if err := attributestags.ReplaceAll(ctx, c.network, "floatingips", f.ID, attributestags.ReplaceAllOpts{Tags: all}).Err; err != nil {
			return provider.Address{}, failed(ctx, op, s.Token, err)
		}
		f.tags = metadata(s.Tags)
	}
	return f.address(), nil
}

// Addresses lists the floating IPs.
func (c *Cloud) Addresses(ctx context.Context, tags map[string]string) ([]provider.Address, error) {
	all, err := c.floatings(ctx, marks(tags, otherTag))
	if err != nil {
		return nil, fail(ctx, "Addresses", "", err)
	}
	found := make([]provider.Address, 0, len(all))
	for i := range all {
		if a := all[i].address(); provider.Matches(a.Tags, tags) {
			found = append(found, a)
		}
	}
	slices.SortFunc(found, func(a, b provider.Address) int { return strings.Compare(a.ID, b.ID) })
	return found, nil
}

// AssociateAddress points the floating IP to the server's port: of several, to the first that the external network reaches.
func (c *Cloud) AssociateAddress(ctx context.Context, address, instance string) error {
	const op = "AssociateAddress"
	var body struct {
		FloatingIP floating `json:"floatingip"`
	}
	_, err := c.network.Get(ctx, c.network.ServiceURL("floatingips", url.PathEscape(address)), &body, nil)
	if is(err, 404) {
		return provider.Errorf(op, address, provider.ErrNotFound, "there is no such address")
	}
	if err != nil {
		return fail(ctx, op, address, err)
	}
	s, err := c.server(ctx, instance)
	switch {
	case is(err, 404) || err == nil && s.state().Gone():
		return provider.Errorf(op, address, provider.ErrNotFound, "there is no instance %q, or it is terminated", instance)
	case err != nil:
		return fail(ctx, op, address, err)
	}
	ports, err := list[struct{ ID string }](ctx, c.network, "ports", url.Values{"device_id": {instance}}, "ports")
	if err != nil {
		return fail(ctx, op, address, err)
	}
	if len(ports) == 0 {
		return provider.Errorf(op, address, nil, "instance %s has no port yet", instance)
	}
	slices.SortFunc(ports, func(a, b struct{ ID string }) int { return strings.Compare(a.ID, b.ID) })
	if slices.ContainsFunc(ports, func(p struct{ ID string }) bool { return p.ID == body.FloatingIP.Port }) {
		return nil
	}
	for _, p := range ports {
		err = floatingips.Update(ctx, c.network, url.PathEscape(address), floatingips.UpdateOpts{PortID: &p.ID}).Err
		if err == nil || !is(err, 404) { // 404: not reachable from the external network
			break
		}
	}
	return failed(ctx, op, address, err)
}

// DisassociateAddress takes the floating IP from its port.
func (c *Cloud) DisassociateAddress(ctx context.Context, address string) error {
	const op = "DisassociateAddress"
	if err := ctx.Err(); err != nil {
		return fail(ctx, op, address, err)
	}
	err := floatingips.Update(ctx, c.network, url.PathEscape(address), floatingips.UpdateOpts{PortID: new(string)}).Err
	return failed(ctx, op, address, err)
}

// ReleaseAddress deletes the floating IP.
func (c *Cloud) ReleaseAddress(ctx context.Context, address string) error {
	return failed(ctx, "ReleaseAddress", address, c.release(ctx, address))
}

func (c *Cloud) release(ctx context.Context, address string) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	return ignore(floatingips.Delete(ctx, c.network, url.PathEscape(address)).ExtractErr(), 404)
}
