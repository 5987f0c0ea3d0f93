package openstack

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/gophercloud/gophercloud/v2/openstack/compute/v2/servers"

	"github.com/scalr-go/scalr/provider"
)

// server is what the driver reads of a server.
type server struct {
	ID     string
	Name   string
	Status string
	// Description repeats the token and the signature: of a server that has been deleted, Nova forgets the metadata.
	Description string
	TaskState   string     `json:"OS-EXT-STS:task_state"`
	Zone        string     `json:"OS-EXT-AZ:availability_zone"`
	Launched    *string    `json:"OS-SRV-USG:launched_at"`
	Created     *time.Time // nil in the stub that a cell leaves which is down
	Image       any        // an object, or an empty string
	Flavor      struct {
		Name string `json:"original_name"`
	}
	Addresses map[string][]struct {
		Addr netip.Addr
		Type string `json:"OS-EXT-IPS:type"`
	}
	Metadata map[string]string
	Fault    struct{ Message string }
}

// state maps Nova's states. A server that is moved, resized or rescued runs as far as anybody outside can tell.
func (s *server) state() provider.State {
	switch {
	case s.Status == "DELETED":
		return provider.Terminated
	case s.Status == "SOFT_DELETED" || s.TaskState == "deleting" || s.TaskState == "soft-deleting":
		return provider.Terminating
	case s.Status == "ERROR":
		return provider.Failed
	case s.Status == "BUILD":
		return provider.Pending
	case slices.Contains([]string{"SHUTOFF", "SUSPENDED", "PAUSED", "SHELVED", "SHELVED_OFFLOADED"}, s.Status) || s.TaskState == "powering-off":
		return provider.Stopped
	}
	return provider.Running
}

func (s *server) instance() provider.Instance {
	i := provider.Instance{ID: s.ID, Name: s.Name, State: s.state(), Reason: s.Fault.Message, Image: s.Metadata[keyImage],
		Size: cmp.Or(s.Metadata[keySize], s.Flavor.Name), Placement: s.Zone, Tags: tagsIn(s.Metadata)}
	if image, ok := s.Image.(map[string]any); ok && i.Image == "" {
		i.Image, _ = image["id"].(string)
	}
	if s.Created != nil {
		i.Launched = *s.Created
	}
	// By network, so that two looks give the same of several; IPv4 first.
	for _, network := range slices.Sorted(maps.Keys(s.Addresses)) {
		for _, a := range s.Addresses[network] {
			to := &i.Private
			if a.Type == "floating" {
				to = &i.Public
			}
			if !to.IsValid() || to.Is6() && a.Addr.Is4() {
				*to = a.Addr
			}
		}
	}
	return i
}

// made gives the token that the server was made with, and what was asked for.
func (s *server) made() (token, spec string) {
	if words := strings.Split(s.Description, " "); s.Metadata[keyToken] == "" && len(words) == 3 && words[0] == "scalr" {
		return words[1], words[2]
	}
	return s.Metadata[keyToken], s.Metadata[keySpec]
}

// servers lists servers. The list is complete: what a cell hides that is down makes it an error.
func (c *Cloud) servers(ctx context.Context, q url.Values) ([]server, error) {
	all, err := list[server](ctx, c.compute, "servers", q, "servers", "detail")
	if err != nil {
		return nil, err
	}
	for _, s := range all {
		if s.Status == "UNKNOWN" && s.Created == nil {
			return nil, fmt.Errorf("the list is not complete: a cell of the cloud is down, with server %s", s.ID)
		}
	}
	return all, nil
}

// server gives one server; ErrNotFound if it is gone.
func (c *Cloud) server(ctx context.Context, id string) (*server, error) {
	var body struct{ Server *server }
	_, err := c.compute.Get(ctx, c.compute.ServiceURL("servers", url.PathEscape(id)), &body, nil)
	if err != nil {
		return nil, err
	}
	if body.Server == nil {
		return nil, fmt.Errorf("the answer has no server")
	}
	return body.Server, nil
}

// Instances lists the servers, in one call whatever their number, pages of the cloud aside. Servers that have been deleted
// are not listed.
func (c *Cloud) Instances(ctx context.Context, tags map[string]string) ([]provider.Instance, error) {
	const op = "Instances"
	q := url.Values{}
	if len(tags) > 0 {
		q.Set("tags", strings.Join(marks(tags, novaTag), ","))
	}
	all, err := c.servers(ctx, q)
	if err != nil {
		return nil, fail(ctx, op, "", err)
	}
	found := make([]provider.Instance, 0, len(all))
	for i := range all {
		if in := all[i].instance(); provider.Matches(in.Tags, tags) {
			found = append(found, in)
		}
	}
	slices.SortFunc(found, func(a, b provider.Instance) int { return strings.Compare(a.ID, b.ID) })
	return found, nil
}

// Terminate deletes the server. It is Terminating until it is not listed any more.
func (c *Cloud) Terminate(ctx context.Context, id string) error {
	err := c.terminate(ctx, id)
	return failed(ctx, "Terminate", id, err)
}

func (c *Cloud) terminate(ctx context.Context, id string) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	err := servers.Delete(ctx, c.compute, url.PathEscape(id)).ExtractErr()
	if is(err, 404) {
		return nil
	}
	return err
}
