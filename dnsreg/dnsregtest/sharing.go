package dnsregtest

import (
	"errors"
	"strings"

	"github.com/stretchr/testify/require"

	"github.com/scalr-go/scalr/dnsreg"
)

// sharing is what owners rely on together.
var sharing = []check{
	{rule: "owners share a name, and leave nothing behind when they go", run: func(e *env) {
		person := e.set("www", "A", "192.0.2.9")
		alias := e.set("alias", "CNAME", "www."+e.base)
		e.create(person)
		sync := func(owner string, want ...*dnsreg.RRset) {
			e.t.Helper()
			var sets []dnsreg.RRset
			for _, w := range want {
				sets = append(sets, *w)
			}
			_, err := dnsreg.Sync(e.t.Context(), e.r, e.zone, owner, sets)
			require.NoError(e.t, err)
			have, err := e.r.Records(e.t.Context(), e.zone)
			require.NoError(e.t, err)
			left, err := dnsreg.Diff(e.zone, owner, have, sets)
			require.NoError(e.t, err)
			require.Empty(e.t, left, "there is still something to do")
		}
		values := func(want ...string) {
			e.t.Helper()
			got := e.get("www", "A")
			require.NotNil(e.t, got)
			require.Equal(e.t, want, got.Values)
		}
		sync("one", e.set("www", "A", "192.0.2.1", "192.0.2.2"), alias, e.set("*", "TXT", strings.Repeat(`long "text" `, 50)))
		sync("two", e.set("www", "A", "192.0.2.2", "192.0.2.3"))
		values("192.0.2.1", "192.0.2.2", "192.0.2.3", "192.0.2.9")
		sync("one", e.set("www", "A", "192.0.2.4", "192.0.2.9"))
		values("192.0.2.2", "192.0.2.3", "192.0.2.4", "192.0.2.9")
		require.Nil(e.t, e.get("alias", "CNAME"))
		_, err := dnsreg.Sync(e.t.Context(), e.r, e.zone, "two", []dnsreg.RRset{*e.set("www", "CNAME", "a.example.org.")})
		refused, ok := errors.AsType[*dnsreg.RefusedError](err)
		require.True(e.t, ok, "a CNAME beside data of others: %v", err)
		require.Len(e.t, refused.Refused, 1)
		sync("two")
		values("192.0.2.4", "192.0.2.9")
		sync("one")
		e.holds(person)
	}},
}
