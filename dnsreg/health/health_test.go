package health

import (
	"context"
	"errors"
	"maps"
	"slices"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/scalr-go/scalr/dnsreg"
)

const name = "www.example.com."

var errSick = errors.New("sick")

func set(values ...string) []dnsreg.RRset {
	return []dnsreg.RRset{{Name: name, Type: "A", TTL: time.Second, Values: values}}
}

func gate(t require.TestingT, o Options) *Gate {
	if o.Check == nil {
		o.Check = func(context.Context, string, string) error { return nil }
	}
	g, err := New(o)
	require.NoError(t, err)
	return g
}

// Whatever is seen, an address leaves a name only after Fall failures in a row and comes back only after Rise successes, and
// a name is never emptied.
func TestGate(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		o := Options{Fall: rapid.IntRange(1, 4).Draw(t, "fall"), Rise: rapid.IntRange(1, 4).Draw(t, "rise")}
		g := gate(t, o)
		addresses := []string{"192.0.2.1", "192.0.2.2", "192.0.2.3"}
		seen := map[string][]bool{}
		down := map[string]bool{}
		for range rapid.IntRange(0, 60).Draw(t, "looks") {
			a := rapid.SampledFrom(addresses).Draw(t, "address")
			ok := rapid.Bool().Draw(t, "ok")
			var err error
			if !ok {
				err = errSick
			}
			g.Observe(name, a, err)
			seen[a] = append(seen[a], ok)
			last := func(n int, what bool) bool {
				l := seen[a]
				return len(l) >= n && !slices.Contains(l[len(l)-n:], !what)
			}
			if last(o.Fall, false) {
				down[a] = true
			} else if last(o.Rise, true) {
				delete(down, a)
			}
			want := slices.DeleteFunc(slices.Clone(addresses), func(a string) bool { return down[a] })
			if len(want) == 0 {
				want = addresses
			}
			require.Equal(t, set(want...), g.Filter(set(addresses...)))
			require.ElementsMatch(t, slices.Collect(maps.Keys(down)), slices.Collect(maps.Keys(g.Down(name))))
		}
	})
}

// What is no address passes, and what Filter gives belongs to the caller.
func TestOtherRecordsPass(t *testing.T) {
	g := gate(t, Options{Fall: 1})
	g.Observe(name, "mail.example.com.", errSick)
	g.Observe(name, "192.0.2.1", errSick)
	in := append(set("192.0.2.1", "192.0.2.2"), dnsreg.RRset{Name: name, Type: "TXT", Values: []string{"192.0.2.1"}})
	out := g.Filter(in)
	require.Equal(t, append(set("192.0.2.2"), in[1]), out)
	out[0].Values[0], out[1].Values[0] = "x", "x"
	require.Equal(t, []string{"192.0.2.1", "192.0.2.2"}, in[0].Values)
	require.Equal(t, []string{"192.0.2.1"}, in[1].Values)
}

// Each type fails open by itself: who has only IPv4 has no use for an IPv6 address that is up.
func TestEachTypeFailsOpen(t *testing.T) {
	g := gate(t, Options{Fall: 1})
	g.Observe(name, "192.0.2.1", errSick)
	g.Observe(name, "2001:db8::2", errSick)
	all := append(set("192.0.2.1"), dnsreg.RRset{Name: name, Type: "AAAA", Values: []string{"2001:db8::1", "2001:db8::2"}})
	require.Equal(t, append(set("192.0.2.1"), dnsreg.RRset{Name: name, Type: "AAAA", Values: []string{"2001:db8::1"}}), g.Filter(all))
}

// A pass looks at so many at once, no look lasts longer than it may, and what is not wanted any more is forgotten.
func TestProbe(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var now, most atomic.Int64
		g := gate(t, Options{Fall: 1, Parallel: 2, Timeout: time.Second, Check: func(ctx context.Context, _, a string) error {
			most.Store(max(most.Load(), now.Add(1)))
			defer now.Add(-1)
			if a == "192.0.2.1" {
				<-ctx.Done() // it hangs
				return ctx.Err()
			}
			time.Sleep(100 * time.Millisecond)
			return nil
		}})
		all := set("192.0.2.1", "192.0.2.2", "192.0.2.3", "192.0.2.4")
		begin := time.Now()
		g.Probe(t.Context(), all)
		took := time.Since(begin)
		require.GreaterOrEqual(t, took, time.Second)
		require.LessOrEqual(t, took, 1100*time.Millisecond, "the others pass the one that hangs, which may come second")
		require.EqualValues(t, 2, most.Load())
		require.Equal(t, set("192.0.2.2", "192.0.2.3", "192.0.2.4"), g.Filter(all))
		require.ErrorIs(t, g.Down(name)["192.0.2.1"], context.DeadlineExceeded)

		g.Probe(t.Context(), set("192.0.2.2"))
		require.Empty(t, g.Down(name))

		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
		defer cancel()
		g.Probe(ctx, all)
		require.Empty(t, g.Down(name), "a look that the context has cut short")
	})
}

func TestOptionsAreChecked(t *testing.T) {
	check := func(context.Context, string, string) error { return nil }
	for want, o := range map[string]Options{
		"health: Check is missing":                                        {},
		"health: Fall is -1, want 1 or more, or 0 for the default":        {Check: check, Fall: -1},
		"health: Timeout is -1ns, want more than 0, or 0 for the default": {Check: check, Timeout: -1},
	} {
		_, err := New(o)
		require.EqualError(t, err, want)
	}
}
