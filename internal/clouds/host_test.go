package clouds

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/scalr-go/scalr/dnsreg"
	"github.com/scalr-go/scalr/farm"
	"github.com/scalr-go/scalr/internal/faultproxy"
	"github.com/scalr-go/scalr/provider"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// patience bounds every wait.
const patience = 3 * time.Minute

// shop wants everything that an index can own.
func shop(name string) farm.Spec {
	return farm.Spec{Name: name, Zone: "shop.example.", TTL: time.Second, Roles: []farm.Role{
		{Name: "www", Serves: farm.Web, Image: "web", Min: 1, Max: 2, After: []string{"app"}, Address: true, Main: true,
			Balancer: &farm.Balancer{Protocol: "http", Port: 80, Drain: time.Second}},
		{Name: "app", Image: "app", Min: 2, Max: 2, Volume: &farm.Volume{SizeGB: 1}},
	}}
}

// quick is a configuration whose times suit a cloud on this machine.
func quick(pools ...farm.Pool) farm.Config {
	return farm.Config{Pools: pools, DNS: &dnsreg.Memory{Zones: []string{"shop.example.", "qa.shop.example."}}, ListLag: 300 * time.Millisecond,
		Grace: 500 * time.Millisecond, MissingAfter: 500 * time.Millisecond, Backoff: 300 * time.Millisecond, CallTimeout: time.Minute}
}

// rest makes passes until several in a row have nothing to do.
func rest(ctx context.Context, f *farm.Farm) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	saw := ""
	for quiet := 0; quiet < 2; {
		p, err := f.Reconcile(ctx)
		if ctx.Err() != nil {
			return fmt.Errorf("no rest: %w\n%s", context.Cause(ctx), saw)
		}
		saw = fmt.Sprintf("%v\n%s", err, p)
		if quiet++; err != nil || !p.Empty() || len(p.Waits) > 0 {
			quiet = 0
		}
		select {
		case <-ctx.Done():
		case <-time.After(50 * time.Millisecond):
		}
	}
	return nil
}

// holding is what a farm holds in a cloud: by slot, the IDs of what there is of each kind, and who has it.
type holding struct {
	Instances, Volumes, Addresses map[string][]string
	holders                       map[string]string // of volumes and addresses
	Balancers                     int
	ended                         map[string]int
}

// look lists everything that bears a farm's tags, without faults.
func look(t *testing.T, p provider.Provider, name string) holding {
	t.Helper()
	ctx, tags := t.Context(), map[string]string{farm.TagFarm: name}
	h := holding{map[string][]string{}, map[string][]string{}, map[string][]string{}, map[string]string{}, 0, map[string]int{}}
	slot := func(tags map[string]string) string { return tags[farm.TagRole] + "-" + tags[farm.TagIndex] }
	instances, err := p.Instances(ctx, tags)
	require.NoError(t, err)
	for _, i := range instances {
		if i.State.Gone() {
			h.ended[slot(i.Tags)]++
			continue
		}
		h.Instances[slot(i.Tags)] = append(h.Instances[slot(i.Tags)], i.ID)
	}
	v, _ := provider.As[provider.Volumes](p)
	volumes, err := v.Volumes(ctx, tags)
	require.NoError(t, err)
	for _, x := range volumes {
		h.Volumes[slot(x.Tags)] = append(h.Volumes[slot(x.Tags)], x.ID)
		h.holders[x.ID] = x.Instance
	}
	a, _ := provider.As[provider.Addresses](p)
	addresses, err := a.Addresses(ctx, tags)
	require.NoError(t, err)
	for _, x := range addresses {
		h.Addresses[slot(x.Tags)] = append(h.Addresses[slot(x.Tags)], x.ID)
		h.holders[x.ID] = x.Instance
	}
	b, _ := provider.As[provider.Balancers](p)
	balancers, err := b.Balancers(ctx, tags)
	require.NoError(t, err)
	h.Balancers = len(balancers)
	return h
}

// settled reports what is wrong with what a farm holds at rest that has of each role the fewest.
func (h holding) settled(spec farm.Spec) error {
	var instances, volumes, addresses []string
	balancers := 0
	for _, r := range spec.Roles {
		for i := range r.Min {
			slot := fmt.Sprintf("%s-%d", r.Name, i+1)
			instances = append(instances, slot)
			if r.Volume != nil {
				volumes = append(volumes, slot)
			}
			if r.Address {
				addresses = append(addresses, slot)
			}
		}
		if r.Balancer != nil {
			balancers++
		}
	}
	var faults []error
	for kind, want := range map[string]struct {
		got   map[string][]string
		slots []string
	}{"instance": {h.Instances, instances}, "volume": {h.Volumes, volumes}, "address": {h.Addresses, addresses}} {
		for slot, ids := range want.got {
			if len(ids) != 1 || !slices.Contains(want.slots, slot) {
				faults = append(faults, fmt.Errorf("slot %s has %ss %s", slot, kind, ids))
			}
			if kind != "instance" && h.Instances[slot] != nil && h.holders[ids[0]] != h.Instances[slot][0] {
				faults = append(faults, fmt.Errorf("%s %s of slot %s is with %q", kind, ids[0], slot, h.holders[ids[0]]))
			}
		}
		if len(want.got) != len(want.slots) {
			faults = append(faults, fmt.Errorf("there are %ss %v, want %v", kind, want.got, want.slots))
		}
	}
	if h.Balancers != balancers {
		faults = append(faults, fmt.Errorf("there are %d balancers, want %d", h.Balancers, balancers))
	}
	return errors.Join(faults...)
}

func (h holding) empty() bool {
	return len(h.Instances)+len(h.Volumes)+len(h.Addresses)+h.Balancers == 0
}

// host is a program whose requests to a cloud go through a proxy until it is killed: at its kill-th request, before the
// cloud has seen it or after. Some replies are lost besides.
type host struct {
	kill  int
	after bool
	lose  int // of so many requests that change something, one reply

	killed context.CancelFunc
	mu     sync.Mutex
	calls  int
	dead   bool
}

func (h *host) fault(r faultproxy.Request) faultproxy.Fault {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.dead {
		return faultproxy.Refuse
	}
	h.calls++
	if h.calls == h.kill {
		h.dead = true
		h.killed()
		if h.after {
			return faultproxy.Lose
		}
		return faultproxy.Refuse
	}
	if h.lose > 0 && changes(r) && h.calls%h.lose == 0 {
		return faultproxy.Lose
	}
	return faultproxy.Fault{}
}

func (h *host) count() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.calls
}

// subject is a cloud behind a proxy.
type subject struct {
	proxy *faultproxy.Proxy
	// cloud makes a provider as a new process would have it.
	cloud func() provider.Provider
	// config makes the configuration of a farm over one.
	config func(provider.Provider) farm.Config
}

// killed runs a farm under a host that is killed, and again under one that is not, and wants to find exactly what
// the spec says; then it ends the farm, and wants nothing left. It tells how many requests the first host made.
func (s subject) killed(t *testing.T, spec farm.Spec, kill int, after bool) (requests int, died bool) {
	t.Helper()
	name := spec.Name
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	first := &host{kill: kill, after: after, lose: 5, killed: cancel}
	s.proxy.SetFault(first.fault)
	f, err := farm.New(spec, s.config(s.cloud()))
	require.NoError(t, err)
	err = rest(ctx, f)
	if err != nil {
		require.ErrorIs(t, err, context.Canceled)
	}
	requests = first.count()

	second := &host{lose: 5}
	s.proxy.SetFault(second.fault)
	cloud := s.cloud()
	f, err = farm.New(spec, s.config(cloud))
	require.NoError(t, err)
	require.NoError(t, rest(t.Context(), f), "killed at request %d", kill)
	s.proxy.SetFault(nil)
	h := look(t, cloud, name)
	require.NoError(t, h.settled(spec), "killed at request %d, after its effect: %v", kill, after)
	require.Empty(t, h.ended, "an instance too many was launched; killed at request %d, after its effect: %v", kill, after)

	s.proxy.SetFault((&host{lose: 5}).fault)
	end, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	require.NoError(t, f.Terminate(end, farm.TerminateOptions{DeleteVolumes: true}), "killed at request %d", kill)
	s.proxy.SetFault(nil)
	require.True(t, look(t, cloud, name).empty(), "left over: %+v, killed at request %d", look(t, cloud, name), kill)
	return requests, err != nil || ctx.Err() != nil
}
