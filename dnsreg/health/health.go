// Package health keeps addresses that do not answer out of the names that an owner publishes, on any registrar.
//
// A [Gate] stands before [dnsreg.Sync]: it looks at each address, and leaves those out that are down.
//
//	gate.Probe(ctx, want)
//	_, err := dnsreg.Sync(ctx, registrar, zone, owner, gate.Filter(want))
//
// It is slow to believe, so that a name does not flap: an address is down after several looks in a row that failed, and up
// again after several that went well. And it fails open: where all addresses of one type of a name are down, all of them
// stay, since then it is more likely the looking that is broken, and an address that may answer is better than none. A
// client that has only IPv4 has no use for those of IPv6, so each type is by itself. An address that nobody has looked at is up.
package health

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/scalr-go/scalr/dnsreg"
)

// Options says how to look, and what to make of it.
type Options struct {
	// Check looks at one address of a name, "192.0.2.1" of "www.example.com.": nil if it answers. Required.
	Check func(ctx context.Context, name, address string) error
	// Timeout bounds one look. Default 5 s.
	Timeout time.Duration
	// Parallel is how many are looked at at once. Default 16.
	Parallel int
	// Fall is after how many failures in a row an address is down, and Rise after how many successes it is up again.
	// Default 3 and 2.
	Fall, Rise int
}

// Gate is what is known of the addresses. It is safe for concurrent use.
type Gate struct {
	opts Options

	mu    sync.Mutex
	known map[key]state
}

type key struct{ name, address string }

// state is what the looks at an address have shown.
type state struct {
	down bool
	run  int   // looks in a row that say otherwise
	err  error // of the last look
}

// New checks the options; the error names the one that is wrong.
func New(o Options) (*Gate, error) {
	if o.Check == nil {
		return nil, errors.New("health: Check is missing")
	}
	if o.Timeout < 0 {
		return nil, fmt.Errorf("health: Timeout is %v, want more than 0, or 0 for the default", o.Timeout)
	}
	if o.Timeout == 0 {
		o.Timeout = 5 * time.Second
	}
	for _, f := range []struct {
		name  string
		value *int
		def   int
	}{{"Parallel", &o.Parallel, 16}, {"Fall", &o.Fall, 3}, {"Rise", &o.Rise, 2}} {
		if *f.value < 0 {
			return nil, fmt.Errorf("health: %s is %d, want 1 or more, or 0 for the default", f.name, *f.value)
		}
		if *f.value == 0 {
			*f.value = f.def
		}
	}
	return &Gate{opts: o, known: make(map[key]state)}, nil
}

// Probe looks once at each address of the A and AAAA RRsets, and forgets all others. It returns when all looks have ended;
// those that the context cuts short count for nothing.
func (g *Gate) Probe(ctx context.Context, sets []dnsreg.RRset) {
	wanted := make(map[key]bool)
	for _, s := range sets {
		if isAddress(s.Type) {
			for _, v := range s.Values {
				wanted[key{s.Name, v}] = true
			}
		}
	}
	g.mu.Lock()
	for k := range g.known {
		if !wanted[k] {
			delete(g.known, k)
		}
	}
	g.mu.Unlock()
	free := make(chan struct{}, g.opts.Parallel)
	var wg sync.WaitGroup
	defer wg.Wait()
	for k := range wanted {
		select {
		case free <- struct{}{}:
		case <-ctx.Done():
			return
		}
		wg.Go(func() {
			defer func() { <-free }()
			look, cancel := context.WithTimeout(ctx, g.opts.Timeout)
			defer cancel()
			if err := g.opts.Check(look, k.name, k.address); err == nil || ctx.Err() == nil {
				g.Observe(k.name, k.address, err)
			}
		})
	}
}

// Observe takes note of one look at an address, for a program that looks by itself: nil if it answered.
func (g *Gate) Observe(name, address string, err error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	k := key{name, address}
	g.known[k] = g.opts.next(g.known[k], err)
}

// next is what is known after another look.
func (o Options) next(s state, err error) state {
	s.err = err
	if (err != nil) == s.down {
		s.run = 0
		return s
	}
	s.run++
	if !s.down && s.run >= o.Fall || s.down && s.run >= o.Rise {
		s.down, s.run = !s.down, 0
	}
	return s
}

// Filter gives the RRsets without the addresses that are down; one whose addresses are all down is as it was. All others are
// as they were, too. The list and what it holds are the caller's.
func (g *Gate) Filter(sets []dnsreg.RRset) []dnsreg.RRset {
	g.mu.Lock()
	defer g.mu.Unlock()
	out := make([]dnsreg.RRset, len(sets))
	for i, s := range sets {
		all := s.Values
		s.Values = slices.Clone(all)
		if isAddress(s.Type) {
			s.Values = slices.DeleteFunc(s.Values, func(v string) bool { return g.known[key{s.Name, v}].down })
			if len(s.Values) == 0 {
				s.Values = slices.Clone(all)
			}
		}
		out[i] = s
	}
	return out
}

// Down gives the addresses of a name that are down, with the error of the last look at each.
func (g *Gate) Down(name string) map[string]error {
	g.mu.Lock()
	defer g.mu.Unlock()
	down := make(map[string]error)
	for k, s := range g.known {
		if k.name == name && s.down {
			down[k.address] = s.err
		}
	}
	return down
}

func isAddress(typ string) bool { return typ == "A" || typ == "AAAA" }
