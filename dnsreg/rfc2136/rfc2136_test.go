package rfc2136_test

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/scalr-go/scalr/dnsreg"
	"github.com/scalr-go/scalr/dnsreg/dnsregtest"
	"github.com/scalr-go/scalr/dnsreg/nameserver"
	"github.com/scalr-go/scalr/dnsreg/rfc2136"
	"github.com/scalr-go/scalr/dnsreg/tsig"
	"github.com/scalr-go/scalr/internal/testenv"
)

const zone = "farm.example."

var key = tsig.Key{Name: "farm.", Secret: []byte("0123456789abcdef0123456789abcdef")}

const file = `$ORIGIN farm.example.
@ 3600 IN SOA ns hostmaster 1 3600 600 1209600 20
@ 3600 IN NS ns
ns 3600 IN A 127.0.0.1
person 300 IN CAA 0 issue "ca.example"
person 300 IN TXT "first"
person 300 IN TXT "v=DKIM1; " "p=" "abc"
person 300 IN TXT "v=DKIM1; p=" "abc"
`

// servers are those that take updates: real ones and our own.
var servers = []string{"named", "knotd", "ours"}

// start runs a primary that takes updates, and gives its address.
func start(t *testing.T, program string) string {
	if program != "ours" {
		return testenv.NameServer(t, program, testenv.DNS{Zone: zone, Key: key, File: file, Dynamic: true, Crowded: true}).Addr
	}
	s, err := nameserver.New(nameserver.Options{Zones: []nameserver.Zone{{Name: zone, Updaters: []tsig.Key{key}}}})
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	var run sync.WaitGroup
	run.Go(func() { _ = s.Run(ctx) })
	t.Cleanup(func() { cancel(); run.Wait() })
	return s.Addr().String()
}

func primary(t *testing.T, program string) *rfc2136.Registrar {
	addr := start(t, program)
	r, err := rfc2136.New(rfc2136.Options{Server: addr, Key: key})
	require.NoError(t, err)
	var last error
	require.Eventually(t, func() bool { _, last = r.Records(t.Context(), zone); return last == nil }, time.Minute, 20*time.Millisecond,
		"%v", func() error { return last })
	return r
}

// each runs a test on each server.
func each(t *testing.T, test func(t *testing.T, r *rfc2136.Registrar)) {
	for _, program := range servers {
		t.Run(program, func(t *testing.T) {
			leak := goleak.IgnoreCurrent()
			t.Cleanup(func() { goleak.VerifyNone(t, leak) })
			test(t, primary(t, program))
		})
	}
}

func TestRegistrar(t *testing.T) {
	each(t, func(t *testing.T, r *rfc2136.Registrar) {
		dnsregtest.Run(t, func(*testing.T) (dnsreg.Registrar, string) { return r, zone })
	})
}

func set(label, typ string, values ...string) *dnsreg.RRset {
	return &dnsreg.RRset{Name: label + zone, Type: typ, TTL: time.Minute, Values: values}
}

func create(sets ...*dnsreg.RRset) (changes []dnsreg.Change) {
	for _, s := range sets {
		changes = append(changes, dnsreg.Change{Name: s.Name, Type: s.Type, New: s})
	}
	return changes
}

func get(t *testing.T, r dnsreg.Registrar, name, typ string) *dnsreg.RRset {
	list, err := r.Records(t.Context(), zone)
	require.NoError(t, err)
	for _, s := range list {
		if s.Name == name && s.Type == typ {
			return &s
		}
	}
	return nil
}

// A type that dnsreg does not know is listed, and a CNAME beside it is refused, although the server would ignore it.
func TestTypesOfOthersAreSeen(t *testing.T) {
	for _, program := range []string{"named", "knotd"} {
		r := primary(t, program)
		caa := get(t, r, "person."+zone, "CAA")
		require.NotNil(t, caa)
		require.Equal(t, []string{`0 issue "ca.example"`}, caa.Values)
		err := r.Apply(t.Context(), zone, create(set("person.", "CNAME", "a.example.org.")))
		require.ErrorIs(t, err, dnsreg.ErrInvalid)
		require.ErrorContains(t, err, "person.farm.example. CNAME")
	}
}

// How a text is cut into strings does not count, though servers compare strings: who shares a name with such a one can still
// change it, and under a precondition.
func TestTextsThatAreCutOtherwiseAreShared(t *testing.T) {
	for _, program := range []string{"named", "knotd"} {
		t.Run(program, func(t *testing.T) {
			r := primary(t, program)
			person := get(t, r, "person."+zone, "TXT")
			require.Equal(t, []string{"first", "v=DKIM1; p=abc"}, person.Values)
			stale, new := set("person.", "TXT", "first", "v=DKIM1; p=abd"), set("person.", "TXT", "x")
			require.ErrorIs(t, r.Apply(t.Context(), zone, []dnsreg.Change{{Name: new.Name, Type: "TXT", Old: stale, New: new}}), dnsreg.ErrConflict)
			mine := set("person.", "TXT", "mine")
			mine.TTL = person.TTL
			_, err := dnsreg.Sync(t.Context(), r, zone, "shop", []dnsreg.RRset{*mine, *set("www.", "A", "192.0.2.1")})
			require.NoError(t, err)
			require.Equal(t, []string{"first", "mine", "v=DKIM1; p=abc"}, get(t, r, "person."+zone, "TXT").Values)
			require.NotNil(t, get(t, r, "www."+zone, "A"))
			_, err = dnsreg.Sync(t.Context(), r, zone, "shop", nil)
			require.NoError(t, err)
			require.Equal(t, person, get(t, r, "person."+zone, "TXT"))
		})
	}
}

// The zone's own name servers are changed value by value, since a server keeps the last of them.
func TestTheZonesNameServersAreReplaced(t *testing.T) {
	each(t, func(t *testing.T, r *rfc2136.Registrar) {
		old := get(t, r, zone, "NS")
		new := &dnsreg.RRset{Name: zone, Type: "NS", TTL: time.Hour, Values: []string{"ns1.example.org.", "ns2.example.org."}}
		require.NoError(t, r.Apply(t.Context(), zone, []dnsreg.Change{{Name: zone, Type: "NS", Old: old, New: new}}))
		require.Equal(t, new, get(t, r, zone, "NS"))
	})
}

// A transfer of many messages is listed whole, and a change set of about a thousand changes is one message.
func TestLargeZones(t *testing.T) {
	each(t, func(t *testing.T, r *rfc2136.Registrar) {
		var want []dnsreg.RRset
		for i := range 3000 {
			want = append(want, *set(fmt.Sprintf("n%05d.", i), "TXT", fmt.Sprintf("%0100d", i)))
		}
		var all []dnsreg.Change
		for i := range want {
			all = append(all, create(&want[i])...)
		}
		require.ErrorIs(t, r.Apply(t.Context(), zone, all), dnsreg.ErrInvalid, "too large for one message")
		made, err := dnsreg.Sync(t.Context(), r, zone, "test", want)
		require.NoError(t, err)
		require.Len(t, made, 6000)
		list, err := r.Records(t.Context(), zone)
		require.NoError(t, err)
		require.Len(t, dnsreg.Owned(zone, "test", list), 3000)
		made, err = dnsreg.Sync(t.Context(), r, zone, "test", nil)
		require.NoError(t, err)
		require.Len(t, made, 6000)
	})
}

func TestAnotherKeyIsRefused(t *testing.T) {
	for _, program := range servers {
		t.Run(program, func(t *testing.T) {
			addr := start(t, program)
			for _, k := range []tsig.Key{{Name: "other.", Secret: key.Secret}, {Name: "farm.", Secret: make([]byte, 32)}} {
				r, err := rfc2136.New(rfc2136.Options{Server: addr, Key: k})
				require.NoError(t, err)
				_, err = r.Records(t.Context(), zone)
				require.Error(t, err)
				require.NotErrorIs(t, err, dnsreg.ErrNoZone, "the key is wrong, not the zone")
				require.Error(t, r.Apply(t.Context(), zone, create(set("a.", "A", "192.0.2.1"))))
				require.NotContains(t, err.Error(), string(key.Secret))
			}
			r, err := rfc2136.New(rfc2136.Options{Server: addr, Key: key})
			require.NoError(t, err)
			require.Nil(t, get(t, r, "a."+zone, "A"))
		})
	}
}

// A name has thousands of addresses that are owned: they come, change and go, however many at once.
func TestACrowdAtOneName(t *testing.T) {
	each(t, func(t *testing.T, r *rfc2136.Registrar) {
		sync := func(from, to, step int) {
			t.Helper()
			var want []dnsreg.RRset
			if from < to {
				www := set("www.", "A")
				for i := from; i < to; i += step {
					www.Values = append(www.Values, fmt.Sprintf("10.%d.%d.%d", i>>16, i>>8&255, i&255))
				}
				want = append(want, *www, *set("one.", "A", "192.0.2.1"))
			}
			_, err := dnsreg.Sync(t.Context(), r, zone, "farm/shop", want)
			require.NoError(t, err)
			list, err := r.Records(t.Context(), zone)
			require.NoError(t, err)
			owned := dnsreg.Owned(zone, "farm/shop", list)
			if from == to {
				require.Empty(t, owned)
				return
			}
			require.Len(t, owned, 2)
			require.Len(t, owned[1].Values, (to-from+step-1)/step)
		}
		sync(0, 2000, 1)
		sync(1, 2001, 1)
		sync(0, 2001, 2)
		sync(0, 2000, 1)
		sync(2000, 4000, 1) // more than goes into one message with its marks
		sync(0, 0, 1)
	})
}

// What a server does not take is told in words that lead to its setting.
func TestACrowdThatBINDRefuses(t *testing.T) {
	addr := testenv.NameServer(t, "named", testenv.DNS{Zone: zone, Key: key, File: file, Dynamic: true}).Addr
	r, err := rfc2136.New(rfc2136.Options{Server: addr, Key: key})
	require.NoError(t, err)
	require.Eventually(t, func() bool { _, err := r.Records(t.Context(), zone); return err == nil }, time.Minute, 20*time.Millisecond)
	www := set("www.", "A")
	for i := range 101 {
		www.Values = append(www.Values, fmt.Sprintf("10.0.0.%d", i))
	}
	made, err := dnsreg.Sync(t.Context(), r, zone, "shop", []dnsreg.RRset{*www})
	require.ErrorContains(t, err, "the server says SERVFAIL to the update of farm.example.; www.farm.example. A would have 101 values, and BIND takes 100 unless its max-records-per-type says otherwise")
	require.Empty(t, made)
	www.Values = www.Values[1:]
	_, err = dnsreg.Sync(t.Context(), r, zone, "shop", []dnsreg.RRset{*www})
	require.NoError(t, err)
}
