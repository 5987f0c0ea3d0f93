package dnsregtest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/scalr-go/scalr/dnsreg"
)

// changing is what Apply does.
var changing = []check{
	{rule: "a change replaces all values", run: func(e *env) {
		old, new := e.set("a", "A", "192.0.2.1", "192.0.2.2"), e.set("a", "A", "192.0.2.2", "192.0.2.3")
		e.create(old)
		e.must(change(old, new))
		e.holds(new)
	}},
	{rule: "a change of the TTL alone is made", run: func(e *env) {
		old, new := e.set("a", "A", "192.0.2.1"), e.set("a", "A", "192.0.2.1")
		new.TTL += time.Second
		e.create(old)
		e.must(change(old, new))
		e.holds(new)
	}},
	{rule: "a removal removes its type and no other", run: func(e *env) {
		a, txt, below := e.set("a", "A", "192.0.2.1"), e.set("a", "TXT", "x"), e.set("b.a", "A", "192.0.2.2")
		e.create(a, txt, below)
		e.must(change(a, nil))
		e.holds(txt, below)
	}},
	{rule: "order, repetition and upper case make no difference", run: func(e *env) {
		e.create(e.set("a", "AAAA", "2001:db8::2", "2001:db8::1", "2001:DB8:0:0::1"))
		old := e.set("A", "AAAA", "2001:db8::2", "2001:db8::1")
		new := e.set("a", "AAAA", "2001:db8::3")
		e.must(change(old, new))
		e.holds(new)
	}},
	{rule: "no changes are no call and no error", run: func(e *env) {
		require.NoError(e.t, e.r.Apply(e.t.Context(), e.zone, nil))
		require.NoError(e.t, e.r.Apply(e.t.Context(), e.zone, []dnsreg.Change{}))
	}},
	{rule: "a change to what is there already succeeds and changes nothing", run: func(e *env) {
		s := e.set("a", "A", "192.0.2.1")
		e.create(s)
		e.must(change(s, e.set("a", "A", "192.0.2.1")))
		e.holds(s)
	}},
	{rule: "one change set replaces data by a CNAME and back", needs: atomic, run: func(e *env) {
		if m := e.r.Capabilities().MaxChanges; m == 1 {
			return
		}
		a, c := e.set("a", "A", "192.0.2.1"), e.set("a", "CNAME", "b.example.org.")
		e.create(a)
		e.must(change(nil, c), change(a, nil))
		e.holds(c)
		e.must(change(c, nil), change(nil, a))
		e.holds(a)
	}},
	{rule: "all changes of a call are made, or none", needs: atomic, run: func(e *env) {
		if m := e.r.Capabilities().MaxChanges; m > 0 && m < 3 {
			return
		}
		a, b := e.set("a", "A", "192.0.2.1"), e.set("b", "A", "192.0.2.2")
		e.create(a, b)
		e.refused(dnsreg.ErrConflict, change(a, e.set("a", "A", "192.0.2.11")),
			change(e.set("b", "A", "192.0.2.99"), e.set("b", "A", "192.0.2.12")), change(nil, e.set("c", "A", "192.0.2.13")))
		e.refused(dnsreg.ErrConflict, change(nil, e.set("c", "A", "192.0.2.13")), change(a, nil),
			change(nil, e.set("b", "A", "192.0.2.12")))
	}},
	{rule: "a reader never sees a part of a change set", needs: atomic, run: func(e *env) {
		if m := e.r.Capabilities().MaxChanges; m == 1 {
			return
		}
		at := func(i int) (a, b *dnsreg.RRset) {
			v := fmt.Sprintf("192.0.2.%d", i)
			return e.set("a", "A", v), e.set("z", "A", v)
		}
		a, b := at(0)
		e.create(a, b)
		ctx, done := context.WithCancel(e.t.Context())
		defer done()
		var writer sync.WaitGroup
		var failed error
		writer.Go(func() {
			defer done()
			for i := 1; i <= 20 && failed == nil; i++ {
				a0, b0 := at(i - 1)
				a1, b1 := at(i)
				failed = e.r.Apply(e.t.Context(), e.zone, []dnsreg.Change{change(a0, a1), change(b0, b1)})
			}
		})
		for torn := ""; ; {
			list := e.records()
			if len(list) != 2 || list[0].Values[0] != list[1].Values[0] {
				torn = fmt.Sprint(list)
			}
			if torn != "" || ctx.Err() != nil {
				writer.Wait()
				require.Empty(e.t, torn)
				require.NoError(e.t, failed)
				return
			}
		}
	}},
	{rule: "a failure half-way says what was made and what was not", needs: func(c dnsreg.Capabilities) bool { return !c.Atomic },
		run: func(e *env) {
			b := e.set("b", "A", "192.0.2.2")
			e.create(b)
			changes := []dnsreg.Change{change(nil, e.set("a", "A", "192.0.2.1")),
				change(e.set("b", "A", "192.0.2.99"), e.set("b", "A", "192.0.2.12")), change(nil, e.set("c", "A", "192.0.2.3"))}
			err := e.apply(changes...)
			require.ErrorIs(e.t, err, dnsreg.ErrConflict)
			partial, ok := errors.AsType[*dnsreg.PartialError](err)
			require.True(e.t, ok, "not a *PartialError: %v", err)
			require.Len(e.t, slices.Concat(partial.Done, partial.Unknown, partial.Failed), 3)
			for _, c := range partial.Done {
				require.Equal(e.t, c.New, e.get(strings.TrimSuffix(c.Name, "."+e.base), c.Type), "said to be made")
			}
			for _, c := range partial.Failed {
				require.NotEqual(e.t, c.New, e.get(strings.TrimSuffix(c.Name, "."+e.base), c.Type), "said to be not made")
			}
		}},
}
