package pool

import (
	"context"
	"database/sql/driver"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/scalr-go/scalr/replication"
)

// view is who is what, as far as is known.
type view struct {
	epoch    uint64 // rises whenever the primary becomes another one
	primary  string // address; empty if there is none now
	replicas []string
	down     []string // replicas that are known not to answer
	members  int      // how many servers there are besides the primary, fit or not
	why      string   // why there is no primary
	denied   error    // a server lets nobody in, and there is no primary
}

func (v view) serves(addr string) bool { return slices.Contains(v.replicas, addr) }

// viewer knows the view.
type viewer interface {
	// now gives what is known, and asks nobody.
	now() view
	// look makes sure of it, where that takes asking. What was known before since is not good enough.
	look(ctx context.Context, since time.Time) view
	// changed is closed when there is news, if there is a way to know; otherwise it is nil.
	changed() <-chan struct{}
	// doubt says that somebody has seen what does not fit.
	doubt()
	close() error
}

// managed follows a Manager.
type managed struct {
	follower Follower

	mu   sync.Mutex
	last view
	news <-chan struct{} // closed when last is out of date
}

func (m *managed) now() view {
	m.mu.Lock()
	defer m.mu.Unlock()
	select {
	case <-m.news:
	default:
		if m.news != nil {
			return m.last
		}
	}
	var t replication.Topology
	t, m.news = m.follower.Topology()
	v := view{epoch: t.Epoch, members: -1, why: "the Manager knows of none"}
	if len(t.Held) > 0 {
		v.why += ": " + strings.Join(t.Held, "; ")
	}
	for _, x := range t.Members {
		switch v.members++; {
		case x.Member.ID == t.Primary:
			v.primary = x.Member.Addr
		case x.Serves && x.Role == replication.RoleReplica:
			v.replicas = append(v.replicas, x.Member.Addr)
		case x.Role == replication.RoleDown:
			v.down = append(v.down, x.Member.Addr)
		}
	}
	m.last = v
	return v
}

func (m *managed) look(context.Context, time.Time) view { return m.now() }

func (m *managed) changed() <-chan struct{} {
	m.now()
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.news
}

func (m *managed) doubt() {}

func (m *managed) close() error { return nil }

// asked asks the servers.
type asked struct {
	config Config

	asking sync.Mutex // held while the servers are asked, so that one caller asks for all
	probes map[string]driver.Conn
	found  map[string][]string // addresses of each host, as it was last looked up

	mu   sync.Mutex
	last view
	at   time.Time // when the question for last was put
	gone bool
}

func (a *asked) now() view {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.last
}

func (a *asked) changed() <-chan struct{} { return nil }

func (a *asked) look(ctx context.Context, since time.Time) view {
	known := func() (view, bool) {
		a.mu.Lock()
		defer a.mu.Unlock()
		return a.last, a.gone || !a.at.Before(since)
	}
	if v, ok := known(); ok {
		return v
	}
	a.asking.Lock()
	defer a.asking.Unlock()
	if v, ok := known(); ok {
		return v
	}
	at := time.Now()
	v := a.ask(ctx)
	a.mu.Lock()
	defer a.mu.Unlock()
	if ctx.Err() != nil { // what was cut off says nothing
		return a.last
	}
	v.epoch = a.last.epoch
	if v.primary != a.last.primary && v.primary != "" {
		v.epoch++
	}
	a.last, a.at = v, at
	return v
}

// ask asks every server whether it takes writes.
func (a *asked) ask(ctx context.Context) view {
	ctx, cancel := context.WithTimeout(ctx, a.config.Timeout)
	defer cancel()
	addrs, trouble := a.addrs(ctx)
	for addr, c := range a.probes {
		if !slices.Contains(addrs, addr) {
			c.Close()
			delete(a.probes, addr)
		}
	}
	writable, errs, probes := make([]bool, len(addrs)), make([]error, len(addrs)), make([]driver.Conn, len(addrs))
	var wg sync.WaitGroup
	for i, addr := range addrs {
		probes[i] = a.probes[addr]
		wg.Go(func() { writable[i], errs[i] = a.probe(ctx, addr, &probes[i]) })
	}
	wg.Wait()
	v := view{members: max(0, len(addrs)-1)}
	var takers []string
	for i, addr := range addrs {
		a.probes[addr] = probes[i]
		if probes[i] == nil {
			delete(a.probes, addr)
		}
		switch {
		case errs[i] != nil:
			trouble = append(trouble, fmt.Sprintf("%s: %v", addr, errs[i]))
			v.down = append(v.down, addr)
			if errors.Is(errs[i], replication.ErrAccess) {
				v.denied = fmt.Errorf("%s: %w", addr, errs[i])
			}
		case writable[i]:
			takers = append(takers, addr)
		default:
			v.replicas = append(v.replicas, addr)
		}
	}
	switch len(takers) {
	case 0:
		v.why = "none of " + strings.Join(a.config.Addrs, ", ") + " takes writes"
	case 1:
		v.primary = takers[0]
	default:
		v.why = strings.Join(takers, " and ") + " take writes, and only one may"
	}
	if len(trouble) > 0 {
		v.why += " (" + strings.Join(trouble, "; ") + ")"
	}
	return v
}

// probe asks one server, over the connection that is held or a new one.
func (a *asked) probe(ctx context.Context, addr string, held *driver.Conn) (writable bool, err error) {
	for range 2 {
		fresh := *held == nil
		if fresh {
			if *held, err = a.config.Driver.Connect(ctx, addr, true); err != nil {
				*held = nil
				return false, err
			}
		}
		if writable, err = a.config.Driver.Writable(ctx, *held); err == nil {
			return writable, nil
		}
		(*held).Close()
		*held = nil
		if fresh {
			break
		}
	}
	return false, err
}

// addrs looks the names up, all at once and within a half of the time, so that the servers have the other. While a name server does
// not answer, its names stand for what they last did.
func (a *asked) addrs(ctx context.Context) (addrs, trouble []string) {
	ctx, cancel := context.WithTimeout(ctx, a.config.Timeout/2)
	defer cancel()
	found, errs := make([][]string, len(a.config.Addrs)), make([]error, len(a.config.Addrs))
	var wg sync.WaitGroup
	for i, addr := range a.config.Addrs {
		host, _, _ := net.SplitHostPort(addr)
		if net.ParseIP(host) != nil {
			found[i] = []string{host}
			continue
		}
		wg.Go(func() { found[i], errs[i] = a.config.LookupHost(ctx, host) })
	}
	wg.Wait()
	for i, addr := range a.config.Addrs {
		host, port, _ := net.SplitHostPort(addr)
		if errs[i] != nil {
			trouble = append(trouble, errs[i].Error())
		}
		if d, ok := errors.AsType[*net.DNSError](errs[i]); errs[i] == nil || ok && d.IsNotFound {
			a.found[host] = found[i]
		}
		for _, ip := range a.found[host] {
			addrs = append(addrs, net.JoinHostPort(ip, port))
		}
	}
	slices.Sort(addrs)
	return slices.Compact(addrs), trouble
}

func (a *asked) doubt() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.at = time.Time{}
}

func (a *asked) close() error {
	a.asking.Lock()
	defer a.asking.Unlock()
	a.mu.Lock()
	a.gone = true
	a.mu.Unlock()
	for _, c := range a.probes {
		c.Close()
	}
	clear(a.probes)
	return nil
}
