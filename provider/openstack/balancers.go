package openstack

import (
	"cmp"
	"context"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/gophercloud/gophercloud/v2/openstack/loadbalancer/v2/listeners"
	"github.com/gophercloud/gophercloud/v2/openstack/loadbalancer/v2/loadbalancers"
	"github.com/gophercloud/gophercloud/v2/openstack/loadbalancer/v2/monitors"
	"github.com/gophercloud/gophercloud/v2/openstack/loadbalancer/v2/pools"

	"github.com/scalr-go/scalr/provider"
)

// The driver's own string tags of a balancer, and of a member that drains.
const (
	balancerProtocol = own + "protocol"
	balancerPort     = own + "port"
	balancerTarget   = own + "target"
	balancerHealth   = own + "health" // the path that the monitor asks for, escaped
	balancerDrain    = own + "drain"
	memberUntil      = own + "until"
)

// balanced is what the driver reads of a load balancer.
type balanced struct {
	ID, Name  string
	Status    string     `json:"provisioning_status"`
	Host      string     `json:"vip_address"`
	Created   cinderTime `json:"created_at"`
	Strings   []string   `json:"tags"`
	Pools     []struct{ ID string }
	Listeners []struct{ ID string }
}

func (b *balanced) own(key string) string {
	for _, t := range b.Strings {
		if v, ok := strings.CutPrefix(t, key+"="); ok {
			return v
		}
	}
	return ""
}

func (b *balanced) number(key string) int {
	n, _ := strconv.Atoi(b.own(key))
	return n
}

// gone reports whether its end has been accepted.
func (b *balanced) gone() bool { return b.Status == "PENDING_DELETE" || b.Status == "DELETED" }

// balancers lists load balancers by string tags, the oldest first.
func (c *Cloud) balancers(ctx context.Context, want []string) ([]balanced, error) {
	q := url.Values{}
	if len(want) > 0 {
		q.Set("tags", strings.Join(want, ","))
	}
	all, err := list[balanced](ctx, c.balancer, "loadbalancers", q, "lbaas", "loadbalancers")
	all = slices.DeleteFunc(all, func(b balanced) bool { return b.gone() })
	slices.SortFunc(all, func(a, b balanced) int { return cmp.Or(a.Created.Compare(b.Created.Time), strings.Compare(a.ID, b.ID)) })
	return all, err
}

// CreateBalancer makes a load balancer. It stands in the first of s.Networks, a network's or subnet's name or ID, or in
// Options.Network. Its pool, health monitor and listener are made by the first RegisterTarget, when it takes changes: Octavia
// could make all in one request, but releases without a job board (11.0 among them) leave the parts in PENDING_CREATE for good.
func (c *Cloud) CreateBalancer(ctx context.Context, s provider.BalancerSpec) (provider.Balancer, error) {
	const op = "CreateBalancer"
	if err := s.Check(); err != nil {
		return provider.Balancer{}, err
	}
	if err := checkTags(op, s.Token, s.Tags); err != nil {
		return provider.Balancer{}, err
	}
	if len(balancerHealth+"="+url.QueryEscape(s.HealthPath)) > otherTag {
		return provider.Balancer{}, provider.Errorf(op, s.Token, provider.ErrInvalid, "HealthPath has %d bytes, want fewer: it is kept in a tag", len(s.HealthPath))
	}
	if err := has(op, s.Token, "load-balancer", c.balancer); err != nil {
		return provider.Balancer{}, err
	}
	byToken := keyToken + "=" + s.Token
	b, err := once(ctx, c, thing[balanced]{op: op, token: s.Token,
		find: func(ctx context.Context) ([]balanced, error) {
			all, err := c.balancers(ctx, []string{byToken})
			return slices.DeleteFunc(all, func(b balanced) bool { return !slices.Contains(b.Strings, byToken) }), err
		},
		drop: func(ctx context.Context, b balanced) error { return c.deleteBalancer(ctx, b.ID) },
		post: func(ctx context.Context) error { return c.postBalancer(ctx, s, byToken) },
	})
	if err == nil {
		err = sameSpec(op, b.ID, s, b.own(keySpec))
	}
	if err != nil {
		return provider.Balancer{}, err
	}
	shown, err := c.show(ctx, b)
	return shown, fail(ctx, op, s.Token, err)
}

func (c *Cloud) postBalancer(ctx context.Context, s provider.BalancerSpec, byToken string) error {
	const op = "CreateBalancer"
	place := c.opts.Network
	if len(s.Networks) > 0 {
		place = s.Networks[0]
	}
	if place == "" {
		return provider.Errorf(op, s.Token, provider.ErrInvalid, "Networks is empty, want a network or subnet to stand in, or Options.Network")
	}
	o := loadbalancers.CreateOpts{Name: s.Name}
	n, err := c.lookUp(ctx, c.network, op, s.Token, "Networks", place, "subnets", "subnets")
	o.VipSubnetID = n.ID
	if missing(err) {
		n, err = c.lookUp(ctx, c.network, op, s.Token, "Networks", place, "networks", "networks")
		o.VipNetworkID = n.ID
	}
	if missing(err) {
		err = provider.Errorf(op, s.Token, provider.ErrInvalid, "Networks is %q, want the name or ID of a network or subnet", place)
	}
	if err != nil {
		return definite(ctx, op, s.Token, err)
	}
	drain := int((s.Drain + time.Second - 1) / time.Second)
	o.Tags = slices.Concat([]string{byToken, keySpec + "=" + signature(s), balancerPort + "=" + strconv.Itoa(s.Port),
		balancerTarget + "=" + strconv.Itoa(cmp.Or(s.TargetPort, s.Port)), balancerDrain + "=" + strconv.Itoa(drain),
		balancerProtocol + "=" + s.Protocol, balancerHealth + "=" + url.QueryEscape(s.HealthPath)},
		marks(s.Tags, otherTag), pieces(s.Tags, otherTag))
	return loadbalancers.Create(ctx, c.balancer, o).Err
}

// Balancers lists the load balancers: one call, and one for the members of each.
func (c *Cloud) Balancers(ctx context.Context, tags map[string]string) ([]provider.Balancer, error) {
	const op = "Balancers"
	if err := has(op, "", "load-balancer", c.balancer); err != nil {
		return nil, err
	}
	all, err := c.balancers(ctx, marks(tags, otherTag))
	if err != nil {
		return nil, fail(ctx, op, "", err)
	}
	found := make([]provider.Balancer, 0, len(all))
	for _, b := range all {
		if t, _ := unmark(b.Strings); !provider.Matches(t, tags) {
			continue
		}
		shown, err := c.show(ctx, b)
		if is(err, 404) {
			continue // deleted meanwhile
		}
		if err != nil {
			return nil, fail(ctx, op, "", err)
		}
		found = append(found, shown)
	}
	slices.SortFunc(found, func(a, b provider.Balancer) int { return strings.Compare(a.ID, b.ID) })
	return found, nil
}

// Requests counts connections, also with http: Octavia counts no requests.
func (c *Cloud) Requests(ctx context.Context, id string) (uint64, error) {
	const op = "Requests"
	if err := has(op, id, "load-balancer", c.balancer); err != nil {
		return 0, err
	}
	stats, err := loadbalancers.GetStats(ctx, c.balancer, url.PathEscape(id)).Extract()
	if err != nil {
		return 0, failed(ctx, op, id, err)
	}
	return uint64(max(0, stats.TotalConnections)), nil
}

// show is a load balancer with its targets.
func (c *Cloud) show(ctx context.Context, b balanced) (provider.Balancer, error) {
	tags, _ := unmark(b.Strings)
	shown := provider.Balancer{ID: b.ID, Name: b.Name, Host: b.Host, Port: b.number(balancerPort), Tags: tags,
		Ready: b.Status == "ACTIVE" || b.Status == "PENDING_UPDATE"}
	if len(b.Pools) == 0 {
		return shown, nil
	}
	members, err := c.members(ctx, b.Pools[0].ID)
	now := time.Now()
	for _, m := range members {
		if t, ok := m.target(now); ok {
			shown.Targets = append(shown.Targets, t)
		}
	}
	slices.SortFunc(shown.Targets, func(a, b provider.Target) int { return strings.Compare(a.Instance, b.Instance) })
	return shown, err
}

// complete makes the next part that the balancer lacks, and reports whether it lacked none. The listener is the last.
func (c *Cloud) complete(ctx context.Context, b balanced) (bool, error) {
	http := b.own(balancerProtocol) == "http"
	switch {
	case len(b.Listeners) > 0:
		return true, nil
	case len(b.Pools) == 0:
		o := pools.CreateOpts{Name: "scalr", LoadbalancerID: b.ID, LBMethod: pools.LBMethodLeastConnections, Protocol: pools.ProtocolTCP}
		if http {
			o.Protocol = pools.ProtocolHTTP
		}
		return false, pools.Create(ctx, c.balancer, o).Err
	}
	pool, err := pools.Get(ctx, c.balancer, b.Pools[0].ID).Extract()
	if err != nil {
		return false, err
	}
	if pool.MonitorID == "" {
		o := monitors.CreateOpts{PoolID: pool.ID, Type: monitors.TypeTCP, Delay: 5, Timeout: 3, MaxRetries: 2}
		if path, err := url.QueryUnescape(b.own(balancerHealth)); err == nil && path != "" {
			o.Type, o.URLPath, o.ExpectedCodes = monitors.TypeHTTP, path, "200-399"
		}
		return false, monitors.Create(ctx, c.balancer, o).Err
	}
	o := listeners.CreateOpts{Name: "scalr", LoadbalancerID: b.ID, DefaultPoolID: pool.ID, Protocol: listeners.ProtocolTCP, ProtocolPort: b.number(balancerPort)}
	if http {
		o.Protocol = listeners.ProtocolHTTP
	}
	return false, listeners.Create(ctx, c.balancer, o).Err
}

// DeleteBalancer deletes the load balancer with all that belongs to it, once it is not busy.
func (c *Cloud) DeleteBalancer(ctx context.Context, id string) error {
	const op = "DeleteBalancer"
	if err := has(op, id, "load-balancer", c.balancer); err != nil {
		return err
	}
	return failed(ctx, op, id, c.deleteBalancer(ctx, id))
}

func (c *Cloud) deleteBalancer(ctx context.Context, id string) error {
	unlock, err := c.locks.lock(ctx, "balancer "+id)
	if err != nil {
		return err
	}
	defer unlock()
	err = c.change(ctx, "DeleteBalancer", id, true, func(balanced) (bool, error) {
		return true, loadbalancers.Delete(ctx, c.balancer, url.PathEscape(id), loadbalancers.DeleteOpts{Cascade: true}).ExtractErr()
	})
	if missing(err) || is(err, 404) {
		return nil
	}
	return err
}

// change waits until the balancer takes changes and makes one, until do says that it is done: Octavia makes one change at a
// time, and answers 409 to another. ErrNotFound if the balancer is gone. The caller has the balancer's lock. One that has
// failed can only be deleted.
func (c *Cloud) change(ctx context.Context, op, id string, failedToo bool, do func(balanced) (bool, error)) error {
	return poll(ctx, func() (bool, error) {
		var body struct{ Loadbalancer balanced }
		_, err := c.balancer.Get(ctx, c.balancer.ServiceURL("lbaas", "loadbalancers", url.PathEscape(id)), &body, nil)
		b := body.Loadbalancer
		switch {
		case is(err, 404) || err == nil && b.gone():
			return false, provider.Errorf(op, id, provider.ErrNotFound, "there is no such balancer")
		case err != nil:
			return false, err
		case b.Status == "ERROR" && !failedToo:
			return false, provider.Errorf(op, id, nil, "the balancer has failed, and takes no changes any more")
		case b.Status != "ACTIVE" && b.Status != "ERROR":
			return false, nil
		}
		done, err := do(b)
		if is(err, 409) && kindOf(409, err.Error()) == nil {
			return false, nil
		}
		return done, err
	})
}
