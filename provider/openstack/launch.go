package openstack

import (
	"cmp"
	"context"
	"encoding/base64"
	"errors"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/gophercloud/gophercloud/v2"
	"github.com/gophercloud/gophercloud/v2/openstack/compute/v2/servers"

	"github.com/scalr-go/scalr/provider"
)

const (
	// remembered is for how long the token of a server is looked for after its end.
	remembered = 24 * time.Hour
	// mostUserData is what Nova takes, after base64. Its refusal would show the data.
	mostUserData = 65535
)

// Launch makes a server. It returns when the scheduler has found it a place, so that a placement without room is ErrCapacity:
// the server that has failed for that is deleted. Any other failure of the server is its state.
func (c *Cloud) Launch(ctx context.Context, l provider.Launch) (provider.Instance, error) {
	const op = "Launch"
	if err := c.checkLaunch(l); err != nil {
		return provider.Instance{}, err
	}
	t := thing[server]{op: op, token: l.Token,
		find:   func(ctx context.Context) ([]server, error) { return c.withToken(ctx, l.Token) },
		post:   func(ctx context.Context) error { return c.post(ctx, l) },
		drop:   func(ctx context.Context, s server) error { return c.terminate(ctx, s.ID) },
		before: func(ctx context.Context) (*server, error) { return c.ended(ctx, l) },
	}
	s, err := once(ctx, c, t)
	if err != nil {
		return provider.Instance{}, err
	}
	_, spec := s.made()
	if err := sameSpec(op, s.ID, l, spec); err != nil {
		return provider.Instance{}, err
	}
	// What has been scheduled is known in a moment; a launch that is not waits for no longer than that.
	wait, cancel := context.WithTimeout(ctx, settle)
	defer cancel()
	err = poll(wait, func() (bool, error) {
		if s.Status != "BUILD" || s.TaskState != "scheduling" {
			return true, nil
		}
		now, err := c.server(wait, s.ID)
		if is(err, 404) {
			return true, nil
		}
		if now != nil {
			s = *now
		}
		return false, err
	})
	if err != nil && ctx.Err() != nil {
		return provider.Instance{}, failed(ctx, op, l.Token, err)
	}
	if s.Status == "ERROR" && noCapacity(s.Fault.Message) {
		if err := c.forget(ctx, s.ID); err != nil {
			return provider.Instance{}, failed(ctx, op, l.Token, err)
		}
		return provider.Instance{}, provider.Errorf(op, l.Token, provider.ErrCapacity, "of size %q in placement %q: %s", l.Size, l.Placement, s.Fault.Message)
	}
	return s.instance(), nil
}

func (c *Cloud) checkLaunch(l provider.Launch) error {
	const op = "Launch"
	if err := l.Check(); err != nil {
		return err
	}
	if err := checkTags(op, l.Token, l.Tags); err != nil {
		return err
	}
	switch n := base64.StdEncoding.EncodedLen(len(l.UserData)); {
	case l.Spot:
		return provider.Errorf(op, l.Token, provider.ErrInvalid, "Spot is set, but OpenStack has no interruptible servers")
	case cmp.Or(l.Size, c.opts.Size) == "":
		return provider.Errorf(op, l.Token, provider.ErrInvalid, "Size is empty, want the name of a flavor, or Options.Size")
	case len(l.Image) > 255 || len(l.Size) > 255:
		return provider.Errorf(op, l.Token, provider.ErrInvalid, "Image or Size has more than 255 bytes, want the name or ID of one")
	case n > mostUserData:
		return provider.Errorf(op, l.Token, provider.ErrInvalid, "UserData has %d bytes in base64, want at most %d", n, mostUserData)
	}
	if len(l.Volumes) > 0 {
		return has(op, l.Token, "block-storage", c.volume)
	}
	return nil
}

// hide keeps user data out of an error, should the cloud have repeated it.
func hide(err error, data provider.Secret) error {
	if len(data) == 0 {
		return err
	}
	e, ok := errors.AsType[*provider.Error](err)
	a, said := errors.AsType[*answer](err)
	if !ok || !said {
		return err
	}
	text := strings.ReplaceAll(a.text, string(data), data.String())
	text = strings.ReplaceAll(text, base64.StdEncoding.EncodeToString(data), data.String())
	return &provider.Error{Op: e.Op, ID: e.ID, Kind: e.Kind, Err: &answer{a.status, text, a.request}, RetryAfter: e.RetryAfter}
}

// noCapacity tells a fault of the scheduler.
func noCapacity(fault string) bool { return strings.Contains(fault, "No valid host") }

// withToken lists the servers that bear a token, the oldest first.
func (c *Cloud) withToken(ctx context.Context, token string) ([]server, error) {
	found, err := c.servers(ctx, url.Values{"tags": {mark(keyToken, token, novaTag)}})
	return ofToken(found, token), err
}

func ofToken(found []server, token string) []server {
	found = slices.DeleteFunc(found, func(s server) bool {
		of, _ := s.made()
		return of != token
	})
	slices.SortFunc(found, func(a, b server) int {
		return cmp.Or(a.Created.Compare(*b.Created), strings.Compare(a.ID, b.ID))
	})
	return found
}

// forget deletes a server that has never found a place, and takes its token from it first: that may be used again. What Nova
// keeps of a deleted server tells nothing of why it failed.
func (c *Cloud) forget(ctx context.Context, id string) error {
	body := map[string]any{"server": map[string]any{"description": "had no place"}}
	_, err := c.compute.Put(ctx, c.compute.ServiceURL("servers", url.PathEscape(id)), body, nil, &gophercloud.RequestOpts{OkCodes: []int{200}})
	if err != nil {
		return ignore(err, 404)
	}
	return c.terminate(ctx, id)
}

// ended finds a server of the token that has been deleted. Nova has forgotten its tags, so it is looked for by its name.
func (c *Cloud) ended(ctx context.Context, l provider.Launch) (*server, error) {
	found, err := c.servers(ctx, url.Values{"name": {"^" + regexp.QuoteMeta(nameOf(l)) + "$"},
		"changes-since": {time.Now().Add(-remembered).UTC().Format(time.RFC3339)}})
	if err != nil {
		return nil, err
	}
	for _, s := range ofToken(found, l.Token) {
		if s.state().Gone() {
			return &s, nil
		}
	}
	return nil, nil
}

// nameOf is the name of a server.
func nameOf(l provider.Launch) string {
	if l.Name != "" {
		return l.Name
	}
	return "scalr-" + strings.ToLower(strings.NewReplacer("_", "0", "-", "0").Replace(hash(12, l.Token)))
}

// post looks up what the launch names and makes the server.
func (c *Cloud) post(ctx context.Context, l provider.Launch) error {
	const op = "Launch"
	flavor, err := c.flavor(ctx, l)
	if err != nil {
		return definite(ctx, op, l.Token, err)
	}
	image, err := c.bootable(ctx, l)
	if err != nil {
		return definite(ctx, op, l.Token, err)
	}
	o := servers.CreateOpts{Name: nameOf(l), ImageRef: image, FlavorRef: flavor, AvailabilityZone: l.Placement, SecurityGroups: l.SecurityGroups,
		Metadata: metadata(l.Tags, keyToken, l.Token, keySpec, signature(l), keyImage, l.Image, keySize, l.Size),
		Tags:     append(marks(l.Tags, novaTag), mark(keyToken, l.Token, novaTag)), Networks: "auto"}
	if l.UserData != nil {
		// In base64 already: what happens to be base64 itself would else be sent as it is, and be decoded.
		o.UserData = []byte(base64.StdEncoding.EncodeToString(l.UserData))
	}
	if network := cmp.Or(l.Network, c.opts.Network); network != "" {
		id, err := c.networkOf(ctx, op, l.Token, network)
		if err != nil {
			return definite(ctx, op, l.Token, err)
		}
		o.Networks = []servers.Network{{UUID: id}}
	}
	if len(l.Volumes) > 0 {
		o.BlockDevice = []servers.BlockDevice{{SourceType: servers.SourceImage, DestinationType: servers.DestinationLocal, UUID: image,
			DeleteOnTermination: true}}
		for _, v := range l.Volumes {
			if err := c.attachable(ctx, op, l.Token, v); err != nil {
				return definite(ctx, op, l.Token, err)
			}
			o.BlockDevice = append(o.BlockDevice, servers.BlockDevice{SourceType: servers.SourceVolume,
				DestinationType: servers.DestinationVolume, UUID: v, BootIndex: -1})
		}
	}
	err = servers.Create(ctx, c.compute, creation{o, l.KeyPair, "scalr " + l.Token + " " + signature(l)}, nil).Err
	return explain(hide(failed(ctx, op, l.Token, err), l.UserData), l)
}

// definite is the error of a look-up before anything was asked for: it is never ambiguous.
func definite(ctx context.Context, op, id string, err error) error { return fail(ctx, op, id, err) }

// creation adds what the SDK's options lack.
type creation struct {
	servers.CreateOpts
	key, description string
}

// ToServerCreateMap implements servers.CreateOptsBuilder.
func (o creation) ToServerCreateMap() (map[string]any, error) {
	m, err := o.CreateOpts.ToServerCreateMap()
	if err != nil {
		return nil, err
	}
	s := m["server"].(map[string]any)
	s["description"] = o.description
	if o.key != "" {
		s["key_name"] = o.key
	}
	return m, nil
}

// explain names the field that Nova refuses.
func explain(err error, l provider.Launch) error {
	e, ok := errors.AsType[*provider.Error](err)
	if !ok || e.Kind != provider.ErrInvalid && !is(err, 409) {
		return err
	}
	text := strings.ToLower(e.Err.Error())
	for _, f := range []struct {
		words string
		field string
		value any
	}{
		{"not in the same availability", "Placement", l.Placement},
		{"availability zone", "Placement", l.Placement},
		{"key_name", "KeyPair", l.KeyPair}, {"keypair", "KeyPair", l.KeyPair},
		{"security group", "SecurityGroups", l.SecurityGroups}, {"security_group", "SecurityGroups", l.SecurityGroups},
		{"volume", "Volumes", l.Volumes}, {"block device", "Volumes", l.Volumes},
		{"flavor", "Size", l.Size}, {"image", "Image", l.Image},
		{"network", "Network", l.Network},
	} {
		if strings.Contains(text, f.words) {
			kind := e.Kind
			if is(err, 409) && f.field == "Network" {
				kind = provider.ErrInvalid // several networks, and none was named
			}
			return provider.Errorf(e.Op, e.ID, kind, "%s is %q: %w", f.field, f.value, e.Err)
		}
	}
	return err
}
