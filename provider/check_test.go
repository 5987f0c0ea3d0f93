package provider_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/scalr-go/scalr/provider"
)

func TestCheckNamesTheFieldTheValueAndTheRule(t *testing.T) {
	launch := func(change func(*provider.Launch)) error {
		l := provider.Launch{Token: "t", Name: "www-1", Image: "debian", Volumes: []string{"v", "w"}, Tags: map[string]string{"farm": "shop"}}
		change(&l)
		return l.Check()
	}
	balancer := func(change func(*provider.BalancerSpec)) error {
		b := provider.BalancerSpec{Token: "t", Protocol: "http", Port: 80, TargetPort: 8080, HealthPath: "/up", Drain: time.Minute}
		change(&b)
		return b.Check()
	}
	many := map[string]string{}
	for n := range 41 {
		many[fmt.Sprint(n)] = ""
	}
	for want, err := range map[string]error{
		"Launch: invalid: Token has 0 characters, want 1 to 64":                                           launch(func(l *provider.Launch) { l.Token = "" }),
		"Launch a.b: invalid: Token has '.', want letters, digits, '-' and '_'":                           launch(func(l *provider.Launch) { l.Token = "a.b" }),
		`Launch t: invalid: Image is empty, want the name of an image`:                                    launch(func(l *provider.Launch) { l.Image = "" }),
		`Launch t: invalid: Volumes[1] is "v", want the ID of another volume each`:                        launch(func(l *provider.Launch) { l.Volumes[1] = "v" }),
		`Launch t: invalid: Volumes[0] is "", want the ID of another volume each`:                         launch(func(l *provider.Launch) { l.Volumes[0] = "" }),
		"Launch t: invalid: Tags has 41 entries, want at most 40":                                         launch(func(l *provider.Launch) { l.Tags = many }),
		"Launch t: invalid: Tags has a key of 0 bytes, want 1 to 128":                                     launch(func(l *provider.Launch) { l.Tags[""] = "x" }),
		"Launch t: invalid: Tags has a key of 129 bytes, want 1 to 128":                                   launch(func(l *provider.Launch) { l.Tags[strings.Repeat("k", 129)] = "x" }),
		"Launch t: invalid: Tags[farm] has 256 bytes, want at most 255":                                   launch(func(l *provider.Launch) { l.Tags["farm"] = strings.Repeat("v", 256) }),
		`Launch t: invalid: Name is "www_1", want a DNS label: letters, digits and inner '-', at most 63`: launch(func(l *provider.Launch) { l.Name = "www_1" }),
		`Launch t: invalid: Name is "-www", want a DNS label: letters, digits and inner '-', at most 63`:  launch(func(l *provider.Launch) { l.Name = "-www" }),
		`Launch t: invalid: Name is "www-", want a DNS label: letters, digits and inner '-', at most 63`:  launch(func(l *provider.Launch) { l.Name = "www-" }),

		"CreateVolume t: invalid: SizeGB is 0, want at least 1, or 0 with a Snapshot":  provider.VolumeSpec{Token: "t"}.Check(),
		"CreateVolume t: invalid: SizeGB is -1, want at least 1, or 0 with a Snapshot": provider.VolumeSpec{Token: "t", SizeGB: -1, Snapshot: "s"}.Check(),
		"CreateSnapshot t: invalid: Volume is empty, want the ID of a volume":          provider.SnapshotSpec{Token: "t"}.Check(),
		"CreateImage t: invalid: Instance is empty, want the ID of an instance":        provider.ImageSpec{Token: "t"}.Check(),
		"AllocateAddress: invalid: Token has 0 characters, want 1 to 64":               provider.AddressSpec{}.Check(),

		`CreateBalancer t: invalid: Protocol is "udp", want http or tcp`:                balancer(func(b *provider.BalancerSpec) { b.Protocol = "udp" }),
		"CreateBalancer t: invalid: Port is 0, want 1 to 65535":                         balancer(func(b *provider.BalancerSpec) { b.Port = 0 }),
		"CreateBalancer t: invalid: Port is 65536, want 1 to 65535":                     balancer(func(b *provider.BalancerSpec) { b.Port = 65536 }),
		"CreateBalancer t: invalid: TargetPort is -1, want 1 to 65535, or 0 for Port":   balancer(func(b *provider.BalancerSpec) { b.TargetPort = -1 }),
		`CreateBalancer t: invalid: HealthPath is "up", want a path that begins with /`: balancer(func(b *provider.BalancerSpec) { b.HealthPath = "up" }),
		"CreateBalancer t: invalid: Drain is -1ns, want at least 0":                     balancer(func(b *provider.BalancerSpec) { b.Drain = -1 }),
	} {
		require.EqualError(t, err, want)
		require.ErrorIs(t, err, provider.ErrInvalid)
	}
	require.NoError(t, launch(func(*provider.Launch) {}))
	require.NoError(t, launch(func(l *provider.Launch) { l.Name, l.Volumes, l.Tags = "", nil, nil }))
	require.NoError(t, launch(func(l *provider.Launch) { l.Token = strings.Repeat("aZ9-_", 12) + "1234" }))
	require.Error(t, launch(func(l *provider.Launch) { l.Token = strings.Repeat("x", 65) }))
	require.Error(t, launch(func(l *provider.Launch) { l.Name = strings.Repeat("x", 64) }))
	require.NoError(t, launch(func(l *provider.Launch) { l.Name = strings.Repeat("x", 63) }))
	require.NoError(t, balancer(func(b *provider.BalancerSpec) { b.TargetPort, b.HealthPath, b.Drain = 0, "", 0 }))
	require.NoError(t, provider.VolumeSpec{Token: "t", Snapshot: "s"}.Check())
	require.NoError(t, provider.SnapshotSpec{Token: "t", Volume: "v"}.Check())
	require.NoError(t, provider.AddressSpec{Token: "t"}.Check())
	require.NoError(t, provider.ImageSpec{Token: "t", Instance: "i"}.Check())
}

func TestMatches(t *testing.T) {
	tags := rapid.MapOf(rapid.SampledFrom([]string{"a", "b", "c"}), rapid.SampledFrom([]string{"", "1", "2"}))
	rapid.Check(t, func(t *rapid.T) {
		have, want := tags.Draw(t, "have"), tags.Draw(t, "want")
		all := true
		for k, v := range want {
			got, ok := have[k]
			all = all && ok && got == v
		}
		require.Equal(t, all, provider.Matches(have, want))
		require.True(t, provider.Matches(have, nil))
	})
}

func TestDiffersNamesTheFirstField(t *testing.T) {
	a := provider.Launch{Token: "t", Image: "debian", Size: "small", Tags: map[string]string{"farm": "shop"}, Volumes: []string{}}
	b := a
	b.Tags, b.Volumes = map[string]string{"farm": "shop"}, nil
	require.Empty(t, provider.Differs(a, b), "an empty slice is none")
	b.Tags["farm"] = "other"
	require.Equal(t, "Tags", provider.Differs(a, b))
	b.Size = "large"
	require.Equal(t, "Size", provider.Differs(a, b))
	require.Equal(t, "UserData", provider.Differs(provider.Launch{UserData: provider.Secret("a")}, provider.Launch{UserData: provider.Secret("b")}))
	require.Equal(t, "Drain", provider.Differs(provider.BalancerSpec{Drain: 1}, provider.BalancerSpec{}))
	require.Equal(t, "Tags", provider.Differs(provider.AddressSpec{Tags: map[string]string{"a": ""}}, provider.AddressSpec{}))
}

func TestErrorsHaveTheirKindAndTheirCause(t *testing.T) {
	cause := errors.New("HTTP 503")
	for want, e := range map[string]*provider.Error{
		"Launch www-1: throttled: HTTP 503 (retry after 2s)": {Op: "Launch", ID: "www-1", Kind: provider.ErrThrottled, Err: cause, RetryAfter: 2 * time.Second},
		"Launch: HTTP 503":    {Op: "Launch", Err: cause},
		"Stop i-1: throttled": {Op: "Stop", ID: "i-1", Kind: provider.ErrThrottled},
	} {
		err := fmt.Errorf("pass: %w", e)
		require.EqualError(t, e, want)
		require.Equal(t, e.Kind != nil, errors.Is(err, provider.ErrThrottled))
		require.Equal(t, e.Err != nil, errors.Is(err, cause))
		require.NotErrorIs(t, err, provider.ErrQuota)
		got, ok := errors.AsType[*provider.Error](err)
		require.True(t, ok)
		require.Equal(t, e, got)
	}
}

type bare struct{ provider.Provider }

type wrapper struct{ bare }

func (w wrapper) Unwrap() provider.Provider { return w.Provider }

type power struct {
	bare
	provider.Power
}

func TestAsLooksThroughWrappers(t *testing.T) {
	p := power{}
	for name, c := range map[string]struct {
		p    provider.Provider
		want bool
	}{
		"itself":            {p, true},
		"one wrapper":       {wrapper{bare{p}}, true},
		"two wrappers":      {wrapper{bare{wrapper{bare{p}}}}, true},
		"no wrapper":        {bare{p}, false},
		"nothing there":     {wrapper{bare{bare{}}}, false},
		"a wrapper of none": {wrapper{}, false},
		"nil":               {nil, false},
	} {
		_, ok := provider.As[provider.Power](c.p)
		require.Equal(t, c.want, ok, name)
		_, ok = provider.As[provider.Volumes](c.p)
		require.False(t, ok, name)
	}
	outer := power{bare: bare{p}, Power: marked{}}
	got, ok := provider.As[provider.Power](wrapper{bare{outer}})
	require.True(t, ok)
	require.Equal(t, outer, got, "the outermost wins")
}

type marked struct{ provider.Power }
