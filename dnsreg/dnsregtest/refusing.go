package dnsregtest

import (
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/scalr-go/scalr/dnsreg"
)

// refusing is what Apply does not do.
var refusing = []check{
	{rule: "an RRset that exists is not created again", run: func(e *env) {
		e.create(e.set("a", "A", "192.0.2.1"))
		e.refused(dnsreg.ErrConflict, change(nil, e.set("a", "A", "192.0.2.2")))
		e.refused(dnsreg.ErrConflict, change(nil, e.set("a", "A", "192.0.2.1")))
	}},
	{rule: "a stale precondition is ErrConflict and changes nothing", run: func(e *env) {
		e.create(e.set("a", "A", "192.0.2.1", "192.0.2.2"))
		new := e.set("a", "A", "192.0.2.9")
		for _, stale := range [][]string{{"192.0.2.1"}, {"192.0.2.2", "192.0.2.3"}, {"192.0.2.1", "192.0.2.2", "192.0.2.3"}} {
			e.refused(dnsreg.ErrConflict, change(e.set("a", "A", stale...), new))
			e.refused(dnsreg.ErrConflict, change(e.set("a", "A", stale...), nil))
		}
	}},
	{rule: "a precondition on an RRset that is gone is ErrConflict", run: func(e *env) {
		e.refused(dnsreg.ErrConflict, change(e.set("a", "A", "192.0.2.1"), e.set("a", "A", "192.0.2.2")))
		e.refused(dnsreg.ErrConflict, change(e.set("a", "A", "192.0.2.1"), nil))
	}},
	{rule: "of those who race on one RRset, exactly one wins", needs: preconditions, run: func(e *env) {
		const racers, rounds = 8, 12
		for round := range rounds {
			old := e.get("a", "A") // nil at first: they race to create it, then to replace it, and at last to remove it
			start := make(chan struct{})
			errs := make([]error, racers)
			var wg sync.WaitGroup
			for i := range racers {
				new := e.set("a", "A", fmt.Sprintf("192.0.2.%d", 1+round*racers+i))
				if round == rounds-1 {
					new = nil
				}
				wg.Go(func() {
					<-start
					errs[i] = e.r.Apply(e.t.Context(), e.zone, []dnsreg.Change{change(old, new)})
				})
			}
			close(start)
			wg.Wait()
			won := -1
			for i, err := range errs {
				if err == nil {
					require.Equal(e.t, -1, won, "round %d: both %d and %d won", round, won, i)
					won = i
				} else {
					require.ErrorIs(e.t, err, dnsreg.ErrConflict)
				}
			}
			require.NotEqual(e.t, -1, won, "round %d: nobody won", round)
			if round == rounds-1 {
				e.holds()
			} else {
				e.holds(e.set("a", "A", fmt.Sprintf("192.0.2.%d", 1+round*racers+won)))
			}
		}
	}},
	{rule: "a CNAME stands alone", run: func(e *env) {
		e.create(e.set("a", "A", "192.0.2.1"), e.set("c", "CNAME", "a.example.org."))
		e.refused(dnsreg.ErrInvalid, change(nil, e.set("a", "CNAME", "b.example.org.")))
		e.refused(dnsreg.ErrInvalid, change(nil, e.set("c", "TXT", "x")))
		if m := e.r.Capabilities().MaxChanges; m == 0 || m > 1 {
			e.refused(dnsreg.ErrInvalid, change(nil, e.set("n", "CNAME", "b.example.org.")), change(nil, e.set("n", "A", "192.0.2.1")))
		}
	}},
	{rule: "what can never succeed is ErrInvalid, names the record and changes nothing", run: func(e *env) {
		zone := func(typ string, values ...string) *dnsreg.RRset {
			return &dnsreg.RRset{Name: e.zone, Type: typ, TTL: e.ttl, Values: values}
		}
		outside := &dnsreg.RRset{Name: "a.example.org.", Type: "A", TTL: e.ttl, Values: []string{"192.0.2.1"}}
		fraction := e.set("f", "A", "192.0.2.1")
		fraction.TTL += time.Millisecond
		both := change(e.set("x", "A", "192.0.2.1"), e.set("x", "A", "192.0.2.2"))
		both.Name = e.name("y")
		for _, c := range []dnsreg.Change{
			change(nil, e.set("a", "A", "192.0.2.256")),
			change(nil, e.set("a", "A")),
			change(nil, e.set("a", "WKS", "x")),
			change(nil, e.set("a..b", "A", "192.0.2.1")),
			change(nil, e.set(strings.Repeat("a", 64), "A", "192.0.2.1")),
			change(nil, e.set("a", "CNAME", "relative")),
			change(nil, e.set("a", "CNAME", "a.example.org.", "b.example.org.")),
			change(nil, fraction),
			change(nil, outside),
			change(nil, zone("CNAME", "a.example.org.")),
			change(nil, zone("SOA", "a.example.org. b.example.org. 1 2 3 4 5")),
			{Name: e.name("none"), Type: "A"},
			both,
		} {
			e.refused(dnsreg.ErrInvalid, c)
			err := e.apply(c)
			require.Contains(e.t, strings.ToLower(err.Error()), c.Name, "the error does not name the record")
		}
	}},
	{rule: "one RRset is changed once in a change set", needs: func(c dnsreg.Capabilities) bool { return c.MaxChanges != 1 }, run: func(e *env) {
		e.refused(dnsreg.ErrInvalid, change(nil, e.set("a", "A", "192.0.2.1")), change(e.set("a", "A", "192.0.2.1"), e.set("a", "A", "192.0.2.2")))
	}},
	{rule: "the zone keeps its own NS", run: func(e *env) {
		list, err := e.r.Records(e.t.Context(), e.zone)
		require.NoError(e.t, err)
		for _, r := range list {
			if r.Name == e.zone && r.Type == "NS" {
				require.ErrorIs(e.t, e.apply(change(&r, nil)), dnsreg.ErrInvalid)
				return
			}
		}
	}},
	{rule: "a TTL below the minimum is ErrInvalid", needs: func(c dnsreg.Capabilities) bool { return c.MinTTL > 0 }, run: func(e *env) {
		s := e.set("a", "A", "192.0.2.1")
		s.TTL = e.r.Capabilities().MinTTL - time.Second
		e.refused(dnsreg.ErrInvalid, change(nil, s))
	}},
	{rule: "more changes than the maximum are ErrInvalid", needs: func(c dnsreg.Capabilities) bool { return c.MaxChanges > 0 }, run: func(e *env) {
		var changes []dnsreg.Change
		for i := range e.r.Capabilities().MaxChanges + 1 {
			changes = append(changes, change(nil, e.set(fmt.Sprintf("n%d", i), "A", "192.0.2.1")))
		}
		require.ErrorIs(e.t, e.r.Apply(e.t.Context(), e.zone, changes), dnsreg.ErrInvalid)
		e.holds()
	}},
}
