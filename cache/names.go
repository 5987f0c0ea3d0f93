package cache

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"
)

// Names follows servers by their names in the DNS, for a program that shares a cache with a farm and does not run the farm. Either
// Slots or Group is required. It must not be changed while Run runs.
//
//	names := cache.Names{Slots: map[string]string{
//		"cache-1": "cache-1.farm.example:11211",
//		"cache-2": "cache-2.farm.example:11211",
//	}}
//	err := names.Run(ctx, client) // with a *memcached.Client, until ctx ends
//
// A lookup that fails says nothing: the servers stay as they are, and until every name has been looked up once nobody is told
// anything, since a program that knows of some servers only would not delete what the others have. That a name does not exist, or has no address, says that its
// server is gone, unless all names say so: then nothing changes either. A server that has IPv4 addresses is not looked for at
// its IPv6 addresses.
type Names struct {
	// Slots gives each slot the name and the port of its server, host:port. A farm publishes each machine of a role under the
	// name of its slot. Where a name has several addresses, the one that was used before is used on, else the lowest. A name
	// may be one that does not exist yet.
	Slots map[string]string
	// Group is one name with a port that leads to all servers: each address is a server, and a slot, so that one server that is
	// replaced moves its keys and some of the others'.
	Group string
	// Every is the time from the end of a lookup to the next one; 0 means 3 seconds. With the TTL of the records it must be less
	// than the time in which all processes have to learn of a change (see memcached.Options.Settle).
	Every time.Duration
	// Timeout bounds each lookup of all names, which are looked up at once; 0 means 2 seconds.
	Timeout time.Duration
	// Resolver looks names up; nil means net.DefaultResolver.
	Resolver Resolver
	// OnError is told of each lookup that failed, and of servers that the follower refused. It is never called twice at once.
	// Nil means that nobody is told.
	OnError func(error)
}

// Resolver looks up the addresses of a host. A *net.Resolver is one. It fails with a *net.DNSError whose IsNotFound is true where
// the name does not exist or has no address.
type Resolver interface {
	LookupHost(ctx context.Context, host string) (addrs []string, err error)
}

var _ Resolver = (*net.Resolver)(nil)

// Run looks the names up, tells the follower of the servers each time that they have changed, and returns the cause of ctx when that
// ends. It returns ErrInvalid at once if Names are.
func (n Names) Run(ctx context.Context, follower Follower) error {
	if err := n.check(); err != nil {
		return err
	}
	if follower == nil {
		return &Error{Op: "Run", Err: fmt.Errorf("%w: follower is nil, want one", ErrInvalid)}
	}
	var told []Server
	known := map[string]bool{} // slots whose names have been looked up
	for ctx.Err() == nil {
		servers, err := n.lookup(ctx, told, known)
		if ctx.Err() != nil {
			break
		}
		if len(known) >= len(n.Slots) && len(servers) > 0 && !slices.Equal(servers, told) {
			if refused := follower.SetServers(slices.Clone(servers)); refused != nil {
				err = errors.Join(err, refused)
			} else {
				told = servers
			}
		}
		if err != nil && n.OnError != nil {
			n.OnError(err)
		}
		select {
		case <-ctx.Done():
		case <-time.After(cmp.Or(n.Every, 3*time.Second)):
		}
	}
	return context.Cause(ctx)
}

// Lookup looks the names up once: the servers, sorted by slot. Where it fails for some names, it returns the servers of the others
// and the error.
func (n Names) Lookup(ctx context.Context) ([]Server, error) {
	if err := n.check(); err != nil {
		return nil, err
	}
	return n.lookup(ctx, nil, map[string]bool{})
}

func (n Names) check() error {
	fail := func(format string, args ...any) error {
		return &Error{Op: "Names", Err: fmt.Errorf("%w: "+format, append([]any{ErrInvalid}, args...)...)}
	}
	switch {
	case len(n.Slots) == 0 && n.Group == "":
		return fail("Slots and Group are empty, want one of them")
	case len(n.Slots) > 0 && n.Group != "":
		return fail("Slots and Group %q are both given, want one of them", n.Group)
	case n.Every < 0:
		return fail("Every is %v, want 0 or more", n.Every)
	case n.Timeout < 0:
		return fail("Timeout is %v, want 0 or more", n.Timeout)
	}
	if n.Group != "" && !isHostPort(n.Group) {
		return fail("Group is %q, want host:port", n.Group)
	}
	for _, slot := range slices.Sorted(maps.Keys(n.Slots)) {
		if slot == "" {
			return fail("Slots has an empty slot, want the stable name of the server's place")
		}
		if !isHostPort(n.Slots[slot]) {
			return fail("Slots[%q] is %q, want host:port", slot, n.Slots[slot])
		}
	}
	return nil
}

func isHostPort(s string) bool {
	host, port, err := net.SplitHostPort(s)
	return err == nil && host != "" && port != ""
}

// lookup gives the servers now. What is not known stays as it was told.
func (n Names) lookup(ctx context.Context, told []Server, known map[string]bool) ([]Server, error) {
	ctx, cancel := context.WithTimeout(ctx, cmp.Or(n.Timeout, 2*time.Second))
	defer cancel()
	if n.Group != "" {
		addrs, err := n.addrs(ctx, n.Group)
		if err != nil {
			return told, err
		}
		var servers []Server
		for _, addr := range addrs {
			servers = append(servers, Server{Slot: addr, Addr: addr})
		}
		return servers, nil
	}
	slots := slices.Sorted(maps.Keys(n.Slots))
	addrs, errs := make([][]string, len(slots)), make([]error, len(slots))
	var wg sync.WaitGroup
	for i, slot := range slots {
		wg.Go(func() { addrs[i], errs[i] = n.addrs(ctx, n.Slots[slot]) })
	}
	wg.Wait()
	var servers []Server
	var failed error
	for i, slot := range slots {
		if errs[i] == nil || errors.Is(errs[i], errNoAddress) {
			known[slot] = true
		}
		at := slices.IndexFunc(told, func(s Server) bool { return s.Slot == slot })
		switch {
		case errors.Is(errs[i], errNoAddress):
			continue
		case errs[i] != nil:
			failed = errors.Join(failed, fmt.Errorf("slot %s: %w", slot, errs[i]))
			if at >= 0 {
				servers = append(servers, told[at])
			}
		case at >= 0 && slices.Contains(addrs[i], told[at].Addr):
			servers = append(servers, told[at])
		default:
			servers = append(servers, Server{Slot: slot, Addr: addrs[i][0]})
		}
	}
	if len(servers) == 0 && failed == nil {
		return told, &Error{Op: "Names", Err: fmt.Errorf("%w: none of %d names has an address", ErrNoServers, len(slots))}
	}
	return servers, failed
}

var errNoAddress = errors.New("name has no address")

// addrs gives the addresses of a host, with the port, sorted: at least one, or an error.
func (n Names) addrs(ctx context.Context, hostPort string) ([]string, error) {
	host, port, err := net.SplitHostPort(hostPort)
	if err != nil {
		return nil, err
	}
	var found []string
	if n.Resolver != nil {
		found, err = n.Resolver.LookupHost(ctx, host)
	} else {
		found, err = net.DefaultResolver.LookupHost(ctx, host)
	}
	if dns, ok := errors.AsType[*net.DNSError](err); ok && dns.IsNotFound {
		return nil, fmt.Errorf("%w: %w", errNoAddress, err)
	}
	if err != nil {
		return nil, err
	}
	var v4, all []netip.Addr
	for _, s := range found {
		ip, err := netip.ParseAddr(s)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", host, err)
		}
		if ip = ip.Unmap(); ip.Is4() {
			v4 = append(v4, ip)
		}
		all = append(all, ip)
	}
	if len(v4) > 0 {
		all = v4
	}
	if len(all) == 0 {
		return nil, fmt.Errorf("%w: %s", errNoAddress, host)
	}
	slices.SortFunc(all, netip.Addr.Compare)
	var addrs []string
	for _, ip := range slices.Compact(all) {
		addrs = append(addrs, net.JoinHostPort(ip.String(), port))
	}
	return addrs, nil
}
